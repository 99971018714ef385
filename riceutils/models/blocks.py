"""What several architectures are made of: each block is written once and shared."""

from __future__ import annotations

from collections.abc import Mapping

from keras import KerasTensor
from keras.layers import (
    Activation,
    Add,
    AveragePooling2D,
    BatchNormalization,
    Concatenate,
    Conv2D,
    Dense,
    DepthwiseConv2D,
    Dropout,
    Flatten,
    GlobalAveragePooling2D,
    MaxPooling2D,
)

MOMENTUM = 0.9  # of batch normalisation: with few steps an epoch, Keras's 0.99 lags behind the weights for epochs


def inception(x: KerasTensor, name: str, plan: tuple[int, ...], pointwise: int = 1) -> KerasTensor:
    """An inception module (Szegedy et al. 2015, arXiv 1409.4842).

    ``plan`` gives the filters of 1×1, 3×3 reduce, 3×3, 5×5 reduce, 5×5 and pool projection; ``pointwise``: the side
    of the kernels that are 1×1 in the paper.
    """

    def conv(y: KerasTensor, filters: int, size: int, branch: str) -> KerasTensor:
        return Conv2D(filters, size, padding="same", activation="relu", name=f"{name}_{branch}")(y)

    one, reduce3, three, reduce5, five, projection = plan
    branches = [
        conv(x, one, pointwise, "1x1"),
        conv(conv(x, reduce3, pointwise, "3x3_reduce"), three, 3, "3x3"),
        conv(conv(x, reduce5, pointwise, "5x5_reduce"), five, 5, "5x5"),
        conv(MaxPooling2D(3, 1, padding="same", name=f"{name}_pool")(x), projection, pointwise, "projection"),
    ]
    return Concatenate(name=f"{name}_concat")(branches)


def googlenet_body(
    x: KerasTensor,
    stem: tuple[int, int, int],
    plans: Mapping[str, tuple[int, ...]],
    padding: str = "same",
    pointwise: int = 1,
) -> dict[str, KerasTensor]:
    """Stem and inception modules; the output of every module and pooling by its name (``"3a"``, ``"pool3"``).

    ``stem``: filters of the 7×7, the 1×1 and the 3×3 convolution (0: none); ``plans`` and ``pointwise``: see
    :func:`inception`; ``padding`` of the poolings that halve the map.
    """

    def conv(y: KerasTensor, filters: int, size: int, name: str, stride: int = 1) -> KerasTensor:
        return Conv2D(filters, size, strides=stride, padding="same", activation="relu", name=name)(y)

    def pool(y: KerasTensor, number: int) -> KerasTensor:
        return MaxPooling2D(3, 2, padding=padding, name=f"pool{number}")(y)

    x = pool(conv(x, stem[0], 7, "conv1", stride=2), 1)
    x = conv(x, stem[1], pointwise, "conv2_reduce")
    x = pool(conv(x, stem[2], 3, "conv2") if stem[2] else x, 2)
    outputs = {}
    for name, plan in plans.items():
        outputs[name] = x = inception(x, f"inception_{name}", plan, pointwise)
        if name in ("3b", "4e"):
            outputs[f"pool{name[0]}"] = x = pool(x, int(name[0]))
    return outputs


def auxiliary_head(x: KerasTensor, classes: int, name: str) -> KerasTensor:
    """GoogLeNet's classifier half-way: 5×5 average pooling by 3, 1×1 convolution, Dense 1024, dropout, softmax.

    On maps smaller than 5×5 the pooling takes the whole map.
    """
    size = min(5, x.shape[1])
    x = AveragePooling2D(size, 3, name=f"{name}_pool")(x)
    x = Conv2D(128, 1, activation="relu", name=f"{name}_conv")(x)
    x = Dense(1024, activation="relu", name=f"{name}_dense")(Flatten(name=f"{name}_flatten")(x))
    return Dense(classes, activation="softmax", name=name)(Dropout(0.7, name=f"{name}_dropout")(x))


def vgg_blocks(x: KerasTensor, blocks: tuple[tuple[int, ...], ...], regularizer: object = None) -> KerasTensor:
    """Blocks of 3×3 convolutions, each ended by max pooling (Simonyan and Zisserman 2015, arXiv 1409.1556)."""
    for block, widths in enumerate(blocks, start=1):
        for number, filters in enumerate(widths, start=1):
            x = Conv2D(
                filters,
                3,
                padding="same",
                activation="relu",
                kernel_regularizer=regularizer,
                name=f"block{block}_conv{number}",
            )(x)
        x = MaxPooling2D(2, name=f"block{block}_pool")(x)
    return x


def pooled_head(x: KerasTensor, classes: int, units: tuple[int, ...], dropout: float) -> KerasTensor:
    """Global average pooling, dense layers, dropout, softmax."""
    x = GlobalAveragePooling2D(name="average")(x)
    for number, width in enumerate(units, start=1):
        x = Dense(width, activation="relu", name="dense" if len(units) == 1 else f"dense{number}")(x)
    if dropout:
        x = Dropout(dropout, name="dropout")(x)
    return Dense(classes, activation="softmax", name="softmax")(x)


def dense_head(
    x: KerasTensor, classes: int, units: tuple[int, ...], dropout: float, final: str, activation: str = "relu"
) -> KerasTensor:
    """Flatten and dense layers, each followed by dropout if there is any; ``final`` activates the output."""
    x = Flatten(name="flatten")(x)
    for number, width in enumerate(units, start=1):
        x = Dense(width, activation=activation, name=f"dense{number}")(x)
        if dropout:
            x = Dropout(dropout, name=f"dropout{number}")(x)
    return Dense(classes, activation=final, name=final)(x)


def residual_unit(x: KerasTensor, filters: int, name: str, skip: bool = True) -> KerasTensor:
    """A pre-activation unit: BN, ReLU, 3×3, BN, ReLU, 3×3, plus its input (He et al. 2016, arXiv 1603.05027).

    Where the number of filters changes, the input passes a 1×1 convolution. Without ``skip`` nothing is added.
    """
    y = x
    for number in (1, 2):
        y = BatchNormalization(momentum=MOMENTUM, name=f"{name}_norm{number}")(y)
        y = Activation("relu", name=f"{name}_relu{number}")(y)
        y = Conv2D(filters, 3, padding="same", name=f"{name}_conv{number}")(y)
    if not skip:
        return y
    if x.shape[-1] != filters:
        x = Conv2D(filters, 1, name=f"{name}_projection")(x)
    return Add(name=f"{name}_add")([x, y])


def separable_unit(x: KerasTensor, filters: int, stride: int, name: str) -> KerasTensor:
    """A depthwise 3×3 and a 1×1 convolution, each with BN and ReLU (Howard et al. 2017, arXiv 1704.04861)."""
    x = DepthwiseConv2D(3, stride, padding="same", use_bias=False, name=f"{name}_depthwise")(x)
    x = BatchNormalization(momentum=MOMENTUM, name=f"{name}_norm1")(x)
    x = Activation("relu", name=f"{name}_relu1")(x)
    x = Conv2D(filters, 1, use_bias=False, name=f"{name}_pointwise")(x)
    x = BatchNormalization(momentum=MOMENTUM, name=f"{name}_norm2")(x)
    return Activation("relu", name=f"{name}_relu2")(x)
