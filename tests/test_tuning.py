"""A sampler beside the grid: an honest budget, an exact control, and a search that repeats itself."""

import sys
from itertools import product

import numpy as np
import optuna
import pandas as pd
import pytest
from click.testing import CliRunner

from riceutils import data, lightest, lightestcharts, tuning
from riceutils.__main__ import main


@pytest.fixture(scope="module")
def table():
    """A search over the whole grid, the better the more filters; no two alike."""
    options = list(product(lightest.POOLS, lightest.STEMS, lightest.UNITS))
    worth = [
        0.9 + stem / 200 + sum(filters for filters, _ in units) / 2000 - pool / 1e5 for pool, stem, units in options
    ]
    shown = [(pool, stem, str([list(unit) for unit in units])) for pool, stem, units in options]
    found = pd.DataFrame(shown, columns=["pool", "stem", "units"]).assign(val_accuracy=worth)
    return found.drop_duplicates("val_accuracy")


def test_random_order_is_exact(table, monkeypatch):
    monkeypatch.setattr(tuning, "PROPOSALS", 50)  # most of the grid is not in so small a table
    own = (
        tuning.replay(table.head(5), budgets=[1, 2, 9], repeats=2).query("way == 'random order'").set_index("trainings")
    )
    values = np.sort(table.head(5)["val_accuracy"])
    assert own.loc[1, "accuracy"] == pytest.approx(values.mean())
    pairs = [max(pair) for pair in product(values, values) if pair[0] != pair[1]]
    assert own.loc[2, "accuracy"] == pytest.approx(np.mean(pairs))
    assert own.loc[2, "best found"] == pytest.approx(2 / 5)
    assert own.loc[5, ["accuracy", "low", "high", "best found"]].tolist() == pytest.approx([values[-1]] * 3 + [1])
    tied = table.head(5).assign(val_accuracy=[0.9, 0.95, 0.95, 0.92, 0.91])
    random = tuning.replay(tied, budgets=[1, 2], repeats=2).query("way == 'random order'").set_index("trainings")
    assert random["best found"].tolist() == pytest.approx([2 / 5, 1 - 3 / 10])


def test_what_resembles_the_best_is_found_sooner(table):
    found = tuning.replay(table, budgets=[8, 32], repeats=4).set_index(["way", "trainings"])
    assert found.loc[("TPE", 32), "accuracy"] > found.loc[("random order", 32), "accuracy"]
    assert (found["low"] <= found["accuracy"] + 1e-12).all()
    assert (found["accuracy"] <= found["high"] + 1e-12).all()
    searched = pd.concat([table.assign(aim=0.9), table.assign(aim=0.8)])
    chart, _ = lightestcharts.sampling({"replay": found.reset_index(), "optuna": searched})
    assert [text.get_text() for text in chart.axes[0].get_legend().get_texts()][2:] == [
        "TPE, wider space, limits of 0.9",
        "TPE, wider space, limits of 0.8",
    ]


def test_only_what_is_within_the_limits_is_paid_for():
    asked, paid = [], []

    def judge(options):
        paid.append(options)
        return options["stem"] / 10

    def excess(options):
        asked.append(options)
        return {"pool": 5 - options["pool"], "stem": options["stem"] - 9}

    found = tuning.sample(tuning.wide, judge, 6, 1, excess)
    assert len(found) == len({str(options) for options, _ in found}) == len(paid) == 6
    assert all(options["pool"] > 4 and options["stem"] < 10 for options, _ in found)
    assert any(options["pool"] == 4 for options in asked)
    assert tuning.sample(tuning.wide, judge, 6, 1, excess) == found
    assert tuning.sample(tuning.wide, judge, 6, 2, excess) != found


def test_the_limits_are_learned():
    limits, asked = dict(zip(lightest.LIMITS, lightest.AIMS[1][1:], strict=True)), []

    def excess(options):
        asked.append(lightest.excess(options, limits))
        return asked[-1]

    tuning.sample(tuning.wide, lambda options: options["stem"] / 10, 24, 0, excess)
    inside = [max(over.values()) <= 0 for over in asked]
    assert np.mean(inside[:10]) < 0.2  # at random, one in twenty
    assert np.mean(inside[-20:]) > 0.4


def test_a_space_may_be_exhausted(monkeypatch):
    monkeypatch.setattr(tuning, "PROPOSALS", 30)
    found = tuning.sample(lambda trial: {"stem": trial.suggest_int("stem", 1, 2)}, lambda options: 0.5, 6, seed=0)
    assert len(found) == 2


@pytest.mark.parametrize("seed", range(5))
def test_the_wide_space_holds_networks_of_the_family(seed):
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    options = tuning.wide(study.ask())
    assert tuning.DEPTHS[0] <= len(options["units"]) <= tuning.DEPTHS[1]
    assert lightest.cost(options)["FLOPs"] > 0


def test_the_wide_search_takes_as_many_trainings_as_the_grid(tmp_path, monkeypatch):
    small = data.load("synthetic", 64, [4, 2, 2])
    monkeypatch.setattr(lightest, "RESULTS", tmp_path)
    monkeypatch.setattr(tuning.data, "load", lambda *arguments, **options: small)
    with pytest.raises(FileNotFoundError, match="experiment search"):
        tuning.reference("anything")
    monkeypatch.setattr(
        lightest, "grid", lambda: [{"pool": 8, "stem": stem, "units": [[4, 2], [6, 1]]} for stem in (3, 4)]
    )
    lightest.reference("anything", epochs=1, copies=1)
    tuning.reference("anything", epochs=1, copies=1)
    tables = lightest.tables()
    found = tables["optuna"].groupby("aim")
    assert found.size().tolist() == [len(tables["search"])] * len(lightest.AIMS) == [2, 2]
    for aim, parameters, work in lightest.AIMS:
        assert found.get_group(aim)["parameters"].max() <= parameters
        assert found.get_group(aim)["FLOPs"].max() <= work
    assert len(lightest.searched()) == 6
    assert {row["pool"] for row in lightest.chosen(lightest.searched())} <= set(tuning.POOLS)
    assert tables["replay"]["trainings"].tolist() == [2, 2]


def test_a_missing_sampler_is_said_before_anything_starts(monkeypatch, folder):
    monkeypatch.setitem(sys.modules, "optuna", None)
    monkeypatch.delitem(sys.modules, "riceutils.tuning")
    monkeypatch.setattr(lightest, "reference", lambda source: pytest.fail("started"))
    result = CliRunner().invoke(main, ["experiment", "search", "optuna", "--data", str(folder)])
    assert result.exit_code == 1
    assert result.output.startswith("Error: Optuna is not installed. Install it: pip install 'riceutils[search]'.")
