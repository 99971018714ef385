"""The Study's claims C1 to C6, judged by explicit rules from reference results alone.

A claim has parts, a part has rows of evidence; :func:`riceutils.verdicts.combine` makes a part's verdict of its rows',
and the claim's of its parts'. ``resources/claims.yml`` tells the rules, with their thresholds. A reference run counts
unless it is stale or dead; where nothing else is said it is also standard: not augmented, pixels as its weights
expect.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from riceutils import activations, comparison, designs, evaluation, ledger
from riceutils.runs import Run, counted
from riceutils.verdicts import (
    FAILS,
    HOLDS,
    IN_PART,
    RULES,
    UNDECIDED,
    UNMEASURED,
    Verdict,
    as_table,
    kept,
    signed,
)

PAIRS = (("cnn", "cnn_light"), ("googlenet", "googlenet_light"), ("vgg16", "vgg_custom"), ("vgg16", "vgg_light"))
SAVED = ("parameters", "FLOPs")
TRENDS = {"never fire, rank correlation": "never", "APoZ, rank correlation": "apoz"}


def _models() -> pd.DataFrame:
    """The eight study models: filters, FLOPs, parameters; perturbed accuracy as ``published`` and, where measured,
    the ``reference``'s, mean over seeds."""
    rows = {}
    for entry in ledger.published().to_dict("records"):
        if entry["test_accuracy"]:
            own = {name: figure.value for name, figure in ledger.static(entry["model"]).items()}
            ours = [run.accuracy("perturbed").value for run in counted(entry["model"])]
            printed = {"filters as published": float(entry["filters"]), "published": float(entry["test_accuracy"])}
            rows[entry["model"]] = own | printed | {"reference": float(np.mean(ours)) if ours else np.nan}
    return pd.DataFrame.from_dict(rows, orient="index")


def unmeasured() -> list[str]:
    table = _models()
    return list(table.index[table["reference"].isna()])


def _compared(judge: Callable[[Run, Run], dict[str, Any]]) -> pd.DataFrame:
    """A row for all runs, tested on the same images, of each pair of ``PAIRS``: what ``judge`` says of the two."""
    rows: list[dict[str, Any]] = []
    for names in PAIRS:
        row = dict(zip(("heavier", "lighter"), names, strict=True))
        both = [pair for pair in product(*map(counted, names)) if pair[0].spec.data == pair[1].spec.data]
        rows += [row | {"seeds": f"{a.spec.seed}, {b.spec.seed}"} | judge(a, b) for a, b in both]
        rows += [] if both else [row | {"verdict": UNMEASURED}]
    return as_table(rows)


def _paired(first: Run, second: Run, images: str) -> dict[str, float]:
    """See :func:`riceutils.evaluation.paired`, on the test images, ``"clean"`` or ``"perturbed"``."""
    return evaluation.paired(first.predictions[images], second.predictions[images], first.predictions["labels"])


def black_maps() -> Verdict:
    """C1: many feature maps are black, deeper layers' more so, and a black map adds nothing.

    Black: zero everywhere on an image. ``deeper`` correlates, over filters, the layer's depth with the share of images
    on which the filter's map is black.
    """
    tables: dict[str, list] = {"black": [], "deeper": [], "useless": []}
    layers = []
    for run in counted():
        row = {"model": run.spec.model, "seed": run.spec.seed}
        filters = run.filters.assign(black=1 - run.filters["fires"], never=run.filters["fires"] == 0)
        by_layer = filters.groupby("layer", sort=False)
        layers += [row | {"layer": name} | activations.black(group) for name, group in by_layer]
        found = activations.black(filters)
        tables["black"].append(row | found | {"verdict": HOLDS if found["black maps"] >= RULES["many"] else FAILS})
        depth = activations.depths(filters["layer"])
        figures = {"layers": len(by_layer)} | _trend(depth, filters["black"])
        beside = {name: _trend(depth, filters[column])["rank correlation"] for name, column in TRENDS.items()}
        tables["deeper"].append(row | figures | beside | signed(figures["rank correlation"], figures["p"]))
        share = filters["never"].sum() / filters["black"].sum() if found["black maps"] else np.nan
        verdict = "" if np.isnan(share) else HOLDS if share >= RULES["reliable"] else FAILS
        figures = {"black maps": found["black maps"], "of never firing filters": share}
        tables["useless"].append(row | figures | {"verdict": verdict})
    absent = [{"model": model, "verdict": UNMEASURED} for model in unmeasured()]
    judged = {name: as_table(rows + absent) for name, rows in tables.items()}
    return Verdict(judged | {"layers": as_table(layers)})


def _trend(depth: np.ndarray, values: pd.Series) -> dict[str, float]:
    varied = min(len(np.unique(depth)), values.nunique()) > 1
    rho, p = stats.spearmanr(depth, values) if varied else (np.nan, np.nan)
    return {"rank correlation": float(rho), "p": float(p)}


def dead_training() -> Verdict:
    """C2: the initialisation decides whether a training stays at ln C, and then the last feature map is zero.

    Judged under the published condition of the committed experiment of :mod:`riceutils.dead`; the other conditions
    stand beside it. That a zero feature map keeps the loss at ln C is judged on all trainings that ended with one.
    Whether many filters, depth and 1×1 convolutions make it likelier is judged by taking each back (Fisher's test).
    """
    from riceutils import dead, gradients  # import TensorFlow

    nothing = as_table([{"verdict": UNMEASURED}])
    tables = dead.read()
    trainings = tables.get("experiment")
    if trainings is None:
        return Verdict(dict.fromkeys(("chance", "mechanism", "consequence", "likelier"), nothing))
    table = dead.frequency(trainings)
    some = table.loc[table["stuck"] > 0, ["condition", "stuck", "dead"]]
    zero = trainings[trainings["stuck"]].groupby("condition")["zero features"].median()
    some["zero features"] = some["condition"].map(zero)
    mixed = (table["stuck"] > 0) & (table["left"] > 0)
    others, stuck_others = (rows["condition"] != dead.CONDITIONS[0].name for rows in (table, some))
    table["verdict"] = np.select([others, mixed], ["", HOLDS], FAILS)
    some["verdict"] = np.select(
        [stuck_others, some["dead"] == some["stuck"], some["dead"] > 0], ["", HOLDS, IN_PART], FAILS
    )
    zeroed = trainings[trainings["state"] == "dead"]
    at = (zeroed["val_loss"] / np.log(dead.PUBLISHED[0]) - 1).abs() <= gradients.TOLERANCE
    figures = {"trainings": len(zeroed), "at ln C": int(at.sum()), "accuracy": zeroed["val_accuracy"].max()}
    verdict = HOLDS if at.all() else IN_PART if at.any() else FAILS
    consequence = as_table([figures | {"verdict": verdict}]) if len(zeroed) else nothing
    parts = {"chance": table, "mechanism": some if len(some) else nothing, "consequence": consequence}
    causes = tables.get("causes")
    return Verdict(parts | {"likelier": nothing if causes is None else _likelier(dead.frequency(causes))})


def _likelier(table: pd.DataFrame) -> pd.DataFrame:
    """Each network of ``dead.causes`` against the first, GoogLeNet itself: is that stuck more often?"""
    table = table[["condition", "trainings", "stuck", "share", "low", "high"]].rename(columns={"condition": "network"})
    whole, rows = table.iloc[0], [dict(table.iloc[0]) | {"verdict": ""}]
    for _, own in table.iloc[1:].iterrows():
        counts = [[row["stuck"], row["trainings"] - row["stuck"]] for row in (whole, own)]
        p = float(stats.fisher_exact(counts).pvalue)
        rows.append(dict(own) | {"p": p} | signed(whole["share"] - own["share"], p))
    found = as_table(rows)
    return found[[*found.columns.drop("verdict"), "verdict"]]


def kept_accuracy() -> Verdict:
    """C3: removing filters and layers keeps the accuracy: on validation images by the Study's criterion, the bare
    difference; on clean test images by an interval. Context: what is saved, and how much of it were convolutions."""

    def validation(heavy: Run, light: Run) -> dict[str, Any]:
        counts = [run.record["data"]["images"]["validation"] for run in (heavy, light)]
        shares = [run.record["best"]["val_accuracy"] for run in (heavy, light)]
        intervals = [evaluation.wilson(round(share * n), n) for share, n in zip(shares, counts, strict=True)]
        figures = evaluation.unpaired(*intervals)
        return figures | kept(*[round(figures["difference"], 9)] * 2)

    def clean(heavy: Run, light: Run) -> dict[str, Any]:
        figures = _paired(heavy, light, "clean")
        return figures | kept(figures["low"], figures["high"])

    saved = []
    for heavier, lighter in PAIRS:
        before, after = (ledger.static(name) for name in (heavier, lighter))
        shares = {f"{name} saved, %": 100 * (1 - after[name].value / before[name].value) for name in SAVED}
        less = designs.balance([heavier, lighter])[["parameters", "in convolutions"]].diff().iloc[1]
        row = {"heavier": heavier, "lighter": lighter} | shares
        saved.append(row | {"of it convolutions": less["in convolutions"] / less["parameters"]})
    return Verdict({"validation": _compared(validation), "clean": _compared(clean), "saved": as_table(saved)})


def generalisation() -> Verdict:
    """C4: the lightened models generalise better: on perturbed images, and under corruptions that no training saw
    (a sign test over their kinds). Context: what training with augmentation gains on perturbed images."""

    def perturbed(heavy: Run, light: Run) -> dict[str, Any]:
        figures = _paired(heavy, light, "perturbed")
        return figures | signed(figures["difference"], figures["p"])

    def corruptions(heavy: Run, light: Run) -> dict[str, Any]:
        if heavy.generalisation is None or light.generalisation is None:
            return {"verdict": UNMEASURED}
        both = heavy.generalisation.merge(light.generalisation, on=["kind", "name", "strength", "n"])
        if both.empty:  # on other numbers of images
            return {"verdict": UNMEASURED}
        # Severities of one kind rise and fall together: they are one trial.
        spoilt = both[both["kind"] == "corruption"]
        change = spoilt.eval("accuracy_y - accuracy_x").groupby(spoilt["name"]).mean().round(9)
        better, worse = int((change > 0).sum()), int((change < 0).sum())
        p = float(stats.binomtest(better, better + worse).pvalue) if better + worse else 1.0
        figures = {"difference": 100 * change.mean(), "lighter better": better, "heavier better": worse, "p": p}
        return figures | signed(better - worse, p)

    gains = [
        {"model": run.spec.model, "seed": run.spec.seed} | _paired(plain, run, "perturbed")
        for run in counted(augmented=True)
        for plain in counted(run.spec.model)
        if (plain.spec.seed, plain.spec.data) == (run.spec.seed, run.spec.data)
    ]
    parts = {"perturbed": _compared(perturbed), "corruptions": _compared(corruptions)}
    return Verdict(parts | {"augmentation": as_table(gains)})


def filters_and_accuracy() -> Verdict:
    """C5: filters and accuracy are not correlated over the models (the published accuracies beside ours are not
    judged), and few can be enough: each model against the best of those with at most half its filters."""
    table, correlation, enough = _models(), [], []
    for source, counting in product(("reference", "published"), ("filters", "filters as published")):
        known = table.dropna(subset=source)
        row: dict[str, Any] = {"source": source, "counted": counting, "models": len(known), "verdict": UNMEASURED}
        if len(known) > 2:
            row |= evaluation.spearman(known[counting], known[source])
            none = max(-row["low"], row["high"]) < RULES["weak"]
            row["verdict"] = FAILS if row["p"] < RULES["level"] else HOLDS if none else UNDECIDED
        correlation.append(row | ({"verdict": ""} if source == "published" else {}))
    for model, entry in table.sort_values("filters").iterrows():
        fewer = table[table["filters"] <= RULES["few"] * entry["filters"]]
        row = {"heavier": model, "filters": int(entry["filters"]), "verdict": UNMEASURED}
        if not np.isnan(entry["reference"]) and fewer["reference"].notna().any():
            best = str(fewer["reference"].idxmax())
            row |= {"lighter": best, "its filters": int(fewer["filters"][best])}
            pairs = ((a, b) for a, b in product(counted(str(model)), counted(best)) if a.spec.data == b.spec.data)
            if pair := next(pairs, None):
                figures = _paired(*pair, "perturbed")
                row |= figures | kept(figures["low"], figures["high"])
        enough += [row] if len(fewer) else []
    parts = {"correlation": as_table(correlation), "enough": as_table(enough)}
    return Verdict({name: rows[[*rows.columns.drop("verdict"), "verdict"]] for name, rows in parts.items()})


def final_model() -> Verdict:
    """C6: the Final Model balances both: it reaches its published accuracy, and no other measured model is as light
    and as accurate on perturbed images (the published front beside ours is not judged)."""
    table = _models()
    printed = float(table["published"]["final"])
    figure, front = [], []
    for run in counted("final"):
        own = run.accuracy("perturbed")
        row = {"model": "final", "seed": run.spec.seed, "published": printed, "accuracy": own.value}
        verdict = HOLDS if own.high >= printed else FAILS
        figure.append(row | {"low": own.low, "high": own.high, "verdict": verdict})
    for source, quantity in product(("reference", "published"), ("FLOPs", "parameters")):
        points = table.dropna(subset=source).rename(columns={source: "accuracy"})
        row = {"source": source, "quantity": quantity, "models": len(points)}
        best = comparison.front(points, quantity).index
        known = UNMEASURED if "final" not in points.index else HOLDS if "final" in best else FAILS
        front.append(row | {"front": ", ".join(best), "verdict": known if source == "reference" else ""})
    absent = [{"model": "final", "verdict": UNMEASURED}]
    return Verdict({"figure": as_table(figure or absent), "front": as_table(front)})


CLAIMS: dict[str, Callable[[], Verdict]] = {
    "C1": black_maps,
    "C2": dead_training,
    "C3": kept_accuracy,
    "C4": generalisation,
    "C5": filters_and_accuracy,
    "C6": final_model,
}
