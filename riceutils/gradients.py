"""Signs of a training that does not learn: its loss, its layers, its gradients."""

from __future__ import annotations

import keras
import numpy as np
import pandas as pd
import tensorflow as tf

TOLERANCE = 0.01  # of ln C: how near to guessing counts as guessing
LEFT = 0.1  # of ln C: a loss so far below guessing has left it


def stuck(history: pd.DataFrame, classes: int, epochs: int = 2) -> bool:
    """Whether a training does no better than guessing: its last ``epochs`` losses are within 1 % of ln ``classes``.

    ``history``: a row per epoch with ``loss`` and, where there is one, ``val_loss``, which then decides: dropout and
    the moving weights blur the loss in training. The classes are taken to be equally frequent. Raises ``ValueError``
    for an empty history or fewer than two classes.
    """
    if history.empty or classes < 2:
        raise ValueError("Needs one epoch or more, and two classes or more.")
    losses = history["val_loss" if "val_loss" in history else "loss"].tail(epochs)
    return bool(np.all(np.abs(losses / np.log(classes) - 1) <= TOLERANCE))


def _gradients(model: keras.Model, images: np.ndarray, onehot: np.ndarray) -> list[np.ndarray]:
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(keras.losses.categorical_crossentropy(onehot, model(images, training=False)))
    variables = [variable.value for variable in model.trainable_variables]
    return [np.asarray(g) for g in tape.gradient(loss, variables, unconnected_gradients="zero")]


def gradient_share(model: keras.Model, images: np.ndarray, onehot: np.ndarray) -> float:
    """Share in [0, 1] of the gradient on which the classes agree below the output layer; near 0 when stuck.

    ``images`` float32 (N, H, W, 3) in [0, 1], ``onehot`` (N, classes); ten images of each class are enough. With the
    mean gradient g_c of each class, the share is ‖mean of g_c‖² over the layers below the output, divided by the
    mean of ‖g_c‖² over all layers; by Jensen's inequality it is at most 1.

    Both ways of being stuck bring it to 0. In a dead network, whose last features are exactly zero, nothing reaches
    the layers below. In one whose features are alive but hardly differ between images, every class pulls on the same
    weights in its own direction, and with equal classes Σ (p - y) = 0, so that the pulls cancel. A share of the
    plain gradient norm would miss the second: there, the lower layers receive more than half of it.

    NaN where no layer below the output is trained. Raises ``ValueError`` without images.
    """
    if not len(images):
        raise ValueError("No images to measure the gradient on.")
    own = {id(variable) for variable in model.layers[-1].trainable_variables}
    below = [id(variable) not in own for variable in model.trainable_variables]
    if not any(below):
        return float("nan")
    kinds = onehot.argmax(axis=1)
    each = [_gradients(model, images[kinds == kind], onehot[kinds == kind]) for kind in np.unique(kinds)]
    means = [np.mean(arrays, axis=0) for arrays in zip(*each, strict=True)]
    agreed = sum(float(np.sum(mean**2)) for mean, lower in zip(means, below, strict=True) if lower)
    whole = np.mean([sum(float(np.sum(g**2)) for g in gradients) for gradients in each])
    return float(agreed / whole) if whole > 0 else 0.0


def features(model: keras.Model, images: np.ndarray) -> np.ndarray:
    """What the output layer sees of float ``images`` (N, H, W, 3): float32 (N, features)."""
    return np.asarray(keras.Model(model.input, model.layers[-1].input)(images, training=False))


def state(history: pd.DataFrame, classes: int, seen: np.ndarray) -> str:
    """``diverged``: the loss is no number; ``alive``: it has left ln ``classes`` downwards, by a tenth or more.

    Otherwise ``dead`` if all ``seen`` :func:`features` are exactly zero, whatever the bias makes of the loss;
    ``vanished`` if they are not and it is :func:`stuck` all the same; ``unsettled`` if its loss is elsewhere.
    """
    last = history.iloc[-1]
    if not np.isfinite(last["loss"]):
        return "diverged"
    if last["val_loss" if "val_loss" in history else "loss"] < (1 - LEFT) * np.log(classes):
        return "alive"
    return "dead" if not np.any(seen) else "vanished" if stuck(history, classes) else "unsettled"


def diagnose(model: keras.Model, images: np.ndarray, onehot: np.ndarray) -> pd.DataFrame:
    """A row per convolution and dense layer; ``images`` float32 (N, H, W, 3) in [0, 1], ``onehot`` (N, classes).

    ``zeros``: share of outputs after ReLU that are exactly zero, where ReLU' is zero too; ``open``: 1 - zeros, the
    share of the ReLU mask that lets a gradient pass; ``shut``: share of filters or units that are zero at all places
    of all images; ``std`` of the outputs over everything, ``spread`` over the images alone (root mean square over
    places and filters); ``gradient``: norm of the kernel's gradient; ``zero gradients``: share of its entries that are
    exactly zero. A softmax has no mask: its first three are missing. Raises ``ValueError`` without images.
    """
    if not len(images):
        raise ValueError("No images to diagnose the network with.")
    names = {layer.name for layer in model.layers}
    layers = [layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D | keras.layers.Dense)]
    active = [model.get_layer(f"{layer.name}_relu") if f"{layer.name}_relu" in names else layer for layer in layers]
    outputs = keras.Model(model.input, [layer.output for layer in active])(images, training=False)
    variables = [id(variable) for variable in model.trainable_variables]
    gradients = dict(zip(variables, _gradients(model, images, onehot), strict=True))
    rows = []
    for layer, last, output in zip(layers, active, outputs if len(layers) > 1 else [outputs], strict=True):
        values, gradient = np.asarray(output), gradients.get(id(layer.kernel))
        zero = values == 0
        masked = last.activation is keras.activations.relu
        mask = (zero.mean(), 1 - zero.mean(), zero.all(axis=tuple(range(zero.ndim - 1))).mean()) if masked else ()
        own = (np.linalg.norm(gradient), np.mean(gradient == 0)) if gradient is not None else (np.nan, np.nan)
        spread = np.sqrt(values.var(axis=0).mean())
        rows.append((layer.name, *(mask or (np.nan,) * 3), values.std(), spread, *own))
    names_of = ["layer", "zeros", "open", "shut", "std", "spread", "gradient", "zero gradients"]
    return pd.DataFrame(rows, columns=names_of)


def by_output(model: keras.Model, images: np.ndarray, onehot: np.ndarray) -> pd.DataFrame:
    """Which output teaches which layer: norms of every kernel's gradient, arguments as in :func:`diagnose`.

    A row per convolution and dense layer, a column per output of ``model`` (its layer's name) for that output's
    cross-entropy alone; 0 where it does not depend on the layer. ``all``: of their sum, where those after the first
    count with ``model.weight``, as :class:`riceutils.models.classics.Supervised` trains. Dropout is off.
    """
    network, names = keras.Model(model.input, model.outputs), list(model.output_names)
    layers = [layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D | keras.layers.Dense)]
    with tf.GradientTape(persistent=True) as tape:
        outputs = network(images, training=False)
        outputs = outputs if isinstance(outputs, list | tuple) else [outputs]
        losses = [tf.reduce_mean(keras.losses.categorical_crossentropy(onehot, output)) for output in outputs]
        losses.append(losses[0] + getattr(model, "weight", 1.0) * sum(losses[1:]))
    kernels = [layer.kernel.value for layer in layers]
    columns = {
        name: [float(tf.norm(g)) for g in tape.gradient(loss, kernels, unconnected_gradients="zero")]
        for name, loss in zip([*names, "all"], losses, strict=True)
    }
    return pd.DataFrame({"layer": [layer.name for layer in layers], **columns})
