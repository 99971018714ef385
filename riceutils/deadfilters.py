"""Black feature maps by numbers: how many filters do no work, and how far a picture of them can be trusted.

*Black on an image*: every output of the filter is zero there. *Dead*: black on every image of the probe set. *Looks
black*: of the picture of its map no more than ``FEW`` of the pixels are brighter than ``DARK``; it may be drawn from
its own smallest to its own largest value, as matplotlib does unless told otherwise, or on one scale for its layer.
Charts are ``(figure, table)``, as in :mod:`riceutils.plots`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import seaborn as sns
from scipy import stats

from riceutils import activations, claims, data, evaluation, files, generalisation, grains, runs, study
from riceutils.data import Splits
from riceutils.models import pretrained
from riceutils.plots import PALETTE, Chart, figure, mosaic
from riceutils.runs import Run
from riceutils.subjects import perturbed_test

RESULTS = files.PACKAGE / "results" / "filters"
TABLES = ("looks", "growth", "stability")
DARK, FEW = 0.1, 0.01  # of white; of the pixels
SIZES = (1, 2, 5, 10, 20, 50, 100, 200, 500)  # images of a probe set
ORDERS = 50  # random orders in which images join it
IMAGES = 600  # of each probe set


def filters(run: Run, images: np.ndarray) -> pd.DataFrame:
    """The run's own table of filters; measured on uint8 ``images`` where it was made before it told all of that."""
    table = run.filters
    known = "redundancy" in table
    return table if known else activations.measure(run.model(), images, run.spec.preprocessing)


def census(counted: Sequence[Run]) -> pd.DataFrame:
    """A row per convolution of each run: model, seed, layer, depth (from 0 at the image to 1), filters, never fire,
    the latter's share with Wilson's 95 % interval, black maps (mean share of the images), APoZ, APoZ on grain."""
    rows = []
    for run in counted:
        filters = run.filters
        depth = claims.depths(filters["layer"]) / max(1, claims.depths(filters["layer"]).max())
        for name, own in filters.assign(depth=depth).groupby("layer", sort=False):
            never = int((own["fires"] == 0).sum())
            share = evaluation.wilson(never, len(own))
            rows.append(
                {
                    "model": run.spec.model,
                    "seed": run.spec.seed,
                    "layer": name,
                    "depth": own["depth"].iloc[0],
                    "filters": len(own),
                    "never fire": never,
                    "share": share.value,
                    "low": share.low,
                    "high": share.high,
                    "black maps": 1 - own["fires"].mean(),
                    "APoZ": own["apoz"].mean(),
                    "APoZ on grain": own["apoz_grain"].mean(),
                }
            )
    return pd.DataFrame(rows)


def totals(counted: Sequence[Run]) -> pd.DataFrame:
    """A row per run: model, seed, filters, how many never fire, their share with Wilson's interval, and how many
    images at most, in 95 % of cases, such a filter fires on although it did on none of the probe set."""
    rows = []
    for run in counted:
        never, total = int((run.filters["fires"] == 0).sum()), len(run.filters)
        share = evaluation.wilson(never, total)
        images = run.record["data"]["images"]["test"]
        limit = 1 - 0.05 ** (1 / images)  # the exact upper bound for none of so many, 3/n in short
        found = {"share": share.value, "low": share.low, "high": share.high, "images": images}
        own = {"model": run.spec.model, "seed": run.spec.seed, "filters": total, "never fire": never}
        rows.append(own | found | {"fires on at most": limit})
    return pd.DataFrame(rows)


def by_depth(table: pd.DataFrame) -> Chart:
    """Share of filters that never fire (left) and mean share of black maps (right) along the depth of a network.

    ``table`` is one of :func:`census`; a line per model, mean over seeds; bars, left, are Wilson's intervals of all
    seeds' filters together.
    """
    canvas, axes = figure(4.0, 1, 2)
    for number, (model, own) in enumerate(table.groupby("model", sort=False)):
        layers = own.groupby("depth").agg({"never fire": "sum", "filters": "sum", "black maps": "mean"}).reset_index()
        shares = [evaluation.wilson(*pair) for pair in zip(layers["never fire"], layers["filters"], strict=True)]
        spread = np.array([[s.value - s.low for s in shares], [s.high - s.value for s in shares]])
        style = {"color": PALETTE[number % len(PALETTE)], "ms": 4, "linewidth": 1.2}
        values = [share.value for share in shares]
        axes[0, 0].errorbar(layers["depth"], values, spread, fmt="o-", elinewidth=0.7, label=model, **style)
        axes[0, 1].plot(layers["depth"], layers["black maps"], "o-", **style)
    axes[0, 0].set(xlabel="depth, 0 at the image, 1 at the last convolution", ylabel="filters that never fire")
    axes[0, 1].set(xlabel="depth", ylabel="maps that are black on an image")
    for axis in axes[0]:
        axis.set_ylim(0, None)
    canvas.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=8)
    return canvas, table


def looks(run: Run, images: np.ndarray) -> pd.DataFrame:
    """How the maps of uint8 ``images`` (N, H, W, 3) look, layer by layer, and what is true of them.

    Shares of the N × filters maps: ``looks black`` drawn each on a scale of its own, ``looks black, one scale`` drawn
    from 0 to the layer's largest value on that image, ``black`` (zero everywhere), and, of the maps that look black,
    ``of those dead``: their filter never fired on the run's test set.
    """
    pixels = pretrained.preprocess(images, run.spec.preprocessing)
    never = {name: (own["fires"] == 0).to_numpy() for name, own in run.filters.groupby("layer")}
    rows = []
    for name, output in activations.fired(run.model()).predict(pixels, verbose=0, batch_size=8).items():
        low, high = output.min(axis=(1, 2), keepdims=True), output.max(axis=(1, 2), keepdims=True)
        own = (output - low > DARK * (high - low)).mean(axis=(1, 2)) <= FEW
        one = (output > DARK * high.max(axis=3, keepdims=True)).mean(axis=(1, 2)) <= FEW
        dead = np.broadcast_to(never[name], own.shape)
        rows.append(
            {
                "model": run.spec.model,
                "layer": name,
                "filters": output.shape[-1],
                "looks black": own.mean(),
                "looks black, one scale": one.mean(),
                "black": (high[:, 0, 0] <= 0).mean(),
                "never fire": never[name].mean(),
                "of those dead": (dead & own).sum() / own.sum() if own.any() else np.nan,
            }
        )
    order = list(dict.fromkeys(run.filters["layer"]))
    return pd.DataFrame(rows).sort_values("layer", key=lambda names: names.map(order.index), ignore_index=True)


def impressions(table: pd.DataFrame) -> pd.DataFrame:
    """:func:`looks` of whole networks: a row per model, all its layers and seeds together, weighted by filters."""
    shares = ["looks black", "looks black, one scale", "black", "never fire"]
    counts = table[shares].mul(table["filters"], axis=0)
    counts["of those dead"] = counts["looks black"] * table["of those dead"].fillna(0)
    sums = counts.assign(filters=table["filters"]).groupby(table["model"], sort=False).sum()
    found = sums[shares].div(sums["filters"], axis=0)
    found["of those dead"] = sums["of those dead"] / sums["looks black"].where(sums["looks black"] > 0)
    found.insert(0, "filters", sums["filters"].astype(int))
    return found.reset_index()


def impression(outputs: np.ndarray, fires: np.ndarray, layer: str) -> Chart:
    """The maps (h, w, filters) of a layer as matplotlib draws them, each on its own scale; the dead are crossed out.

    ``fires`` (filters,): share of the probe set's images on which each fires. Beside it, one scale for all.
    """
    flat = outputs.reshape(-1, outputs.shape[-1])
    own = (outputs - flat.min(0)) / np.where(np.ptp(flat, 0) > 0, np.ptp(flat, 0), 1)
    one = outputs / (flat.max() or 1)
    canvas, axes = figure(4.6, 1, 2)
    for axis, values, title in zip(axes[0], (own, one), ("each map on its own scale", "one scale"), strict=True):
        picture, corners = mosaic(np.moveaxis(values, -1, 0), columns=int(np.ceil(np.sqrt(outputs.shape[-1]))))
        axis.imshow(picture, vmin=0, vmax=1, cmap="gray", interpolation="nearest")
        axis.set_title(f"{layer}: {title}", fontsize=10)
        axis.axis("off")
        for number in np.flatnonzero(fires == 0):
            (y, x), (height, width) = corners[number], outputs.shape[:2]
            for ends in ([y, y + height - 1], [y + height - 1, y]):
                axis.plot([x, x + width - 1], ends, color=PALETTE[3], linewidth=1)
    black = {"looks black": own, "looks black, one scale": one}
    told = {name: (values > DARK).mean((0, 1)) <= FEW for name, values in black.items()}
    return canvas, pd.DataFrame({"filter": range(outputs.shape[-1]), **told, "fires": fires})


def growth(run: Run, images: np.ndarray, seed: int = 0) -> pd.DataFrame:
    """How many filters never fire on the first n images, n in ``SIZES`` and all: over ``ORDERS`` random orders.

    A row per n: model, filters, images, never fire (mean), low, high (2.5th and 97.5th percentile of the orders).
    """
    fires = np.concatenate(list(activations.firing(run.model(), images, run.spec.preprocessing).values()), axis=1)
    rng = np.random.default_rng(seed)
    counts: dict[int, list[int]] = {n: [] for n in (*(n for n in SIZES if n < len(images)), len(images))}
    for _ in range(ORDERS):
        so_far = np.maximum.accumulate(fires[rng.permutation(len(images))], axis=0)
        for n, found in counts.items():
            found.append(int((~so_far[n - 1]).sum()))
    return pd.DataFrame(
        [
            {
                "model": run.spec.model,
                "seed": run.spec.seed,
                "filters": fires.shape[1],
                "images": n,
                "never fire": np.mean(found),
                "low": np.percentile(found, 2.5),
                "high": np.percentile(found, 97.5),
            }
            for n, found in counts.items()
        ]
    )


def growing(table: pd.DataFrame) -> Chart:
    """:func:`growth` as lines: share of the filters that never fired so far against the images looked at (log)."""
    canvas, axes = figure(3.8)
    for number, (model, own) in enumerate(table.groupby("model", sort=False)):
        mean = own.groupby("images")[["never fire", "low", "high", "filters"]].mean()
        share = mean[["never fire", "low", "high"]].div(mean["filters"], axis=0)
        axes[0, 0].plot(share.index, share["never fire"], "o-", ms=4, color=PALETTE[number % 10], label=model)
        axes[0, 0].fill_between(share.index, share["low"], share["high"], color=PALETTE[number % 10], alpha=0.15)
    axes[0, 0].set(xscale="log", xlabel="images looked at", ylabel="filters that have not fired", ylim=(0, None))
    canvas.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=8)
    return canvas, table


def probes(splits: Splits) -> dict[str, np.ndarray]:
    """Probe sets of at most ``IMAGES`` each: test, validation, perturbed test, and, for real images, drawn grains."""
    rows = generalisation.subset(splits.test.labels, IMAGES)
    others = generalisation.subset(splits.validation.labels, IMAGES)
    sets = {"test": splits.test.images[rows], "validation": splits.validation.images[others]}
    sets["perturbed"] = perturbed_test(splits)[rows]
    if splits.kind == "real":
        drawn = data.load("synthetic", splits.image_size, [1, 1, IMAGES // len(grains.VARIETIES)], progress=False)
        sets["synthetic"] = drawn.test.images
    return sets


def stability(run: Run, sets: Mapping[str, np.ndarray]) -> pd.DataFrame:
    """Whether another probe set would have told the same filters: a row per set, against the first.

    Columns: model, seed, images (of the set), never fire, in both (never fire on the first set either), rank
    correlation (Spearman's, of the filters' APoZ within their layers, mean of the layers that vary).
    """
    measured = {n: activations.measure(run.model(), images, run.spec.preprocessing) for n, images in sets.items()}
    first = next(iter(measured.values()))
    rows = []
    for name, table in measured.items():
        pairs = table.assign(other=first["apoz"]).groupby("layer")
        varied = [own for _, own in pairs if min(own["apoz"].nunique(), own["other"].nunique()) > 1]
        together = [stats.spearmanr(own["apoz"], own["other"]).statistic for own in varied]
        never = (table["fires"] == 0, first["fires"] == 0)
        found = {"never fire": int(never[0].sum()), "in both": int((never[0] & never[1]).sum())}
        own = {"model": run.spec.model, "seed": run.spec.seed, "probe": name, "images": len(sets[name])}
        rows.append(own | found | {"rank correlation": float(np.mean(together)) if together else np.nan})
    return pd.DataFrame(rows)


def redundancy(filters: pd.DataFrame) -> Chart:
    """Correlation of every filter with its nearest neighbour, a dot each, per layer; see ``activations.measure``."""
    layers = list(dict.fromkeys(filters["layer"]))
    canvas, axes = figure(max(2.2, 0.3 * len(layers) + 1.2))
    sns.stripplot(filters, x="redundancy", y="layer", order=layers, size=3, alpha=0.6, color=PALETTE[0], ax=axes[0, 0])
    axes[0, 0].set(
        xlim=(-0.02, 1.02), xlabel="largest absolute correlation with another filter of the layer", ylabel=""
    )
    return canvas, filters[["layer", "filter", "redundancy", "nearest", "mean", "p99", "mean_grain", "p99_grain"]]


def twins(counted: Sequence[Run], limit: float = 0.95) -> pd.DataFrame:
    """A row per run with the measure: filters that fire, and how many correlate above ``limit`` with another."""
    rows = []
    for run in counted:
        if "redundancy" in run.filters:
            alive = run.filters[run.filters["fires"] > 0]
            share = evaluation.wilson(int((alive["redundancy"] > limit).sum()), len(alive))
            own = {"model": run.spec.model, "seed": run.spec.seed, "filters that fire": len(alive)}
            rows.append(own | {f"correlated above {limit:g}": share.value, "low": share.low, "high": share.high})
    return pd.DataFrame(rows)


def reference(source: str) -> None:
    """Measure the reference runs on the real images and commit the tables; runs without weights here are left out.

    The tables are committed anew after each run; runs that they hold are not measured again. Runs whose
    ``filters.csv`` was made before it told means, percentiles and redundancy get a new one.
    """
    splits = study.reference(source)
    sets, examples = probes(splits), splits.test.images[:: max(1, len(splits.test) // 25)]
    kept = [run for run in claims.counted() if run.spec.standard]
    made = files.read_tables(RESULTS)
    made = {name: table[table["run"].isin([run.spec.key for run in kept])] for name, table in made.items()}
    for committed in kept:
        run = runs.find(committed.spec) or committed
        if all(name in made and run.spec.key in set(made[name]["run"]) for name in TABLES):
            continue
        if not run.has_weights:
            print(f"{committed.folder.name}: no weights here, left out.")
            continue
        if "redundancy" not in committed.filters:
            table = activations.measure(run.model(), splits.test.images, run.spec.preprocessing)
            for folder in (run.folder, committed.folder):
                files.write_csv(folder / "filters.csv", table)
            run = Run(run.folder)
        measured = {
            "looks": looks(run, np.asarray(examples)).assign(seed=run.spec.seed),
            "growth": growth(run, sets["test"]),
            "stability": stability(run, sets),
        }
        for name, table in measured.items():
            others = [made[name][made[name]["run"] != run.spec.key]] if name in made else []
            made[name] = pd.concat([*others, table.assign(run=run.spec.key)])
            files.write_csv(RESULTS / f"{name}.csv", made[name])
        print(f"{committed.folder.name}: measured.")


def committed() -> dict[str, pd.DataFrame]:
    """The tables of :func:`reference`, as far as they were measured."""
    return {name: table.drop(columns="run") for name, table in files.read_tables(RESULTS).items()}
