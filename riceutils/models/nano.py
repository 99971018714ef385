"""A family of very small networks, from two hundred parameters up: how light can it be and still tell rice apart?"""

from __future__ import annotations

from collections.abc import Sequence

from keras import Input, Model
from keras.layers import Activation, AveragePooling2D, BatchNormalization, Conv2D, Dense, GlobalAveragePooling2D

from riceutils.models import register
from riceutils.models.blocks import MOMENTUM, separable_unit
from riceutils.models.study import Shape


@register("rice_nano")
def rice_nano(
    input_shape: Shape,
    classes: int,
    pool: int = 8,
    stem: int = 8,
    units: Sequence[Sequence[int]] = ((12, 2), (16, 1), (24, 1)),
) -> Model:
    """Averaged pixels, a strided 3×3 convolution, depthwise-separable units, global average, softmax.

    ``pool``: side of the squares that are averaged; ``stem``: filters of the convolution; ``units``: (filters, stride)
    of each unit. Counts derived here; batch normalisation can be folded away after training
    (:func:`riceutils.surgery.fold`).
    """
    x = inputs = Input(input_shape, name="image")
    x = AveragePooling2D(pool, name="shrink")(x)
    x = Conv2D(stem, 3, strides=2, padding="same", use_bias=False, name="stem")(x)
    x = BatchNormalization(momentum=MOMENTUM, name="stem_norm")(x)
    x = Activation("relu", name="stem_relu")(x)
    for number, (filters, stride) in enumerate(units, start=1):
        x = separable_unit(x, filters, stride, f"unit{number}")
    x = GlobalAveragePooling2D(name="average")(x)
    return Model(inputs, Dense(classes, activation="softmax", name="softmax")(x))
