"""What a page is made of: sentences in both languages, tables, figures with their numbers, source code."""

from __future__ import annotations

import base64
import html
import inspect
import io
import re
from collections.abc import Callable, Mapping
from functools import cache
from types import CodeType
from typing import Any

import numpy as np
import pandas as pd
from IPython.display import HTML, Image, Markdown, display
from matplotlib.figure import Figure

from riceutils import config, files, runs, study
from riceutils.editions import LANGUAGES
from riceutils.runs import Run, Spec

PROTOCOL = {
    "image_size": 224,
    **runs.PUBLISHED,
    "augment": False,
    "time_limit": 0,
    "weights": "imagenet",
    "preprocessing": "rgb",
}
NUMBER = re.compile(r"< 1e-\d+")  # a bound of a p-value
ROWS = 60  # of a table behind a figure; the CSV beside it has them all


@cache
def phrases() -> dict[str, Any]:
    return files.read_yaml(files.RESOURCES / "phrases.yml")


def spans(phrase: str | Mapping[str, str], tag: str = "span", **values: Any) -> str:
    """The phrase in both languages; a value may be a mapping of languages itself, in which the others are filled in."""

    texts = phrases()[phrase] if isinstance(phrase, str) else phrase

    def text(lang: str) -> str:
        own = {
            name: value[lang].format(**values) if isinstance(value, Mapping) else value
            for name, value in values.items()
        }
        return html.escape(texts[lang].format(**own))

    return " ".join(f'<{tag} lang="{lang}">{text(lang)}</{tag}>' for lang in LANGUAGES)


def note(phrase: str | Mapping[str, str], **values: Any) -> None:
    """Display a sentence of ``resources/phrases.yml`` in both languages; an edition keeps its own."""
    display(HTML(f'<div class="rice-note">{spans(phrase, "p", **values)}</div>'))


def discarded(run: Run, parameters: config.TrainingParameters) -> None:
    """Say which seeds were tried before that of ``run``, and discarded because their trainings turned out dead."""
    tried = ", ".join(map(str, range(parameters.seed, run.spec.seed)))
    if tried:
        note("discarded", model=run.spec.model, seeds=tried, seed=run.spec.seed)


def uncounted() -> None:
    """Say which models have no reference result, which only such as do not count, and which only adapted ones."""
    uncounted = [model for model in config.STUDY if not runs.counted(model)]
    absent = [model for model in uncounted if runs.reference(model) is None]
    for said, models in (("no_reference", absent), ("uncounted", [m for m in uncounted if m not in absent])):
        if models:
            note(said, model=", ".join(models))
    for spec in runs.adapted():
        adapted(spec)


def adapted(spec: Spec) -> None:
    """Say that the reference results of a model rest on other settings than the published ones, and on which."""
    used = {name: (getattr(spec, name), value) for name, value in PROTOCOL.items() if name != "time_limit"}
    changes = [f"{name} {ours} ({theirs})" for name, (ours, theirs) in used.items() if ours not in (None, theirs)]
    note("adapted", model=spec.model, changes=", ".join(changes))


def missing(built: Mapping[str, Run]) -> None:
    """Say which chapters' models have no run with these parameters."""
    absent = [model for model in config.STUDY if model not in built]
    if absent:
        note("missing_run", models=", ".join(absent))


class Markup(str):
    """Text of a table cell that is HTML already."""


def code(name: Any) -> Markup:
    """A name that the edition filter does not translate."""
    return Markup(f"<code>{html.escape(str(name))}</code>")


def _cell(value: Any) -> str:
    if isinstance(value, Markup):
        return value
    if isinstance(value, str) and NUMBER.fullmatch(value):
        return Markup(f'<span class="rice-number">{html.escape(value)}</span>')
    if isinstance(value, tuple):  # a shape
        return "×".join(map(str, value))
    if isinstance(value, int | np.integer) and not isinstance(value, bool):
        return f"{value:,}"
    if isinstance(value, float | np.floating):
        number = float(value)
        if np.isnan(number):
            return ""
        if 0 < abs(number) < 1e-4 or abs(number) >= 1e12:
            return Markup(f'<span class="rice-number">{number:.1e}</span>')
        return f"{number:.4f}" if abs(number) < 10 else f"{number:,.1f}"
    if isinstance(value, str) and value.isdigit() and len(value) > 4:
        return f"{int(value):,}"
    return html.escape(str(value))


def bounded(p: Any) -> Any:
    """A p-value as it is, or "< 1e-300" where it is hardly a float any more; anything else is left alone."""
    return "< 1e-300" if isinstance(p, float | np.floating) and p < 1e-300 else p


def _joined(table: pd.DataFrame) -> pd.DataFrame:
    """``table`` with the columns ``low`` and ``high`` behind a figure written as its interval, to save their width."""
    names = list(table.columns)
    if "low" not in names or names[names.index("low") : names.index("low") + 2] != ["low", "high"]:
        return table
    figure = names[names.index("low") - 1]
    rows = zip(table[figure], table["low"], table["high"], strict=True)
    cells = [
        Markup(f"{_cell(value)} [{_cell(low)}, {_cell(high)}]") if _cell(low) else value for value, low, high in rows
    ]
    return table.assign(**{figure: pd.Series(cells, table.index, dtype=object)}).drop(columns=["low", "high"])


def _html(table: pd.DataFrame) -> str:
    table = _joined(table)
    written = {"layer": code, "model": code, "p": bounded}
    changed = {column: table[column].map(write) for column, write in written.items() if column in table}
    return table.assign(**changed).map(_cell).to_html(index=False, border=0, escape=False, classes="rice-table")


def table(content: pd.DataFrame) -> None:
    """Display a table: whole numbers with thousands separators, shares with four decimals."""
    display(HTML(f'<div class="rice-scroll">{_html(content)}</div>'))


def chart(figure: Figure, content: pd.DataFrame) -> None:
    """Display a figure and, folded below it, the numbers behind it with a CSV to download."""
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=110, facecolor="white")
    display(Image(picture.getvalue()))
    folded(content)


def folded(content: pd.DataFrame, title: str = "data") -> None:
    """Display a table folded away under a phrase, its first rows shown when opened, with a CSV of all of it."""
    csv = base64.b64encode(content.to_csv(index=False, float_format="%.6g").encode()).decode()
    more = spans("shortened", "p", total=len(content), shown=ROWS) if len(content) > ROWS else ""
    link = f'<a download="table.csv" href="data:text/csv;base64,{csv}">CSV</a>'
    inside = f'<div class="rice-scroll">{_html(content.head(ROWS))}</div>{more}{link}'
    display(HTML(f'<details class="rice-data"><summary>{spans(title)}</summary>{inside}</details>'))


def about(label: str, run: Run, tested: int = 0) -> None:
    """Say whether a reference result or this build follows, and on how many images it was ``tested``: all, if 0."""
    images = f"{tested or run.record['data']['images']['test']:,}"
    note(label, kind=phrases()[run.record["data"]["kind"]], size=run.spec.image_size, images=images)


def both(run: Run, function: Callable[[Run], Any]) -> None:
    """Display ``function`` of the reference result, if there is one, and of this build's run, each under its name.

    ``function`` gives a table, ``(figure, table)``, or None when the run has no such figures, which is said. A table
    that rests on fewer test images than all says on how many in its column ``n``.
    """
    for label, shown in study.shown(run).items():
        result, name = function(shown), label.replace(" ", "_")
        if result is None:
            note("unmeasured", label=phrases()[f"label_{name}"])
            continue
        content = result[1] if isinstance(result, tuple) else result
        about(name, shown, int(content["n"].max()) if "n" in content else 0)
        _display(result)


def _display(result: pd.DataFrame | tuple[Figure, pd.DataFrame]) -> None:
    if isinstance(result, tuple):
        chart(*result)
    else:
        table(result)


def compared(name: str, function: Callable[[Any], Any], built: Mapping[str, Any], reference: Mapping[str, Any]) -> None:
    """Display ``function`` (a table or chart) of the table ``name``: of the reference results, then of this build,
    unless such a table is made for the reference results only."""
    for label, tables in (("label_reference", reference), ("label_this_build", built)):
        if tables is built and name not in built:
            continue
        result = function(tables[name]) if name in tables else None
        nothing = result is None or (isinstance(result, pd.DataFrame) and result.empty)
        said = "of" if not nothing else "unmeasured" if result is None else "empty"
        note(said, label=phrases()[label])
        if not nothing:
            _display(result)


def measured(name: str, built: Mapping[str, pd.DataFrame], reference: Mapping[str, pd.DataFrame]) -> None:
    """:func:`compared`, of a table as it is."""
    compared(name, lambda found: found, built, reference)


def source(model: str, *above: str) -> None:
    """Display the source of a model's function, with the helpers that it uses, read from the library; what stands
    ``above``, on the same page, with other models' is left out."""
    shown = [found for other in above for found in _sources(other)]
    wanted = [found for found in _sources(model) if found not in shown]
    display(Markdown("```python\n" + "\n\n".join(inspect.getsource(found) for found in wanted) + "```"))


def _sources(model: str) -> list[Any]:
    """The function of a model, and all functions and classes of ``riceutils.models`` that it uses."""
    from riceutils import models

    wanted: list[Any] = [models.architecture(model).function]
    seen: list[Any] = []
    while wanted:
        current = wanted.pop(0)
        if current not in seen:
            seen.append(current)
            names = _names(current.__code__) if inspect.isfunction(current) else []
            used = (current.__globals__.get(name) for name in names)
            wanted += [found for found in used if getattr(found, "__module__", "").startswith("riceutils.models.")]
    return seen


def _names(compiled: CodeType) -> list[str]:
    """Global names that a function's code uses, its inner functions' included."""
    inner = [name for part in compiled.co_consts if isinstance(part, CodeType) for name in _names(part)]
    return [*compiled.co_names, *inner]
