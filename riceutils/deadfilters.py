"""Black feature maps by numbers: how many filters do no work, and how far a picture of them can be trusted.

*Black on an image*: every output of the filter is zero there. *Dead*: black on every image of the probe set. *Looks
black*: of the picture of its map no more than ``FEW`` of the pixels are brighter than ``DARK``; it may be drawn from
its own smallest to its own largest value, as matplotlib does unless told otherwise, or on one scale for its layer.
Its charts are in :mod:`riceutils.filtercharts`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from scipy import stats

from riceutils import activations, data, evaluation, files, generalisation, grains, models, runs, study
from riceutils.data import Splits
from riceutils.models import pretrained
from riceutils.runs import Run
from riceutils.subjects import perturbed_test

RESULTS = files.PACKAGE / "results" / "filters"
TABLES = ("looks", "growth", "stability")
DARK, FEW = 0.1, 0.01  # of white; of the pixels
SIZES = (1, 2, 5, 10, 20, 50, 100, 200, 500)  # images of a probe set
ORDERS = 50  # random orders in which images join it
ALIKE = 0.95  # correlation from which on two filters do the same
IMAGES = 600  # of each probe set
TRUNK = 2000  # test images that the pretrained trunk is measured on


def filters(run: Run, images: np.ndarray) -> pd.DataFrame:
    """The run's own table of filters; measured on uint8 ``images`` where it was made before it told all of that."""
    if "redundancy" in run.filters:
        return run.filters
    return activations.measure(run.model(), images, run.spec.preprocessing)


def census(counted: Sequence[Run]) -> pd.DataFrame:
    """A row per convolution of each run: model, seed, layer, depth (from 0 at the image to 1), filters, never fire,
    the latter's share with Wilson's 95 % interval, black maps (mean share of the images), APoZ, APoZ on grain."""
    rows = []
    for run in counted:
        depth = activations.depths(run.filters["layer"])
        filters = run.filters.assign(depth=depth / max(1, depth.max()))
        for name, own in filters.groupby("layer", sort=False):
            place = {"model": run.spec.model, "seed": run.spec.seed, "layer": name, "depth": own["depth"].iloc[0]}
            rows.append(place | activations.black(own))
    return pd.DataFrame(rows)


def totals(counted: Sequence[Run]) -> pd.DataFrame:
    """A row per run: model, seed, filters, how many never fire, their share with Wilson's interval, and how many
    images at most, in 95 % of cases, such a filter fires on although it did on none of the probe set."""
    rows = []
    for run in counted:
        found, images = activations.black(run.filters), run.record["data"]["images"]["test"]
        own = {"model": run.spec.model, "seed": run.spec.seed}
        own |= {name: found[name] for name in ("filters", "never fire", "share", "low", "high")}
        limit = 1 - 0.05 ** (1 / images)  # the exact upper bound for none of so many, 3/n in short
        rows.append(own | {"images": images, "fires on at most": limit})
    return pd.DataFrame(rows)


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
    """:func:`looks` of whole networks: a row per model, all its layers and seeds together, weighted by filters.

    ``filters`` are those of one network."""
    shares = ["looks black", "looks black, one scale", "black", "never fire"]
    counts = table[shares].mul(table["filters"], axis=0)
    counts["of those dead"] = counts["looks black"] * table["of those dead"].fillna(0)
    sums = counts.assign(filters=table["filters"]).groupby(table["model"], sort=False).sum()
    found = sums[shares].div(sums["filters"], axis=0)
    found["of those dead"] = sums["of those dead"] / sums["looks black"].where(sums["looks black"] > 0)
    seeds = table.groupby("model", sort=False)["seed"].nunique() if "seed" in table else 1
    found.insert(0, "filters", (sums["filters"] / seeds).astype(int))
    return found.reset_index()


def growth(run: Run, images: np.ndarray) -> pd.DataFrame:
    """How many filters never fire on the first n images, n in ``SIZES`` and all: over ``ORDERS`` random orders.

    A row per n: model, filters, images, never fire (mean), low, high (2.5th and 97.5th percentile of the orders).
    """
    fires = activations.firing(run.model(), images, run.spec.preprocessing)
    rng = np.random.default_rng(0)
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


def probes(splits: Splits) -> dict[str, np.ndarray]:
    """Probe sets of at most ``IMAGES`` each: test, validation, perturbed test, and, for real images, drawn grains."""
    rows = generalisation.subset(splits.test.labels, IMAGES)
    others = generalisation.subset(splits.validation.labels, IMAGES)
    sets = {"test": splits.test.images[rows], "validation": splits.validation.images[others]}
    sets["perturbed"] = perturbed_test(splits)[rows]
    if splits.kind == "real":
        drawn = data.load("synthetic", splits.image_size, [1, 1, IMAGES // len(grains.VARIETIES)])
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


def over_seeds(counted: Sequence[Run]) -> pd.DataFrame:
    """How far the seeds of a model agree, layer by layer: a row per layer of every model that has several.

    Columns: model, layer, filters, seeds, and lowest and highest of the seeds for the filters that never fire and for
    the mean APoZ. Which filters they are cannot be compared: their order has no meaning.
    """
    kept: dict[str, list[Run]] = {}
    for run in counted:
        kept.setdefault(run.spec.model, []).append(run)
    rows = []
    for model, own in kept.items():
        if len(own) < 2:
            continue
        joined = pd.concat([run.filters.assign(seed=run.spec.seed) for run in own])
        layers = joined.assign(never=joined["fires"] == 0).groupby(["layer", "seed"], sort=False)
        each = layers.agg(filters=("never", "size"), never=("never", "sum"), apoz=("apoz", "mean"))
        for layer, seeds in each.groupby(level="layer", sort=False):
            never, apoz = seeds["never"], seeds["apoz"]
            found = (never.min(), never.max(), apoz.min(), apoz.max())
            rows.append((model, layer, seeds["filters"].iloc[0], len(seeds), *found))
    names = ["never fire, fewest", "never fire, most", "APoZ, lowest", "APoZ, highest"]
    return pd.DataFrame(rows, columns=["model", "layer", "filters", "seeds", *names])


def twins(counted: Sequence[Run]) -> pd.DataFrame:
    """A row per run with the measure: filters that fire, and how many correlate above ``ALIKE`` with another."""
    rows = []
    for run in counted:
        if "redundancy" in run.filters:
            alive = run.filters[run.filters["fires"] > 0]
            share = evaluation.wilson(int((alive["redundancy"] > ALIKE).sum()), len(alive))
            own = {"model": run.spec.model, "seed": run.spec.seed, "filters that fire": len(alive)}
            rows.append(own | {f"correlated above {ALIKE:g}": share.value, "low": share.low, "high": share.high})
    return pd.DataFrame(rows)


def trunk(images: np.ndarray, weights: str = "hed") -> pd.DataFrame:
    """What the convolutions of VGG16 do with their pretrained ``weights``, before anything is trained on uint8 images.

    A row per convolution: layer, what ``activations.black`` tells, the share of the filters that fire whose redundancy
    is above ``ALIKE``, weights (resolved), images. Raises ``WeightsError`` when the weights can't be had.
    """
    resolved = pretrained.resolve(weights)
    network = models.build("vgg16", images.shape[1:], weights=resolved)
    filters = activations.measure(network, images, pretrained.expected("VGG16", resolved))
    rows = []
    for layer, own in filters.groupby("layer", sort=False):
        alike = (own.loc[own["fires"] > 0, "redundancy"] > ALIKE).mean()
        rows.append({"layer": layer} | activations.black(own) | {f"correlated above {ALIKE:g}": alike})
    return pd.DataFrame(rows).assign(weights=resolved, images=len(images))


def reference(source: str) -> None:
    """Measure the reference runs on the real images and commit the tables; runs without weights here are left out.

    The tables are committed anew after each run; runs that they hold are not measured again. Runs whose
    ``filters.csv`` was made before it told means, percentiles and redundancy get a new one.
    """
    splits = study.reference(source)
    sets, examples = probes(splits), splits.test.images[:: max(1, len(splits.test) // 25)]
    kept = runs.counted()
    made = files.read_tables(RESULTS)
    if "trunk" not in made:
        files.write_csv(RESULTS / "trunk.csv", trunk(splits.test.images[splits.test.evenly(TRUNK)]))
        print("VGG16's trunk: measured.")
    made = {name: made[name][made[name]["run"].isin([run.spec.key for run in kept])] for name in TABLES if name in made}
    for committed in kept:
        run = runs.cached(committed)
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
    return {name: table.drop(columns="run", errors="ignore") for name, table in files.read_tables(RESULTS).items()}
