"""Data sets that come as arrays: scikit-learn's digits, Keras's MNIST and CIFAR, or an ``.npz`` file of such."""

from __future__ import annotations

import hashlib
import io
import sys
import zipfile
import zlib
from contextlib import redirect_stdout
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from riceutils.sources import DataError, Source

NAMED = ("digits", "mnist", "cifar10", "cifar100_coarse")
KEYS = ("x_train", "y_train", "x_test", "y_test")
CIFAR10 = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
CIFAR100_COARSE = [
    "aquatic mammals", "fish", "flowers", "food containers", "fruit and vegetables", "household electrical devices",
    "household furniture", "insects", "large carnivores", "large man-made outdoor things",
    "large natural outdoor scenes", "large omnivores and herbivores", "medium-sized mammals",
    "non-insect invertebrates", "people", "reptiles", "small mammals", "trees", "vehicles 1", "vehicles 2",
]  # fmt: skip
WORDS = {"cifar100_coarse": CIFAR100_COARSE, "cifar10": CIFAR10}


def knows(source: str | Path) -> bool:
    """Whether ``source`` is one of ``NAMED`` or the path of an ``.npz`` file."""
    return str(source) in NAMED or str(source).endswith(".npz")


def open_source(source: str | Path, image_size: int) -> Source:
    """Open ``digits``, ``mnist``, ``cifar10``, ``cifar100_coarse``, or an ``.npz`` file of arrays.

    Such a file holds ``x_train``, ``x_test`` (uint8, (N, H, W) or (N, H, W, 3)) and ``y_train``, ``y_test``
    (integers from 0, (N,) or (N, 1)), as Keras's loaders return them. Its test images stay the test images. MNIST's
    28×28 images get a black border when 32×32 are asked for, as LeNet-5 saw them. Classes get their words when the
    file's name begins with that of a data set known here, else numbers.

    Raises ``DataError`` naming what does not fit in a file, and ``ConnectionError`` with the local way out when a
    data set can't be downloaded.
    """
    if source == "digits":
        from sklearn.datasets import load_digits

        bunch = load_digits()
        sides = {"train": (np.round(bunch.images * (255 / 16)).astype(np.uint8), bunch.target)}
    elif str(source) in NAMED:
        sides = _download(str(source))
    else:
        sides = _file(Path(source).expanduser())
    images = sides["train"][0]
    if image_size == 32 and images.shape[1:] == (28, 28):
        sides = {side: (np.pad(x, ((0, 0), (2, 2), (2, 2))), y) for side, (x, y) in sides.items()}
    return _source(str(source), sides)


def _download(name: str) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    from keras import datasets

    loader = {
        "mnist": datasets.mnist.load_data,
        "cifar10": datasets.cifar10.load_data,
        "cifar100_coarse": partial(datasets.cifar100.load_data, label_mode="coarse"),
    }[name]
    try:
        with redirect_stdout(sys.stderr):  # Keras's progress bar
            train, test = loader()
    except Exception as error:  # Keras raises a bare Exception when a download fails
        raise ConnectionError(
            f"{name} could not be downloaded ({type(error).__name__}). Give the path of an .npz file with "
            f"{', '.join(KEYS)} as data, or use digits."
        ) from error
    return {"train": (train[0], train[1].ravel()), "test": (test[0], test[1].ravel())}


def _file(path: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    if not path.is_file():
        raise DataError(f"No such file: {path}. Give an .npz file, or one of {', '.join(NAMED)}.")
    try:
        with np.load(path) as stored:
            found = {key: stored[key] for key in KEYS if key in stored}
    except (OSError, ValueError, TypeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        reason = f"{path} is not a whole .npz file of plain arrays ({error})."
        raise DataError(f"{reason} Make it with numpy.savez.") from error
    if missing := [key for key in KEYS if key not in found]:
        raise DataError(f"{path} has no array {missing[0]!r}. Expected {', '.join(KEYS)}.")
    sides, kinds = {}, 0
    for side in ("train", "test"):
        x, y = found[f"x_{side}"], found[f"y_{side}"]
        if x.dtype != np.uint8:
            raise DataError(f"{path}: x_{side} is {x.dtype}; expected uint8, 0 to 255.")
        if x.ndim not in (3, 4) or x.shape[1] != x.shape[2] or (x.ndim == 4 and x.shape[3] != 3) or not len(x):
            raise DataError(f"{path}: x_{side} has shape {x.shape}; expected (N, S, S) or (N, S, S, 3), square.")
        if not np.issubdtype(y.dtype, np.integer) or y.size != len(x) or y.shape[0] != len(x):
            raise DataError(f"{path}: y_{side} is {y.dtype} of shape {y.shape}; expected {len(x)} integers.")
        y = y.ravel().astype(np.int64)
        kinds = kinds or len(np.unique(y))
        if kinds < 2:
            raise DataError(f"{path}: y_{side} knows a single class; at least two are needed.")
        if y.min() < 0 or y.max() >= kinds:
            bad = int(y[(y < 0) | (y >= kinds)][0])
            raise DataError(f"{path}: label {bad} in y_{side} is out of range; {kinds} classes are 0 to {kinds - 1}.")
        sides[side] = (x, y)
    if sides["train"][0].shape[1:] != sides["test"][0].shape[1:]:
        raise DataError(f"{path}: x_train and x_test hold images of different shapes. Make them equal.")
    return sides


def _source(name: str, sides: dict[str, tuple[np.ndarray, np.ndarray]]) -> Source:
    kinds = int(max(y.max() for _, y in sides.values())) + 1
    words = next((words for known, words in WORDS.items() if Path(name).stem.startswith(known)), [])
    width = len(str(kinds - 1))
    labels = words if len(words) == kinds else [str(kind).zfill(width) for kind in range(kinds)]
    members: dict[str, list[str]] = {}
    for kind, label in enumerate(labels):
        rows = [(side, row) for side, (_, y) in sides.items() for row in np.flatnonzero(y == kind)]
        members[label] = [f"{side}/{row}.png" for side, row in rows]

    def read(member: str) -> bytes:
        side, row = member.removesuffix(".png").split("/")
        content = io.BytesIO()
        Image.fromarray(sides[side][0][int(row)]).save(content, "png", compress_level=1)
        return content.getvalue()

    digest = hashlib.sha256()
    for images, kinds_of in sides.values():
        digest.update(images.tobytes())
        digest.update(np.ascontiguousarray(kinds_of, np.int64).tobytes())
    test = frozenset(name for names in members.values() for name in names if name.startswith("test/"))
    return Source(name, members, read, f"arrays-{digest.hexdigest()[:16]}", test)
