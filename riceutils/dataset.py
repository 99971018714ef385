"""What the dataset chapter measures: of this build's images, and, once, of the real ones (reference results)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from riceutils import audit, baseline, config, evaluation, files, shortcuts, study, subjects, training
from riceutils.config import TrainingParameters
from riceutils.data import Splits

REFERENCE = files.PACKAGE / "results" / "dataset"
VERSION = 2  # raise by hand when a measurement changes meaning
CROSS_MODEL = "final"  # the Study's lightest, trained on one kind of images and tested on the other
PER_CLASS = 400  # files of each class that are measured at their own size, unless all are asked for


def measurements(splits: Splits, per_class: int | None = PER_CLASS) -> dict[str, pd.DataFrame]:
    """Tables of a set of images, computed once per set and kept in the cache folder.

    ``classes`` (files, sizes, modes), ``duplicates`` (groups, and how many of them a split tears apart),
    ``populations`` and ``order`` (does the content follow the file numbers), ``shortcut`` (accuracy without looking
    at the grain) and ``baseline`` (QDA on eleven features, clean and perturbed).
    """
    folder = files.home() / "dataset" / files.digest([VERSION, splits.fingerprint, splits.source.signature, per_class])
    if not folder.exists():
        report = audit.audit(splits.source)
        measured = _features(splits, per_class)
        tables = {
            "classes": report.classes,
            "duplicates": report.separated.rename_axis("found"),
            "populations": shortcuts.populations(measured),
            "order": shortcuts.order_effects(measured),
            "shortcut": _or_why(shortcuts.shortcut, measured),
            "baseline": _or_why(_yardstick, splits),
        }
        write(tables, folder)
    return read(folder)


def _features(splits: Splits, per_class: int | None) -> pd.DataFrame:
    """``baseline.table`` of the source, measured once and kept in the cache folder."""
    target = files.home() / "dataset" / f"{files.digest([VERSION, splits.source.signature, per_class])}.csv"
    with files.once(target) as missing:
        if missing:
            with files.replacing(target) as temporary:
                baseline.table(splits.source, per_class).to_csv(temporary, index=False)
    return pd.read_csv(target, dtype={"class": str}, keep_default_na=False)


def _yardstick(splits: Splits) -> pd.DataFrame:
    measured = baseline.measure(splits, subjects.perturbed_test(splits))
    rows = [{"images": which, **vars(interval)} for which, interval in measured["accuracy"].items()]
    table = pd.DataFrame(rows).rename(columns={"value": "accuracy"}).set_index("images")
    return table.assign(seconds=measured["seconds_per_image"])


def _or_why(function: Callable[[Any], pd.DataFrame], images: Any) -> pd.DataFrame:
    """The table of ``function``, or, when there are too few images for it, why there is none."""
    try:
        return function(images)
    except ValueError as error:
        return pd.DataFrame({"not measured": [str(error)]}).set_index("not measured")


def write(tables: dict[str, pd.DataFrame], folder: Path) -> None:
    """Write tables as CSV files into ``folder``, which appears whole."""
    with files.replacing(folder) as temporary:
        temporary.mkdir()
        for name, table in tables.items():
            table.to_csv(temporary / f"{name}.csv", index=table.index.name is not None, float_format="%.6g")


def read(folder: Path = REFERENCE) -> dict[str, pd.DataFrame]:
    """The tables of a folder, by name; by default the reference measurements of the real images (may be empty)."""
    return files.read_tables(folder, keep_default_na=False)


def counts(splits: Splits) -> pd.DataFrame:
    """Images per class and side of the split."""
    used = splits.manifest[splits.manifest["split"] != ""]
    return (
        pd.crosstab(used["class"], used["split"])[["train", "validation", "test"]]
        .rename_axis(columns=None)
        .reset_index()
    )


def statistics(splits: Splits, per_class: int = PER_CLASS) -> pd.DataFrame:
    """Mean of each feature per class of these images beside that of all real images, in long form.

    Columns: class, feature, this build, all real images, standard deviation (of all real images; Jasmine's two
    populations are pooled), deviation ((this build - all real images) / standard deviation). Classes without such
    statistics are left out.
    """
    facts = pd.read_csv(files.RESOURCES / "class_stats.csv")
    facts["class"] = facts["population"].str.split("_").str[0]
    measured = _features(splits, per_class).groupby("class").mean(numeric_only=True)
    rows = []
    for label, populations in facts[facts["class"].isin(measured.index)].groupby("class"):
        share = populations["images"] / populations["images"].sum()
        for feature in (*baseline.SHAPE, "extent", *baseline.COLOUR):
            means, stds = populations[f"{feature}_mean"], populations[f"{feature}_std"]
            mean = (share * means).sum()
            std = float(((share * (stds**2 + means**2)).sum() - mean**2) ** 0.5)
            ours = float(measured.loc[label, feature])
            rows.append((label, feature, ours, mean, std, (ours - mean) / std))
    names = ["class", "feature", "this build", "all real images", "standard deviation", "deviation"]
    return pd.DataFrame(rows, columns=names)


def cross(real: Splits, synthetic: Splits, model: str, parameters: TrainingParameters) -> pd.DataFrame:
    """What synthetic images are worth: ``model`` trained on one kind and tested on both.

    Columns: trained on, tested on, accuracy, low, high, n, and what was trained: model, parameters, image size,
    training images.
    """
    kinds = {"synthetic": synthetic, "real": real}
    rows = []
    for trained_on, splits in kinds.items():
        network = study.run(model, parameters, splits).model()
        for tested_on, others in kinds.items():
            interval = evaluation.accuracy(training.predict(network, others.test.images), others.test.labels)
            made = (model, network.count_params(), splits.image_size, len(splits.train))
            rows.append((trained_on, tested_on, *vars(interval).values(), *made))
    names = ["trained on", "tested on", "accuracy", "low", "high", "n", "model", "parameters", "image size", "train"]
    return pd.DataFrame(rows, columns=names).set_index("trained on")


def reference(source: str) -> None:
    """Measure real images and commit the tables: :func:`measurements` of all files, and :func:`cross`. Half an hour."""
    tables = measurements(study.reference(source), per_class=None)
    small = config.training_parameters("cross", CROSS_MODEL, source)
    synthetic = study.load(small.model_copy(update={"data": "synthetic"}))
    write(tables | {"cross": cross(study.load(small), synthetic, CROSS_MODEL, small)}, REFERENCE)
