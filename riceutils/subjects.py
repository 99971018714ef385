"""What a training is really done on: the whole network on images, or its head on features computed once."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np

from riceutils import features, files, perturb
from riceutils.data import Split, Splits
from riceutils.runs import Spec


@dataclass(frozen=True)
class Subject:
    """A network (the model, or its head, which shares the model's weights) and what it sees on each side."""

    network: keras.Model
    train: Split
    validation: Split
    tests: dict[str, np.ndarray]  # clean, perturbed


@dataclass(frozen=True)
class Copy:
    """Images uint8 (N, H, W, 3) under a perturbation that is drawn once, made as they are read."""

    images: np.ndarray
    seed: int

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, rows: slice) -> np.ndarray:
        return perturb.published(np.asarray(self.images[rows]), rows.start, self.seed)


@dataclass(frozen=True, eq=False)
class Joined:
    """Sets of equally many images or features, one after the other, read as they are asked for: copies of thousands
    of images need not be in memory at once, nor stay there."""

    sets: list[np.ndarray]

    @property
    def dtype(self) -> np.dtype:
        return self.sets[0].dtype

    @property
    def shape(self) -> tuple[int, ...]:
        return (sum(map(len, self.sets)), *self.sets[0].shape[1:])

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, chosen: np.ndarray | slice) -> np.ndarray:
        rows = np.arange(len(self))[chosen]
        found = np.empty((len(rows), *self.shape[1:]), self.dtype)
        number, place = np.divmod(rows, len(self.sets[0]))
        for n in np.unique(number):
            found[number == n] = self.sets[n][place[number == n]]
        return found


def perturbed_test(splits: Splits) -> np.ndarray:
    """The test images under the published perturbation: drawn once, kept, the same for every model."""
    target = files.home() / "images" / f"{splits.fingerprint}-perturbed{perturb.VERSION}.npy"
    with files.once(target) as missing:
        if missing:
            with files.replacing(target) as temporary:
                np.save(temporary, perturb.published(splits.test.images))
    return np.load(target, mmap_mode="r")


def prepare(model: keras.Model, spec: Spec, splits: Splits, reuse: bool = True) -> Subject:
    """What ``model`` is trained on as ``spec`` says; frozen layers are computed once if ``reuse`` and if that helps.

    With ``spec.copies``, training images come once as they are and so many times perturbed, validation images once
    of each kind. Seeds of copies depend on their number only, never 0, the seed of the stored test perturbation.
    Raises ``ValueError`` when copies are asked for a network that does not shrink its images first.
    """
    train, validation = splits.train.images, splits.validation.images
    images: dict[str, list[Any]] = {
        "train": [train, *(Copy(train, 1_000_001 + number) for number in range(spec.copies))],
        "validation": [validation, *[Copy(validation, 2_000_001)][: spec.copies]],
        "clean": [splits.test.images],
        "perturbed": [perturbed_test(splits)],
    }
    divided = features.cut(model) if reuse else None
    computed = _features(divided, images, spec) if divided is not None else None
    if spec.copies and computed is None:
        raise ValueError(
            f"{spec.model}: copies are for networks that shrink their images first, as far as the cache has room "
            f"({features.LIMIT}). Use augment instead."
        )
    images = computed or images
    sides = {}
    for side in ("train", "validation"):
        split, sets = getattr(splits, side), images[side]
        seen = sets[0] if len(sets) == 1 else Joined(sets)
        labels, names = np.tile(split.labels, len(sets)), split.files * len(sets)
        sides[side] = replace(split, images=seen, labels=labels, files=names)
    network = model if divided is None or computed is None else divided.head
    return Subject(network, **sides, tests={which: images[which][0] for which in ("clean", "perturbed")})


def _features(divided: features.Cut, images: dict[str, list[Any]], spec: Spec) -> dict[str, list[Any]] | None:
    """The trunk's outputs in place of images; None when they can't be kept."""
    own = spec.key if spec.slim else f"{spec.model} {spec.initializer} {spec.seed}"
    if not divided.trunk.weights:
        own = files.digest([layer.get_config() for layer in divided.trunk.layers[1:]])
    data = f"{spec.data} {perturb.VERSION}"
    result: dict[str, list[Any]] = {}
    for side, sets in images.items():
        for number, pixels in enumerate(sets):
            name = f"{side}{number or ''}"
            found = features.load(divided, pixels, data, name, spec.weights or own, spec.preprocessing)
            if found is None:
                return None
            result.setdefault(side, []).append(found)
    return result
