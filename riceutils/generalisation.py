"""How accuracy changes under each part of the published perturbation alone, and under corruptions.

Every variant is made once and shown to all models, so that they are compared on the same pictures.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from riceutils import corruptions, evaluation, files, perturb

STRENGTHS = (0.5, 1.0, 1.5, 2.0, 3.0)  # times the published factor
IMAGES = 600
COLUMNS = ("kind", "name", "strength", "accuracy", "low", "high", "n", "correct")


@dataclass(frozen=True)
class Variant:
    """One way to change the test images.

    ``kind`` is ``"clean"``, ``"perturbation"`` (one part of the published one) or ``"corruption"``; ``strength``
    multiplies a part's published factor, is a corruption's severity, and 0 for the clean images. The flip has no
    factor: its one strength, 1, mirrors every image (published: every second), and off is the clean variant.
    """

    kind: str
    name: str
    strength: float

    def apply(self, images: np.ndarray) -> np.ndarray:
        """``images``, uint8 (N, H, W, 3), so changed; draws depend on an image's position only."""
        if self.kind == "clean":
            return images
        if self.kind == "corruption":
            return corruptions.apply(images, self.name, int(self.strength))
        uniform = perturb.draws(range(len(images)))
        if self.name == "flip":
            uniform[:, 0] = 0.0  # below one half: mirrored
        return perturb.apply(images, uniform, [self.name], self.strength)


def variants() -> list[Variant]:
    """The clean images, each part alone at each of ``STRENGTHS``, each corruption at each severity: 43 variants."""
    parts = [Variant("perturbation", part, s) for part in perturb.PARTS if part != "flip" for s in STRENGTHS]
    corrupted = [Variant("corruption", name, s) for name in corruptions.NAMES for s in corruptions.SEVERITIES]
    return [Variant("clean", "clean", 0), Variant("perturbation", "flip", 1), *parts, *corrupted]


def subset(labels: np.ndarray, images: int = IMAGES) -> np.ndarray:
    """Indices, ascending, of the first images of each class: the same number of each, ``images`` in all at most.

    A class with fewer images lowers the number of all. Raises ``ValueError`` when it is not one of each class.
    """
    classes, available = np.unique(labels, return_counts=True)
    each = min([images // max(len(classes), 1), *available]) if len(classes) else 0
    if each < 1:
        raise ValueError(f"{images} of {len(labels)} images of {len(classes)} classes: at least one of each is needed.")
    return np.sort(np.concatenate([np.flatnonzero(labels == number)[:each] for number in classes]))


def measure(
    predictors: Mapping[str, Callable[[np.ndarray], np.ndarray]],
    images: np.ndarray,
    labels: np.ndarray,
    progress: Path | None = None,
) -> dict[str, pd.DataFrame]:
    """Accuracy of each model under every variant of :func:`variants`, all models in one pass.

    ``predictors`` maps a name to a function from uint8 images (N, H, W, 3) to probabilities (N, classes); ``labels``
    are integers (N,). Returns, for each name, a row per variant: ``kind, name, strength, accuracy, low, high``
    (Wilson, 95 %), ``n`` images and how many of them were ``correct``. Each variant is written to ``progress``, a CSV
    file from which an interrupted measurement of the same models and images goes on. Raises ``ValueError`` for images
    and labels that do not match, or probabilities that do not match the images.
    """
    if len(images) != len(labels):
        raise ValueError(f"{len(images)} images, but {len(labels)} labels.")
    rows = files.read_rows(progress) if progress else []
    done = {(row["kind"], row["name"], row["strength"]) for row in rows}
    for variant in tqdm(variants(), "Generalisation", unit="variant", leave=False):
        if (variant.kind, variant.name, variant.strength) in done:
            continue
        changed = variant.apply(images)
        for model, predict in predictors.items():
            probabilities = np.asarray(predict(changed))
            if probabilities.ndim != 2 or len(probabilities) != len(images):
                raise ValueError(f"{model} gave probabilities {probabilities.shape} for {len(images)} images.")
            correct = int((probabilities.argmax(axis=1) == labels).sum())
            share = evaluation.wilson(correct, len(labels))
            figures = (share.value, share.low, share.high, share.n, correct)
            row = (variant.kind, variant.name, variant.strength, *figures)
            rows.append({"model": model, **dict(zip(COLUMNS, row, strict=True))})
        if progress:
            files.write_csv(progress, pd.DataFrame(rows))
    found = pd.DataFrame(rows, columns=["model", *COLUMNS])
    return {model: found[found["model"] == model][list(COLUMNS)].reset_index(drop=True) for model in predictors}
