"""What watches over a training: early stopping that can be resumed, the time limit, and signs of death."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd

from riceutils import files, gradients
from riceutils.runs import Spec

# A training is given up as dead after so many epochs in a row at the loss of guessing, when the classes agree on less
# than this share of their gradient. Shorter waits and larger shares end trainings that would have woken up.
DEAD_AFTER, DEAD_SHARE = 5, 1e-3


class TrainingError(RuntimeError):
    """Training cannot go on; the message says at which epoch and what to change."""


class Checkpoint(keras.callbacks.EarlyStopping):
    """Early stopping whose memory, with weights, optimiser and history, is saved after every epoch."""

    def __init__(self, spec: Spec, path: Path, probe: tuple[np.ndarray, np.ndarray]) -> None:
        super().__init__(monitor="val_loss", mode="min", patience=spec.patience, restore_best_weights=True)
        self.spec, self.path, self.probe = spec, path, probe
        self.gradient_share: float | None = None
        self.history: list[dict[str, float]] = []
        self.resumed: dict[str, Any] | None = None
        self.stopped = "epoch limit"

    def load(self, model: keras.Model) -> None:
        """Take up the saved state, if there is one, in ``model``, its optimiser and this callback."""
        if not self.path.exists():
            return
        model.optimizer.build(model.trainable_variables)
        with np.load(self.path, allow_pickle=False) as stored:
            shapes = [
                stored[f"model{number}"].shape for number in range(sum(key.startswith("model") for key in stored))
            ]
            if shapes != [tuple(variable.shape) for variable in model.variables]:
                print(f"{self.spec.name}: what was saved is of another part of the network; training begins anew.")
                return
            for prefix, variables in (("model", model.variables), ("optimizer", model.optimizer.variables)):
                for number, variable in enumerate(variables):
                    variable.assign(stored[f"{prefix}{number}"])
            best = [stored[f"best{number}"] for number in range(len(model.get_weights()))]
            self.resumed = {"best": float(stored["loss"]), "best_weights": best}
            self.resumed |= dict(zip(("wait", "best_epoch"), stored["stopping"].tolist(), strict=True))
            rows = pd.DataFrame(stored["history"], columns=stored["columns"].tolist())
            self.stopped = str(stored["stopped"])
            self.gradient_share = None if np.isnan(share := float(stored["share"])) else share
        self.history = rows.to_dict("records")  # type: ignore[assignment]

    @property
    def done(self) -> bool:
        """Whether the saved state had ended already: killed after the last epoch, before saving the run."""
        return self.stopped != "epoch limit"

    def on_train_begin(self, logs: dict | None = None) -> None:
        super().on_train_begin(logs)
        for name, value in (self.resumed or {}).items():
            setattr(self, name, value)

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        self._start = time.perf_counter()

    def on_batch_end(self, batch: int, logs: dict | None = None) -> None:
        self._check((logs or {}).get("loss", 0.0))

    def _check(self, loss: float) -> None:
        if not math.isfinite(loss):
            self.path.unlink(missing_ok=True)
            raise TrainingError(
                f"{self.spec.model}: the loss became {loss} in epoch {len(self.history) + 1}. "
                f"Lower learning_rate (now {self.spec.learning_rate:g}) or change the seed."
            )

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        super().on_epoch_end(epoch, logs)
        self._check(self.best)  # the first epoch's own loss on validation images: nothing is better than NaN
        if self.model.stop_training:
            self.stopped = "early stopping"
        seconds = time.perf_counter() - self._start
        self.history.append({"epoch": epoch + 1, **{k: float(v) for k, v in (logs or {}).items()}, "seconds": seconds})
        spent = sum(row["seconds"] for row in self.history)
        if self.spec.time_limit and spent + seconds > 60 * self.spec.time_limit and not self.model.stop_training:
            self.model.stop_training, self.stopped = True, "time limit"
        self._look_for_death()
        self._store()

    def _look_for_death(self) -> None:
        """End a training that stays at the loss of guessing and whose gradient leads nowhere.

        A shorter one is judged when it ends, by its two epochs or more.
        """
        rows = pd.DataFrame(self.history)
        waited = min(DEAD_AFTER, self.spec.epochs, len(rows) if self.model.stop_training else DEAD_AFTER)
        waited = max(2, waited)
        if len(rows) < waited or not gradients.stuck(rows, self.spec.classes, waited):
            return
        share = gradients.gradient_share(self.model, *self.probe)
        self.gradient_share = None if np.isnan(share) else share
        if share < DEAD_SHARE:
            self.model.stop_training, self.stopped = True, "dead"

    def _store(self) -> None:
        rows = pd.DataFrame(self.history)
        arrays: dict[str, Any] = {
            "history": rows.to_numpy(np.float64),
            "columns": np.array(rows.columns.tolist()),
            "stopping": np.array([self.wait, self.best_epoch]),
            "loss": np.array(self.best),
            "stopped": np.array(self.stopped),
            "share": np.array(np.nan if self.gradient_share is None else self.gradient_share),
        }
        for prefix, variables in (
            ("model", self.model.variables),
            ("optimizer", self.model.optimizer.variables),
        ):
            arrays |= {f"{prefix}{n}": np.asarray(v) for n, v in enumerate(variables)}
        arrays |= {f"best{n}": value for n, value in enumerate(self.best_weights)}
        with files.replacing(self.path) as temporary:
            np.savez(temporary, **arrays)
