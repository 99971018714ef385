"""The published "generalisation" perturbation, made repeatable: one draw per image, fixed by (seed, index).

The Study passes the resized test images through Keras's RandomFlip(horizontal), RandomRotation(0.1),
RandomZoom(0.1), RandomTranslation(0.1, 0.1) and RandomContrast(0.1), in this order, drawn anew in every pass.
Here the same five steps, with the same resampling (bilinear, three times, filled by reflection), take their
random numbers from the image's index, so that every model sees the same pictures.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

PARTS = ("flip", "rotation", "zoom", "translation", "contrast")
VERSION = 1  # raise by hand when the pictures change: stored ones are made anew
FACTOR = 0.1  # of each part but the flip; for rotation a fraction of a whole turn: ±36°
BATCH = 64
_STREAM = 0x70757274  # keeps these draws apart from other uses of the same seed


def draws(indices: Sequence[int] | np.ndarray, seed: int = 0) -> np.ndarray:
    """Uniform draws in [0, 1), float64 (N, 6): flip, rotation, zoom, vertical, horizontal shift, contrast.

    Row *i* depends on ``(seed, indices[i])`` only.
    """
    return np.stack([np.random.default_rng((_STREAM, seed, int(index))).random(6) for index in indices])


def published(images: np.ndarray, first_index: int = 0, seed: int = 0) -> np.ndarray:
    """Perturb ``images``, uint8 (N, H, W, 3), as published; uint8 of the same shape.

    ``first_index`` is the index of ``images[0]``: a set perturbed in pieces equals the set perturbed at once.
    Raises ``ValueError`` for another dtype or shape.
    """
    return apply(images, draws(range(first_index, first_index + len(images)), seed))


def check(images: np.ndarray) -> None:
    """Raise ``ValueError`` unless ``images`` are uint8 (N, H, W, 3)."""
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] != 3:
        raise ValueError(f"Expected uint8 images of shape (N, H, W, 3), got {images.dtype} {images.shape}.")


def apply(images: np.ndarray, uniform: np.ndarray, parts: Collection[str] = PARTS, strength: float = 1.0) -> np.ndarray:
    """Apply ``parts`` with the given :func:`draws`, their factors multiplied by ``strength`` (the flip's is not).

    Pixel values are rounded to uint8 once, at the end.
    """
    check(images)
    unknown = set(parts) - set(PARTS)
    if unknown:
        raise ValueError(f"Unknown part {sorted(unknown)[0]!r}. Known parts: {', '.join(PARTS)}.")
    result = np.empty_like(images)
    for start in range(0, len(images), BATCH):
        piece = slice(start, start + BATCH)
        result[piece] = _apply(images[piece], uniform[piece], parts, strength)
    return result


def _apply(images: np.ndarray, uniform: np.ndarray, parts: Collection[str], strength: float) -> np.ndarray:
    height, width = images.shape[1:3]
    if "flip" in parts:
        flip = uniform[:, 0] < 0.5
        images = np.where(flip[:, None, None, None], images[:, :, ::-1], images)
    factors = (2 * uniform[:, 1:] - 1) * FACTOR * strength
    angle, zoom, down, right, contrast = factors.T
    one, zero = np.ones_like(angle), np.zeros_like(angle)
    pixels = images.astype(np.float32)
    # Coefficients map an output position to an input position, as ImageProjectiveTransformV3 wants them.
    if "rotation" in parts:
        cos, sin = np.cos(2 * np.pi * angle), np.sin(2 * np.pi * angle)
        x = (width - 1 - (cos * (width - 1) - sin * (height - 1))) / 2
        y = (height - 1 - (sin * (width - 1) + cos * (height - 1))) / 2
        pixels = _transform(pixels, cos, -sin, x, sin, cos, y)
    if "zoom" in parts:
        scale = 1 + zoom
        pixels = _transform(pixels, scale, zero, (width - 1) / 2 * -zoom, zero, scale, (height - 1) / 2 * -zoom)
    if "translation" in parts:
        pixels = _transform(pixels, one, zero, -right * width, zero, one, -down * height)
    if "contrast" in parts:
        mean = pixels.mean(axis=(1, 2), keepdims=True)
        pixels = (pixels - mean) * (1 + contrast)[:, None, None, None].astype(np.float32) + mean
    return np.clip(np.rint(pixels), 0, 255).astype(np.uint8)


def _transform(pixels: np.ndarray, *coefficients: np.ndarray) -> np.ndarray:
    import tensorflow as tf

    zero = np.zeros_like(coefficients[0])
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=pixels,
        transforms=np.stack([*coefficients, zero, zero], axis=1).astype(np.float32),
        output_shape=pixels.shape[1:3],
        interpolation="BILINEAR",
        fill_mode="REFLECT",
        fill_value=0.0,
    ).numpy()
