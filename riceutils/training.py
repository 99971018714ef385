"""Training as the study's protocol says, made resumable: a run that was interrupted ends as if it had not been."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
from filelock import FileLock
from tqdm import tqdm
from tqdm.keras import TqdmCallback

from riceutils import activations, evaluation, features, files, flops, models, perturb, runs, subjects
from riceutils.checkpoint import Checkpoint
from riceutils.data import Splits, inputs
from riceutils.models import pretrained
from riceutils.runs import Run, Spec
from riceutils.subjects import Subject

BATCH = 64  # images that are predicted at once
TIMED = 64  # test images that the time per image is taken from


def train_or_load(
    spec: Spec,
    splits: Splits,
    *,
    start: Callable[[], keras.Model] | None = None,
    teacher: Run | None = None,
    tensorboard: str = "",
    reuse: bool = True,
) -> Run:
    """Return the run of ``spec``: loaded if it is in the cache, else resumed or trained, measured and saved.

    Protocol: Adam, categorical cross-entropy, early stopping on validation loss that restores the best epoch's
    weights. Layers that are frozen are computed once if ``reuse`` (see :mod:`riceutils.features`), unless the images
    change from epoch to epoch. ``start`` builds the network, weights included, of a spec that the registry can't build.
    ``teacher`` is the run that ``spec.teacher`` names. ``tensorboard`` is a log folder, or "" for none. Raises
    ``TrainingError`` when the loss is no longer finite, ``ValueError`` when the spec fits neither data nor teacher.
    """
    named = spec.teacher.get("key")
    if named != (teacher and teacher.spec.key):
        way = f"the answers of {named}. Give that run as its teacher" if named else "the labels. Give it no teacher"
        raise ValueError(f"The spec learns {way}.")
    if (spec.data, spec.classes) != (splits.fingerprint, len(splits.classes)):
        raise ValueError("The spec was made for other data. Make it from the splits that it is trained on.")
    finished = runs.find(spec)
    if finished is not None:
        return finished
    runs.code_hash()  # of the code that trains, not of what it may have become when training ends
    folder = files.home() / "runs" / spec.name
    state = folder.with_name(f".{folder.name}.state.npz")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(state.with_suffix(".lock")):  # a second process waits, then loads
        finished = runs.find(spec)
        if finished is None:
            model = new_model(spec, start)
            subject = subjects.prepare(model, spec, splits, reuse and not spec.augment)
            learner = subject if teacher is None else _taught(subject, spec, teacher, splits)
            _compile(learner.network, spec, len(learner.train))
            history, stopped, share = _fit(learner, spec, state, tensorboard)
            _save(folder, model, subject, spec, splits, history, stopped, share)
            state.unlink(missing_ok=True)
            finished = Run(folder)
    return finished


def _taught(subject: Subject, spec: Spec, teacher: Run, splits: Splits) -> Subject:
    """The subject with the teacher's probabilities for its very images as its targets, both softened while training.

    Distillation (Hinton et al. 2015, arXiv 1503.02531). Validation is as ever: labels, nothing softened.
    """
    own = subjects.prepare(teacher.model(), teacher.spec.model_copy(update={"copies": spec.copies}), splits)
    said = predict(own.network, own.train.images, teacher.spec.preprocessing)  # type: ignore[arg-type]
    soften = Softened(spec.teacher["temperature"])
    network = keras.Model(subject.network.inputs, soften(subject.network.output))
    targets = replace(subject.train, soft=np.asarray(soften(said, training=True)))
    return replace(subject, network=network, train=targets)


class Softened(keras.layers.Layer):
    """Probabilities (..., classes) as if their logits had been divided by the temperature; so in training only."""

    def __init__(self, temperature: float) -> None:
        super().__init__()
        self.temperature = temperature

    def call(self, inputs: Any, training: bool = False) -> Any:
        if not training:
            return inputs
        soft = keras.ops.maximum(inputs, np.finfo(np.float32).tiny) ** (1 / self.temperature)
        return soft / keras.ops.sum(soft, axis=-1, keepdims=True)


def new_model(spec: Spec, start: Callable[[], keras.Model] | None = None) -> keras.Model:
    """A freshly initialised, compiled model; its weights depend on the spec's seed and pretrained weights only."""
    keras.utils.set_random_seed(spec.seed)
    build = start or partial(models.build, spec.model, spec.input_shape, spec.classes, spec.weights, **spec.options)
    model = build()
    if start is None and spec.initializer != Spec.model_fields["initializer"].default:
        backbone = models.architecture(spec.model).pretrained
        learned = pretrained.trunk(spec.weights, backbone) if spec.weights else ()
        models.initialise(model, spec.initializer, spec.seed, keep=learned)
    _compile(model, spec)
    return model


def _compile(model: keras.Model, spec: Spec, images: int = 1) -> None:
    rate = spec.learning_rate
    if spec.schedule == "cosine":
        rate = keras.optimizers.schedules.CosineDecay(rate, max(1, spec.epochs) * math.ceil(images / spec.batch_size))
    model.compile(keras.optimizers.Adam(rate), loss="categorical_crossentropy", metrics=["accuracy"])


def estimate(spec: Spec, images: int, validation: int) -> float:
    """Seconds that training would take for all of the spec's epochs, from a few timed steps on noise.

    An upper bound where early stopping ends sooner.
    """
    model = new_model(spec)
    divided = None if spec.augment else features.cut(model)
    rng = np.random.default_rng(0)
    x = rng.random((spec.batch_size, *spec.input_shape), np.float32)
    y = keras.utils.to_categorical(rng.integers(0, spec.classes, spec.batch_size), spec.classes)
    once = 0.0
    if divided is not None:
        x = divided.trunk.predict_on_batch(x)
        start = time.perf_counter()
        divided.trunk.predict_on_batch(rng.random((spec.batch_size, *model.input_shape[1:]), np.float32))
        once = (time.perf_counter() - start) * math.ceil((images + validation) / spec.batch_size)
        model = divided.head
        _compile(model, spec)
    model.train_on_batch(x, y)
    model.test_on_batch(x, y)
    start = time.perf_counter()
    for _ in range(3):
        model.train_on_batch(x, y)
    step = (time.perf_counter() - start) / 3
    start = time.perf_counter()
    model.test_on_batch(x, y)
    check = time.perf_counter() - start
    epoch = math.ceil(images / spec.batch_size) * step + math.ceil(validation / spec.batch_size) * check
    return once + spec.epochs * epoch


def _fit(subject: Subject, spec: Spec, state: Path, tensorboard: str) -> tuple[pd.DataFrame, str, float | None]:
    """Train; give the history, why it ended, and, if the loss sat at guessing, the gradient's share."""
    network, train, validation = subject.network, subject.train, subject.validation
    if not spec.epochs:
        return _untrained(subject, spec), "epoch limit", None
    checkpoint = Checkpoint(spec, state, train.arrays(train.evenly(64), spec.preprocessing))
    checkpoint.load(network)
    first = len(checkpoint.history)
    if first >= spec.epochs or checkpoint.done:
        network.set_weights(checkpoint.resumed["best_weights"])  # type: ignore[index]
        return pd.DataFrame(checkpoint.history), checkpoint.stopped, checkpoint.gradient_share
    bar = TqdmCallback(epochs=spec.epochs, verbose=1, tqdm_class=tqdm, mininterval=1)
    callbacks: list[keras.callbacks.Callback] = [checkpoint, bar]
    if tensorboard:
        callbacks.append(keras.callbacks.TensorBoard(Path(tensorboard) / spec.name))
    augment = None
    if spec.augment:

        def augment(images: np.ndarray, rows: np.ndarray, epoch: int) -> np.ndarray:
            # A seed of its own for every epoch, and never 0, the seed of the stored test perturbation.
            return perturb.apply(images, perturb.draws(rows, seed=1 + spec.seed * 100_000 + epoch))

    network.fit(
        train.training(spec.batch_size, spec.seed, first, augment, spec.preprocessing),
        steps_per_epoch=math.ceil(len(train) / spec.batch_size),
        shuffle=False,  # the pipeline has shuffled already
        validation_data=validation.pipeline(spec.batch_size, spec.preprocessing),
        initial_epoch=first,
        epochs=spec.epochs,
        callbacks=callbacks,
        verbose=0,
    )
    return pd.DataFrame(checkpoint.history), checkpoint.stopped, checkpoint.gradient_share


def _untrained(subject: Subject, spec: Spec) -> pd.DataFrame:
    """The history of a training without epochs: the network as it is, as epoch 0."""
    row = {"epoch": 0.0}
    for prefix, split in (("", subject.train), ("val_", subject.validation)):
        found = predict(subject.network, split.images, spec.preprocessing)
        row[f"{prefix}loss"] = evaluation.loss(found, split.labels)
        row[f"{prefix}accuracy"] = evaluation.accuracy(found, split.labels).value
    return pd.DataFrame([row | {"seconds": 0.0}])


def predict(model: keras.Model, images: np.ndarray, preprocessing: str = "rgb") -> Any:
    """Class probabilities float32 (N, classes) of uint8 ``images`` (N, H, W, 3), or of features, float16 (N, ...).

    A model with several named outputs gives a dictionary of them.
    """
    pieces = [images[start : start + BATCH] for start in range(0, len(images), BATCH)]
    results = [model.predict_on_batch(inputs(piece, preprocessing)) for piece in pieces]
    return keras.tree.map_structure(lambda *parts: np.concatenate(parts), *results)


def _save(
    folder: Path,
    model: keras.Model,
    subject: Subject,
    spec: Spec,
    splits: Splits,
    history: pd.DataFrame,
    stopped: str,
    gradient_share: float | None,
) -> None:
    labels = splits.test.labels
    probabilities: dict[str, Any] = {
        name: predict(subject.network, images, spec.preprocessing) for name, images in subject.tests.items()
    }
    piece = splits.test.images[:TIMED]
    predict(model, piece, spec.preprocessing)
    start = time.perf_counter()
    predict(model, piece, spec.preprocessing)
    seconds = time.perf_counter() - start
    filters = activations.measure(model, splits.test.images, spec.preprocessing)
    best = int(np.nanargmin(history["val_loss"].to_numpy()))  # the loss may end in NaN after a better epoch
    whole = model if spec.slim else models.build(spec.model, classes=spec.classes, **spec.options)
    metrics = {
        name: vars(evaluation.accuracy(p, labels)) | {"loss": evaluation.loss(p, labels)}
        for name, p in probabilities.items()
    }
    record = {
        "spec": spec.model_dump(),
        "key": spec.key,
        "training_version": runs.TRAINING_VERSION,
        "code": runs.code_hash(),
        "data": {
            "kind": splits.kind,
            "classes": splits.classes,
            "images": {side: len(getattr(splits, side)) for side in ("train", "validation", "test")},
        },
        "parameters": model.count_params(),
        "trainable_parameters": sum(int(np.prod(w.shape)) for w in model.trainable_weights),
        "flops": flops.count(whole).total,  # at the architecture's own size; of a slimmed one, at the run's
        "best_epoch": int(history["epoch"].iloc[best]),
        "stopped": stopped,
        "gradient_share": gradient_share,
        "features_reused": subject.network is not model,
        "best": history.drop(columns=["epoch", "seconds"]).iloc[best].to_dict(),
        "metrics": metrics,
        "seconds": {"training": float(history["seconds"].sum()), "test_per_image": seconds / len(piece)},
        **runs.environment(),
    }
    with files.replacing(folder) as temporary:
        temporary.mkdir()
        history.to_csv(temporary / "history.csv", index=False, float_format="%.6g")
        filters.to_csv(temporary / "filters.csv", index=False, float_format="%.6g")
        np.savez_compressed(temporary / "predictions.npz", labels=labels, **probabilities)
        # Saved without the optimiser's memory, which a clone of a compiled model would bring along.
        bare = type(model).from_config(model.get_config())
        if spec.slim:
            files.write_text(temporary / runs.ARCHITECTURE, bare.to_json())
        bare.set_weights(model.get_weights())
        bare.save_weights(temporary / runs.WEIGHTS)
        files.write_json(temporary / "record.json", record)
