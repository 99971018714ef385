"""Which channels of a functional Keras model belong together, who makes them and who reads them.

A channel is born in a Conv2D or Dense layer and lives on through layers that treat every channel by itself. An Add
ties the channels of its inputs to each other, a Concatenate puts them side by side, a Flatten spreads each over the
positions of its map. Channels that are tied can only be removed together: they are one group here.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

import keras
import numpy as np

MAKERS = ("Conv2D", "Dense")
MERGES = ("Add", "Multiply", "Average", "Maximum", "Subtract")
ONE_BY_ONE = (  # each channel by itself
    "BatchNormalization", "Activation", "ReLU", "LeakyReLU", "ELU", "Dropout", "SpatialDropout2D", "Rescaling",
    "MaxPooling2D", "AveragePooling2D", "GlobalAveragePooling2D", "GlobalMaxPooling2D", "ZeroPadding2D", "Cropping2D",
    "UpSampling2D", "Identity",
)  # fmt: skip
SUPPORTED = ("InputLayer", *MAKERS, *MERGES, *ONE_BY_ONE, "DepthwiseConv2D", "Concatenate", "Flatten")


class UnsupportedLayer(ValueError):
    """A layer's channels can't be followed; the message names it and what would be needed."""


@dataclass(frozen=True)
class Channels:
    """The groups of the channels of ``model``, a copy of what was followed whose layers serve no other graph.

    ``inputs`` and ``outputs`` give, by layer name, the group of every channel that the layer reads (an array for each
    of its inputs) and puts out. ``fixed`` holds the groups that must stay: the image's channels, the model's outputs,
    and what a softmax compares. ``makers`` and ``readers`` give (layer, channel or feature) by group.
    """

    model: keras.Model
    inputs: dict[str, list[np.ndarray]]
    outputs: dict[str, np.ndarray]
    fixed: frozenset[int]
    makers: dict[int, list[tuple[str, int]]] = field(repr=False)
    readers: dict[int, list[tuple[str, int]]] = field(repr=False)

    @property
    def removable(self) -> list[int]:
        """Groups that may go, in the order in which the model computes them."""
        return [group for group in self.makers if group not in self.fixed]

    def group(self, layer: str, channel: int) -> int:
        """Group of a maker's output channel. Raises ``ValueError`` for a layer or channel that there is not."""
        if layer not in self.outputs or type(self.model.get_layer(layer)).__name__ not in MAKERS:
            raise ValueError(f"{self.model.name} has no convolution or dense layer {layer!r}.")
        if not 0 <= channel < len(self.outputs[layer]):
            raise ValueError(f"{layer} has no channel {channel}; its channels are 0 to {len(self.outputs[layer]) - 1}.")
        return int(self.outputs[layer][channel])


def follow(model: keras.Model) -> Channels:
    """Follow every channel through ``model``; raises :class:`UnsupportedLayer` naming the first layer that can't be."""
    model = functional(model)
    for layer in model.operations:  # what can't be cloned either is named first
        _known(layer)
    fresh = _copy(model)
    parents: list[int] = []

    def new(number: int) -> np.ndarray:
        parents.extend(range(len(parents), len(parents) + number))
        return np.arange(len(parents) - number, len(parents))

    def find(group: int) -> int:
        while parents[group] != group:
            parents[group] = parents[parents[group]]
            group = parents[group]
        return group

    tensors: dict[int, np.ndarray] = {}
    inputs: dict[str, list[np.ndarray]] = {}
    outputs: dict[str, np.ndarray] = {}
    kept: list[np.ndarray] = []
    for layer in fresh.operations:
        _check(layer)
        kind = type(layer).__name__
        given = [] if kind == "InputLayer" else [tensors[id(tensor)] for tensor in keras.tree.flatten(layer.input)]
        if kind == "InputLayer" or kind in MAKERS:
            groups = new(layer.output.shape[-1])
        elif kind in MERGES:
            groups = np.broadcast_arrays(*given)[0]
            for other in given[1:]:
                for first, second in zip(groups, other, strict=True):
                    parents[find(int(second))] = find(int(first))
        elif kind == "Concatenate":
            groups = np.concatenate(given)
        elif kind == "DepthwiseConv2D":
            groups = np.repeat(given[0], layer.depth_multiplier)
        elif kind == "Flatten":
            groups = np.tile(given[0], int(np.prod(layer.input.shape[1:-1])))
        else:
            groups = given[0]
        if kind == "InputLayer" or "softmax" in getattr(getattr(layer, "activation", None), "__name__", ""):
            kept.append(groups)
        tensors[id(layer.output)] = groups
        if kind != "InputLayer":
            inputs[layer.name], outputs[layer.name] = given, groups
    kept += [tensors[id(tensor)] for tensor in fresh.outputs]

    roots = np.array([find(group) for group in range(len(parents))])
    inputs = {name: [roots[groups] for groups in given] for name, given in inputs.items()}
    outputs = {name: roots[groups] for name, groups in outputs.items()}
    makers: dict[int, list[tuple[str, int]]] = defaultdict(list)
    readers: dict[int, list[tuple[str, int]]] = defaultdict(list)
    for layer in fresh.operations:
        if type(layer).__name__ in MAKERS:
            for channel, group in enumerate(outputs[layer.name]):
                makers[int(group)].append((layer.name, channel))
            for feature, group in enumerate(inputs[layer.name][0]):
                readers[int(group)].append((layer.name, feature))
    fixed = frozenset(int(group) for groups in kept for group in roots[groups])
    return Channels(fresh, inputs, outputs, fixed, dict(makers), dict(readers))


def functional(model: keras.Model) -> keras.Model:
    """``model`` as a graph: a built Sequential becomes one of the same layers. Raises :class:`UnsupportedLayer` for
    what is no graph, and for images of unknown size."""
    if isinstance(model, keras.Sequential) and model.built:
        model = keras.Model(model.inputs, model.outputs, name=model.name)
    if not hasattr(model, "operations") or not getattr(model, "_is_graph_network", True) or not model.inputs:
        raise UnsupportedLayer(f"{model.name} is not a functional model. Build it with keras.Model(inputs, outputs).")
    for tensor in model.inputs:
        if None in tensor.shape[1:]:
            raise UnsupportedLayer(f"{model.name} takes images of unknown size {tensor.shape}; fix the input shape.")
    return model


def _copy(model: keras.Model) -> keras.Model:
    """The same model of new layers, its inputs' names and its weights kept."""
    own = [
        keras.Input(batch_shape=tensor.shape, dtype=tensor.dtype, name=tensor._keras_history.operation.name)
        for tensor in model.inputs
    ]
    try:
        fresh = keras.models.clone_model(model, input_tensors=keras.tree.pack_sequence_as(model.input, own))
    except TypeError as error:  # a function of the user's own
        way = "Register its own functions with keras.saving.register_keras_serializable()"
        raise UnsupportedLayer(f"{model.name} can't be copied ({str(error).splitlines()[0]}). {way}.") from error
    fresh.set_weights(model.get_weights())
    return fresh


def _known(layer: keras.Layer) -> None:
    kind, name = type(layer).__name__, layer.name
    if kind not in SUPPORTED:
        raise UnsupportedLayer(f"Layer {name!r} is a {kind}; known are {', '.join(SUPPORTED)}.")
    if not isinstance(layer, keras.layers.Layer):
        raise UnsupportedLayer(f"{name!r} is written as an operation; use keras.layers.{kind}() instead.")


def _check(layer: keras.Layer) -> None:
    kind, name = type(layer).__name__, layer.name
    if kind == "InputLayer":
        return
    if len(layer._inbound_nodes) > 1:
        raise UnsupportedLayer(f"Layer {name!r} is used more than once. Give each use a layer of its own.")
    if getattr(layer, "data_format", "channels_last") != "channels_last":
        raise UnsupportedLayer(f"Layer {name!r} has its channels first; channels_last is needed.")
    if kind == "Conv2D" and layer.groups != 1:
        raise UnsupportedLayer(f"Layer {name!r} is a convolution in {layer.groups} groups; one group is needed.")
    shapes = [tensor.shape for tensor in keras.tree.flatten(layer.input)]
    if kind in MERGES and len({shape[-1] for shape in shapes}) > 1:
        raise UnsupportedLayer(f"Layer {name!r} merges inputs of different channels: {shapes}.")
    if kind in ("Concatenate", "BatchNormalization") and layer.axis not in (-1, len(shapes[0]) - 1):
        raise UnsupportedLayer(f"Layer {name!r} works along axis {layer.axis}; the last one, channels, is needed.")
    if kind == "Rescaling" and np.ndim(layer.scale) + np.ndim(layer.offset):
        raise UnsupportedLayer(f"Layer {name!r} scales every channel differently; one scale and offset is needed.")
    if getattr(getattr(layer, "activation", None), "__name__", "") == "glu":
        raise UnsupportedLayer(f"Layer {name!r} halves its channels by glu; an activation of single values is needed.")
    if not hasattr(getattr(layer, "activation", None), "__name__") and hasattr(layer, "activation"):
        raise UnsupportedLayer(f"Layer {name!r} has a layer as its activation. Put that layer behind it instead.")
