"""What the filters of a network do: how often they fire, how strongly, on which pixels, and which do the same."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from riceutils import evaluation
from riceutils.grains import LUMA, THRESHOLD
from riceutils.models import pretrained

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

BATCH = 16
SAMPLE = 10_000  # outputs of a filter that its 99th percentile is taken from
COLUMNS = (
    "layer", "filter", "apoz", "apoz_grain", "fires", "maximum", "mean", "mean_grain", "p99", "p99_grain", "redundancy",
    "nearest",
)  # fmt: skip
PASSED = ("BatchNormalization", "Dropout", "SpatialDropout2D", "MaxPooling2D", "Add")  # on the way to an activation
CONSTANT = 1e-6  # a filter that varies less, relative to its mean square, is constant: single precision sees no more


def convolutions(model: keras.Model) -> list[keras.Layer]:
    """The convolution layers of ``model``, in order of computation."""
    import keras

    return [layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D)]


def _carriers(model: keras.Model) -> dict[str, keras.Layer]:
    """The layer whose output tells whether a convolution's filters fire: itself, or the activation after it, with
    normalisation, dropout, pooling or a residual sum between."""
    import keras

    found = {layer.name: layer for layer in convolutions(model)}
    passed = dict.fromkeys(found, "")  # the layer that each filter's output has reached
    passed |= {name: name for name, layer in found.items() if layer.activation.__name__ == "linear"}
    for layer in model.layers:
        ends = type(layer).__name__ in ("Activation", "ReLU", "LeakyReLU", "ELU")
        if ends or type(layer).__name__ in PASSED:
            before = {tensor._keras_history.operation.name for tensor in keras.tree.flatten(layer.input)}
            for name, reached in passed.items():
                if reached in before:
                    passed[name] = "" if ends else layer.name
                    if ends:
                        found[name] = layer
    return found


def maps(
    model: keras.Model, images: np.ndarray, layers: list[str] | None = None, preprocessing: str = "rgb"
) -> dict[str, np.ndarray]:
    """Outputs of ``layers``, by default all convolutions, for uint8 ``images`` (N, H, W, 3): float32, by name."""
    import keras

    chosen = convolutions(model) if layers is None else [model.get_layer(name) for name in layers]
    network = keras.Model(model.input, {layer.name: layer.output for layer in chosen})
    outputs = network(pretrained.preprocess(images, preprocessing), training=False)
    return {layer.name: np.asarray(outputs[layer.name]) for layer in chosen}


def fired(model: keras.Model) -> keras.Model:
    """``model`` up to what its filters put out, by their convolution's name: (N, h, w, filters) after activation."""
    import keras

    return keras.Model(model.input, {name: layer.output for name, layer in _carriers(model).items()})


def firing(model: keras.Model, images: np.ndarray, preprocessing: str = "rgb") -> np.ndarray:
    """Whether a filter has an output above zero on an image: bool (N, filters of all layers), of uint8 ``images``."""
    network, parts = fired(model), []
    for start in range(0, len(images), BATCH):
        batch = pretrained.preprocess(np.asarray(images[start : start + BATCH]), preprocessing)
        outputs = network.predict_on_batch(batch).values()
        parts.append(np.concatenate([output.max(axis=(1, 2)) > 0 for output in outputs], axis=1))
    return np.concatenate(parts)


def measure(model: keras.Model, images: np.ndarray, preprocessing: str = "rgb") -> pd.DataFrame:
    """Measure every convolution filter on uint8 ``images`` (N, H, W, 3), in one streaming pass.

    A row per filter, of what its activation puts out, where that is a layer of its own:

    - ``layer``, ``filter``
    - ``apoz``: share of exactly zero outputs (Average Percentage of Zeros, Hu et al. 2016, arXiv 1607.03250)
    - ``fires``: share of images with at least one output above zero
    - ``maximum``, ``mean``, and ``p99``, the 99th percentile of some ``SAMPLE`` outputs drawn evenly from all images
    - ``apoz_grain``, ``mean_grain``, ``p99_grain``: the same over grain pixels only. A pixel of a map belongs to the
      grain if at least half of the image area that it stands for has a grey value over 20. NaN where none does.
    - ``redundancy``: largest absolute correlation, over all pixels, with another filter of the layer, which is
      ``nearest``. Neither is known (NaN, -1) for a filter whose output is constant, or that is alone.
    """
    import tensorflow as tf

    layers = list(_carriers(model))
    if not layers:
        return pd.DataFrame(columns=COLUMNS)
    network = fired(model)
    each = -(-SAMPLE // max(len(images), 1))  # positions of an image

    @tf.function(reduce_retracing=True)
    def statistics(batch: tf.Tensor, number: tf.Tensor) -> list[dict[str, tf.Tensor]]:
        pixels = tf.cast(batch, tf.float32)
        grey = tf.tensordot(pixels, tf.constant(LUMA), 1)[..., None]
        mask = tf.cast(grey > THRESHOLD, tf.float32)
        found = network(pretrained.preprocess(batch, preprocessing), training=False)
        outputs = [found[name] for name in layers]
        masks = [tf.image.resize(mask, output.shape[1:3], method="area") >= 0.5 for output in outputs]
        return [_sums(*pair, each, number) for pair in zip(outputs, masks, strict=True)]

    totals: list[dict[str, list[np.ndarray]]] = [{} for _ in layers]
    for number, start in enumerate(range(0, len(images), BATCH)):
        found = statistics(images[start : start + BATCH], tf.constant(number))
        for total, sums in zip(totals, found, strict=True):
            for name, values in sums.items():
                _add(total, name, np.asarray(values))
    pairs = zip(layers, totals, strict=True)
    return pd.concat([_table(name, total, len(images)) for name, total in pairs], ignore_index=True)


def _sums(output: tf.Tensor, mask: tf.Tensor, each: int, number: tf.Tensor) -> dict[str, tf.Tensor]:
    """What a batch of maps (B, h, w, filters) adds to a layer's statistics; ``mask`` (B, h, w, 1) is the grain."""
    import tensorflow as tf

    positions, filters = output.shape[1] * output.shape[2], output.shape[3]
    flat = tf.cast(tf.reshape(output, (-1, positions, filters)), tf.float32)  # of a network in mixed precision, too
    grain = tf.cast(tf.reshape(mask, (-1, positions, 1)), tf.float32)
    zero = tf.cast(tf.equal(flat, 0.0), tf.float32)
    largest = tf.reduce_max(flat, axis=1)
    rows = tf.reshape(flat, (-1, filters))
    drawn = tf.random.stateless_uniform((tf.shape(flat)[0], positions), tf.stack([0, number]))
    chosen = tf.math.top_k(drawn, min(each, positions)).indices
    inside = tf.math.top_k(drawn * grain[..., 0], min(each, positions))
    sampled = tf.gather(flat, inside.indices, batch_dims=1)
    return {
        "zero": tf.reduce_sum(tf.reduce_mean(zero, axis=1), axis=0),
        "zero_grain": tf.reduce_sum(zero * grain, axis=(0, 1)),
        "grain": tf.reduce_sum(grain),
        "fires": tf.reduce_sum(tf.cast(largest > 0, tf.float32), axis=0),
        "mean": tf.reduce_sum(tf.reduce_mean(flat, axis=1), axis=0),
        "mean_grain": tf.reduce_sum(flat * grain, axis=(0, 1)),
        "products": tf.matmul(rows, rows, transpose_a=True) / positions,
        "maximum": tf.reduce_max(largest, axis=0),
        "sample": tf.reshape(tf.gather(flat, chosen, batch_dims=1), (-1, filters)),
        "sample_grain": tf.reshape(tf.where(inside.values[..., None] > 0, sampled, np.nan), (-1, filters)),
    }


def _add(total: dict[str, list[np.ndarray]], name: str, values: np.ndarray) -> None:
    if name.startswith("sample"):
        total.setdefault(name, []).append(values)
    else:
        join = np.maximum if name == "maximum" else np.add
        values = values.astype(np.float64)  # batches are summed in single precision, all of them in double
        total[name] = [join(total[name][0], values)] if name in total else [values]


def _table(layer: str, total: dict[str, list[np.ndarray]], images: int) -> pd.DataFrame:
    sums = {name: parts[0] for name, parts in total.items() if not name.startswith("sample")}
    p99, p99_grain = (_percentile(np.concatenate(total[name])) for name in ("sample", "sample_grain"))
    redundancy, nearest = _neighbours(sums["mean"] / images, sums["products"] / images)
    grain = float(sums["grain"]) or np.nan  # no pixel of a map need be grain where maps are small
    return pd.DataFrame(
        {
            "layer": layer,
            "filter": range(len(p99)),
            "apoz": sums["zero"] / images,
            "apoz_grain": sums["zero_grain"] / grain,
            "fires": sums["fires"] / images,
            "maximum": sums["maximum"],
            "mean": sums["mean"] / images,
            "mean_grain": sums["mean_grain"] / grain,
            "p99": p99,
            "p99_grain": p99_grain,
            "redundancy": redundancy,
            "nearest": nearest,
        }
    )


def _percentile(sample: np.ndarray) -> np.ndarray:
    """99th percentile of each column; NaN, positions outside the grain, left out; NaN where nothing is left."""
    inside = sample[~np.isnan(sample[:, 0])]
    return np.percentile(inside, 99, axis=0) if len(inside) else np.full(sample.shape[1], np.nan)


def _neighbours(mean: np.ndarray, products: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Largest absolute correlation of each filter with another, and which: from E[x] (F,) and E[xy] (F, F)."""
    covariance = products - np.outer(mean, mean)
    variance = np.diag(covariance)
    varies = variance > CONSTANT * np.diag(products)
    spread = np.sqrt(np.where(varies, variance, 1.0))
    correlation = np.abs(covariance / np.outer(spread, spread)).clip(0, 1)
    correlation[~varies] = correlation[:, ~varies] = -1
    np.fill_diagonal(correlation, -1)
    largest, nearest = correlation.max(axis=0), correlation.argmax(axis=0)
    known = largest >= 0
    return np.where(known, largest, np.nan), np.where(known, nearest, -1)


def depths(layers: pd.Series) -> np.ndarray:
    """The depth of each of these layers, given in order of computation: 0, 1, ...; an inception module is one."""
    return pd.factorize(layers.str.replace(r"^(inception_..)_.*", r"\1", regex=True))[0]


def black(filters: pd.DataFrame) -> dict[str, Any]:
    """Of rows of a run's filters: how many, how many never fire, their share with Wilson's 95 % interval, black maps
    (mean share of the images), APoZ, APoZ on grain."""
    never = int((filters["fires"] == 0).sum())
    share = evaluation.wilson(never, len(filters))
    counts = {"filters": len(filters), "never fire": never, "share": share.value, "low": share.low, "high": share.high}
    zeros = {"APoZ": filters["apoz"].mean(), "APoZ on grain": filters["apoz_grain"].mean()}
    return counts | {"black maps": (1 - filters["fires"]).mean()} | zeros
