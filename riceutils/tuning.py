"""Would a sampler that learns have found the lightest network sooner than the grid? Optuna's TPE beside it.

TPE (tree-structured Parzen estimator, Bergstra et al. 2011) proposes what resembles the best so far. It is tried twice:
on the grid's own results, where nothing needs training and the comparison can be repeated, and on real images in a
wider space, within the limits of each aim, with as many trainings as the grid took.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from math import comb
from typing import Any

import numpy as np
import pandas as pd

from riceutils import data, files, lightest

try:
    import optuna
    from optuna.trial import Trial, TrialState
except ModuleNotFoundError as error:
    raise ModuleNotFoundError("Optuna is not installed. Install it: pip install 'riceutils[search]'.") from error

POOLS = (4, 7, 8)  # 56, 32 and 28 px are left of 224
STEMS = (3, 10)  # fewest and most filters of the strided convolution
FILTERS = (4, 24)  # of a unit
DEPTHS = (2, 4)  # units
PROPOSALS = 1_000  # after so many, a space is taken to be exhausted

Options = dict[str, Any]


def wide(trial: Trial) -> Options:
    """A network of the family from a space that contains the grid's, and much between its points."""
    filters = [trial.suggest_int(f"filters{number}", *FILTERS) for number in range(trial.suggest_int("depth", *DEPTHS))]
    strides = [2, trial.suggest_int("stride2", 1, 2), 1, 1]
    return {
        "pool": trial.suggest_categorical("pool", POOLS),
        "stem": trial.suggest_int("stem", *STEMS),
        "units": [[filters, stride] for filters, stride in zip(filters, strides, strict=False)],
    }


def from_grid(trial: Trial) -> Options:
    """A network of the grid of :mod:`riceutils.lightest`."""
    units = trial.suggest_categorical("units", [json.dumps(units) for units in lightest.UNITS])
    return {
        "pool": trial.suggest_categorical("pool", lightest.POOLS),
        "stem": trial.suggest_categorical("stem", lightest.STEMS),
        "units": json.loads(units),
    }


def sample(
    suggest: Callable[[Trial], Options],
    judge: Callable[[Options], float],
    budget: int,
    seed: int,
    excess: Callable[[Options], Mapping[str, float]] = lambda options: {},
) -> list[tuple[Options, float]]:
    """Up to ``budget`` different networks in the order in which TPE asks for them, with what ``judge`` says of each.

    ``judge`` returns what is to be maximised. A network of which ``excess`` has a number above 0 is outside of the
    limits: that costs no training, and TPE learns where they are. A network proposed again is no news to it: told each
    time, the best would soon be all that it asks for.
    The order depends on ``seed`` and on the answers alone, so that a sampling that was interrupted repeats itself.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=seed))
    answers: dict[str, tuple[Options, float]] = {}
    for _ in range(PROPOSALS):
        trial = study.ask()
        options = suggest(trial)
        key = json.dumps(options, sort_keys=True)
        over = excess(options)
        for name, share in over.items():
            trial.set_constraint(name, share)
        if key in answers:
            study.tell(trial, state=TrialState.FAIL)
        elif max(over.values(), default=0) > 0:
            study.tell(trial, state=TrialState.PRUNED)
        else:
            answers[key] = (options, judge(options))
            study.tell(trial, answers[key][1])
        if len(answers) == budget:
            break
    return list(answers.values())


def replay(table: pd.DataFrame, budgets: Sequence[int] = (4, 8, 16, 24, 32), repeats: int = 100) -> pd.DataFrame:
    """What TPE and random order find of a finished search (:func:`riceutils.lightest.search`), a row each per budget.

    Columns: way, trainings, accuracy (the best found, mean), low and high (2.5 % and 97.5 % of all orders), best found
    (how often the search's best is among them). Of random order these are computed over all orders; TPE is repeated
    with ``repeats`` seeds. A budget beyond the table's length is the whole table.
    """
    judged = {_key(row): float(row["val_accuracy"]) for row in table.to_dict("records")}
    values, budgets = np.sort(list(judged.values())), sorted({min(budget, len(judged)) for budget in budgets})
    orders = []
    for seed in range(repeats):
        found = sample(
            from_grid,
            lambda options: judged[_key(options)],
            max(budgets),
            seed,
            lambda options: {"not in the table": 0.0 if _key(options) in judged else 1.0},
        )
        highest = np.maximum.accumulate([value for _, value in found])
        orders.append(np.pad(highest, (0, max(budgets) - len(highest)), mode="edge"))
    rows = []
    for budget in budgets:
        reached = np.array(orders)[:, budget - 1]
        # The largest of `budget` is value i where all others come from the i smaller ones.
        shares = np.array([comb(i, budget - 1) for i in range(len(values))]) / comb(len(values), budget)
        drawn = np.searchsorted(np.cumsum(shares), [0.025, 0.975])
        low, high = np.quantile(reached, [0.025, 0.975])
        best = {"way": "TPE", "accuracy": reached.mean(), "low": low, "high": high}
        rows.append(best | {"trainings": budget, "best found": float(np.mean(reached == values[-1]))})
        missed = comb(int((values < values[-1]).sum()), budget) / comb(len(values), budget)
        best = {"way": "random order", "accuracy": shares @ values, "low": values[drawn[0]], "high": values[drawn[1]]}
        rows.append(best | {"trainings": budget, "best found": 1 - missed})
    return pd.DataFrame(rows)[["way", "trainings", "accuracy", "low", "high", "best found"]]


def _key(options: Mapping[Any, Any]) -> str:
    units = options["units"]
    return json.dumps([options["pool"], options["stem"], json.loads(units) if isinstance(units, str) else units])


def search(splits: data.Splits, budget: int, limits: Mapping[str, int], *, epochs: int, copies: int) -> pd.DataFrame:
    """:func:`riceutils.lightest.search` with TPE choosing among networks of the wide space within ``limits``."""

    rows: list[pd.DataFrame] = []

    def judge(options: Options) -> float:
        rows.append(lightest.search(splits, [options], epochs=epochs, copies=copies))
        return float(rows[-1]["val_accuracy"].iloc[0])

    sample(wide, judge, budget, 0, lambda options: lightest.excess(options, limits))
    return pd.concat(rows, ignore_index=True)


def reference(source: str, epochs: int = 8, copies: int = 1) -> None:
    """Search the wide space on real images, within the limits of each of ``lightest.AIMS`` (column aim: its accuracy),
    with as many trainings as the committed search took; then replay that. Commits both.

    Hours, resumable; the smallest networks first. Raises ``FileNotFoundError`` before there is a search.
    """
    table = lightest.needed()
    splits = data.load(source, 224, lightest.COUNTS)
    found: list[pd.DataFrame] = []
    for accuracy, *most in reversed(lightest.AIMS):
        limits = dict(zip(lightest.LIMITS, map(int, most), strict=True))
        own = search(splits, len(table), limits, epochs=epochs, copies=copies)
        found.append(own.assign(aim=accuracy))
        files.write_csv(lightest.RESULTS / "optuna.csv", pd.concat(found, ignore_index=True))
    files.write_csv(lightest.RESULTS / "replay.csv", replay(table))
