"""Corruptions that no training saw: seven kinds, three severities each, the same for every model.

The idea is that of Hendrycks and Dietterich 2019 (arXiv 1903.12261); kinds and severities are chosen here for one
bright grain on black: visible, yet the variety can still be told by eye. Pillow does the work. Random parts depend
on the seed, the image's index and the corruption's name only, so that a higher severity is more of the same.
"""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter

from riceutils import perturb

SEVERITIES = (1, 2, 3)
LEVELS = {  # of severities 1, 2, 3
    "blur": (0.01, 0.02, 0.03),  # standard deviation of the Gaussian kernel, share of the image's side
    "noise": (12.0, 25.0, 45.0),  # standard deviation of the Gaussian noise of each value, grey levels
    "jpeg": (30, 10, 6),  # quality, of 100, at which black stays black; the blocks are 8 px whatever the side
    "brightness": (0.7, 0.5, 0.3),  # factor: underexposed (brightening would only saturate a white grain)
    "colour cast": (0.1, 0.2, 0.35),  # light lost: warm light lacks so much blue, cold light so much red
    "low resolution": (56, 32, 20),  # px a side before it is enlarged again
    "occlusion": (0.1, 0.15, 0.2),  # side of a grey square, share of the image's side
}
NAMES = tuple(LEVELS)
COVERED = (0.35, 0.65)  # where the square's centre lies, share of the side: about the grain, which is centred
GREY = 128  # of the square: neither grain nor background
_STREAM = 0x636F7272  # keeps these draws apart from other uses of the same seed


def apply(images: np.ndarray, name: str, severity: int, first_index: int = 0, seed: int = 0) -> np.ndarray:
    """Corrupt ``images``, uint8 (N, H, W, 3), by ``name`` at ``severity``; uint8 of the same shape.

    ``first_index`` is the index of ``images[0]``: a set corrupted in pieces equals the set corrupted at once.
    Raises ``ValueError`` naming an unknown corruption or severity, or another dtype or shape.
    """
    perturb.check(images)
    if name not in LEVELS:
        raise ValueError(f"Unknown corruption {name!r}. Known corruptions: {', '.join(NAMES)}.")
    if severity not in SEVERITIES:
        raise ValueError(f"Unknown severity {severity!r}. Known severities: {', '.join(map(str, SEVERITIES))}.")
    corrupt, level = _CORRUPTIONS[name], LEVELS[name][SEVERITIES.index(severity)]
    result = np.empty_like(images)
    for row, image in enumerate(images):
        rng = np.random.default_rng((_STREAM, seed, first_index + row, *name.encode()))
        result[row] = np.asarray(corrupt(Image.fromarray(image), level, rng))
    return result


def _blur(image: Image.Image, share: float, _: np.random.Generator) -> Image.Image:
    return image.filter(ImageFilter.GaussianBlur(share * max(image.size)))


def _noise(image: Image.Image, deviation: float, rng: np.random.Generator) -> np.ndarray:
    noisy = np.asarray(image) + deviation * rng.standard_normal((image.height, image.width, 3), np.float32)
    return np.clip(np.rint(noisy), 0, 255).astype(np.uint8)


def _jpeg(image: Image.Image, quality: float, _: np.random.Generator) -> Image.Image:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=int(quality))
    return Image.open(file)


def _brightness(image: Image.Image, factor: float, _: np.random.Generator) -> Image.Image:
    return ImageEnhance.Brightness(image).enhance(factor)


def _colour_cast(image: Image.Image, lost: float, rng: np.random.Generator) -> Image.Image:
    red, green, blue = (1, 1 - lost / 2, 1 - lost)[:: rng.choice((-1, 1))]
    return image.convert("RGB", (red, 0, 0, 0, 0, green, 0, 0, 0, 0, blue, 0))


def _low_resolution(image: Image.Image, side: float, _: np.random.Generator) -> Image.Image:
    scale = min(1.0, side / max(image.size))
    small = (max(1, round(scale * image.width)), max(1, round(scale * image.height)))
    return image.resize(small, Image.Resampling.BOX).resize(image.size, Image.Resampling.NEAREST)


def _occlusion(image: Image.Image, share: float, rng: np.random.Generator) -> Image.Image:
    centre, half = rng.uniform(*COVERED, 2) * image.size, share * max(image.size) / 2
    ImageDraw.Draw(image).rectangle([*(centre - half), *(centre + half)], fill=(GREY, GREY, GREY))
    return image


_CORRUPTIONS: dict[str, Callable[[Image.Image, float, np.random.Generator], Image.Image | np.ndarray]] = {
    "blur": _blur,
    "noise": _noise,
    "jpeg": _jpeg,
    "brightness": _brightness,
    "colour cast": _colour_cast,
    "low resolution": _low_resolution,
    "occlusion": _occlusion,
}
