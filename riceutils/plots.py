"""Pictures: image sheets, feature maps, an architecture's outline, a prediction.

Every function returns ``(figure, table)``: a matplotlib figure with English labels, and the numbers behind it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import LogLocator, NullFormatter

if TYPE_CHECKING:
    import keras

PALETTE = sns.color_palette("colorblind")
STYLE = {"axes.grid": True, "grid.color": "0.9", "axes.spines.top": False, "axes.spines.right": False}
WIDTH = 9.0  # inches
LONG = 20  # rows: a taller chart has its axis at the top as well
Chart = tuple[Figure, pd.DataFrame]


def figure(height: float, rows: int = 1, columns: int = 1, **options: Any) -> tuple[Figure, np.ndarray]:
    """An empty figure in the book's one style and a 2-D array of its axes; no pyplot, so nothing is shown twice."""
    with sns.axes_style("ticks", STYLE):
        canvas = Figure(figsize=(WIDTH, height), layout="constrained")
        return canvas, canvas.subplots(rows, columns, squeeze=False, **options)


def plain_ticks(side: Axis) -> None:
    """Of a logarithmic axis over a few decades: ticks at 1, 2 and 5 times powers of ten, written without powers."""
    side.set_major_locator(LogLocator(subs=(1, 2, 5)))
    side.set_major_formatter("{x:g}")
    side.set_minor_formatter(NullFormatter())


def sheet(images: Sequence[np.ndarray] | np.ndarray, labels: Sequence[str], columns: int = 5) -> Chart:
    """Images uint8 (N, H, W, 3) in rows of ``columns``, each under its label."""
    rows = -(-len(images) // columns)
    canvas, axes = figure(WIDTH / columns * rows * 1.12, rows, columns)
    for axis in axes.flat:
        axis.axis("off")
    for axis, image, label in zip(axes.flat, images, labels, strict=False):
        axis.imshow(image)
        axis.set_title(label, fontsize=9)
    grey = np.asarray(images).mean(axis=-1)
    table = pd.DataFrame({"image": labels, "mean grey": grey.mean(axis=(1, 2)), "maximum": grey.max(axis=(1, 2))})
    return canvas, table


def mosaic(pictures: np.ndarray, columns: int | None = None) -> tuple[np.ndarray, list[tuple[int, int]]]:
    """Pictures (N, h, w[, 3]) on one canvas, in rows of ``columns``, 16 or 32 unless told, with white gaps; and their
    upper left corners.

    One image for hundreds of maps: an axis for each would take minutes to draw.
    """
    number, height, width = pictures.shape[:3]
    columns = columns or (number if number <= 8 else 16 if number <= 128 else 32)
    gap = max(1, round(0.04 * height))
    rows = -(-number // columns)
    canvas = np.full((rows * (height + gap), columns * (width + gap), *pictures.shape[3:]), np.nan)
    if pictures.ndim == 4:
        canvas[:] = 1.0  # a colour picture has no missing value
    corners = [(n // columns * (height + gap), n % columns * (width + gap)) for n in range(number)]
    for (y, x), picture in zip(corners, pictures, strict=True):
        canvas[y : y + height, x : x + width] = picture
    return canvas[:-gap, :-gap], corners


def feature_maps(outputs: np.ndarray, layer: str) -> Chart:
    """The maps (h, w, filters) of one layer on one scale, from 0 to the layer's largest value, which is printed.

    A map that is zero everywhere is crossed out: on one scale, black means small, and only a cross means zero.
    """
    height, width, filters = outputs.shape
    top = float(outputs.max())
    tiles, corners = mosaic(np.moveaxis(outputs, -1, 0))
    canvas, axes = figure(WIDTH * tiles.shape[0] / tiles.shape[1] + 1.0)
    axis = axes[0, 0]
    picture = axis.imshow(tiles, vmin=0, vmax=top or 1, cmap="viridis", interpolation="nearest")
    axis.axis("off")
    for number in np.flatnonzero(~outputs.any(axis=(0, 1))):
        y, x = corners[number]
        for ends in ([y, y + height - 1], [y + height - 1, y]):
            axis.plot([x, x + width - 1], ends, color="w", linewidth=1)
    title = f"{layer}: {filters} maps of {height}×{width}, one scale, values 0 to {top:.3g}"
    canvas.suptitle(title, fontsize=11)
    canvas.colorbar(picture, ax=axis, orientation="horizontal", fraction=0.08, aspect=60, pad=0.03)
    flat = outputs.reshape(-1, filters)
    table = pd.DataFrame(
        {
            "filter": range(filters),
            "minimum": flat.min(axis=0),
            "mean": flat.mean(axis=0),
            "maximum": flat.max(axis=0),
            "APoZ": (flat == 0).mean(axis=0),
        }
    )
    return canvas, table


def kernels(model: keras.Model, preprocessing: str = "rgb") -> Chart:
    """Kernels of the first convolution of ``model`` as colour pictures on one scale around zero, which is grey."""
    import keras

    layer = next(layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D))
    weights = np.asarray(layer.kernel)  # (height, width, 3, filters)
    if preprocessing == "caffe":
        weights = weights[:, :, ::-1]  # its channels are blue, green, red
    filters = weights.shape[-1]
    top = float(np.abs(weights).max()) or 1.0
    tiles, _ = mosaic(0.5 + np.moveaxis(weights, -1, 0) / (2 * top))
    canvas, axes = figure(WIDTH * tiles.shape[0] / tiles.shape[1] + 0.4)
    axes[0, 0].imshow(tiles, interpolation="nearest")
    axes[0, 0].axis("off")
    size = f"{weights.shape[0]}×{weights.shape[1]}"
    canvas.suptitle(
        f"{layer.name}: {filters} kernels of {size}×3, one scale, values -{top:.2g} to {top:.2g}", fontsize=11
    )
    flat = weights.reshape(-1, filters)
    table = pd.DataFrame({"filter": range(filters), "L1 norm": np.abs(flat).sum(axis=0), "mean": flat.mean(axis=0)})
    return canvas, table


def architecture(model: keras.Model) -> Chart:
    """Outline of a network: a block per layer, height by the side of the output, width by its channels."""
    rows = []
    for layer in model.layers:
        shape = layer.output.shape[1:]
        side, channels = (shape[0], shape[-1]) if len(shape) == 3 else (1, shape[-1])
        rows.append((layer.name, type(layer).__name__, side, channels))
    table = pd.DataFrame(rows, columns=["layer", "type", "side", "channels"])
    names = list(dict.fromkeys(table["type"]))
    kinds = dict(zip(names, PALETTE if len(names) <= 10 else sns.color_palette("husl", len(names)), strict=False))
    canvas, axes = figure(3.6)
    axis, x = axes[0, 0], 0.0
    for entry in table.itertuples():
        width = 0.35 + np.log2(max(entry.channels, 1)) / 8
        height = np.sqrt(entry.side)
        axis.add_patch(Rectangle((x, -height / 2), width, height, color=kinds[entry.type], alpha=0.85, linewidth=0))
        if len(table) <= 24:
            text = f"{entry.side}²×{entry.channels}" if entry.side > 1 else f"{entry.channels}"
            axis.text(x + width / 2, height / 2 + 0.3, text, ha="center", va="bottom", rotation=60, fontsize=8)
        x += width + 0.12
    tallest = np.sqrt(table["side"].max())
    axis.set(xlim=(-0.2, x + 0.6), ylim=(-tallest / 2 - 0.5, tallest / 2 + (4.5 if len(table) <= 24 else 0.5)))
    axis.set_title("height: side of the output (square root); width: its channels (log)", fontsize=8, color="0.4")
    axis.axis("off")
    handles = [Rectangle((0, 0), 1, 1, color=color) for color in kinds.values()]
    axis.legend(
        handles, list(kinds), ncols=min(len(kinds), 6), loc="lower center", bbox_to_anchor=(0.5, -0.22), fontsize=8
    )
    return canvas, table


def prediction(image: np.ndarray, probabilities: np.ndarray, classes: Sequence[str], truth: str) -> Chart:
    """An image uint8 (H, W, 3) of class ``truth`` and the probabilities (classes,) that a network gives it."""
    canvas, axes = figure(2.8, 1, 2, width_ratios=(1, 2.4))
    axes[0, 0].imshow(image)
    axes[0, 0].set_title(f"true class: {truth}", fontsize=9)
    axes[0, 0].axis("off")
    colors = [PALETTE[0] if p == probabilities.max() else "0.7" for p in probabilities]
    bars = axes[0, 1].barh(list(classes), probabilities, color=colors)
    axes[0, 1].bar_label(bars, fmt="%.3f", padding=3)
    axes[0, 1].set(xlim=(0, 1.12), xlabel="probability")
    axes[0, 1].invert_yaxis()
    return canvas, pd.DataFrame({"class": classes, "probability": probabilities})
