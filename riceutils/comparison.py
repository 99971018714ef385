"""Charts of several models side by side: accuracy, cost, efficiency, generalisation.

Every function returns ``(figure, table)``, as in :mod:`riceutils.plots`. ``overview`` is the table of
:func:`riceutils.ledger.overview`; where it has several seeds of a model, each is a dot, and the model's place
(or bar) their mean. The no-CNN baseline is a line, as it has no FLOPs, parameters or filters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from riceutils import ledger
from riceutils.plots import PALETTE, Chart, figure
from riceutils.runs import Run

BASELINE = "QDA"
LOOKS = {  # of a source: colour, marker, face
    "reference": (PALETTE[0], "o", PALETTE[0]),
    "published": (PALETTE[1], "s", "none"),
    "this build": (PALETTE[2], "^", "none"),
}
QUANTITIES = ("FLOPs", "parameters", "filters", "filters as published")
HEAT = (1.0, 2.0, 3.0)  # strengths of each part that the heat map shows
TFLOPS = 1e12 / ledger.PUBLISHED_IMAGES  # FLOPs per image that make one TFLOPs over the published test set


def _select(overview: pd.DataFrame, without: Sequence[str]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Rows of models, those ``without`` left out, and rows of the baseline."""
    unknown = set(without) - set(overview["model"])
    if unknown:
        raise ValueError(
            f"No model {sorted(unknown)[0]!r} to leave out. Models: {', '.join(overview['model'].unique())}."
        )
    return overview[~overview["model"].isin([*without, BASELINE])], overview[overview["model"] == BASELINE]


def _spread(rows: pd.DataFrame) -> np.ndarray:
    """Lengths of the error bars, 0 where a source gives no interval."""
    return np.nan_to_num([rows["accuracy"] - rows["low"], rows["high"] - rows["accuracy"]])


def accuracies(overview: pd.DataFrame, without: Sequence[str] = ()) -> Chart:
    """Clean and perturbed accuracy of every model, a dot with its 95 % interval per source and seed."""
    table, baseline = _select(overview, without)
    models, sources = list(dict.fromkeys(table["model"])), [s for s in LOOKS if s in set(table["source"])]
    canvas, axes = figure(0.42 * len(models) + 1.6, 1, 2, sharey=True)
    for axis, which in zip(axes[0], ("clean", "perturbed"), strict=True):
        for number, source in enumerate(sources):
            part = table[(table["images"] == which) & (table["source"] == source)]
            nth, count = part.groupby("model").cumcount(), part.groupby("model")["model"].transform("size")
            y = (
                part["model"].map(models.index)
                + (number - (len(sources) - 1) / 2) * 0.26
                + (nth - (count - 1) / 2) * 0.1
            )
            color, marker, face = LOOKS[source]
            axis.errorbar(part["accuracy"], y, xerr=_spread(part), fmt=marker, ms=4, color=color, mfc=face,
                          elinewidth=1, label=source)  # fmt: skip
        for share in baseline[baseline["images"] == which]["accuracy"]:
            axis.axvline(share, color="0.4", linewidth=1, linestyle="--", label="no CNN (QDA)")
        axis.set_title(f"{which} test images", fontsize=10)
        axis.set(xlabel="accuracy", yticks=range(len(models)), yticklabels=models)
    axes[0, 0].invert_yaxis()
    handles, labels = axes[0, 1].get_legend_handles_labels()
    canvas.legend(handles, labels, loc="outside lower center", ncols=4, fontsize=8)
    return canvas, pd.concat([table, baseline], ignore_index=True)


def front(points: pd.DataFrame, quantity: str) -> pd.DataFrame:
    """The Pareto front of ``points``: those that no other reaches in accuracy at the same ``quantity`` or less."""
    ordered = points.sort_values([quantity, "accuracy"], ascending=[True, False])
    return ordered[ordered["accuracy"] > ordered["accuracy"].cummax().shift(fill_value=-np.inf)]


def cost(overview: pd.DataFrame, quantity: str, without: Sequence[str] = ()) -> Chart:
    """Perturbed accuracy against ``quantity``, one of ``QUANTITIES`` (log axis), with the reference's Pareto front.

    The table's last column says which models of the reference lie on it. Raises ``ValueError`` for another quantity.
    """
    if quantity not in QUANTITIES:
        raise ValueError(f"Unknown quantity {quantity!r}. Known quantities: {', '.join(QUANTITIES)}.")
    table, baseline = _select(overview, without)
    table = table[table["images"] == "perturbed"].dropna(subset=quantity)
    means = table.groupby(["source", "model"], sort=False)[[quantity, "accuracy"]].mean().reset_index()
    ours = means[means["source"] == ("reference" if "reference" in set(means["source"]) else "this build")]
    best = front(ours, quantity)
    canvas, axes = figure(4.8)
    axis = axes[0, 0]
    for _, pair in means[means["source"].isin(["published", *ours["source"]])].groupby("model"):
        axis.plot(pair[quantity], pair["accuracy"], color="0.75", linewidth=0.8, zorder=1)
    for source, (color, marker, face) in LOOKS.items():
        rows = table[table["source"] == source]
        if len(rows):
            axis.errorbar(rows[quantity], rows["accuracy"], yerr=_spread(rows), fmt=marker, ms=5, color=color, mfc=face,
                          elinewidth=1, label=source)  # fmt: skip
    axis.set(xscale="log", xlabel=f"{quantity} (log)", ylabel="perturbed accuracy")
    axis.margins(x=0.09, y=0.09)
    left, right = axis.get_xlim()
    edge = pd.concat([best, best.tail(1).assign(**{quantity: right})])  # the last step goes on to the edge
    if len(best):
        axis.step(edge[quantity], edge["accuracy"], where="post", color=PALETTE[0], linewidth=1, alpha=0.6,
                  label="Pareto front, ours", zorder=1)  # fmt: skip
    yardstick = baseline[baseline["images"] == "perturbed"]["accuracy"]
    for share in yardstick:
        axis.axhline(share, color="0.4", linewidth=1, linestyle="--", label="no CNN (QDA)", zorder=1)
    axis.set_xlim(left, right)
    canvas.legend(loc="outside lower center", ncols=5, fontsize=8)
    named = pd.concat([ours, means]).drop_duplicates("model")  # at our place, else at the published one
    shares = table["accuracy"]
    spans = zip(
        table[quantity], table["low"].fillna(shares), table[quantity], table["high"].fillna(shares), strict=True
    )
    steps = [(x, y, after, y) for (x, y), (after, _) in pairwise(edge[[quantity, "accuracy"]].to_numpy())]
    rises = [(x, y, x, after) for (_, y), (x, after) in pairwise(edge[[quantity, "accuracy"]].to_numpy())]
    across = [(left, share, right, share) for share in yardstick]
    place_names(axis, named[[quantity, "accuracy", "model"]], [*spans, *steps, *rises, *across])
    on_front = (table["source"] == ours["source"].max()) & table["model"].isin(best["model"])
    columns = ["model", "source", *(["seed"] if "seed" in overview else []), quantity, "accuracy", "low", "high"]
    return canvas, table[columns].assign(**{"Pareto front": on_front}).reset_index(drop=True)


def place_names(axis: Axes, named: pd.DataFrame, lines: Sequence[tuple[float, ...]]) -> None:
    """Write each name beside its point (x, y, name), off the ``lines`` (x0, y0, x1, y1), other names and nearer points
    if it can; a thin line leads from a name further off to its point."""
    axis.get_figure().draw_without_rendering()  # type: ignore[union-attr]  # the layout decides where pixels lie
    ends = axis.transData.transform(np.reshape(lines, (-1, 2))).reshape(-1, 2, 2)
    taken = [Bbox([end.min(axis=0) - 3, end.max(axis=0) + 3]) for end in ends]
    places = [(dx, dy) for dy in (0, 7, -7, 11, -11, 16, -16, 22, -22) for dx in (6, -6)]  # points
    points = axis.transData.transform(named.iloc[:, :2].to_numpy(float))
    leader = {"arrowstyle": "-", "color": "0.5", "linewidth": 0.6, "shrinkA": 0, "shrinkB": 3}
    for number, (x, y, name) in enumerate(named.itertuples(index=False)):
        text = axis.annotate(
            name, (x, y), (0, 0), textcoords="offset points", fontsize=8, va="center", arrowprops=leader
        )
        tried = []
        for place in places:
            text.set(position=place, ha="left" if place[0] > 0 else "right")
            box = Text.get_window_extent(text)  # of the name alone, without its leader
            end = (box.x0 if place[0] > 0 else box.x1, (box.y0 + box.y1) / 2)
            astray = int(np.argmin(np.hypot(*(points - end).T))) != number
            outside = box.x0 < axis.bbox.x0 or box.x1 > axis.bbox.x1 or box.y0 < axis.bbox.y0 or box.y1 > axis.bbox.y1
            tried.append(box.count_overlaps(taken) + 2 * astray + 10 * outside)
        place = places[int(np.argmin(tried))]
        text.set(position=place, ha="left" if place[0] > 0 else "right")
        text.arrow_patch.set_visible(abs(place[1]) > 7)  # type: ignore[union-attr]
        taken.append(Text.get_window_extent(text))


def efficiency(overview: pd.DataFrame, without: Sequence[str] = ()) -> Chart:
    """Perturbed accuracy per TFLOPs of 7,500 images, as the Study charts it (log axis); FLOPs as counted here."""
    table, _ = _select(overview, without)
    table = table[table["images"] == "perturbed"].dropna(subset="FLOPs")
    table = table.assign(**{"accuracy per TFLOPs": table["accuracy"] / (table["FLOPs"] / TFLOPS)})
    means = table.pivot_table(index="model", columns="source", values="accuracy per TFLOPs")
    models = means.max(axis=1).sort_values(ascending=False).index.tolist()
    sources = [source for source in LOOKS if source in means]
    canvas, axes = figure(0.18 * len(models) * len(sources) + 1.2)
    axis, height = axes[0, 0], 0.8 / max(len(sources), 1)
    for number, source in enumerate(sources):
        y = np.arange(len(models)) + (number - (len(sources) - 1) / 2) * height
        values = means[source].reindex(models)
        bars = axis.barh(y, values, height * 0.9, color=LOOKS[source][0], label=source)
        axis.bar_label(bars, [f"{value:.3g}" if value > 0 else "" for value in values], padding=3, fontsize=8)
    axis.set(
        xscale="log",
        xlabel="perturbed accuracy per TFLOPs of 7,500 images (log)",
        yticks=range(len(models)),
        yticklabels=models,
    )
    axis.margins(x=0.08)
    axis.invert_yaxis()
    canvas.legend(loc="outside lower center", ncols=4, fontsize=8)
    columns = ["model", "source", *(["seed"] if "seed" in overview else []), "FLOPs", "accuracy", "accuracy per TFLOPs"]
    return canvas, table[columns].sort_values("accuracy per TFLOPs", ascending=False, ignore_index=True)


def generalisations(found: Mapping[str, Run]) -> Chart | None:
    """Heat map of the accuracies, in %, of those runs that were measured under each disturbance; None without any.

    Columns: clean, flip, each part of the perturbation at ``HEAT`` times its factor, each corruption over its three
    severities together.
    """
    import seaborn as sns

    tables = {name: table for name, run in found.items() if (table := run.generalisation) is not None}
    if not tables:
        return None
    rows = {}
    for model, table in tables.items():
        kept = table[(table["kind"] != "perturbation") | table["strength"].isin(HEAT)]
        strong = (kept["kind"] == "perturbation") & (kept["name"] != "flip")
        column = kept["name"].where(~strong, kept["name"] + " ×" + kept["strength"].map("{:g}".format))
        sums = kept.groupby(column, sort=False)[["correct", "n"]].sum()
        rows[model] = sums["correct"] / sums["n"]
    shares = pd.DataFrame(rows).T
    columns = list(shares.columns)
    first = next(iter(tables.values()))
    canvas, axes = figure(0.3 * len(shares) + 1.9)
    axis = axes[0, 0]
    sns.heatmap(100 * shares, annot=True, fmt=".0f", cmap="Blues", vmin=0, vmax=100, ax=axis, cbar=False,
                annot_kws={"size": 8})  # fmt: skip
    groups = [name.partition(" ×")[0] for name in columns]
    kinds = first.drop_duplicates("name").set_index("name")["kind"]
    for place, (before, after) in enumerate(pairwise(groups), start=1):
        if before != after:
            axis.axvline(place, color="w", linewidth=6 if kinds[before] != kinds[after] else 2)
    axis.set_title(f"accuracy in %, n = {first['n'].max()} images; corruptions: mean of three severities", fontsize=10)
    axis.set_xlabel("")
    axis.tick_params(axis="both", labelsize=8, length=0)
    axis.set_xticklabels(columns, rotation=60, ha="right", rotation_mode="anchor")
    axis.tick_params(axis="y", rotation=0)
    return canvas, shares.rename_axis("model").reset_index()
