"""What it adds to an accuracy when the epoch is chosen by the very images that it is reported on."""

from __future__ import annotations

import math
from collections.abc import Iterable

import keras
import numpy as np
import pandas as pd
from tqdm import tqdm

from riceutils import evaluation, files, study, training
from riceutils.config import BackgroundParameters
from riceutils.data import Splits
from riceutils.plots import PALETTE, Chart, figure
from riceutils.runs import Spec

DIVISIONS = 2000  # of the held-out images in two
PARTS = (16, 8, 4, 2)  # the images that choose are a sixteenth of those held out, an eighth, …
COLUMNS = ["images", "choice", "accuracy on A", "accuracy on B", "difference", "low", "high"]


def _train(spec: Spec, splits: Splits, images: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """bool (epochs, N): which of ``images`` (N, H, W, 3) the network gets right after each epoch."""
    network, right = training.new_model(spec), []

    def watch(epoch: int, logs: dict) -> None:
        right.append(training.predict(network, images, spec.preprocessing).argmax(axis=1) == labels)

    batches = splits.train.training(spec.batch_size, spec.seed, preprocessing=spec.preprocessing)  # shuffled already
    steps, watching = math.ceil(len(splits.train) / spec.batch_size), keras.callbacks.LambdaCallback(on_epoch_end=watch)
    network.fit(batches, epochs=spec.epochs, steps_per_epoch=steps, shuffle=False, callbacks=[watching], verbose=0)
    return np.stack(right)


def follow(model: str, parameters: BackgroundParameters, splits: Splits, seeds: Iterable[int]) -> np.ndarray:
    """Train ``model`` with every seed and see which held-out images it gets right after each epoch.

    bool (seeds, epochs, images); held out are validation and test images together, and nothing is chosen by them.
    Kept in the cache folder. Raises ``ValueError`` for fewer than 32 held-out images, before anything is trained.
    """
    if (held_out := len(splits.validation) + len(splits.test)) < 2 * max(PARTS):
        raise ValueError(f"{held_out} images are held out; {2 * max(PARTS)} or more are needed to divide them.")
    specs = [study.spec(model, parameters.model_copy(update={"seed": seed}), splits) for seed in seeds]
    target = files.home() / "selection" / f"{model}-{files.digest([spec.key for spec in specs])}.npy"
    with files.once(target) as missing:
        if missing:
            images = np.concatenate([splits.validation.images, splits.test.images])
            labels = np.concatenate([splits.validation.labels, splits.test.labels])
            trained = [_train(spec, splits, images, labels) for spec in tqdm(specs, "Training")]
            with files.replacing(target) as temporary:
                np.save(temporary, np.stack(trained))
    return np.load(target)


def optimism(right: np.ndarray) -> pd.DataFrame:
    """Divide the images of :func:`follow` again and again in A and B: accuracy on A, which chose, and on B.

    Rows: number of ``images`` in A, the rest being B, and ``choice``: the ``best epoch`` by A (the first of equals)
    or, for comparison, the ``last epoch``. ``accuracy on A`` and ``accuracy on B`` are means over all trainings and
    ``DIVISIONS`` of the images for each; ``difference`` is in points, ``low`` to ``high`` the 95 %
    interval of its mean over trainings by Student's t, missing for one. It speaks for these images, which all share.
    """
    number, rng, rows = right.shape[-1], np.random.default_rng(0), []
    for part in PARTS:
        size = number // part
        sides: dict[str, list[np.ndarray]] = {"best epoch": [], "last epoch": []}
        for each in right.astype(np.float32):  # divisions of its own: their chance is not one for all trainings
            in_a = rng.permuted(np.tile(np.arange(number) < size, (DIVISIONS, 1)), axis=1)
            correct = each @ in_a.T.astype(np.float32)
            accuracies = np.stack([correct / size, (each.sum(axis=1)[:, None] - correct) / (number - size)])
            best = correct.argmax(axis=0)
            sides["best epoch"].append(accuracies[:, best, range(DIVISIONS)].mean(axis=1))
            sides["last epoch"].append(accuracies[:, -1].mean(axis=1))
        for choice, found in sides.items():
            (a, b), gain = np.mean(found, axis=0), 100 * np.subtract(*np.transpose(found))
            more = evaluation.student(gain)
            rows.append((size, choice, a, b, more.value, more.low, more.high))
    return pd.DataFrame(rows, columns=COLUMNS)


def chart(right: np.ndarray, table: pd.DataFrame) -> Chart:
    """Left: accuracy on all held-out images by epoch, a line per training. Right: ``table`` of :func:`optimism`."""
    canvas, ((left, other),) = figure(3.4, 1, 2)
    left.plot(range(1, right.shape[1] + 1), right.mean(axis=2).T, color=PALETTE[0], alpha=0.6, linewidth=1.2)
    left.set(xlabel="epoch", ylabel="accuracy", title="all held-out images, a line per training")
    for (name, rows), color in zip(table.groupby("choice"), (PALETTE[1], PALETTE[2]), strict=True):
        spread = [rows["difference"] - rows["low"], rows["high"] - rows["difference"]]
        other.errorbar(rows["images"], rows["difference"], yerr=spread, fmt="o-", capsize=3, color=color, label=name)
    other.axhline(0, color="0.5", linewidth=1)
    other.set(xscale="log", xlabel="images in A", ylabel="points", title="accuracy on A less accuracy on B")
    other.set_xticks(table["images"].unique(), table["images"].unique())
    other.minorticks_off()
    other.legend(fontsize=8)
    return canvas, table
