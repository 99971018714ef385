"""Charts of runs: learning curves, confusion, zero activations, FLOPs, models side by side.

Every function returns ``(figure, table)``, as in :mod:`riceutils.plots`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.ticker import MaxNLocator

from riceutils import evaluation, flops
from riceutils.plots import LONG, PALETTE, Chart, figure
from riceutils.runs import Run

if TYPE_CHECKING:
    import keras


def curves(runs: Mapping[str, Run]) -> Chart:
    """Accuracy and loss per epoch of several runs, training dashed, validation solid, the best epoch marked."""
    canvas, axes = figure(3.4, 1, 2)
    tables = []
    for (label, run), color in zip(runs.items(), PALETTE, strict=False):
        history, best = run.history, run.record["best_epoch"]
        for axis, quantity in zip(axes[0], ("accuracy", "loss"), strict=True):
            axis.plot(history["epoch"], history[quantity], "--", color=color, label=f"{label}, training")
            axis.plot(history["epoch"], history[f"val_{quantity}"], color=color, label=f"{label}, validation")
            axis.plot(best, history[f"val_{quantity}"][best - 1], "o", color=color)
            axis.set(xlabel="epoch", ylabel=quantity)
            axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        tables.append(history.assign(run=label))
    axes[0, 1].axhline(np.log(len(next(iter(runs.values())).classes)), color="0.6", linewidth=1, linestyle=":")
    axes[0, 1].annotate("guessing", (0.99, np.log(len(run.classes))), xycoords=("axes fraction", "data"),
                        ha="right", va="bottom", fontsize=8, color="0.4")  # fmt: skip
    handles, labels = axes[0, 0].get_legend_handles_labels()
    canvas.legend(handles, labels, loc="outside lower center", ncols=4, fontsize=8)
    return canvas, pd.concat(tables, ignore_index=True)


def histories(groups: Mapping[str, Sequence[Run]]) -> Chart:
    """Validation accuracy and loss, and training loss, per epoch: a line for each group of runs, the mean of those of
    its seeds that got that far, in a band from the lowest to the highest."""
    canvas, axes = figure(3.6, 1, 3)
    tables = []
    for (label, runs), color in zip(groups.items(), PALETTE, strict=False):
        rows = pd.concat([run.history.assign(seed=run.spec.seed) for run in runs], ignore_index=True)
        for axis, quantity in zip(axes[0], ("val_accuracy", "val_loss", "loss"), strict=True):
            spread = rows.groupby("epoch")[quantity].agg(["mean", "min", "max"])
            axis.plot(spread.index, spread["mean"], "o-", markersize=3, color=color, label=label)
            axis.fill_between(spread.index, spread["min"], spread["max"], color=color, alpha=0.2, linewidth=0)
            axis.set(xlabel="epoch", title=quantity.replace("val_", "validation "))
            axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        tables.append(rows.assign(training=label))
    axes[0, 2].set_title("training loss")
    canvas.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=8)
    return canvas, pd.concat(tables, ignore_index=True)


def confusion(run: Run) -> Chart:
    """Confusion matrices of a run, clean and perturbed test images: shares of the true class, counts below."""
    canvas, axes = figure(4.4, 1, 2)
    tables = []
    for axis, which in zip(axes[0], ("clean", "perturbed"), strict=True):
        counts = evaluation.confusion(run.predictions[which], run.predictions["labels"], run.classes)
        shares = counts.div(counts.sum(axis=1), axis=0)
        text = shares.map("{:.1%}".format) + "\n" + counts.map("{:d}".format)
        sns.heatmap(
            shares, annot=text, fmt="", cmap="Blues", vmin=0, vmax=1, ax=axis, cbar=False, annot_kws={"size": 8}
        )
        axis.set_title(f"{which} test images", fontsize=10)
        axis.tick_params(axis="both", labelsize=8)
        axis.tick_params(axis="y", rotation=0)
        axis.tick_params(axis="x", rotation=30)
        tables.append(counts.reset_index().rename(columns={"true": "true class"}).assign(images=which))
    return canvas, pd.concat(tables, ignore_index=True)


def zeros(run: Run) -> Chart:
    """APoZ of every filter, a dot each, per layer: over all pixels and over grain pixels; ringed: never fires."""
    filters = run.filters
    layers = list(dict.fromkeys(filters["layer"]))
    canvas, axes = figure(max(2.2, 0.42 * len(layers) + 1.3))
    axis = axes[0, 0]
    rng = np.random.default_rng(0)
    height = filters["layer"].map(layers.index).to_numpy() + rng.uniform(-0.13, 0.13, len(filters))
    for column, label, shift, color in (
        ("apoz", "all pixels", -0.2, PALETTE[0]),
        ("apoz_grain", "grain pixels", 0.2, PALETTE[1]),
    ):
        axis.scatter(filters[column], height + shift, s=14, color=color, alpha=0.7, label=label, linewidths=0)
    silent = filters["fires"] == 0
    if silent.any():
        axis.scatter(filters["apoz"][silent], (height - 0.2)[silent], s=40, facecolors="none", edgecolors="k",
                     label="never fires")  # fmt: skip
    axis.set(
        xlabel="share of exactly zero activations (APoZ)",
        xlim=(-0.02, 1.02),
        yticks=range(len(layers)),
        yticklabels=layers,
    )
    axis.set_ylim(len(layers) - 0.5, -0.5)
    above = 0.5  # inches
    if len(layers) > LONG:
        axis.tick_params(axis="x", top=True, labeltop=True)
        above = 0.7
    place = (0.5, 1.0 + above / (0.42 * len(layers) + 1.3))
    axis.legend(loc="upper center", bbox_to_anchor=place, ncols=3, fontsize=8)
    return canvas, filters


def flops_by_layer(model: keras.Model) -> Chart:
    """FLOPs of each layer of ``model`` at its own input size."""
    table = flops.count(model).by_layer
    counted = table[table["FLOPs"] > 0]
    canvas, axes = figure(max(2.2, 0.26 * len(counted) + 0.9))
    bars = axes[0, 0].barh(counted["layer"], counted["FLOPs"] / 1e6, color=PALETTE[0])
    axes[0, 0].bar_label(bars, [f"{share:.1%}" for share in counted["share"]], padding=3, fontsize=8)
    axes[0, 0].set(xlabel="MFLOPs per image")
    axes[0, 0].margins(x=0.12)
    axes[0, 0].set_ylim(len(counted) - 0.5, -0.5)
    return canvas, table


def generalisation_of(run: Run) -> Chart | None:
    """Accuracy of a run under each part of the perturbation by strength, and under each corruption by severity; None
    when it was not measured. Bars are 95 % intervals, dotted is guessing."""
    if (table := run.generalisation) is None:
        return None
    canvas, axes = figure(4.0, 1, 2, sharey=True, width_ratios=(1, 1.15))
    clean = float(table[table["kind"] == "clean"]["accuracy"].iloc[0])
    for axis in axes[0]:
        axis.axhline(clean, color="0.4", linewidth=1, linestyle="--", label="clean")
        axis.axhline(1 / len(run.classes), color="0.6", linewidth=1, linestyle=":", label="guessing")
    left, right = axes[0]
    parts = table[table["kind"] == "perturbation"].groupby("name", sort=False)
    for number, (part, rows) in enumerate(parts):
        spread = [rows["accuracy"] - rows["low"], rows["high"] - rows["accuracy"]]
        shifted = rows["strength"] + (number - 2) * 0.04  # bars side by side
        left.errorbar(shifted, rows["accuracy"], yerr=spread, fmt="osD^v"[number] + "-", ms=4, elinewidth=1,
                      color=PALETTE[number], label=part if part != "flip" else "flip (all mirrored)")  # fmt: skip
    left.set(xlabel="strength, times the published factor", ylabel="accuracy", ylim=(0, 1.02))
    corrupted = table[table["kind"] == "corruption"]
    names = list(dict.fromkeys(corrupted["name"]))
    for number, (severity, rows) in enumerate(corrupted.groupby("strength")):
        spread = [rows["accuracy"] - rows["low"], rows["high"] - rows["accuracy"]]
        x = rows["name"].map(names.index) + (number - 1) * 0.2
        right.errorbar(x, rows["accuracy"], yerr=spread, fmt="o", ms=5, elinewidth=1,
                       color=sns.color_palette("Blues", 7)[2 + 2 * number], label=f"severity {severity:g}")  # fmt: skip
    right.set_xticks(range(len(names)), names, rotation=30, ha="right", rotation_mode="anchor")
    for axis, first in ((left, 0), (right, 2)):  # the two lines are named once
        handles, labels = (entries[first:] for entries in axis.get_legend_handles_labels())
        axis.legend(handles, labels, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, fontsize=8)
    return canvas, table


def zero_summary(run: Run) -> pd.DataFrame:
    """Per layer: filters, filters that never fire, and mean APoZ over all pixels and over grain pixels."""
    grouped = run.filters.assign(never=run.filters["fires"] == 0).groupby("layer", sort=False)
    columns = {"filters": ("filter", "size"), "never fire": ("never", "sum")}
    means = {"APoZ": ("apoz", "mean"), "APoZ on grain": ("apoz_grain", "mean")}
    return grouped.agg(**columns, **means).reset_index()


def report(run: Run) -> pd.DataFrame:
    """Classification report of a run's perturbed test."""
    return evaluation.report(run.predictions["perturbed"], run.predictions["labels"], run.classes).reset_index()


def deviations(table: pd.DataFrame) -> Chart:
    """How far each feature's mean lies from that of all real images, in standard deviations of the population."""
    features = list(dict.fromkeys(table["feature"]))
    canvas, axes = figure(0.3 * len(features) + 1.2)
    axis = axes[0, 0]
    axis.axvspan(-0.25, 0.25, color="0.93")
    axis.axvline(0, color="0.6", linewidth=1)
    for (label, rows), color in zip(table.groupby("class"), PALETTE, strict=False):
        axis.scatter(rows["deviation"], rows["feature"].map(features.index), s=24, color=color, label=label)
    axis.set(
        xlabel="(mean of these images - mean of all real images) / standard deviation",
        yticks=range(len(features)),
        yticklabels=features,
    )
    axis.invert_yaxis()
    canvas.legend(loc="outside upper center", ncols=5, fontsize=8)
    return canvas, table
