"""The command line, as a user calls it."""

import re
import subprocess
import sys

import nbformat
import pytest
from click.testing import CliRunner
from PIL import Image

from riceutils import commands, config, runs
from riceutils.__main__ import _page, main
from riceutils.config import TrainingParameters


def call(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def test_help_lists_a_chapters_parameters_and_ranges():
    result = call("run", "02_cnn", "--help")
    assert result.exit_code == 0
    assert "epochs (integer, 1 to 1000; default 12)" in result.output
    assert "03_cnn_light:" not in result.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["12_none"], "Unknown chapter '12_none'"),
        (["02_cnn", "-p", "epoch", "3"], "02_cnn has no parameter 'epoch'"),
        (["02_cnn", "-p", "epochs", "many"], "epochs is 'many'"),
        (["02_cnn", "-p", "image_size", "8"], "image_size is 8"),
        (["02_cnn", "--profile", "fast"], "Unknown profile 'fast'"),
        (["02_cnn", "-p", "data", "no/such/folder"], "No such folder or zip"),
    ],
)
def test_a_wrong_call_is_one_sentence(arguments, message):
    result = call("run", *arguments)
    assert result.exit_code == 1
    assert result.output.startswith("Error: ")
    assert message in result.output
    assert len(result.output.splitlines()) == 1


def test_an_unwritable_output_is_told_before_any_work(tmp_path):
    (tmp_path / "file").touch()
    result = call("run", "02_cnn", "--out", tmp_path / "file" / "out.ipynb")
    assert result.exit_code == 1
    assert "Cannot write to" in result.output


@pytest.mark.parametrize("arguments", [("run", "none", "--out"), ("run", "none", "--html"), ("slim", "none", "--save")])
def test_a_folder_is_no_file_to_write_to(tmp_path, arguments):
    result = call(*arguments, tmp_path)
    assert result.exit_code == 2
    assert "is a directory" in result.output


def test_run_a_chapter_from_any_folder(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    result = call("run", "03_cnn_light", "--profile", "smoke", "-p", "learning_rate", "2e-3", "--html", "page.html")
    assert result.exit_code == 0, result.output
    assert "IPKernelApp" not in capfd.readouterr().err
    assert "minutes for 1 epochs" in result.output
    assert (tmp_path / "03_cnn_light.out.ipynb").exists()
    assert "learning_rate = 0.002" in (tmp_path / "03_cnn_light.out.ipynb").read_text(encoding="utf-8")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "CNN Light" in page
    assert "google.colab" not in page  # the tags hide it
    assert "# Parameters" not in page  # papermill's cell; its values are in the chapter's own
    assert ".highlight pre { font-family: monospace }" in page
    assert "WARNING" not in page
    again = call("run", "03_cnn_light", "--profile", "smoke", "-p", "learning_rate", "2e-3")
    assert "in the cache" in again.output


def test_the_single_page_hides_what_the_book_hides(tmp_path):
    def cell(text, *tags):
        shown = [nbformat.v4.new_output("stream", name=name, text=f"{name} of {text}") for name in ("stdout", "stderr")]
        return nbformat.v4.new_code_cell(text, metadata={"tags": list(tags)}, outputs=shown)

    cells = [cell("plain"), cell("quiet", "remove-stdout"), cell("bare", "remove-input"), cell("gone", "remove-cell")]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / "page.ipynb")
    page = _page(tmp_path / "page.ipynb")
    for text, shown in (("plain", True), ("quiet", False), ("bare", True), ("gone", False)):
        assert (f"stdout of {text}" in page) == shown
        assert f"stderr of {text}" not in page


def test_predict_with_the_shipped_weights(tmp_path):
    if runs.reference("cnn_light") is None:
        pytest.skip("no reference result of cnn_light is shipped")
    from riceutils import grains

    path = tmp_path / "grain.jpg"
    path.write_bytes(grains.file("Ipsala", 0))
    result = call("predict", "cnn_light", path)
    assert result.exit_code == 0, result.output
    assert result.output.removeprefix(f"{path}: ").startswith("Ipsala ")  # the likeliest class comes first


def test_predict_says_what_is_wrong(tmp_path):
    Image.new("RGB", (5, 5)).save(tmp_path / "a.png")
    assert "No model or run 'nothing'" in call("predict", "nothing", tmp_path / "a.png").output
    (tmp_path / "b.jpg").write_text("no image")
    if runs.reference("cnn_light") is not None:
        broken = call("predict", "cnn_light", tmp_path / "b.jpg").output
        assert "it is not an image" in broken
        assert "skip" not in broken  # there is nothing to skip to
    assert "Error" in call("predict", "cnn_light", tmp_path / "absent.jpg").output


def test_synthesise_and_audit(tmp_path):
    folder = tmp_path / "grains"
    result = call("data", "synthesise", folder, "--per-class", 4)
    assert result.exit_code == 0, result.output
    assert len(list(folder.rglob("*.jpg"))) == 20
    assert "is not empty" in call("data", "synthesise", folder).output
    report = call("data", "audit", folder)
    assert report.exit_code == 0, report.output
    assert "20 files in 5 classes" in report.output


def test_ledger_lists_every_published_figure():
    from riceutils import ledger

    table = ledger.ledger()
    models, classes = ledger.published("models"), ledger.published("per_class")
    columns = list(ledger.COLUMNS)
    assert set(models.columns) - set(columns) == {"model", "chapter_ko"}
    assert len(table) == int((models[columns] != "").sum().sum()) + 3 * len(classes)
    assert set(table["verdict"]) <= set(ledger.VERDICTS)
    output = call("ledger").output
    assert "this build" not in output
    adapted = {run.spec.model for run in runs.counted() if run.spec.adapted}
    assert set(re.findall(r"^(\w+): initialiser .* not as published\.$", output, re.MULTILINE)) == adapted
    printed = call("ledger", "--profile", "smoke")
    assert printed.exit_code == 0, printed.output
    assert "this build" in printed.output


@pytest.mark.parametrize("command", ["train", "run", "slim", "experiment", "predict"])
def test_help_is_no_error(command):
    shown = call(command, "--help")
    assert shown.exit_code == 0
    assert "Error" not in shown.output


def test_importing_the_library_does_not_import_tensorflow():
    code = "import sys, riceutils, riceutils.__main__; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


NEEDED_FIRST = {"lightest": "experiment search", "optuna": "experiment search"}


@pytest.mark.parametrize("name", list(commands.EXPERIMENTS))
def test_experiments_start_from_images_that_are_there(name, tmp_path, monkeypatch):
    monkeypatch.setenv("RICEUTILS_HOME", str(tmp_path / "home"))
    results = tmp_path / "results"
    for module in ("slimcurves", "lightest", "deadfilters", "dead"):
        monkeypatch.setattr(f"riceutils.{module}.RESULTS", results)
    result = call("experiment", name, "--data", "no/such/folder")
    assert result.exit_code == 1
    assert NEEDED_FIRST.get(name, "No such folder or zip") in result.output
    assert not results.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "cnn", "--profile", "quick", "--commit"], "Reference results rest on real images"),
        (["experiment", "lossless", "--data", "synthetic"], "Reference results rest on real images"),
        (["train", "cnn", "-p", "seed", "3"], "Give the seed with --seed"),
        (["predict", "no/such/folder/cnn_light-seed0", __file__], "No model or run 'no/such/folder/cnn_light-seed0'"),
        (["background", "googlenet_with_heads"], "Reference results rest on real images"),
        (["background", "alexnet_relu", "lenet5", "--data", "x.npz"], "trained on cifar10, mnist"),
    ],
)
def test_only_real_images_and_their_own_become_reference_results(arguments, message):
    result = call(*arguments)
    assert result.exit_code == 1
    assert message in result.output


def test_only_reference_results_get_committed_tables(splits):
    from riceutils import study

    parameters = TrainingParameters(**config.chapter_parameters("smoke", "03_cnn_light"))
    run = study.run("cnn_light", parameters)
    result = call("generalise", run.folder, "--profile", "smoke", "--commit")
    assert f"No reference results, or trained again since: {run.name}" in result.output


def test_a_parameter_that_is_no_yaml_is_text():
    assert commands.value("[1,2") == "[1,2"
    assert commands.value("@x") == "@x"


def test_unknown_experiments_are_named():
    result = call("experiment", "everything", "--data", "kaggle")
    assert result.exit_code == 2
    assert "slimming" in result.output
