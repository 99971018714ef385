"""What designs cost, from shapes alone: receptive fields, weights, FLOPs (a multiply-add is 2), where they sit."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Mapping
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from riceutils import flops, models
from riceutils.models.blocks import auxiliary_head

if TYPE_CHECKING:
    import keras

STACKS = {"3×3": (3,), "two 3×3": (3, 3), "5×5": (5,), "three 3×3": (3, 3, 3), "7×7": (7,)}


def receptive_field(layers: Iterable[tuple[int, int]]) -> int:
    """Side, in pixels of the input, of the square that one output place sees through (kernel, stride) layers in order.

    Every layer adds kernel - 1 steps; a step is the product of the strides before it. Raises ``ValueError`` for a
    kernel or stride below 1.
    """
    side = step = 1
    for kernel, stride in layers:
        if kernel < 1 or stride < 1:
            raise ValueError(f"Kernel {kernel} with stride {stride}; both must be at least 1.")
        side += (kernel - 1) * step
        step *= stride
    return side


def paths(kernels: Iterable[int]) -> np.ndarray:
    """In how many ways each input pixel reaches one output place through convolutions of stride 1: integers (S, S).

    With all weights 1, this is the gradient of the output with respect to the input.
    """
    line = np.ones(1, int)
    for kernel in kernels:
        line = np.convolve(line, np.ones(kernel, int))
    return np.outer(line, line)


def stacks(channels: int = 1) -> pd.DataFrame:
    """One and several 3×3 convolutions against larger ones, ``channels`` in and out of every layer.

    Columns: design, receptive field (side), weights, parameters (with biases), FLOPs per place of the output map,
    nonlinearities (a ReLU behind every layer).
    """
    rows = []
    for name, kernels in STACKS.items():
        weights, biases = sum(k * k for k in kernels) * channels**2, len(kernels) * channels
        counts = (weights, weights + biases, 2 * weights + biases, len(kernels))
        rows.append((name, receptive_field((k, 1) for k in kernels), *counts))
    names = ["design", "receptive field", "weights", "parameters", "FLOPs per place", "nonlinearities"]
    return pd.DataFrame(rows, columns=names)


def growth(model: keras.Model) -> pd.DataFrame:
    """The receptive field (side in pixels) behind each convolution and pooling of ``model``, the widest where branches
    meet; ``number``: how many such layers an image has passed."""
    behind: dict[int, tuple[int, int, int]] = {}  # by tensor: side, step, layers passed
    rows = []
    for layer in model.layers:
        if len(layer.output.shape) != 4:  # from here on, everything is seen
            continue
        inputs = layer.input if isinstance(layer.input, list) else [layer.input]
        side, step, number = max((behind[id(tensor)] for tensor in inputs), default=(1, 1, 0))
        kernel = getattr(layer, "kernel_size", None) or getattr(layer, "pool_size", None)
        if kernel:
            side, step, number = side + (kernel[0] - 1) * step, step * layer.strides[0], number + 1
            rows.append((layer.name, number, side))
        behind[id(layer.output)] = (side, step, number)
    return pd.DataFrame(rows, columns=["layer", "number", "receptive field"])


def sides(cases: Iterable[tuple[int, str]]) -> pd.DataFrame:
    """Side of the map that AlexNet's 11×11 by 4 makes of square images, as Keras has it, by (image size, padding)."""
    import keras

    layer = {kind: keras.layers.Conv2D(1, 11, strides=4, padding=kind) for kind in ("valid", "same")}
    rows = [(size, kind, layer[kind].compute_output_shape((1, size, size, 3))[1]) for size, kind in cases]
    return pd.DataFrame(rows, columns=["image size", "padding", "side"])


def first_layers(model: keras.Model, choices: Iterable[tuple[int, int]]) -> pd.DataFrame:
    """What another first convolution, by (kernel, stride), would cost ``model`` in place of its own, without padding.

    Columns: kernel, stride, output shape, parameters, FLOPs, and the receptive field of the last map, all layers
    behind the first one being as they are.
    """
    import keras

    first = next(layer for layer in model.layers if hasattr(layer, "kernel"))
    behind = growth(model)["receptive field"].iloc[-1]
    further = (behind - first.kernel_size[0]) // first.strides[0]  # steps of the first map
    rows = []
    for kernel, stride in choices:
        layer = keras.layers.Conv2D(first.filters, kernel, strides=stride)
        spent = flops.count(keras.Sequential([keras.Input(model.input_shape[1:]), layer])).by_layer.iloc[-1]
        cost = (spent["output shape"], spent["parameters"], spent["FLOPs"])
        rows.append((f"{kernel}×{kernel}", stride, *cost, kernel + stride * further))
    names = ["kernel", "stride", "output shape", "parameters", "FLOPs", "receptive field"]
    return pd.DataFrame(rows, columns=names)


@cache
def parts(model: str, classes: int | None = None) -> pd.DataFrame:
    """Where ``model`` (a registry name, at its own input size) keeps parameters and FLOPs.

    A row per block of VGG, stage of inception modules, single convolution or dense layer. Columns: model, part, kind
    (convolution, dense layer, auxiliary head, other), parameters, FLOPs, and of both the share of the whole.
    """
    table = flops.count(models.build(model, classes=classes)).by_layer  # the network itself is not kept: it is big
    table["part"] = [re.sub(r"^(block\d|inception_\d|head_[^_]+).*", r"\1", name) for name in table["layer"]]
    kinds = table["type"].map({"Dense": "dense layer"}).fillna("convolution").mask(table["parameters"] == 0, "other")
    table["kind"] = kinds.mask(table["layer"].str.startswith("head_"), "auxiliary head")
    small = (table["kind"] == "other") & (table["part"] == table["layer"])  # single poolings, flatten, dropout
    table["part"] = table["part"].mask(small, "other")
    found = table.groupby("part", sort=False).agg({"kind": "first", "parameters": "sum", "FLOPs": "sum"}).reset_index()
    for name in ("parameters", "FLOPs"):
        found[f"share of {name}"] = found[name] / found[name].sum()
    found.insert(0, "model", model)
    return found[found["parameters"] + found["FLOPs"] > 0].reset_index(drop=True)


def sizes(networks: Mapping[str, keras.Model], published: pd.Series | None = None) -> pd.DataFrame:
    """A row per network: parameters and FLOPs at its own input size, beside the count that a source prints.

    ``published``: these counts by name, as far as there are any; without it there is no such column.
    """
    rows = [(name, network.count_params(), flops.count(network).total) for name, network in networks.items()]
    table = pd.DataFrame(rows, columns=["model", "parameters", "FLOPs"])
    if published is not None:
        table.insert(1, "published", [f"{published[name]:,.0f}" if name in published else "" for name in networks])
    return table


def balance(names: Iterable[str], classes: int | None = None) -> pd.DataFrame:
    """A row per model: its parameters, those in convolutions and in dense layers, and the dense layers' shares."""
    rows = []
    for name in names:
        table = parts(name, classes)
        dense, convolutions = table[table["kind"] == "dense layer"], table[table["kind"] == "convolution"]
        counts = (table["parameters"].sum(), convolutions["parameters"].sum(), dense["parameters"].sum())
        rows.append((name, *counts, dense["share of parameters"].sum(), dense["share of FLOPs"].sum()))
    shares = ["dense layers, share of parameters", "dense layers, share of FLOPs"]
    return pd.DataFrame(rows, columns=["model", "parameters", "in convolutions", "in dense layers", *shares])


def reduction(model: keras.Model) -> pd.DataFrame:
    """Every 3×3 and 5×5 branch of ``model``'s inception modules with its 1×1 reduction, and if it had none.

    Columns: layer, input channels, reduced to, parameters, parameters without, FLOPs, FLOPs without (its reduction),
    FLOPs saved in %.
    """
    counted, rows = flops.count(model).by_layer.set_index("layer"), []
    for layer in model.layers:
        if not re.fullmatch(r"inception_\w+_reduce", layer.name):
            continue
        own = model.get_layer(layer.name.removesuffix("_reduce"))
        channels, (height, width, filters) = layer.input.shape[-1], own.output.shape[1:]
        weights = own.kernel_size[0] * own.kernel_size[1] * channels * filters
        parameters, spent = (int(counted.loc[[layer.name, own.name], name].sum()) for name in ("parameters", "FLOPs"))
        without = height * width * (2 * weights + filters)
        saved = 100 * (1 - spent / without)
        rows.append((own.name, channels, layer.filters, parameters, weights + filters, spent, without, saved))
    names = ["layer", "input channels", "reduced to", "parameters", "parameters without", "FLOPs", "FLOPs without"]
    return pd.DataFrame(rows, columns=[*names, "FLOPs saved, %"])


def mlp_layers(channels: int = 128) -> pd.DataFrame:
    """What two 1×1 layers behind a k×k convolution cost (network in network), all ``channels`` wide: weights."""
    kernels = np.array([3, 5, 7, 11])
    size, added = kernels**2 * channels**2, 2 * channels**2
    table = pd.DataFrame({"kernel": [f"{k}×{k}" for k in kernels], "weights": size, "weights of both 1×1": added})
    return table.assign(**{"added, %": 100 * added / size})


def auxiliary(classes: int = 10) -> pd.DataFrame:
    """Parameters of the Case study's GoogLeNet without heads, with two, and with the third that it leaves unused."""
    import keras

    model = models.build("googlenet_aux", classes=classes)
    third = auxiliary_head(model.get_layer("inception_4e_concat").output, classes, "head_4e")
    outputs = [*model.outputs, third]
    counts = [keras.Model(model.input, outputs[: n + 1]).count_params() for n in (0, 2, 3)]
    return pd.DataFrame({"heads": (0, 2, 3), "parameters": counts, "in heads": np.array(counts) - counts[0]})


def refusal() -> str:
    """Keras's answer to ``VGG16(include_top=True, weights="imagenet", classes=10)`` (Case study): type and message."""
    from keras import applications

    try:
        applications.VGG16(include_top=True, weights="imagenet", classes=10)  # refused before anything is downloaded
    except ValueError as error:
        return textwrap.fill(f"{type(error).__name__}: {error}", 90)
    return "accepted"
