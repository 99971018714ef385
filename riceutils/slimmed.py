"""From a finished run, or a user's own Keras model, to a lighter network that is trained on."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np

from riceutils import channels, models, slimming, training
from riceutils.data import Split, Splits
from riceutils.models import pretrained
from riceutils.runs import Run, Spec


@dataclass(frozen=True)
class Parent:
    """What is slimmed: ``name`` and ``key`` say which it is, ``epochs`` how long it was trained (0: not known).

    ``settings`` are those fields of its spec that what is left of it is trained with. ``data`` is the fingerprint of
    the images that a run was trained on, ``classes`` names theirs; None of a file.
    """

    name: str
    key: str
    network: keras.Model
    settings: dict[str, Any]
    epochs: int = 0
    data: str | None = None
    classes: list[str] | None = None


SETTINGS = {
    "preprocessing", "weights", "initializer", "learning_rate", "batch_size", "augment", "copies", "schedule",
}  # fmt: skip


def parent(source: Run | str | Path, preprocessing: str = "rgb") -> Parent:
    """A run, or the path of a ``.keras`` file whose network takes pixels under ``preprocessing``.

    Raises ``ValueError`` when the file is no Keras model with one square image as its input and a softmax as its
    output, or the run's network has auxiliary heads, ``FileNotFoundError`` when a run's weights were not kept.
    """
    if isinstance(source, Run):
        network = source.model()
        if len(network.outputs) > 1:
            raise ValueError(f"{source.name} has auxiliary heads; only a network with one output can be slimmed.")
        spec, epochs = source.spec, int(source.history["epoch"].max())  # 0 where it was only cut
        settings = spec.model_dump(include=SETTINGS)
        return Parent(spec.model, spec.key, network, settings, epochs, spec.data, source.classes)
    path = Path(source).expanduser()
    try:
        network = keras.models.load_model(path, compile=False)
    except (ValueError, OSError, TypeError) as error:
        raise ValueError(f"{path} is not a Keras model ({error}). Save it with model.save('name.keras').") from error
    network = channels.follow(network).model  # what can't be cut is named before images are loaded
    shape = network.input_shape
    if not isinstance(shape, tuple) or len(shape) != 4 or shape[1] != shape[2] or shape[1] is None:
        raise ValueError(f"{path} takes {shape}; expected one square image, (None, size, size, channels).")
    wanted = pretrained.preprocess(np.zeros((1, 3)), preprocessing).shape[-1]
    if shape[-1] != wanted:
        raise ValueError(
            f"{path} takes images of {shape[-1]} channels, the preprocessing {preprocessing!r} gives {wanted}. "
            "Name another one, such as grey for one channel."
        )
    last = [tensor._keras_history.operation for tensor in network.outputs]
    vector = len(last) == 1 and len(network.output_shape) == 2
    if not vector or getattr(getattr(last[0], "activation", None), "__name__", "") != "softmax":
        ends = ", ".join(f"{layer.name!r} ({type(layer).__name__})" for layer in last)
        raise ValueError(f"{path} ends in {ends}; one layer with a softmax, the probabilities of an image, is needed.")
    key = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    settings = {"preprocessing": preprocessing, "learning_rate": 1e-3, "batch_size": 32}
    return Parent(path.stem, key, network, settings)


def probe(split: Split, images: int) -> np.ndarray:
    """At most ``images`` of a split, evenly from its classes: uint8 (N, H, W, 3)."""
    return np.asarray(split.images[split.evenly(images)])


def slim(
    source: Parent,
    splits: Splits,
    criterion: str,
    budget: dict[str, float] | None = None,
    *,
    epochs: int,
    layers: Sequence[str] | None = None,
    images: int = 500,
    seed: int = 0,
    scratch: bool = False,
) -> Run:
    """Cut ``source`` (see :func:`riceutils.slimming.select`), train what is left, and save it as a run.

    ``epochs`` of training follow the cut, with the parent's settings; the best of them on the validation images is
    kept. Without any, the cut network is measured as it is. ``images`` is how many training images the criterion
    sees. With ``scratch`` the same small network starts from fresh weights instead and gets the parent's epochs as
    well (not those of what the parent was cut from): what slimming has to beat. The run's record names parent,
    criterion, budget and probe set; it is loaded if it is in the cache. Raises ``ValueError`` when the network and the
    data do not go together, or for what ``select`` refuses.
    """
    if source.network.input_shape[1] != splits.image_size:
        raise ValueError(
            f"{source.name} takes images of {source.network.input_shape[1]} px, the data were loaded at "
            f"{splits.image_size}. Load them at that size."
        )
    if source.network.output_shape[-1] != len(splits.classes):
        raise ValueError(
            f"{source.name} tells {source.network.output_shape[-1]} classes apart, the data have {len(splits.classes)}."
        )
    if source.classes not in (None, splits.classes) or source.data not in (None, splits.fingerprint):
        raise ValueError(
            f"{source.name} was trained on other images or another split of them; it may have seen some of these test "
            "images. Load the images that it was trained on, as many of each class, at its size."
        )
    frozen = {layer.name for layer in source.network.layers if layer.weights and not layer.trainable_weights}
    whole = layers is not None and not frozen & set(layers)  # the layers whose weights were pretrained
    spec = Spec(
        model=source.name,
        data=splits.fingerprint,
        image_size=splits.image_size,
        classes=len(splits.classes),
        epochs=epochs + (source.epochs if scratch else 0),
        patience=epochs + source.epochs,
        seed=seed,
        **source.settings | ({} if whole else {"weights": None}),
        slim={
            "parent": source.key,
            "criterion": criterion,
            "budget": dict(budget or {}),
            "layers": None if layers is None else list(layers),
            "images": images,
            "scratch": scratch,
        },
    )

    return training.train_or_load(spec, splits, start=partial(_start, source, splits, spec))


def _start(source: Parent, splits: Splits, spec: Spec) -> keras.Model:
    """The network that training starts from: what the cut leaves, or its shape with fresh weights."""
    how = spec.slim
    pixels = probe(splits.train, how["images"])
    options = {"layers": how["layers"], "preprocessing": spec.preprocessing, "seed": spec.seed}
    cut = slimming.select(source.network, pixels, how["criterion"], how["budget"] or None, **options)
    network = slimming.apply(source.network, cut)
    if how["scratch"]:
        frozen = [layer for layer in network.layers if layer.weights and not layer.trainable_weights]
        kept = {layer.name: layer.get_weights() for layer in frozen}
        keras.utils.set_random_seed(spec.seed)
        network = keras.models.clone_model(network)  # a clone starts from fresh weights
        if "initializer" in source.settings:  # a file's layers know their own
            models.initialise(network, spec.initializer, spec.seed)
        for name, weights in kept.items():
            network.get_layer(name).set_weights(weights)
    return network
