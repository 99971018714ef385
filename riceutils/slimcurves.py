"""Does black-first beat chance, and slimming beat training small? Accuracy against what a cut leaves of a network.

Charts are ``(figure, table)``, as in :mod:`riceutils.plots`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import keras
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes

from riceutils import config, data, evaluation, files, flops, runs, slimmed, slimming, study, training
from riceutils.config import TrainingParameters
from riceutils.data import Splits
from riceutils.plots import PALETTE, Chart, figure, plain_ticks
from riceutils.runs import Run

RESULTS = files.PACKAGE / "results" / "slimming"
WAYS = ("apoz", "l1", "random", "scratch")
SHARES = (0.5, 0.25, 0.1, 0.05)  # of the FLOPs that stay
EPOCHS, AFTER = 10, 5  # before the cut and after it; what starts from scratch gets both
SIZE, COUNTS = 112, (1_000, 200, 600)  # px; train, validation, test of each class
PARENTS = ("googlenet_light", "cnn", "vgg_custom")  # lightest first
HAND_MADE = ("cnn_light", "googlenet_light", "final")  # what the Study cut by hand
PAIRS = (("apoz", "random"), ("l1", "random"), ("apoz", "l1"), ("apoz", "scratch"), ("random", "scratch"))
BLOCK5 = [f"block5_conv{number}" for number in (1, 2, 3)]  # of VGG16: what is trained in it


def curve(
    parent: Run,
    splits: Splits,
    shares: Sequence[float],
    *,
    epochs: int,
    layers: Sequence[str] | None = None,
) -> pd.DataFrame:
    """Cut ``parent`` to ``shares`` of its FLOPs in each of ``WAYS``, train ``epochs`` more, test; finished runs load.

    A row for the parent and for each way and share: parent, way, share, seed, parameters, FLOPs (at the run's own
    image size), epochs, clean accuracy, perturbed accuracy, images. ``scratch`` has the shape that every criterion
    leaves, fresh weights, and as many epochs as its parent and the cut network together. ``layers`` are those whose
    filters may go; all if None.
    """
    source = slimmed.parent(parent)
    rows = [_row(parent, "whole", 1.0, source.name)]
    for share in shares:
        for way in WAYS:
            scratch = way == "scratch"
            run = slimmed.slim(
                source,
                splits,
                "l1" if scratch else way,
                {"flops": share},
                epochs=epochs,
                layers=layers,
                seed=parent.spec.seed,
                scratch=scratch,
            )
            rows.append(_row(run, way, share, source.name))
    return pd.DataFrame(rows)


def _row(run: Run, way: str, share: float, parent: str) -> dict[str, object]:
    return {
        "parent": parent,
        "way": way,
        "share": share,
        "seed": run.spec.seed,
        "parameters": run.record["parameters"],
        "FLOPs": flops.count(run.model()).total,
        "epochs": int(run.history["epoch"].max()),
        **{f"{which} accuracy": run.accuracy(which).value for which in ("clean", "perturbed")},
        "images": run.accuracy().n,
    }


def lossless(run: Run, probe: np.ndarray, test: np.ndarray) -> dict[str, object]:
    """Remove from a run's network what does no work on ``probe``, and see what that changes on ``test``.

    Both are uint8 (N, H, W, 3). Gives model, seed; shares of parameters and FLOPs saved; different answers among the
    ``test`` images; largest difference of an output on ``probe`` and on ``test``; channels of layers with kernels,
    removed, refused (constant, but in the way).
    """
    network, how = run.model(), run.spec.preprocessing
    plan = slimming.select(network, probe, preprocessing=how)
    small = slimming.apply(network, plan)
    before, after = ([training.predict(model, images, how) for images in (probe, test)] for model in (network, small))
    gaps = [float(np.abs(a - b).max()) for a, b in zip(before, after, strict=True)]
    return {
        "model": run.spec.model,
        "seed": run.spec.seed,
        "parameters saved": 1 - small.count_params() / network.count_params(),
        "FLOPs saved": 1 - flops.count(small).total / flops.count(network).total,
        "different answers": int((before[1].argmax(axis=1) != after[1].argmax(axis=1)).sum()),
        "largest difference, probe": gaps[0],
        "largest difference, test": gaps[1],
        "channels": sum(layer.output.shape[-1] for layer in network.layers if hasattr(layer, "kernel")),
        "removed": len(plan),
        "refused": len(plan.attrs["refused"]),
    }


def widths(networks: Mapping[str, keras.Model]) -> Chart:
    """Channels of every layer with a kernel, in networks of the same layers, the first one's width being 1."""
    rows = [
        (name, layer.name, layer.output.shape[-1])
        for name, network in networks.items()
        for layer in network.layers
        if hasattr(layer, "kernel")
    ]
    table = pd.DataFrame(rows, columns=["network", "layer", "channels"])
    layers = list(dict.fromkeys(table["layer"]))
    canvas, axes = figure(max(2.2, 0.16 * len(layers) * len(networks) + 0.9))
    whole = table.groupby("layer")["channels"].first()
    drawn = table.assign(share=table["channels"] / table["layer"].map(whole))
    sns.barplot(
        drawn, x="share", y="layer", hue="network", order=layers, palette=PALETTE[: len(networks)], ax=axes[0, 0]
    )
    for bars, (_, own) in zip(axes[0, 0].containers, table.groupby("network", sort=False), strict=True):
        axes[0, 0].bar_label(bars, [f"{count:,}" for count in own["channels"]], padding=2, fontsize=7)
    axes[0, 0].set(xlabel="share of the channels", ylabel="", xlim=(0, 1.1))
    axes[0, 0].legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=4, fontsize=8, title="")
    return canvas, table


def hand_made(
    parameters: TrainingParameters, splits: Splits, models: Sequence[str] = HAND_MADE, seeds: Sequence[int] = (0,)
) -> pd.DataFrame:
    """The Study's light models, trained on the same images for all epochs of ``parameters``; rows as in
    :func:`curve`, with no share."""
    rows = []
    for model in models:
        for seed in seeds:
            run = study.run(model, _protocol(model, parameters), splits, seed=seed)
            rows.append(_row(run, "hand-made", np.nan, model))
    return pd.DataFrame(rows)


def _protocol(model: str, parameters: TrainingParameters) -> TrainingParameters:
    return config.of_model(model, parameters).model_copy(update={"patience": parameters.epochs})  # all epochs, always


def interval(values: Sequence[float], images: int) -> tuple[float, float, float]:
    """Mean and 95 % interval: Student's t over seeds; of a single run, Wilson's over its test ``images``."""
    share = evaluation.wilson(round(values[0] * images), images) if len(values) == 1 else evaluation.student(values)
    return share.value, max(0.0, share.low), min(1.0, share.high)


def summary(curves: pd.DataFrame) -> pd.DataFrame:
    """A row for each parent, way and share: seeds, parameters and FLOPs (means), both accuracies as text."""
    rows = []
    for (parent, way, share), found in curves.groupby(["parent", "way", "share"], sort=False, dropna=False):
        text = {}
        for which in ("clean accuracy", "perturbed accuracy"):
            mean, low, high = interval(found[which].tolist(), int(found["images"].iloc[0]))
            text[which] = f"{mean:.4f} [{low:.4f}, {high:.4f}]"
        size = {name: round(found[name].mean()) for name in ("parameters", "FLOPs")}
        share = "" if pd.isna(share) else f"{share:g}"
        rows.append({"model": parent, "way": way, "share": share, "seeds": len(found), **size, **text})
    return pd.DataFrame(rows)


def differences(curves: pd.DataFrame) -> pd.DataFrame:
    """How much better one way is than another, in points: differences at the same parent, share and seed.

    A row for each pair of ways and each parent, and for all parents together if there are several: model, first,
    second, trainings, and for both kinds of test images the mean difference with its 95 % interval as text. The shares
    of one parent and seed are cuts of one network, tested on the same images: their mean is one observation, and the
    interval is Student's t over these ``trainings``; there is none for a single one. All parents count alike, and only
    the spread within each widens their interval (:func:`riceutils.evaluation.stratified`).
    """
    rows = []
    cut = curves[curves["way"].isin(WAYS)]
    parents = list(dict.fromkeys(cut["parent"]))
    for parent in parents if len(parents) == 1 else [*parents, "all"]:
        own = cut if parent == "all" else cut[cut["parent"] == parent]
        for first, second in PAIRS:
            row: dict[str, object] = {"model": parent, "first": first, "second": second}
            for which in ("clean accuracy", "perturbed accuracy"):
                table = own.pivot_table(which, ["parent", "share", "seed"], "way")
                gaps = 100 * (table[first] - table[second]).dropna().groupby(["parent", "seed"]).mean()
                groups = [group.to_numpy() for _, group in gaps.groupby("parent")]
                row |= {"trainings": len(gaps), f"{which}, difference": evaluation.points(*groups)}
            rows.append(row)
    return pd.DataFrame(rows)


def chart(curves: pd.DataFrame) -> Chart:
    """Accuracy against FLOPs (log), a column for each parent, clean above, perturbed below; bars: :func:`interval`,
    small dots: single seeds. Each panel has a scale of its own, that of the dots; longer bars are cut off.

    The Study's light models, trained alike, stand in every panel as crosses.
    """
    light = curves[curves["way"] == "hand-made"]
    cut = curves[curves["way"] != "hand-made"]
    parents = list(dict.fromkeys(cut["parent"]))
    canvas, axes = figure(5.6, 2, len(parents), sharex="col")
    for column, parent in enumerate(parents):
        own = cut[cut["parent"] == parent]
        for axis, which in zip(axes[:, column], ("clean accuracy", "perturbed accuracy"), strict=True):
            _panel(axis, own, light, which)
            axis.set(xscale="log", ylabel=which if column == 0 else "")
            plain_ticks(axis.xaxis)
            axis.tick_params(axis="x", labelsize=8)
        axes[0, column].set_title(parent, fontsize=10)
        axes[1, column].set_xlabel("MFLOPs per image (log)")
    canvas.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=6, fontsize=8)
    return canvas, summary(curves)


def _panel(axis: Axes, own: pd.DataFrame, light: pd.DataFrame, which: str) -> None:
    for number, way in enumerate(WAYS):
        rows, shift = own[own["way"] == way], 1.04 ** (number - 1.5) / 1e6
        cuts = [
            (g["FLOPs"].mean(), *interval(g[which].tolist(), int(g["images"].iloc[0])))
            for _, g in rows.groupby("share")
        ]
        x, mean, low, high = np.array(cuts).T
        axis.errorbar(x * shift, mean, [mean - low, high - mean], fmt="osD^"[number] + "-", ms=4, elinewidth=1,
                      color=PALETTE[number], ecolor=(*PALETTE[number], 0.35), label=way)  # fmt: skip
        axis.plot(rows["FLOPs"] * shift, rows[which], ".", ms=3, color=PALETTE[number], alpha=0.6)
    whole = own[own["way"] == "whole"]
    axis.errorbar(whole["FLOPs"].mean() / 1e6, *_bar(whole, which), fmt="k*", ms=9, elinewidth=1, label="whole")
    for number, (name, rows) in enumerate(light.groupby("parent", sort=False)):
        axis.errorbar(rows["FLOPs"].mean() / 1e6, *_bar(rows, which), fmt="x", color="0.35", elinewidth=1,
                      label="hand-made" if name == light["parent"].iloc[0] else None)  # fmt: skip
        ha, x = ("right", -4) if rows["FLOPs"].mean() > whole["FLOPs"].mean() / 10 else ("left", 4)  # where is room
        axis.annotate(str(name), (rows["FLOPs"].mean() / 1e6, rows[which].mean()), xytext=(x, 3 if number < 2 else -9),
                      ha=ha, fontsize=7, textcoords="offset points", color="0.35")  # fmt: skip
    seen = pd.concat([own[which], light[which]])
    room = 0.08 * float(np.ptp(seen)) or 0.01
    axis.set_ylim(seen.min() - room, seen.max() + room)  # intervals of few seeds may leave it


def _bar(rows: pd.DataFrame, which: str) -> tuple[float, list[list[float]]]:
    mean, low, high = interval(rows[which].tolist(), int(rows["images"].iloc[0]))
    return mean, [[mean - low], [high - mean]]


def reference(source: str, seeds: Sequence[int] = (0, 1, 2)) -> pd.DataFrame:
    """The experiment on real images: 1,000 of each class to train, 112 px, ``PARENTS``, ``SHARES``, three seeds.

    Each parent and seed is committed as it is finished, in place of what the table had of it: hours, resumable.
    """
    splits, base = _images(source)
    for seed in seeds:
        _commit(hand_made(base.model_copy(update={"epochs": EPOCHS + AFTER}), splits, seeds=[seed]))
        for model in PARENTS:
            parent = study.run(model, _protocol(model, base), splits, seed=seed)
            _commit(curve(parent, splits, SHARES, epochs=AFTER))
    return pd.read_csv(RESULTS / "curves.csv")


def _images(source: str) -> tuple[Splits, TrainingParameters]:
    values = {"data": source, "image_size": SIZE, "images_per_class": list(COUNTS), "epochs": EPOCHS}
    return data.load(source, SIZE, COUNTS), config.check("02_cnn", values)


def _commit(curves: pd.DataFrame) -> None:
    names = ["parent", "way", "seed"]
    new = set(curves[names].itertuples(index=False, name=None))
    kept = [row for row in files.read_rows(RESULTS / "curves.csv") if tuple(row[name] for name in names) not in new]
    files.write_csv(RESULTS / "curves.csv", pd.DataFrame([*kept, *curves.to_dict("records")]))


def reference_block5(source: str) -> pd.DataFrame:
    """The same for block 5 of VGG16 on cached features, one seed; ``SHARES`` are of block 5's FLOPs."""
    splits, base = _images(source)
    parent = study.run("vgg16", _protocol("vgg16", base), splits)
    table = curve(parent, splits, SHARES, epochs=AFTER, layers=BLOCK5)
    files.write_csv(RESULTS / "block5.csv", table)
    return table


def reference_lossless(source: str) -> pd.DataFrame:
    """What the reference runs lose without loss: told on 600 training images, checked on all test images.

    Lightest of the missing ones first; the table is committed anew after each, and none that it holds is repeated.
    """
    splits, path = study.reference(source), RESULTS / "lossless.csv"
    kept = [runs.cached(run) for run in runs.counted()]
    probe = slimmed.probe(splits.train, 600)
    rows = [row for row in files.read_rows(path) if row["run"] in {run.spec.key for run in kept}]
    for run in sorted(kept, key=lambda run: run.record["flops"]):
        if run.has_weights and run.spec.key not in {row["run"] for row in rows}:
            rows.append({**lossless(run, probe, splits.test.images), "run": run.spec.key})
            files.write_csv(path, pd.DataFrame(rows))
            print(f"{run.spec.model}, seed {run.spec.seed}: measured.")
    return pd.DataFrame(rows)


def tables() -> dict[str, pd.DataFrame]:
    """The reference results: ``curves``, ``block5`` and ``lossless``, as far as they were measured."""
    return {name: table.drop(columns="run", errors="ignore") for name, table in files.read_tables(RESULTS).items()}
