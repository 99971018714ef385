"""The study's own models. Parameters and FLOPs of each are printed in the Study's tables (``models.csv``)."""

from __future__ import annotations

from keras import Input, KerasTensor, Model
from keras.applications import VGG16
from keras.layers import Conv2D, Dense, Flatten, MaxPooling2D

from riceutils.models import register
from riceutils.models.blocks import googlenet_body, pooled_head, vgg_blocks

Shape = tuple[int, int, int]  # height, width, channels


@register("cnn")
def cnn(input_shape: Shape, classes: int) -> Model:
    """Three 3×3 convolutions (32, 64, 128), each halved by max pooling, then Dense 128.

    12,939,077 parameters and 1,042,859,422 FLOPs at 224×224×3 (Study, CNN).
    """
    x = inputs = Input(input_shape, name="image")
    for number, filters in enumerate((32, 64, 128), start=1):
        x = Conv2D(filters, 3, padding="same", activation="relu", name=f"conv{number}")(x)
        x = MaxPooling2D(2, name=f"pool{number}")(x)
    x = Flatten(name="flatten")(x)
    x = Dense(128, activation="relu", name="dense")(x)
    return Model(inputs, Dense(classes, activation="softmax", name="softmax")(x))


@register("cnn_light")
def cnn_light(input_shape: Shape, classes: int) -> Model:
    """Two strided 3×3 convolutions (8, 16), each halved again by max pooling, then Dense 16.

    51,669 parameters and 7,551,694 FLOPs at 224×224×3 (Study, CNN Light).
    """
    x = inputs = Input(input_shape, name="image")
    for number, filters in enumerate((8, 16), start=1):
        x = Conv2D(filters, 3, strides=2, padding="same", activation="relu", name=f"conv{number}")(x)
        x = MaxPooling2D(2, name=f"pool{number}")(x)
    x = Flatten(name="flatten")(x)
    x = Dense(16, activation="relu", name="dense")(x)
    return Model(inputs, Dense(classes, activation="softmax", name="softmax")(x))


GOOGLENET = {  # filters of the inception modules: 1×1, 3×3 reduce, 3×3, 5×5 reduce, 5×5, pool projection
    "3a": (64, 96, 128, 16, 32, 32),
    "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 208, 16, 48, 64),
    "4b": (160, 112, 224, 24, 64, 64),
    "4c": (128, 128, 256, 24, 64, 64),
    "4d": (112, 144, 288, 32, 64, 64),
    "4e": (256, 160, 320, 32, 128, 128),
    "5a": (256, 160, 320, 32, 128, 128),
    "5b": (384, 192, 384, 48, 128, 128),
}


@register("googlenet")
def googlenet(input_shape: Shape, classes: int) -> Model:
    """GoogLeNet (Szegedy et al. 2015) without auxiliary heads and local response normalisation.

    5,978,677 parameters and 3,179,339,598 FLOPs at 224×224×3 (Study, GoogLeNet).
    """
    inputs = Input(input_shape, name="image")
    outputs = googlenet_body(inputs, (64, 64, 192), GOOGLENET)
    return Model(inputs, pooled_head(outputs["5b"], classes, (), 0.4))


@register("googlenet_varied")
def googlenet_varied(
    input_shape: Shape, classes: int, width: float = 1.0, modules: int = 9, pointwise: int = 1
) -> Model:
    """GoogLeNet with one property changed, to see what it does; unchanged with the defaults.

    ``width`` times the filters, the first ``modules`` inception modules alone, ``pointwise``: side of the kernels that
    are 1×1 in GoogLeNet. Counts derived here.
    """
    inputs = Input(input_shape, name="image")
    first, second, third = (round(width * filters) for filters in (64, 64, 192))
    plans = {name: tuple(round(width * filters) for filters in GOOGLENET[name]) for name in [*GOOGLENET][:modules]}
    outputs = googlenet_body(inputs, (first, second, third), plans, pointwise=pointwise)
    return Model(inputs, pooled_head(outputs[[*plans][-1]], classes, (), 0.4))


@register("googlenet_light")
def googlenet_light(input_shape: Shape, classes: int) -> Model:
    """GoogLeNet with fewer filters and one inception module less.

    580,905 parameters and 280,058,490 FLOPs at 224×224×3 (Study, GoogLeNet Light).
    """
    plans = {
        "3a": (16, 16, 24, 4, 8, 8),
        "3b": (24, 24, 32, 4, 8, 8),
        "4a": (32, 32, 48, 8, 16, 16),
        "4b": (48, 48, 64, 8, 16, 16),
        "4c": (64, 64, 96, 12, 24, 24),
        "4e": (96, 64, 96, 12, 24, 24),
        "5a": (96, 64, 96, 12, 24, 24),
        "5b": (96, 96, 128, 16, 32, 32),
    }
    inputs = Input(input_shape, name="image")
    outputs = googlenet_body(inputs, (16, 16, 64), plans)
    return Model(inputs, pooled_head(outputs["5b"], classes, (), 0.4))


def _vgg16_trunk(input_shape: Shape, last: str) -> tuple[KerasTensor, KerasTensor]:
    """Keras's own VGG16 (Simonyan and Zisserman 2015) without top, up to the layer ``last``; (input, output)."""

    inputs = Input(input_shape, name="image")
    whole = VGG16(include_top=False, weights=None, input_tensor=inputs)
    trunk = Model(inputs, whole.get_layer(last).output)
    for layer in trunk.layers:
        layer.trainable = layer.name.startswith("block5")
    return inputs, trunk.output


@register("vgg16", pretrained="VGG16")
def vgg16(input_shape: Shape, classes: int) -> Model:
    """VGG16 of which block 5 and the head are trained.

    14,979,909 parameters (7,344,645 trainable) and 30,713,485,342 FLOPs at 224×224×3 (Study, VGG16).
    """
    inputs, x = _vgg16_trunk(input_shape, "block5_pool")
    return Model(inputs, pooled_head(x, classes, (512,), 0.3))


@register("vgg_light", pretrained="VGG16")
def vgg_light(input_shape: Shape, classes: int) -> Model:
    """VGG16 cut after block 4, frozen, with a head.

    7,900,485 parameters (265,221 trainable) and 27,938,627,102 FLOPs at 224×224×3 (Study, VGG Light).
    """
    inputs, x = _vgg16_trunk(input_shape, "block4_pool")
    return Model(inputs, pooled_head(x, classes, (512,), 0.3))


@register("vgg_light_draft", pretrained="VGG16")
def vgg_light_draft(input_shape: Shape, classes: int) -> Model:
    """VGG16 cut after block 3, frozen, with a smaller head.

    1,802,565 parameters (67,077 trainable; Draft); 18,688,285,470 FLOPs at 224×224×3, derived.
    """
    inputs, x = _vgg16_trunk(input_shape, "block3_pool")
    return Model(inputs, pooled_head(x, classes, (256,), 0.2))


@register("vgg_custom")
def vgg_custom(input_shape: Shape, classes: int) -> Model:
    """Three VGG-like blocks (16-16, 32-32, 64-64-64) trained from scratch.

    144,853 parameters and 1,203,943,966 FLOPs at 224×224×3 (Study, VGG Custom).
    """
    inputs = Input(input_shape, name="image")
    x = vgg_blocks(inputs, ((16, 16), (32, 32), (64, 64, 64)))
    return Model(inputs, pooled_head(x, classes, (512,), 0.5))


@register("final")
def final(input_shape: Shape, classes: int) -> Model:
    """The Study's Final Model: one convolution of 8 filters, three of 16, pooled head.

    17,301 parameters and 167,860,766 FLOPs at 224×224×3 (Study, Final Model).
    """
    inputs = Input(input_shape, name="image")
    x = vgg_blocks(inputs, ((8,), (16, 16, 16)))
    return Model(inputs, pooled_head(x, classes, (512,), 0.3))
