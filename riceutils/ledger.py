"""The ledger: every published figure beside the reference figure and this build's, with a verdict."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pandas as pd

from riceutils import evaluation, files, runs
from riceutils.evaluation import Interval
from riceutils.runs import Run

VERDICTS = ("exact", "within interval", "differs", "erratum", "not measured")
STATIC = ("parameters", "trainable parameters", "FLOPs", "filters", "TFLOPs of 7,500 images")
COLUMNS = {  # column of models.csv → the ledger's quantity
    "parameters": "parameters",
    "trainable_parameters": "trainable parameters",
    "flops_per_image": "FLOPs",
    "filters": "filters",
    "tflops_7500_images": "TFLOPs of 7,500 images",
    "best_epoch": "best epoch",
    "train_accuracy": "training accuracy",
    "train_loss": "training loss",
    "val_accuracy": "validation accuracy",
    "val_loss": "validation loss",
    "test_accuracy": "perturbed accuracy",
    "macro_precision": "macro precision",
    "macro_recall": "macro recall",
    "macro_f1": "macro F1",
}
ERRATA = {  # published figures that the sources get wrong (errata 1 to 3)
    ("vgg16", "filters"),
    ("googlenet", "filters"),
    ("googlenet_light", "filters"),
    ("vgg16", "TFLOPs of 7,500 images"),
    ("vgg_light", "TFLOPs of 7,500 images"),
    ("vgg_custom", "TFLOPs of 7,500 images"),
}
RESAMPLES = 2000
PUBLISHED_IMAGES = 7500  # of the published perturbed test


def published(name: str = "models") -> pd.DataFrame:
    """A table of the published study, as printed: text, so that the number of digits is kept."""
    return pd.read_csv(files.RESOURCES / "published" / f"{name}.csv", dtype=str, keep_default_na=False)


@cache
def static(name: str) -> dict[str, Interval]:
    """What an architecture alone decides, computed: parameters, FLOPs at the model's own size, convolution filters."""
    from riceutils import activations, flops, models

    model = models.build(name)
    total = flops.count(model).total
    trainable = sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)
    filters = sum(layer.filters for layer in activations.convolutions(model))
    values = (model.count_params(), trainable, total, filters, total * PUBLISHED_IMAGES / 1e12)
    return {quantity: Interval(value) for quantity, value in zip(STATIC, values, strict=True)}


def measured(run: Run) -> dict[str, Interval]:
    """All figures of a run that the Study prints too: of training, and of the perturbed test set.

    Accuracies carry Wilson intervals, the classification report's figures the 95 % range of 2,000 multinomial
    resamples of the confusion matrix. Per class the name is ``"precision, Arborio"``.
    """
    record = run.record
    images = record["data"]["images"]
    figures = {"best epoch": Interval(record["best_epoch"])}
    for name, prefix, side in (("training", "", "train"), ("validation", "val_", "validation")):
        figures[f"{name} loss"] = Interval(record["best"][f"{prefix}loss"])
        share = record["best"][f"{prefix}accuracy"]
        figures[f"{name} accuracy"] = replace(evaluation.wilson(round(share * images[side]), images[side]), value=share)
    for which in ("clean", "perturbed"):
        figures[f"{which} accuracy"] = run.accuracy(which)
    labels, probabilities = run.predictions["labels"], run.predictions["perturbed"]
    return figures | _report(evaluation.confusion(probabilities, labels, run.classes))


def _report(confusion: pd.DataFrame) -> dict[str, Interval]:
    counts = confusion.to_numpy()
    size = len(counts)
    rng = np.random.default_rng(0)
    draws = rng.multinomial(counts.sum(), counts.ravel() / counts.sum(), RESAMPLES).reshape(-1, size, size)
    stacked = np.concatenate([counts[None], draws]).astype(float)
    right = np.einsum("rii->ri", stacked)
    precision = right / np.maximum(stacked.sum(axis=1), 1)
    recall = right / np.maximum(stacked.sum(axis=2), 1)
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
    figures = {}
    for quantity, values in (("precision", precision), ("recall", recall), ("F1", f1)):
        low, high = np.percentile(values[1:], [2.5, 97.5], axis=0)
        for number, label in enumerate(confusion.index):
            figures[f"{quantity}, {label}"] = Interval(values[0, number], low[number], high[number])
        macro = values.mean(axis=1)
        figures[f"macro {quantity}"] = Interval(macro[0], *np.percentile(macro[1:], [2.5, 97.5]))
    return figures


def rows() -> pd.DataFrame:
    """Every published figure of the study models: ``model, quantity, published`` (as printed)."""
    table = []
    for entry in published("models").to_dict("records"):
        table += [(entry["model"], COLUMNS[column], entry[column]) for column in COLUMNS if entry[column]]
    for entry in published("per_class").to_dict("records"):
        for column, quantity in (("precision", "precision"), ("recall", "recall"), ("f1", "F1")):
            table.append((entry["model"], f"{quantity}, {entry['class']}", entry[column]))
    return pd.DataFrame(table, columns=["model", "quantity", "published"])


def ledger(present: Mapping[str, Run] | None = None) -> pd.DataFrame:
    """Published figures beside ours: ``model, quantity, published, reference, this build, verdict``.

    ``present`` maps a model to this build's run. Verdicts rest on the reference figure alone: ``exact`` (equal in
    all printed digits), ``within interval`` (its 95 % interval holds a value that rounds to the published one),
    ``erratum`` (the source is wrong), ``differs``, ``not measured``. Of the reference runs that count
    (:func:`riceutils.runs.counted`) the lowest seed stands for its model.
    """
    table, built, figures = rows(), present or {}, {}
    for model in table["model"].unique():
        run = min(runs.counted(model), key=lambda run: run.spec.seed, default=None)
        known = static(model) | (measured(run) if run is not None else {})
        figures[model] = (known, static(model) | measured(built[model]) if model in built else {})
    compared = []
    for model, quantity, printed in table.itertuples(index=False):
        ours, now = (found.get(quantity) for found in figures[model])
        compared.append((written(ours, printed), written(now, printed), _verdict((model, quantity), printed, ours)))
    table[["reference", "this build", "verdict"]] = compared
    return table


def seeds(model: str) -> pd.DataFrame:
    """A row per reference run of ``model`` that counts, lowest seed first: both accuracies, with intervals, as text."""
    table = [
        (r.spec.seed, str(r.accuracy()), str(r.accuracy("perturbed")), r.record["best_epoch"], len(r.history))
        for r in sorted(runs.counted(model), key=lambda run: run.spec.seed)
    ]
    return pd.DataFrame(table, columns=["seed", "clean accuracy", "perturbed accuracy", "best epoch", "epochs"])


def finding(model: str) -> tuple[str, dict[str, Any]]:
    """What became of the published perturbed accuracy of ``model``: an outcome, and the figures behind it.

    A run misses a published figure above its 95 % interval and surpasses one below it. The outcome is ``missed``,
    ``reached`` or ``surpassed`` of a single reference run that counts; ``none``, ``some`` or ``every`` of several
    seeds, by how many miss it; or ``unmeasured``. Figures: published, seeds (how many), and, if measured, images
    (trained on), reached (by how many seeds), and both accuracies: an interval, or lowest and highest of the seeds.
    """
    printed = published().set_index("model").loc[model, "test_accuracy"]
    found = runs.counted(model)
    figures: dict[str, Any] = {"published": printed, "seeds": len(found)}
    if not found:
        return "unmeasured", figures
    clean, perturbed = ([run.accuracy(which) for run in found] for which in ("clean", "perturbed"))
    reached = sum(share.high >= float(printed) for share in perturbed)
    figures |= {"images": found[0].record["data"]["images"]["train"], "reached": reached}
    if len(found) == 1:
        surpassed = perturbed[0].low > float(printed)
        outcome = "surpassed" if surpassed else "reached" if reached else "missed"
        return outcome, figures | {"clean": clean[0], "perturbed": perturbed[0]}
    for which, shares in (("clean", clean), ("perturbed", perturbed)):
        figures[which] = [end(share.value for share in shares) for end in (min, max)]
    return "every" if reached == len(found) else "some" if reached else "none", figures


def overview(present: Mapping[str, Run] | None = None, baseline: pd.DataFrame | None = None) -> pd.DataFrame:
    """Accuracies beside weights, long form, for charts: published, reference and this build.

    Columns: ``model, source, images`` (clean or perturbed), ``accuracy, low, high, FLOPs, parameters, filters``
    (convolution filters as counted), ``filters as published``, ``seed`` (a row for each seed of a reference).
    Models of ``present`` that were not published come last. ``baseline`` is the table of the no-CNN yardstick, which
    has no FLOPs.
    """
    table = []
    figures = published("models").set_index("model").to_dict("index")
    models = [*figures, *(model for model in present or () if model not in figures)]
    for model in models:
        entry = figures.get(model) or {"filters": "", "test_accuracy": ""}
        weights = {quantity: figure.value for quantity, figure in static(model).items()}
        own = [weights[key] for key in ("FLOPs", "parameters", "filters")]
        own.append(float(entry["filters"] or "nan"))
        if entry["test_accuracy"]:
            printed = float(entry["test_accuracy"])
            share = evaluation.wilson(round(printed * PUBLISHED_IMAGES), PUBLISHED_IMAGES)
            table.append((model, "published", "perturbed", printed, share.low, share.high, *own, None))
        ours = [("reference", run) for run in runs.counted(model)]
        ours += [("this build", present[model])] if present and model in present else []
        for source, run in ours:
            for which in ("clean", "perturbed"):
                share = run.accuracy(which)
                table.append((model, source, which, share.value, share.low, share.high, *own, run.spec.seed))
    columns = ["model", "source", "images", "accuracy", "low", "high", "FLOPs", "parameters", "filters"]
    columns += ["filters as published", "seed"]
    result = pd.DataFrame(table, columns=columns)
    if baseline is not None:
        yardstick = baseline.assign(model="QDA", source="reference")
        result = pd.concat([result, yardstick[columns[:6]]], ignore_index=True)
    return result


def _digits(text: str) -> int:
    return len(text.partition(".")[2])


def written(figure: Interval | None, published: str) -> str:
    """Our figure, with its interval where it has one, in four decimals or as many as the published one has."""
    if figure is None:
        return ""
    if np.isnan(figure.low) and figure.value == int(figure.value) and not _digits(published):
        return f"{int(figure.value)}"
    digits = max(_digits(published), 4)
    text = f"{figure.value:.{digits}f}"
    return text if np.isnan(figure.low) else f"{text} [{figure.low:.{digits}f}, {figure.high:.{digits}f}]"


def _verdict(row: tuple[str, str], published: str, figure: Interval | None) -> str:
    if figure is None:
        return "not measured"
    if row in ERRATA:
        return "erratum"
    if round(figure.value, _digits(published)) == float(published):
        return "exact"
    half = 0.5 * 10 ** -_digits(published)  # a printed figure stands for all that round to it
    if figure.low <= float(published) + half and float(published) - half <= figure.high:
        return "within interval"
    return "differs"
