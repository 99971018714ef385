"""The search for the lightest network: a grid within its limits, judged without the test images."""

import numpy as np

from riceutils import data, lightest, runs


def test_the_grid_stays_within_its_limits_and_reaches_far_down():
    found = lightest.grid()
    spent = [lightest.cost(options) for options in (found[0], found[-1])]
    assert all(cost[quantity] <= limit for cost in spent for quantity, limit in lightest.LIMITS.items())
    assert spent[0]["parameters"] < 500
    assert spent[0]["FLOPs"] < 250_000
    assert len({str(options) for options in found}) == len(found) > 30


def test_a_search_knows_nothing_of_the_test_images(tmp_path):
    splits = data.load("synthetic", 64, [4, 2, 3], progress=False)
    candidates = lightest.grid()[:2]
    table = lightest.search(splits, candidates, epochs=1, copies=1, progress=False)
    assert table["pool"].tolist() == [options["pool"] for options in candidates]
    assert table["val_accuracy"].between(0, 1).all()
    run = lightest.train(splits, candidates[0], epochs=1, copies=1, progress=False)  # the chosen one meets them
    assert run.spec.data == splits.fingerprint
    np.testing.assert_array_equal(run.predictions["labels"], splits.test.labels)
    searched = [runs.Run(folder.parent) for folder in runs.files.home().glob("runs/rice_nano-*/record.json")]
    hidden = [other for other in searched if other.spec.data == f"{splits.fingerprint}-search"]
    assert len(hidden) >= 2
    for other in hidden:
        np.testing.assert_array_equal(other.predictions["labels"], splits.validation.labels)
