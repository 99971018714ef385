"""Features of drawn shapes whose values are known, and QDA on them."""

import numpy as np
import pytest
from PIL import Image, ImageDraw

from riceutils import baseline, evaluation, perturb


def ellipse(major, minor, colour=(210, 180, 120), size=224):
    image = Image.new("RGB", (size * 4, size * 4))
    ImageDraw.Draw(image).ellipse(
        [2 * (size - major), 2 * (size - minor), 2 * (size + major), 2 * (size + minor)], fill=colour
    )
    return np.asarray(image.reduce(4))


def test_features_of_an_ellipse():
    row = baseline.features(ellipse(120, 60)[None]).iloc[0]
    assert row["area"] == pytest.approx(np.pi * 30 * 60, rel=0.03)  # an edge above grey 20 belongs to it
    assert row["major"] == pytest.approx(120, abs=1.5)
    assert row["minor"] == pytest.approx(60, abs=1.5)
    assert row["aspect"] == pytest.approx(2, abs=0.03)
    assert row["solidity"] > 0.98
    assert row["extent"] == pytest.approx(np.pi / 4, abs=0.02)
    assert row[["core_R", "core_G", "core_B"]].tolist() == [210, 180, 120]
    assert row[["core_R_sd", "core_G_sd", "core_B_sd"]].tolist() == [0, 0, 0]
    assert row["R_sd"] > 1  # the edge is in it
    assert row["background"] < 0.1


def test_largest_component_with_its_holes_filled():
    image = np.zeros((1, 60, 60, 3), np.uint8)
    image[0, 10:40, 10:40] = 200
    image[0, 20:25, 20:25] = 0
    image[0, 50:53, 50:53] = 250
    row = baseline.features(image).iloc[0]
    assert row["area"] == 900
    assert row["extent"] == row["solidity"] == 1
    assert row["core_R"] == pytest.approx(200 * (1 - 25 / 28**2))  # the hole's pixels are the grain's
    assert row["background"] == pytest.approx(9 * 250 / (3600 - 900))


@pytest.mark.parametrize("value", [0, 20])
def test_no_grain(value):
    table = baseline.features(np.full((2, 32, 32, 3), value, np.uint8))
    assert (table[list(baseline.FEATURES)] == 0).all(axis=None)
    assert table["background"].tolist() == pytest.approx([value, value])


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (2, 2)])
def test_specks_and_lines_have_finite_features(shape):
    image = np.zeros((1, 32, 32, 3), np.uint8)
    image[0, 3 : 3 + shape[0], 3 : 3 + shape[1]] = 200
    table = baseline.features(image)
    assert np.isfinite(table.to_numpy()).all()
    assert table["area"].item() == shape[0] * shape[1]


def test_all_grain():
    row = baseline.features(np.full((1, 32, 32, 3), 200, np.uint8)).iloc[0]
    assert (row["area"], row["background"]) == (1024, 0)


def test_wrong_input():
    with pytest.raises(ValueError, match="Expected uint8 images"):
        baseline.features(np.zeros((2, 8, 8, 3), np.float32))


def test_core_does_not_see_resampling():
    image = ellipse(120, 60)
    blurred = np.asarray(Image.fromarray(image).resize((160, 160), Image.Resampling.BILINEAR).resize((224, 224)))
    before, after = (baseline.features(picture[None]).iloc[0] for picture in (image, blurred))
    assert abs(after["R_sd"] - before["R_sd"]) > 3
    assert abs(after["core_R_sd"] - before["core_R_sd"]) < 1


def test_measure(grains_splits):
    result = baseline.measure(grains_splits, perturb.published(grains_splits.test.images))
    probabilities, labels = result["probabilities"], grains_splits.test.labels
    for name in ("clean", "perturbed"):
        assert probabilities[name].shape == (30, 3)
        np.testing.assert_allclose(probabilities[name].sum(axis=1), 1)
        assert result["accuracy"][name] == evaluation.accuracy(probabilities[name], labels)
    assert result["accuracy"]["clean"].value > 0.9
    assert 0 < result["seconds_per_image"] < 1
    assert evaluation.mcnemar(probabilities["clean"], probabilities["clean"], labels).p == 1


def test_few_images_with_constant_features_still_fit():
    table = baseline.features(np.stack([ellipse(22 + n, 20, size=64) for n in range(24)]))
    model = baseline.fit(table, np.repeat([0, 1], 12))
    assert np.isfinite(model.predict_proba(table[list(baseline.FEATURES)].to_numpy())).all()


def test_class_with_too_few_training_images():
    table = baseline.features(np.stack([ellipse(22 + n, 20, size=64) for n in range(15)]))
    with pytest.raises(ValueError, match="Class number 1 has 3 training images; QDA on 11 features needs 12"):
        baseline.fit(table, np.repeat([0, 1], [12, 3]))


def test_table_of_a_source(grains_folder):
    table = baseline.table(grains_folder, per_class=5)
    assert table["class"].value_counts().to_dict() == {"long": 5, "round": 5, "large": 5}
    assert table["bytes"].tolist() == [(grains_folder / name).stat().st_size for name in table["file"]]
    again = baseline.table(grains_folder, per_class=5)
    assert table.equals(again)
    assert not table.equals(baseline.table(grains_folder, per_class=5, seed=1))
    mean = table.groupby("class")["aspect"].mean()
    assert mean["long"] > 3 > 2 > mean["round"]


def test_unreadable_files_are_left_out_of_the_table(folder):
    (folder / "long" / "notes.jpg").write_text("not a picture")
    assert len(baseline.table(folder)) == 24
