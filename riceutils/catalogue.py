"""Keras's pretrained models as the lecture deck lists them, what they cost, and all architectures over the years.

Parameters and FLOPs are computed here, from networks without weights. Building them all takes minutes, so the result
is committed; it is made anew with ``python -c "from riceutils import catalogue; catalogue.compute()"``.
"""

from __future__ import annotations

import os
import time
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from riceutils import errata, files, flops, models

if TYPE_CHECKING:
    import keras

RESULT = files.PACKAGE / "results" / "background" / "keras_applications.csv"
BEYOND = ("MobileNetV3Small", "MobileNetV3Large")  # networks of Keras that the deck does not list, but the book uses
MEASURED = ("MobileNet", "MobileNetV2", "EfficientNetB0", "DenseNet121", "ResNet50", "VGG16")
MIB = 2**20


def build(name: str) -> keras.Model:
    """A network of ``keras.applications`` with its top, at its own input size, without weights."""
    import keras

    shape = {"input_shape": (224, 224, 3)} if name in BEYOND else {}  # these take images of any size by default
    return getattr(keras.applications, name)(weights=None, **shape)


def deck() -> pd.DataFrame:
    """The deck's table, a row per model: top-1 and top-5 in %, parameters in millions, MB, ms per step."""
    return errata.published("keras_applications")


@cache
def years() -> pd.DataFrame:
    """``resources/timeline.csv``: a row per model with its name, year, citation key and group.

    Groups: ``history`` (in the year of the paper, also the deck's LeNet-5 and AlexNet and the Study's GoogLeNet),
    ``source`` (the Case study's variants, in its year), ``study`` and ``light`` (the study's), ``book`` (set beside
    them here).
    """
    return pd.read_csv(files.RESOURCES / "timeline.csv", index_col="model")


def cost(name: str) -> dict[str, object]:
    """Side of the images, parameters and FLOPs of one network, of Keras (see :func:`build`) or of the registry."""
    network = models.build(name) if name in models.names() else build(name)
    total = flops.count(network).total
    return {"model": name, "image size": network.input_shape[1], "parameters": network.count_params(), "FLOPs": total}


def compute() -> None:
    """Compute :func:`cost` of Keras's networks, those of the deck and ``BEYOND``, and commit it: minutes."""
    import keras

    rows = []
    for name in [*deck().index, *BEYOND]:
        keras.backend.clear_session()  # of hundreds of megabytes each
        rows.append(cost(name))
    files.write_csv(RESULT, pd.DataFrame(rows))


@cache
def costs() -> pd.DataFrame:
    """Image size, parameters and FLOPs, a row per model: what :func:`compute` committed, and the registry's networks
    of the time line, computed at once."""
    own = pd.DataFrame([cost(name) for name in years().index if name in models.names()]).set_index("model")
    return pd.concat([committed(), own])


@cache
def committed() -> pd.DataFrame:
    """What :func:`compute` committed, a row per network of Keras."""
    return pd.read_csv(RESULT, index_col="model")


def against_deck() -> pd.DataFrame:
    """Parameters and size of the deck beside those computed, and FLOPs, a row per model.

    Size is that of the weights alone at 4 bytes each, in MiB (2**20 bytes). ``differs in`` names what a rounding of the
    computed figure does not give.
    """
    printed, computed = deck(), committed().loc[deck().index]
    size = 4 * computed["parameters"] / MIB
    wrong = {
        "parameters": (computed["parameters"] / 1e6 - printed["parameters_million"]).abs() > 0.05 + 1e-9,
        "size": (size - printed["size_mb"]).abs() > 0.5,
    }
    differs = [", ".join(what for what, flags in wrong.items() if flags[name]) for name in printed.index]
    content = {
        "image size": computed["image size"],
        "published parameters, M": printed["parameters_million"].map("{:.1f}".format),
        "parameters": computed["parameters"],
        "published size, MB": printed["size_mb"],
        "size, MiB": size.map("{:.1f}".format),
        "GFLOPs": (computed["FLOPs"] / 1e9).map("{:.2f}".format),
        "differs in": differs,
    }
    return pd.DataFrame(content).rename_axis("model").reset_index()


def latency(brief: bool = False) -> pd.DataFrame:
    """Milliseconds a network takes for one image on this machine, all cores, a row per model.

    Batch 1, the network's own image size, weights drawn at random, after two passes to warm up: median, 5th and 95th
    percentile over as many passes as two seconds hold (5 to 100). ``brief``: two passes of the two lightest.
    """
    rows = []
    for name in MEASURED[:2] if brief else MEASURED:
        network = build(name)
        image = np.random.default_rng(0).random((1, *network.input_shape[1:]), np.float32)
        for _ in range(2):
            network.predict_on_batch(image)
        passes: list[float] = []
        limit = 2 if brief else 100
        while len(passes) < limit and (len(passes) < 5 or sum(passes) < 2):
            start = time.perf_counter()
            network.predict_on_batch(image)
            passes.append(time.perf_counter() - start)
        low, median, high = 1000 * np.percentile(passes, [5, 50, 95])
        rows.append((name, flops.count(network).total, len(passes), median, low, high))
    table = pd.DataFrame(rows, columns=["model", "FLOPs", "passes", "median, ms", "5 %, ms", "95 %, ms"])
    table["published, ms"] = deck().loc[table["model"], "ms_per_step_cpu"].to_numpy()
    table["GFLOP/s"] = table["FLOPs"] / table["median, ms"] / 1e6
    return table.assign(cores=os.cpu_count())
