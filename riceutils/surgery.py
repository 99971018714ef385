"""Building the smaller model: what a plan takes away is gone, and what stays keeps its weights."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import pandas as pd

from riceutils.channels import MAKERS, MERGES, Channels, follow


def apply(model: keras.Model, plan: pd.DataFrame) -> keras.Model:
    """A new model without the channels of ``plan``, the weights of the others carried over.

    The plan may have gone through a CSV file. Inputs keep their names, several outputs their structure.
    Raises ``UnsupportedLayer`` or ``ValueError``, naming the layer, before anything is cut: a layer or channel that
    there is not, one that must stay (the model's outputs), or a layer that would lose its last channel.
    """
    channels = follow(model)
    gone: dict[int, dict[str, dict[int, float]]] = {}
    for layer, channel, constants in plan[["layer", "channel", "constants"]].itertuples(index=False):
        group = channels.group(layer, int(channel))
        if group in channels.fixed:
            raise ValueError(f"Channel {channel} of {layer} must stay: it is tied to the model's input or output.")
        text = constants if isinstance(constants, str) else ""  # of a CSV file; an empty cell comes back as NaN
        gone[group] = dict(constants) if isinstance(constants, Mapping) else ast.literal_eval(text or "{}")
    folded: dict[str, dict[int, float]] = {}
    for constants in gone.values():
        for reader, values in constants.items():
            folded.setdefault(reader, {}).update(values)
    return rebuild(channels, set(gone), folded, weights=True)


def rebuild(
    channels: Channels,
    gone: set[int],
    folded: Mapping[str, Mapping[int, float]] | None = None,
    *,
    weights: bool = False,
) -> keras.Model:
    """The model without the groups ``gone``, with the weights of ``channels.model`` or fresh ones."""
    model = channels.model
    kept_in = {
        name: [np.array([int(g) not in gone for g in groups], bool) for groups in given]
        for name, given in channels.inputs.items()
    }
    kept_out = {
        name: np.array([int(group) not in gone for group in groups], bool) for name, groups in channels.outputs.items()
    }
    template = keras.models.clone_model(model)
    made: dict[int, Any] = {}
    for own, tensor in zip(model.inputs, template.inputs, strict=True):  # a clone names its inputs anew
        made[id(tensor)] = keras.Input(own.shape[1:], dtype=own.dtype, name=own._keras_history.operation.name)
    for old in template.operations:
        name, kind = old.name, type(old).__name__
        if kind == "InputLayer":
            continue
        given = [made.get(id(tensor)) for tensor in keras.tree.flatten(old.input)]
        if not kept_out[name].any():
            continue  # nothing of it is left: so are the layers of its branch
        if kind in MAKERS and given[0] is None:
            raise ValueError(f"{name} would lose all of its inputs. Keep a channel of the layer before it.")
        given = [tensor for tensor in given if tensor is not None]
        settings = old.get_config()
        for size in ("filters", "units"):
            if size in settings:
                settings[size] = int(kept_out[name].sum())
        if (folded or {}).get(name) and not settings["use_bias"]:
            settings["use_bias"] = True
        layer = type(old).from_config(settings)
        if kind == "Concatenate" and len(given) == 1:
            made[id(old.output)] = given[0]
            continue
        merged = kind in ("Concatenate", *MERGES)
        how = old._inbound_nodes[0].arguments.kwargs  # such as training=False
        made[id(old.output)] = layer(given if merged else given[0], **how)
    sides = ((model.input, template.inputs), (model.output, template.outputs))
    ends = [keras.tree.pack_sequence_as(own, [made[id(tensor)] for tensor in tensors]) for own, tensors in sides]
    result = keras.Model(*ends, name=model.name)
    for layer in result.layers:
        if not layer.weights:
            continue
        old = model.get_layer(layer.name)
        layer.trainable = old.trainable
        if weights:
            layer.set_weights(
                _cut(old, kept_in[layer.name][0], kept_out[layer.name], (folded or {}).get(layer.name, {}), layer)
            )
    return result


def _cut(
    old: keras.Layer, into: np.ndarray, out: np.ndarray, constants: Mapping[int, float], new: keras.Layer
) -> list[np.ndarray]:
    """Weights of ``old`` for the channels that stay."""
    kind, arrays = type(old).__name__, [np.asarray(array) for array in old.get_weights()]
    if kind == "BatchNormalization":
        return [array[out] for array in arrays]
    if kind == "DepthwiseConv2D":
        return [arrays[0][:, :, into], *(array[out] for array in arrays[1:])]
    kernel = arrays[0]
    bias = arrays[1][out] if old.use_bias else np.zeros(int(out.sum()), kernel.dtype)
    for feature, value in constants.items():
        seen = kernel[..., feature, :].astype(np.float32).reshape(-1, kernel.shape[-1]).sum(axis=0)
        bias = bias + (value * seen[out]).astype(bias.dtype)
    return [kernel[..., into, :][..., out], *([bias] if new.use_bias else [])]


def fold(model: keras.Model) -> keras.Model:
    """A new model with the same outputs whose batch normalisations are folded into the linear layers before them.

    At inference a normalisation multiplies every channel by one number and adds another; after a Conv2D,
    DepthwiseConv2D or Dense layer without activation, both disappear in its kernel and bias. Others stay. Raises
    ``UnsupportedLayer`` for models that :func:`riceutils.channels.follow` can't follow.
    """
    model = follow(model).model
    template = keras.models.clone_model(model)
    operations = [layer for layer in template.operations if type(layer).__name__ != "InputLayer"]
    read = [tensor for layer in operations for tensor in keras.tree.flatten(layer.input)]
    uses = Counter(id(tensor) for tensor in [*read, *template.outputs])
    linear = {
        id(layer.output): layer.name
        for layer in operations
        if type(layer).__name__ in (*MAKERS, "DepthwiseConv2D") and layer.activation.__name__ == "linear"
    }
    norms = {
        linear[id(layer.input)]: layer.name
        for layer in operations
        if type(layer).__name__ == "BatchNormalization" and uses[id(layer.input)] == 1 and id(layer.input) in linear
    }

    def biased(layer: keras.Layer) -> keras.Layer:
        return type(layer).from_config(layer.get_config() | ({"use_bias": True} if layer.name in norms else {}))

    def passed(layer: keras.Layer, *inputs: keras.KerasTensor, **options: Any) -> keras.KerasTensor:
        return inputs[0] if layer.name in norms.values() else layer(*inputs, **options)

    result = keras.models.clone_model(template, clone_function=biased, call_function=passed)
    for layer in result.layers:
        if layer.weights:
            old = model.get_layer(layer.name)
            norm = model.get_layer(norms[layer.name]) if layer.name in norms else None
            layer.set_weights(_folded(old, norm) if norm else old.get_weights())
    return result


def _folded(layer: keras.Layer, norm: keras.Layer) -> list[np.ndarray]:
    kernel, *bias = (np.asarray(array) for array in layer.get_weights())
    mean, variance = np.asarray(norm.moving_mean), np.asarray(norm.moving_variance)
    factor = 1 / np.sqrt(variance + norm.epsilon)
    factor = factor * np.asarray(norm.gamma) if norm.scale else factor
    shift = (bias[0] if bias else 0) - mean
    offset = shift * factor + (np.asarray(norm.beta) if norm.center else 0)
    depthwise = type(layer).__name__ == "DepthwiseConv2D"
    return [kernel * (factor.reshape(kernel.shape[2:]) if depthwise else factor), offset]
