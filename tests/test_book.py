"""The book: the edition filter, the chapters' bilingual form, and the build, on tiny chapters without TensorFlow."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jupytext
import nbformat
import pytest
import yaml
from book_tree import built_tree  # noqa: F401
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from riceutils import book, editions

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("notebooks/*.ipynb"), *ROOT.glob("book/*.md")])
BUILD = [sys.executable, "-m", "riceutils.book", "build"]


# The filter


def tagged(text, *tags):
    return new_markdown_cell(text, metadata={"tags": list(tags)})


def test_edition_keeps_one_language():
    notebook = new_notebook(cells=[tagged("한", "ko"), tagged("one", "en"), new_markdown_cell("$x$")])
    assert [cell.source for cell in editions.edition(notebook, "ko", {}).cells] == ["한", "$x$"]
    assert [cell.source for cell in editions.edition(notebook, "en", {}).cells] == ["one", "$x$"]
    assert len(notebook.cells) == 3


def test_edition_gives_figures_the_alt_text_of_its_language():
    cell = new_code_cell("plot()", metadata={"alt": {"ko": "선", "en": "a line"}, "mystnb": {"image": {"width": 1}}})
    for language, alt in (("ko", "선"), ("en", "a line")):
        result = editions.edition(new_notebook(cells=[cell]), language, {}).cells[0]
        assert result.metadata.mystnb.image == {"width": 1, "alt": alt}


def test_edition_filters_html_outputs():
    html = '<p lang="ko">한</p><p lang="en">one</p><table><th>filter</th><th>x</th></table>'
    cell = new_code_cell(outputs=[new_output("display_data", {"text/html": html, "image/png": "AA=="})])
    notebook = new_notebook(cells=[cell])
    korean = editions.edition(notebook, "ko", {"filter": "필터"}).cells[0].outputs[0].data
    assert korean["text/html"] == '<p lang="ko">한</p><table><th>필터</th><th>x</th></table>'
    assert korean["image/png"] == "AA=="
    english = editions.edition(notebook, "en", {"filter": "필터"}).cells[0].outputs[0].data
    assert english["text/html"] == '<p lang="en">one</p><table><th>filter</th><th>x</th></table>'


def test_html_without_languages_or_headers_is_left_as_it_is():
    html = "<svg viewBox='0 0 1 1'><br>&nbsp;</svg>"
    assert editions.translate_html(html, "ko", {"filter": "필터"}) is html


def test_parameters_cell_shows_the_values_used():
    source = (
        'epochs = 20  # 횟수\ndata: str = "synthetic"  # images\ncounts = [\n    1,\n    2,\n]\nseed = 0\nrate: float'
    )
    values = {"epochs": 2, "data": "/home/someone/쌀.zip", "counts": [3, 4], "seed": 0, "other": 1}
    notebook = new_notebook(
        cells=[
            new_code_cell(source, metadata={"tags": ["parameters"]}),
            new_code_cell("epochs = 2", metadata={"tags": ["injected-parameters"]}),
        ],
        metadata={"papermill": {"parameters": values, "input_path": "/home/someone/x.ipynb"}},
    )
    result = editions.edition(notebook, "en", {})
    assert [cell.source for cell in result.cells] == [
        'epochs = 2  # 횟수\ndata: str = "쌀.zip"  # images\ncounts = [3, 4]\nseed = 0\nrate: float'
    ]
    assert "someone" not in nbformat.writes(result)


def test_settings_of_an_edition_add_its_language_only():
    root, _ = yaml.safe_load((ROOT / "_config.yml").read_text()), None
    config, toc = book.edition_settings(ROOT, "ko")
    assert "editions" not in config
    assert config["sphinx"]["config"]["language"] == config["sphinx"]["config"]["edition"] == "ko"
    assert config["sphinx"]["recursive_update"] is True
    assert config["only_build_toc_files"] is True
    assert config["repository"] == root["repository"]
    assert toc["parts"][0]["caption"] == "장"


# The form of the real pages


def cells(path):
    if path.suffix == ".md":
        return jupytext.read(path).cells
    return nbformat.read(path, as_version=4).cells


def shape(text):
    """What twins have in common: heading levels, links, images, roles and numbers."""
    text = re.sub(r"```(?!\{).*?```|(?<!`)`[^`\n]+`(?!`)", "", text, flags=re.S)
    formula = re.compile(r"\$\$.*?\$\$|\$[^$\n]+\$", re.S)
    links = re.findall(r"\]\(([^)\s]+)\)|<(https?://[^>]+)>", text)
    bare = re.sub(r"\]\([^)]*\)|<https?://[^>]+>", "]", text)
    return {
        "headings": re.findall(r"^#+(?= )", text, flags=re.M),
        "links": sorted(map("".join, links)),
        "images": text.count("!["),
        "formulas": {re.sub(r"\\(text|mathrm)\{[^}]*\}", "", found) for found in formula.findall(text)},
        # from two digits on: one language may write out what the other does not
        "numbers": set(re.findall(r"\d[\d.,]*\d", formula.sub("", bare))),
    }


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_every_korean_cell_is_followed_by_its_english_twin(path):
    prose = [cell for cell in cells(path) if cell.cell_type == "markdown" and cell.source.strip()]
    language = [set(cell.metadata.get("tags", [])) & {"ko", "en"} for cell in prose]
    neutral = [cell.source for cell, tags in zip(prose, language, strict=True) if not tags]
    assert not [text for text in neutral if not text.startswith("```{")], "prose without a language"
    pairs = [(cell, tags) for cell, tags in zip(prose, language, strict=True) if tags]
    assert [tags for _, tags in pairs] == [{"ko"}, {"en"}] * (len(pairs) // 2)
    for (korean, _), (english, _) in zip(pairs[::2], pairs[1::2], strict=True):
        assert re.search("[가-힣]", korean.source)
        assert shape(korean.source) == shape(english.source), english.source[:80]


@pytest.mark.parametrize("path", [p for p in PAGES if p.suffix == ".ipynb"], ids=lambda path: path.stem)
def test_chapter_form(path):
    notebook = nbformat.read(path, as_version=4)
    assert notebook.metadata.kernelspec.name == "python3"  # without it, no Colab button
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert sum("parameters" in cell.metadata.get("tags", []) for cell in code) == 1
    assert all(not cell.outputs and cell.execution_count is None for cell in code)
    for cell in code:
        assert set(cell.metadata.get("alt", {"ko": "", "en": ""})) == {"ko", "en"}
    address = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))["repository"]["url"]
    assert f'REPOSITORY = "{address}"' in "\n".join(cell.source for cell in code)


# The build


@pytest.fixture
def tree(built_tree, tmp_path):  # noqa: F811
    """A copy of the built checkout, to be changed."""
    return shutil.copytree(built_tree, tmp_path / "check out", symlinks=True)


def build(tree, *options):
    return subprocess.run([*BUILD, *options], cwd=tree, capture_output=True, text=True)


def edit(path, old, new):
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


def times(tree):
    return {path.stem: path.stat().st_mtime_ns for path in (tree / "_build/executed").rglob("*.ipynb")}


def test_only_what_changed_is_done_again(tree):
    before = times(tree)
    again = build(tree)
    assert again.returncode == 0, again.stderr
    assert "executing" not in again.stdout
    assert "building" not in again.stdout

    for path in (*tree.glob("notebooks/*.ipynb"), *tree.glob("riceutils/*.py")):
        path.touch()  # as a new checkout would
    edit(tree / "notebooks/02_cnn.ipynb", "필터가 적은", "필터가 훨씬 적은")
    sentence = build(tree)
    assert re.findall(r"(\S+): executing", sentence.stdout) == ["notebooks/02_cnn"]
    assert {name for name, mtime in times(tree).items() if mtime != before[name]} == {"02_cnn"}
    assert "훨씬" in (tree / "_build/site/ko/notebooks/02_cnn.html").read_text(encoding="utf-8")

    edit(tree / "notebooks/02_cnn.ipynb", "epochs=epochs)", "epochs=epochs, best=1)")
    record = build(tree)
    assert re.findall(r"(\S+): executing", record.stdout) == ["notebooks/02_cnn", "notebooks/09_comparison"]


def test_other_images_in_the_same_place_are_noticed(tree, tmp_path):
    folder = tmp_path / "grains: rice #2"
    folder.mkdir()
    empty = build(tree, "--data", str(folder))
    assert (empty.returncode, empty.stderr) == (1, f"Error: No images in {folder}.\n")
    counts = []
    for name in ("a.jpg", "a.jpg", "b.jpg"):
        (folder / name).touch()
        result = build(tree, "--data", str(folder))
        assert result.returncode == 0, result.stderr
        counts.append(len(re.findall(": executing", result.stdout)))
    assert counts == [3, 0, 3]
    executed = nbformat.read(tree / "_build/executed/notebooks/02_cnn.ipynb", as_version=4)
    assert executed.metadata.papermill.parameters.data == str(folder)


def test_killed_build_goes_on_and_second_build_is_refused(tree):
    # `make` as a reader calls it, but with this interpreter in place of a new environment.
    (tree / ".venv/bin").mkdir(parents=True)
    (tree / ".venv/bin/python").write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    (tree / ".venv/bin/python").chmod(0o755)
    for name in ("requirements.lock", "pyproject.toml", ".venv/.installed"):
        (tree / name).touch()
    wait = (
        "import pathlib, time; flag = pathlib.Path('started'); hold = not flag.exists(); flag.touch(); "
        "time.sleep(600 * hold); import matplotlib.pyplot as plt"
    )
    edit(tree / "notebooks/02_cnn.ipynb", "import matplotlib.pyplot as plt", wait)
    old = (tree / "_build/site/en/notebooks/02_cnn.html").read_bytes()
    first = subprocess.Popen(["make", "book"], cwd=tree, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until(lambda: (tree / "started").exists())
        second = build(tree)
        assert second.returncode == 1
        assert "Another build of this folder is running" in second.stderr
    finally:
        os.kill(first.pid, signal.SIGKILL)  # make only: what it started has to notice
        first.wait()
    assert (tree / "_build/site/en/notebooks/02_cnn.html").read_bytes() == old
    until(lambda: not running(tree))
    result = subprocess.run(["make", "book"], cwd=tree, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "sleep" in (tree / "_build/site/en/notebooks/02_cnn.html").read_text(encoding="utf-8")


def until(condition, seconds=240):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.2)


def running(tree):
    import psutil

    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get("RICEUTILS_BUILD") == str(tree):
                return True
    return False


def test_orphans_of_a_killed_build_are_ended(tmp_path):
    environment = {**os.environ, "RICEUTILS_BUILD": str(tmp_path)}
    orphan = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], env=environment)
    other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        with book.only_build(tmp_path):
            assert orphan.wait(5) == -signal.SIGKILL
            assert other.poll() is None
    finally:
        orphan.kill()
        other.kill()


def test_wrong_calls_are_answered_in_one_sentence(tree):
    profile = build(tree, "--profile", "none")
    assert (profile.returncode, profile.stderr) == (1, "Error: Unknown profile 'none'.\n")
    (tree / "notebooks/03_cnn_light.ipynb").unlink()
    missing = build(tree)
    assert missing.returncode == 1
    assert missing.stderr == "Error: _toc.yml names pages that do not exist: notebooks/03_cnn_light\n"
    elsewhere = build(tree / "book")
    assert elsewhere.returncode == 1
    assert "no _toc.yml here" in elsewhere.stderr


def test_failing_cell_is_named_and_the_site_stays(tree):
    site = (tree / "_build/site/ko/notebooks/02_cnn.html").read_bytes()
    edit(tree / "notebooks/02_cnn.ipynb", "plt.plot(", "plt.plott(")
    result = build(tree)
    assert result.returncode == 1
    assert re.fullmatch(r"Error: notebooks/02_cnn, cell \d+: AttributeError: .*'plott'.*\n", result.stderr)
    assert (tree / "_build/failed/notebooks/02_cnn.ipynb").exists()
    assert (tree / "_build/site/ko/notebooks/02_cnn.html").read_bytes() == site


def test_addresses_of_repository_and_site(tree):
    edit(tree / "_config.yml", "https://github.com/OWNER/REPOSITORY", "https://github.com/someone/rice")
    edit(tree / "_config.yml", 'baseurl: ""', "baseurl: https://rice.example/book")
    assert subprocess.run([*BUILD[:-1], "stamp"], cwd=tree).returncode == 0
    for language in editions.LANGUAGES:
        book_command = [*BUILD[:-1], "edition", language]
        result = subprocess.run(book_command, cwd=tree, capture_output=True, text=True)
        assert result.returncode == 0, result.stdout + result.stderr
        html = tree / "_build/editions" / language / "_build/html"
        for path in tree.glob("notebooks/*.ipynb"):
            assert 'REPOSITORY = \\"https://github.com/someone/rice\\"' in path.read_text(encoding="utf-8")
            page = (html / f"notebooks/{path.stem}.html").read_text(encoding="utf-8")
            colab = "https://colab.research.google.com/github/someone/rice/blob/main/notebooks/"
            assert re.findall(rf'href="({colab}[^"]*)"', page) == [f"{colab}{path.name}"]
            assert 'href="https://github.com/someone/rice"' in page
            assert f'href="../_sources/notebooks/{path.name}"' in page  # the download button
            assert (html / f"_sources/notebooks/{path.name}").exists()
            assert "no-address" not in page
            base = "https://rice.example/book"
            assert f'rel="canonical" href="{base}/{language}/notebooks/{path.stem}.html"' in page
            assert f'hreflang="ko" href="{base}/ko/notebooks/{path.stem}.html"' in page
            assert f'hreflang="x-default" href="{base}/index.html"' in page
        text = (html / "book/introduction.html").read_text(encoding="utf-8")
        assert "colab" not in text  # a text page is no notebook in the repository


def test_both_languages_on_a_page_from_the_root(tree):
    (tree / ".pytest_cache").mkdir()
    (tree / ".pytest_cache" / "README.md").write_text("# A tool's cache, no page of the book\n", encoding="utf-8")
    program = Path(sys.executable).with_name("jupyter-book")
    environment = {**os.environ, "PYTHONPATH": str(tree)}
    command = [program, "build", ".", "-n", "-W", "--keep-going"]
    result = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    page = (tree / "_build/html/notebooks/02_cnn.html").read_text(encoding="utf-8")
    assert "필터가 적은 모델" in page
    assert "a lighter model" in page
    assert "cell_output" not in page
    assert "42" in (tree / "_build/html/book/introduction.html").read_text(encoding="utf-8")
