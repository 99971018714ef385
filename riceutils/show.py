"""What a chapter displays: tables, charts with their numbers, notes in both languages, the run record."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

import pandas as pd

from riceutils import comparison, config, errata, evaluation, files, ledger, runs, study
from riceutils.data import Splits
from riceutils.page import PROTOCOL, Markup, about, adapted, bounded, code, compared, note, phrases, spans, table
from riceutils.page import both as both
from riceutils.page import chart as chart
from riceutils.page import discarded as discarded  # for chapters, which find all displays here
from riceutils.page import folded as folded
from riceutils.page import measured as measured
from riceutils.page import missing as missing
from riceutils.page import source as source
from riceutils.page import uncounted as uncounted
from riceutils.runs import Run, Spec

LIMITS = ("epochs", "patience", "time_limit")  # of a training, which may end it early
PROTOCOL_IMAGES = {"train": 60_000, "validation": 7_500, "test": 7_500}


def settings(parameters: config.DataParameters, splits: Splits | None = None) -> None:
    """Display the parameters of this build and, if it uses images, what they are and where it departs from the
    protocol."""
    meanings = phrases()["parameters"]
    values = {name: str(value) for name, value in parameters.model_dump().items()}
    values = {name: Path(value).name if "/" in value else value for name, value in values.items()}  # no local paths
    rows = [(code(name), code(value) if value else "", Markup(spans(meanings[name]))) for name, value in values.items()]
    table(pd.DataFrame(rows, columns=["parameter", "value", "meaning"]))
    if splits is None:
        return
    counts = {side: len(getattr(splits, side)) for side in ("train", "validation", "test")}
    note("demonstration" if splits.kind == "synthetic" else "real_build", images=f"{sum(counts.values()):,}")
    if isinstance(parameters, config.BackgroundParameters):
        return  # there is no one protocol that these would depart from
    used = parameters.model_dump()
    if isinstance(parameters, config.PretrainedParameters):
        spec = study.spec("vgg16", parameters, splits)  # auto resolved
        used |= {"weights": spec.weights, "preprocessing": spec.preprocessing}
    departures: list[tuple[str, str, str]] = [
        (code(k), code(v), code(used[k])) for k, v in PROTOCOL.items() if k in used and used[k] != v
    ]
    departures += [(k, f"{v:,}", f"{counts[k]:,}") for k, v in PROTOCOL_IMAGES.items() if counts[k] != v]
    if splits.kind == "synthetic":
        departures.append((code("data"), "Rice Image Dataset", code("synthetic")))
    note("deviations" if departures else "no_deviations")
    if departures:
        table(pd.DataFrame(departures, columns=["parameter", "published", "this build"]))


def figures(model: str, run: Run) -> None:
    """Display the published figures of ``model`` beside the reference result's and this build's, with verdicts.

    Where several seeds were trained, the accuracies of each follow.
    """
    reference = runs.reference(model)
    if reference is None:
        note("no_reference", model=model)
    elif reference.stale:
        note("stale", old=reference.record["training_version"], new=runs.TRAINING_VERSION)
    elif reference.record["stopped"] in ("time limit", "epoch limit"):
        note(f"stopped_{reference.record['stopped'].split()[0]}", model=model, epochs=len(reference.history))
    for trained in (*runs.references(model), run):
        if trained.dead:
            share, rate = f"{trained.record['gradient_share']:.1e}", f"{trained.spec.learning_rate:g}"
            settings = {"seed": trained.spec.seed, "initializer": trained.spec.initializer, "rate": rate}
            note("dead", **settings, epochs=len(trained.history), share=share)
    if reference is not None and reference.spec.adapted:
        adapted(reference.spec)
    if run.spec.weights:
        note("pretrained", source=run.spec.weights, preprocessing=run.spec.preprocessing)
    content = ledger.ledger({model: run})
    own = content[(content["model"] == model) & ~content["quantity"].str.contains(", ")].drop(columns="model")
    clean = [str(r.accuracy()) if r else "" for r in (reference, run)]
    own.loc[len(content)] = ["clean accuracy", "", *clean, "not published"]
    table(own)
    if len(seeds := ledger.seeds(model)) > 1:
        note("seeds", seed=seeds["seed"].iloc[0])
        table(seeds)


def finding(model: str) -> None:
    """Say what became of the published perturbed accuracy of ``model`` in the reference runs that count."""
    outcome, figures = ledger.finding(model)
    said = phrases()["finding"]
    sentence = "seeds" if figures["seeds"] > 1 else "run" if figures["seeds"] else "unmeasured"
    note(said[sentence], outcome=said[outcome], model=model, protocol=PROTOCOL_IMAGES["train"], **figures)


def difference(run: Run) -> None:
    """Display how this build's accuracies and settings differ from the reference result's."""
    reference = runs.reference(run.spec.model)
    if reference is None:
        note("no_reference", model=run.spec.model)
        return
    for which in ("clean", "perturbed"):
        ours, theirs = (r.accuracy(which) for r in (run, reference))
        overlap = phrases()["overlap" if ours.low <= theirs.high and theirs.low <= ours.high else "apart"]
        points = f"{100 * (ours.value - theirs.value):+.1f}"
        note("difference", which=phrases()[which], points=points, overlap=overlap, ours=ours, theirs=theirs)
    settings: list[tuple[str, str, str]] = [
        (code(name), code(theirs), code(getattr(run.spec, name)))
        for name, theirs in reference.spec.model_dump().items()
        if name != "data" and getattr(run.spec, name) != theirs
    ]
    settings += [
        (side, f"{count:,}", f"{run.record['data']['images'][side]:,}")
        for side, count in reference.record["data"]["images"].items()
        if count != run.record["data"]["images"][side]
    ]
    if run.record["data"]["kind"] != reference.record["data"]["kind"]:
        settings.insert(0, (code("data"), reference.record["data"]["kind"], run.record["data"]["kind"]))
    if settings:
        table(pd.DataFrame(settings, columns=["parameter", "reference", "this build"]))
    else:
        note("same_settings")


def against(run: Run, other: Run) -> None:
    """Display two runs of one model side by side that differ in some setting: reference results first.

    The reference pair differs in the same settings, and may have been trained with other limits, which is shown.
    McNemar's p compares the two on the perturbed test images.
    """
    differing = _differing(run.spec, other.spec)
    if not differing:
        note("nothing_differs")
        return
    pairs = {"this_build": (run, other)}
    reference = runs.reference(run.spec.model)
    if reference is not None:
        wanted = reference.spec.model_copy(update={name: getattr(other.spec, name) for name in differing})
        candidates = [found for found in runs.references(run.spec.model) if not found.stale]
        twin = next((found for found in candidates if set(_differing(found.spec, wanted)) <= set(LIMITS)), None)
        pairs = {"reference": (reference, twin)} | pairs if twin else pairs
    if "reference" not in pairs:
        note("unmeasured", label=phrases()["label_reference"])
    for label, pair in pairs.items():
        about(label, pair[0])
        names = _differing(pair[0].spec, pair[1].spec)
        rows = []
        for each in pair:
            setting = ", ".join(f"{name}: {getattr(each.spec, name)}" for name in names)
            accuracies = [str(each.accuracy(which)) for which in ("clean", "perturbed")]
            rows.append((code(setting), *accuracies, len(each.history)))
        table(pd.DataFrame(rows, columns=["setting", "clean accuracy", "perturbed accuracy", "epochs"]))
        first, second = (each.predictions["perturbed"] for each in pair)
        test = evaluation.mcnemar(first, second, pair[0].predictions["labels"])
        p = bounded(test.p)
        p = p if isinstance(p, str) else f"= {p:.2g}"
        note("mcnemar", first=test.only_first, second=test.only_second, p=p)


def _differing(spec: Spec, other: Spec) -> list[str]:
    return [name for name in Spec.model_fields if getattr(spec, name) != getattr(other, name)]


def generalisations(built: Mapping[str, Run]) -> None:
    """Display how all models stand each disturbance alone: the reference results, then this build's.

    Reference results that were not measured so are named.
    """
    study_models = (run for run in runs.references() if run.spec.model in config.STUDY)
    committed = {run.folder.name: run for run in study_models if not run.stale}
    compared("all", comparison.generalisations, {"all": built}, {"all": committed})
    if absent := [name for name, run in committed.items() if run.generalisation is None]:
        note("no_generalisation", models=", ".join(absent))


def drawn_with(model: str, run: Run) -> Run:
    """The run whose weights pictures are drawn with: the reference's if they are shipped, else this build's; said."""
    reference = runs.reference(model)
    if reference is not None and reference.has_weights and not reference.stale and reference.classes == run.classes:
        note("weights_reference", name=reference.folder.name)
        return reference
    note("weights_build" if reference and not reference.has_weights else "weights_only_build")
    return run


def pairwise(compared: Mapping[str, Run | None], label: str) -> None:
    """Display McNemar's exact test on the perturbed images for every pair of runs with the same test images.

    The more accurate run comes first, and each is told beside its runner-up. Dead runs and those of another version
    of training are left out.
    """
    usable = [run for run in compared.values() if run is not None and not (run.stale or run.dead)]
    ranked = sorted(usable, key=lambda run: run.accuracy("perturbed").value, reverse=True)
    rows = []
    for first, second in itertools.combinations(ranked, 2):
        labels = first.predictions["labels"]
        if first.spec.data == second.spec.data:
            test = evaluation.mcnemar(first.predictions["perturbed"], second.predictions["perturbed"], labels)
            next_best = "runner-up" if ranked.index(second) == ranked.index(first) + 1 else ""
            names = (code(first.spec.model), code(second.spec.model))
            rows.append((*names, next_best, test.only_first, test.only_second, test.p))
    note("pairs" if rows else "no_pairs", label=phrases()[f"label_{label.replace(' ', '_')}"])
    if rows:
        table(pd.DataFrame(rows, columns=["first", "second", "rank", "only first right", "only second right", "p"]))


def erratum(number: int, claim: bool = True) -> None:
    """Display what a source claims in an erratum and what checking it gave, each named as what it is."""
    entry, figures = errata.load()[number], errata.values(number)
    if claim:
        note("claimed", source=entry.source, text=entry.claim, **figures)
    note("checked", number=number, text=entry.found, **figures)


def footer(chapter: str, used: Iterable[Run] = (), splits: Splits | None = None) -> None:
    """Display the record of the runs that a chapter used; leave a small one for the build's graph.

    The file, named by ``RICEUTILS_RECORD``, holds what the runs are and measured, nothing that changes when the
    chapter is executed again.
    """
    used = list(used)
    rows = []
    for run in used:
        record = run.record
        hardware = record["hardware"]
        gpus = f", {len(hardware['gpus'])} GPU" if hardware["gpus"] else ""
        rows.append(
            {
                "run": run.folder.name,
                "key": run.spec.key,
                "fingerprint": run.spec.data,
                "training version": record["training_version"],
                "code": record["code"][:8],
                "seed": run.spec.seed,
                "stopped": record["stopped"],
                "epochs": len(run.history),
                "seconds": round(record["seconds"]["training"], 1),
                "packages": ", ".join(f"{name} {version}" for name, version in record["packages"].items()),
                "hardware": f"{hardware['machine']}, {hardware['cores']} cores{gpus}",
            }
        )
    if rows:
        table(pd.DataFrame(rows).set_index("run").T.rename_axis("record").rename_axis(columns=None).reset_index())
    else:
        note("no_runs", code=runs.code_hash()[:8], data=splits.fingerprint if splits else "–")
    today = runs.code_hash()[:8]
    others = dict.fromkeys(code for run in used if (code := run.record["code"][:8]) != today)
    if others:
        note("code_changed", then=", ".join(others), now=today, version=runs.TRAINING_VERSION)
    if target := os.environ.get("RICEUTILS_RECORD"):
        small = {"chapter": chapter, "data": splits.fingerprint if splits else None}
        files.write_json(Path(target), small | {"runs": {run.name: run.record["metrics"] for run in used}})
