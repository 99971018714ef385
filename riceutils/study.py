"""From the parameters of a chapter to its data and its run: what every model chapter does first."""

from __future__ import annotations

from riceutils import data, models, runs, training
from riceutils.config import DataParameters, TrainingParameters
from riceutils.data import Splits
from riceutils.runs import Run, Spec


def load(parameters: DataParameters, *, progress: bool = True) -> Splits:
    """The splits that ``parameters`` ask for; the split is drawn by seed 0 whatever the training's seed is,
    so that runs of several seeds are tested on the same images."""
    return data.load(
        parameters.data,
        parameters.image_size,
        parameters.images_per_class,
        skip_unreadable=parameters.skip_unreadable,
        progress=progress,
    )


def spec(model: str, parameters: TrainingParameters, splits: Splits) -> Spec:
    """The spec of ``model`` trained on ``splits`` as ``parameters`` say."""
    shared = parameters.model_dump(include=set(Spec.model_fields) - {"data"})
    return Spec(model=model, data=splits.fingerprint, classes=len(splits.classes), **shared)


def run(model: str, parameters: TrainingParameters, splits: Splits | None = None) -> Run:
    """Train ``model`` or load its run."""
    splits = splits or load(parameters)
    return training.train_or_load(spec(model, parameters, splits), splits, tensorboard=parameters.tensorboard)


def find(model: str, parameters: TrainingParameters, splits: Splits) -> Run | None:
    """The finished run of ``model`` with these parameters, or None: never trains."""
    return runs.find(spec(model, parameters, splits))


def found(parameters: TrainingParameters, splits: Splits) -> dict[str, Run]:
    """The finished runs of all models with these parameters, by model; models without one are left out."""
    candidates = {model: find(model, parameters, splits) for model in models.names()}
    return {model: run for model, run in candidates.items() if run is not None}


def shown(run: Run) -> dict[str, Run]:
    """The runs that a chapter shows: the reference result first, if there is one, then this build's."""
    reference = runs.reference(run.spec.model)
    return ({"reference": reference} if reference else {}) | {"this build": run}
