"""What the conclusion displays: the verdicts with their rules and evidence, and models to recommend."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pandas as pd

from riceutils import claims, files, ledger, page, runs, verdicts

LABELS = ("model", "seed", "heavier", "lighter", "seeds", "condition", "source", "counted", "quantity")
WISHES = [  # limit in words, column and largest value of it; what is then best
    ("", "parameters", np.inf, "parameters"),
    ("", "FLOPs", np.inf, "FLOPs"),
    ("", "FLOPs", np.inf, "clean accuracy"),
    ("", "FLOPs", np.inf, "perturbed accuracy"),
    ("FLOPs ≤ 1 G", "FLOPs", 1e9, "perturbed accuracy"),
    ("parameters ≤ 100 k", "parameters", 1e5, "perturbed accuracy"),
    ("weights ≤ 1 MB", "bytes", 1e6, "perturbed accuracy"),
]


def recommend(baseline: pd.DataFrame | None = None) -> pd.DataFrame:
    """The study model to take, by what is wanted: ``limit`` and ``best by``, then its figures, mean over seeds.

    ``training`` is plain or augmented, ``bytes`` are float32 weights. Of equals, the one more accurate on perturbed
    images. A wish that nothing measured fulfils has no figures. ``baseline``, the no-CNN yardstick, is the last row.
    """
    figures = [
        {
            "model": run.spec.model,
            "training": "augmented" if run.spec.augment else "plain",
            "seeds": 1,
            "parameters": run.record["parameters"],
            "bytes": 4 * run.record["parameters"],
            "FLOPs": int(ledger.static(run.spec.model)["FLOPs"].value),
            "clean accuracy": run.accuracy().value,
            "perturbed accuracy": run.accuracy("perturbed").value,
        }
        for run in (*runs.counted(), *runs.counted(augmented=True))
    ]
    shared = {"seeds": "sum", "parameters": "first", "bytes": "first", "FLOPs": "first"}
    means = {"clean accuracy": "mean", "perturbed accuracy": "mean"}
    table = pd.DataFrame(figures, columns=["model", "training", *shared, *means])
    table = table.groupby(["model", "training"], as_index=False).agg(means | shared)
    rows: list[dict[str, Any]] = []
    for limit, column, most, quantity in WISHES:
        order = {"ascending": [quantity in ("parameters", "FLOPs"), False], "by": [quantity, "perturbed accuracy"]}
        within = table[table[column] <= most].sort_values(**order).to_dict("records")
        rows.append({"limit": limit, "best by": quantity, **(within[0] if within else {"model": verdicts.UNMEASURED})})
    if baseline is not None:
        shares = {f"{row['images']} accuracy": float(row["accuracy"]) for row in baseline.to_dict("records")}
        rows.append({"limit": "no CNN", "best by": "", "model": "QDA", **shares})
    return verdicts.as_table(rows)


@cache
def _texts() -> dict[str, Any]:
    return files.read_yaml(files.RESOURCES / "claims.yml")


def overview() -> None:
    """Display the verdict on every claim and part, how many rows each rests on, and which models are missing."""
    rows = []
    for claim, judge in claims.CLAIMS.items():
        found, texts = judge(), _texts()[claim]
        rows.append({"claim": claim, "part": "", "verdict": found.verdict, "measured": ""})
        for name, verdict in found.judged.items():
            outcomes = found.parts[name]["verdict"].loc[lambda column: column != ""]
            measured = f"{(outcomes != verdicts.UNMEASURED).sum()} / {len(outcomes)}"
            part = page.Markup(page.spans(texts[name]["name"]))
            rows.append({"claim": "", "part": part, "verdict": verdict, "measured": measured})
    page.table(verdicts.as_table(rows))
    if absent := claims.unmeasured():
        page.note(_texts()["missing"], models=", ".join(absent))


def tell(claim: str) -> None:
    """Display a claim's verdict and, part by part, the rule, the part's verdict and the evidence."""
    found, texts = claims.CLAIMS[claim](), _texts()
    page.note(texts["verdict"], claim=claim, verdict=texts["verdicts"][found.verdict])
    for name, rows in found.parts.items():
        rule = {lang: text.format(**verdicts.RULES) for lang, text in texts[claim][name]["rule"].items()}
        outcome = texts["verdicts"].get(found.judged.get(name), texts["context" if len(rows) else "empty"])
        page.note(texts["part"], name=texts[claim][name]["name"], rule=rule, verdict=outcome)
        if len(rows.columns) > 1:
            (page.table if name in found.judged else page.folded)(_verdict_first(rows))


def _verdict_first(rows: pd.DataFrame) -> pd.DataFrame:
    """The evidence with its verdict right behind the columns that say what a row is about."""
    if "verdict" not in rows:
        return rows
    labels = [name for name in rows.columns if name in LABELS]
    return rows[[*labels, "verdict", *(name for name in rows.columns if name not in (*labels, "verdict"))]]


def used() -> pd.DataFrame:
    """The reference results that the verdicts rest on: how each was trained, on how many images, why it ended."""
    rows = [
        {"model": run.spec.model, "seed": run.spec.seed, "augmentation": "yes" if run.spec.augment else "no"}
        | {"weights": run.spec.weights or "", "initializer": run.spec.initializer}
        | {"learning rate": run.spec.learning_rate, **run.record["data"]["images"]}
        | {"best epoch": run.record["best_epoch"], "stopped": run.record["stopped"]}
        for run in (*runs.counted(), *runs.counted(augmented=True))
    ]
    return pd.DataFrame(rows)
