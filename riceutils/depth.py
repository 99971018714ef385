"""Plain and residual networks by depth: training, gradients and variance along the layers.

Charts are ``(figure, table)``, as in :mod:`riceutils.plots`; :func:`reference` displays.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import keras
import numpy as np
import pandas as pd
import tensorflow as tf

from riceutils import background, charts, page, training
from riceutils.data import Splits
from riceutils.plots import PALETTE, Chart, figure
from riceutils.runs import Run

IMAGES = 64  # of the training set, on which gradients and variances are measured
SCALES = {"gradient": "norm of the kernel's gradient", "variance": "variance behind the unit, mean of the channels"}


def along(model: keras.Model, inputs: np.ndarray, onehot: np.ndarray) -> pd.DataFrame:
    """A row per convolution of a ``resnet_preact_small``, projections left out: layer, number, gradient, variance.

    ``inputs`` as the network takes them, ``onehot`` (N, classes). Batch normalisation runs as in training, with the
    batch's own mean and variance: on its moving values an untrained network would not be normalised at all.
    ``gradient``: norm of the loss's gradient for the kernel; ``variance``: of what leaves the first convolution, or a
    unit (behind the addition, if there is one), over images and places, mean of the channels; missing inside a unit.
    """
    names = {layer.name for layer in model.layers}
    layers = [x for x in model.layers if isinstance(x, keras.layers.Conv2D) and not x.name.endswith("projection")]
    sums = [layer.name.replace("conv2", "add") for layer in layers]
    ends = [model.get_layer(after if after in names else x.name) for after, x in zip(sums, layers, strict=True)]
    network = keras.Model(model.input, [model.output, *(layer.output for layer in ends)])
    with tf.GradientTape() as tape:
        probabilities, *outputs = network(inputs, training=True)
        loss = tf.reduce_mean(keras.losses.categorical_crossentropy(onehot, probabilities))
    norms = [float(tf.norm(g)) for g in tape.gradient(loss, [layer.kernel.value for layer in layers])]
    spread = [float(np.asarray(output).var(axis=(0, 1, 2)).mean()) for output in outputs]
    table = pd.DataFrame({"layer": [x.name for x in layers], "number": range(1, len(layers) + 1), "gradient": norms})
    return table.assign(variance=np.where([x.name.endswith("conv1") for x in layers], np.nan, spread))


def measure(runs: Mapping[str, Run], splits: Splits) -> pd.DataFrame:
    """:func:`along` of runs by name, on training images: ``training, moment`` (start or end), and its columns."""
    rows = splits.train.evenly(IMAGES)
    tables = []
    for name, run in runs.items():
        probe = splits.train.arrays(rows, run.spec.preprocessing)
        for moment, model in (("start", training.new_model(run.spec)), ("end", run.model())):
            tables.append(along(model, *probe).assign(training=name, moment=moment))
    return pd.concat(tables, ignore_index=True)[["training", "moment", "layer", "number", "gradient", "variance"]]


def lines(table: pd.DataFrame, quantity: str) -> Chart:
    """``gradient`` or ``variance`` of :func:`measure` along the convolutions, before and after training; log axis."""
    canvas, axes = figure(3.8, 1, 2, sharey=True)
    names = list(dict.fromkeys(table["training"]))
    for axis, moment in zip(axes[0], ("start", "end"), strict=True):
        for name in names:
            rows = table[(table["training"] == name) & (table["moment"] == moment)].dropna(subset=quantity)
            color, style = PALETTE[1 if name.startswith("residual") else 0], "o-" if name in names[-2:] else "o--"
            axis.plot(rows["number"], rows[quantity], style, ms=3, linewidth=1.2, color=color, label=name)
        axis.set(yscale="log", xlabel="convolution, counted from the image")
        axis.set_title({"start": "before training", "end": "after training"}[moment], fontsize=10)
    axes[0, 0].set_ylabel(SCALES[quantity], fontsize=9)
    canvas.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=8)
    return canvas, table


def reference() -> None:
    """Display curves of the plain and residual trainings on real images, and name those not trained yet."""
    wanted = [name for name in background.declared() if name.startswith(("plain_", "residual_"))]
    wanted.sort(key=lambda name: (int(name.split("_")[1]), name))  # the order, and so the colours, of the build's
    found = {name: runs for name in wanted if (runs := background.committed(name))}
    if len(found) < len(wanted):
        page.note("no_reference", model=", ".join(name for name in wanted if name not in found))
    if found:
        page.chart(*charts.histories(found))
        page.table(results(found))


def results(groups: Mapping[str, Sequence[Run]]) -> pd.DataFrame:
    """Of each group of runs (seeds), what the last epoch reached on the training images, and the clean test accuracy.

    Means over the seeds. Degradation shows in the training loss: a network that overfits has a lower one.
    """
    rows = []
    for name, runs in groups.items():
        last = pd.DataFrame([run.history.iloc[-1] for run in runs]).mean()
        clean = float(np.mean([run.accuracy().value for run in runs]))
        own = (runs[0].record["parameters"], len(runs), int(last["epoch"]), last["loss"], last["accuracy"], clean)
        rows.append((name, *own))
    names = ["training", "parameters", "seeds", "epochs", "training loss", "training accuracy", "clean accuracy"]
    return pd.DataFrame(rows, columns=names)
