"""What gives a class away besides the grain: the order of the files, a second population, the file's size.

Each function takes the table of ``baseline.table`` and looks for what was found in the Rice Image Dataset.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from riceutils import baseline, evaluation

FOLDS = 5


def file_numbers(names: pd.Series) -> pd.Series:
    """The number at the end of each file's name, float64: 12 of ``a/Rice (12).jpg`` or ``a/12.png``; else NaN."""
    return names.str.extract(r"(\d+)\)?\.[^./]+$", expand=False).astype(float)


def order_effects(table: pd.DataFrame) -> pd.DataFrame:
    """Does the grain's area follow the files' numbers? Spearman's rank correlation per class, with its p-value.

    ``table`` is that of ``baseline.table``. Classes with fewer than three numbered files that have a grain are
    left out; without any the result is empty.
    """
    from scipy.stats import spearmanr

    rows = []
    for label, files in _numbered(table).groupby("class"):
        if len(files) >= 3 and np.ptp(files["area"]) > 0:
            result = spearmanr(files["number"], files["area"])
            rows.append((label, len(files), float(result.statistic), float(result.pvalue)))
    return pd.DataFrame(rows, columns=["class", "images", "rank correlation", "p"]).set_index("class")


def populations(table: pd.DataFrame, label: str = "Jasmine", least: int = 10) -> pd.DataFrame:
    """Split the class ``label`` in two by file number, where the area's variance within both parts is least.

    Columns: ``images``, ``first`` and ``last`` file number, mean and standard deviation of ``area`` (px) and of
    ``R G B`` (0-255), and ``explained``, the share of the area's variance that the cut takes away: near 0 for one
    population, near 1 for two. Parts have ``least`` images or more; empty when there are not enough of them.
    """
    files = _numbered(table[table["class"] == label]).sort_values("number", kind="stable")
    columns = ["area", "R", "G", "B"]
    names = [f"{column} {figure}" for column in columns for figure in ("mean", "sd")]
    if len(files) < 2 * least:
        return pd.DataFrame(columns=["images", "first", "last", *names, "explained"]).rename_axis("population")
    area = files["area"].to_numpy() - files["area"].mean()
    size = np.arange(1, len(area))
    # Σ over both parts of n·mean² is what the cut explains of the total Σ area².
    between = area.cumsum()[:-1] ** 2 * (1 / size + 1 / (len(area) - size))
    cut = least + int(between[least - 1 : len(area) - least].argmax())
    rows = {}
    for name, part in zip("AB", (files[:cut], files[cut:]), strict=True):
        figures = part[columns].agg(["mean", "std"]).T.to_numpy().ravel()
        rows[f"{label} {name}"] = [len(part), part["number"].min(), part["number"].max(), *figures]
    result = pd.DataFrame(rows, index=["images", "first", "last", *names]).T.rename_axis("population")
    result["explained"] = between[cut - 1] / max((area**2).sum(), 1e-12)
    return result.astype({"images": int, "first": int, "last": int})


def _numbered(table: pd.DataFrame) -> pd.DataFrame:
    numbered = table.assign(number=file_numbers(table["file"]))
    return numbered[numbered["number"].notna() & (numbered["area"] > 0)]


def shortcut(table: pd.DataFrame) -> pd.DataFrame:
    """How far the class shows without looking at the grain: QDA on the file's length and the background's mean.

    Accuracy, with Wilson's interval, over ``FOLDS`` stratified folds, of each alone and of both; ``chance`` is the
    share of the largest class. Raises ``ValueError`` when a class has fewer files than folds.
    """
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    labels = table["class"].to_numpy()
    counts = table["class"].value_counts()
    if counts.min() < FOLDS:
        raise ValueError(f"Class {counts.idxmin()!r} has {counts.min()} images; {FOLDS} folds need {FOLDS} or more.")
    cuts = StratifiedKFold(FOLDS, shuffle=True, random_state=0)
    kinds = {"file size": ["bytes"], "background mean": ["background"], "both": ["bytes", "background"]}
    rows = {}
    for name, columns in kinds.items():
        right = cross_val_predict(baseline.classifier(), table[columns].to_numpy(np.float64), labels, cv=cuts) == labels
        rows[name] = evaluation.wilson(int(right.sum()), len(right))
    result = pd.DataFrame({name: vars(interval) for name, interval in rows.items()}).T
    result = result.rename(columns={"value": "accuracy", "n": "images"}).astype({"images": int})
    return result.assign(chance=counts.max() / len(table)).rename_axis("known")
