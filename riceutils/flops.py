"""Floating-point operations of a forward pass, by formula and by TensorFlow's profiler.

Convention: one multiply-add is two FLOPs, batch size 1. Counted as TensorFlow's profiler counts: convolutions,
dense layers, their biases, pooling, global average pooling, batch normalisation, softmax and residual additions;
ReLU, sigmoid and tanh, concatenation, dropout (idle at inference), padding and enlarging count nothing.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

import pandas as pd

if TYPE_CHECKING:
    import keras

_FREE = [
    "InputLayer", "Dropout", "Flatten", "Concatenate", "ReLU", "ZeroPadding2D", "Cropping2D", "Reshape", "Resizing",
    "UpSampling2D", "GlobalMaxPooling2D", "SpatialDropout2D", "Identity", "LeakyReLU", "ELU",
]  # fmt: skip
# Per value, as TensorFlow counts. Softmax: subtract the maximum, exponential, sum, divide.
_ACTIVATIONS = {
    "linear": 0, "relu": 0, "relu6": 0, "leaky_relu": 0, "elu": 0, "selu": 0, "sigmoid": 0, "tanh": 0, "softplus": 0,
    "softsign": 0, "exponential": 0,
    "softmax": 5, "silu": 2, "hard_sigmoid": 2, "hard_silu": 3, "hard_tanh": 2, "gelu": 4, "mish": 1,
}  # fmt: skip
CONVENTION = "1 multiply-add = 2 FLOPs; batch 1; bias, pooling, normalisation and softmax included, ReLU not"


@dataclass(frozen=True)
class Report:
    """``total`` FLOPs per image; ``by_layer``: layer, type, output shape, parameters, FLOPs and share of the total."""

    total: int
    by_layer: pd.DataFrame
    convention: str = CONVENTION


def count(model: keras.Model) -> Report:
    """Count the FLOPs of ``model`` for one image, layer by layer, from shapes alone.

    Raises ``ValueError`` naming the layer whose type has no formula, or that is used more than once.
    """
    rows = [
        (layer.name, type(layer).__name__, layer.output.shape[1:], _parameters(layer), _layer_flops(layer))
        for layer in _layers(model)
    ]
    table = pd.DataFrame(rows, columns=["layer", "type", "output shape", "parameters", "FLOPs"])
    total = int(table["FLOPs"].sum())
    table["share"] = table["FLOPs"] / max(total, 1)
    return Report(total, table)


def _layers(model: keras.Model) -> list[keras.Layer]:
    import keras

    flat: list[keras.Layer] = []
    nodes = getattr(model, "_nodes_by_depth", {}).values()  # of this graph; a layer may have more, in other models
    uses = Counter(id(node.operation) for level in nodes for node in level)
    for layer in getattr(model, "operations", model.layers):  # sums and products written as such are no layers
        if uses[id(layer)] > 1:
            raise ValueError(f"Layer {layer.name!r} is used more than once. Use flops.profile instead.")
        flat.extend(_layers(layer) if isinstance(layer, keras.Model) else [layer])
    return flat


def _parameters(layer: keras.Layer) -> int:
    return layer.count_params() if hasattr(layer, "count_params") else 0


def _layer_flops(layer: keras.Layer) -> int:
    kind = type(layer).__name__
    if kind in _FREE:
        return 0
    out = prod(layer.output.shape[1:])
    if kind == "DepthwiseConv2D":
        operations = 2 * prod(layer.kernel_size) * out + layer.use_bias * out
        return operations + _activation_flops(layer, out)
    if kind == "SeparableConv2D":
        middle = out // layer.filters * layer.input.shape[-1] * layer.depth_multiplier
        operations = 2 * prod(layer.kernel_size) * middle + 2 * middle * layer.filters + layer.use_bias * out
        return operations + _activation_flops(layer, out)
    if kind == "BatchNormalization":  # y = a·x + b; a and b are made from the channel's four numbers
        return 2 * out + (5 + layer.scale) * layer.output.shape[-1]
    if kind == "Rescaling":
        return 2 * out
    if kind == "Normalization":  # subtract the mean, divide by the root of the variance, kept above zero
        return 2 * out + layer.output.shape[-1]
    if kind == "Activation":
        return _activation_flops(layer, out)
    if kind == "Conv2D":
        operations = 2 * prod(layer.kernel_size) * (layer.input.shape[-1] // layer.groups) * out + layer.use_bias * out
        return operations + _activation_flops(layer, out)
    if kind == "Dense":
        return 2 * layer.input.shape[-1] * out + layer.use_bias * out + _activation_flops(layer, out)
    if kind in ("MaxPooling2D", "AveragePooling2D"):
        return prod(layer.pool_size) * out
    if kind == "GlobalAveragePooling2D":
        return prod(layer.input.shape[1:])
    inputs = layer.input if isinstance(layer.input, list) else [layer.input]
    if kind in ("Add", "Multiply", "Subtract", "Maximum"):  # of several inputs, or of one and a constant (MobileNetV3)
        return max(len(inputs) - 1, 1) * out
    if kind == "Average":
        return len(inputs) * out
    if kind == "CustomScaleLayer":  # InceptionResNetV2's: a + scale × b
        return 2 * out
    raise ValueError(f"No FLOPs formula for layer {layer.name!r} of type {kind}. Use flops.profile instead.")


def _activation_flops(layer: keras.Layer, out: int) -> int:
    name = getattr(layer.activation, "__name__", "")
    if name in _ACTIVATIONS:
        return _ACTIVATIONS[name] * out
    raise ValueError(f"No FLOPs formula for activation {name!r} of layer {layer.name!r}. Use flops.profile instead.")


def profile(model: keras.Model) -> int:
    """FLOPs of one image by TensorFlow's profiler over the frozen inference graph (exact, slow)."""
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2_as_graph

    signature = tf.TensorSpec((1, *model.input_shape[1:]), tf.float32)
    concrete = tf.function(lambda x: model(x, training=False)).get_concrete_function(signature)
    _, graph_def = convert_variables_to_constants_v2_as_graph(concrete)
    with tf.Graph().as_default() as graph:
        tf.graph_util.import_graph_def(graph_def, name="")
        options = tf.compat.v1.profiler.ProfileOptionBuilder.float_operation()
        options["output"] = "none"
        return int(tf.compat.v1.profiler.profile(graph, options=options).total_float_ops)
