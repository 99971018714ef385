"""Networks that were trained on other images and learn ours: the transfer study's five, and VGG16 in their place."""

from __future__ import annotations

import keras
from keras import Input, Model
from keras.layers import UpSampling2D

from riceutils.models import register
from riceutils.models.blocks import pooled_head
from riceutils.models.study import Shape


def _register(name: str, backbone: str, units: tuple[int, ...], whole: bool, enlarge: int, about: str) -> None:
    """Enlarged images, Keras's ``backbone`` without top, trained ``whole`` or frozen, pooled dense head."""

    def function(input_shape: Shape, classes: int, enlarge: int = enlarge) -> Model:
        x = inputs = Input(input_shape, name="image")
        if enlarge > 1:
            x = UpSampling2D(enlarge, name="enlarge")(x)
        network = getattr(keras.applications, backbone)(include_top=False, weights=None, input_tensor=x)
        network.trainable = whole
        return Model(inputs, pooled_head(network.output, classes, units, 0))

    function.__doc__ = about
    classes = 10 if backbone == "VGG16" else 20
    register(name, input_shape=(32, 32, 3), classes=classes, pretrained=backbone)(function)


for _name, _backbone, _units, _whole, _count in (
    ("resnet50_fc", "ResNet50", (1024, 512), False, "26,220,948 parameters, 2,633,236 trainable (Transfer)"),
    ("resnet50_all", "ResNet50", (1024, 512), True, "26,220,948 parameters, 26,167,828 trainable (Transfer)"),
    ("mobilenetv3_fc", "MobileNetV3Large", (512,) * 3, False, "4,023,956 parameters, 1,027,604 trainable (Transfer)"),
    ("mobilenetv3_all", "MobileNetV3Large", (512,) * 3, True, "4,023,956 parameters, 3,999,556 trainable (Transfer)"),
    ("mobilenetv3_exp", "MobileNetV3Large", (1024, 1024, 512), True, "5,565,076 parameters (Transfer)"),
):
    _register(_name, _backbone, _units, _whole, 7, f"{_count}; images of 32×32 enlarged sevenfold.")
_ABOUT = "VGG16 in the place of ResNet50; images enlarged twice."
_register("transfer_vgg16_fc", "VGG16", (512,), False, 2, _ABOUT)
_register("transfer_vgg16_all", "VGG16", (512,), True, 2, _ABOUT)
_register("transfer_vgg16_exp", "VGG16", (1024, 1024, 512), True, 2, _ABOUT)
