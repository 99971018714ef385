"""Runs: trained models with everything needed to know what they are, kept in the cache folder.

A run's folder holds ``record.json``, ``history.csv``, ``filters.csv``, ``predictions.npz``, ``model.weights.h5``. It
appears by renaming, whole or not at all. Reference results are such folders in the package (weights under 1 MB).
"""

from __future__ import annotations

import difflib
import hashlib
import json
import os
import platform
import shutil
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict

from riceutils import config, files
from riceutils.evaluation import Interval

if TYPE_CHECKING:
    import keras

TRAINING_VERSION = 1  # raise by hand when training changes meaning: older runs are then not used any more
REFERENCE = files.PACKAGE / "results" / "reference"
WEIGHTS = "model.weights.h5"
ARCHITECTURE = "architecture.json"  # of networks that no registry knows: what slimming has left of another
GENERALISATION = "generalisation.csv"
COMMITTED_WEIGHTS = 1_000_000  # bytes; heavier weights stay in the cache
PUBLISHED = {"learning_rate": 1e-3, "initializer": "glorot_uniform"}  # of the Study's trainings: Keras's defaults
PACKAGES = ("tensorflow", "keras", "numpy", "pillow", "scikit-learn")


class Spec(BaseModel):
    """All that decides what a run is. Two equal specs on equal data are the same run."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    model: str
    data: str  # fingerprint: pixels, order and split
    image_size: int
    classes: int
    epochs: int
    batch_size: int
    learning_rate: float
    patience: int
    seed: int
    augment: bool = False
    initializer: str = "glorot_uniform"
    weights: str | None = None  # the resolved source of pretrained weights
    preprocessing: str = "rgb"
    time_limit: int = 0  # minutes; 0 is no limit
    options: dict[str, Any] = {}  # of the architecture
    copies: int = 0  # perturbed copies of each training image, drawn once
    schedule: str = "constant"  # of the learning rate: constant, or cosine to 0 over all epochs
    slim: dict[str, Any] = {}  # how it was cut from another network (see riceutils.slimmed); empty: it was not
    teacher: dict[str, Any] = {}  # key of the run whose answers it learns, and their temperature; empty: the labels

    @property
    def key(self) -> str:
        """16 hexadecimal digits from the spec and the training version.

        Fields at their default are left out, so that a field added later does not disown the runs made before.
        """
        return files.digest([TRAINING_VERSION, self.model_dump(exclude_defaults=True)])

    @property
    def name(self) -> str:
        """Of the run and its folder."""
        return f"{self.model}-{self.key}"

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of what the network sees."""
        return (self.image_size, self.image_size, 1 if self.preprocessing == "grey" else 3)

    @property
    def standard(self) -> bool:
        """Whether this is a run that stands for its architecture: no augmentation, pixels as its weights expect."""
        return not (self.augment or self.copies or self.slim or self.unexpected_pixels)

    @property
    def unexpected_pixels(self) -> bool:
        """Whether pretrained weights are fed RGB/255, as the Study did, not the pixels that they were trained on."""
        return self.weights is not None and self.preprocessing == "rgb"

    @property
    def adapted(self) -> bool:
        """Whether the initialiser or the learning rate is not the published one."""
        return any(getattr(self, name) != value for name, value in PUBLISHED.items())


@dataclass(frozen=True)
class Run:
    """A finished run, read from its folder."""

    folder: Path

    @cached_property
    def record(self) -> dict[str, Any]:
        return json.loads((self.folder / "record.json").read_text(encoding="utf-8"))

    @property
    def spec(self) -> Spec:
        return Spec(**self.record["spec"])

    @property
    def name(self) -> str:
        return self.spec.name

    @cached_property
    def history(self) -> pd.DataFrame:
        """A row per epoch: epoch (from 1), loss, accuracy, val_loss, val_accuracy, seconds."""
        return pd.read_csv(self.folder / "history.csv")

    @cached_property
    def filters(self) -> pd.DataFrame:
        """See :func:`riceutils.activations.measure`, over the whole clean test set."""
        return pd.read_csv(self.folder / "filters.csv")

    @cached_property
    def predictions(self) -> dict[str, np.ndarray]:
        """``labels`` (N,) and probabilities float32 (N, classes) under ``clean`` and ``perturbed``."""
        with np.load(self.folder / "predictions.npz") as stored:
            return dict(stored)

    @property
    def classes(self) -> list[str]:
        return self.record["data"]["classes"]

    @property
    def has_weights(self) -> bool:
        return (self.folder / WEIGHTS).exists()

    def check_weights(self) -> None:
        """Raises ``FileNotFoundError`` when only the figures were kept."""
        if not self.has_weights:
            raise FileNotFoundError(f"The weights of {self.name} were too large to be shipped. Train it to have them.")

    def accuracy(self, images: str = "clean") -> Interval:
        """Accuracy on the ``clean`` or the ``perturbed`` test images, with Wilson's interval."""
        return Interval(*(self.record["metrics"][images][name] for name in ("value", "low", "high", "n")))

    @property
    def dead(self) -> bool:
        """Whether training was given up: it stayed at the loss of guessing, its gradient led nowhere."""
        return self.record["stopped"] == "dead"

    @property
    def generalisation(self) -> pd.DataFrame | None:
        """See :func:`riceutils.generalisation.measure`; None when it was not measured."""
        path = self.folder / GENERALISATION
        return pd.read_csv(path) if path.exists() else None

    @property
    def measured_on(self) -> int:
        """Test images that :attr:`generalisation` rests on; 0 when it was not measured."""
        table = self.generalisation
        return 0 if table is None else int(table["n"].max())

    @property
    def stale(self) -> bool:
        """Whether the run was made by another version of training."""
        return self.record["training_version"] != TRAINING_VERSION

    def model(self) -> keras.Model:
        """The trained model. Raises ``FileNotFoundError`` when only the figures were kept."""
        from riceutils import models

        self.check_weights()
        spec = self.spec
        path = str(self.folder / WEIGHTS)
        if (architecture := self.folder / ARCHITECTURE).exists():
            import keras

            model = keras.models.model_from_json(architecture.read_text(encoding="utf-8"))
            model.load_weights(path)
            return model
        return models.build(spec.model, spec.input_shape, spec.classes, path, **spec.options)


def find(spec: Spec) -> Run | None:
    """The finished run of ``spec`` in the cache folder, or None."""
    folder = files.home() / "runs" / spec.name
    return Run(folder) if (folder / "record.json").exists() else None


def cached(run: Run) -> Run:
    """The very same training in the cache folder, which has its weights, if it is there; else ``run``."""
    found = find(run.spec)
    return found if found is not None and found.record == run.record else run


def references(model: str | None = None) -> list[Run]:
    """Committed runs on real images, of one model or of all, in order of model and seed."""
    found = [Run(path.parent) for path in sorted(REFERENCE.glob("*/record.json"))]
    return [run for run in found if model in (None, run.spec.model)]


def counted(model: str | None = None, augmented: bool = False) -> list[Run]:
    """The reference runs that count, of one model or of the Study's, by model and seed: neither stale nor dead, pixels
    as their weights expect; adapted ones only of a model that no training as published has brought to life."""
    usable = [run for run in references(model) if not (run.stale or run.dead or run.spec.unexpected_pixels)]
    usable = [run for run in usable if run.spec.augment == augmented and (model or run.spec.model in config.STUDY)]
    alive = {run.spec.model for run in usable if not run.spec.adapted}
    return [run for run in usable if not (run.spec.adapted and run.spec.model in alive)]


def adapted() -> list[Spec]:
    """Of each of the Study's models that only an adapted training stands for, the spec of the first."""
    return list({run.spec.model: run.spec for run in reversed(counted()) if run.spec.adapted}.values())


def reference(model: str) -> Run | None:
    """The reference run that stands for ``model`` where one is shown: of the standard ones, the lowest seed that is
    alive, as published or else adapted; the lowest where none is."""
    usable = (run for run in references(model) if run.spec.standard)
    return min(usable, key=lambda run: (run.dead, run.spec.adapted, run.spec.seed), default=None)


def commit(run: Run, target: Path | None = None) -> Path:
    """Copy a finished run into the package as a reference result; weights only when they are small.

    ``target`` is its folder there, by default named after model, variant and seed. The same training's table of single
    disturbances stays where it rests on more images. Raises ``ValueError`` for a run that such a name would not tell
    from the architecture's plain training, or from the one that is there.
    """
    spec = run.spec
    if target is None and (spec.slim or spec.copies or spec.options or spec.teacher):
        raise ValueError(f"{run.name} is not {spec.model} as the registry builds it; only that is a reference result.")
    variant = "-augmented" * spec.augment + "-adapted" * spec.adapted + "-rgb" * spec.unexpected_pixels
    named, target = target, target or REFERENCE / f"{spec.model}{variant}-seed{spec.seed}"
    if run.folder == target:
        return target
    there = Run(target) if (target / "record.json").exists() else None
    if named is None and there is not None and not there.stale and there.spec.key != spec.key:
        raise ValueError(f"{target.name} is the result of a training with other parameters. Remove it first.")
    with files.replacing(target) as temporary:
        shutil.copytree(run.folder, temporary)
        if (temporary / WEIGHTS).exists() and (temporary / WEIGHTS).stat().st_size > COMMITTED_WEIGHTS:
            (temporary / WEIGHTS).unlink()
        if there is not None and there.record == run.record and there.measured_on > run.measured_on:
            shutil.copy(there.folder / GENERALISATION, temporary)
    return target


def resolve(name: str) -> Run:
    """A run with its weights, by a model's name (its reference run), a run's or committed result's name, or a folder.

    Where the weights of a committed result were not shipped, it is the cache folder's run of the same spec;
    ``FileNotFoundError`` when there is none. Raises ``ValueError`` with names like it."""
    from riceutils import models

    if name in models.names():
        run = reference(name)
        if run is None:
            raise ValueError(f"There is no reference run of {name!r}. Train it and give the run's folder.")
        return _weighted(run)
    places = (files.home() / "runs", *files.PACKAGE.glob("results/*"))
    for folder in (Path(name), *(place / name for place in places)):
        if (folder / "record.json").exists():
            return _weighted(Run(folder))
    known = sorted({*models.names(), *(p.parent.name for place in places for p in place.glob("[!.]*/record.json"))})
    near = [each for each in known if each.startswith(name)] or difflib.get_close_matches(name, known, 5)
    raise ValueError(f"No model or run {name!r}. Names like it: {', '.join(near) or 'none'}. Runs are in {places[0]}.")


def _weighted(run: Run) -> Run:
    found = run if run.has_weights else find(run.spec) or run
    found.check_weights()
    return found


@cache
def code_hash() -> str:
    """Digest of the library's sources: recorded, so that a difference can be told; never part of a key."""
    sources = sorted(files.PACKAGE.rglob("*.py"))
    return files.digest([hashlib.sha256(path.read_bytes()).hexdigest() for path in sources])


def environment() -> dict[str, Any]:
    """Package versions, Python and hardware, for the record."""
    import tensorflow as tf

    return {
        "python": platform.python_version(),
        "packages": {name: version(name) for name in PACKAGES},
        "hardware": {
            "machine": platform.machine(),
            "cores": os.cpu_count(),
            "gpus": [device.name for device in tf.config.list_physical_devices("GPU")],
        },
    }
