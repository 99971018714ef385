"""What the dataset chapter measures: of this build's images, and, once, of the real ones (reference results)."""

from __future__ import annotations

import pandas as pd

from riceutils import audit, baseline, evaluation, files, grains, study, training
from riceutils.config import TrainingParameters
from riceutils.data import Splits

REFERENCE = files.PACKAGE / "results" / "dataset"
VERSION = 1  # raise by hand when a measurement changes meaning
TABLES = ("classes", "duplicates", "populations", "order", "shortcut", "baseline")
PER_CLASS = 400  # files of each class that are measured at their own size, unless all are asked for


def measurements(splits: Splits, per_class: int | None = PER_CLASS) -> dict[str, pd.DataFrame]:
    """Tables of a set of images, computed once per set and kept in the cache folder.

    ``classes`` (files, sizes, modes), ``duplicates`` (groups, and how many of them a split tears apart),
    ``populations`` and ``order`` (does the content follow the file numbers), ``shortcut`` (accuracy without looking
    at the grain) and ``baseline`` (QDA on eleven features, clean and perturbed).
    """
    folder = files.home() / "dataset" / files.digest([VERSION, splits.fingerprint, per_class])
    if not folder.exists():
        report = audit.audit(splits.source)
        measured = baseline.table(splits.source, per_class)
        yardstick = baseline.measure(splits, training.perturbed_test(splits), progress=True)
        rows = [{"images": which, **vars(interval)} for which, interval in yardstick["accuracy"].items()]
        tables = {
            "classes": report.classes,
            "duplicates": report.separated,
            "populations": audit.populations(measured),
            "order": audit.order_effects(measured),
            "shortcut": audit.shortcut(measured),
            "baseline": pd.DataFrame(rows)
            .rename(columns={"value": "accuracy"})
            .assign(seconds=yardstick["seconds_per_image"])
            .set_index("images"),
        }
        write(tables, folder)
    return read(folder)


def write(tables: dict[str, pd.DataFrame], folder) -> None:
    """Write tables as CSV files into ``folder``, which appears whole."""
    with files.replacing(folder) as temporary:
        temporary.mkdir()
        for name, table in tables.items():
            table.to_csv(temporary / f"{name}.csv", float_format="%.6g")


def read(folder=REFERENCE) -> dict[str, pd.DataFrame]:
    """The tables of a folder, by name; by default the reference measurements of the real images (may be empty)."""
    return {path.stem: pd.read_csv(path, keep_default_na=False) for path in sorted(folder.glob("*.csv"))}


def statistics(splits: Splits, per_class: int = 200) -> pd.DataFrame:
    """Mean of each feature per class of these images beside the published statistics: long form.

    Columns: class, feature, this build, published, standard deviation (of the published population; Jasmine's two
    are pooled), deviation ((this build - published) / standard deviation). Classes without a published row are left
    out.
    """
    measured = baseline.table(splits.source, per_class).groupby("class").mean(numeric_only=True)
    rows = []
    for label in measured.index.intersection(list(grains.VARIETIES)):
        for feature in (*baseline.SHAPE, "extent", *baseline.COLOUR):
            mean, std = grains.published(label, feature)
            ours = measured.loc[label, feature]
            rows.append((label, feature, ours, mean, std, (ours - mean) / std))
    names = ["class", "feature", "this build", "published", "standard deviation", "deviation"]
    return pd.DataFrame(rows, columns=names)


def cross(real: Splits, synthetic: Splits, model: str, parameters: TrainingParameters) -> pd.DataFrame:
    """What synthetic images are worth: ``model`` trained on one kind and tested on both.

    Columns: trained on, tested on, images, accuracy, low, high.
    """
    kinds = {"synthetic": synthetic, "real": real}
    rows = []
    for trained_on, splits in kinds.items():
        network = study.run(model, parameters, splits).model()
        for tested_on, others in kinds.items():
            interval = evaluation.accuracy(training.predict(network, others.test.images), others.test.labels)
            rows.append((trained_on, tested_on, interval.n, interval.value, interval.low, interval.high))
    names = ["trained on", "tested on", "images", "accuracy", "low", "high"]
    return pd.DataFrame(rows, columns=names).set_index("trained on")
