"""Building the smaller model: what a plan takes away is gone, and what stays keeps its weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import pandas as pd

from riceutils.channels import MAKERS, Channels, follow


def apply(model: keras.Model, plan: pd.DataFrame) -> keras.Model:
    """A new model without the channels of ``plan``, the weights of the others carried over.

    Raises ``UnsupportedLayer`` or ``ValueError``, naming the layer, before anything is cut: a layer or channel that
    there is not, one that must stay (the model's outputs), or a layer that would lose its last channel.
    """
    channels = follow(model)
    gone: dict[int, dict[str, dict[int, float]]] = {}
    for layer, channel, constants in plan[["layer", "channel", "constants"]].itertuples(index=False):
        group = channels.group(layer, int(channel))
        if group in channels.fixed:
            raise ValueError(f"Channel {channel} of {layer} must stay: it is tied to the model's input or output.")
        gone[group] = dict(constants or {})
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
    slim: dict[str, keras.Layer] = {}
    for old in template.operations:
        name, kind = old.name, type(old).__name__
        if kind == "InputLayer":
            made[id(old.output)] = keras.Input(old.output.shape[1:], dtype=old.output.dtype)
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
        merged = kind == "Concatenate" or len(keras.tree.flatten(old.input)) > 1
        made[id(old.output)] = layer(given if merged else given[0])
        slim[name] = layer
    result = keras.Model(
        [made[id(tensor)] for tensor in template.inputs] if len(template.inputs) > 1 else made[id(template.inputs[0])],
        [made[id(tensor)] for tensor in template.outputs]
        if len(template.outputs) > 1
        else made[id(template.outputs[0])],
        name=model.name,
    )
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
        seen = kernel[..., feature, :].reshape(-1, kernel.shape[-1]).sum(axis=0)
        bias = bias + (value * seen[out]).astype(bias.dtype)
    return [kernel[..., into, :][..., out], *([bias] if new.use_bias else [])]
