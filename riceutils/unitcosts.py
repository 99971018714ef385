"""What bottlenecks and depthwise-separable units save, and why few FLOPs do not mean little time.

Charts are ``(figure, table)``, as in :mod:`riceutils.plots`.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from itertools import pairwise

import keras
import numpy as np
import pandas as pd
import tensorflow as tf

from riceutils import flops, models, runs
from riceutils.plots import PALETTE, Chart, figure
from riceutils.runs import Run

BATCHES = (1, 16)  # images at a time


def bottleneck(channels: int = 256, narrow: int = 64, side: int = 56) -> Chart:
    """FLOPs, layer by layer, of a unit of two 3×3 and of a bottleneck (1×1, 3×3, 1×1), without and with a skip.

    ``channels`` enter and leave, ``narrow`` pass inside the bottleneck, on maps of ``side``²: by default those of
    ResNet-50's first stage (He et al. 2016, table 1). No bias, as batch normalisation follows. A row per layer.
    """
    plans = {"3×3, 3×3": [(channels, 3)] * 2, "1×1, 3×3, 1×1": [(narrow, 1), (narrow, 3), (channels, 1)]}
    tables = []
    for unit, plan in plans.items():
        for skip in ("no", "yes"):
            x = image = keras.Input((side, side, channels))
            for number, (filters, size) in enumerate(plan, start=1):
                name = f"conv{number}_{size}x{size}"
                x = keras.layers.Conv2D(filters, size, padding="same", use_bias=False, name=name)(x)
            x = keras.layers.Add(name="add")([image, x]) if skip == "yes" else x
            table = flops.count(keras.Model(image, x)).by_layer.drop(columns=["type", "share"])
            tables.append(table[table["FLOPs"] > 0].assign(unit=unit, skip=skip))
    canvas, axes = figure(2.6)
    axis = axes[0, 0]
    for row, table in enumerate(tables):
        cost = table["FLOPs"] / 1e6
        axis.barh(row, cost, left=cost.cumsum() - cost, color=PALETTE[: len(cost)], edgecolor="w")
        text = f"{cost.sum():,.1f} MFLOPs, {table['parameters'].sum():,} weights"
        axis.annotate(text, (cost.sum(), row), (5, 0), textcoords="offset points", va="center", fontsize=8)
    names = [f"{table['unit'].iloc[0]}, {'with' if table['skip'].iloc[0] == 'yes' else 'no'} skip" for table in tables]
    axis.set(yticks=range(len(tables)), yticklabels=names, xlabel="MFLOPs, a colour per layer")
    axis.margins(x=0.3)
    axis.invert_yaxis()
    columns = ["unit", "skip", "layer", "output shape", "parameters", "FLOPs"]
    return canvas, pd.concat(tables, ignore_index=True)[columns]


def separable(model: keras.Model) -> Chart:
    """FLOPs of each depthwise convolution with the 1×1 behind it, beside a plain convolution that does their work.

    A row per unit: layer, filters, kernel, standard and separable FLOPs, ratio, and its formula 1/N + 1/k² for N
    filters and a k×k kernel (Howard et al. 2017), which holds exactly without bias.
    """
    counted = flops.count(model).by_layer.set_index("layer")["FLOPs"]
    kinds = keras.layers.Conv2D | keras.layers.DepthwiseConv2D
    convolutions = [layer for layer in model.layers if isinstance(layer, kinds)]
    rows = []
    for depthwise, pointwise in pairwise(convolutions):
        if not isinstance(depthwise, keras.layers.DepthwiseConv2D):
            continue
        height, width, filters = pointwise.output.shape[1:]
        size, channels = depthwise.kernel_size[0], depthwise.input.shape[-1]
        standard = 2 * size**2 * channels * filters * height * width
        separable = int(counted[depthwise.name] + counted[pointwise.name])
        name = depthwise.name.removesuffix("_depthwise")
        rows.append(
            (name, channels, filters, size, standard, separable, separable / standard, 1 / filters + 1 / size**2)
        )
    names = ["layer", "channels", "filters", "kernel", "standard FLOPs", "separable FLOPs", "ratio", "1/N + 1/k²"]
    table = pd.DataFrame(rows, columns=names)
    canvas, axes = figure(3.4, 1, 2)
    left, right = axes[0]
    place, limit = np.arange(len(table)), 1 / table["kernel"].iloc[0] ** 2
    for shift, kind, color in ((-0.2, "standard", PALETTE[1]), (0.2, "separable", PALETTE[0])):
        bars = left.bar(place + shift, table[f"{kind} FLOPs"] / 1e6, 0.38, color=color, label=kind)
        left.bar_label(bars, fmt="%.1f", fontsize=8, padding=2)
    left.set(xticks=place, xticklabels=table["layer"], ylabel="MFLOPs per image")
    left.margins(y=0.12)
    left.legend(fontsize=8)
    many = np.geomspace(8, 1024, 100)
    right.plot(many, 1 / many + limit, color="0.5", linewidth=1, label="1/N + 1/k²")
    right.axhline(limit, color="0.7", linewidth=1, linestyle=":", label="1/k²")
    right.plot(table["filters"], table["ratio"], "o", color=PALETTE[0], label=f"units of {model.name}")
    right.set(xscale="log", xlabel="N, filters of the unit (log)", ylabel="separable / standard FLOPs", ylim=(0, None))
    right.legend(fontsize=8)
    return canvas, table


def latency(names: Sequence[str], rounds: int = 7) -> Chart:
    """Median milliseconds per image, one at a time and ``BATCHES[1]`` together, at 224×224 on all cores.

    Networks with fresh weights, which cost the same as trained ones; they take turns, so that whatever else the
    machine does falls on all alike. ``FLOPs`` are those of one image, ``GFLOP/s`` how many of them a second saw.
    """
    noise = np.random.default_rng(0).random((max(BATCHES), 224, 224, 3), np.float32)
    built = {name: models.build(name, (224, 224, 3)) for name in names}
    calls = {name: tf.function(lambda x, model=model: model(x, training=False)) for name, model in built.items()}
    passes: dict[tuple[str, int], list[float]] = {(name, batch): [] for name in names for batch in BATCHES}
    for _ in range(rounds + 1):  # the first is warm-up
        for (name, batch), seconds in passes.items():
            images = tf.constant(noise[:batch])
            start = time.perf_counter()
            calls[name](images).numpy()
            seconds.append(time.perf_counter() - start)
    total = {name: flops.count(model).total for name, model in built.items()}
    rows = [(name, total[name], batch, 1000 * float(np.median(t[1:])) / batch) for (name, batch), t in passes.items()]
    table = pd.DataFrame(rows, columns=["model", "FLOPs", "batch size", "median, ms"])
    table["GFLOP/s"] = table["FLOPs"] / table["median, ms"] / 1e6
    canvas, axes = figure(4.2)
    axis = axes[0, 0]
    for batch, face in zip(BATCHES, ("none", PALETTE[0]), strict=True):
        part = table[table["batch size"] == batch]
        axis.plot(part["FLOPs"], part["median, ms"], "o", color=PALETTE[0], mfc=face, label=f"batch of {batch}")
    for name, part in table.groupby("model"):
        axis.plot(part["FLOPs"], part["median, ms"], color="0.8", linewidth=1, zorder=1)
        axis.annotate(name, (part["FLOPs"].iloc[0], part["median, ms"].max()), (0, 6), textcoords="offset points",
                      ha="center", fontsize=8)  # fmt: skip
    axis.set(xscale="log", yscale="log", xlabel="FLOPs per image (log)", ylabel="ms per image, median (log)")
    axis.margins(0.12)
    (left, right), (_, top) = axis.get_xlim(), axis.get_ylim()
    axis.autoscale(False)
    for speed in (1, 10, 100):
        x = np.array([left, min(right, top * speed * 1e6)])  # a line ends at the right edge or at the upper one
        axis.plot(x, x / speed / 1e6, ":", color="0.6", linewidth=1, zorder=0)
        axis.annotate(f"{speed} GFLOP/s", (x[1], x[1] / speed / 1e6), (-6, -6), textcoords="offset points",
                      ha="left" if x[1] < right else "right", va="top", fontsize=7, color="0.45")  # fmt: skip
    axis.legend(fontsize=8)
    return canvas, table


def recorded(overview: pd.DataFrame, built: Mapping[str, Run]) -> pd.DataFrame:
    """A row per model of ``overview`` (see :func:`riceutils.ledger.overview`): parameters, FLOPs, the reference's
    accuracies (lowest seed), and the milliseconds per image that the records of the reference result and of this
    build's run hold, each at its own image size."""
    table = overview.drop_duplicates("model")[["model", "parameters", "FLOPs"]].dropna().sort_values("FLOPs")
    table = table.astype({"parameters": int, "FLOPs": int})
    found = [runs.reference(model) for model in table["model"]]
    for which in ("clean", "perturbed"):
        table[which] = [run.accuracy(which).value if run else float("nan") for run in found]
    table["reference, ms"] = [_milliseconds(run) for run in found]
    table["this build, ms"] = [_milliseconds(built.get(model)) for model in table["model"]]
    return table


def _milliseconds(run: Run | None) -> float:
    return float("nan") if run is None else 1000 * run.record["seconds"]["test_per_image"]
