"""Trainings of the background chapters: a build's own, and those on real images that are kept as reference results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
import pandas as pd

from riceutils import data, files, models, runs, study, training
from riceutils.config import PretrainedParameters, ProtocolParameters, TransferParameters
from riceutils.data import Splits
from riceutils.runs import Run

RESULTS = files.PACKAGE / "results" / "background"


@cache
def declared() -> dict[str, dict[str, Any]]:
    """The trainings of ``resources/background.yml`` by name, with the defaults filled in."""
    content = files.read_yaml(files.RESOURCES / "background.yml")
    return {name: content["defaults"] | entry for name, entry in content["trainings"].items()}


def run(model: str, parameters: ProtocolParameters, splits: Splits, **options: Any) -> Run:
    """Train ``model`` on ``splits``, or load its run. ``options`` are those of the architecture."""
    return training.train_or_load(study.spec(model, parameters, splits, **options), splits)


def transfer_models(backbone: str) -> dict[str, str]:
    """What is trained (head only, all layers, wider head) → the model that ``backbone``'s experiment has for it."""
    prefix = f"{'transfer_' if backbone == 'vgg16' else ''}{backbone}"
    names = {"head only": f"{prefix}_fc", "all layers": f"{prefix}_all", "wider head": f"{prefix}_exp"}
    return {label: name for label, name in names.items() if name in models.names()}


def reference(name: str, source: str | None = None) -> list[Run]:
    """Train (or load) what ``background.yml`` declares under ``name``, every seed, and commit it under ``RESULTS``.

    ``source`` takes the place of the data set named there, where it can't be downloaded.
    """
    entry = declared()[name]
    splits = data.load(source or entry["data"], entry["image_size"], entry["images_per_class"])
    kind = PretrainedParameters if "preprocessing" in entry else TransferParameters
    fields = {field: value for field, value in entry.items() if field in kind.model_fields}
    made = []
    for seed in entry["seeds"]:
        values: dict[str, Any] = {"weights": "none", "time_limit": 0} | fields | {"seed": seed}
        parameters = kind.model_construct(**values)
        finished = run(entry["model"], parameters, splits, **entry.get("options", {}))
        target = runs.commit(finished, RESULTS / f"{name}-seed{seed}")
        (target / "predictions.npz").unlink()  # of ten thousand images: heavier than all the rest
        made.append(finished)
    return made


def committed(name: str) -> list[Run]:
    """The reference runs of a training, by seed; empty when there are none of this version of training yet."""
    found = [Run(path.parent) for path in sorted(RESULTS.glob(f"{name}-seed*/record.json"))]
    return [run for run in found if not run.stale]


def table(built: Mapping[str, Run | Sequence[Run]], published: Mapping[str, str] | None = None) -> pd.DataFrame:
    """Trainings by name: what was published, the reference result, and this build's run.

    Columns: training, parameters, published (text, "" where nothing was), reference (test accuracy with Wilson's 95 %
    interval, or mean and range of several seeds), seeds, epochs (of the reference, a range where seeds differ), this
    build (may be none). Without
    ``published`` there is no such column.
    """
    rows = []
    for name, own in built.items():
        ours = [own] if isinstance(own, Run) else list(own)
        kept = committed(name)
        count = next((run.record["parameters"] for run in (*kept, *ours)), "")
        measured = (accuracy(kept), len(kept), _span(kept)) if kept else ("not measured yet", "", "")
        rows.append((name, count, (published or {}).get(name, ""), *measured, accuracy(ours)))
    names = ["training", "parameters", "published", "reference", "seeds", "epochs", "this build"]
    found = pd.DataFrame(rows, columns=names)
    return found if published else found.drop(columns="published")


def _span(found: Sequence[Run]) -> str:
    lengths = [len(run.history) for run in found]
    return "–".join(map(str, sorted({min(lengths), max(lengths)})))


def trained(built: Mapping[str, Run]) -> pd.DataFrame:
    """This build's trainings by name: training images, epochs, test accuracy with its interval."""
    rows = []
    for name, own in built.items():
        figures = own.record["metrics"]["clean"]
        images, epochs = own.record["data"]["images"]["train"], len(own.history)
        rows.append((name, images, epochs, *(figures[part] for part in ("value", "low", "high"))))
    return pd.DataFrame(rows, columns=["training", "images", "epochs", "accuracy", "low", "high"])


def accuracy(found: Sequence[Run]) -> str:
    """Test accuracy with its interval; of several seeds, which share their test images, the mean and the range."""
    if len(found) == 1:
        return str(found[0].accuracy())
    values = [run.accuracy().value for run in found]
    return f"{np.mean(values):.4f} ({min(values):.4f}–{max(values):.4f})" if found else ""


def silenced(groups: Sequence[Sequence[Run]], block: str) -> pd.DataFrame:
    """What trainings of a pretrained network did to a block's filters; a row per group of seeds that has any.

    Columns: image size, preprocessing, learning rate, accuracy (:func:`accuracy`), and for each convolution of
    ``block`` (named without it) how many filters never fire on any test image: the mean over the seeds, to one place.
    """
    rows = []
    for found in filter(None, groups):
        row = {name: getattr(found[0].spec, name) for name in ("image_size", "preprocessing", "learning_rate")}
        filters = pd.concat((run.filters for run in found), ignore_index=True)
        layers = filters.loc[filters["layer"].str.startswith(f"{block}_"), "layer"].str.removeprefix(f"{block}_")
        never = (filters["fires"] == 0).groupby(layers).sum() / len(found)
        rows.append(row | {"accuracy": accuracy(found)} | {name: f"{count:.1f}" for name, count in never.items()})
    return pd.DataFrame(rows).rename(columns=lambda name: name.replace("_", " "))
