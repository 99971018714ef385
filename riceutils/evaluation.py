"""Figures of a classifier from its probabilities: accuracy with intervals, reports, paired comparison."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import permutations

import numpy as np
import pandas as pd
from scipy import stats

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Interval:
    """A figure with its 95 % interval, where it has one, and the number of images it rests on."""

    value: float
    low: float = float("nan")
    high: float = float("nan")
    n: int = 0

    def __str__(self) -> str:
        return f"{self.value:.4f} [{self.low:.4f}, {self.high:.4f}]"


def wilson(correct: int, n: int) -> Interval:
    """Wilson's score interval for ``correct`` of ``n`` (Wilson 1927), 95 %. Raises ``ValueError`` for n = 0."""
    if n < 1:
        raise ValueError("No images to measure on: the test set is empty.")
    low, high = stats.binomtest(int(correct), int(n)).proportion_ci(CONFIDENCE, method="wilson")
    return Interval(correct / n, float(low), float(high), int(n))


def accuracy(probabilities: np.ndarray, labels: np.ndarray) -> Interval:
    """Accuracy of ``probabilities`` (N, classes) against integer ``labels`` (N,), with Wilson's interval."""
    return wilson(int((probabilities.argmax(axis=1) == labels).sum()), len(labels))


def loss(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Mean categorical cross-entropy in nats; probabilities are kept away from 0 by 1e-7, as Keras does."""
    chosen = probabilities[np.arange(len(labels)), labels]
    return float(-np.log(np.clip(chosen, 1e-7, 1.0)).mean())


def report(probabilities: np.ndarray, labels: np.ndarray, classes: list[str]) -> pd.DataFrame:
    """Precision, recall and F1 per class and their macro average; support is the number of images."""
    from sklearn.metrics import precision_recall_fscore_support

    predicted = probabilities.argmax(axis=1)
    numbers = range(len(classes))
    columns = precision_recall_fscore_support(labels, predicted, labels=numbers, zero_division=0)
    table = pd.DataFrame(dict(zip(("precision", "recall", "F1", "support"), columns, strict=True)), index=classes)
    macro = table[["precision", "recall", "F1"]].mean()
    table.loc["macro average"] = [*macro, table["support"].sum()]
    table["support"] = table["support"].astype(int)
    return table.rename_axis("class")


def confusion(probabilities: np.ndarray, labels: np.ndarray, classes: list[str]) -> pd.DataFrame:
    """Counts of images: true class in rows, predicted class in columns."""
    from sklearn.metrics import confusion_matrix

    counts = confusion_matrix(labels, probabilities.argmax(axis=1), labels=range(len(classes)))
    return pd.DataFrame(counts, index=pd.Index(classes, name="true"), columns=pd.Index(classes, name="predicted"))


@dataclass(frozen=True)
class McNemar:
    """Images that only the first, or only the second, classifier got right, and the exact two-sided p-value."""

    only_first: int
    only_second: int
    p: float


def mcnemar(first: np.ndarray, second: np.ndarray, labels: np.ndarray) -> McNemar:
    """McNemar's exact test of two classifiers' probabilities on the same images (McNemar 1947)."""
    right_first, right_second = (p.argmax(axis=1) == labels for p in (first, second))
    b, c = int((right_first & ~right_second).sum()), int((right_second & ~right_first).sum())
    return McNemar(b, c, float(stats.binomtest(b, b + c).pvalue) if b + c else 1.0)


def paired(first: np.ndarray, second: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """By how many points the ``second`` classifier's probabilities are more accurate on the same images.

    ``difference`` with a 95 % interval of matched pairs (Agresti, Min 2005, doi 10.1002/sim.1781), ``low`` and
    ``high``, in points, and ``p`` by McNemar's exact test.
    """
    test = mcnemar(first, second, labels)
    gain, n = test.only_second - test.only_first, len(labels) + 2
    half = stats.norm.ppf(0.975) * np.sqrt(test.only_first + test.only_second + 1 - gain**2 / n) / n
    low, high = (float(100 * (gain / n + side * half)) for side in (-1, 1))
    return {"difference": 100 * gain / len(labels), "low": low, "high": high, "p": test.p}


def unpaired(first: Interval, second: Interval) -> dict[str, float]:
    """Points from the first share to the second with a 95 % interval (Newcombe 1998, method 10, of Wilson's)."""
    gain = second.value - first.value
    low = gain - np.hypot(second.value - second.low, first.high - first.value)
    high = gain + np.hypot(second.high - second.value, first.value - first.low)
    return {"difference": 100 * gain, "low": float(100 * low), "high": float(100 * high)}


def student(values: Sequence[float] | np.ndarray) -> Interval:
    """Mean of several trainings' figures with the 95 % interval of Student's t; a single one has none."""
    return stratified([np.asarray(values)])


def stratified(groups: Sequence[np.ndarray]) -> Interval:
    """Mean of the means of several groups of trainings, with a 95 % interval from the spread within the groups only.

    Student's t with Satterthwaite's degrees of freedom (1946). The groups count as given: nothing is said of others.
    There is no interval when a group has a single training.
    """
    mean, number = float(np.mean([np.mean(group) for group in groups])), sum(map(len, groups))
    if min(map(len, groups)) < 2:
        return Interval(mean, n=number)
    parts = np.array([np.var(group, ddof=1) / len(group) for group in groups]) / len(groups) ** 2
    if not parts.any():
        return Interval(mean, mean, mean, number)
    freedom = parts.sum() ** 2 / sum(parts**2 / [len(group) - 1 for group in groups])
    half = stats.t.ppf(0.5 + CONFIDENCE / 2, freedom) * np.sqrt(parts.sum())
    return Interval(mean, mean - half, mean + half, number)


def points(*groups: np.ndarray) -> str:
    """The mean of trainings' differences, in points, with the interval of :func:`stratified`, to be read; "" of
    none."""
    found = [group for group in groups if len(group)]
    if not found:
        return ""
    mean = stratified(found)
    return f"{mean.value:+.2f}" + ("" if np.isnan(mean.low) else f" [{mean.low:+.2f}, {mean.high:+.2f}]")


def spearman(x: Iterable[float], y: Iterable[float]) -> dict[str, float]:
    """Spearman's rank correlation of 3 to 9 pairs; ``p`` is exact and two-sided, over all permutations.

    ``detectable``: the least absolute correlation that is significant with so many pairs, missing if none is. 95 %
    interval by Fisher's transformation (Bonett, Wright 2000, doi 10.1007/BF02294183). All are missing when one side
    is constant. Raises ``ValueError`` for another number of pairs.
    """
    ranks = [stats.rankdata(list(values)) for values in (x, y)]
    n = len(ranks[0])
    if not 3 <= n <= 9:
        raise ValueError(f"{n} pairs; a correlation is tested on 3 to 9.")
    if min(map(np.ptp, ranks)) == 0:
        return dict.fromkeys(("rank correlation", "low", "high", "p", "detectable"), np.nan)
    first, second = map(stats.zscore, ranks)
    rho, every = float(first @ second / n), np.abs(np.array(list(permutations(second))) @ first / n).round(9)
    reached = [value for value in np.unique(every) if (every >= value).mean() < 1 - CONFIDENCE]
    half = stats.norm.ppf(0.975) * np.sqrt((1 + rho**2 / 2) / (n - 3)) if n > 3 else np.inf
    low, high = np.tanh(np.arctanh(np.clip(rho, -1 + 1e-9, 1 - 1e-9)) + np.array([-half, half]))
    figures = {"rank correlation": rho, "low": float(low), "high": float(high)}
    p = float((every >= round(abs(rho), 9)).mean())
    return figures | {"p": p, "detectable": float(reached[0]) if reached else np.nan}
