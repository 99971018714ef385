"""What is measured of filters, against the plain way: all maps at once, in NumPy."""

import keras
import numpy as np
import pytest

from riceutils import activations, grains


@pytest.fixture(scope="module")
def images():
    return grains.render("Jasmine", 20, size=32)


@pytest.fixture(scope="module")
def network():
    keras.utils.set_random_seed(3)
    inputs = keras.Input((32, 32, 3))
    x = keras.layers.Conv2D(6, 3, activation="relu", name="first")(inputs)
    x = keras.layers.Conv2D(4, 3, strides=2, use_bias=False, name="second")(x)
    x = keras.layers.ReLU()(x)
    model = keras.Model(inputs, keras.layers.Dense(2)(keras.layers.Flatten()(x)))
    kernel, bias = (np.array(value) for value in model.get_layer("first").get_weights())
    kernel[..., 1], bias[1] = 2 * kernel[..., 0], 2 * bias[0]  # the same twice as strong
    kernel[..., 2], bias[2] = 0, -1  # never fires
    kernel[..., 3], bias[3] = 0, 1  # fires everywhere alike
    model.get_layer("first").set_weights([kernel, bias])
    return model


@pytest.fixture(scope="module")
def measured(network, images):
    return activations.measure(network, images)


@pytest.mark.parametrize(("layer", "output"), [("first", "first"), ("second", "re_lu")])
def test_equals_the_plain_way(network, images, measured, layer, output):
    output = next(found for found in network.layers if found.name.startswith(output)).output
    maps = keras.Model(network.input, output).predict(images / 255.0, verbose=0).astype(np.float64)
    table = measured[measured["layer"] == layer]
    flat = maps.reshape(-1, maps.shape[-1])
    np.testing.assert_allclose(table["apoz"], (flat == 0).mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(table["mean"], flat.mean(axis=0), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(table["maximum"], flat.max(axis=0), rtol=1e-5)
    fires = (maps.max(axis=(1, 2)) > 0).mean(axis=0)
    np.testing.assert_allclose(table["fires"], fires)
    assert (table["mean_grain"] <= table["maximum"] + 1e-6).all()


def test_percentiles_of_all_positions_are_exact(network, images, measured):
    maps = keras.Model(network.input, network.get_layer("first").output).predict(images[:5] / 255.0, verbose=0)
    table = activations.measure(network, images[:5]).query("layer == 'first'")  # 2,000 of 900 positions: all
    np.testing.assert_allclose(table["p99"], np.percentile(maps.reshape(-1, 6), 99, axis=0), rtol=1e-4, atol=1e-6)
    assert (table["p99"] <= table["maximum"] + 1e-6).all()
    drawn = measured.query("layer == 'first'")  # 500 of them
    exact = keras.Model(network.input, network.get_layer("first").output).predict(images / 255.0, verbose=0)
    np.testing.assert_allclose(drawn["p99"], np.percentile(exact.reshape(-1, 6), 99, axis=0), rtol=0.1, atol=1e-3)


def test_grain_pixels(images):
    inputs = keras.Input((32, 32, 3))
    first = keras.layers.Conv2D(1, 1, use_bias=False, name="grey")
    model = keras.Model(inputs, keras.layers.Flatten()(first(inputs)))
    first.set_weights([np.full((1, 1, 3, 1), 1 / 3, np.float32)])
    (row,) = activations.measure(model, images).itertuples()
    grey = images.astype(np.float64) @ grains.LUMA
    mask = grey > grains.THRESHOLD
    values = images.mean(axis=-1) / 255
    assert row.mean_grain == pytest.approx(values[mask].mean(), rel=1e-4)
    assert row.p99_grain == pytest.approx(np.percentile(values[mask], 99), rel=0.05)
    assert row.mean < row.mean_grain
    assert np.isnan(row.redundancy)  # alone in its layer
    assert row.nearest == -1


def test_redundancy(network, images, measured):
    table = measured.query("layer == 'first'").set_index("filter")
    assert table.loc[[0, 1], "redundancy"].to_numpy() == pytest.approx(1, abs=1e-4)
    assert table.loc[[0, 1], "nearest"].tolist() == [1, 0]
    assert table.loc[[2, 3], "redundancy"].isna().all()  # constant: no correlation
    assert (table.loc[[2, 3], "nearest"] == -1).all()
    maps = keras.Model(network.input, network.get_layer("first").output).predict(images / 255.0, verbose=0)
    expected = np.abs(np.corrcoef(maps.reshape(-1, 6)[:, [0, 1, 4, 5]].T)) - np.eye(4)
    np.testing.assert_allclose(table.loc[[0, 1, 4, 5], "redundancy"], expected.max(axis=0), atol=1e-4)


def test_a_network_in_mixed_precision(network, images, measured):
    mixed = keras.models.clone_model(
        network,
        clone_function=lambda layer: type(layer).from_config(layer.get_config() | {"dtype": "mixed_float16"}),
    )
    mixed.set_weights(network.get_weights())
    table = activations.measure(mixed, images)
    np.testing.assert_allclose(table["mean"], measured["mean"], rtol=0.01, atol=1e-3)
    np.testing.assert_allclose(table["fires"], measured["fires"], atol=0.05)


def test_no_grain_at_all(network):
    table = activations.measure(network, np.zeros((3, 32, 32, 3), np.uint8))
    assert table[["apoz_grain", "mean_grain", "p99_grain"]].isna().all(axis=None)
