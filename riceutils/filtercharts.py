"""Charts of filters that do no work; what they draw is measured in :mod:`riceutils.deadfilters`.

Charts are ``(figure, table)``, as in :mod:`riceutils.plots`.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import seaborn as sns

from riceutils import evaluation
from riceutils.deadfilters import DARK, FEW
from riceutils.plots import LONG, PALETTE, Chart, figure, mosaic


def by_depth(table: pd.DataFrame) -> Chart:
    """Share of filters that never fire and mean share of black maps along the depth of a network, a panel per model.

    ``table`` is one of ``deadfilters.census``; lines are means over seeds, bars are Wilson's intervals of all seeds'
    filters together.
    """
    models = list(table.groupby("model", sort=False))
    columns = min(3, len(models))
    rows = -(-len(models) // columns)
    canvas, axes = figure(1.9 * rows + 1.2, rows, columns, sharex=True, sharey=True)
    for axis in axes.flat[len(models) :]:
        axis.axis("off")
    for axis, (model, own) in zip(axes.flat, models, strict=False):
        layers = along(own)
        shares = [evaluation.wilson(*pair) for pair in zip(layers["never fire"], layers["filters"], strict=True)]
        spread = np.array([[s.value - s.low for s in shares], [s.high - s.value for s in shares]])
        values = [share.value for share in shares]
        axis.plot(
            layers["depth"],
            layers["black"] / layers["filters"],
            "s--",
            ms=3,
            color="0.45",
            label="maps black on an image",
        )
        never = {"color": PALETTE[0], "ms": 4, "elinewidth": 0.8, "label": "filters that never fire"}
        axis.errorbar(layers["depth"], values, spread, fmt="o-", **never)
        axis.set_title(model, fontsize=10)
    for lowest in axes.flat[len(models) - columns : len(models)]:
        lowest.tick_params(labelbottom=True)
        lowest.set_xlabel("depth, 0 at the image, 1 last")
    axes[0, 0].set_ylim(0, None)
    canvas.supylabel("share of the layer's filters", fontsize=11)
    canvas.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=8)
    return canvas, table


def along(census: pd.DataFrame) -> pd.DataFrame:
    """Filters, those that never fire and, on the mean image, those whose map is black, summed at each depth."""
    counts = census.assign(black=census["black maps"] * census["filters"])
    return counts.groupby("depth")[["filters", "never fire", "black"]].sum().reset_index()


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


def growing(table: pd.DataFrame) -> Chart:
    """``deadfilters.growth`` as lines: share of the filters that have not fired yet against the images seen (log)."""
    canvas, axes = figure(3.8)
    for number, (model, own) in enumerate(table.groupby("model", sort=False)):
        mean = own.groupby("images")[["never fire", "low", "high", "filters"]].mean()
        share = mean[["never fire", "low", "high"]].div(mean["filters"], axis=0)
        axes[0, 0].plot(share.index, share["never fire"], "o-", ms=4, color=PALETTE[number % 10], label=model)
        axes[0, 0].fill_between(share.index, share["low"], share["high"], color=PALETTE[number % 10], alpha=0.15)
    axes[0, 0].set(xscale="log", xlabel="images looked at", ylabel="filters that have not fired", ylim=(0, None))
    canvas.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=8)
    return canvas, table


def redundancy(filters: pd.DataFrame) -> Chart:
    """Correlation of every filter with its nearest neighbour, a dot each, per layer; see ``activations.measure``."""
    layers = list(dict.fromkeys(filters["layer"]))
    canvas, axes = figure(max(2.2, 0.3 * len(layers) + 1.2))
    sns.stripplot(filters, x="redundancy", y="layer", order=layers, size=3, alpha=0.6, color=PALETTE[0], ax=axes[0, 0])
    axes[0, 0].set(
        xlim=(-0.02, 1.02), xlabel="largest absolute correlation with another filter of the layer", ylabel=""
    )
    if len(layers) > LONG:
        axes[0, 0].tick_params(axis="x", top=True, labeltop=True)
    return canvas, filters[["layer", "filter", "redundancy", "nearest", "mean", "p99", "mean_grain", "p99_grain"]]
