"""The yardstick without a CNN: eleven shape and colour features and quadratic discriminant analysis (QDA).

The features follow the data set's own papers (Cinar and Koklu 2019), cut down to what a mask gives at once.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import ndimage
from scipy.spatial import ConvexHull
from tqdm import tqdm

from riceutils import evaluation, perturb
from riceutils.data import Splits
from riceutils.grains import LUMA, THRESHOLD
from riceutils.sources import DataError, Source, decode, open_source

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline

SHAPE = ("area", "major", "minor", "aspect", "solidity")
COLOUR = ("R", "G", "B", "R_sd", "G_sd", "B_sd")
# What QDA is given: colours away from the edge only. The edge's blend with the background tells how often the
# image was resampled; with it, the perturbation moves the standard deviations by four to seven of their own.
FEATURES = (*SHAPE, *(f"core_{name}" for name in COLOUR))
COLUMNS = (*SHAPE, "extent", *COLOUR, *(f"core_{name}" for name in COLOUR), "background")
EDGE = 3 / 224  # of the image's side: colours of the core are taken deeper than this, but at least 1 px
REGULARISATION = 1e-3  # share of the identity in each class's covariance: a small class stays invertible


def features(images: np.ndarray) -> pd.DataFrame:
    """Shape and colour of the grain in each of ``images``, uint8 (N, H, W, 3): one row per image.

    The grain is the largest 8-connected component of grey > ``THRESHOLD``, holes filled. ``area`` in px,
    ``major`` and ``minor`` in px (4·√eigenvalue of the second moments: an ellipse's own axes), ``aspect``
    their ratio, ``solidity`` area over convex hull, ``extent`` area over bounding box, means ``R G B`` and
    standard deviations ``R_sd G_sd B_sd`` in 0-255 over the grain, as in ``class_stats.csv``; the same as
    ``core_R`` … ``core_B_sd`` without the grain's edge; and, no feature of the grain, ``background``, the mean
    grey level outside it. An image without a grain has 0 in the grain's columns.

    Raises ``ValueError`` for another dtype or shape.
    """
    perturb.check(images)
    rows = [_measure(image) for image in images]
    return pd.DataFrame(rows, columns=list(COLUMNS), dtype=np.float64)


def _measure(image: np.ndarray) -> tuple[float, ...]:
    grey = np.rint(image @ LUMA)  # whole grey levels, as Pillow makes them
    labels, count = ndimage.label(grey > THRESHOLD, np.ones((3, 3)))
    if not count:
        return (*[0.0] * (len(COLUMNS) - 1), float(grey.mean()))
    largest = 1 + int(np.bincount(labels.ravel())[1:].argmax())
    box = ndimage.find_objects(labels)[largest - 1]  # what follows works on the bounding box only
    mask = ndimage.binary_fill_holes(labels[box] == largest)
    points = np.array(np.nonzero(mask), np.float64)
    area = points.shape[1]
    # At least 1 px: the second moment of a line one pixel wide is zero.
    minor, major = np.maximum(4 * np.sqrt(np.maximum(np.linalg.eigvalsh(np.cov(points, bias=True)), 0)), 1)
    # The hull of the pixels' corners, as in class_stats.csv; in two dimensions SciPy's volume is the area.
    outline = np.argwhere(mask & ~ndimage.binary_erosion(mask))
    hull = ConvexHull(np.concatenate([outline + corner for corner in ((0, 0), (0, 1), (1, 0), (1, 1))])).volume
    depth = ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]
    core = depth > max(1.0, EDGE * min(image.shape[:2]))
    colours = [*_colours(image[box][mask]), *_colours(image[box][core if core.any() else mask])]
    outside = (grey.sum() - grey[box][mask].sum()) / max(grey.size - area, 1)
    shape = (area, major, minor, major / minor, area / hull, area / mask.size)
    return tuple(float(value) for value in (*shape, *colours, outside))


def _colours(pixels: np.ndarray) -> tuple[np.ndarray, ...]:
    """Means and standard deviations of uint8 pixels (n, 3)."""
    values = pixels.astype(np.float64)
    mean = values.sum(axis=0) / len(values)
    variance = np.einsum("ij,ij->j", values, values) / len(values) - mean**2
    return (*mean, *np.sqrt(np.maximum(variance, 0)))


def table(source: str | Path | Source, per_class: int | None = None, seed: int = 0) -> pd.DataFrame:
    """Features of a source's files at their own size: ``file, class, bytes`` (length) and :func:`features`.

    ``per_class`` files of each class, drawn by ``seed``; None, or more than there are, takes all. Files that
    cannot be read are left out; ``audit`` names them.
    """
    opened = source if isinstance(source, Source) else open_source(source, images_per_class=per_class)
    rng = np.random.default_rng(seed)
    chosen = [
        (label, members[position])
        for label, members in opened.members.items()
        for position in np.sort(rng.permutation(len(members))[:per_class])
    ]
    rows, measured = [], []
    for label, name in tqdm(chosen, "Features", unit="image", leave=False, mininterval=1):
        try:
            content = opened.read(name)
            image = np.asarray(decode(content, name))
        except DataError:
            continue
        rows.append((name, label, len(content)))
        measured.append(_measure(image))
    known = pd.DataFrame(rows, columns=["file", "class", "bytes"])
    return known.join(pd.DataFrame(measured, columns=list(COLUMNS), dtype=np.float64))


def classifier() -> Pipeline:
    """QDA on standardised features, not yet fitted."""
    from sklearn.discriminant_analysis import QuadraticDiscriminantAnalysis
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), QuadraticDiscriminantAnalysis(reg_param=REGULARISATION, tol=0))


def fit(table: pd.DataFrame, labels: np.ndarray) -> Pipeline:
    """:func:`classifier` on the ``FEATURES`` of ``table`` (N rows), integer ``labels`` (N,).

    Raises ``ValueError`` when a class has no more images than features: its covariance is not determined then.
    """
    counts = np.bincount(labels)
    if counts.min() <= len(FEATURES):
        raise ValueError(
            f"Class number {counts.argmin()} has {counts.min()} training images; QDA on {len(FEATURES)} features "
            f"needs {len(FEATURES) + 1} or more."
        )
    return classifier().fit(table[list(FEATURES)].to_numpy(), labels)


def operations(table: pd.DataFrame, classes: int) -> float:
    """A lower bound of the arithmetic operations from pixels to class, mean of the images in ``table``, each of
    224×224 pixels, one addition, multiplication or comparison counting as one.

    Counted: the grey value (5 a pixel), the threshold (1), labelling with eight neighbours (8); sums and squares of
    three colours, twice, and second moments over the pixels of the grain (26); standardising and the quadratic forms.
    Not counted: hull, distance transform, filling of holes, eigenvalues.
    """
    number = len(FEATURES)
    classifier = 2 * number + classes * (2 * number**2 + 2 * number)
    return 14 * 224**2 + 26 * float(table["area"].mean()) + classifier


def measure(splits: Splits, perturbed: np.ndarray | None = None) -> dict[str, Any]:
    """Train on ``splits.train``, test on ``splits.test``, clean and (if given) ``perturbed``.

    Returns ``accuracy`` (an ``evaluation.Interval`` each for ``clean`` and ``perturbed``), ``probabilities``
    (float64 (N, classes) each, for ``evaluation.mcnemar`` and ``report``) and ``seconds_per_image``, CPU
    time from uint8 pixels to class (one core).
    """
    model = fit(features(splits.train.images), splits.train.labels)
    tests: dict[str, np.ndarray] = {"clean": splits.test.images}
    if perturbed is not None:
        tests["perturbed"] = perturbed
    probabilities = {}
    start = time.process_time()
    for name, images in tests.items():
        probabilities[name] = model.predict_proba(features(images)[list(FEATURES)].to_numpy())
    seconds = (time.process_time() - start) / (len(tests) * len(splits.test))
    accuracy = {name: evaluation.accuracy(values, splits.test.labels) for name, values in probabilities.items()}
    return {"accuracy": accuracy, "probabilities": probabilities, "seconds_per_image": seconds}
