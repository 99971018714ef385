"""What a chapter displays: what is missing or stale is said, variants stand side by side."""

import pytest

from riceutils import background, config, ledger, lightest, page, runs, show, study


@pytest.fixture(scope="module")
def parameters(grains_folder):
    values = {"data": str(grains_folder), "image_size": 32, "images_per_class": [12, 4, 6], "epochs": 1}
    return config.check("03_cnn_light", values)


@pytest.fixture(scope="module")
def splits(parameters):
    return study.load(parameters)


@pytest.fixture
def run(parameters, splits):
    return study.run("cnn_light", parameters, splits)


def shown(function, *arguments):
    found = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(page, "display", lambda output: found.append(output.data))
        function(*arguments)
    return " ".join(found)


def test_a_missing_run_is_named_and_the_rest_stands(run, parameters, splits):
    text = shown(show.missing, {"cnn_light": run})
    assert "googlenet" in text
    assert "vgg16" in text
    assert "cnn_light" not in text
    overview = ledger.overview({"cnn_light": run})
    assert set(overview[overview["source"] == "this build"]["model"]) == {"cnn_light"}
    assert "this build" in ledger.ledger({"cnn_light": run}).columns


def test_results_of_another_training_version_are_flagged_and_carry_no_verdict(run, monkeypatch):
    measured = ledger.ledger().set_index(["model", "quantity"]).loc[("cnn_light", "perturbed accuracy")]
    assert measured["verdict"] != "not measured"
    monkeypatch.setattr(runs, "TRAINING_VERSION", runs.TRAINING_VERSION + 1)
    assert "carries no verdict" in shown(show.figures, "cnn_light", run)
    stale = ledger.ledger().set_index(["model", "quantity"]).loc[("cnn_light", "perturbed accuracy")]
    assert stale["verdict"] == "not measured"
    assert "reference" not in set(ledger.overview()["source"])
    assert "no two models" in shown(show.pairwise, {n: runs.reference(n) for n in ("cnn_light", "final")}, "reference")
    assert background.committed("lenet5") == lightest.finished() == []
    row = background.table({"lenet5": []}).iloc[0]
    assert row["reference"] == "not measured yet"


def test_the_published_tflops_stand_among_a_model_s_figures(run):
    text = shown(show.figures, "cnn_light", run)
    assert "TFLOPs of 7,500 images" in text
    assert "precision, " not in text  # of single classes: they have a table of their own


def test_a_model_without_reference_result_says_so(run, monkeypatch, tmp_path):
    monkeypatch.setattr(runs, "REFERENCE", tmp_path)
    assert "no reference result for cnn_light yet" in shown(show.figures, "cnn_light", run)


def test_two_settings_stand_side_by_side_reference_first(run, parameters, splits, monkeypatch, tmp_path):
    other = study.run("cnn_light", parameters, splits, augment=True)
    monkeypatch.setattr(runs, "REFERENCE", tmp_path)
    text = shown(show.against, run, other)
    assert "nothing to show" in text
    assert "augment: False" in text
    assert "augment: True" in text
    for each in (run, other):
        runs.commit(each)
    text = shown(show.against, run, other)
    assert text.count("augment: True") == 2
    assert text.index("Reference result:") < text.index("This build:")
    assert "McNemar" in text


def test_equal_settings_are_said_to_be_equal(run):
    assert "nothing to compare" in shown(show.against, run, run)


def test_a_page_tells_no_local_paths(parameters, splits):
    assert parameters.data not in shown(show.settings, parameters, splits)
