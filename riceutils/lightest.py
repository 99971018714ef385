"""The search for the lightest network that still knows rice: a plain grid over the family ``rice_nano``.

Every candidate is trained alike, on images and perturbed copies of them, and judged on validation images; the test
images are touched once, by the networks that were chosen.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from itertools import product
from typing import Any

import numpy as np
import pandas as pd

from riceutils import comparison, data, files, flops, generalisation, models, runs, study, surgery, training
from riceutils.data import Splits
from riceutils.runs import Run, Spec

RESULTS = files.PACKAGE / "results" / "lightest"
POOLS = (4, 8)  # 56 and 28 px are left of 224
STEMS = (3, 4, 6, 8)
UNITS = (  # (filters, stride) of each depthwise-separable unit
    ((4, 2), (6, 1)),
    ((6, 2), (8, 1)),
    ((8, 2), (12, 1)),
    ((6, 2), (8, 1), (8, 1)),
    ((8, 2), (12, 1), (16, 1)),
    ((12, 2), (16, 1), (24, 1)),
    ((12, 2), (16, 2), (24, 1)),
    ((8, 2), (12, 2), (16, 1), (24, 1)),
    ((12, 2), (16, 2), (24, 1), (24, 1)),
)
COUNTS = (3_000, 500, 1_500)  # of each class: train, validation, test
AIMS = (  # perturbed accuracy, parameters, FLOPs
    (0.998, 2_000, 1_000_000),
    (0.9909, 500, 250_000),  # the best published model's accuracy, its cost cut to a few thousandths
)
LIMITS = {"parameters": 2_000, "FLOPs": 1_000_000}  # of what is searched, normalisation folded
EPOCHS, COPIES, SEEDS = 30, 5, (0, 1, 2)  # of the trainings to the end
LONGER = 120  # epochs, to see whether more would help
TEACHER = {"pool": 4, "stem": 24, "units": [[48, 2], [64, 1], [96, 1], [96, 1]]}  # far beyond them
TEMPERATURE = 4.0  # of its answers, which others learn; within what Hinton et al. (2015) used for small networks


def cost(options: Mapping[str, Any], classes: int = 5) -> dict[str, int]:
    """Parameters and FLOPs at 224×224×3, shrinking included, once normalisation is folded into the convolutions."""
    return dict(_cost(json.dumps(options, sort_keys=True), classes))


def name(options: Mapping[str, Any]) -> str:
    """A network of the grid by its parameters and MFLOPs, which no other of them shares."""
    spent = cost(options)
    return f"{spent['parameters']:,}, {spent['FLOPs'] / 1e6:.2f} MFLOPs"


@cache
def _cost(options: str, classes: int) -> dict[str, int]:
    folded = surgery.fold(models.build("rice_nano", (224, 224, 3), classes, **json.loads(options)))
    return {"parameters": folded.count_params(), "FLOPs": flops.count(folded).total}


def excess(options: Mapping[str, Any], limits: Mapping[str, int] = LIMITS) -> dict[str, float]:
    """By which share a network exceeds each of ``limits`` of parameters and FLOPs; none is above 0 where it keeps to
    them."""
    spent = cost(options)
    return {quantity: spent[quantity] / limit - 1 for quantity, limit in limits.items()}


def within(options: Mapping[str, Any]) -> bool:
    """Whether a network keeps to ``LIMITS``."""
    return max(excess(options).values()) <= 0


def grid() -> list[dict[str, Any]]:
    """The candidates within ``LIMITS``, lightest in FLOPs first."""
    found: list[dict[str, Any]] = [
        {"pool": pool, "stem": stem, "units": [list(unit) for unit in units]}
        for pool, stem, units in product(POOLS, STEMS, UNITS)
    ]
    return sorted(filter(within, found), key=lambda options: cost(options)["FLOPs"])


def search(
    splits: Splits, candidates: Sequence[Mapping[str, Any]], *, epochs: int, copies: int, seed: int = 0
) -> pd.DataFrame:
    """Train every candidate briefly; a row each, in the order given, with nothing known of the test images.

    Columns: pool, stem, units, parameters, FLOPs, val_loss and val_accuracy of the best epoch (half of the validation
    images perturbed), seconds. Finished trainings are in the cache and not repeated.
    """
    hidden = replace(splits, test=splits.validation, fingerprint=f"{splits.fingerprint}-search")
    rows = []
    for options in candidates:
        run = train(hidden, options, epochs=epochs, copies=copies, seed=seed)
        best = run.record["best"]
        judged = {name: best[name] for name in ("val_loss", "val_accuracy")}
        seconds, spent = {"seconds": run.record["seconds"]["training"]}, cost(options, len(splits.classes))
        rows.append({**options, "units": str(options["units"]), **spent, **judged, **seconds})
    return pd.DataFrame(rows)


def train(splits: Splits, options: Mapping[str, Any], *, teacher: Run | None = None, **how: int) -> Run:
    """Train one network of the family as :func:`spec` says; it learns the labels or the answers of its ``teacher``."""
    return training.train_or_load(spec(splits, options, teacher=teacher, **how), splits, teacher=teacher)


def spec(
    splits: Splits,
    options: Mapping[str, Any],
    *,
    epochs: int,
    copies: int,
    seed: int = 0,
    teacher: Run | None = None,
) -> Spec:
    """A training on the images and ``copies`` of them, the learning rate falling to zero."""
    return Spec(
        model="rice_nano",
        data=splits.fingerprint,
        image_size=splits.image_size,
        classes=len(splits.classes),
        epochs=epochs,
        batch_size=64,
        learning_rate=3e-3,
        patience=epochs,
        seed=seed,
        copies=copies,
        schedule="cosine",
        options=dict(options),
        teacher={"key": teacher.spec.key, "temperature": TEMPERATURE} if teacher else {},
    )


def reference(source: str, epochs: int = 8, copies: int = 1) -> pd.DataFrame:
    """Search on real images (15,000 to train, 2,500 to validate) and commit the table: hours, resumable."""
    table = search(data.load(source, 224, COUNTS), grid(), epochs=epochs, copies=copies)
    files.write_csv(RESULTS / "search.csv", table)
    return table


def chosen(table: pd.DataFrame) -> list[dict[str, Any]]:
    """The networks of a search that are trained to the end: no other is as accurate on validation for the same
    parameters or fewer, or for the same FLOPs or fewer. Fewest parameters first."""
    entries = _front(table.rename(columns={"val_accuracy": "accuracy"})).sort_values("parameters")
    return [{"pool": e.pool, "stem": e.stem, "units": json.loads(e.units)} for e in entries.itertuples()]


def _front(table: pd.DataFrame) -> pd.DataFrame:
    rows = {row for quantity in LIMITS for row in comparison.front(table, quantity).index}
    return table.loc[sorted(rows)]


def finish(source: str, epochs: int = EPOCHS, copies: int = COPIES, seeds: Sequence[int] = SEEDS) -> None:
    """Train the networks that the committed searches have chosen to the end, test each once, measure every disturbance
    alone, and commit the runs: all networks with the first seed, the largest first, then those that ``AIMS`` turn on
    (:func:`repeated`) with the others, until these have them all.

    The disturbances are those of :mod:`riceutils.generalisation`, on the test images of the study's reference
    results, which are a part of the test images here. Raises ``FileNotFoundError`` before there is a search.
    """
    needed()
    splits = data.load(source, 224, COUNTS)
    first, *others = seeds
    for options in reversed(chosen(searched())):
        _finish(splits, options, epochs=epochs, copies=copies, seed=first)
    _generalise(source)
    settled: list[dict[str, Any]] = []
    while (turned := repeated()) != settled:  # a mean over seeds may bring others to the front
        settled = turned
        for options, seed in product(turned, others):
            _finish(splits, options, epochs=epochs, copies=copies, seed=seed)
    _generalise(source)


def distil(source: str, epochs: int = EPOCHS, copies: int = COPIES, seeds: Sequence[int] = SEEDS) -> None:
    """Train ``TEACHER`` and, on its answers, the networks that ``AIMS`` turn on, with every seed; test each once,
    measure every disturbance alone, and commit. The ablation is their training by :func:`finish`, all else alike.
    """
    splits = data.load(source, 224, COUNTS)
    teacher = _finish(splits, TEACHER, epochs=epochs, copies=copies, seed=seeds[0])
    for options, seed in product(repeated(), seeds):
        _finish(splits, options, epochs=epochs, copies=copies, seed=seed, teacher=teacher)
    _generalise(source)


def longer(source: str, copies: int = COPIES, seeds: Sequence[int] = SEEDS) -> None:
    """Train the networks that ``AIMS`` turn on anew for ``LONGER`` epochs, test each once, measure every disturbance
    alone, and commit: fewest FLOPs first, seed by seed. All else is as in :func:`finish`."""
    splits = data.load(source, 224, COUNTS)
    for seed, options in product(seeds, sorted(repeated(), key=lambda options: cost(options)["FLOPs"])):
        _finish(splits, options, epochs=LONGER, copies=copies, seed=seed)
    _generalise(source)


def learned(run: Run) -> str:
    """What a network learned from: the labels, or its teacher's answers; and for how long, where that is ``LONGER``."""
    return ("answers" if run.spec.teacher else "labels") + f", {LONGER} epochs" * (run.spec.epochs == LONGER)


def repeated() -> list[dict[str, Any]]:
    """Of the finished networks, judged on validation images, mean of their seeds: the most accurate within the limits
    of each of ``AIMS``, and the one of fewest parameters that beats the accuracy of each."""
    judged = _trained([run for run in finished() if learned(run) == "labels" and within(run.spec.options)])
    options = {own: made[0].spec.options for own, made in judged.items()}  # fewest parameters first
    reached = {own: _reached(made) for own, made in judged.items()}
    picked: dict[str, dict[str, Any]] = {}
    for aim, parameters, work in AIMS:
        limits = {"parameters": parameters, "FLOPs": work}
        inside = [own for own in judged if max(excess(options[own], limits).values()) <= 0]
        best = max(inside, key=reached.__getitem__, default=None)
        good = next((own for own in judged if round(reached[own], 4) > aim), None)
        picked |= {own: options[own] for own in (best, good) if own is not None}
    return list(picked.values())


def leading() -> list[Run]:
    """The finished runs of the networks that lead: no other is as accurate on validation images, mean of the seeds, for
    the same parameters or fewer, or for the same FLOPs or fewer. Whatever :func:`learned` in another way is another."""
    made = list(_trained(finished()).values())
    rows = [{**cost(seeds[0].spec.options), "accuracy": _reached(seeds)} for seeds in made]
    return [run for row in (_front(pd.DataFrame(rows)).index if rows else ()) for run in made[row]]


def _trained(found: Sequence[Run]) -> dict[str, list[Run]]:
    made: dict[str, list[Run]] = {}
    for run in found:
        made.setdefault(name(run.spec.options) + learned(run).removeprefix("labels"), []).append(run)
    return made


def _reached(seeds: Sequence[Run]) -> float:
    return float(np.mean([run.record["best"]["val_accuracy"] for run in seeds]))


def _generalise(source: str) -> None:
    """Measure the finished networks that were not yet, all at once: the disturbed images are made one time."""
    missing = {run.folder.name: run for run in finished() if run.generalisation is None}
    if not missing:
        return
    test = study.reference(source).test
    rows = generalisation.subset(test.labels)
    predictors = {name: partial(training.predict, run.model()) for name, run in missing.items()}
    progress = files.home() / "generalisation" / f"{files.digest([run.record for run in missing.values()])}.csv"
    for name, table in generalisation.measure(predictors, test.images[rows], test.labels[rows], progress).items():
        run = runs.cached(missing[name])
        files.write_csv(run.folder / runs.GENERALISATION, table)
        _commit(run)
    progress.unlink(missing_ok=True)


def _finish(splits: Splits, options: Mapping[str, Any], **how: Any) -> Run:
    """The committed run of this training; where there is none yet, it is trained and committed."""
    key = spec(splits, options, **how).key
    there = next((run for run in finished() if run.record["key"] == key), None)
    if there is None:
        there = train(splits, options, **how)
        _commit(there)
    return there


def _commit(run: Run) -> None:
    spent = cost(run.spec.options)
    how = "-distilled" * bool(run.spec.teacher) + f"-{LONGER}-epochs" * (run.spec.epochs == LONGER)
    runs.commit(run, RESULTS / f"{spent['parameters']}-{spent['FLOPs']}{how}-seed{run.spec.seed}")


def tables() -> dict[str, pd.DataFrame]:
    """The committed tables, as far as they were made: ``search``, and of :mod:`riceutils.tuning` the others."""
    return files.read_tables(RESULTS)


def needed() -> pd.DataFrame:
    """The reference search; ``FileNotFoundError`` with the way out when it was not made."""
    if "search" not in tables():
        raise FileNotFoundError(f"No search in {RESULTS}. Run it first: python -m riceutils experiment search.")
    return tables()["search"]


def searched() -> pd.DataFrame:
    """Every network of the committed searches, the grid's and the sampler's; empty before there is any."""
    found = [table for name, table in tables().items() if name in ("search", "optuna")]
    return pd.concat(found, ignore_index=True) if found else pd.DataFrame()


def finished() -> list[Run]:
    """The networks that this version of training made on real images, fewest parameters first, then by seed."""
    found = [Run(path.parent) for path in RESULTS.glob("*/record.json")]
    return sorted(
        [run for run in found if not run.stale],
        key=lambda run: (cost(run.spec.options)["parameters"], run.spec.options["pool"], run.spec.seed),
    )
