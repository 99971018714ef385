"""Tables and charts of the lightest networks, beside the study's models and the yardstick without a network.

Charts are ``(figure, table)``, as in :mod:`riceutils.plots`.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from riceutils import baseline, comparison, dataset, evaluation, ledger, lightest, page, perturb, runs, training
from riceutils.data import Splits
from riceutils.plots import PALETTE, Chart, figure, plain_ticks
from riceutils.runs import Run

COSTS = ("parameters", "FLOPs")
RIVAL = "vgg_custom"  # the model of the study that the family is compared with
FLOAT = 4  # bytes of a weight
LOOKS = {"rice_nano": (PALETTE[2], "^"), "reference": (PALETTE[0], "o"), "published": (PALETTE[1], "s")}


def search(table: pd.DataFrame) -> Chart:
    """Validation accuracy (half of the images perturbed) of every candidate against FLOPs and parameters (log), with
    the fronts. ``table`` is one of :func:`riceutils.lightest.search`."""
    canvas, axes = figure(4.0, 1, 2, sharey=True)
    points = table.rename(columns={"val_accuracy": "accuracy"})
    for axis, quantity in zip(axes[0], lightest.LIMITS, strict=True):
        for number, (pool, own) in enumerate(points.groupby("pool")):
            axis.plot(own[quantity], own["accuracy"], "os"[number], ms=4, color=PALETTE[number], alpha=0.8,
                      label=f"{pool}×{pool} averaged")  # fmt: skip
        best = comparison.front(points, quantity)
        axis.step(best[quantity], best["accuracy"], where="post", color="0.4", linewidth=1, label="Pareto front")
        axis.set(xscale="log", xlabel=f"{quantity} (log)")
    axes[0, 0].set_ylabel("validation accuracy")
    canvas.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=8)
    return canvas, table


def sampling(tables: Mapping[str, pd.DataFrame]) -> Chart:
    """The best network found against the number of trainings, of the tables of :func:`riceutils.tuning.reference`.

    ``replay``: TPE and random order on the grid's results, mean with the middle 95 %; ``optuna``, where it was
    measured: TPE in a wider space, once for each aim's limits. The numbers are those of the replay.
    """
    canvas, axes = figure(3.2)
    for number, (way, own) in enumerate(tables["replay"].groupby("way", sort=False)):
        axes[0, 0].plot(own["trainings"], own["accuracy"], "o-", ms=3, color=PALETTE[number], label=f"{way}, grid")
        axes[0, 0].fill_between(own["trainings"], own["low"], own["high"], color=PALETTE[number], alpha=0.15, lw=0)
    if "optuna" in tables:
        for number, (aim, own) in enumerate(tables["optuna"].groupby("aim", sort=False), start=2):
            best = own["val_accuracy"].cummax()
            axes[0, 0].step(range(1, len(best) + 1), best, where="post", color=PALETTE[number],
                            label=f"TPE, wider space, limits of {aim:g}")  # fmt: skip
    axes[0, 0].set(xlabel="networks trained", ylabel="best validation accuracy")
    axes[0, 0].legend(fontsize=8, loc="lower right")
    return canvas, tables["replay"]


def progress() -> None:
    """Say how many of the networks that the committed search chose have been trained to the end."""
    table, found = lightest.searched(), lightest.finished()
    wanted = [] if table.empty else lightest.chosen(table)
    done = [options for options in wanted if any(run.spec.options == options for run in found)]
    page.note("lightest_done", chosen=len(wanted), finished=len(done), runs=len(found))


def overview(found: Sequence[Run], beside: Sequence[Run] = ()) -> pd.DataFrame:
    """A row per network: model, source, seed, what it :func:`~riceutils.lightest.learned` from, parameters, FLOPs (both
    with normalisation folded), kB, validation accuracy, clean and perturbed accuracy with Wilson's 95 % interval,
    images.

    ``found`` are networks of the family, ``beside`` runs of the study's models; the published figures and the
    reference's yardstick without a network come from their tables.
    """
    rows = []
    for run in [*found, *beside]:
        if run.spec.model == "rice_nano":
            name, source = lightest.name(run.spec.options), "rice_nano"
            spent = lightest.cost(run.spec.options, run.spec.classes)
        else:
            name, source = run.spec.model, "reference"
            spent = {quantity: int(ledger.static(name)[quantity].value) for quantity in COSTS}
        row: dict[str, Any] = {"model": name, "source": source, "seed": run.spec.seed, **spent}
        row["learned from"] = lightest.learned(run)
        row["validation accuracy"] = run.record["best"]["val_accuracy"]
        for which in ("clean", "perturbed"):
            row |= {f"{which} {key}": getattr(run.accuracy(which), key) for key in ("value", "low", "high")}
        rows.append(row | {"images": run.accuracy().n})
    for entry in ledger.published().to_dict("records"):
        if entry["test_accuracy"]:
            share = evaluation.wilson(
                round(float(entry["test_accuracy"]) * ledger.PUBLISHED_IMAGES), ledger.PUBLISHED_IMAGES
            )
            row = {"model": entry["model"], "source": "published", "images": ledger.PUBLISHED_IMAGES}
            row["learned from"] = "labels"
            row |= {quantity: int(ledger.static(entry["model"])[quantity].value) for quantity in COSTS}
            rows.append(
                row | {"perturbed value": share.value, "perturbed low": share.low, "perturbed high": share.high}
            )
    table = pd.DataFrame(rows)
    return table.assign(kB=table["parameters"] * FLOAT / 1000)


def comparable(table: pd.DataFrame) -> pd.DataFrame:
    """:func:`overview` for reading: accuracies as text, lightest first."""
    ordered = table.sort_values(["parameters", "FLOPs"])
    shown = ordered[["model", "source", "seed", "learned from"]].copy()
    shown["seed"] = [("" if pd.isna(seed) else f"{seed:g}") for seed in shown["seed"]]
    for which in ("perturbed", "clean"):
        figures = table.loc[shown.index, [f"{which} {key}" for key in ("value", "low", "high")]].to_numpy()
        shown[f"{which} accuracy"] = [
            "" if np.isnan(value) else str(evaluation.Interval(value, low, high)) for value, low, high in figures
        ]
    return shown.join(ordered[[*COSTS, "kB"]])


def family(table: pd.DataFrame) -> Chart:
    """Share of perturbed test images told wrong (log) against parameters and FLOPs (log): the family with its Pareto
    front, the study's models as published and as measured here, and, beside these, QDA on real images as a line; below,
    networks of the family alone, where there are several."""
    own = table[table["source"] == "rice_nano"]
    parts = [table, own] if len(own) > 1 else [table]
    canvas, axes = figure(3.8 * len(parts), len(parts), 2, sharey="row")
    yardsticks = dataset.read().get("baseline", pd.DataFrame(columns=["images", "accuracy"]))
    beside = yardsticks["images"].eq("perturbed") & table["source"].eq("reference").any()
    for row, shown in zip(axes, parts, strict=True):
        for axis, quantity in zip(row, COSTS, strict=True):
            _errors(axis, shown, quantity)
            for accuracy in yardsticks.loc[beside, "accuracy"]:
                axis.axhline(1 - accuracy, color="0.4", linewidth=1, linestyle="--", label="no CNN (QDA)")
            axis.set(xscale="log", yscale="log", xlabel=f"{quantity} (log)")
        row[0].set_ylabel("error on perturbed images (log)")
    for axis in axes[1:].flat:
        plain_ticks(axis.xaxis)
    canvas.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=5, fontsize=8)
    return canvas, table


def _errors(axis: Axes, table: pd.DataFrame, quantity: str) -> None:
    points = table.rename(columns={f"perturbed {key}": key for key in ("value", "low", "high")})
    for source, own in points.groupby("source", sort=False):
        color, marker = LOOKS[str(source)]
        spread = np.abs([own["high"] - own["value"], own["value"] - own["low"]])
        face = "none" if source == "published" else color
        axis.errorbar(own[quantity], 1 - own["value"], spread, fmt=marker, ms=4, color=color, mfc=face, elinewidth=0.8,
                      label=source)  # fmt: skip
        if source == "published":
            for name, x, y in own[["model", quantity, "value"]].itertuples(index=False):
                axis.annotate(name, (x, 1 - y), xytext=(3, 3), textcoords="offset points", fontsize=6, color="0.35")
    means = points[points["source"] == "rice_nano"].groupby(["model", "learned from"])[[*COSTS, "value"]].mean()
    if len(means):
        best = comparison.front(means.rename(columns={"value": "accuracy"}), quantity)
        axis.step(best[quantity], 1 - best["accuracy"], where="post", color=PALETTE[2], linewidth=1,
                  label="Pareto front, rice_nano")  # fmt: skip


def aims(table: pd.DataFrame) -> pd.DataFrame:
    """Each of ``lightest.AIMS``, and the family's network within its limits that is most accurate on validation images.

    Columns: aim, parameters at most, FLOPs at most, model, what it learned from, seeds, its accuracy on perturbed test
    images, outcome; then, whatever its size, the network of fewest parameters that passes the aim on validation images
    (smallest beyond) and its accuracy on the test images. Accuracies are means of the seeds; the test images have no
    say in which network it is.
    """
    nano = table[table["source"] == "rice_nano"]
    rows = []
    for accuracy, parameters, work in lightest.AIMS:
        own = nano[(nano["parameters"] <= parameters) & (nano["FLOPs"] <= work)]
        row: dict[str, object] = {"aim": accuracy, "parameters at most": parameters, "FLOPs at most": work}
        if len(own):
            ways = own.groupby(["model", "learned from"])
            best = ways["validation accuracy"].mean().idxmax()
            tested = ways.get_group(best)["perturbed value"]
            row |= {"model": best[0], "learned from": best[1], "seeds": len(tested), "accuracy": tested.mean()}
            row |= {"outcome": "reached" if tested.mean() > accuracy - 1e-9 else "missed"}
        means = nano.groupby(["model", "learned from"])[["parameters", "validation accuracy", "perturbed value"]].mean()
        beyond = means[means["validation accuracy"].round(4) > accuracy].sort_values("parameters")  # single precision
        if len(beyond):
            row |= {"smallest beyond": beyond.index[0][0], "its accuracy": beyond["perturbed value"].iloc[0]}
        rows.append(row)
    return pd.DataFrame(rows)


def distilled(table: pd.DataFrame, other: str = "answers") -> pd.DataFrame:
    """What learning from a teacher's answers, or what ``other`` says, changes in the networks of :func:`overview` that
    were trained both ways.

    Three rows each: means over the seeds that were trained both ways of the accuracies, learned from labels and the
    other way, and the difference in points with its 95 % interval (Student's t over seeds; none of a single one).
    """
    own = table[table["source"] == "rice_nano"].set_index(["model", "seed"])
    labels, answers = (own[own["learned from"] == way] for way in ("labels", other))
    both = labels.index.intersection(answers.index, sort=False)
    rows = []
    for model in dict.fromkeys(both.get_level_values("model")):
        pairs = both[both.get_level_values("model") == model]
        three: list[dict[str, object]] = [
            {"model": model, "learned from": way, "seeds": len(pairs)} for way in ("labels", other, "difference")
        ]
        for which, column in (
            ("validation", "validation accuracy"),
            ("clean", "clean value"),
            ("perturbed", "perturbed value"),
        ):
            before, after = (found.loc[pairs, column].to_numpy(float) for found in (labels, answers))
            texts = (f"{before.mean():.4f}", f"{after.mean():.4f}", evaluation.points(100 * (after - before)))
            for row, text in zip(three, texts, strict=True):
                row[f"{which} accuracy"] = text
        rows += three
    return pd.DataFrame(rows)


def prolonged(table: pd.DataFrame) -> pd.DataFrame:
    """The same of training for ``lightest.LONGER`` epochs."""
    return distilled(table, f"labels, {lightest.LONGER} epochs")


def disturbed(found: Mapping[str, Run]) -> pd.DataFrame:
    """Accuracy under each part of the published perturbation alone, at its published strength, and under all
    corruptions together: a row per network that was measured, n images each.

    The interval of the last is Wilson's for n images: the corruptions share them, and are no more independent.
    """
    rows = []
    for name, run in found.items():
        table = run.generalisation
        if table is None:
            continue
        plain = table[(table["kind"] != "corruption") & table["strength"].isin([0, 1])].set_index("name")["accuracy"]
        spoilt = table[table["kind"] == "corruption"]
        mean, images = spoilt["accuracy"].mean(), int(table["n"].max())
        share = evaluation.wilson(round(mean * images), images)
        row = {"model": name, "n": images, "clean": plain["clean"]}
        row |= {part: plain[part] for part in perturb.PARTS}
        rows.append(row | {"all corruptions": mean, "low": share.low, "high": share.high})
    return pd.DataFrame(rows)


def against(found: Sequence[Run]) -> dict[str, Run]:
    """Networks of the family and the study's models that were measured under every disturbance, ``RIVAL`` first."""
    measured = [run for run in runs.counted() if run.generalisation is not None]
    ours = {f"{run.spec.model}, seed {run.spec.seed}": run for run in measured}
    own = {_label(run): run for run in found}
    first = {label: run for label, run in ours.items() if run.spec.model == RIVAL}
    return first | own | ours


def _label(run: Run) -> str:
    how = lightest.learned(run).removeprefix("labels")
    return f"rice_nano {lightest.name(run.spec.options)}{how}, seed {run.spec.seed}"


def losses(found: Mapping[str, Run]) -> pd.DataFrame:
    """Where the family loses to the study's model ``RIVAL``: a row per corruption, mean of its severities, and one for
    all. Columns: corruption, the model's accuracy, lowest and highest of the family, networks, of them below.

    Empty when the model was not measured.
    """
    spoilt = {
        label: table[table["kind"] == "corruption"].groupby("name", sort=False)["accuracy"].mean()
        for label, run in found.items()
        if (table := run.generalisation) is not None
    }
    other = next((shares for label, shares in spoilt.items() if found[label].spec.model == RIVAL), None)
    own = pd.DataFrame({label: shares for label, shares in spoilt.items() if found[label].spec.model == "rice_nano"})
    if other is None or own.empty:
        return pd.DataFrame()
    own.loc["all corruptions"], other["all corruptions"] = own.mean(), other.mean()
    limits = {"lowest": own.min(axis=1), "highest": own.max(axis=1), "networks": own.shape[1]}
    table = pd.DataFrame({RIVAL: other, **limits, "below": own.lt(other, axis=0).sum(axis=1)})
    return table.rename_axis("corruption").reset_index()


def yardstick(run: Run, measured: Mapping[str, Any], splits: Splits) -> pd.DataFrame:
    """A network of the family beside QDA, both of this build: operations at 224×224 (FLOPs; of QDA a lower bound),
    milliseconds of processor time from pixels to class at the build's image size, and perturbed accuracy.

    ``measured`` is what :func:`riceutils.baseline.measure` gave for the same ``splits``.
    """
    images, network = splits.test.images, run.model()
    training.predict(network, images[:1], run.spec.preprocessing)
    start = time.process_time()
    training.predict(network, images, run.spec.preprocessing)
    seconds = (time.process_time() - start) / len(images)
    table = baseline.features(images)
    area = table["area"] * (224 / splits.image_size) ** 2
    work = lightest.cost(run.spec.options, run.spec.classes)["FLOPs"]
    least = round(baseline.operations(table.assign(area=area), classes=len(splits.classes)))
    ours, other = run.accuracy("perturbed"), measured["accuracy"]["perturbed"]
    rows = [
        ("rice_nano", work, 1000 * seconds, str(ours)),
        (comparison.BASELINE, least, 1000 * measured["seconds_per_image"], str(other)),
    ]
    return pd.DataFrame(rows, columns=["model", "operations", "ms of processor time", "perturbed accuracy"])
