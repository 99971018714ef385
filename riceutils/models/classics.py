"""Architectures that the study stands on, as its sources teach them, and what this book sets beside them.

Counts that a source prints are in ``classics.csv``; those derived here say so.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import Input, KerasTensor, Model
from keras.applications import VGG19, MobileNetV3Small
from keras.layers import (
    AveragePooling2D,
    BatchNormalization,
    Conv2D,
    Dense,
    Flatten,
    MaxPooling2D,
    Resizing,
    ZeroPadding2D,
)
from keras.regularizers import L2

from riceutils.models import register
from riceutils.models.blocks import (
    MOMENTUM,
    auxiliary_head,
    dense_head,
    googlenet_body,
    pooled_head,
    residual_unit,
    separable_unit,
    vgg_blocks,
)
from riceutils.models.study import GOOGLENET, Shape

VGG16_BLOCKS = ((64,) * 2, (128,) * 2, (256,) * 3, (512,) * 3, (512,) * 3)
VGG19_BLOCKS = ((64,) * 2, (128,) * 2, (256,) * 4, (512,) * 4, (512,) * 4)


@register("lenet5", input_shape=(32, 32, 1), classes=10)
def lenet5(input_shape: Shape, classes: int) -> Model:
    """LeNet-5 (LeCun et al. 1998) with ReLU and softmax: 61,706 parameters (Algorithms)."""
    x = inputs = Input(input_shape, name="image")
    for number, filters in enumerate((6, 16), start=1):
        x = Conv2D(filters, 5, activation="relu", name=f"conv{number}")(x)
        x = AveragePooling2D(2, name=f"pool{number}")(x)
    x = Conv2D(120, 5, activation="relu", name="conv3")(x)
    return Model(inputs, dense_head(x, classes, (84,), 0, "softmax"))


@register("lenet_20_50", input_shape=(28, 28, 1), classes=10)
def lenet_20_50(input_shape: Shape, classes: int) -> Model:
    """A wider LeNet with max pooling: 431,080 parameters (Case study)."""
    x = inputs = Input(input_shape, name="image")
    for number, filters in enumerate((20, 50), start=1):
        x = Conv2D(filters, 5, activation="relu", name=f"conv{number}")(x)
        x = MaxPooling2D(2, name=f"pool{number}")(x)
    return Model(inputs, dense_head(x, classes, (500,), 0, "softmax"))


@register("alexnet_valid", classes=10)
def alexnet_valid(input_shape: Shape, classes: int) -> Model:
    """AlexNet (Krizhevsky et al. 2012) without padding, pooled behind convolutions 2, 3 and 5, not 1, 2, 5.

    24,767,882 parameters (Algorithms).
    """
    inputs = Input(input_shape, name="image")
    x = Conv2D(96, 11, strides=4, activation="relu", name="conv1")(inputs)
    for number, (filters, size) in enumerate(((256, 5), (384, 3), (384, 3), (256, 3)), start=2):
        x = Conv2D(filters, size, activation="relu", name=f"conv{number}")(x)
        if number != 4:
            x = MaxPooling2D(3, 2, name=f"pool{number}")(x)
    return Model(inputs, dense_head(x, classes, (4096, 4096), 0.5, "softmax"))


@register("alexnet_bn", classes=1)
def alexnet_bn(input_shape: Shape, classes: int) -> Model:
    """AlexNet with padding and batch normalisation (Case study); a single sigmoid there, softmax for more classes.

    46,752,513 parameters, 704 of them not trainable, with one output; derived.
    """
    inputs = Input(input_shape, name="image")
    x = Conv2D(96, 11, strides=4, activation="relu", name="conv1")(inputs)
    x = BatchNormalization(momentum=MOMENTUM, name="norm1")(MaxPooling2D(3, 2, name="pool1")(x))
    x = Conv2D(256, 5, activation="relu", name="conv2")(ZeroPadding2D(2, name="pad2")(x))
    x = BatchNormalization(momentum=MOMENTUM, name="norm2")(MaxPooling2D(3, 2, name="pool2")(x))
    for number, filters in enumerate((384, 384, 256), start=3):
        x = Conv2D(filters, 3, activation="relu", name=f"conv{number}")(ZeroPadding2D(1, name=f"pad{number}")(x))
    x = MaxPooling2D(3, 2, name="pool5")(x)
    return Model(inputs, dense_head(x, classes, (4096, 4096), 0.5, "sigmoid" if classes == 1 else "softmax"))


@register("alexnet_small", input_shape=(64, 64, 3), classes=10)
def alexnet_small(
    input_shape: Shape, classes: int, activation: str = "relu", overlapping: bool = True, dropout: float = 0.5
) -> Model:
    """AlexNet's plan in small, to try its ideas one by one: first kernel 5×5/2, a quarter of the filters, padding.

    ``activation`` by its Keras name; ``overlapping``: 3×3 pooling by 2, else 2×2. Counts derived here.
    """

    def pool(y: KerasTensor, number: int) -> KerasTensor:
        return MaxPooling2D(3 if overlapping else 2, 2, padding="same", name=f"pool{number}")(y)

    inputs = Input(input_shape, name="image")
    x = pool(Conv2D(24, 5, strides=2, padding="same", activation=activation, name="conv1")(inputs), 1)
    x = pool(Conv2D(64, 5, padding="same", activation=activation, name="conv2")(x), 2)
    for number, filters in enumerate((96, 96, 64), start=3):
        x = Conv2D(filters, 3, padding="same", activation=activation, name=f"conv{number}")(x)
    return Model(inputs, dense_head(pool(x, 5), classes, (256, 256), dropout, "softmax", activation))


@register("vgg16_fc", classes=10)
def vgg16_fc(input_shape: Shape, classes: int) -> Model:
    """VGG16 with its dense top: 134,301,514 parameters for ten classes (Case study; derived)."""
    inputs = Input(input_shape, name="image")
    return Model(inputs, dense_head(vgg_blocks(inputs, VGG16_BLOCKS), classes, (4096, 4096), 0, "softmax"))


@register("vgg19_l2_dropout", classes=10)
def vgg19_l2_dropout(input_shape: Shape, classes: int) -> Model:
    """VGG19 with weight decay and dropout: 139,611,210 parameters (Algorithms).

    The factor of the decay is not stated there; 5e-4 is that of the paper (arXiv 1409.1556).
    """
    inputs = Input(input_shape, name="image")
    x = vgg_blocks(inputs, VGG19_BLOCKS, L2(5e-4))
    return Model(inputs, dense_head(x, classes, (4096, 4096), 0.5, "softmax"))


@register("vgg19_imagenet_notop", classes=0)
def vgg19_imagenet_notop(input_shape: Shape, classes: int) -> Model:
    """Keras's VGG19 without top, 20,024,384 parameters (Algorithms); its outputs are maps, whatever ``classes`` is."""
    return VGG19(include_top=False, weights=None, input_shape=input_shape)


class Supervised(Model):
    """A network whose auxiliary heads take part in training only (Szegedy et al. 2015, section 5).

    Of its outputs the first is the network's; the losses of the others are added with ``weight``.
    """

    weight = 0.3

    def call(self, inputs: Any, training: bool = False, mask: Any = None) -> Any:
        outputs = super().call(inputs, training=training)
        return outputs if training else outputs[0]

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> Any:
        main, *heads = y_pred if isinstance(y_pred, list | tuple) else [y_pred]
        loss = super().compute_loss(x, y, main, sample_weight, training)
        for head in heads:
            loss += self.weight * keras.ops.mean(keras.losses.categorical_crossentropy(y, head))
        return loss

    def compute_metrics(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> dict[str, Any]:
        main = y_pred[0] if isinstance(y_pred, list | tuple) else y_pred
        return super().compute_metrics(x, y, main, sample_weight)


@register("googlenet_aux", input_shape=(32, 32, 3), classes=10)
def googlenet_aux(input_shape: Shape, classes: int) -> Model:
    """GoogLeNet with two auxiliary heads as in the Case study: 8,248,366 parameters (derived).

    Images are enlarged to 224×224 inside; there is no 3×3 convolution in the stem, 3b is narrower, and the poolings
    are not padded.
    """
    inputs = Input(input_shape, name="image")
    plans = GOOGLENET | {"3b": (128, 128, 192, 32, 32, 32)}
    outputs = googlenet_body(Resizing(224, 224, name="resize")(inputs), (64, 64, 0), plans, "valid")
    main = pooled_head(outputs["5b"], classes, (), 0.4)
    heads = [auxiliary_head(outputs[tap], classes, f"head_{tap}") for tap in ("pool3", "4b")]
    return Supervised(inputs, [main, *heads])


@register("googlenet_aux_corrected")
def googlenet_aux_corrected(input_shape: Shape, classes: int) -> Model:
    """The study's GoogLeNet with the paper's two auxiliary heads, after 4a and 4d; counts derived here."""
    inputs = Input(input_shape, name="image")
    outputs = googlenet_body(inputs, (64, 64, 192), GOOGLENET)
    main = pooled_head(outputs["5b"], classes, (), 0.4)
    return Supervised(inputs, [main, *(auxiliary_head(outputs[tap], classes, f"head_{tap}") for tap in ("4a", "4d"))])


@register("resnet_preact_small", input_shape=(28, 28, 1), classes=10)
def resnet_preact_small(input_shape: Shape, classes: int, units: int = 2, skip: bool = True) -> Model:
    """A small pre-activation ResNet: convolution of 8, stages of 16, 32 and 64, Dense 128 (Case study).

    ``units`` in each stage: the convolutions number 1 + 6 × ``units``. Without ``skip`` it is its plain twin, with
    the same convolutions in a row. Counts derived here.
    """
    x = inputs = Input(input_shape, name="image")
    x = Conv2D(8, 3, padding="same", name="conv")(x)
    for stage, filters in enumerate((16, 32, 64), start=1):
        for unit in range(1, units + 1):
            x = residual_unit(x, filters, f"stage{stage}_unit{unit}", skip)
        x = MaxPooling2D(2, name=f"pool{stage}")(x)
    x = Dense(128, activation="relu", name="dense")(Flatten(name="flatten")(x))
    return Model(inputs, Dense(classes, activation="softmax", name="softmax")(x))


@register("mobilenet_small")
def mobilenet_small(input_shape: Shape, classes: int) -> Model:
    """A MobileNet (Howard et al. 2017) as light as the study's Final Model: a strided convolution of 16 filters and
    depthwise-separable units of 24, 32, 32, 64 and 64. Counts derived here."""
    x = inputs = Input(input_shape, name="image")
    x = Conv2D(16, 3, strides=2, padding="same", activation="relu", name="conv")(x)
    for number, (filters, stride) in enumerate(((24, 2), (32, 2), (32, 1), (64, 2), (64, 1)), start=1):
        x = separable_unit(x, filters, stride, f"unit{number}")
    return Model(inputs, pooled_head(x, classes, (), 0.2))


@register("mobilenetv3_small")
def mobilenetv3_small(input_shape: Shape, classes: int) -> Model:
    """Keras's MobileNetV3Small (Howard et al. 2019) without weights, with a pooled head: the comparison that the
    Draft planned and left empty. Counts derived here."""
    inputs = Input(input_shape, name="image")
    network = MobileNetV3Small(include_top=False, weights=None, input_tensor=inputs, include_preprocessing=False)
    for layer in network.layers:
        if isinstance(layer, BatchNormalization):
            layer.momentum = MOMENTUM
    return Model(inputs, pooled_head(network.output, classes, (), 0.2))
