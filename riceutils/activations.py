"""What the filters of a network do: how often they are exactly zero, on all pixels and on the grain."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from riceutils.grains import LUMA, THRESHOLD
from riceutils.models import pretrained

if TYPE_CHECKING:
    import keras

BATCH = 16


def convolutions(model: keras.Model) -> list[keras.Layer]:
    """The convolution layers of ``model``, in order of computation."""
    import keras

    return [layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D)]


def _carriers(model: keras.Model) -> dict[str, keras.Layer]:
    """The layer whose output tells whether a convolution's filters fire: itself, or the activation right after it,
    with or without a batch normalisation between."""
    found = {layer.name: layer for layer in convolutions(model)}
    passed = dict.fromkeys(found, "")  # the layer that each filter's output has reached
    passed |= {name: name for name, layer in found.items() if layer.activation.__name__ == "linear"}
    for layer in model.layers:
        if type(layer).__name__ in ("BatchNormalization", "Activation", "ReLU"):
            before = layer.input._keras_history.operation.name
            for name, reached in passed.items():
                if reached == before:
                    ends = type(layer).__name__ != "BatchNormalization"
                    passed[name] = "" if ends else layer.name
                    if ends:
                        found[name] = layer
    return found


def maps(
    model: keras.Model, images: np.ndarray, layers: list[str] | None = None, preprocessing: str = "rgb"
) -> dict[str, np.ndarray]:
    """Outputs of convolution layers for uint8 ``images`` (N, H, W, 3): name → float32 (N, h, w, filters)."""
    import keras

    chosen = [layer for layer in convolutions(model) if layers is None or layer.name in layers]
    network = keras.Model(model.input, [layer.output for layer in chosen])
    outputs = network(pretrained.preprocess(images, preprocessing), training=False)
    outputs = outputs if isinstance(outputs, list) else [outputs]
    return {layer.name: np.asarray(output) for layer, output in zip(chosen, outputs, strict=True)}


def measure(model: keras.Model, images: np.ndarray, preprocessing: str = "rgb") -> pd.DataFrame:
    """Measure every convolution filter on uint8 ``images`` (N, H, W, 3), in one streaming pass.

    A row per filter: ``layer``, ``filter``, ``apoz`` (share of exactly zero outputs: Average Percentage of Zeros,
    Hu et al. 2016, arXiv 1607.03250; after the activation, where that is a layer of its own), ``apoz_grain`` (the
    same over grain pixels only), ``fires`` (share of images with at least one output above zero), ``maximum``
    (largest output). A pixel of a map belongs to the grain if at least half of the image area that it stands for has
    a grey value over 20.
    """
    import keras
    import tensorflow as tf

    layers = _carriers(model)
    network = keras.Model(model.input, [layer.output for layer in layers.values()])

    @tf.function(reduce_retracing=True)
    def statistics(batch: tf.Tensor) -> list[list[tf.Tensor]]:
        pixels = tf.cast(batch, tf.float32)
        grey = tf.tensordot(pixels, tf.constant(LUMA), 1)[..., None]
        mask = tf.cast(grey > THRESHOLD, tf.float32)
        outputs = network(pretrained.preprocess(batch, preprocessing), training=False)
        results = []
        for output in outputs if isinstance(outputs, list) else [outputs]:
            zero = tf.cast(tf.equal(output, 0.0), tf.float32)
            grain = tf.cast(tf.image.resize(mask, output.shape[1:3], method="area") >= 0.5, tf.float32)
            largest = tf.reduce_max(output, axis=(1, 2))
            results.append(
                [
                    tf.reduce_sum(tf.reduce_mean(zero, axis=(1, 2)), axis=0),
                    tf.reduce_sum(zero * grain, axis=(0, 1, 2)),
                    tf.reduce_sum(grain),
                    tf.reduce_sum(tf.cast(largest > 0, tf.float32), axis=0),
                    tf.reduce_max(largest, axis=0),
                ]
            )
        return results

    sums: list[list[np.ndarray]] = []
    for start in range(0, len(images), BATCH):
        batch = [[np.asarray(v, np.float64) for v in layer] for layer in statistics(images[start : start + BATCH])]
        sums = batch if not sums else [[*(a + b for a, b in zip(s[:4], t[:4], strict=True)), np.maximum(s[4], t[4])]
                                       for s, t in zip(sums, batch, strict=True)]  # fmt: skip
    tables = [
        pd.DataFrame(
            {
                "layer": name,
                "filter": range(len(zero)),
                "apoz": zero / len(images),
                "apoz_grain": zero_grain / np.maximum(grain, 1),
                "fires": fires / len(images),
                "maximum": maximum,
            }
        )
        for name, (zero, zero_grain, grain, fires, maximum) in zip(layers, sums, strict=True)
    ]
    return pd.concat(tables, ignore_index=True)


def summary(filters: pd.DataFrame) -> pd.DataFrame:
    """Per layer: filters, filters that never fire, and mean APoZ over all pixels and over grain pixels."""
    grouped = filters.groupby("layer", sort=False)
    return pd.DataFrame(
        {
            "filters": grouped.size(),
            "never fire": grouped["fires"].agg(lambda share: int((share == 0).sum())),
            "APoZ": grouped["apoz"].mean(),
            "APoZ on grain": grouped["apoz_grain"].mean(),
        }
    ).reset_index()
