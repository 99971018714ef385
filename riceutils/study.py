"""From the parameters of a chapter to its data and its runs: what every model chapter does first."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from riceutils import activations, config, data, features, files, generalisation, models, runs, training
from riceutils.config import (
    DataParameters,
    PretrainedParameters,
    ProtocolParameters,
    TrainingParameters,
    TransferParameters,
)
from riceutils.data import Splits
from riceutils.models import pretrained
from riceutils.runs import Run, Spec


def load(parameters: DataParameters) -> Splits:
    """The splits that ``parameters`` ask for; the split is drawn by seed 0 whatever the training's seed is,
    so that runs of several seeds are tested on the same images."""
    return data.load(
        parameters.data,
        parameters.image_size,
        parameters.images_per_class,
        skip_unreadable=parameters.skip_unreadable,
    )


def reference(source: str) -> Splits:
    """The images of the reference results: ``source`` in the sizes of the profile ``reference``."""
    return load(config.training_parameters("reference", "cnn", source))


def spec(model: str, parameters: ProtocolParameters, splits: Splits, **options: Any) -> Spec:
    """The spec of ``model`` trained on ``splits`` as ``parameters`` say, pretrained weights resolved.

    ``options`` are those of the architecture (see :func:`riceutils.models.build`).
    """
    shared = parameters.model_dump(include=set(Spec.model_fields) - {"data", "weights", "preprocessing"})
    architecture = models.architecture(model)
    if architecture.pretrained and isinstance(parameters, PretrainedParameters | TransferParameters):
        weights = pretrained.resolve(parameters.weights, architecture.pretrained)
        chosen = parameters.preprocessing if isinstance(parameters, PretrainedParameters) else "auto"
        expected = pretrained.expected(architecture.pretrained, weights)
        shared |= {"weights": weights, "preprocessing": expected if chosen == "auto" else chosen}
    elif architecture.input_shape[-1] == 1:
        shared |= {"preprocessing": "grey"}
    return Spec(model=model, data=splits.fingerprint, classes=len(splits.classes), options=options, **shared)


def run(model: str, parameters: TrainingParameters, splits: Splits | None = None, **changes: object) -> Run:
    """Train ``model`` or load its run, with ``changes`` of parameters.

    When a training turns out dead and ``retries`` allow it, the next seed is tried, and so on.
    """
    splits = splits or load(parameters)
    parameters = parameters.model_copy(update=changes)
    for attempt in range(parameters.retries + 1):
        seeded = parameters.model_copy(update={"seed": parameters.seed + attempt})
        finished = training.train_or_load(spec(model, seeded, splits), splits, tensorboard=parameters.tensorboard)
        if not finished.dead:
            break
        print(f"{model}: training with seed {seeded.seed} is dead.")
    return finished


def find(model: str, parameters: TrainingParameters, splits: Splits) -> Run | None:
    """The finished run of ``model`` with these parameters (or one of their retries), or None: never trains.

    None, too, when weights are asked for that are out of reach: no run can have started from them.
    """
    found = None
    for attempt in range(parameters.retries + 1):
        seeded = parameters.model_copy(update={"seed": parameters.seed + attempt})
        try:
            wanted = spec(model, seeded, splits)
        except pretrained.WeightsError:
            return None
        found = runs.find(wanted) or found
        if found is not None and not found.dead:
            break
    return found


def found(parameters: ProtocolParameters, splits: Splits) -> dict[str, Run]:
    """The finished runs that the model chapters made with these parameters, by model; missing ones are left out."""
    candidates = {model: find(model, config.of_model(model, parameters), splits) for model in config.STUDY}
    return {model: run for model, run in candidates.items() if run is not None}


def predicted(profile: str) -> pd.DataFrame:
    """Hours that each study model would train in ``profile`` at the pace of its reference run: model, hours.

    These are text, to a tenth, for all epochs; early stopping ends sooner. The one pass over frozen layers is left out,
    and so are models without a reference run, and those whose features would exceed the cache's limit, so that their
    pace would be another.
    """
    rows = []
    for model in config.STUDY:
        run, wanted = runs.reference(model), config.training_parameters(profile, model)
        counts = wanted.images_per_class
        if run is not None and isinstance(counts, list):
            divided = features.cut(models.build(model)) if run.record.get("features_reused") else None
            if divided and features.size(divided, counts[0] * run.spec.classes) > features.limit():
                continue
            pace = run.history["seconds"].median() / run.record["data"]["images"]["train"]
            rows.append((model, f"{pace * counts[0] * run.spec.classes * wanted.epochs / 3600:,.1f}"))
    return pd.DataFrame(rows, columns=["model", "hours"])


def shown(run: Run) -> dict[str, Run]:
    """The runs that a chapter shows: the reference result first, if there is one, then this build's."""
    reference = runs.reference(run.spec.model)
    return ({"reference": reference} if reference else {}) | {"this build": run}


def involved(*built: Run) -> list[Run]:
    """The runs that a chapter rests on: all reference runs of the models of ``built``, then these, of this build."""
    models = dict.fromkeys(run.spec.model for run in built)
    return [*(reference for model in models for reference in runs.references(model)), *built]


def predict(run: Run, images: np.ndarray) -> np.ndarray:
    """Class probabilities float32 (N, classes) by a run's network of uint8 ``images`` (N, H, W, 3)."""
    return training.predict(run.model(), images, run.spec.preprocessing)


def maps(run: Run, images: np.ndarray, layers: list[str] | None = None) -> dict[str, np.ndarray]:
    """See :func:`riceutils.activations.maps`, by a run's network."""
    return activations.maps(run.model(), images, layers, run.spec.preprocessing)


def generalise(wanted: Iterable[Run], splits: Splits, images: int) -> None:
    """Measure how runs stand each perturbation and corruption alone, on at most ``images`` test images, but at least
    one of each class.

    The table is kept in the run's folder; a run that has one of as many images or more is left alone. Runs are measured
    together, so that the disturbed images are made once; what was interrupted goes on with the same runs.
    """
    rows = generalisation.subset(splits.test.labels, max(images, len(splits.classes)))
    missing = {}
    for run in wanted:
        if run.spec.data != splits.fingerprint:
            raise ValueError(f"{run.name} was tested on other images. Give the parameters that it was trained with.")
        table = run.generalisation
        if table is None or int(table["n"].iloc[0]) < len(rows):
            missing[run.folder] = run
    if not missing:
        return
    groups: dict[Any, dict[str, Run]] = {}
    for folder, run in missing.items():
        shares = run.spec.weights and run.spec.model in config.STUDY  # others may enlarge their images first
        trunk = (run.spec.weights, run.spec.preprocessing) if shares else folder
        groups.setdefault(trunk, {})[str(folder)] = run
    predictors = {name: predict for group in groups.values() for name, predict in _predictors(group).items()}
    content = [len(rows), sorted((str(folder), run.record) for folder, run in missing.items())]
    progress = files.home() / "generalisation" / f"{files.digest(content)}.csv"
    tables = generalisation.measure(predictors, splits.test.images[rows], splits.test.labels[rows], progress)
    for folder in missing:
        files.write_csv(folder / runs.GENERALISATION, tables[str(folder)])
    progress.unlink(missing_ok=True)


def _predictors(group: dict[str, Run]) -> dict[str, Callable[[np.ndarray], np.ndarray]]:
    """A function from uint8 images to probabilities for each run; the runs share their pretrained layers."""
    networks = {name: run.model() for name, run in group.items()}
    how = next(iter(group.values())).spec.preprocessing
    if len(group) == 1:
        ((name, network),) = networks.items()
        return {name: lambda pixels: training.predict(network, pixels, how)}
    joint = features.join(networks)
    latest: tuple[np.ndarray | None, dict[str, np.ndarray]] = (None, {})

    def predict(name: str, pixels: np.ndarray) -> np.ndarray:
        nonlocal latest
        if latest[0] is not pixels:
            latest = (pixels, training.predict(joint, pixels, how))
        return latest[1][name]

    return {name: partial(predict, name) for name in group}
