"""Dead training: a loss that stays at ln C. How it is told, what it looks like inside, how often it happens."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from time import perf_counter
from typing import Any

import keras
import numpy as np
import pandas as pd
from filelock import FileLock
from tqdm import tqdm

from riceutils import data, evaluation, files, models
from riceutils.config import DeadParameters
from riceutils.data import Split, Splits
from riceutils.gradients import diagnose, features, gradient_share, state, stuck

RESULTS = files.PACKAGE / "results" / "dead"
PUBLISHED = (5, 1.6096, 0.1956)  # Study, GoogLeNet that did not train: classes, val_loss, val_accuracy
VERSION = 2  # raise by hand when the experiment changes meaning
STUCK = ("vanished", "dead")
IMAGES = [200, 50, 100]  # of each class: to train, validate and test the reference experiments
PROBES = 10  # validation images of each class that gradients and activations are measured on


@dataclass(frozen=True)
class Condition:
    """How a network is started and trained: Keras's name of the initialiser, Adam's learning rate, and remedies.

    ``normalised``: batch normalisation between every convolution and its ReLU. ``warm_up``: steps over which the
    learning rate rises linearly from 0.
    """

    initializer: str = "glorot_uniform"
    learning_rate: float = 1e-3
    normalised: bool = False
    warm_up: int = 0

    @property
    def name(self) -> str:
        remedies = ", batch normalisation" * self.normalised + f", warm-up {self.warm_up}" * bool(self.warm_up)
        return f"{self.initializer}, {self.learning_rate:g}{remedies}"


PLAIN = [Condition(name, rate) for name in ("glorot_uniform", "he_normal") for rate in (1e-3, 3e-4, 1e-4)]
REMEDIES = [Condition(normalised=True), Condition(warm_up=64)]
TOO_FAST = Condition(learning_rate=1e-1)  # provokes what C2 describes
CONDITIONS = [*PLAIN, *REMEDIES, TOO_FAST]
FEW = [PLAIN[0], PLAIN[3], PLAIN[4], TOO_FAST]  # of a quick build
AS_PUBLISHED = "GoogLeNet"
VARIANTS: dict[str, dict[str, Any]] = {  # what C2 says makes it likelier, taken back: options of ``googlenet_varied``
    "half the filters": {"width": 0.5},
    "a quarter of the filters": {"width": 0.25},
    "5 inception modules of 9": {"modules": 5},
    "2 inception modules of 9": {"modules": 2},
    "3×3 in place of 1×1": {"pointwise": 3},
}


def normalise(model: keras.Model) -> keras.Model:
    """A new network like ``model`` with batch normalisation between every convolution and its ReLU."""

    def linear(layer: keras.Layer) -> keras.Layer:
        changes = {"activation": "linear"} if isinstance(layer, keras.layers.Conv2D) else {}
        return type(layer).from_config(layer.get_config() | changes)

    def followed(layer: keras.Layer, *inputs: keras.KerasTensor, **options: object) -> keras.KerasTensor:
        output = layer(*inputs, **options)
        if isinstance(layer, keras.layers.Conv2D):
            # Few steps are trained: Keras's momentum of 0.99 would leave the moving averages at their start.
            output = keras.layers.BatchNormalization(momentum=0.9, name=f"{layer.name}_norm")(output)
            output = keras.layers.Activation("relu", name=f"{layer.name}_relu")(output)
        return output

    return keras.models.clone_model(model, clone_function=linear, call_function=followed)


class _Trial:
    """A compiled network that is started anew for every seed: tracing it takes longer than an epoch."""

    def __init__(
        self, model: str, shape: tuple[int, int, int], classes: int, condition: Condition, **options: Any
    ) -> None:
        keras.utils.set_random_seed(0)  # dropout draws its seed when it is made
        self.model = models.build(model, shape, classes, **options)
        if condition.normalised:
            self.model = normalise(self.model)
        rate: object = condition.learning_rate
        if condition.warm_up:  # rises linearly, then stays: a cosine that ends where it begins
            rate = keras.optimizers.schedules.CosineDecay(
                0.0, 1, alpha=1.0, warmup_target=condition.learning_rate, warmup_steps=condition.warm_up
            )
        self.model.compile(keras.optimizers.Adam(rate), loss="categorical_crossentropy", metrics=["accuracy"])
        self.model.optimizer.build(self.model.trainable_variables)
        variables = (*self.model.variables, *self.model.optimizer.variables)
        self.fresh = [(variable, np.asarray(variable)) for variable in variables]

    def start(self, condition: Condition, seed: int) -> keras.Model:
        for variable, value in self.fresh:
            variable.assign(value)
        models.initialise(self.model, condition.initializer, seed)
        if not condition.warm_up:
            self.model.optimizer.learning_rate = condition.learning_rate
        keras.utils.set_random_seed(seed)  # the order of the images
        return self.model


class _Watch(keras.callbacks.Callback):
    """Keeps the history; ends a training when its fate is known: it has left ln C, or no gradient can wake it."""

    def __init__(self, classes: int, images: np.ndarray) -> None:
        super().__init__()
        self.classes, self.images = classes, images
        self.rows: list[dict[str, float]] = []
        self.state = ""

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        self.rows.append(dict(logs or {}))
        history = pd.DataFrame(self.rows)
        self.state = state(history, self.classes, features(self.model, self.images))
        over = self.state == "dead" and epoch > 0 and stuck(history, self.classes)
        self.model.stop_training = over or self.state in ("alive", "diverged")


def probes(split: Split) -> tuple[np.ndarray, np.ndarray]:
    """The first ``PROBES`` images of each class: float32 (N, H, W, 3) in [0, 1], one-hot labels (N, classes)."""
    kinds = range(len(split.classes))
    return split.arrays(np.concatenate([np.flatnonzero(split.labels == kind)[:PROBES] for kind in kinds]))


def experiment(
    splits: Splits,
    conditions: Sequence[Condition] = CONDITIONS,
    seeds: Iterable[int] = range(20),
    epochs: int = 6,
    *,
    batch_size: int = 32,
    images: int | None = None,
    model: str = "googlenet",
    options: Mapping[str, Any] | None = None,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Train ``model``, built with ``options``, under every condition with every seed: (a row per training, the layers
    of a few of them).

    A training ends when its fate is known: validation loss 10 % below ln C, or dead, or ``epochs``. The first table:
    condition and its parts, seed, epochs, loss, accuracy, val_loss, val_accuracy of the last epoch, stuck (vanished
    or dead), state (see :func:`state`), zero features (share that is exactly zero), spread (of the features over the
    images, by their root mean square), gradient share, seconds. The second: :func:`diagnose` at the start and end of
    the first training that ended in each state.

    ``images``: train on so many, evenly from all classes, and validate on the same part. Every finished training is
    written to the cache folder, and none that is there is repeated. Raises ``ValueError`` without conditions, seeds,
    epochs or enough images.
    """
    seeds, images = list(seeds), len(splits.train) if images is None else images
    if not conditions or not seeds or epochs < 1:
        raise ValueError("Needs one condition, one seed and one epoch or more.")
    if not len(splits.classes) <= images <= len(splits.train):
        raise ValueError(f"images is {images}; it must be {len(splits.classes)} to {len(splits.train)}.")
    own = [dict(options)] if options else []
    key = files.digest([VERSION, splits.fingerprint, model, epochs, batch_size, images, *own])
    target, layers = (files.home() / "dead" / f"{key}{part}.csv" for part in ("", "-layers"))
    train = splits.train.arrays(splits.train.evenly(images))
    checked = max(len(splits.classes), len(splits.validation) * images // len(splits.train))
    validation = splits.validation.arrays(splits.validation.evenly(checked))
    probe, shape = probes(splits.validation), (splits.image_size, splits.image_size, 3)
    trials: dict[tuple[object, ...], _Trial] = {}
    wanted = [(condition, seed) for seed in seeds for condition in conditions]
    pairs = {(condition.name, seed) for condition, seed in wanted}  # the cache may hold others
    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(target.with_name(f".{key}.lock")):
        done = {(row["condition"], row["seed"]) for row in files.read_rows(target)}
        for condition, seed in tqdm(wanted, desc="Training", mininterval=1):
            if (condition.name, seed) in done:
                continue
            # A warm-up's schedule holds its rate; without one the rate is set at every start.
            kind = (condition.normalised, condition.warm_up, condition.learning_rate if condition.warm_up else None)
            if kind not in trials:
                trials[kind] = _Trial(model, shape, len(splits.classes), condition, **(options or {}))
            network, began = trials[kind].start(condition, seed), perf_counter()
            watch = _Watch(len(splits.classes), probe[0])
            network.fit(*train, batch_size, epochs, verbose=0, callbacks=[watch], validation_data=validation)
            row = _row(condition, seed, watch, network, probe) | {"seconds": perf_counter() - began}
            known = files.read_rows(layers)
            if row["state"] not in {line["state"] for line in known if (line["condition"], line["seed"]) in pairs}:
                ended = diagnose(network, *probe).assign(moment="end")
                begun = diagnose(trials[kind].start(condition, seed), *probe).assign(moment="start")
                example = pd.concat([begun, ended]).assign(state=row["state"], condition=condition.name, seed=seed)
                files.write_csv(layers, pd.DataFrame(known + example.to_dict("records")))
            files.write_csv(target, pd.DataFrame([*files.read_rows(target), row]))
    rows, examples = (
        pd.DataFrame([row for row in files.read_rows(path) if (row["condition"], row["seed"]) in pairs])
        for path in (target, layers)
    )
    return rows, examples


def _row(
    condition: Condition, seed: int, watch: _Watch, network: keras.Model, probe: tuple[np.ndarray, np.ndarray]
) -> dict[str, Any]:
    seen, history = features(network, probe[0]), pd.DataFrame(watch.rows)
    return {
        "condition": condition.name,
        **asdict(condition),
        "seed": seed,
        "epochs": len(history),
        **history[["loss", "accuracy", "val_loss", "val_accuracy"]].iloc[-1].to_dict(),
        "stuck": watch.state in STUCK,
        "state": watch.state,
        "zero features": float(np.mean(seen == 0)),
        "spread": float(np.sqrt(seen.var(axis=0).mean() / max(np.square(seen).mean(), 1e-30))),
        "gradient share": gradient_share(network, *probe),
    }


def quick(splits: Splits, parameters: DeadParameters) -> dict[str, pd.DataFrame]:
    """The experiment of a build, on few conditions and at most 400 training images: tables as in :func:`read`."""
    seeds = range(parameters.seed, parameters.seed + parameters.initialisations)
    batch_size, images = parameters.batch_size, min(400, len(splits.train))
    rows, layers = experiment(splits, FEW, seeds, parameters.epochs, batch_size=batch_size, images=images)
    return {"experiment": rows, "diagnosis": layers}


def guessing(trainings: Mapping[str, tuple[int, float, float]]) -> pd.DataFrame:
    """What trainings (name: classes, loss, accuracy) measured beside ln C and 1/C, what guessing costs and earns."""
    rows = [(name, c, loss, np.log(c), accuracy, 1 / c) for name, (c, loss, accuracy) in trainings.items()]
    return pd.DataFrame(rows, columns=["training", "classes", "loss", "ln C", "accuracy", "1/C"])


def frequency(rows: pd.DataFrame) -> pd.DataFrame:
    """How often each condition of :func:`experiment`'s first table got stuck, in its order.

    ``trainings``, how many were ``stuck`` and how many of these ``dead``; ``share`` stuck with Wilson's interval
    ``low`` to ``high``; how many ``left`` ln C, and their median epoch (``left at epoch``).
    """
    table = []
    for name, group in rows.groupby("condition", sort=False):
        interval = evaluation.wilson(int(group["stuck"].sum()), len(group))
        shares = {"share": interval.value, "low": interval.low, "high": interval.high}
        counts = {"stuck": int(group["stuck"].sum()), "dead": int((group["state"] == "dead").sum())}
        epochs = group.loc[group["state"] == "alive", "epochs"]
        left = {"left": len(epochs), "left at epoch": epochs.median()}
        table.append({"condition": name, "trainings": len(group), **counts, **shares, **left})
    return pd.DataFrame(table)


def states(rows: pd.DataFrame) -> pd.DataFrame:
    """What the trainings of each state measure: number, and median of losses, features and gradient share."""
    inside = ["zero features", "spread", "gradient share"]
    columns = ["val_loss", "val_accuracy", *inside]
    rows = rows.assign(**rows[inside].mask(rows["state"] == "diverged"))  # nothing can be measured in a network of NaN
    grouped = rows.groupby("state")
    return grouped[columns].median().assign(trainings=grouped.size()).reset_index()


def reference(source: str, seeds: Iterable[int] = range(20), epochs: int = 6) -> None:
    """Run (or go on with) the reference experiment on real images of 64 px, 200 of each class, and commit its tables.

    ``RESULTS`` then holds ``experiment.csv`` and ``diagnosis.csv``. Seeds vary slowest, so that an experiment that
    was cut short has tried every condition.
    """
    experiments, layers = experiment(data.load(source, 64, IMAGES), CONDITIONS, seeds, epochs)
    for name, table in (("experiment", experiments), ("diagnosis", layers)):
        files.write_csv(RESULTS / f"{name}.csv", table)


def causes(splits: Splits, seeds: Iterable[int] = range(20), epochs: int = 6, **limits: Any) -> pd.DataFrame:
    """:func:`experiment` under the published condition, for GoogLeNet and each of ``VARIANTS``: its first table, the
    network's name as ``condition``. ``limits`` are its further arguments."""
    networks: dict[str, dict[str, Any]] = {AS_PUBLISHED: {"model": "googlenet"}}
    networks |= {name: {"model": "googlenet_varied", "options": options} for name, options in VARIANTS.items()}
    seeds, tables = list(seeds), []
    for name, network in networks.items():
        rows, _ = experiment(splits, CONDITIONS[:1], seeds, epochs, **network, **limits)
        tables.append(rows.assign(condition=name))
    return pd.concat(tables, ignore_index=True)


def reference_causes(source: str) -> None:
    """:func:`causes` on the images of :func:`reference`, committed as ``causes.csv``; resumable like it."""
    files.write_csv(RESULTS / "causes.csv", causes(data.load(source, 64, IMAGES)))


def read() -> dict[str, pd.DataFrame]:
    """The committed tables: ``experiment``, ``diagnosis`` and ``causes``; empty where there are none yet."""
    return files.read_tables(RESULTS)
