"""From a source of images to a seeded split, decoded pixels and tf.data pipelines."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from riceutils import arrays, files
from riceutils.manifest import manifest, parallel
from riceutils.models import pretrained
from riceutils.sources import DataError, Source, decode, open_source

if TYPE_CHECKING:
    import tensorflow as tf

SIDES = ("train", "validation", "test")
FRACTIONS = {"validation": 0.1, "test": 0.1}  # 60,000 / 7,500 / 7,500 of the published 75,000
DECODING = "pil-bilinear-antialias-1"  # part of the fingerprint: name it anew when decoding changes pixels
IN_MEMORY = 1 << 30  # bytes; larger sets stay on disk, memory-mapped


def inputs(images: np.ndarray, preprocessing: str) -> np.ndarray:
    """What a network takes: preprocessed images, or features as they are."""
    return pretrained.preprocess(images, preprocessing) if images.dtype == np.uint8 else images.astype(np.float32)


@dataclass(frozen=True)
class Split:
    """One side of the data: ``images`` uint8 (N, size, size, 3), or features of them, float16, which no
    preprocessing touches; ``labels`` int64 (N,), ``files`` (N,). ``soft`` float32 (N, classes), if given, are the
    probabilities that training aims at in place of the labels."""

    images: np.ndarray = field(repr=False)
    labels: np.ndarray = field(repr=False)
    files: list[str] = field(repr=False)
    classes: list[str]
    soft: np.ndarray | None = field(default=None, repr=False)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def targets(self) -> np.ndarray:
        """What training aims at, float32 (N, classes): the soft labels, else one-hot ones."""
        return np.eye(len(self.classes), dtype=np.float32)[self.labels] if self.soft is None else self.soft

    def evenly(self, images: int) -> np.ndarray:
        """Indices of at most so many images, evenly from all classes, which lie one behind the other."""
        return np.linspace(0, len(self) - 1, min(images, len(self))).astype(int)

    def arrays(self, rows: np.ndarray, preprocessing: str = "rgb") -> tuple[np.ndarray, np.ndarray]:
        """What a network takes for some rows, preprocessed images or features as they are, and their targets."""
        return inputs(self.images[rows], preprocessing), self.targets[rows]

    def order(self, seed: int, epoch: int) -> np.ndarray:
        """The order of the images in ``epoch`` (0-based), a function of ``(seed, epoch)`` only."""
        return np.random.default_rng((seed, epoch)).permutation(len(self))

    def pipeline(self, batch_size: int = 32, preprocessing: str = "rgb") -> tf.data.Dataset:
        """One pass in fixed order: ``(preprocessed images, float32; targets)``."""
        import tensorflow as tf

        return self._batches(tf.data.Dataset.range(len(self)).batch(batch_size), preprocessing)

    def training(
        self,
        batch_size: int,
        seed: int,
        first_epoch: int = 0,
        augment: Callable[[Any, Any, int], Any] | None = None,
        preprocessing: str = "rgb",
    ) -> tf.data.Dataset:
        """Endless shuffled epochs, ``ceil(N / batch_size)`` batches each, starting with ``first_epoch``.

        The order of an epoch depends on ``(seed, epoch)`` only, so that a resumed training sees the batches that
        an uninterrupted one would have seen. ``augment(images_uint8, image_indices, epoch)`` works on a batch.
        """
        import tensorflow as tf

        def epoch_batches(epoch: tf.Tensor) -> tf.data.Dataset:
            order = tf.numpy_function(lambda e: self.order(seed, int(e)), [epoch], tf.int64)
            order.set_shape([len(self)])
            indices = tf.data.Dataset.from_tensor_slices(order).batch(batch_size)
            return indices.map(lambda batch: (batch, epoch))

        epochs = tf.data.Dataset.counter(start=first_epoch, dtype=tf.int64).flat_map(epoch_batches)
        return self._batches(epochs, preprocessing, augment)

    def _batches(
        self, indices: tf.data.Dataset, preprocessing: str, augment: Callable | None = None
    ) -> tf.data.Dataset:
        import tensorflow as tf

        targets = tf.constant(self.targets)

        def fetch(batch: tf.Tensor, epoch: tf.Tensor | None = None) -> tuple[tf.Tensor, tf.Tensor]:
            def gather(rows: np.ndarray, number: int) -> np.ndarray:
                images = self.images[rows]
                return augment(images, rows, int(number)) if augment is not None else images

            number = tf.constant(-1, tf.int64) if epoch is None else epoch
            images = tf.numpy_function(gather, [batch, number], tf.as_dtype(self.images.dtype))
            images.set_shape([None, *self.images.shape[1:]])
            aims = tf.gather(targets, batch)
            if images.dtype != tf.uint8:
                return tf.cast(images, tf.float32), aims
            return pretrained.preprocess(images, preprocessing), aims

        # All that tf.data could tune is set here, and on one core its tuning makes every step wait.
        options = tf.data.Options()
        options.autotune.enabled = False
        return indices.map(fetch, num_parallel_calls=2, deterministic=True).prefetch(2).with_options(options)


@dataclass(frozen=True)
class Splits:
    """Train, validation and test of one source; ``manifest`` has a row per file with its ``split`` (or none).

    ``fingerprint`` identifies the pixels, their order and the split: two loads with the same one are the same data.
    """

    train: Split
    validation: Split
    test: Split
    classes: list[str]
    manifest: pd.DataFrame = field(repr=False)
    fingerprint: str
    source: Source = field(repr=False)
    image_size: int

    def examples(self, size: int) -> np.ndarray:
        """The first test image of each class, decoded at ``size``: uint8 (classes, size, size, 3).

        The same pictures in every figure of a build, whatever size its models train at.
        """
        rows = [int(np.flatnonzero(self.test.labels == number)[0]) for number in range(len(self.classes))]
        names = [self.test.files[row] for row in rows]
        return np.stack([np.asarray(decode(self.source.read(name), name, size)) for name in names])

    @property
    def kind(self) -> str:
        """``"synthetic"`` or ``"real"``: which of the two a figure was measured on."""
        return "synthetic" if self.source.name == "synthetic" else "real"


def load(
    source: str | Path,
    image_size: int = 224,
    images_per_class: int | Sequence[int] | None = None,
    seed: int = 0,
    *,
    skip_unreadable: bool = False,
) -> Splits:
    """Load images, split and decoded once.

    ``source``: ``"synthetic"`` (or ``"rice"``), ``"kaggle"``, a folder of classes or a zip of one, or what
    :func:`riceutils.arrays.open_source` takes. ``images_per_class``: a number, of which a tenth goes to validation
    and a tenth to test, or ``(train, validation, test)``; None takes all. The split is stratified, drawn by ``seed``,
    and keeps exact duplicates (same bytes) on one side; a set's own test images stay its test images.
    Pixels are decoded once to uint8 at ``image_size`` and kept in the cache folder.

    Raises ``DataError`` (a ``ValueError``) naming the file, class or number that does not fit.
    """
    counts = _counts(images_per_class)
    wanted = None if counts is None else counts if isinstance(counts, int) else sum(counts)
    if arrays.knows(source):
        opened = arrays.open_source(source, image_size)
    else:
        opened = open_source("synthetic" if source == "rice" else source, images_per_class=wanted, seed=seed)
    table = manifest(opened, skip_unreadable=skip_unreadable)
    if gone := sorted(set(opened.classes) - set(table["class"])):
        raise DataError(f"Class {gone[0]!r} has no readable image. Repair its files, or remove the class.")
    table["split"] = split(table, counts, seed, opened.test)
    used = {side: table[table["split"] == side] for side in SIDES}
    chosen = pd.concat(used.values())
    content = [image_size, DECODING, chosen[["class", "sha256", "split"]].values.tolist()]
    fingerprint = files.digest(content)
    pixels = _pixels(opened, chosen["file"].tolist(), image_size, fingerprint)
    classes = opened.classes
    sides, start = {}, 0
    for side, rows in used.items():
        labels = rows["class"].map(classes.index).to_numpy(np.int64)
        sides[side] = Split(pixels[start : start + len(rows)], labels, rows["file"].tolist(), classes)
        start += len(rows)
    return Splits(
        **sides,
        classes=classes,
        manifest=table,
        fingerprint=fingerprint,
        source=opened,
        image_size=image_size,
    )


def split(table: pd.DataFrame, counts: int | Sequence[int] | None, seed: int, test: Collection[str] = ()) -> pd.Series:
    """``train``, ``validation``, ``test`` or nothing for each row of the manifest; see :func:`load`.

    Files named in ``test``, if there are any, are the only ones to be tested on, and not used otherwise.
    """
    by_content = table.groupby("sha256")["class"].nunique()
    if (by_content > 1).any():
        twins = table[table["sha256"] == by_content.index[by_content > 1][0]]["file"].tolist()
        raise DataError(f"The same image lies in two classes: {twins[0]} and {twins[1]}. Remove the wrong one.")
    sides = pd.Series("", index=table.index)
    for number, (label, rows) in enumerate(table.groupby("class", sort=True)):
        own = rows["file"].isin(test)
        if test and not own.any():
            raise DataError(f"Class {label!r} has no image among the set's own test images. Add some, or remove it.")
        targets = _targets(str(label), len(rows), int(own.sum()), counts)
        rng = np.random.default_rng((seed, number))
        groups = [group.index for _, group in rows.groupby("sha256", sort=True)]
        remaining = dict(targets)
        for position in rng.permutation(len(groups)):
            group = groups[position]
            # Test first: it is the side whose size the intervals depend on.
            allowed: tuple[str, ...] = ("test", "validation", "train")
            if test and own[group].any():  # a training image that is also a test image is left out
                allowed, group = ("test",), group[own[group]]
            elif test:
                allowed = ("validation", "train")
            side = next((s for s in allowed if remaining[s] >= len(group)), None)
            if side is not None:
                sides.loc[group] = side
                remaining[side] -= len(group)
        for side in SIDES:
            if remaining[side] == targets[side]:
                raise DataError(f"Class {label!r} has so many exact duplicates that {side} stays empty. Remove some.")
    return sides


def _counts(images_per_class: int | Sequence[int] | None) -> int | tuple[int, int, int] | None:
    if images_per_class is None or isinstance(images_per_class, int):
        if isinstance(images_per_class, int) and images_per_class < 3:
            raise DataError(f"images_per_class is {images_per_class}; each class needs at least 3, one for each side.")
        return images_per_class
    counts = tuple(int(count) for count in images_per_class)
    if len(counts) != 3 or min(counts) < 1:
        raise DataError(
            f"images_per_class is {list(counts)}; expected one number, or train, validation, test, each at least 1."
        )
    return counts[0], counts[1], counts[2]


def _targets(label: str, available: int, own: int, counts: int | Sequence[int] | None) -> dict[str, int]:
    """Images of a class on each side; ``own`` of the ``available`` are the set's own test images, if it has any."""
    if isinstance(counts, Sequence):
        wanted, targets = sum(counts), dict(zip(SIDES, counts, strict=True))
    else:
        wanted = available if counts is None else counts
        targets = {side: max(1, round(wanted * share)) for side, share in FRACTIONS.items()}
        if own and counts is None:
            targets = {"validation": max(1, round((available - own) * FRACTIONS["validation"])), "test": own}
        targets["train"] = wanted - sum(targets.values())
    if available < max(wanted, 3) or (own and (own < targets["test"] or available - own < wanted - targets["test"])):
        kinds = f" ({available - own} to train and validate, {own} to test)" if own else ""
        raise DataError(
            f"Class {label!r} has {available} usable image{'s' * (available != 1)}{kinds}; {max(wanted, 3)} are "
            "needed. Add images, or lower images_per_class."
        )
    return targets


def _pixels(source: Source, names: list[str], size: int, fingerprint: str) -> np.ndarray:
    """uint8 (N, size, size, 3), decoded once into the cache folder; memory-mapped when over ``IN_MEMORY``."""
    target = files.home() / "images" / f"{fingerprint}.npy"
    with files.once(target) as missing:
        if missing:
            _decode_all(source, names, size, target)
    return np.load(target, mmap_mode="r" if target.stat().st_size > IN_MEMORY else None)


def _decode_all(source: Source, names: list[str], size: int, target: Path) -> None:
    with files.replacing(target) as temporary:
        array = np.lib.format.open_memmap(temporary, "w+", np.uint8, (len(names), size, size, 3))

        def store(row: int) -> None:
            array[row] = decode(source.read(names[row]), names[row], size)

        parallel(store, range(len(names)), "Decoding")
        array.flush()
