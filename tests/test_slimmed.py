"""From a run, or a user's own model, to a lighter one: with its record, its parent, and errors before any cut."""

import re

import keras
import numpy as np
import pytest
from click.testing import CliRunner

from riceutils import data, runs, slimmed, slimming, training
from riceutils.__main__ import main
from riceutils.runs import Spec


@pytest.fixture(scope="module")
def splits(tmp_path_factory):
    return data.load("synthetic", 32, [8, 4, 6], progress=False)


@pytest.fixture(scope="module")
def trained(splits):
    spec = Spec(
        model="final", data=splits.fingerprint, image_size=32, classes=5, epochs=2, batch_size=16, learning_rate=1e-3,
        patience=5, seed=0,
    )  # fmt: skip
    return training.train_or_load(spec, splits, progress=False)


def own_model(path, size=32):
    x = inputs = keras.Input((size, size, 3))
    x = keras.layers.Conv2D(6, 3, activation="relu")(x)
    x = keras.layers.Flatten()(keras.layers.MaxPooling2D(4)(x))
    keras.Model(inputs, keras.layers.Dense(5, activation="softmax")(x)).save(path)
    return path


def test_a_slimmed_run_is_lighter_knows_its_parent_and_loads(trained, splits):
    parent = slimmed.parent(trained)
    run = slimmed.slim(parent, splits, "l1", {"flops": 0.5}, epochs=1, images=10, progress=False)
    assert run.record["parameters"] < trained.record["parameters"]
    assert run.spec.slim["parent"] == trained.spec.key
    assert not run.spec.standard
    network = run.model()
    probabilities = training.predict(network, splits.test.images)
    np.testing.assert_allclose(probabilities, run.predictions["clean"], atol=1e-5)
    assert slimmed.slim(parent, splits, "l1", {"flops": 0.5}, epochs=1, images=10, progress=False).name == run.name


def test_from_scratch_has_the_same_shape_other_weights_and_the_parents_epochs(trained, splits):
    parent = slimmed.parent(trained)
    cut = slimmed._start(parent, splits, "l1", {"flops": 0.5}, 10, 0, scratch=False)
    fresh = slimmed._start(parent, splits, "l1", {"flops": 0.5}, 10, 0, scratch=True)
    again = slimmed._start(parent, splits, "l1", {"flops": 0.5}, 10, 0, scratch=True)
    assert [weight.shape for weight in cut.weights] == [weight.shape for weight in fresh.weights]
    assert not np.allclose(cut.get_weights()[0], fresh.get_weights()[0])
    np.testing.assert_array_equal(fresh.get_weights()[0], again.get_weights()[0])
    run = slimmed.slim(parent, splits, "l1", {"flops": 0.5}, epochs=1, images=10, scratch=True, progress=False)
    assert run.spec.epochs == 3


def test_a_users_own_model_from_the_command_line(tmp_path):
    path = own_model(tmp_path / "mine.keras")
    arguments = ["slim", str(path), "--budget", "flops=0.6", "--epochs", "1", "--images-per-class", "8,4,6"]
    result = CliRunner().invoke(main, [*arguments, "--images", "10", "--save", str(tmp_path / "light.keras")])
    assert result.exit_code == 0, result.output
    small = keras.models.load_model(tmp_path / "light.keras")
    assert small.count_params() < keras.models.load_model(path).count_params()
    assert small.output_shape == (None, 5)
    (name,) = set(re.findall(r"mine-[0-9a-f]{16}", result.output))
    assert runs.resolve(name).record["spec"]["model"] == "mine"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["slim", "no_such_run", "--budget", "flops=0.5"], "No model or run 'no_such_run'"),
        (["slim", "cnn_light", "--budget", "half"], "Give --budget as flops=0.5"),
        (["slim", "cnn_light", "--images-per-class", "many"], "--images-per-class as 200,50,100"),
    ],
)
def test_wrong_requests_are_named(arguments, message):
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 1
    assert message in result.output


def test_a_file_that_is_no_model(tmp_path):
    (tmp_path / "text.keras").write_text("no")
    with pytest.raises(ValueError, match="is not a Keras model"):
        slimmed.parent(tmp_path / "text.keras")


def test_data_that_do_not_fit_the_model(tmp_path, trained, splits):
    with pytest.raises(ValueError, match="mine takes images of 48 px, the data were loaded at 32"):
        parent = slimmed.parent(own_model(tmp_path / "mine.keras", 48))
        slimmed.slim(parent, splits, "l1", {"flops": 0.5}, epochs=1)
    two = data.load("digits", 32, [4, 2, 2], progress=False)
    with pytest.raises(ValueError, match="final tells 5 classes apart, the data have 10"):
        slimmed.slim(slimmed.parent(trained), two, "l1", {"flops": 0.5}, epochs=1)


def test_what_cannot_be_followed_is_said_before_anything_is_trained(tmp_path, splits):
    x = inputs = keras.Input((32, 32, 3))
    x = keras.layers.LayerNormalization(name="odd")(keras.layers.Conv2D(4, 3)(x))
    model = keras.Model(inputs, keras.layers.Dense(5, activation="softmax")(keras.layers.Flatten()(x)))
    model.save(tmp_path / "odd.keras")
    with pytest.raises(slimming.UnsupportedLayer, match="odd"):
        slimmed.slim(slimmed.parent(tmp_path / "odd.keras"), splits, "apoz", {"flops": 0.5}, epochs=1)


def test_an_unknown_run_is_answered_without_unfinished_ones(splits, trained):
    with pytest.raises(ValueError, match="No model or run") as error:
        runs.resolve("nothing")
    assert ".lock" not in str(error.value)
