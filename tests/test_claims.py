"""Verdicts follow from figures by their rules: a claim that holds, one that does not, one not measured."""

import json
import re

import numpy as np
import pandas as pd
import pytest

from riceutils import activations, claims, conclusion, dataset, dead, evaluation, ledger, page, runs, verdicts

IMAGES = 1000
BLACK = [1, 1, 0, 0]  # shares of images on which the filters of a layer fire


@pytest.fixture
def committed(tmp_path, monkeypatch):
    """Writes fake reference runs, the only ones there are."""
    monkeypatch.setattr(runs, "REFERENCE", tmp_path)

    def write(
        model,
        clean=0.9,
        perturbed=0.8,
        *,
        seed=0,
        val=0.9,
        fires=((1, 1), (1, 1)),
        corrupted=None,
        stopped="",
        version=None,
        **spec,
    ):
        settings = {
            "image_size": 224,
            "classes": 5,
            "epochs": 1,
            "batch_size": 32,
            "learning_rate": 1e-3,
            "patience": 1,
        }
        names = {"model": model, "seed": seed, "data": "here"} | spec
        labels = np.zeros(IMAGES, int)
        stored, metrics = {"labels": labels}, {}
        for images, share in (("clean", clean), ("perturbed", perturbed)):
            right = np.arange(IMAGES) < round(share * IMAGES)
            stored[images] = np.eye(5, dtype=np.float32)[np.where(right, 0, 1)]
            interval = evaluation.wilson(int(right.sum()), IMAGES)
            metrics[images] = {"value": interval.value, "low": interval.low, "high": interval.high, "n": IMAGES}
        record = {
            "spec": settings | names,
            "training_version": version or runs.TRAINING_VERSION,
            "stopped": stopped,
            "best_epoch": 1,
            "best": {"accuracy": 1.0, "loss": 0.1, "val_accuracy": val, "val_loss": 0.1},
            "data": {"classes": list("abcde"), "images": {"train": 10, "validation": 500, "test": IMAGES}},
            "metrics": metrics,
            "parameters": int(ledger.static(model)["parameters"].value),
        }  # fmt: skip
        folder = tmp_path / f"{model}-{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        (folder / "record.json").write_text(json.dumps(record))
        np.savez(folder / "predictions.npz", **stored)
        rows = [(f"conv{n}", k, 1 - f, 1 - f, f, f) for n, layer in enumerate(fires) for k, f in enumerate(layer)]
        columns = ["layer", "filter", "apoz", "apoz_grain", "fires", "maximum"]
        pd.DataFrame(rows, columns=columns).to_csv(folder / "filters.csv", index=False)
        if corrupted is not None:
            names = [("corruption", f"c{n}", 1, corrupted, 600) for n in range(9)] + [("clean", "clean", 0, 0.1, 600)]
            table = pd.DataFrame(names, columns=["kind", "name", "strength", "accuracy", "n"])
            table.to_csv(folder / runs.GENERALISATION, index=False)
        return folder

    return write


@pytest.mark.parametrize(
    ("parts", "one"),
    [
        (["holds", "holds", ""], "holds"),
        (["holds", "not measured yet"], "holds"),
        (["holds", "does not hold"], "holds in part"),
        (["holds", "undecided"], "holds in part"),
        (["holds in part"], "holds in part"),
        (["does not hold", "undecided"], "does not hold"),
        (["undecided", ""], "undecided"),
        (["not measured yet", ""], "not measured yet"),
        ([], "not measured yet"),
    ],
)
def test_one_verdict_of_several(parts, one):
    assert verdicts.combine(parts) == one


@pytest.mark.parametrize("claim", claims.CLAIMS)
def test_without_results_nothing_is_invented(claim, committed, monkeypatch):
    monkeypatch.setattr(dead, "read", dict)
    verdict = claims.CLAIMS[claim]()
    assert verdict.verdict == "not measured yet"
    assert set(verdict.judged.values()) == {"not measured yet"}


@pytest.mark.parametrize(
    ("fires", "expected"),
    [
        ([[1] * 20, [0] * 10], ["holds", "holds", "holds"]),
        ([[0.9] * 10, [0.1] * 10], ["holds", "holds", "does not hold"]),
        ([[0.1] * 10, [0.9] * 10], ["holds", "does not hold", "does not hold"]),
        ([[1] * 9, [1] * 9], ["does not hold", "undecided", "not measured yet"]),
    ],
)
def test_black_maps(committed, fires, expected):
    committed("cnn", fires=fires)
    assert list(claims.black_maps().judged.values()) == expected


def test_an_inception_module_is_one_depth():
    names = pd.Series(["conv1", "conv2_reduce", "inception_3a_1x1", "inception_3a_5x5_reduce", "inception_3b_1x1"])
    assert list(activations.depths(names)) == [0, 1, 2, 2, 3]


@pytest.mark.parametrize(
    ("states", "chance", "mechanism"),
    [
        (["dead", "alive"], "holds", "holds"),
        (["dead", "vanished", "alive"], "holds", "holds in part"),
        (["vanished", "vanished"], "does not hold", "does not hold"),
        (["vanished", "unsettled"], "does not hold", "does not hold"),
        (["alive", "alive"], "does not hold", "not measured yet"),
    ],
)
def test_dead_training(monkeypatch, states, chance, mechanism):
    rows = [(dead.CONDITIONS[0].name, state) for state in states] + [(dead.CONDITIONS[1].name, "dead")]
    table = pd.DataFrame(rows, columns=["condition", "state"])
    stuck = table["state"].isin(dead.STUCK)
    table = table.assign(stuck=stuck, epochs=2, val_loss=1.61, val_accuracy=0.2, **{"zero features": 1.0})
    monkeypatch.setattr(dead, "read", lambda: {"experiment": table})
    judged = claims.dead_training().judged
    expected = {"chance": chance, "mechanism": mechanism, "consequence": "holds", "likelier": "not measured yet"}
    assert judged == expected
    table.loc[table.index[-1], "val_loss"] = 1e6  # a dead one whose bias ran away
    assert claims.dead_training().judged["consequence"] == ("holds in part" if "dead" in states else "does not hold")


def test_what_makes_dead_training_likelier(monkeypatch):
    counts = {dead.AS_PUBLISHED: 14, "narrow": 4, "shallow": 13, "without 1×1": 20}
    rows = [(name, seed < stuck) for name, stuck in counts.items() for seed in range(20)]
    table = pd.DataFrame(rows, columns=["condition", "stuck"]).assign(epochs=2, val_loss=1.61, val_accuracy=0.2)
    table = table.assign(state=np.where(table["stuck"], "vanished", "alive"), **{"zero features": 0.9})
    monkeypatch.setattr(dead, "read", lambda: {"experiment": table, "causes": table})
    found = claims.dead_training().parts["likelier"].set_index("network")
    assert list(found["verdict"]) == ["", "holds", "undecided", "does not hold"]
    assert found.loc["without 1×1", "p"] == pytest.approx(0.0202, abs=1e-4)  # Fisher's, of 14 and 20 in 20
    assert claims.dead_training().judged["likelier"] == "holds in part"


@pytest.mark.parametrize(
    ("light", "expected"),
    [
        ({"val": 0.9, "clean": 0.9}, ["holds", "holds"]),
        ({"val": 0.898, "clean": 0.95}, ["holds", "holds"]),
        ({"val": 0.896, "clean": 0.8}, ["does not hold", "does not hold"]),
        ({"val": 0.96, "clean": 0.898}, ["holds", "undecided"]),
    ],
)
def test_kept_accuracy(committed, light, expected):
    committed("cnn")
    committed("cnn_light", **light)
    verdict = claims.kept_accuracy()
    assert list(verdict.judged.values()) == expected
    rows = pd.concat([verdict.parts[name] for name in verdict.judged])
    assert (rows["verdict"] == "not measured yet").sum() == 2 * 3  # the other pairs
    assert verdict.parts["saved"]["of it convolutions"][0] < 0.01  # erratum 9


@pytest.mark.parametrize(("share", "expected"), [(0.9, "holds"), (0.7, "does not hold"), (0.801, "undecided")])
def test_generalisation(committed, share, expected):
    committed("cnn", corrupted=0.5)
    committed("cnn_light", perturbed=share, corrupted=0.5 if expected == "undecided" else share - 0.3)
    committed("cnn_light", perturbed=0.99, augment=True)
    verdict = claims.generalisation()
    assert verdict.judged == {"perturbed": expected, "corruptions": expected}
    assert verdict.parts["augmentation"]["difference"].iloc[0] == pytest.approx(100 * (0.99 - share))


def test_tables_on_other_numbers_of_images_are_not_compared(committed):
    committed("cnn", corrupted=0.5)
    light = committed("cnn_light", corrupted=0.6)
    path = light / runs.GENERALISATION
    pd.read_csv(path).assign(n=7).to_csv(path, index=False)
    assert claims.generalisation().judged["corruptions"] == "not measured yet"


def test_every_seed_is_compared_and_other_images_are_not(committed):
    committed("cnn")
    for seed in (0, 1):
        committed("cnn_light", seed=seed)
    committed("cnn_light", seed=2, data="elsewhere")
    rows = claims.kept_accuracy().parts["clean"]
    assert list(rows["seeds"].dropna()) == ["0, 0", "0, 1"]


def test_what_the_page_says_of_cnn_light_with_augmentation():
    (augmented,), plain = runs.counted("cnn_light", augmented=True), runs.counted("cnn_light")
    heavier = runs.reference("cnn").accuracy("perturbed").value
    gain = augmented.accuracy("perturbed").value - plain[0].accuracy("perturbed").value
    assert gain > 5 * max(abs(run.accuracy("perturbed").value - heavier) for run in plain)
    assert augmented.accuracy("perturbed").low > 0.95


def test_what_the_page_says_of_the_final_model_with_augmentation():
    (augmented,), plain = runs.counted("final", augmented=True), runs.counted("final")
    assert round(augmented.accuracy("perturbed").value, 4) == 0.9720
    assert [round(run.accuracy("perturbed").value, 4) for run in plain] == [0.9303, 0.9433, 0.9023]


def test_what_the_page_says_of_the_yardstick_and_of_the_leader():
    yardstick = dataset.read()["baseline"].set_index("images")
    found = [*runs.counted(), *runs.counted(augmented=True)]
    assert max(run.accuracy("perturbed").high for run in runs.counted()) < yardstick["low"]["perturbed"]
    near = [run for run in found if run.accuracy("perturbed").high >= yardstick["low"]["perturbed"]]
    assert [(run.spec.model, run.spec.augment) for run in near] == [("googlenet_light", True)]
    assert max(run.accuracy().high for run in found) > yardstick["low"]["clean"]
    leaders = sorted(found, key=lambda run: run.accuracy("perturbed").value)[-3:]
    assert [run.spec.model for run in leaders if run.spec.augment] == ["cnn_light", "final", "googlenet_light"]
    assert [round(run.accuracy("perturbed").value, 4) for run in leaders] == [0.9697, 0.9720, 0.9913]
    (leader,) = runs.counted("cnn_light", augmented=True)
    shares = leader.generalisation.groupby(["name", "strength"])["accuracy"].first()
    for name in ("translation", "brightness", "colour cast"):
        assert shares[name, 3] < 0.6 < 0.9 < shares["clean", 0]
    for model in ("final", "googlenet_light"):
        (other,) = runs.counted(model, augmented=True)
        shares = other.generalisation.groupby(["name", "strength"])["accuracy"].first()
        assert max(shares[name, 3] for name in ("brightness", "colour cast")) < 0.6 < 0.9 < shares["translation", 3]
    finals = [run.accuracy("perturbed").value for run in runs.counted("final")]
    mobile = runs.reference("mobilenet_small")
    assert min(finals) < mobile.accuracy("perturbed").value < max(finals)
    assert mobile.record["flops"] < runs.reference("final").record["flops"]


@pytest.mark.parametrize("unfit", [{"version": -1}, {"stopped": "dead"}, {"weights": "hed"}, {"augment": True}])
def test_unfit_runs_do_not_count(committed, unfit):
    committed("cnn", **unfit)
    committed("cnn_light")
    assert claims.kept_accuracy().verdict == "not measured yet"


def test_filters_and_accuracy(committed):
    shares = {"cnn_light": 0.5, "final": 0.55, "cnn": 0.6, "vgg_custom": 0.65, "googlenet_light": 0.7, "googlenet": 0.8}
    for model, share in shares.items():
        committed(model, perturbed=share)
    verdict = claims.filters_and_accuracy()
    assert verdict.judged == {"correlation": "does not hold", "enough": "does not hold"}
    committed("cnn_light", perturbed=1.0, seed=1)  # the mean of the seeds decides, the first seed is compared
    committed("final", perturbed=1.0, seed=1)
    assert claims.filters_and_accuracy().judged["correlation"] == "undecided"


def test_few_filters_can_be_enough(committed):
    for model, share in {"cnn_light": 0.5, "final": 0.9, "cnn": 0.6}.items():
        committed(model, perturbed=share)
    rows = claims.filters_and_accuracy().parts["enough"].set_index("heavier")["verdict"]
    assert list(rows[["final", "cnn", "vgg16"]]) == ["does not hold", "holds", "not measured yet"]


def test_few_filters_are_compared_on_the_same_images(committed):
    committed("cnn", perturbed=0.6)
    committed("final", perturbed=0.9, data="elsewhere")
    row = claims.filters_and_accuracy().parts["enough"].set_index("heavier").loc["cnn"]
    assert (row["lighter"], row["verdict"]) == ("final", "not measured yet")
    committed("cnn", perturbed=0.6, seed=1, data="elsewhere")
    assert claims.filters_and_accuracy().judged["enough"] == "holds"


@pytest.mark.parametrize(
    ("share", "rival", "expected"),
    [
        (0.96, 0.5, ["holds", "holds"]),
        (0.7, 0.5, ["does not hold", "holds"]),
        (0.7, 0.9, ["does not hold", "holds in part"]),
    ],
)
def test_final_model(committed, share, rival, expected):
    committed("final", perturbed=share)
    committed("cnn_light", perturbed=rival)  # fewer FLOPs, more parameters
    assert list(claims.final_model().judged.values()) == expected


def test_recommendations_keep_to_their_limits(committed):
    committed("final", clean=0.8, perturbed=0.7)
    committed("cnn_light", clean=0.9, perturbed=0.5)
    committed("cnn_light", clean=0.9, perturbed=0.6, seed=1)
    committed("cnn_light", clean=0.7, perturbed=0.8, augment=True)
    committed("vgg_custom", clean=0.95, perturbed=0.99)
    baseline = pd.DataFrame({"images": ["clean", "perturbed"], "accuracy": [0.99, 0.98]})
    table = conclusion.recommend(baseline).set_index(["limit", "best by"])
    assert len(table) == len(conclusion.WISHES) + 1
    assert table.loc[("", "parameters"), "model"] == "final"
    assert tuple(table.loc[("", "FLOPs"), ["model", "training"]]) == ("cnn_light", "augmented")  # as light, better
    assert table.loc[("", "clean accuracy"), "model"] == "vgg_custom"
    assert table.loc[("", "perturbed accuracy"), "model"] == "vgg_custom"
    for limit, column, most, quantity in conclusion.WISHES:
        assert table.loc[(limit, quantity), column] <= most
    assert table.loc[("FLOPs ≤ 1 G", "perturbed accuracy"), "model"] == "cnn_light"
    assert table.loc[("weights ≤ 1 MB", "perturbed accuracy"), "model"] == "vgg_custom"
    assert table.iloc[-1]["model"] == "QDA"
    assert conclusion.recommend().iloc[1]["seeds"] == 1


def test_recommendations_without_results(committed):
    assert set(conclusion.recommend()["model"]) == {"not measured yet"}


def test_intervals_by_published_examples():
    share = evaluation.wilson
    figures = evaluation.unpaired(share(48, 80), share(56, 70))  # Newcombe 1998, table II, method 10
    assert [figures[key] for key in ("difference", "low", "high")] == pytest.approx([20, 5.24, 33.39], abs=0.01)


def test_paired_difference_by_hand(committed):
    committed("cnn", clean=0.6)
    committed("cnn_light", clean=0.5)
    figures = claims._paired(runs.reference("cnn"), runs.reference("cnn_light"), "clean")
    n, half = IMAGES + 2, 1.959964 * np.sqrt(101 - 100**2 / (IMAGES + 2)) / (IMAGES + 2)
    assert figures["difference"] == pytest.approx(-10)
    assert (figures["low"], figures["high"]) == pytest.approx((100 * (-100 / n - half), 100 * (-100 / n + half)))
    assert figures["p"] == pytest.approx(2 * 0.5**100)


def test_rank_correlation():
    figures = evaluation.spearman([1, 2, 3, 4, 5, 6, 7, 8], [1, 2, 3, 4, 5, 6, 8, 7])
    assert figures["rank correlation"] == pytest.approx(1 - 6 * 2 / (8 * 63))
    assert figures["detectable"] == pytest.approx(0.738, abs=5e-4)  # of the usual tables, n = 8, two-sided
    assert figures["p"] == pytest.approx(2 * 8 / 40320)  # the order itself and seven exchanges of neighbours
    assert figures["low"] < figures["rank correlation"] < figures["high"]
    assert np.isnan(evaluation.spearman([1, 2, 3], [1, 2, 3])["detectable"])
    with pytest.raises(ValueError, match="2 pairs"):
        evaluation.spearman([1, 2], [2, 1])


@pytest.mark.parametrize("sides", [([1, 2, 3, 4], [5, 5, 5, 5]), ([5, 5, 5, 5], [1, 2, 3, 4])])
def test_without_a_difference_there_is_no_rank_correlation(sides):
    assert np.isnan(list(evaluation.spearman(*sides).values())).all()


@pytest.mark.parametrize("claim", claims.CLAIMS)
def test_the_committed_results_are_judged_and_told_in_both_languages(claim, monkeypatch):
    shown = []
    monkeypatch.setattr(page, "display", lambda output: shown.append(output.data))
    verdict = claims.CLAIMS[claim]()
    assert verdict.verdict in verdicts.VERDICTS
    assert set(verdict.judged.values()) <= set(verdicts.VERDICTS)
    assert list(conclusion._texts()[claim]) == list(verdict.parts)
    conclusion.tell(claim)
    notes = [text for text in shown if "rice-note" in text]
    assert len(notes) == 1 + len(verdict.parts)
    for text in notes:
        assert re.search(r'lang="ko">[^<]*[가-힣]', text)
        assert re.search(r'lang="en">[^<]*[a-z]', text)
        assert "{" not in text


def test_the_whole_is_told(monkeypatch):
    shown = []
    monkeypatch.setattr(page, "display", lambda output: shown.append(output.data))
    conclusion.overview()
    for claim in claims.CLAIMS:
        assert claim in shown[0]
    assert set(conclusion._texts()["verdicts"]) == set(verdicts.VERDICTS)
    table = conclusion.recommend(dataset.read()["baseline"])
    assert len(table) == len(conclusion.WISHES) + 1
