"""What a verdict is: five words, the rules behind them, and how verdicts on parts make one on the whole."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import pandas as pd

VERDICTS = ("holds", "holds in part", "does not hold", "undecided", "not measured yet")
HOLDS, IN_PART, FAILS, UNDECIDED, UNMEASURED = VERDICTS
RULES = {
    "level": 0.05,  # of a p-value
    "many": 0.1,  # share of an image's feature maps from which on black ones are many
    "reliable": 0.95,  # share of black maps whose filter never fires, for black to mean that a filter can go
    "margin": 0.2,  # points of accuracy that may be lost: the Study's own
    "weak": 0.5,  # a rank correlation whose interval lies within ± this is none
    "few": 0.5,  # times another model's filters
}


def combine(verdicts: Iterable[str]) -> str:
    """One verdict of several; those not measured yet, and empty ones, do not count.

    All hold: ``holds``. Some hold, or hold in part: ``holds in part``. None does: ``does not hold``, or, if nothing
    speaks against it either, ``undecided``. Nothing measured: ``not measured yet``.
    """
    known = set(verdicts) - {UNMEASURED, ""}
    if known == {HOLDS}:
        return HOLDS
    if known & {HOLDS, IN_PART}:
        return IN_PART
    return FAILS if FAILS in known else UNDECIDED if known else UNMEASURED


@dataclass(frozen=True)
class Verdict:
    """What became of a claim: the evidence of each part; a table without a column ``verdict`` is context."""

    parts: dict[str, pd.DataFrame]

    @property
    def judged(self) -> dict[str, str]:
        """The verdict of each part that is judged."""
        return {name: combine(rows["verdict"]) for name, rows in self.parts.items() if "verdict" in rows}

    @property
    def verdict(self) -> str:
        """One of ``VERDICTS``."""
        return combine(self.judged.values())


def as_table(rows: list[dict[str, Any]]) -> pd.DataFrame:
    return pd.DataFrame(rows, dtype=object)  # whole numbers stay whole beside empty cells


def signed(value: float, p: float) -> dict[str, str]:
    """Of a claim that ``value`` is above 0: it is, it is below, or chance may have made it."""
    return {"verdict": UNDECIDED if not p < RULES["level"] else HOLDS if value > 0 else FAILS}


def kept(low: float, high: float) -> dict[str, str]:
    """Of a claim that nothing is lost, by an interval in points: at most the margin, more, or not to be told."""
    margin = -RULES["margin"]
    return {"verdict": HOLDS if low >= margin else FAILS if high < margin else UNDECIDED}
