"""Charts of dead training: how often, after how many epochs, and where inside a network the signal is lost.

Charts are ``(figure, table)``, as in :mod:`riceutils.plots`; :func:`counts` displays.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
import seaborn as sns

from riceutils import dead, page
from riceutils.plots import PALETTE, Chart, figure

STATES = {
    "alive": PALETTE[2],
    "vanished": PALETTE[1],
    "dead": PALETTE[3],
    "diverged": PALETTE[4],
    "unsettled": PALETTE[0],
}
QUANTITIES = {
    "std": "standard deviation of the outputs",
    "spread": "the same over the images alone",
    "gradient": "norm of the kernel's gradient",
    "open": "share of the ReLU mask that is open",
}


def shares(rows: pd.DataFrame) -> Chart:
    """Share of stuck trainings per condition with its interval; ``rows``: first table of ``dead.experiment``."""
    table = dead.frequency(rows)
    canvas, axes = figure(0.42 * len(table) + 1.1)
    axis, y = axes[0, 0], np.arange(len(table))
    spread = np.clip([table["share"] - table["low"], table["high"] - table["share"]], 0, None)
    axis.errorbar(table["share"], y, xerr=spread, fmt="o", color=PALETTE[0], capsize=3)
    for row, count in enumerate(table.itertuples()):
        axis.annotate(f"{count.stuck} of {count.trainings}", (1.03, row), va="center", fontsize=8, color="0.35",
                      annotation_clip=False)  # fmt: skip
    axis.set(xlim=(-0.02, 1.02), xlabel="share of trainings that got stuck, with 95 % interval", yticks=y)
    axis.set_yticklabels(table["condition"], fontsize=8)
    axis.set_ylim(len(table) - 0.5, -0.5)
    return canvas, table


def waking(rows: pd.DataFrame) -> Chart:
    """Share of trainings that had not yet begun to learn after each epoch, diverged ones included, by condition."""
    epochs, table = range(1, int(rows["epochs"].max()) + 1), {}
    for name, group in rows.groupby("condition", sort=False):
        left = np.where(group["state"] == "alive", group["epochs"], np.inf)
        table[name] = {epoch: float((left > epoch).mean()) for epoch in epochs}
    waiting = pd.DataFrame(table).T
    canvas, axes = figure(0.38 * len(waiting) + 1.1)
    axis = axes[0, 0]
    sns.heatmap(waiting, annot=True, fmt=".0%", vmin=0, vmax=1, cmap="Blues", cbar=False, linewidths=1, ax=axis)
    axis.tick_params(axis="y", labelsize=8, rotation=0)
    axis.set(xlabel="epoch", ylabel="")
    axis.set_title("share of trainings that have not yet begun to learn", fontsize=10)
    named = waiting.rename_axis("condition").reset_index()
    return canvas, named.melt("condition", var_name="epoch", value_name="share")


def layers(diagnosis: pd.DataFrame) -> Chart:
    """Layer by layer, before (dashed) and after training (solid), a network of each state; log axes.

    ``diagnosis``: second table of ``dead.experiment``. An exact zero has no logarithm: it stands at the bottom edge,
    as a cross. What exploded on the way to its death leaves the panel at the top.
    """
    diagnosis = diagnosis[(diagnosis["state"] != "diverged") | (diagnosis["moment"] == "start")]  # all of it is NaN
    canvas, axes = figure(6.6, 2, 2, sharex=True)
    for axis, (quantity, title) in zip(axes.flat, QUANTITIES.items(), strict=True):
        floor = diagnosis[quantity][diagnosis[quantity] > 0].min() / 3
        for (state, moment), rows in diagnosis.groupby(["state", "moment"], sort=False):
            values = rows[quantity].to_numpy(float)
            line = {"color": STATES[state], "linewidth": 1.4, "alpha": 0.5 if moment == "start" else 1}
            style = "--" if moment == "start" else "-"
            if quantity != "open":
                zero = np.flatnonzero(values == 0)
                axis.plot(zero, np.full(len(zero), floor), "x", color=STATES[state], ms=4)
                values = np.where(values > 0, values, np.nan)
            axis.plot(values, style, label=f"{state}, {moment}: {rows['condition'].iloc[0]}", **line)
        axis.set_title(title, fontsize=10)
        axis.set_yscale("linear" if quantity == "open" else "log")
        others = diagnosis.loc[diagnosis["state"] != "dead", quantity]
        if quantity != "open" and others.max() > 0:
            axis.set_ylim(top=10 * others.max())
    axes[1, 1].set_ylim(-0.02, 1.02)
    names = diagnosis.loc[: diagnosis["layer"].duplicated().argmax() - 1, "layer"].tolist()
    modules = [name.removeprefix("inception_").split("_")[0] for name in names]
    first = [number for number, module in enumerate(modules) if modules.index(module) == number]
    # Room for the labels: of the stem's single layers only the first is named.
    first = [number for rank, number in enumerate(first) if rank == 0 or number - first[rank - 1] > 1 or len(names) < 9]
    for axis in axes[1]:
        axis.set_xticks(first, [modules[number] for number in first], rotation=60, fontsize=8)
        axis.set_xlabel("layer")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    canvas.legend(handles, labels, loc="outside lower center", ncols=2, fontsize=8)
    return canvas, diagnosis


COUNTS = {
    "ko": "{where}: 학습 {trainings}번 가운데 {stuck}번이 멈췄습니다. 그중 마지막 특징이 모두 정확히 "
    "0인 것은 {dead}번, 그렇지 않은 것은 {vanished}번입니다. 그 밖에 첫 에포크가 지나도록 "
    "ln C에 머물다가 스스로 벗어난 학습은 {late}건입니다.",
    "en": "{where}: of {trainings} trainings, {stuck} got stuck. In {dead} of these the last features were all "
    "exactly zero, in {vanished} they were not. Trainings that stayed at ln C past their first epoch and then left of "
    "their own accord: {late}.",
}
WHERE = {
    "study": {"ko": "연구의 설정({condition})", "en": "The Study's setting ({condition})"},
    "all": {"ko": "모든 조건", "en": "All conditions"},
}


def counts(reference: Mapping[str, pd.DataFrame]) -> None:
    """Display how many trainings of the reference experiment got stuck, in the Study's setting and in all."""
    if "experiment" not in reference:
        page.note("unmeasured", label=page.phrases()["label_reference"])
        return
    rows, study = reference["experiment"], dead.CONDITIONS[0].name
    own = rows[rows["condition"] == study]
    for where, part in (("study", own), ("all", rows)):
        place = {lang: text.format(condition=study) for lang, text in WHERE[where].items()}
        states, late = part["state"], int(((part["state"] == "alive") & (part["epochs"] > 1)).sum())
        stuck = {name: int((states == name).sum()) for name in dead.STUCK}
        page.note(COUNTS, where=place, trainings=len(part), stuck=sum(stuck.values()), late=late, **stuck)
