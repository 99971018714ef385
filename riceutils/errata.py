"""Errata of the published sources: what each states, beside what this library recomputes.

Wording and figures of the sources' running text are in ``resources/errata.yml``, those of their tables in
``resources/published``. The functions in ``RECOMPUTED`` give a mapping, or a table: its cells are ``row_column``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from math import atan2, degrees, log
from typing import Any

import numpy as np
import pandas as pd

from riceutils import activations, designs, evaluation, files, flops, grains, models, perturb
from riceutils.ledger import PUBLISHED_IMAGES as SERIES

KINDS = {"recomputed": "재계산", "stated": "서술", "not measured yet": "아직 재지 않음"}
PAIRS = [("cnn_light", "cnn"), ("googlenet_light", "googlenet"), ("vgg_light", "vgg16"), ("vgg_custom", "vgg16"),
         ("vgg_custom", "vgg_light"), ("vgg_light_draft", "vgg16")]  # fmt: skip


@dataclass(frozen=True)
class Erratum:
    """An entry of ``errata.yml``; ``claim`` and ``found`` by language, with the names of figures in braces."""

    number: int
    source: str
    kind: str
    claim: dict[str, str]
    found: dict[str, str]
    printed: dict[str, float]


@cache
def load() -> dict[int, Erratum]:
    """All errata by number. Raises ``TypeError`` for an entry with a missing or unknown field."""
    entries = files.read_yaml(files.RESOURCES / "errata.yml")
    return {number: Erratum(number, **{"printed": {}, **fields}) for number, fields in entries.items()}


@cache
def values(number: int) -> Mapping[str, Any]:
    """The figures of erratum ``number`` by name: those printed in the source and those recomputed."""
    found = RECOMPUTED.get(number, dict)()
    if isinstance(found, pd.DataFrame):
        found = {f"{row}_{name}": value for name, column in found.items() for row, value in column.items()}
    return load()[number].printed | found


def overview() -> str:
    """All errata as an HTML table in both languages, every text in an element with its ``lang``."""
    rows = []
    for entry in load().values():
        texts = (entry.claim, entry.found, {"ko": KINDS[entry.kind], "en": entry.kind})
        rows.append([entry.number, entry.source, *(_spans(text, values(entry.number)) for text in texts)])
    table = pd.DataFrame(rows, columns=["number", "source", "claim", "finding", "kind"])
    return table.to_html(index=False, escape=False, border=0, classes="rice-table")


def _spans(text: dict[str, str], figures: Mapping[str, Any]) -> str:
    return "".join(f'<span lang="{language}">{words.format(**figures)}</span>' for language, words in text.items())


@cache
def published(table: str = "models") -> pd.DataFrame:
    """A table of the sources' figures as numbers, a row per model."""
    return pd.read_csv(files.RESOURCES / "published" / f"{table}.csv", index_col="model")


@cache
def architectures() -> pd.DataFrame:
    """A row per study model, from the built network at 224×224×3.

    ``parameters``, ``FLOPs``; ``filters`` of all convolutions; ``visible``: without the insides of inception modules,
    but with their concatenated outputs; ``dense``: parameters of the dense layer behind Flatten, else 0; ``kernel``
    of the first convolution; ``pointwise``: number of 1×1 convolutions that see the image itself.
    """
    rows = {}
    for name in published().index:
        model = models.build(name)
        layers, report = activations.convolutions(model), flops.count(model)
        shown = [layer for layer in layers if not layer.name.startswith("inception")]
        shown += [layer for layer in model.layers if type(layer).__name__ == "Concatenate"]
        after_flatten = report.by_layer["type"].shift() == "Flatten"
        rows[name] = {
            "parameters": model.count_params(),
            "FLOPs": report.total,
            "filters": sum(layer.filters for layer in layers),
            "visible": sum(layer.output.shape[-1] for layer in shown),
            "dense": int(report.by_layer.loc[after_flatten, "parameters"].sum()),
            "kernel": "×".join(map(str, layers[0].kernel.shape[:3])),
            "pointwise": sum(tuple(layer.kernel.shape[:3]) == (1, 1, 3) for layer in layers),
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("model")


def series_flops() -> pd.DataFrame:
    """TFLOPs over 7,500 images, printed and recomputed, a row per study model."""
    printed = published()["tflops_7500_images"].dropna()
    return pd.DataFrame({"published": printed, "finding": architectures()["FLOPs"][printed.index] * SERIES / 1e12})


def filter_counts() -> pd.DataFrame:
    """Filters as printed, and as counted in both ways of :func:`architectures`, a row per study model."""
    printed = published()["filters"].dropna().astype(int).rename("published")
    return architectures()[["filters", "visible"]].join(printed, how="inner")


def savings() -> pd.DataFrame:
    """Percentages of parameters and FLOPs that the lighter model of each pair saves; rows ``lighter_heavier``."""
    light, heavy = (architectures().loc[list(side), ["parameters", "FLOPs"]] for side in zip(*PAIRS, strict=True))
    share = 100 * (1 - light.to_numpy() / heavy.to_numpy())
    return pd.DataFrame(share, ["_".join(pair) for pair in PAIRS], light.columns)


def rotation() -> dict[str, Any]:
    """Angle by which Keras turns a spot when RandomRotation draws its largest factor; how it fills the corners."""
    from keras import layers

    image = np.zeros((1, 201, 201, 1), np.float32)
    image[0, 97:104, 167:174] = 1  # a spot to the right of the centre, which is at 100
    turned = np.asarray(layers.RandomRotation((0.1, 0.1))(image, training=True))[0, :, :, 0]
    centre = (np.indices(turned.shape) * turned).sum(axis=(1, 2)) / turned.sum() - 100
    movers = (layers.RandomRotation(0.1), layers.RandomZoom(0.1), layers.RandomTranslation(0.1, 0.1))
    return {"angle": abs(degrees(atan2(*centre))), "fill": ", ".join({layer.fill_mode for layer in movers})}


def gradients() -> pd.DataFrame:
    """Derivatives of one 3×3 filter on one patch x, by TensorFlow, when Z > 0, when Z < 0 and when x = 0.

    Columns: Z; the largest of x, of ∂Z/∂W (``inner``) and of ∂ReLU(Z)/∂W (``outer``); ReLU'(Z) (``slope``).
    """
    import tensorflow as tf

    patch, weights = np.random.default_rng(0).uniform(0.1, 1, (2, 3, 3))
    rows = {}
    for case, x, bias in (("alive", patch, 0.0), ("dead", patch, -100.0), ("blank", 0 * patch, 1.0)):
        w = tf.Variable(weights)
        with tf.GradientTape(persistent=True) as tape:
            z = tf.reduce_sum(w * x) + bias
            a = tf.nn.relu(z)
        inner, outer = (float(tf.reduce_max(tape.gradient(target, w))) for target in (z, a))
        rows[case] = {"Z": float(z), "x": x.max(), "inner": inner, "slope": float(tape.gradient(a, z)), "outer": outer}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("case")


def weight_of_dense() -> dict[str, Any]:
    """What CNN Light saves, CNN's dense layer behind Flatten and VGG Light's FLOPs, in %; two test accuracies."""
    cnn, saved, tests = architectures().loc["cnn"], savings(), published()["test_accuracy"]
    shares = {"saved": saved["parameters"]["cnn_light_cnn"], "dense": 100 * cnn["dense"] / cnn["parameters"]}
    tested = {f"{name}_test": tests[name] for name in ("vgg16", "vgg_light")}
    return shares | tested | {"flops_saved": saved["FLOPs"]["vgg_light_vgg16"]}


def intervals() -> pd.DataFrame:
    """The printed validation accuracy of each study model with its Wilson 95 % interval at 7,500 images."""
    printed = published()["val_accuracy"].drop("vgg_light_draft")
    found = [evaluation.wilson(round(share * SERIES), SERIES) for share in printed]
    return pd.DataFrame({"val_accuracy": printed, "low": [i.low for i in found], "high": [i.high for i in found]})


def noise() -> dict[str, Any]:
    """Intervals of CNN and CNN Light, and how many of the pairs' intervals overlap."""
    table, pairs = intervals(), PAIRS[:-1]
    overlap = [max(table.loc[[*pair], "low"]) <= min(table.loc[[*pair], "high"]) for pair in pairs]
    cells = {f"{row}_{name}": column[row] for row in ("cnn", "cnn_light") for name, column in table.items()}
    return cells | {"pairs": len(pairs), "overlapping": sum(overlap)}


def autoscale(values: np.ndarray) -> np.ndarray:
    """``values`` stretched to [0, 1] by their own range, as a picture without a fixed scale shows them."""
    return (values - values.min()) / (np.ptp(values) or 1)


def scale_example() -> dict[str, np.ndarray]:
    """Two feature maps (25, 25): 0.7 everywhere, and a hill that is nowhere higher than 0.0001."""
    y, x = np.mgrid[-1:1:25j, -1:1:25j]
    return {"constant": np.full_like(x, 0.7), "faint": 1e-4 * np.exp(-4 * (x**2 + y**2))}


def scales() -> dict[str, Any]:
    """Largest value of both maps and of their autoscaled pictures; range over the classes of the background in %."""
    area = pd.read_csv(files.RESOURCES / "class_stats.csv")["area_mean"]
    low, high = (100 * (1 - extreme / grains.SIDE**2) for extreme in (area.max(), area.min()))
    maps = scale_example() | {f"{name}_shown": autoscale(values) for name, values in scale_example().items()}
    return {name: values.max() for name, values in maps.items()} | {"least": low, "most": high}


def case_study() -> dict[str, float]:
    """Millions (and, for Korean, hundred millions) of parameters in VGG16's dense layers, for 1,000 classes; those of
    its GoogLeNet for ten, with the two auxiliary heads that are used and with the three that are built."""
    dense = sum((before + 1) * after for before, after in pairwise((7 * 7 * 512, 4096, 4096, 1000)))
    heads = designs.auxiliary().set_index("heads")["parameters"]
    return {"dense": dense / 1e6, "dense_eok": dense / 1e8, "heads_2": int(heads[2]), "heads_3": int(heads[3])}


def dead_trainings() -> dict[str, Any]:
    """ResNet50 FC's accuracy by its table in %; VGG19's accuracy and loss; loss and accuracy of guessing among ten."""
    words = str(published("classics").loc["vgg19_l2_dropout", "published_result"]).replace(";", "").split()
    accuracy, loss = (float(words[words.index(word) + 1]) for word in ("accuracy", "loss"))
    table = 100 * published("transfer")["evaluation"]["resnet50_fc"]
    return {"table": table, "accuracy": accuracy, "loss": loss, "guess": log(10), "chance": 1 / 10}


def redrawn() -> dict[str, float]:
    """Percentage of pixels that differ between two passes over ten synthetic grains: Keras's layers, and ours."""
    from keras import Sequential, layers

    pixels = grains.render("Basmati", 10, size=224)
    turn, zoom, contrast = (getattr(layers, f"Random{name}")(0.1, seed=0) for name in ("Rotation", "Zoom", "Contrast"))
    shift = layers.RandomTranslation(0.1, 0.1, seed=0)
    keras_way = Sequential([layers.RandomFlip("horizontal", seed=0), turn, zoom, shift, contrast])
    first, second = (np.rint(keras_way(pixels.astype(np.float32), training=True)) for _ in range(2))
    passes = {"keras": (first, second), "ours": (perturb.published(pixels), perturb.published(pixels))}
    return {name: 100 * float((a != b).any(axis=-1).mean()) for name, (a, b) in passes.items()}


def factorised() -> pd.DataFrame:
    """Weights, per pair of channels, of k×k (``square``), of the 3×3 stack with the same view (``threes``) and of
    1×k with k×1 (``lines``), and what the latter two save in %."""
    k = np.array([3, 5, 7])
    table = pd.DataFrame({"square": k**2, "threes": 9 * (k - 1) // 2, "lines": 2 * k}, [f"k{size}" for size in k])
    for name in ("threes", "lines"):
        table[f"{name}_saved"] = 100 * (1 - table[name] / table["square"])
    return table.rename_axis("kernel")


def case_study_shapes() -> dict[str, Any]:
    """Side of AlexNet's first output, what 3×3 stacks save in %, and the error of VGG16 with ten ImageNet classes."""
    saved, size = factorised()["threes_saved"], designs.sides([(224, "valid")])["side"][0]
    return {"size": size, "saved5": saved["k5"], "saved7": saved["k7"], "error": designs.refusal().partition(":")[0]}


RECOMPUTED: dict[int, Callable[[], Any]] = {
    1: series_flops, 2: filter_counts, 3: filter_counts, 4: savings, 6: rotation, 7: gradients, 8: architectures,
    9: weight_of_dense, 10: noise, 11: scales, 12: case_study, 13: dead_trainings, 15: redrawn, 17: factorised,
    18: case_study_shapes,
}  # fmt: skip
