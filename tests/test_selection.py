"""Choosing the epoch by the reported images: the bookkeeping, and the bias that it measures."""

from types import SimpleNamespace

import numpy as np
import pytest

from riceutils import selection
from riceutils.config import BackgroundParameters


def test_noise_alone_gives_optimism_to_the_best_epoch_only():
    right = np.random.default_rng(1).random((6, 12, 400)) < 0.9  # no epoch is better than another
    table = selection.optimism(right).set_index(["choice", "images"])
    best, last = (table.loc[name] for name in ("best epoch", "last epoch"))
    assert best.index.tolist() == [25, 50, 100, 200]
    assert (best["low"] > 0).all()
    assert best["difference"].is_monotonic_decreasing  # the fewer images choose, the more is chance
    assert (last["difference"].abs() < 0.3).all()
    np.testing.assert_allclose(100 * (best["accuracy on A"] - best["accuracy on B"]), best["difference"], atol=1e-4)


def test_a_choice_that_needs_no_luck_gains_nothing():
    right = np.zeros((3, 4, 64), bool)
    right[:, 2, :] = True  # one epoch is right everywhere
    table = selection.optimism(right)
    chosen = table[table["choice"] == "best epoch"]
    assert (chosen["accuracy on A"] == 1).all()
    assert (chosen[["difference", "low", "high"]] == 0).all(axis=None)


def test_same_seed_same_table_and_one_training_has_no_interval():
    right = np.random.default_rng(2).random((1, 5, 64)) < 0.7
    table = selection.optimism(right)
    assert table.equals(selection.optimism(right))
    assert table[["low", "high"]].isna().all(axis=None)


def test_too_few_images_are_said_before_anything_is_trained():
    few = SimpleNamespace(validation=range(11), test=range(20))
    with pytest.raises(ValueError, match="31 images are held out; 32 or more"):
        selection.follow("lenet5", BackgroundParameters(), few, [0])


def test_follow_is_kept_and_repeatable(monkeypatch, tmp_path, grains_splits):
    parameters = BackgroundParameters(image_size=64, epochs=2)
    monkeypatch.setenv("RICEUTILS_HOME", str(tmp_path / "one"))
    first = selection.follow("lenet5", parameters, grains_splits, [0, 1])
    assert first.shape == (2, 2, len(grains_splits.validation) + len(grains_splits.test))
    assert first.dtype == bool
    with monkeypatch.context() as patch:
        patch.setattr(selection.training, "new_model", None)  # nothing is trained again
        assert (selection.follow("lenet5", parameters, grains_splits, [0, 1]) == first).all()
    monkeypatch.setenv("RICEUTILS_HOME", str(tmp_path / "two"))
    assert (selection.follow("lenet5", parameters, grains_splits, [1]) == first[1:]).all()
