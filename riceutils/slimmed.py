"""From a finished run, or a user's own Keras model, to a lighter network that is trained on."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd

from riceutils import slimming, training
from riceutils.data import Split, Splits
from riceutils.runs import Run, Spec


@dataclass(frozen=True)
class Parent:
    """What is slimmed: ``name`` and ``key`` say which it is, ``epochs`` how long it was trained (0: not known)."""

    name: str
    key: str
    network: keras.Model
    preprocessing: str
    epochs: int


def parent(source: Run | str | Path, preprocessing: str = "rgb") -> Parent:
    """A run, or the path of a ``.keras`` file whose network takes pixels under ``preprocessing``.

    Raises ``ValueError`` when the file is no Keras model with one square image as its input, ``FileNotFoundError``
    when a run's weights were not kept.
    """
    if isinstance(source, Run):
        spec = source.spec
        return Parent(spec.model, spec.key, source.model(), spec.preprocessing, len(source.history))
    path = Path(source).expanduser()
    try:
        network = keras.models.load_model(path, compile=False)
    except (ValueError, OSError, TypeError) as error:
        raise ValueError(f"{path} is not a Keras model ({error}). Save it with model.save('name.keras').") from error
    shape = network.input_shape
    if not isinstance(shape, tuple) or len(shape) != 4 or shape[1] != shape[2] or shape[1] is None:
        raise ValueError(f"{path} takes {shape}; expected one square image, (None, size, size, channels).")
    key = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    return Parent(path.stem, key, network, preprocessing, 0)


def probe(split: Split, images: int) -> np.ndarray:
    """At most ``images`` of a split, evenly from its classes: uint8 (N, H, W, 3)."""
    rows = np.linspace(0, len(split) - 1, min(images, len(split))).astype(int)
    return np.asarray(split.images[rows])


def plan(source: Parent, splits: Splits, criterion: str, budget: dict[str, float], images: int, seed: int) -> Any:
    """See :func:`riceutils.slimming.select`, on so many of the training images."""
    pixels = probe(splits.train, images)
    return slimming.select(
        source.network, pixels, criterion, budget or None, preprocessing=source.preprocessing, seed=seed
    )


def slim(
    source: Parent,
    splits: Splits,
    criterion: str,
    budget: dict[str, float] | None = None,
    *,
    epochs: int,
    images: int = 500,
    seed: int = 0,
    batch_size: int = 32,
    learning_rate: float = 1e-3,
    scratch: bool = False,
    progress: bool = True,
) -> Run:
    """Cut ``source`` (see :func:`riceutils.slimming.select`), train what is left, and save it as a run.

    ``epochs`` of training follow the cut; the best of them on the validation images is kept. With ``scratch`` the
    same small network starts from fresh weights instead and gets the parent's epochs as well: what slimming has to
    beat. The run's record names parent, criterion, budget and probe set; it is loaded if it is in the cache.
    """
    spec = Spec(
        model=source.name,
        data=splits.fingerprint,
        image_size=splits.image_size,
        classes=len(splits.classes),
        epochs=epochs + (source.epochs if scratch else 0),
        batch_size=batch_size,
        learning_rate=learning_rate,
        patience=epochs + source.epochs,
        seed=seed,
        preprocessing=source.preprocessing,
        slim={
            "parent": source.key,
            "criterion": criterion,
            "budget": dict(budget or {}),
            "images": images,
            "scratch": scratch,
        },
    )
    if source.network.input_shape[1] != splits.image_size:
        raise ValueError(
            f"{source.name} takes images of {source.network.input_shape[1]} px, the data were loaded at "
            f"{splits.image_size}. Load them at that size."
        )
    if source.network.output_shape[-1] != len(splits.classes):
        raise ValueError(
            f"{source.name} tells {source.network.output_shape[-1]} classes apart, the data have {len(splits.classes)}."
        )
    start = partial(_start, source, splits, criterion, dict(budget or {}), images, seed, scratch)
    return training.train_or_load(spec, splits, start=start, progress=progress)


def _start(
    source: Parent, splits: Splits, criterion: str, budget: dict[str, float], images: int, seed: int, scratch: bool
) -> keras.Model:
    cut: pd.DataFrame = plan(source, splits, criterion, budget, images, seed)
    network = slimming.apply(source.network, cut)
    if scratch:
        keras.utils.set_random_seed(seed)
        network = keras.models.clone_model(network)  # a clone starts from fresh weights
    return network
