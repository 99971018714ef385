"""Figures against values known from the publications or by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from riceutils import evaluation, runs

CLASSES = ["a", "b", "c"]


def certain(predicted, classes=3):
    return np.eye(classes)[predicted]


@pytest.mark.parametrize(
    ("share", "low", "high"), [(0.9963, 0.9946, 0.9974), (0.9970, 0.9955, 0.9980)]
)  # item 10 of the errata
def test_wilson_of_published_scores(share, low, high):
    interval = evaluation.wilson(int(share * 7500), 7500)  # no whole number of images gives the printed share
    assert (interval.low, interval.high) == pytest.approx((low, high), abs=1e-4)
    assert interval.value == pytest.approx(share, abs=1e-4)


def test_interval_is_printed_with_four_decimals():
    assert str(evaluation.wilson(7472, 7500)) == "0.9963 [0.9946, 0.9974]"


@given(st.integers(1, 5000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_formula(counts):
    correct, n = counts
    z, p = 1.959963984540054, correct / n
    centre, half = p + z**2 / (2 * n), z * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    interval = evaluation.wilson(correct, n)
    assert interval.low == pytest.approx((centre - half) / (1 + z**2 / n), abs=1e-9)
    assert interval.high == pytest.approx((centre + half) / (1 + z**2 / n), abs=1e-9)
    assert 0 <= interval.low <= interval.value <= interval.high <= 1


def test_no_images():
    with pytest.raises(ValueError, match="test set is empty"):
        evaluation.wilson(0, 0)


def test_accuracy():
    interval = evaluation.accuracy(certain([0, 1, 2, 2]), np.array([0, 1, 2, 0]))
    assert (interval.value, interval.n) == (0.75, 4)


def test_loss_of_uniform_guessing_is_ln_c():
    assert evaluation.loss(np.full((10, 5), 0.2), np.arange(10) % 5) == pytest.approx(np.log(5))


def test_loss_of_certain_error_is_finite():
    assert evaluation.loss(certain([0]), np.array([1])) == pytest.approx(-np.log(1e-7))


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=60))
def test_report_and_confusion_sum_up(pairs):
    labels, predicted = (np.array(column) for column in zip(*pairs, strict=True))
    counts = evaluation.confusion(certain(predicted), labels, CLASSES)
    table = evaluation.report(certain(predicted), labels, CLASSES)
    assert counts.to_numpy().sum() == len(labels)
    np.testing.assert_array_equal(counts.sum(axis=1), np.bincount(labels, minlength=3))
    np.testing.assert_array_equal(table["support"], [*np.bincount(labels, minlength=3), len(labels)])
    right = np.diag(counts)
    recall = np.divide(right, counts.sum(axis=1), out=np.zeros(3), where=counts.sum(axis=1) > 0)
    precision = np.divide(right, counts.sum(axis=0), out=np.zeros(3), where=counts.sum(axis=0) > 0)
    np.testing.assert_allclose(table["recall"].iloc[:3], recall)
    np.testing.assert_allclose(table["precision"].iloc[:3], precision)
    np.testing.assert_allclose(table.loc["macro average", "F1"], table["F1"].iloc[:3].mean())


def test_mcnemar_by_hand():
    labels = np.zeros(20, int)
    first = certain([0] * 10 + [1] * 2 + [0] * 8)
    second = certain([0] * 10 + [0] * 2 + [1] * 8)
    result = evaluation.mcnemar(first, second, labels)
    assert (result.only_first, result.only_second) == (8, 2)
    assert result.p == pytest.approx(2 * (1 + 10 + 45) / 2**10)  # both tails of the binomial with n = 10
    turned = evaluation.mcnemar(second, first, labels)
    assert (turned.only_first, turned.only_second, turned.p) == (2, 8, result.p)


def test_mcnemar_of_equal_classifiers():
    same = certain([0, 1, 2])
    assert evaluation.mcnemar(same, same, np.array([0, 1, 1])) == evaluation.McNemar(0, 0, 1.0)


def test_what_the_page_says_of_two_seeds_of_one_model():
    seeds = {run.spec.seed: run.predictions for run in runs.counted("googlenet_light")}
    found = evaluation.mcnemar(seeds[0]["perturbed"], seeds[2]["perturbed"], seeds[0]["labels"])
    assert (found.only_first, found.only_second) == (55, 630)
