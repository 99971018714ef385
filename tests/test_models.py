"""Parameters and FLOPs of every model, to the last digit, as printed in the published tables."""

import pytest

from riceutils import config, flops, ledger, models

PUBLISHED = ledger.published("models").set_index("model")
DERIVED = {"vgg_light_draft": 18_688_285_470}  # printed in no source


@pytest.mark.parametrize("name", config.STUDY)
def test_counts_are_the_published_ones(name):
    model = models.build(name)
    row = PUBLISHED.loc[name]
    assert model.count_params() == int(row["parameters"])
    assert ledger.static(name)["trainable parameters"].value == int(row["trainable_parameters"])
    assert flops.count(model).total == int(row["flops_per_image"] or DERIVED[name])


@pytest.mark.parametrize("name", config.STUDY)
def test_formula_equals_the_profiler(name):
    shape = models.architecture(name).input_shape
    small = models.build(name, (shape[0] // 2, shape[1] // 2, 3))
    assert flops.count(small).total == flops.profile(small)


def test_by_layer_adds_up_and_the_convention_is_said():
    report = flops.count(models.build("cnn_light"))
    assert report.by_layer["FLOPs"].sum() == report.total
    assert report.by_layer["share"].sum() == pytest.approx(1)
    assert "2 FLOPs" in report.convention


def test_a_layer_without_a_formula_is_named():
    import keras

    x = inputs = keras.Input((8, 8, 3))
    x = keras.layers.UnitNormalization(name="odd_one")(x)
    with pytest.raises(ValueError, match="odd_one"):
        flops.count(keras.Model(inputs, x))


def test_a_layer_used_more_than_once_is_named():
    import keras

    inputs = keras.Input((8, 8, 3))
    twice = keras.layers.Conv2D(3, 3, padding="same", name="twice")
    with pytest.raises(ValueError, match="'twice' is used more than once"):
        flops.count(keras.Model(inputs, twice(twice(inputs))))


def test_every_published_model_is_in_the_registry():
    assert set(PUBLISHED.index) <= set(models.names())


def test_unknown_model_names_the_known():
    with pytest.raises(ValueError, match=r"Unknown model 'resnet'.*cnn_light"):
        models.build("resnet")


def test_an_image_too_small_is_said_before_anything_else():
    said = r"^vgg16 cannot be built for input \(16, 16, 3\): the image is too small; at least 32×32 is needed\.$"
    with pytest.raises(ValueError, match=said):
        models.build("vgg16", (16, 16, 3))
    assert models.build("vgg16", (32, 32, 3)).input_shape == (None, 32, 32, 3)


def test_what_an_option_makes_impossible_is_said():
    with pytest.raises(
        ValueError, match=r"alexnet_small cannot be built .* options \{'activation': 'selo'\}: .* can't take\.$"
    ):
        models.build("alexnet_small", activation="selo")


def test_another_number_of_classes():
    assert models.build("cnn_light", (64, 64, 3), 3).output_shape == (None, 3)


def test_weights_that_do_not_fit(tmp_path):
    path = tmp_path / "other.weights.h5"
    models.build("cnn_light", (64, 64, 3)).save_weights(path)
    with pytest.raises(ValueError, match="do not fit cnn_light"):
        models.build("cnn_light", (96, 96, 3), weights=str(path))
