"""What a chapter displays: what is missing or stale is said, variants stand side by side."""

import re
import shutil
from types import SimpleNamespace

import pandas as pd
import pytest

from riceutils import background, config, evaluation, files, ledger, lightest, page, runs, show, study
from riceutils.editions import translate_html


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


def test_a_p_too_small_for_a_float_is_not_shown_as_zero():
    text = shown(page.table, pd.DataFrame({"p": [2e-321, 2.4e-68, 0.5, float("nan")], "share": 0.0}))
    cells = [re.sub("<.*?>", "", cell) for cell in re.findall(r"<td>(.*?)</td>", text)]
    assert cells == ["&lt; 1e-300", "0.0000", "2.4e-68", "0.0000", "0.5000", "0.0000", "", "0.0000"]


def test_a_table_tells_how_many_images_it_rests_on(run):
    small = pd.DataFrame({"accuracy": [0.5], "n": [7]})
    text = shown(show.both, run, lambda found: small if found is run else None)
    assert "Reference results: not measured yet." in text
    assert "px, 7 test images." in text
    assert f"px, {len(run.predictions['labels'])} test images." in shown(
        show.both, run, lambda found: small[["accuracy"]]
    )


def test_an_interval_stands_behind_its_figure_in_one_column():
    text = shown(page.table, pd.DataFrame({"share": [0.5, 0.25], "low": [0.1, None], "high": [0.9, None], "n": 4}))
    assert re.findall(r"<th>(.*?)</th>", text) == ["share", "n"]
    assert re.findall(r"<td>(.*?)</td>", text) == ["0.5000 [0.1000, 0.9000]", "4", "0.2500", "4"]


def test_a_chapter_records_all_runs_that_it_rests_on(run):
    used = study.involved(run)
    assert used[-1] == run
    assert {"cnn_light-seed2", "cnn_light-augmented-seed0"} < {each.folder.name for each in used}
    text = shown(show.footer, "03_cnn_light", used)
    assert "cnn_light-augmented-seed0" in text
    assert "This chapter keeps no runs" in shown(show.footer, "19_pretrained_models")


def test_values_that_are_typed_in_stay_as_they_are_in_korean(parameters, splits):
    text = translate_html(shown(show.settings, parameters, splits), "ko", {"glorot_uniform": "글로럿"})
    assert "<code>glorot_uniform</code>" in text
    assert "글로럿" not in text


def test_what_a_source_states_is_told_from_what_checking_gave():
    text = shown(show.erratum, 18)
    assert text.index("Stated in the source (Case study)") < text.index("Found by checking (erratum 18)")
    assert "Stated" not in shown(show.erratum, 18, False)


def test_a_printed_figure_stands_for_all_that_round_to_it():
    for low, verdict in ((0.9649, "within interval"), (0.9751, "differs")):
        figure = evaluation.Interval(low + 0.02, low, low + 0.04, 100)
        assert ledger._verdict(("vgg16", "macro precision"), "0.97", figure) == verdict
    assert (
        ledger._verdict(("vgg16", "macro precision"), "0.97", evaluation.Interval(0.95, 0.94, 0.9651, 9)) != "differs"
    )


def test_runs_of_other_code_are_named_in_one_line(run, monkeypatch):
    assert "other code" not in shown(show.footer, "03_cnn_light", [run])
    monkeypatch.setattr(runs, "code_hash", lambda: "0" * 64)
    text = shown(show.footer, "03_cnn_light", [run, *runs.references("final")])
    assert text.count("other code") == 1
    for code in {used.record["code"][:8] for used in (run, *runs.references("final"))}:
        assert code in text.partition("other code")[2]


def test_a_model_without_reference_result_says_so(run, monkeypatch, tmp_path):
    monkeypatch.setattr(runs, "REFERENCE", tmp_path)
    assert "no reference result for cnn_light yet" in shown(show.figures, "cnn_light", run)


def test_reference_results_that_are_missing_or_unmeasured_are_named(monkeypatch, tmp_path):
    studied = [run for run in runs.references() if run.spec.model in config.STUDY]
    unmeasured = [run.folder.name for run in studied if run.generalisation is None]
    monkeypatch.setattr(show, "compared", lambda *_: None)
    text = shown(show.generalisations, {})
    assert all(name in text for name in unmeasured)
    assert ("not measured with one disturbance" in text) == bool(unmeasured)
    monkeypatch.setattr(runs, "REFERENCE", tmp_path)
    assert all(model in shown(show.uncounted) for model in config.STUDY)


def test_a_dead_reference_run_carries_no_verdict_and_no_pair(monkeypatch):
    monkeypatch.setattr(runs.Run, "dead", property(lambda self: self.spec.model == "final"))
    verdicts = ledger.ledger().set_index(["model", "quantity"])["verdict"]
    assert verdicts["final", "perturbed accuracy"] == "not measured"
    assert verdicts["cnn_light", "perturbed accuracy"] != "not measured"
    assert "no two models" in shown(show.pairwise, {n: runs.reference(n) for n in ("cnn_light", "final")}, "reference")
    said = shown(show.uncounted)
    assert "final: there are reference results, but dead ones" in said
    assert "no reference result for final" not in said


def test_a_dead_reference_and_the_adapted_one_that_counts_are_told(run, monkeypatch, tmp_path):
    monkeypatch.setattr(runs, "REFERENCE", tmp_path)
    runs.commit(run)
    record = run.record | {"stopped": "dead", "gradient_share": 2e-5}
    files.write_json(tmp_path / "cnn_light-seed0" / "record.json", record)
    assert "settings changed" not in shown(show.figures, "cnn_light", run)
    shutil.copytree(run.folder, tmp_path / "cnn_light-adapted-seed0")
    spec = run.record["spec"] | {"initializer": "he_normal", "learning_rate": 3e-4}
    files.write_json(tmp_path / "cnn_light-adapted-seed0" / "record.json", run.record | {"spec": spec})
    text = shown(show.figures, "cnn_light", run)
    assert "seed 0, initialiser glorot_uniform and learning rate 0.001 was given up as dead after 1 epochs" in text
    assert "only 2.0e-05 of their gradient" in text
    for said in (text, shown(show.uncounted)):
        assert "learning_rate 0.0003 (0.001), initializer he_normal (glorot_uniform)" in said


def test_pictures_of_other_classes_than_the_reference_s_come_from_this_build(run, monkeypatch):
    monkeypatch.setitem(run.record["data"], "classes", ["a", "b", "c"])
    said = shown(show.drawn_with, "cnn_light", run)
    assert "1 MB" not in said
    assert "this build" in said


def test_several_seeds_of_a_reference_result_are_listed(run):
    counted = runs.counted("cnn_light")
    assert len(counted) > 1
    text = shown(show.figures, "cnn_light", run)
    assert f"that of the lowest seed ({counted[0].spec.seed})" in text
    for each in counted:
        cells = (each.spec.seed, each.accuracy(), each.accuracy("perturbed"), each.record["best_epoch"])
        row = r"\s*".join(f"<td>{re.escape(str(cell))}</td>" for cell in (*cells, len(each.history)))
        assert re.search(row, text)


def test_a_single_reference_result_has_no_table_of_seeds(run, monkeypatch):
    (first, *_) = runs.counted("cnn_light")
    monkeypatch.setattr(runs, "counted", lambda model=None: [first])
    assert "lowest seed" not in shown(show.figures, "cnn_light", run)


def test_findings_tell_what_the_committed_results_say():
    for model in set(config.STUDY) - {"vgg_light_draft"}:  # whose perturbed accuracy was not published
        outcome, figures = ledger.finding(model)
        counted = runs.counted(model)
        text = shown(show.finding, model)
        assert text.count(figures["published"]) == 2
        if len(counted) == 1:
            published = float(figures["published"])
            share = counted[0].accuracy("perturbed")
            assert outcome == (
                "missed" if share.high < published else "surpassed" if share.low > published else "reached"
            )
            assert f"measured {share} and" in text
            assert f"{counted[0].accuracy()}." in text
        elif counted:
            values = [each.accuracy("perturbed").value for each in counted]
            assert f"measured {min(values):.4f} to {max(values):.4f}" in text
        else:
            assert f"no reference result for {model} that counts" in text


class Measured:
    """A reference run with a perturbed accuracy of its own."""

    def __init__(self, right):
        self.right = right
        self.record = {"data": {"images": {"train": 1234}}}

    def accuracy(self, which="clean"):
        return evaluation.wilson(self.right if which == "perturbed" else 990, 1000)


@pytest.mark.parametrize(
    ("right", "outcome", "korean", "english"),
    [
        ([], "unmeasured", "아직 재지 않았습니다", "it has not been measured yet"),
        ([600], "missed", "공개된 값에 미치지 못했습니다", "fell short of that figure"),
        ([740], "reached", "공개된 값에 이르렀습니다", "reached that figure"),
        ([900], "surpassed", "공개된 값을 넘어섰습니다", "surpassed that figure"),
        ([650, 600], "none", "이른 시드는 없습니다", "no seed reached that figure"),
        ([900, 600, 740], "some", "시드 3개 가운데 2개가", "2 of the 3 seeds reached that figure"),
        ([900, 740], "every", "모든 시드가", "every seed reached that figure"),
    ],
)
def test_a_finding_goes_by_interval_and_seed(right, outcome, korean, english, monkeypatch):
    monkeypatch.setattr(runs, "counted", lambda model=None: [Measured(each) for each in right])
    assert ledger.finding("cnn_light")[0] == outcome  # 0.7456 were published
    text = shown(show.finding, "cnn_light")
    assert korean in text
    assert english in text
    assert ("1,234" in text) == bool(right)
    if len(right) > 1:
        assert f"{min(right) / 1000:.4f} to {max(right) / 1000:.4f}" in text


def test_two_settings_stand_side_by_side_reference_first(run, parameters, splits, monkeypatch, tmp_path):
    other = study.run("cnn_light", parameters, splits, augment=True)
    monkeypatch.setattr(runs, "REFERENCE", tmp_path)
    text = shown(show.against, run, other)
    assert "not measured yet" in text
    assert "augment: False" in text
    assert "augment: True" in text
    for each in (run, study.run("cnn_light", parameters, splits, augment=True, epochs=2)):
        runs.commit(each)
    text = shown(show.against, run, other)
    assert text.count("augment: True") == 2
    assert "epochs: 2, augment: True" in text  # the reference may have another limit, which is said
    assert text.index("Reference result:") < text.index("This build:")
    assert "McNemar" in text
    monkeypatch.setattr(show.evaluation, "mcnemar", lambda *_: SimpleNamespace(only_first=30, only_second=1347, p=0.0))
    assert "p &lt; 1e-300" in shown(show.against, run, other)  # never zero


def test_equal_settings_are_said_to_be_equal(run):
    assert "nothing to compare" in shown(show.against, run, run)


def test_a_page_tells_no_local_paths(parameters, splits):
    assert parameters.data not in shown(show.settings, parameters, splits)
