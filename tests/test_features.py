"""Frozen layers are computed once: same results, kept whole, resumed, within limits."""

import keras
import numpy as np
import pytest

from riceutils import data, features, files, models, runs, training


@pytest.fixture(scope="module")
def splits(grains_folder):
    return data.load(grains_folder, 32, [12, 4, 6])


@pytest.fixture(autouse=True)
def separate(tmp_path, monkeypatch, splits):
    monkeypatch.setenv("RICEUTILS_HOME", str(tmp_path / "home"))


def spec_of(splits, model="vgg_light", **changes):
    basis = {"data": splits.fingerprint, "image_size": 32, "classes": len(splits.classes), "epochs": 2}
    basis |= {"batch_size": 8, "learning_rate": 1e-5, "patience": 9, "seed": 0, "weights": "hed 2.0.0"}
    return runs.Spec(model=model, **basis | {"preprocessing": "caffe"} | changes)


def load(divided, splits, images=None):
    return features.load(divided, splits.test.images if images is None else images, "data", "test", "s", "rgb")


@pytest.mark.parametrize(
    ("model", "output"), [("vgg16", (2, 2, 512)), ("vgg_light", (512,)), ("vgg_light_draft", (256,))]
)
def test_the_cut_lies_before_the_first_trained_layer(model, output):
    whole = models.build(model, (32, 32, 3), weights="none")
    divided = features.cut(whole)
    assert divided.trunk.output.shape[1:] == output
    assert not divided.trunk.trainable_weights
    assert len(divided.head.trainable_weights) == len(whole.trainable_weights)


@pytest.mark.parametrize("model", ["cnn_light", "final", "googlenet_light"])
def test_nothing_is_cut_where_nothing_is_frozen(model):
    assert features.cut(models.build(model, (64, 64, 3))) is None


def test_dropout_is_never_computed_once():
    inputs = keras.Input((8, 8, 3))
    frozen = keras.layers.Conv2D(4, 3, trainable=False)(inputs)
    pooled = keras.layers.Dropout(0.5)(keras.layers.GlobalAveragePooling2D()(frozen))  # named "dropout" by Keras
    divided = features.cut(keras.Model(inputs, keras.layers.Dense(3, activation="softmax")(pooled)))
    assert [type(layer).__name__ for layer in divided.head.layers[1:]] == ["Dropout", "Dense"]


def test_a_normalisation_that_still_learns_its_statistics_is_never_computed_once():
    inputs = keras.Input((8, 8, 3))
    frozen = keras.layers.Conv2D(4, 3, trainable=False)(inputs)
    pooled = keras.layers.GlobalAveragePooling2D()(keras.layers.BatchNormalization(center=False, scale=False)(frozen))
    divided = features.cut(keras.Model(inputs, keras.layers.Dense(3, activation="softmax")(pooled)))
    assert type(divided.head.layers[1]).__name__ == "BatchNormalization"


def test_a_graph_with_a_way_around_the_boundary_is_not_cut():
    import keras

    inputs = keras.Input((8, 8, 3))
    frozen = keras.layers.Conv2D(4, 3, padding="same", trainable=False)(inputs)
    joined = keras.layers.Concatenate()([keras.layers.Conv2D(4, 3, padding="same")(frozen), inputs])
    outputs = keras.layers.Dense(2)(keras.layers.GlobalAveragePooling2D()(joined))
    assert features.cut(keras.Model(inputs, outputs)) is None


@pytest.mark.parametrize("model", ["vgg16", "vgg_light"])
def test_training_on_features_agrees_with_training_through_the_frozen_layers(splits, model):
    spec = spec_of(splits, model)
    reused = training.train_or_load(spec, splits)
    probabilities, history = reused.predictions, reused.history
    assert reused.record["features_reused"]
    reused.folder.rename(reused.folder.with_name("elsewhere"))
    plain = training.train_or_load(spec, splits, reuse=False)
    assert not plain.record["features_reused"]
    for which in ("clean", "perturbed"):  # what rounding the features to float16 may change
        np.testing.assert_allclose(probabilities[which], plain.predictions[which], atol=5e-3)
    columns = ["loss", "val_loss"]
    np.testing.assert_allclose(history[columns], plain.history[columns], rtol=5e-3)


def test_weights_of_a_run_on_features_are_those_of_the_whole_network(splits):
    run = training.train_or_load(spec_of(splits), splits)
    again = training.predict(run.model(), splits.test.images, "caffe")
    np.testing.assert_allclose(again, run.predictions["clean"], atol=5e-3)


def test_a_shallower_pooled_network_finds_its_features_already_there(splits, monkeypatch):
    deep, shallow = (models.build(name, (32, 32, 3), weights="hed") for name in ("vgg16", "vgg_light_draft"))
    load(features.cut(deep), splits)
    monkeypatch.setattr(features, "_compute", lambda *_: pytest.fail("computed again"))
    divided = features.cut(shallow)
    found = load(divided, splits)
    monkeypatch.undo()
    expected = training.predict(divided.trunk, splits.test.images)
    np.testing.assert_allclose(found, expected, rtol=2e-3, atol=1e-3)


def test_a_damaged_cache_is_said_and_computed_again(splits, capsys):
    divided = features.cut(models.build("vgg_light", (32, 32, 3), weights="hed"))
    whole = np.array(load(divided, splits))
    (path,) = files.home().glob("features/*/test-block4_pool-mean.npy")
    content = bytearray(path.read_bytes())
    content[-3] ^= 0xFF
    path.write_bytes(content)
    np.testing.assert_array_equal(load(divided, splits), whole)
    assert "damaged and are computed again" in capsys.readouterr().out
    load(divided, splits)
    assert "damaged" not in capsys.readouterr().out


def test_an_interrupted_computation_goes_on_where_it_stopped(splits, monkeypatch):
    monkeypatch.setattr(features, "BATCH", 4)
    monkeypatch.setattr(features, "SAVED", 1)
    divided = features.cut(models.build("vgg_light", (32, 32, 3), weights="hed"))
    whole = training.predict(divided.trunk, splits.test.images)
    seen = []
    preprocess = features.pretrained.preprocess

    def killed_at_third(images, how):
        seen.append(len(images))
        if len(seen) == 3:
            raise KeyboardInterrupt
        return preprocess(images, how)

    monkeypatch.setattr(features.pretrained, "preprocess", killed_at_third)
    with pytest.raises(KeyboardInterrupt):
        load(divided, splits)
    found = load(divided, splits)
    assert len(seen) == 3 + 3  # 18 images: two batches were kept, three were left
    np.testing.assert_allclose(found, whole, rtol=2e-3, atol=1e-3)


def test_features_over_the_limit_are_not_kept_and_training_goes_the_plain_way(splits, monkeypatch, capsys):
    monkeypatch.setenv(features.LIMIT, "0.000001")
    run = training.train_or_load(spec_of(splits, epochs=1), splits)
    assert not run.record["features_reused"]
    assert "exceed the limit" in capsys.readouterr().out


def test_older_features_make_room(splits, monkeypatch):
    divided = features.cut(models.build("vgg_light", (32, 32, 3), weights="hed"))
    load(divided, splits)
    (old,) = files.home().glob("features/*")
    monkeypatch.setattr(features, "limit", lambda: 2 * len(splits.test) * 512 + 1)
    features.load(divided, splits.test.images, "other", "test", "s", "rgb")
    assert not old.exists()


def test_values_beyond_float16_are_said(splits, capsys):
    model = models.build("vgg_light", (32, 32, 3), weights="hed")
    layer = model.get_layer("block1_conv1")
    layer.set_weights([array * 1e6 for array in layer.get_weights()])
    others = files.home() / "features" / files.digest(["s", "rgb", "data"]) / ".test-another.partial"
    files.write_text(others, "")
    assert load(features.cut(model), splits) is None
    assert "range of float16" in capsys.readouterr().out
    assert [path for path in others.parent.iterdir() if path.suffix != ".lock"] == [others]


def test_a_limit_that_is_no_number(monkeypatch):
    monkeypatch.setenv(features.LIMIT, "much")
    with pytest.raises(ValueError, match="RICEUTILS_FEATURES_GB is 'much'"):
        features.limit()
    monkeypatch.setenv(features.LIMIT, "inf")
    with pytest.raises(ValueError, match="RICEUTILS_FEATURES_GB is 'inf'"):
        features.limit()


def test_joined_networks_give_what_each_gives_alone(splits):
    names = ("vgg_light_draft", "vgg16", "vgg_light")
    networks = {name: models.build(name, (32, 32, 3), weights="hed") for name in names}
    together = training.predict(features.join(networks), splits.test.images, "caffe")
    for name, network in networks.items():
        np.testing.assert_allclose(together[name], training.predict(network, splits.test.images, "caffe"), atol=1e-5)
    with pytest.raises(ValueError, match="cnn has no frozen layers"):
        features.join({"vgg16": networks["vgg16"], "cnn": models.build("cnn", (32, 32, 3))})


def test_a_trunk_that_enlarges_its_images_has_features_of_its_own():
    images = np.random.default_rng(5).integers(0, 256, (3, 32, 32, 3), np.uint8)
    means = []
    for enlarge in (1, 2):
        divided = features.cut(models.build("transfer_vgg16_fc", (32, 32, 3), 5, weights="hed", enlarge=enlarge))
        found = features.load(divided, images, "the same images", "train", "the same weights", "caffe")
        pixels = features.pretrained.preprocess(images, "caffe")
        np.testing.assert_allclose(found, divided.trunk.predict_on_batch(pixels), rtol=2e-3, atol=2e-2)
        means.append(np.asarray(found, np.float32))
    assert not np.allclose(*means, atol=0.05)


@pytest.mark.parametrize("content", ["", "{}", "[1"])
def test_a_damaged_record_of_the_cache_is_computed_again(splits, content, capsys):
    divided = features.cut(models.build("vgg_light", (32, 32, 3), weights="hed"))
    whole = np.array(load(divided, splits))
    (path,) = files.home().glob("features/*/test-block4_pool-mean.json")
    path.write_text(content)
    np.testing.assert_array_equal(load(divided, splits), whole)
    assert "damaged and are computed again" in capsys.readouterr().out


def test_killed_while_finishing_the_features_are_made_anew(splits, monkeypatch):
    monkeypatch.setattr(features, "BATCH", 4)
    monkeypatch.setattr(features, "SAVED", 1)
    divided = features.cut(models.build("vgg_light", (32, 32, 3), weights="hed"))
    checksum, calls = features._checksum, []

    def killed_at_second(path):
        calls.append(path)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return checksum(path)

    monkeypatch.setattr(features, "_checksum", killed_at_second)
    with pytest.raises(KeyboardInterrupt):
        load(divided, splits)
    monkeypatch.setattr(features, "_checksum", checksum)
    np.testing.assert_allclose(load(divided, splits), training.predict(divided.trunk, splits.test.images), rtol=2e-3,
                               atol=1e-3)  # fmt: skip


def test_what_an_interrupted_computation_left_does_not_count_against_it(splits, monkeypatch):
    divided = features.cut(models.build("vgg_light", (32, 32, 3), weights="hed"))
    needed = 2 * len(splits.test) * 512
    monkeypatch.setattr(features, "limit", lambda: int(1.5 * needed))
    (folder,) = {files.home() / "features" / files.digest(["s", "rgb", splits.fingerprint])}
    folder.mkdir(parents=True)
    (folder / ".test-block4_pool-mean-block4_pool-mean.partial").write_bytes(bytes(needed))
    assert features.load(divided, splits.test.images, splits.fingerprint, "test", "s", "rgb") is not None
