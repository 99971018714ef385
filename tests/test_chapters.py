"""Every chapter runs through papermill; its parameters are declared once; a notebook holds no logic."""

import ast
import json
import os
import re
import sys
from pathlib import Path

import nbformat
import papermill
import pytest

from riceutils import config

ROOT = Path(__file__).resolve().parents[1]
CHAPTERS = sorted(path.stem for path in (ROOT / "notebooks").glob("*.ipynb"))


def read(chapter):
    return nbformat.read(ROOT / "notebooks" / f"{chapter}.ipynb", as_version=4)


def code_cells(chapter):
    return [cell for cell in read(chapter).cells if cell.cell_type == "code"]


def tagged(chapter, tag):
    return [cell for cell in code_cells(chapter) if tag in cell.metadata.get("tags", [])]


def assignments(source):
    """Names and literal values that a cell assigns at its top level."""
    found = {}
    for node in ast.parse(source).body:
        if isinstance(node, ast.AnnAssign):
            found[node.target.id] = ast.literal_eval(node.value)
    return found


def execute(chapter, tmp_path, **parameters):
    target = tmp_path / f"{chapter}.ipynb"
    source = ROOT / "notebooks" / f"{chapter}.ipynb"
    return papermill.execute_notebook(
        str(source), str(target), parameters, kernel_name="python3", cwd=tmp_path, progress_bar=False
    )


def test_every_declared_chapter_is_there():
    assert set(CHAPTERS) == set(config.CHAPTERS)


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_runs_in_the_smoke_profile(chapter, tmp_path, monkeypatch):
    record = tmp_path / "record.json"
    monkeypatch.setenv("RICEUTILS_RECORD", str(record))
    notebook = execute(chapter, tmp_path, **config.chapter_parameters("smoke", chapter))
    small = json.loads(record.read_text())
    assert small["chapter"] == chapter
    for model in (config.MODELS | config.BESIDE).get(chapter, ()):
        assert any(name.startswith(f"{model}-") for name in small["runs"])
    pictures = [o for cell in notebook.cells for o in cell.get("outputs", []) if "image/png" in o.get("data", {})]
    assert len(pictures) >= 3
    text = "".join(str(o.get("data", {}).get("text/html", "")) for c in notebook.cells for o in c.get("outputs", []))
    demonstrates = config.CHAPTERS[chapter].model_fields["data"].default == "synthetic"
    if any("study.load(" in cell.source for cell in code_cells(chapter)):  # a page without images has nothing to say
        assert ("합성 이미지로 만들었습니다" if demonstrates else "실제 이미지로 실행했습니다") in text
    assert str(Path.home()) not in text
    said = "".join(o["text"] for c in notebook.cells for o in c.get("outputs", []) if o.get("name") == "stdout")
    assert "WARNING" not in said  # a page hides what goes to stderr, not this


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_parameters_cell_equals_the_declaration(chapter):
    (cell,) = tagged(chapter, "parameters")
    fields = config.CHAPTERS[chapter].model_fields
    assert assignments(cell.source) == {name: field.default for name, field in fields.items()}
    for line in cell.source.splitlines():
        assert re.match(r"\w+: \w+ = .+  # .+", line), line
    inspected = papermill.inspect_notebook(str(ROOT / "notebooks" / f"{chapter}.ipynb"))
    assert set(inspected) == set(fields)


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_parameters_are_checked_before_anything_else(chapter):
    cells = code_cells(chapter)
    position = cells.index(tagged(chapter, "parameters")[0])
    assert f'config.check_notebook("{chapter}", globals())' in cells[position + 1].source


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_a_notebook_holds_no_logic_and_no_outputs(chapter):
    names = set(config.CHAPTERS[chapter].model_fields)
    for cell in code_cells(chapter):
        assert not cell.outputs
        assert cell.execution_count is None
        tags = cell.metadata.get("tags", [])
        if "setup" in tags or "parameters" in tags:
            continue
        assert len(cell.source.splitlines()) <= 10
        tree = ast.parse(cell.source)
        assert not [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.ClassDef | ast.Lambda)]
        stored = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
        assert not stored & names, "a parameter is assigned again below its cell"


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_every_figure_has_an_alt_text_in_both_languages(chapter):
    for cell in code_cells(chapter):
        if "show.chart(" in cell.source or re.search(r"show\.both\(run, charts\.(zeros|confusion)", cell.source):
            assert set(cell.metadata["alt"]) == {"ko", "en"}


BAD = [
    ({"epoch": 3}, r"has no parameter 'epoch'.*epochs"),
    ({"epochs": "three"}, r"epochs is 'three'"),
    ({"epochs": 0}, r"epochs is 0.*greater than or equal to 1"),
    ({"learning_rate": 7}, r"learning_rate is 7.*less than or equal to 1"),
    ({"images_per_class": [5, 5]}, r"images_per_class is \[5, 5\]"),
]


def test_images_that_are_not_there_are_said_before_a_build_starts():
    with pytest.raises(config.ParameterError, match="No such folder or zip: no/where"):
        config.chapter_parameters("quick", "02_cnn", "no/where")


@pytest.mark.parametrize(("values", "message"), BAD)
def test_a_wrong_parameter_is_one_clear_sentence(values, message):
    with pytest.raises(config.ParameterError, match=message):
        config.check("02_cnn", values)


def test_a_chapter_can_run_again_in_the_same_kernel():
    namespace = {"epochs": 3, "epoch": 3}
    with pytest.raises(config.ParameterError, match="has no parameter 'epoch'"):
        config.check_notebook("02_cnn", namespace)
    del namespace["epoch"]
    assert config.check_notebook("02_cnn", namespace).epochs == 3
    namespace |= {"maps": {}, "titles": ["a"], "epochs": 4}  # what later cells leave; and a changed parameter
    assert config.check_notebook("02_cnn", namespace).epochs == 4
    namespace["epochs"] = "four"
    with pytest.raises(config.ParameterError, match="epochs is 'four'"):
        config.check_notebook("02_cnn", namespace)


def test_chapters_that_compare_read_every_record_and_the_profiles_deviations():
    assert config.READERS == ("09_comparison", "11_conclusion", "18_mobilenet")
    for chapter in config.READERS:
        values = config.chapter_parameters("reference", chapter, "synthetic")
        parameters = config.check(chapter, values)
        for model in ("googlenet", "vgg16", "cnn"):
            expected = config.training_parameters("reference", model, "synthetic")
            assert config.of_model(model, parameters).learning_rate == expected.learning_rate == 1e-3


def test_papermill_stops_at_an_unknown_name(tmp_path):
    with pytest.raises(papermill.PapermillExecutionError) as failure:
        execute("03_cnn_light", tmp_path, epoch=3)
    assert failure.value.ename == "ParameterError"
    assert "03_cnn_light has no parameter 'epoch'" in failure.value.evalue


@pytest.mark.parametrize("name", ["quick", "smoke", "reference", "paper", "cross"])
def test_profiles_are_valid_for_every_chapter(name):
    for chapter in CHAPTERS:
        config.chapter_parameters(name, chapter)
    assert set(config.profile(name)["description"]) == {"ko", "en"}


def test_the_quick_profile_is_the_declared_defaults():
    for chapter in CHAPTERS:
        assert config.chapter_parameters("quick", chapter) == config.CHAPTERS[chapter]().model_dump()


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_the_set_up_cell_does_nothing_elsewhere_and_installs_on_colab(chapter, tmp_path, monkeypatch):
    from IPython.core.interactiveshell import InteractiveShell

    (cell,) = tagged(chapter, "setup")
    shell = InteractiveShell()
    monkeypatch.chdir(tmp_path)
    called = []
    monkeypatch.setattr(shell, "system", lambda command: called.append(command))
    monkeypatch.setattr(
        shell, "run_line_magic", lambda name, line, **_: called.append(f"%{name} {shell.var_expand(line)}")
    )
    shell.run_cell(cell.source).raise_error()
    assert called == []
    monkeypatch.setitem(sys.modules, "google.colab", type(os)("google.colab"))
    shell.run_cell(cell.source).raise_error()
    assert "%pip install" in called[1]
    assert "git+https://" in called[1]
    assert "--constraint keep.txt" in called[1]
    assert "tensorflow" in called[0]
    called.clear()
    (tmp_path / "riceutils-9.9.9-py3-none-any.whl").touch()
    shell.run_cell(cell.source).raise_error()
    assert "riceutils-9.9.9-py3-none-any.whl" in called[1]


def test_parameters_are_explained_in_both_languages_as_declared():
    from riceutils import page

    declared = {
        name: field.description for kind in config.CHAPTERS.values() for name, field in kind.model_fields.items()
    }
    explained = page.phrases()["parameters"]
    assert {name: texts["en"] for name, texts in explained.items()} == declared
    assert all(re.search("[가-힣]", texts["ko"]) for texts in explained.values())
