"""Training as the study's protocol says, made resumable: a run that was interrupted ends as if it had not been."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
from filelock import FileLock
from tqdm import tqdm
from tqdm.keras import TqdmCallback

from riceutils import activations, evaluation, files, flops, models, perturb, runs
from riceutils.data import Splits
from riceutils.runs import Run, Spec


class TrainingError(RuntimeError):
    """Training cannot go on; the message says at which epoch and what to change."""


def train_or_load(spec: Spec, splits: Splits, *, tensorboard: str = "", progress: bool = True) -> Run:
    """Return the run of ``spec``: loaded if it is in the cache, else resumed or trained, measured and saved.

    Protocol: Adam, categorical cross-entropy, early stopping on validation loss that restores the best epoch's
    weights. ``tensorboard`` is a log folder, or "" for none. Raises ``TrainingError`` when the loss is no longer
    finite, ``ValueError`` when the spec does not fit the data.
    """
    if (spec.data, spec.classes) != (splits.fingerprint, len(splits.classes)):
        raise ValueError("The spec was made for other data. Make it from the splits that it is trained on.")
    finished = runs.find(spec)
    if finished is not None:
        return finished
    runs.code_hash()  # of the code that trains, not of what it may have become when training ends
    folder = files.home() / "runs" / f"{spec.model}-{spec.key}"
    state = folder.with_name(f".{folder.name}.state.npz")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(state.with_suffix(".lock")):  # a second process waits, then loads
        finished = runs.find(spec)
        if finished is None:
            model = new_model(spec)
            history, stopped = _fit(model, spec, splits, state, tensorboard, progress)
            _save(folder, model, spec, splits, history, stopped)
            state.unlink(missing_ok=True)
            finished = Run(folder)
    return finished


def new_model(spec: Spec) -> keras.Model:
    """A freshly initialised, compiled model; its weights depend on the spec's seed only."""
    keras.utils.set_random_seed(spec.seed)
    model = models.build(spec.model, (spec.image_size, spec.image_size, 3), spec.classes)
    model.compile(keras.optimizers.Adam(spec.learning_rate), loss="categorical_crossentropy", metrics=["accuracy"])
    return model


def estimate(spec: Spec, images: int, validation: int) -> float:
    """Seconds that training would take for all of the spec's epochs, from a few timed steps on noise.

    An upper bound where early stopping ends sooner.
    """
    model = new_model(spec)
    rng = np.random.default_rng(0)
    x = rng.random((spec.batch_size, spec.image_size, spec.image_size, 3), np.float32)
    y = keras.utils.to_categorical(rng.integers(0, spec.classes, spec.batch_size), spec.classes)
    model.train_on_batch(x, y)
    model.test_on_batch(x, y)
    start = time.perf_counter()
    for _ in range(3):
        model.train_on_batch(x, y)
    step = (time.perf_counter() - start) / 3
    start = time.perf_counter()
    model.test_on_batch(x, y)
    check = time.perf_counter() - start
    return spec.epochs * (math.ceil(images / spec.batch_size) * step + math.ceil(validation / spec.batch_size) * check)


class _Checkpoint(keras.callbacks.EarlyStopping):
    """Early stopping whose memory, with weights, optimiser and history, is saved after every epoch."""

    def __init__(self, spec: Spec, path: Path) -> None:
        super().__init__(monitor="val_loss", mode="min", patience=spec.patience, restore_best_weights=True)
        self.spec, self.path = spec, path
        self.history: list[dict[str, float]] = []
        self.resumed: dict[str, Any] | None = None
        self.stopped = "epoch limit"

    def load(self, model: keras.Model) -> None:
        """Take up the saved state, if there is one, in ``model``, its optimiser and this callback."""
        if not self.path.exists():
            return
        model.optimizer.build(model.trainable_variables)
        with np.load(self.path, allow_pickle=False) as stored:
            for prefix, variables in (("model", model.variables), ("optimizer", model.optimizer.variables)):
                for number, variable in enumerate(variables):
                    variable.assign(stored[f"{prefix}{number}"])
            best = [stored[f"best{number}"] for number in range(len(model.get_weights()))]
            wait, best_epoch = (int(value) for value in stored["stopping"])
            self.resumed = {
                "best": float(stored["loss"]),
                "best_weights": best,
                "wait": wait,
                "best_epoch": best_epoch,
            }
            rows = pd.DataFrame(stored["history"], columns=stored["columns"].tolist())
        self.history = rows.to_dict("records")  # type: ignore[assignment]

    @property
    def done(self) -> bool:
        """Whether the saved state had ended already: killed after the last epoch, before saving the run."""
        return self.resumed is not None and self.resumed["wait"] >= self.patience

    def on_train_begin(self, logs: dict | None = None) -> None:
        super().on_train_begin(logs)
        for name, value in (self.resumed or {}).items():
            setattr(self, name, value)

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        self._start = time.perf_counter()

    def on_batch_end(self, batch: int, logs: dict | None = None) -> None:
        if logs and not math.isfinite(logs.get("loss", 0.0)):
            self.path.unlink(missing_ok=True)
            raise TrainingError(
                f"{self.spec.model}: the loss became {logs['loss']} in epoch {len(self.history) + 1}. "
                f"Lower learning_rate (now {self.spec.learning_rate:g}) or change the seed."
            )

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        super().on_epoch_end(epoch, logs)
        if self.model.stop_training:
            self.stopped = "early stopping"
        seconds = time.perf_counter() - self._start
        self.history.append({"epoch": epoch + 1, **{k: float(v) for k, v in (logs or {}).items()}, "seconds": seconds})
        spent = sum(row["seconds"] for row in self.history)
        if self.spec.time_limit and spent + seconds > 60 * self.spec.time_limit and not self.model.stop_training:
            self.model.stop_training, self.stopped = True, "time limit"
        self._store()

    def _store(self) -> None:
        rows = pd.DataFrame(self.history)
        arrays: dict[str, Any] = {
            "history": rows.to_numpy(np.float64),
            "columns": np.array(rows.columns.tolist()),
            "stopping": np.array([self.wait, self.best_epoch]),
            "loss": np.array(self.best),
        }
        for prefix, variables in (
            ("model", self.model.variables),
            ("optimizer", self.model.optimizer.variables),
        ):
            arrays |= {f"{prefix}{n}": np.asarray(v) for n, v in enumerate(variables)}
        arrays |= {f"best{n}": value for n, value in enumerate(self.best_weights)}
        with files.replacing(self.path) as temporary:
            np.savez(temporary, **arrays)


def _fit(
    model: keras.Model, spec: Spec, splits: Splits, state: Path, tensorboard: str, progress: bool
) -> tuple[pd.DataFrame, str]:
    checkpoint = _Checkpoint(spec, state)
    checkpoint.load(model)
    first = len(checkpoint.history)
    if first >= spec.epochs or checkpoint.done:
        model.set_weights(checkpoint.resumed["best_weights"])  # type: ignore[index]
        return pd.DataFrame(checkpoint.history), "early stopping" if checkpoint.done else "epoch limit"
    callbacks: list[keras.callbacks.Callback] = [checkpoint]
    if tensorboard:
        callbacks.append(keras.callbacks.TensorBoard(Path(tensorboard) / f"{spec.model}-{spec.key}"))
    if progress:
        callbacks.append(TqdmCallback(epochs=spec.epochs, verbose=1, tqdm_class=tqdm, mininterval=1))
    augment = None
    if spec.augment:

        def augment(images: np.ndarray, rows: np.ndarray, epoch: int) -> np.ndarray:
            # A seed of its own for every epoch, and never 0, the seed of the stored test perturbation.
            return perturb.apply(images, perturb.draws(rows, seed=1 + spec.seed * 100_000 + epoch))

    model.fit(
        splits.train.training(spec.batch_size, spec.seed, first, augment),
        steps_per_epoch=math.ceil(len(splits.train) / spec.batch_size),
        shuffle=False,  # the pipeline has shuffled already
        validation_data=splits.validation.pipeline(spec.batch_size),
        initial_epoch=first,
        epochs=spec.epochs,
        callbacks=callbacks,
        verbose=0,
    )
    return pd.DataFrame(checkpoint.history), checkpoint.stopped


def perturbed_test(splits: Splits) -> np.ndarray:
    """The test images under the published perturbation: drawn once, kept, the same for every model."""
    target = files.home() / "images" / f"{splits.fingerprint}-perturbed.npy"
    with files.once(target) as missing:
        if missing:
            with files.replacing(target) as temporary:
                np.save(temporary, perturb.published(splits.test.images))
    return np.load(target, mmap_mode="r")


def predict(model: keras.Model, images: np.ndarray, batch_size: int = 64) -> np.ndarray:
    """Class probabilities float32 (N, classes) of uint8 ``images`` (N, H, W, 3)."""
    pieces = [images[start : start + batch_size] for start in range(0, len(images), batch_size)]
    return np.concatenate([model.predict_on_batch(piece.astype(np.float32) / 255.0) for piece in pieces])


def _save(folder: Path, model: keras.Model, spec: Spec, splits: Splits, history: pd.DataFrame, stopped: str) -> None:
    labels = splits.test.labels
    start = time.perf_counter()
    probabilities: dict[str, Any] = {"clean": predict(model, splits.test.images)}
    seconds = time.perf_counter() - start
    probabilities["perturbed"] = predict(model, perturbed_test(splits))
    filters = activations.measure(model, splits.test.images)
    best = int(history["val_loss"].to_numpy().argmin())
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
        "flops": flops.count(models.build(spec.model, classes=spec.classes)).total,
        "best_epoch": best + 1,
        "stopped": stopped,
        "best": history.drop(columns=["epoch", "seconds"]).iloc[best].to_dict(),
        "metrics": metrics,
        "seconds": {"training": float(history["seconds"].sum()), "test_per_image": seconds / len(labels)},
        **runs.environment(),
    }
    with files.replacing(folder) as temporary:
        temporary.mkdir()
        history.to_csv(temporary / "history.csv", index=False, float_format="%.6g")
        filters.to_csv(temporary / "filters.csv", index=False, float_format="%.6g")
        np.savez_compressed(temporary / "predictions.npz", labels=labels, **probabilities)
        bare = models.build(spec.model, model.input_shape[1:], spec.classes)  # without the optimiser's memory
        bare.set_weights(model.get_weights())
        bare.save_weights(temporary / runs.WEIGHTS)
        files.write_json(temporary / "record.json", record)
