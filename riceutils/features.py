"""Frozen layers computed once: their outputs over a set of images, kept on disk as float16.

Where the first layers of a network are never trained, every epoch would compute the same numbers again. They are
computed one time, in order and resumably, and training starts from them.
"""

from __future__ import annotations

import json
import os
import shutil
import time
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from tqdm import tqdm

from riceutils import files
from riceutils.models import pretrained

if TYPE_CHECKING:
    import keras

LIMIT = "RICEUTILS_FEATURES_GB"  # environment variable: how much of the disk the cached features may take
DEFAULT_LIMIT = 10.0  # GB; VGG16 at 224 px takes 0.2 MB an image
BATCH = 32
SAVED = 16  # batches between two saved positions, a minute or so of a large network on a CPU


@dataclass(frozen=True)
class Cut:
    """A network divided where training begins; both parts share their layers and weights with the whole."""

    trunk: keras.Model
    head: keras.Model


def cut(model: keras.Model) -> Cut | None:
    """Divide ``model`` before its first layer with trainable weights; None when nothing before it saves any work:
    neither a layer with weights nor one that shrinks the image.

    Dropout, which differs from step to step, always belongs to the head.
    """
    import keras

    layers = model.layers
    first = next((n for n, layer in enumerate(layers) if _changes(layer)), None)
    shrinks = keras.layers.AveragePooling2D
    if first is None or not any(layer.weights or isinstance(layer, shrinks) for layer in layers[:first]):
        return None
    boundary = layers[first - 1].output
    # A graph with a path around the boundary can't be divided there; Keras raises when asked.
    try:
        return Cut(keras.Model(model.input, boundary), keras.Model(boundary, model.output))
    except ValueError:
        return None


def _changes(layer: keras.Layer) -> bool:
    """Whether a layer's output for an image differs from step to step: it learns, or drops values by chance."""
    kind = type(layer).__name__
    normalises = kind == "BatchNormalization" and layer.trainable  # its moving statistics are no trainable weights
    return bool(layer.trainable_weights) or normalises or "Dropout" in kind


def join(networks: Mapping[str, keras.Model]) -> keras.Model:
    """One network with the outputs of several, by name, that computes the frozen layers they share once.

    The networks must have the same weights up to their cuts, as those have that stand on the same pretrained trunk.
    """
    import keras

    divided = {name: cut(network) for name, network in networks.items()}
    deepest = max((d for d in divided.values() if d), key=lambda d: len(d.trunk.layers)).trunk
    outputs = {}
    for name, own in divided.items():
        if own is None:
            raise ValueError(f"{name} has no frozen layers to share.")
        tap = _tap(own.trunk.layers[-1])
        layer = deepest.get_layer(tap.removesuffix("-mean")).output
        outputs[name] = own.head(keras.layers.GlobalAveragePooling2D()(layer) if tap.endswith("-mean") else layer)
    return keras.Model(deepest.input, outputs)


def limit() -> int:
    """Bytes that the cached features may take. Raises ``ValueError`` when the environment holds no number."""
    text = os.environ.get(LIMIT, str(DEFAULT_LIMIT))
    try:
        return int(float(text) * 1e9)
    except (ValueError, OverflowError):
        raise ValueError(f"{LIMIT} is {text!r}; expected a number of gigabytes.") from None


def size(divided: Cut, images: int) -> int:
    """Bytes of the cached features of so many ``images``."""
    return 2 * images * int(np.prod(divided.trunk.output.shape[1:]))


def load(divided: Cut, images: np.ndarray, data: str, side: str, source: str, preprocessing: str) -> np.ndarray | None:
    """The trunk's outputs for uint8 ``images``, float16 (N, ...), memory-mapped: from the cache, else computed.

    ``data`` and ``side`` say which images these are, ``source`` which weights the trunk has. None when the features
    would take more than :func:`limit` or exceed float16's range, which is said; older ones make room.
    """
    # A trunk of the same weights that enlarges its images first has other outputs under the same layers' names.
    enlarged = [list(layer.size) for layer in divided.trunk.layers if type(layer).__name__ == "UpSampling2D"]
    content = [source, preprocessing, data, *([enlarged] if enlarged else [])]
    folder = files.home() / "features" / files.digest(content)
    target = folder / f"{side}-{_tap(divided.trunk.layers[-1])}.npy"
    if target.exists() and not _intact(target):
        print(f"The cached features {target.name} are damaged and are computed again.")
        target.unlink()
    with files.once(target) as missing:
        if missing:
            needed = size(divided, len(images))
            if not _make_room(needed, folder, f".{side}-"):
                print(f"{needed / 1e9:.1f} GB of features exceed the limit ({LIMIT}); training computes them anew.")
                return None
            if not _compute(divided.trunk, images, folder, side, preprocessing):
                print("The features exceed the range of float16; training computes them anew.")
                return None
    return np.load(target, mmap_mode="r")


def _tap(layer: keras.Layer) -> str:
    """Name of a layer's output; a mean over positions is named after what it is the mean of."""
    if type(layer).__name__ == "GlobalAveragePooling2D":
        return f"{layer.input._keras_history.operation.name}-mean"
    return layer.name


def _compute(trunk: keras.Model, images: np.ndarray, folder: Path, side: str, preprocessing: str) -> bool:
    """Write the trunk's outputs, and the means over positions of its pooling layers: what a network cut earlier and
    pooled comes for nothing. False when a value exceeds float16's range."""
    import keras

    pools = [layer for layer in trunk.layers if isinstance(layer, keras.layers.MaxPooling2D)]
    taps = {f"{layer.name}-mean": keras.layers.GlobalAveragePooling2D()(layer.output) for layer in pools}
    taps[_tap(trunk.layers[-1])] = trunk.output
    network = keras.Model(trunk.input, taps)
    position = folder / f".{side}-{_tap(trunk.layers[-1])}.json"
    partial = {tap: position.with_name(f"{position.stem}-{tap}.partial") for tap in taps}
    whole = position.exists() and all(path.exists() for path in partial.values())
    done = json.loads(position.read_text())["done"] if whole else 0
    folder.mkdir(parents=True, exist_ok=True)
    stores = {
        tap: np.lib.format.open_memmap(
            path, "r+" if done else "w+", None if done else np.float16, (len(images), *taps[tap].shape[1:])
        )
        for tap, path in partial.items()
    }
    bar = tqdm(total=len(images), initial=done, desc=f"Features, {side}", unit="image")
    for number, start in enumerate(range(done, len(images), BATCH), start=1):
        batch = pretrained.preprocess(np.asarray(images[start : start + BATCH]), preprocessing)
        for tap, values in network.predict_on_batch(batch).items():
            with np.errstate(over="ignore"):
                stores[tap][start : start + len(batch)] = values
            if not np.isfinite(stores[tap][start : start + len(batch)]).all():
                stores.clear()
                for path in (position, *partial.values()):  # by name: other trunks' features of this side lie beside
                    path.unlink(missing_ok=True)
                return False
        bar.update(len(batch))
        if number % SAVED == 0:
            for store in stores.values():
                store.flush()
            files.write_json(position, {"done": start + len(batch)})
    bar.close()
    for tap, path in partial.items():
        stores[tap].flush()
        target = folder / f"{side}-{tap}.npy"
        files.write_json(target.with_suffix(".json"), {"crc32": _checksum(path)})
        os.replace(path, target)
    position.unlink(missing_ok=True)
    return True


def _checksum(path: Path) -> int:
    value = 0
    with path.open("rb") as stream:
        while block := stream.read(1 << 24):
            value = zlib.crc32(block, value)
    return value


def _intact(target: Path) -> bool:
    try:
        return json.loads(target.with_suffix(".json").read_text())["crc32"] == _checksum(target)
    except (OSError, ValueError, KeyError):
        return False


def _make_room(needed: int, keep: Path, own: str) -> bool:
    """Remove the oldest features until ``needed`` bytes fit under the limit; False when they never will.

    Files in ``keep`` whose names begin with ``own`` are what an interrupted computation left of these very features.
    """
    allowed = limit()
    if needed > allowed:
        return False
    folders = sorted(keep.parent.glob("*"), key=lambda folder: folder.stat().st_mtime)
    sizes = {
        folder: sum(_size(path) for path in folder.rglob("*") if folder != keep or not path.name.startswith(own))
        for folder in folders
    }
    for folder in folders:
        if sum(sizes.values()) + needed <= allowed:
            return True
        if folder != keep and not _in_use(folder):
            shutil.rmtree(folder)
            del sizes[folder]
    return sum(sizes.values()) + needed <= allowed


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:  # renamed by another chapter since it was listed
        return 0


def _in_use(folder: Path) -> bool:
    """Whether another process has written to a part of its features within the last hour."""
    hour = time.time() - 3600
    return any(path.exists() and path.stat().st_mtime > hour for path in folder.glob("*.partial"))
