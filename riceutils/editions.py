"""The edition filter: one language's version of an executed bilingual page.

Prose cells carry the tag `ko` or `en`; elements of html outputs may carry a `lang`; a cell with a figure carries
its alt texts as metadata `"alt": {"ko": ..., "en": ...}`.
"""

from __future__ import annotations

import ast
import copy
import csv
import json
import os
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

from nbformat import NotebookNode

LANGUAGES = ("ko", "en")


def glossary() -> dict[str, str]:
    """English terms and their Korean equivalents, from the package's `resources/glossary.csv`."""
    with files("riceutils").joinpath("resources/glossary.csv").open(encoding="utf-8") as file:
        return {row["en"]: row["ko"] for row in csv.DictReader(file)}


def show_parameters(notebook: NotebookNode) -> None:
    """Write the values papermill injected into the parameters cell, whose comments explain them.

    The injected cell, which comes without comments and shows Korean as escapes, is removed.
    """
    values = notebook.metadata.get("papermill", {}).get("parameters", {})
    for cell in notebook.cells:
        if "parameters" in cell.metadata.get("tags", []):
            cell.source = _with_values(cell.source, values)
    notebook.cells = [c for c in notebook.cells if "injected-parameters" not in c.metadata.get("tags", [])]


def _with_values(code: str, values: Mapping[str, Any]) -> str:
    lines = code.encode().split(b"\n")  # ast counts columns in bytes
    for node in reversed(ast.parse(code).body):
        target = node.target if isinstance(node, ast.AnnAssign) else getattr(node, "targets", [None])[0]
        if not (isinstance(node, ast.Assign | ast.AnnAssign) and node.value and isinstance(target, ast.Name)):
            continue
        if target.id not in values or ast.unparse(node.value) == repr(values[target.id]):
            continue
        value = values[target.id]
        if isinstance(value, str) and os.path.isabs(value):
            value = os.path.basename(value)  # a page does not tell where its builder keeps files
        text = json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)
        first, last = node.value.lineno - 1, (node.value.end_lineno or node.value.lineno) - 1
        line = lines[first][: node.value.col_offset] + text.encode() + lines[last][node.value.end_col_offset :]
        lines[first : last + 1] = [line]
    return b"\n".join(lines).decode()


def translate_html(html: str, language: str, terms: Mapping[str, str]) -> str:
    """Drop the elements of other languages from a cell's html; for Korean, translate table cells by the glossary.

    Only a cell whose whole text is a term; a name in `<code>` stays.
    """
    if "lang=" not in html and "<table" not in html:
        return html
    from bs4 import BeautifulSoup

    soup = BeautifulSoup(html, "html.parser")
    for element in soup.find_all(lang=[other for other in LANGUAGES if other != language]):
        element.decompose()
    for cell in soup.find_all(["th", "td"]) if language == "ko" else []:
        if cell.string and not cell.find(True) and cell.string.strip() in terms:
            cell.string = terms[cell.string.strip()]
    return str(soup)


def edition(notebook: NotebookNode, language: str, terms: Mapping[str, str]) -> NotebookNode:
    """One language's version of an executed page, as a new notebook.

    Cells tagged with another language and html of another language go; figures get their alt text; the
    parameters cell shows the values used; papermill's own metadata (paths, times) is removed.
    """
    result = copy.deepcopy(notebook)
    show_parameters(result)
    others = set(LANGUAGES) - {language}
    result.cells = [cell for cell in result.cells if not others & set(cell.metadata.get("tags", []))]
    for cell in result.cells:
        if "alt" in cell.metadata:
            settings = cell.metadata.setdefault("mystnb", {})
            settings.setdefault("image", {})["alt"] = cell.metadata["alt"][language]
        for output in cell.get("outputs", []):
            if "text/html" in output.get("data", {}):
                output.data["text/html"] = translate_html("".join(output.data["text/html"]), language, terms)
    for metadata in (result.metadata, *(cell.metadata for cell in result.cells)):
        for key in ("papermill", "execution", "jupytext"):
            metadata.pop(key, None)
    return result
