"""The background's architectures: counts to the last digit, what the sources print and what is derived."""

import numpy as np
import pytest

from riceutils import errata, flops, models
from riceutils.models import pretrained

CLASSICS = errata.published("classics")
TRANSFER = errata.published("transfer")
PRINTED = ["lenet5", "lenet_20_50", "alexnet_valid", "vgg19_l2_dropout", "vgg19_imagenet_notop"]
DERIVED = {  # (parameters, not trainable), printed in no source
    "alexnet_bn": (46_752_513, 704),
    "vgg16_fc": (134_301_514, 0),
    "googlenet_aux": (8_248_366, 0),
    "googlenet_aux_corrected": (10_318_655, 0),
    "resnet_preact_small": (249_386, 784),
    "mobilenet_small": (12_141, 768),
    "mobilenetv3_small": (942_005, 12_112),
    "rice_nano": (1_721, 192),
}


def trainable(model):
    return sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)


@pytest.mark.parametrize("name", PRINTED)
def test_printed_counts(name):
    assert models.build(name).count_params() == int(CLASSICS.loc[name, "parameters"])


@pytest.mark.parametrize("name", DERIVED)
def test_derived_counts(name):
    model = models.build(name)
    assert (model.count_params(), model.count_params() - trainable(model)) == DERIVED[name]


@pytest.mark.parametrize("name", TRANSFER.index)
def test_transfer_counts(name):
    model = models.build(name)
    assert model.count_params() == int(TRANSFER.loc[name, "parameters"])
    assert trainable(model) == int(TRANSFER.loc[name, "trainable_parameters"])


@pytest.mark.parametrize("name", ["lenet5", "alexnet_small", "resnet_preact_small", "googlenet_aux", "mobilenet_small"])
def test_formula_equals_the_profiler(name):
    model = models.build(name)
    assert flops.count(model).total == flops.profile(model)


@pytest.mark.parametrize("name", ["mobilenetv3_small", "resnet50_fc"])
def test_formula_is_near_the_profiler_where_keras_adds_operations_of_its_own(name):
    model = models.build(name)
    assert flops.count(model).total == pytest.approx(flops.profile(model), rel=1e-4)


def test_a_plain_twin_has_the_convolutions_of_the_residual_network():
    residual, plain = (models.build("resnet_preact_small", units=3, skip=skip) for skip in (True, False))
    names = {layer.name for layer in residual.layers} - {layer.name for layer in plain.layers}
    assert {name.split("_")[-1] for name in names} == {"add", "projection"}


def test_an_option_that_there_is_not():
    with pytest.raises(ValueError, match=r"lenet5 has no option 'depth'. Its options: none"):
        models.build("lenet5", depth=3)
    with pytest.raises(ValueError, match="Its options: units, skip"):
        models.build("resnet_preact_small", unit=3)


@pytest.mark.parametrize("name", ["lenet5", "alexnet_valid", "alexnet_bn", "vgg16_fc"])
def test_an_image_too_small_is_said(name):
    channels = models.architecture(name).input_shape[-1]
    with pytest.raises(
        ValueError, match=rf"^{name} cannot be built for input .*too small; at least \d+×\d+ is needed\.$"
    ):
        models.build(name, (16, 16, channels))


@pytest.mark.parametrize("name", ["lenet_20_50", "alexnet_bn", "googlenet_aux", "mobilenet_small", "rice_nano"])
def test_every_architecture_takes_rice(name):
    channels = models.architecture(name).input_shape[-1]
    model = models.build(name, (96, 96, channels), 5)
    assert model(np.zeros((2, 96, 96, channels), np.float32)).shape == (2, 5)


def test_the_case_studys_heads_learn():
    model = models.build("googlenet_aux", (64, 64, 3), 5)
    images, labels = np.random.default_rng(0).random((2, 64, 64, 3)), np.eye(5)[:2]
    assert [output.shape for output in model(images, training=True)] == [(2, 5)] * 3
    before = [np.array(weight) for weight in model.trainable_weights]
    model.compile("adam", "categorical_crossentropy")
    model.train_on_batch(images, labels)
    heads = [np.any(old != new) for old, new in zip(before, model.trainable_weights, strict=True) if "head" in new.path]
    assert len(heads) == 12
    assert all(heads)


def test_each_backbone_has_its_pixels():
    assert pretrained.expected("VGG16", "imagenet") == pretrained.expected("ResNet50", "imagenet") == "caffe"
    assert pretrained.expected("MobileNetV3Large", None) == pretrained.expected("MobileNetV3Large", "imagenet") == "raw"
    grey = pretrained.preprocess(np.full((1, 2, 2, 3), 255, np.uint8), "grey")
    assert grey.shape == (1, 2, 2, 1)
    np.testing.assert_allclose(grey, 1.0)
