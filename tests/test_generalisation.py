"""Corruptions and parts of the perturbation, the accuracies under them, and the charts of models side by side."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import scipy.stats
from conftest import AXES, draw

from riceutils import charts, comparison, corruptions, generalisation, perturb, runs

CLASSES = list(AXES)


@pytest.fixture(scope="module")
def images():
    return np.stack([np.asarray(draw(label, seed)) for label in CLASSES for seed in range(4)])


@pytest.fixture(scope="module")
def labels():
    return np.repeat(np.arange(len(CLASSES)), 4)


@pytest.mark.parametrize("name", corruptions.NAMES)
def test_a_corruption_grows_and_depends_on_the_index_only(images, name):
    before = images.copy()
    previous = 0.0
    for severity in corruptions.SEVERITIES:
        whole = corruptions.apply(images, name, severity)
        assert whole.dtype == np.uint8
        assert whole.shape == images.shape
        pieces = [corruptions.apply(images[:5], name, severity), corruptions.apply(images[5:], name, severity, 5)]
        np.testing.assert_array_equal(whole, np.concatenate(pieces))
        distance = np.abs(whole.astype(float) - images).mean()
        assert distance > previous
        previous = distance
    np.testing.assert_array_equal(images, before)


@pytest.mark.parametrize("name", ["noise", "colour cast", "occlusion"])
def test_a_random_corruption_changes_with_seed_and_index(images, name):
    same = np.repeat(images[:1], 8, axis=0)
    first = corruptions.apply(same, name, 2)
    assert len(np.unique(first, axis=0)) > 1
    assert (first != corruptions.apply(same, name, 2, seed=1)).any()
    assert (first != corruptions.apply(same, name, 2, first_index=8)).any()


def test_corruptions_keep_a_shape_that_is_no_square(images):
    for name in corruptions.NAMES:
        assert corruptions.apply(images[:2, :40], name, 3).shape == (2, 40, 64, 3)


def test_occlusion_hits_the_grain(images):
    many = np.concatenate([images] * 10)
    grain = many.mean(axis=-1) > 100
    hit = ((corruptions.apply(many, "occlusion", 3) != many).any(axis=-1) & grain).any(axis=(1, 2))
    assert hit.mean() > 0.9


def test_black_stays_black_in_jpeg():
    assert not corruptions.apply(np.zeros((1, 64, 64, 3), np.uint8), "jpeg", 3).any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "fog"}, "Unknown corruption 'fog'.*blur, noise"),
        ({"severity": 4}, "Unknown severity 4.*1, 2, 3"),
        ({"images": np.zeros((2, 8, 8, 3), np.float32)}, "uint8.*float32"),
        ({"images": np.zeros((8, 8, 3), np.uint8)}, r"\(N, H, W, 3\)"),
    ],
)
def test_bad_input_is_named(images, change, message):
    with pytest.raises(ValueError, match=message):
        corruptions.apply(**{"images": images, "name": "blur", "severity": 1} | change)


def test_variants(images):
    variants = {(v.name, v.strength): v for v in generalisation.variants()}
    assert len(variants) == 2 + 4 * 5 + 7 * 3
    np.testing.assert_array_equal(variants["clean", 0].apply(images), images)
    np.testing.assert_array_equal(variants["flip", 1].apply(images), images[:, :, ::-1])
    expected = perturb.apply(images, perturb.draws(range(len(images))), ["zoom"], 2.0)
    np.testing.assert_array_equal(variants["zoom", 2].apply(images), expected)
    np.testing.assert_array_equal(variants["blur", 2].apply(images), corruptions.apply(images, "blur", 2))


def test_subset_takes_the_first_of_each_class():
    labels = np.array([2, 0, 0, 1, 1, 2, 0, 1, 2])
    np.testing.assert_array_equal(generalisation.subset(labels, 6), [0, 1, 2, 3, 4, 5])
    np.testing.assert_array_equal(generalisation.subset(labels, 5), [0, 1, 3])
    np.testing.assert_array_equal(generalisation.subset(labels), range(9))
    np.testing.assert_array_equal(generalisation.subset(np.array([0, 0, 0, 1])), [0, 3])  # balanced all the same
    for few, count in ((labels, 2), (labels[:0], 600)):
        with pytest.raises(ValueError, match="at least one of each"):
            generalisation.subset(few, count)


def reader(images, labels):
    """A predictor that knows the clean images, and calls everything else class 0; and what it was shown."""
    seen = []

    def predict(changed):
        seen.append(changed)
        known = np.array([np.array_equal(a, b) for a, b in zip(changed, images, strict=True)])
        return np.eye(len(CLASSES))[np.where(known, labels, 0)]

    return predict, seen


@pytest.fixture(scope="module")
def tables(images, labels):
    predict, seen = reader(images, labels)
    other, seen_by_other = reader(images, labels[::-1])
    measured = generalisation.measure({"reader": predict, "wrong": other}, images, labels)
    assert len(seen) == len(generalisation.variants())
    assert all(a is b for a, b in zip(seen, seen_by_other, strict=True))  # each variant is made once
    return measured


def test_measure(tables, images, labels):
    table = tables["reader"].set_index(["kind", "name", "strength"])
    assert len(table) == len(generalisation.variants())
    assert (table["n"] == 12).all()
    clean = table.loc[("clean", "clean", 0)]
    assert (clean["accuracy"], clean["correct"], clean["high"]) == (1.0, 12, 1.0)
    assert 0.7 < clean["low"] < 0.8  # Wilson, 12 of 12
    assert table.loc[("corruption", "noise", 3), "correct"] == 4
    np.testing.assert_allclose(table["accuracy"], table["correct"] / 12)
    assert tables["wrong"].loc[0, "correct"] == 4


def test_an_interrupted_measurement_goes_on_where_it_stopped(tables, images, labels, tmp_path):
    progress = tmp_path / "folder" / "rows.csv"
    predict, seen = reader(images, labels)

    def stopping(changed):
        if len(seen) == 5:
            raise KeyboardInterrupt
        return predict(changed)

    with pytest.raises(KeyboardInterrupt):
        generalisation.measure({"other": predict, "reader": stopping}, images, labels, progress)
    predict, seen = reader(images, labels)
    found = generalisation.measure({"other": predict, "reader": predict}, images, labels, progress)
    assert len(seen) == 2 * (len(generalisation.variants()) - 2)  # two variants were whole; the third was not
    for name in ("other", "reader"):
        pd.testing.assert_frame_equal(found[name], tables["reader"], check_dtype=False, rtol=1e-5)


def test_measure_names_what_does_not_match(images, labels):
    with pytest.raises(ValueError, match="12 images, but 11 labels"):
        generalisation.measure({}, images, labels[1:])
    with pytest.raises(ValueError, match=r"short gave probabilities \(1, 3\) for 12 images"):
        generalisation.measure({"short": lambda x: np.ones((1, 3))}, images, labels)


def drawn(chart):
    """The table of a chart whose figure can be drawn."""
    canvas, table = chart
    canvas.draw_without_rendering()
    return table


def test_charts_of_generalisation(tables):
    found = {name: SimpleNamespace(generalisation=own, classes=CLASSES) for name, own in tables.items()}
    table = tables["reader"]
    pd.testing.assert_frame_equal(drawn(charts.generalisation_of(found["reader"])), table)
    shares = drawn(comparison.generalisations(found)).set_index("model")
    assert list(shares.index) == ["reader", "wrong"]
    assert len(shares.columns) == 2 + 4 * 3 + 7
    assert "rotation ×0.5" not in shares
    blur = table[table["name"] == "blur"]
    assert shares.loc["reader", "blur"] == blur["correct"].sum() / blur["n"].sum()
    assert (
        shares.loc["reader", "zoom ×3"]
        == table[(table["name"] == "zoom") & (table["strength"] == 3)]["accuracy"].item()
    )


def test_what_the_page_says_of_vgg_custom():
    def lost(run):
        table = run.generalisation
        strongest = table[table["strength"].isin([0, 3])].set_index("name")["accuracy"]
        return strongest["clean"] - strongest

    own, others = runs.reference("vgg_custom"), runs.counted("googlenet_light")
    assert lost(own)["translation"] < 0.005  # "next to nothing"
    assert min(lost(run)["translation"] for run in others) > 0.2
    assert lost(own)[["brightness", "colour cast", "blur", "noise"]].min() > 0.4


def test_what_the_page_says_of_vgg_light():
    def under(name):
        table = runs.reference(name).generalisation
        kept = table[table["strength"].isin([0, 1]) | (table["kind"] == "corruption")]
        return kept.groupby(["kind", "name"])["accuracy"].mean()

    light, whole, draft = (under(name) for name in ("vgg_light", "vgg16", "vgg_light_draft"))
    assert (light["clean"].item() - light["perturbation"]).max() < 0.02
    assert (light["corruption"] < whole["corruption"]).sum() == 6
    shares = [round(table["corruption"][name], 3) for name in ("occlusion", "blur") for table in (light, whole)]
    assert shares == [0.449, 0.803, 0.356, 0.382]
    assert draft["corruption"].round(3)[["occlusion", "blur", "noise"]].tolist() == [0.897, 0.269, 0.213]


def test_what_the_page_says_of_the_mobilenets():
    small, large = (runs.reference(name).generalisation for name in ("mobilenet_small", "mobilenetv3_small"))
    strong = [t[t["strength"] == 3].set_index("name")["accuracy"].round(3) for t in (small, large)]
    for part, shares in {"zoom": [0.955, 0.860], "translation": [0.898, 0.845], "contrast": [0.880, 0.755]}.items():
        assert [table[part] for table in strong] == shares
    flip = [t[t["name"] == "flip"]["accuracy"].item() for t in (small, large)]
    assert [round(share, 3) for share in flip] == [0.978, 0.992]
    assert abs(strong[0]["rotation"] - strong[1]["rotation"]) < 0.01
    mean = [t[t["kind"] == "corruption"].groupby("name")["accuracy"].mean() for t in (small, large)]
    ahead = mean[0].index[mean[0] > mean[1]]
    assert set(ahead) == {"brightness", "occlusion"}
    assert round(scipy.stats.binomtest(len(ahead), len(mean[0])).pvalue, 2) == 0.45


def test_what_the_page_says_of_googlenet_light_beside_googlenet():
    (heavy,), light = runs.counted("googlenet"), runs.counted("googlenet_light")
    assert heavy.spec.adapted
    assert round(heavy.accuracy("perturbed").value, 3) == 0.934
    assert [round(run.accuracy("perturbed").value, 3) for run in light] == [0.762, 0.667, 0.954]
    (augmented,) = runs.counted("googlenet_light", augmented=True)
    assert round(augmented.accuracy("perturbed").value, 4) == 0.9913
    assert round(augmented.accuracy().value, 4) == 0.9953
    strong = [run.generalisation.query("strength == 3").set_index("name")["accuracy"] for run in (augmented, light[0])]
    assert [round(shares["translation"], 3) for shares in strong] == [0.962, 0.597]
    assert strong[0].round(3)[["colour cast", "noise"]].tolist() == [0.423, 0.222]
    gain = augmented.accuracy("perturbed").value - light[0].accuracy("perturbed").value
    assert gain > abs(heavy.accuracy("perturbed").value - light[0].accuracy("perturbed").value)


def test_what_the_page_says_of_cnn_light_with_augmentation():
    def under(run):
        table = run.generalisation
        return table.groupby(["name", "strength"])["accuracy"].mean(), table.groupby("name")["accuracy"].mean()

    (augmented,), plain = runs.counted("cnn_light", augmented=True), runs.counted("cnn_light")
    strength, mean = under(augmented)
    assert strength["clean", 0] - strength["translation", 1] < 0.01  # "hardly touch it"
    assert strength["clean", 0] - strength["translation", 2] > 0.2
    for run in plain:
        assert (under(run)[1][["brightness", "colour cast"]] > mean[["brightness", "colour cast"]] + 0.1).all()


@pytest.fixture
def overview():
    rows = [  # model, source, seed, accuracy, FLOPs
        ("small", "published", None, 0.80, 1e6),
        ("small", "reference", 0, 0.50, 1e6),
        ("small", "reference", 1, 0.60, 1e6),
        ("middle", "reference", 0, 0.54, 1e8),
        ("large", "published", None, 0.90, 1e9),
        ("large", "reference", 0, 0.95, 1e9),
        ("large", "this build", 0, 0.70, 1e9),
        ("QDA", "reference", None, 0.99, np.nan),
    ]
    table = pd.DataFrame(rows, columns=["model", "source", "seed", "accuracy", "FLOPs"])
    table = table.assign(low=table["accuracy"] - 0.01, high=table["accuracy"] + 0.01, images="perturbed")
    table = table.assign(parameters=table["FLOPs"] / 10, filters=8, **{"filters as published": 9})
    clean = table[table["source"] != "published"].assign(images="clean")
    return pd.concat([table, clean], ignore_index=True)


def test_front():
    points = pd.DataFrame({"FLOPs": [1, 2, 3, 3, 4], "accuracy": [0.5, 0.4, 0.7, 0.6, 0.7], "model": list("abcde")})
    assert list(comparison.front(points, "FLOPs")["model"]) == ["a", "c"]


def test_cost(overview):
    table = drawn(comparison.cost(overview, "FLOPs"))
    assert len(table) == 7  # the baseline is a line
    assert set(table[table["Pareto front"]]["model"]) == {"small", "large"}  # middle is below small's mean
    assert set(table[table["Pareto front"]]["source"]) == {"reference"}
    without = drawn(comparison.cost(overview.drop(columns="seed"), "FLOPs", without=["small"]))
    assert set(without[without["Pareto front"]]["model"]) == {"middle", "large"}
    for quantity in comparison.QUANTITIES[1:]:
        assert quantity in drawn(comparison.cost(overview, quantity))
    published = overview[overview["source"] == "published"]  # nothing of ours yet
    assert not drawn(comparison.cost(published, "FLOPs"))["Pareto front"].any()


def test_labels_do_not_cover_each_other(overview):
    canvas, _ = comparison.cost(overview, "FLOPs")
    boxes = [text.get_window_extent() for text in canvas.axes[0].texts]
    assert [text.get_text() for text in canvas.axes[0].texts] == ["small", "middle", "large"]
    assert sum(box.count_overlaps(boxes) for box in boxes) == len(boxes)  # itself only


def test_efficiency_and_accuracies(overview):
    table = drawn(comparison.efficiency(overview, without=["large"]))
    assert set(table["model"]) == {"small", "middle"}
    best = table.iloc[0]
    assert (best["model"], best["source"]) == ("small", "published")
    assert best["accuracy per TFLOPs"] == pytest.approx(0.80 / (1e6 * 7500 / 1e12))
    assert set(drawn(comparison.accuracies(overview, without=["small"]))["model"]) == {"middle", "large", "QDA"}


def test_charts_name_what_they_do_not_know(overview):
    with pytest.raises(ValueError, match=r"Unknown quantity 'weight'.*FLOPs"):
        comparison.cost(overview, "weight")
    with pytest.raises(ValueError, match=r"No model 'huge'.*small"):
        comparison.accuracies(overview, without=["huge"])
