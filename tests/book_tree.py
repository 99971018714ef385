"""A checkout with the project's build files and tiny chapters, for the tests of the book: no TensorFlow."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

ROOT = Path(__file__).resolve().parents[1]
CHAPTERS = ("02_cnn", "03_cnn_light", "09_comparison")
TEXTS = ("introduction", "references")

CONFIG = """
MODELS = {"02_cnn": ("cnn",), "03_cnn_light": ("cnn_light",)}
READERS = ("09_comparison",)
AFTER = {"03_cnn_light": "02_cnn"}

def chapter_parameters(profile, chapter, data=None):
    if profile != "quick":
        raise ValueError(f"Unknown profile {profile!r}.")
    return {"epochs": 2, "data": data or "쌀알"}
"""
SOURCES = """
from pathlib import Path
from types import SimpleNamespace
def open_source(data):
    if not list(Path(data).iterdir()):
        raise ValueError(f"No images in {data}.")
    return SimpleNamespace(signature=str(len(list(Path(data).iterdir()))))
"""
RUNS = """
import json, os
def footer(**record):
    if path := os.environ.get("RICEUTILS_RECORD"):
        with open(path, "w") as file:
            json.dump(record, file)
"""
TEXT = """\
---
jupytext:
  text_representation: {extension: .md, format_name: myst}
kernelspec: {display_name: Python 3, language: python, name: python3}
---

+++ {"tags": ["ko"]}

# NAME 쪽

:::{note}
합성곱 필터가 하는 일: $y = \\max(0, Wx + b)$. {cite:t}`koklu2021`
:::

+++ {"tags": ["en"]}

# The NAME page

:::{note}
What the filters of a convolution do: $y = \\max(0, Wx + b)$. {cite:t}`koklu2021`
:::

```{code-cell} ipython3
:tags: [remove-cell]

from myst_nb import glue
glue("answer", 42, display=False)
```

+++ {"tags": ["ko"]}

답은 {glue:}`answer`입니다.

+++ {"tags": ["en"]}

The answer is {glue:}`answer`.
"""
BIBLIOGRAPHY = """
@article{koklu2021, author = {Koklu, Murat}, title = {Classification of rice varieties},
journal = {Computers and Electronics in Agriculture}, year = {2021}, doi = {10.1016/j.compag.2021.106285}}
"""
FIGURE = """\
import matplotlib.pyplot as plt

plt.figure(figsize=(9, 3))
plt.plot([1, 2, 3]);"""
TABLE = """\
from IPython.display import HTML

wide = "".join(f"<td>{i}.123456</td>" for i in range(20))
prose = '<p lang="ko">시연입니다</p><p lang="en">A demonstration</p>'
HTML(f"{prose}<table><tr><th>filter</th>{wide}</tr></table>")"""


def chapter(name: str) -> nbformat.NotebookNode:
    """A bilingual chapter with what the filter treats: parameters, a figure with alt text, a wide table."""

    def prose(ko: str, en: str) -> list[nbformat.NotebookNode]:
        return [
            new_markdown_cell(ko, metadata={"tags": ["ko"]}),
            new_markdown_cell(en, metadata={"tags": ["en"]}),
        ]

    cells = [
        *prose(
            f"# {name} 장\n\n필터가 적은 모델의 경량화.",
            f"# Chapter {name}\n\nFewer filters, a lighter model.",
        ),
        new_code_cell('REPOSITORY = "https://github.com/OWNER/REPOSITORY"', metadata={"tags": ["remove-cell"]}),
        new_code_cell(
            'epochs = 20  # 최대 학습 횟수 · passes over the data\ndata: str = "synthetic"',
            metadata={"tags": ["parameters"]},
        ),
        *prose("## 그림\n\n아래 그림과 식 $\\ln 5$.", "## Figure\n\nThe figure below and $\\ln 5$."),
        new_code_cell(
            FIGURE, metadata={"tags": ["hide-input"], "alt": {"ko": "곧게 오르는 선", "en": "A rising line"}}
        ),
        *prose("## 표", "## Table"),
        new_code_cell(TABLE, metadata={"tags": ["remove-input"]}),
        new_code_cell(f'from riceutils import runs\n\nruns.footer(chapter="{name}", epochs=epochs)'),
    ]
    for number, cell in enumerate(cells):
        cell.id = f"{name}-{number}"
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return new_notebook(cells=cells, metadata={"kernelspec": kernel})


def make_tree(folder: Path) -> Path:
    """Write the checkout to `folder` and return it."""
    for name in ("Snakefile", "Makefile", "_config.yml"):
        shutil.copy(ROOT / name, folder / name)
    for name in ("_ext", "_static", "_templates"):
        shutil.copytree(ROOT / "book" / name, folder / "book" / name, ignore=shutil.ignore_patterns("__pycache__"))
    library = folder / "riceutils"
    (library / "resources").mkdir(parents=True)
    for name in ("book.py", "editions.py"):
        shutil.copy(ROOT / "riceutils" / name, library)
    files = {
        "_toc.yml": json.dumps(
            {
                "format": "jb-book",
                "root": "book/introduction",
                "parts": [
                    {"caption": "Chapters", "chapters": [{"file": f"notebooks/{name}"} for name in CHAPTERS]},
                    {"caption": "Appendices", "chapters": [{"file": f"book/{name}"} for name in TEXTS[1:]]},
                ],
            }
        ),
        "riceutils/__init__.py": "",
        "riceutils/config.py": CONFIG,
        "riceutils/runs.py": RUNS,
        "riceutils/sources.py": SOURCES,
        "riceutils/resources/glossary.csv": "en,ko,note\nfilter,필터,\n",
        "book/references.bib": BIBLIOGRAPHY,
        **{f"book/{name}.md": TEXT.replace("NAME", name) for name in TEXTS[:-1]},
        "book/references.md": TEXT.replace("NAME", "references") + "\n+++\n\n```{bibliography}\n```\n",
    }
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")
    (folder / "notebooks").mkdir()
    for name in CHAPTERS:
        nbformat.write(chapter(name), folder / "notebooks" / f"{name}.ipynb")
    return folder


@cache
def _built(folder: Path) -> Path:
    folder.mkdir()
    tree = make_tree(folder)
    command = [sys.executable, "-m", "riceutils.book", "build"]
    result = subprocess.run(command, cwd=tree, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    return tree


@pytest.fixture(scope="session")
def built_tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout with tiny chapters whose book has been built, once for all test files; copy it to change it."""
    return _built(tmp_path_factory.getbasetemp() / "built-book")
