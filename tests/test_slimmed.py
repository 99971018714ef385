"""From a run, or a user's own model, to a lighter one: with its record, its parent, and errors before any cut."""

import re

import keras
import numpy as np
import pytest
from click.testing import CliRunner
from conftest import fill_folder

from riceutils import channels, data, flops, models, runs, slimmed, slimming, training
from riceutils.__main__ import main
from riceutils.runs import Spec


@pytest.fixture(scope="module")
def trained(splits):
    spec = Spec(
        model="final", data=splits.fingerprint, image_size=32, classes=5, epochs=2, batch_size=16, learning_rate=1e-3,
        patience=5, seed=0,
    )  # fmt: skip
    return training.train_or_load(spec, splits)


def own_model(path, size=32, channels=3, classes=5):
    x = inputs = keras.Input((size, size, channels))
    x = keras.layers.Conv2D(6, 3, activation="relu")(x)
    x = keras.layers.Flatten()(keras.layers.MaxPooling2D(4)(x))
    keras.Model(inputs, keras.layers.Dense(classes, activation="softmax")(x)).save(path)
    return path


def test_a_slimmed_run_is_lighter_knows_its_parent_and_loads(trained, splits):
    parent = slimmed.parent(trained)
    run = slimmed.slim(parent, splits, "l1", {"flops": 0.5}, epochs=1, images=10)
    assert run.record["parameters"] < trained.record["parameters"]
    assert run.spec.slim["parent"] == trained.spec.key
    assert not run.spec.standard
    network = run.model()
    probabilities = training.predict(network, splits.test.images)
    np.testing.assert_allclose(probabilities, run.predictions["clean"], atol=1e-5)
    assert slimmed.slim(parent, splits, "l1", {"flops": 0.5}, epochs=1, images=10).name == run.name


def test_from_scratch_has_the_same_shape_other_weights_and_the_parents_epochs(trained, splits):
    parent = slimmed.parent(trained)
    options = {"epochs": 1, "images": 10}
    made = [slimmed.slim(parent, splits, "l1", {"flops": 0.5}, scratch=scratch, **options) for scratch in (False, True)]
    cut, fresh, again = (slimmed._start(parent, splits, run.spec) for run in (*made, made[1]))
    assert [weight.shape for weight in cut.weights] == [weight.shape for weight in fresh.weights]
    assert not np.allclose(cut.get_weights()[0], fresh.get_weights()[0])
    np.testing.assert_array_equal(fresh.get_weights()[0], again.get_weights()[0])
    assert [run.spec.epochs for run in made] == [1, 3]
    assert {run.spec.batch_size for run in made} == {16}  # the parent's


def test_what_was_only_cut_has_had_no_epochs(trained, splits):
    cut = slimmed.slim(slimmed.parent(trained), splits, "l1", {"flops": 0.5}, epochs=0, images=10)
    assert slimmed.parent(cut).epochs == 0


def test_from_scratch_a_file_keeps_its_own_initialisers(tmp_path, splits):
    inputs = keras.Input((32, 32, 3))
    x = keras.layers.Conv2D(16, 3, kernel_initializer=keras.initializers.RandomNormal(0, 3))(inputs)
    path = tmp_path / "wide.keras"
    keras.Model(inputs, keras.layers.Dense(5, activation="softmax")(keras.layers.Flatten()(x))).save(path)
    parent = slimmed.parent(path)
    run = slimmed.slim(parent, splits, "l1", {"flops": 0.5}, epochs=0, images=10, scratch=True)
    assert slimmed._start(parent, splits, run.spec).get_weights()[0].std() > 1


def test_a_file_that_ends_in_a_map_is_refused(tmp_path):
    inputs = keras.Input((32, 32, 3))
    path = tmp_path / "map.keras"
    keras.Model(inputs, keras.layers.Conv2D(5, 3, activation="softmax")(inputs)).save(path)
    with pytest.raises(ValueError, match="the probabilities of an image"):
        slimmed.parent(path)


@pytest.mark.parametrize("scratch", [False, True])
@pytest.mark.parametrize("criterion", ["l1", "random"])
def test_frozen_layers_that_were_cut_do_not_take_each_others_features(splits, criterion, scratch):
    shared = {"data": splits.fingerprint, "image_size": 32, "classes": 5, "epochs": 1, "batch_size": 16, "patience": 5}
    spec = Spec(model="vgg_light_draft", learning_rate=1e-3, seed=0, **shared)
    parent = slimmed.parent(training.train_or_load(spec, splits))
    run = slimmed.slim(parent, splits, criterion, {"flops": 0.3}, epochs=1, images=5, scratch=scratch)
    assert run.record["features_reused"]
    found = training.predict(run.model(), splits.test.images)
    np.testing.assert_allclose(found, run.predictions["clean"], atol=2e-3)  # features are kept in half precision


def test_layers_that_may_go_leave_the_frozen_ones_alone(splits):
    shared = {"data": splits.fingerprint, "image_size": 32, "classes": 5, "epochs": 1, "batch_size": 16, "patience": 5}
    spec = Spec(model="vgg16", learning_rate=1e-3, seed=0, initializer="he_normal", **shared)
    parent = slimmed.parent(training.train_or_load(spec, splits))
    layers = [f"block5_conv{number}" for number in (1, 2, 3)]
    for scratch in (False, True):
        options = {"layers": layers, "epochs": 1, "images": 5, "scratch": scratch}
        run = slimmed.slim(parent, splits, "l1", {"flops": 0.25}, **options)
        assert run.spec.initializer == "he_normal"
        small = run.model()
        spent = [flops.count(network).by_layer.set_index("layer")["FLOPs"] for network in (parent.network, small)]
        assert spent[1][layers].sum() <= 0.25 * spent[0][layers].sum() < 1.2 * spent[1][layers].sum()
        whole, left = (network.get_layer("block4_conv3").get_weights()[0] for network in (parent.network, small))
        np.testing.assert_array_equal(whole, left)
    with pytest.raises(ValueError, match="no convolution or dense layer 'block6'"):
        slimming.select(parent.network, splits.test.images, "l1", {"flops": 0.5}, layers=["block6"])


def test_a_users_own_model_and_images_from_the_command_line(tmp_path, grains_folder):
    path = own_model(tmp_path / "mine.keras", classes=3)
    arguments = ["slim", str(path), "--budget", "flops=0.6", "--epochs", "0", "--data", str(grains_folder)]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    figures = [line for line in result.output.splitlines() if "parameters" in line]
    assert [line.partition(":")[0] for line in figures] == [str(path), run_name(result.output)]
    assert all("accuracy clean 0." in line or "accuracy clean 1." in line for line in figures)
    assert re.search(r"^\w+: \d+ of \d+ channels stay$", result.output, re.MULTILINE)


def run_name(output):
    (name,) = set(re.findall(r"mine-[0-9a-f]{16}", output))
    return name


def test_a_file_that_can_t_be_cut_is_named_before_images_are_loaded(tmp_path):
    flipped = keras.Sequential([keras.Input((32, 32, 3)), keras.layers.RandomFlip(name="flip"),
                                keras.layers.Flatten(), keras.layers.Dense(5, "softmax")])  # fmt: skip
    flipped.save(tmp_path / "flip.keras")
    arguments = ["slim", str(tmp_path / "flip.keras"), "--criterion", "dead", "--data", "no/such"]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 1
    assert "Layer 'flip' is a RandomFlip" in result.output


def test_a_users_own_model_from_the_command_line(tmp_path):
    path = own_model(tmp_path / "mine.keras")
    arguments = ["slim", str(path), "--budget", "flops=0.6", "--epochs", "1", "--images-per-class", "8,4,6"]
    result = CliRunner().invoke(main, [*arguments, "--images", "10", "--save", str(tmp_path / "light.keras")])
    assert result.exit_code == 0, result.output
    small = keras.models.load_model(tmp_path / "light.keras")
    assert small.count_params() < keras.models.load_model(path).count_params()
    assert small.output_shape == (None, 5)
    assert runs.resolve(run_name(result.output)).record["spec"]["model"] == "mine"
    before = path.read_bytes()
    result = CliRunner().invoke(main, [*arguments, "--save", str(tmp_path / "other" / ".." / "mine.keras")])
    assert result.exit_code == 1
    assert "is the network that is slimmed" in result.output
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["slim", "no_such_run", "--budget", "flops=0.5"], "No model or run 'no_such_run'"),
        (["slim", "cnn_light", "--budget", "half"], "Give --budget as flops=0.5"),
        (["slim", "cnn_light", "--images-per-class", "many"], "--images-per-class as 200,50,100"),
        (["slim", "cnn_light", "--criterion", "luck", "--data", "no/such"], "Unknown criterion 'luck'"),
        (["slim", "cnn_light", "--criterion", "dead", "--data", "no/such", "--save", "x.h5"], "as a .keras file; x.h5"),
    ],
)
def test_wrong_requests_are_named(arguments, message):
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 1
    assert message in result.output


def test_images_of_another_kind_than_a_run_s_are_refused(trained):
    result = CliRunner().invoke(main, ["slim", str(trained.folder), "--criterion", "dead", "--data", "no/such"])
    assert result.exit_code == 1
    assert "was trained on synthetic images; give them with --data" in result.output


def test_classes_of_different_sizes_are_all_loaded_again(tmp_path):
    folder = fill_folder(tmp_path / "grains", 30)
    for path in sorted((folder / "long").iterdir())[10:]:
        path.unlink()
    unequal = data.load(folder, 32, None)
    assert np.bincount(unequal.train.labels).tolist() == [8, 24]  # 16 of each, on average
    spec = Spec(model="cnn_light", data=unequal.fingerprint, image_size=32, classes=2, epochs=1, batch_size=16,
                learning_rate=1e-3, patience=5, seed=0)  # fmt: skip
    run = training.train_or_load(spec, unequal)
    arguments = ["--criterion", "dead", "--epochs", "0", "--images", "10", "--data", str(folder)]
    result = CliRunner().invoke(main, ["slim", str(run.folder), *arguments])
    assert result.exit_code == 0, result.output


def test_a_file_that_is_no_model(tmp_path):
    (tmp_path / "text.keras").write_text("no")
    with pytest.raises(ValueError, match="is not a Keras model"):
        slimmed.parent(tmp_path / "text.keras")


@pytest.mark.parametrize(("preprocessing", "channels"), [("grey", 3), ("rgb", 1)])
def test_a_model_of_other_channels_than_its_pixels_is_refused(tmp_path, preprocessing, channels):
    path = own_model(tmp_path / "mine.keras", channels=channels)
    with pytest.raises(ValueError, match=f"takes images of {channels} channels, the preprocessing '{preprocessing}'"):
        slimmed.parent(path, preprocessing)


def test_data_that_do_not_fit_the_model(tmp_path, trained, splits):
    with pytest.raises(ValueError, match="mine takes images of 48 px, the data were loaded at 32"):
        parent = slimmed.parent(own_model(tmp_path / "mine.keras", 48))
        slimmed.slim(parent, splits, "l1", {"flops": 0.5}, epochs=1)
    two = data.load("digits", 32, [4, 2, 2])
    with pytest.raises(ValueError, match="final tells 5 classes apart, the data have 10"):
        slimmed.slim(slimmed.parent(trained), two, "l1", {"flops": 0.5}, epochs=1)


def test_what_cannot_be_followed_is_said_before_anything_is_trained(tmp_path, splits):
    x = inputs = keras.Input((32, 32, 3))
    x = keras.layers.LayerNormalization(name="odd")(keras.layers.Conv2D(4, 3)(x))
    model = keras.Model(inputs, keras.layers.Dense(5, activation="softmax")(keras.layers.Flatten()(x)))
    model.save(tmp_path / "odd.keras")
    with pytest.raises(channels.UnsupportedLayer, match="odd"):
        slimmed.slim(slimmed.parent(tmp_path / "odd.keras"), splits, "apoz", {"flops": 0.5}, epochs=1)


def test_an_unknown_run_is_answered_with_names_like_it_but_not_with_unfinished_ones(splits, trained):
    with pytest.raises(ValueError, match=r"No model or run 'nothing'\. Names like it: none\. Runs are in ") as error:
        runs.resolve("nothing")
    with pytest.raises(ValueError, match="Names like it") as misspelt:
        runs.resolve("cnn_ligth")
    with pytest.raises(ValueError, match="Names like it") as short:
        runs.resolve(trained.name[:-1])
    assert "cnn_light" in str(misspelt.value)
    assert trained.name in str(short.value)
    assert not any(".lock" in str(each.value) for each in (error, misspelt, short))


@pytest.mark.parametrize("source", ["synthetic", "rice"])
def test_the_cut_alone_changes_no_answer(trained, splits, tmp_path, source):
    arguments = ["slim", str(trained.folder), "--criterion", "dead", "--epochs", "0", "--images", "60"]
    result = CliRunner().invoke(main, [*arguments, "--data", source, "--save", str(tmp_path / "light.keras")])
    assert result.exit_code == 0, result.output
    small = keras.models.load_model(tmp_path / "light.keras")
    images = slimmed.probe(splits.train, 60)
    whole, cut = (training.predict(model, images) for model in (trained.model(), small))
    np.testing.assert_allclose(cut, whole, atol=1e-5)
    (name,) = set(re.findall(r"final-[0-9a-f]{16}", result.output)) - {trained.name}
    assert runs.resolve(name).record["best_epoch"] == 0


def test_what_is_left_is_trained_like_its_parent(splits):
    spec = Spec(
        model="rice_nano", data=splits.fingerprint, image_size=32, classes=5, epochs=1, batch_size=16, patience=5,
        learning_rate=1e-3, seed=0, copies=1, schedule="cosine", options={"pool": 4},
    )  # fmt: skip
    parent = slimmed.parent(training.train_or_load(spec, splits))
    run = slimmed.slim(parent, splits, "l1", {"flops": 0.8}, epochs=1, images=10)
    assert (run.spec.copies, run.spec.schedule) == (1, "cosine")
    untrained = slimmed.slim(parent, splits, "l1", {"flops": 0.8}, epochs=0, images=10)
    assert untrained.history["epoch"].tolist() == [0]


def test_images_that_the_parent_was_not_trained_on_are_refused(trained, splits):
    other = data.load(splits.source.name, 32, [6, 4, 10])
    with pytest.raises(ValueError, match="final was trained on other images or another split"):
        slimmed.slim(slimmed.parent(trained), other, "l1", {"flops": 0.5}, epochs=1)


def test_a_run_with_auxiliary_heads_is_refused(splits, trained, monkeypatch):
    heads = models.build("googlenet_aux_corrected", (32, 32, 3), 5)
    monkeypatch.setattr(type(trained), "model", lambda self: heads)
    with pytest.raises(ValueError, match=f"{trained.name} has auxiliary heads; only a network with one output"):
        slimmed.parent(trained)


def test_a_model_that_gives_no_probabilities_is_refused(tmp_path):
    x = inputs = keras.Input((32, 32, 3))
    logits = keras.layers.Dense(5, name="logits")(keras.layers.Flatten()(keras.layers.Conv2D(4, 3)(x)))
    keras.Model(inputs, logits).save(tmp_path / "mine.keras")
    with pytest.raises(ValueError, match=r"mine.keras ends in 'logits' \(Dense\); one layer with a softmax"):
        slimmed.parent(tmp_path / "mine.keras")


@pytest.mark.parametrize("first", [[], [keras.layers.Conv2D(6, 3, activation="relu")]], ids=["dense", "convolution"])
def test_a_sequential_model_is_slimmed_with_convolutions_or_without(splits, tmp_path, first):
    rest = [keras.layers.Flatten(), keras.layers.Dense(8, activation="relu"), keras.layers.Dense(5, "softmax")]
    keras.Sequential([keras.Input((32, 32, 3)), *first, *rest]).save(tmp_path / "mine.keras")
    parent = slimmed.parent(tmp_path / "mine.keras")
    run = slimmed.slim(parent, splits, "dead", epochs=1, images=10)
    assert run.record["parameters"] <= parent.network.count_params()
    assert len(run.filters) == run.model().layers[1].output.shape[-1] * len(first)
