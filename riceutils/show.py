"""What a chapter displays: tables, charts with their numbers, notes in both languages, the run record."""

from __future__ import annotations

import base64
import html
import inspect
import io
import itertools
import json
import os
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from IPython.display import HTML, Image, Markdown, display
from matplotlib.figure import Figure

from riceutils import config, evaluation, files, ledger, runs, study
from riceutils.data import Splits
from riceutils.runs import Run

LANGUAGES = ("ko", "en")
ROWS = 60  # of a table behind a figure; the CSV beside it has them all
PROTOCOL = {"image_size": 224, "learning_rate": 1e-3, "augment": False, "time_limit": 0}


@cache
def _phrases() -> dict[str, Any]:
    return yaml.safe_load((files.RESOURCES / "phrases.yml").read_text(encoding="utf-8"))


def _spans(phrase: str | Mapping[str, str], tag: str = "span", **values: Any) -> str:
    """The phrase in both languages; a value may be a mapping of languages itself."""

    texts = _phrases()[phrase] if isinstance(phrase, str) else phrase

    def text(lang: str) -> str:
        own = {name: value[lang] if isinstance(value, Mapping) else value for name, value in values.items()}
        return html.escape(texts[lang].format(**own))

    return " ".join(f'<{tag} lang="{lang}">{text(lang)}</{tag}>' for lang in LANGUAGES)


def note(phrase: str, **values: Any) -> None:
    """Display a sentence of ``resources/phrases.yml`` in both languages; an edition keeps its own."""
    display(HTML(f'<div class="rice-note">{_spans(phrase, "p", **values)}</div>'))


class _Markup(str):
    """Text of a table cell that is HTML already."""


def _code(name: Any) -> _Markup:
    """A name that the edition filter does not translate."""
    return _Markup(f"<code>{html.escape(str(name))}</code>")


def _cell(value: Any) -> str:
    if isinstance(value, _Markup):
        return value
    if isinstance(value, int | np.integer) and not isinstance(value, bool):
        return f"{value:,}"
    if isinstance(value, float | np.floating):
        number = float(value)
        if np.isnan(number):
            return ""
        if 0 < abs(number) < 1e-4:
            return f"{number:.1e}"
        return f"{number:.4f}" if abs(number) < 10 else f"{number:,.1f}"
    if isinstance(value, str) and value.isdigit() and len(value) > 4:
        return f"{int(value):,}"
    return html.escape(str(value))


def _html(table: pd.DataFrame) -> str:
    names = {column: table[column].map(_code) for column in ("layer", "model") if column in table}
    return table.assign(**names).map(_cell).to_html(index=False, border=0, escape=False, classes="rice-table")


def table(content: pd.DataFrame) -> None:
    """Display a table: whole numbers with thousands separators, shares with four decimals."""
    display(HTML(f'<div class="rice-scroll">{_html(content)}</div>'))


def chart(figure: Figure, content: pd.DataFrame) -> None:
    """Display a figure and, folded below it, the numbers behind it with a CSV to download."""
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=110, facecolor="white")
    display(Image(picture.getvalue()))
    folded(content)


def folded(content: pd.DataFrame) -> None:
    """Display a table folded away, its first rows shown when opened, with a CSV of all of it to download."""
    csv = base64.b64encode(content.to_csv(index=False, float_format="%.6g").encode()).decode()
    more = _spans("shortened", "p", total=len(content), shown=ROWS) if len(content) > ROWS else ""
    link = f'<a download="table.csv" href="data:text/csv;base64,{csv}">CSV</a>'
    inside = f'<div class="rice-scroll">{_html(content.head(ROWS))}</div>{more}{link}'
    display(HTML(f'<details class="rice-data"><summary>{_spans("data")}</summary>{inside}</details>'))


def settings(parameters: config.DataParameters, splits: Splits) -> None:
    """Display the parameters of this build, what images it ran on, and where it departs from the protocol."""
    meanings = _phrases()["parameters"]
    rows = [
        (_code(name), str(value), _Markup(_spans(meanings[name]))) for name, value in parameters.model_dump().items()
    ]
    rows[0] = (rows[0][0], Path(parameters.data).name, rows[0][2])  # a page tells no local paths
    table(pd.DataFrame(rows, columns=["parameter", "value", "meaning"]))
    counts = {side: len(getattr(splits, side)) for side in ("train", "validation", "test")}
    note("demonstration" if splits.kind == "synthetic" else "real_build", images=f"{sum(counts.values()):,}")
    values = parameters.model_dump()
    departures: list[tuple[str, str, str]] = [
        (_code(k), str(v), str(values[k])) for k, v in PROTOCOL.items() if k in values and values[k] != v
    ]
    protocol = {"train": 60_000, "validation": 7_500, "test": 7_500}
    departures += [(k, f"{v:,}", f"{counts[k]:,}") for k, v in protocol.items() if counts[k] != v]
    if splits.kind == "synthetic":
        departures.append((_code("data"), "Rice Image Dataset", "synthetic"))
    note("deviations" if departures else "no_deviations")
    if departures:
        table(pd.DataFrame(departures, columns=["parameter", "published", "this build"]))


def source(model: str) -> None:
    """Display the source of a model's function, with the helpers that it uses, read from the library."""
    from riceutils import models

    function = models.architecture(model).function
    module = inspect.getmodule(function)
    wanted, seen = [function], []
    while wanted:
        current = wanted.pop(0)
        if current not in seen:
            seen.append(current)
            names = [name for name in current.__code__.co_names if name.startswith("_")]
            wanted += [getattr(module, name) for name in names if inspect.isfunction(getattr(module, name, None))]
    display(Markdown("```python\n" + "\n\n".join(inspect.getsource(function) for function in seen) + "```"))


def figures(model: str, run: Run) -> None:
    """Display the published figures of ``model`` beside the reference result's and this build's, with verdicts."""
    reference = runs.reference(model)
    if reference is None:
        note("no_reference", model=model)
    elif reference.stale:
        note("stale", old=reference.record["training_version"], new=runs.TRAINING_VERSION)
    elif reference.record["stopped"] == "time limit":
        note("stopped_time", model=model, epochs=len(reference.history))
    content = ledger.ledger({model: run})
    own = content[(content["model"] == model) & ~content["quantity"].str.contains(",")].drop(columns="model")
    clean = [ledger.written(ledger.measured(r)["clean accuracy"], "") if r else "" for r in (reference, run)]
    own.loc[len(content)] = ["clean accuracy", "", *clean, "not published"]
    table(own)


def difference(run: Run) -> None:
    """Display how this build's accuracies and settings differ from the reference result's."""
    reference = runs.reference(run.spec.model)
    if reference is None:
        note("no_reference", model=run.spec.model)
        return
    for which in ("clean", "perturbed"):
        ours, theirs = (ledger.measured(r)[f"{which} accuracy"] for r in (run, reference))
        overlap = _phrases()["overlap" if ours.low <= theirs.high and theirs.low <= ours.high else "apart"]
        points = f"{100 * (ours.value - theirs.value):+.1f}"
        which_words = {"ours": ledger.written(ours, ""), "theirs": ledger.written(theirs, "")}
        note("difference", which=_phrases()[which], points=points, overlap=overlap, **which_words)
    settings: list[tuple[str, str, str]] = [
        (_code(name), str(theirs), str(getattr(run.spec, name)))
        for name, theirs in reference.spec.model_dump().items()
        if name != "data" and getattr(run.spec, name) != theirs
    ]
    settings += [
        (side, f"{count:,}", f"{run.record['data']['images'][side]:,}")
        for side, count in reference.record["data"]["images"].items()
        if count != run.record["data"]["images"][side]
    ]
    if run.record["data"]["kind"] != reference.record["data"]["kind"]:
        settings.insert(0, (_code("data"), reference.record["data"]["kind"], run.record["data"]["kind"]))
    if settings:
        table(pd.DataFrame(settings, columns=["parameter", "reference", "this build"]))
    else:
        note("same_settings")


def drawn_with(model: str, run: Run) -> Run:
    """The run whose weights pictures are drawn with: the reference's if they are shipped, else this build's; said."""
    reference = runs.reference(model)
    if reference is not None and reference.has_weights and not reference.stale and reference.classes == run.classes:
        note("weights_reference", name=reference.folder.name)
        return reference
    note("weights_build")
    return run


def both(run: Run, function: Callable[[Run], Any]) -> None:
    """Display ``function`` of the reference result, if there is one, and of this build's run, each under its name.

    ``function`` gives a table or ``(figure, table)``.
    """
    for label, shown in study.shown(run).items():
        kind = shown.record["data"]["kind"]
        size, images = shown.spec.image_size, shown.record["data"]["images"]["test"]
        note(label.replace(" ", "_"), kind=_phrases()[kind], size=size, images=f"{images:,}")
        result = function(shown)
        if isinstance(result, tuple):
            chart(*result)
        else:
            table(result)


def measured(name: str, built: Mapping[str, pd.DataFrame], reference: Mapping[str, pd.DataFrame]) -> None:
    """Display one of the dataset's measurements: of the real images first, then of this build's."""
    for label, tables in (("label_reference", reference), ("label_this_build", built)):
        found = tables.get(name)
        if found is None and tables is built:
            continue  # measured once, on the real images only
        note("empty" if found is None or found.empty else "of", label=_phrases()[label])
        if found is not None and not found.empty:
            table(found)


def pairwise(compared: Mapping[str, Run | None], label: str) -> None:
    """Display McNemar's exact test on the perturbed images for every pair of runs with the same test images."""
    rows = []
    pairs = itertools.combinations([run for run in compared.values() if run is not None], 2)
    for first, second in pairs:
        labels = first.predictions["labels"]
        if first.spec.data == second.spec.data:
            test = evaluation.mcnemar(first.predictions["perturbed"], second.predictions["perturbed"], labels)
            rows.append(
                (_code(first.spec.model), _code(second.spec.model), test.only_first, test.only_second, f"{test.p:.2g}")
            )
    note("pairs" if rows else "no_pairs", label=_phrases()[f"label_{label.replace(' ', '_')}"])
    if rows:
        table(pd.DataFrame(rows, columns=["first", "second", "only first right", "only second right", "p"]))


def missing(built: Mapping[str, Run]) -> None:
    """Say which chapters' models have no run with these parameters."""
    absent = [model for model in config.MODELS.values() if model not in built]
    if absent:
        note("missing_run", models=", ".join(absent))


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
                "run": run.name,
                "fingerprint": run.spec.data,
                "training version": record["training_version"],
                "code": record["code"][:8],
                "seed": run.spec.seed,
                "stopped": f"{record['stopped']} ({len(run.history)})",
                "seconds": round(record["seconds"]["training"], 1),
                "packages": ", ".join(f"{name} {version}" for name, version in record["packages"].items()),
                "hardware": f"{hardware['machine']}, {hardware['cores']} cores{gpus}",
            }
        )
    if rows:
        table(pd.DataFrame(rows).set_index("run").T.rename_axis("record").rename_axis(columns=None).reset_index())
    for code in dict.fromkeys(run.record["code"] for run in used):
        if code != runs.code_hash():
            note("code_changed", then=code[:8], now=runs.code_hash()[:8], version=runs.TRAINING_VERSION)
    if target := os.environ.get("RICEUTILS_RECORD"):
        small: Mapping[str, Any] = {
            "chapter": chapter,
            "data": splits.fingerprint if splits else None,
            "runs": {run.name: run.record["metrics"] for run in used},
        }
        files.write_text(Path(target), json.dumps(small, indent=1) + "\n")
