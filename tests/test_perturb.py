"""The perturbation against Keras's own layers, part by part, and its independence of batches."""

from types import SimpleNamespace

import numpy as np
import pytest
from conftest import draw

from riceutils import perturb, subjects

LAYERS = {
    "rotation": ("RandomRotation", lambda f: {"factor": (f, f)}),
    "zoom": ("RandomZoom", lambda f: {"height_factor": (f, f)}),
    "translation": ("RandomTranslation", lambda f: {"height_factor": (f, f), "width_factor": (-f, -f)}),
}


@pytest.fixture(scope="module")
def images():
    return np.stack([np.asarray(draw("long", seed).resize((56, 48))) for seed in range(8)])


def fixed(count, **values):
    """Draws that give every image the same factors: a factor f in ±0.1 comes from the uniform draw 0.5 + 5 f."""
    uniform = np.full((count, 6), 0.5)
    uniform[:, 0] = 0.9  # not flipped
    for name, value in values.items():
        column = ("flip", "rotation", "zoom", "down", "right", "contrast").index(name)
        uniform[:, column] = value if name == "flip" else 0.5 + 5 * value
    return uniform


@pytest.mark.parametrize("factor", [-0.1, -0.037, 0.04, 0.099])
@pytest.mark.parametrize("part", LAYERS)
def test_part_equals_keras(images, part, factor):
    import keras

    name, options = LAYERS[part]
    layer = getattr(keras.layers, name)(**options(factor), fill_mode="reflect", interpolation="bilinear", seed=1)
    expected = np.asarray(layer(images.astype(np.float32), training=True))
    drawn = {"down": factor, "right": -factor} if part == "translation" else {part: factor}
    ours = perturb.apply(images, fixed(len(images), **drawn), [part])
    difference = np.abs(ours - np.clip(np.rint(expected), 0, 255))
    # Our coefficients are rounded to float32 once, Keras's after every step: on an edge of 200 grey levels a
    # position off by 1e-5 px may round the other way.
    assert difference.max() <= 1
    assert (difference > 0).mean() < 0.01


@pytest.mark.parametrize("factor", [-0.1, 0.06])
def test_contrast_equals_its_formula(images, factor):
    ours = perturb.apply(images, fixed(len(images), contrast=factor), ["contrast"])
    floats = images.astype(np.float64)
    mean = floats.mean(axis=(1, 2), keepdims=True)
    expected = np.clip((floats - mean) * (1 + factor) + mean, 0, 255)
    assert np.abs(ours - expected).max() <= 0.51


def test_contrast_equals_keras(images):
    import keras

    layer = keras.layers.RandomContrast(0.1, value_range=(0, 255), seed=1)
    drawn = layer.get_random_transformation(images.astype(np.float32), training=True)
    factor = float(np.asarray(drawn["contrast_factor"]).ravel()[0]) - 1
    expected = np.asarray(layer.transform_images(images.astype(np.float32), drawn))
    if np.asarray(drawn["contrast_factor"]).size > 1:
        images, expected = images[:1], expected[:1]
    ours = perturb.apply(images, fixed(len(images), contrast=factor), ["contrast"])
    assert np.abs(ours - np.clip(expected, 0, 255)).max() <= 0.51


def test_flip(images):
    np.testing.assert_array_equal(perturb.apply(images, fixed(8, flip=0.4), ["flip"]), images[:, :, ::-1])
    np.testing.assert_array_equal(perturb.apply(images, fixed(8, flip=0.5), ["flip"]), images)


def test_parts_are_applied_in_the_published_order(images):
    uniform = perturb.draws(range(8), seed=4)
    whole = perturb.apply(images, uniform)
    steps = images
    for part in perturb.PARTS:
        steps = perturb.apply(steps, uniform, [part])
    # Rounding to uint8 after every part, not once: equal but for a few grey levels.
    assert np.abs(whole.astype(int) - steps).max() <= 4
    assert (whole != images).any(axis=(1, 2, 3)).all()


def test_draw_depends_on_seed_and_index_only():
    np.testing.assert_array_equal(perturb.draws([5, 2]), perturb.draws(range(6))[[5, 2]])
    assert (perturb.draws([5], seed=1) != perturb.draws([5])).any()
    many = perturb.draws(range(2000))
    assert 0 <= many.min() < many.max() < 1
    np.testing.assert_allclose(many.mean(axis=0), 0.5, atol=0.03)


def test_pieces_equal_the_whole(images, monkeypatch):
    whole = perturb.published(images, seed=2)
    pieces = [perturb.published(images[:3], 0, 2), perturb.published(images[3:], 3, 2)]
    np.testing.assert_array_equal(whole, np.concatenate(pieces))
    monkeypatch.setattr(perturb, "BATCH", 3)
    np.testing.assert_array_equal(whole, perturb.published(images, seed=2))
    assert (whole != perturb.published(images, first_index=1, seed=2)).any()
    assert whole.shape == images.shape
    assert whole.dtype == np.uint8


def test_strength_zero_changes_nothing_but_the_flip(images):
    uniform = perturb.draws(range(8))
    still = perturb.apply(images, uniform, [part for part in perturb.PARTS if part != "flip"], strength=0)
    np.testing.assert_array_equal(still, images)


def test_no_images():
    assert perturb.apply(np.empty((0, 8, 8, 3), np.uint8), np.empty((0, 6))).shape == (0, 8, 8, 3)


@pytest.mark.parametrize(
    "wrong", [np.zeros((2, 8, 8, 3)), np.zeros((8, 8, 3), np.uint8), np.zeros((2, 8, 8, 1), np.uint8)]
)
def test_wrong_images(wrong):
    with pytest.raises(ValueError, match="Expected uint8 images"):
        perturb.published(wrong)


def test_unknown_part(images):
    with pytest.raises(ValueError, match=r"Unknown part 'shear'\. Known parts: flip"):
        perturb.apply(images, perturb.draws(range(8)), ["shear"])


def test_stored_pictures_of_another_version_are_made_anew(splits, monkeypatch, tmp_path):
    monkeypatch.setenv("RICEUTILS_HOME", str(tmp_path))
    first, keys = subjects.perturbed_test(splits), []
    monkeypatch.setattr(perturb, "published", lambda images: 255 - images)
    np.testing.assert_array_equal(subjects.perturbed_test(splits), first)
    monkeypatch.setattr(subjects.features, "load", lambda divided, pixels, data, *rest: keys.append(data))
    spec = SimpleNamespace(data="d", slim={}, model="m", initializer="i", seed=0, weights="w", preprocessing="rgb")
    for version in (perturb.VERSION, perturb.VERSION + 1):
        monkeypatch.setattr(perturb, "VERSION", version)
        subjects._features(SimpleNamespace(trunk=SimpleNamespace(weights=[1])), {"perturbed": [first]}, spec)
    np.testing.assert_array_equal(subjects.perturbed_test(splits), 255 - splits.test.images)
    assert keys[0] != keys[1]
