"""Charts of :mod:`riceutils.catalogue`; each function returns ``(figure, table)``, as in :mod:`riceutils.plots`."""

from __future__ import annotations

from itertools import pairwise

import pandas as pd

from riceutils import catalogue
from riceutils.comparison import front, place_names
from riceutils.plots import PALETTE, Chart, figure, plain_ticks

GROUPS = {  # of the time line: words, marker, colour, size
    "history": ("by year of publication", "o", "0.45", 5),
    "source": ("variant of a source", "D", PALETTE[4], 5),
    "study": ("the study's heavy models", "s", PALETTE[0], 6),
    "light": ("the study's light models", "*", PALETTE[1], 10),
    "book": ("set beside them here", "^", PALETTE[2], 6),
}


def timeline() -> Chart:
    """Parameters (left) and FLOPs (right) of all architectures, both on log axes: a row each, in the order of their
    years, which stand at the right edge."""
    table = catalogue.years().join(catalogue.costs(), validate="1:1").rename_axis("model").reset_index()
    table = table.sort_values(["year", "parameters"], ignore_index=True)
    first = ~table["year"].duplicated()
    canvas, axes = figure(0.19 * len(table) + 1.2, 1, 2, sharey=True)
    for axis, quantity in zip(axes[0], ("parameters", "FLOPs"), strict=True):
        for group, (words, marker, color, size) in GROUPS.items():
            rows = table.index[table["group"] == group]
            axis.plot(table[quantity][rows], rows, marker, ms=size, color=color, label=words)
        for row in table.index[first][1:]:
            axis.axhline(row - 0.5, color="0.75", linewidth=0.8)
        axis.set(xscale="log", xlabel=f"{quantity} (log)", ylim=(len(table) - 0.5, -0.5))
        axis.grid(visible=False, axis="y")
    axes[0, 0].set_yticks(table.index, table["name"], fontsize=8)
    for row in table.index[first]:
        axes[0, 1].annotate(str(table["year"][row]), (1.01, row), xycoords=("axes fraction", "data"), va="center",
                            fontsize=8, color="0.35")  # fmt: skip
    canvas.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=5, fontsize=8)
    return canvas, table[["model", "year", "image size", "parameters", "FLOPs"]]


def accuracy() -> Chart:
    """The deck's top-1 accuracy against the FLOPs computed here (log axis), with the Pareto front."""
    table = (
        catalogue.deck()[["top1_percent"]]
        .join(catalogue.costs()[["FLOPs", "parameters"]])
        .rename_axis("model")
        .reset_index()
    )
    table = table.rename(columns={"top1_percent": "accuracy"})
    best = front(table, "FLOPs")
    canvas, axes = figure(4.8)
    axis = axes[0, 0]
    area = 900 * table["parameters"] / table["parameters"].max()
    axis.scatter(table["FLOPs"] / 1e9, table["accuracy"], s=area, color=PALETTE[0], alpha=0.35, linewidths=0)
    axis.plot(table["FLOPs"] / 1e9, table["accuracy"], "o", ms=4, color=PALETTE[0])
    axis.step(best["FLOPs"] / 1e9, best["accuracy"], where="post", color=PALETTE[1], label="Pareto front")
    axis.set(xscale="log", xlabel="GFLOPs (log); area: parameters", ylabel="published top-1 accuracy, %")
    axis.margins(0.09)
    axis.legend(loc="lower right", fontsize=8)
    steps = list(pairwise((best[["FLOPs", "accuracy"]] / (1e9, 1)).to_numpy()))
    lines = [(x, y, after, y) for (x, y), (after, _) in steps] + [(x, y, x, up) for (_, y), (x, up) in steps]
    named = table.assign(x=table["FLOPs"] / 1e9)[["x", "accuracy", "model"]]
    place_names(axis, named, [*lines, *named[["x", "accuracy", "x", "accuracy"]].to_numpy()])
    per = (table["accuracy"] / (table["FLOPs"] / 1e9)).round(1)
    content = {"model": table["model"], "top-1, %": table["accuracy"], "GFLOPs": (table["FLOPs"] / 1e9).round(2)}
    marked = table["model"].isin(best["model"])
    return canvas, pd.DataFrame(content | {"top-1 per GFLOP": per, "Pareto front": marked})


def latencies(table: pd.DataFrame) -> Chart:
    """Times of :func:`riceutils.catalogue.latency` against FLOPs (left) and the deck's milliseconds (right)."""
    canvas, axes = figure(4.0, 1, 2, sharey=True)
    spread = [table["median, ms"] - table["5 %, ms"], table["95 %, ms"] - table["median, ms"]]
    for axis, x in zip(axes[0], (table["FLOPs"] / 1e9, table["published, ms"]), strict=True):
        axis.errorbar(x, table["median, ms"], yerr=spread, fmt="o", ms=5, elinewidth=1, color=PALETTE[0])
        axis.set(xscale="log", yscale="log")
        for side in (axis.xaxis, axis.yaxis):
            plain_ticks(side)
        axis.margins(0.15)
        bars = pd.DataFrame({"x": x, "low": table["5 %, ms"], "same": x, "high": table["95 %, ms"]})
        named = pd.DataFrame({"x": x, "y": table["median, ms"], "model": table["model"]})
        place_names(axis, named, bars.to_numpy())
    axes[0, 0].set(xlabel="GFLOPs (log)", ylabel="ms per image, median, 5 to 95 % (log)")
    axes[0, 1].set(xlabel="published ms per step on a CPU (log)")
    return canvas, table
