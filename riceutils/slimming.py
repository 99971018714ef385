"""Removing filters: a plan says which channels go and why, and a smaller model is built that keeps the others' weights.

Deciding (:func:`select`) is kept apart from cutting (:func:`riceutils.surgery.apply`). A plan is a table with a row
for every channel of a convolution or dense layer that goes; channels that are tied, as by a residual addition, go
together.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace

import keras
import numpy as np
import pandas as pd

from riceutils import activations, flops
from riceutils.channels import MAKERS, Channels, UnsupportedLayer, follow
from riceutils.models import pretrained
from riceutils.surgery import apply as apply
from riceutils.surgery import rebuild

Budget = Mapping[str, float]
BATCH = 32
CONSTANT = 1e-6  # a channel that varies less, relative to its size, is constant
COLUMNS = ["layer", "channel", "reason", "constants", "FLOPs", "parameters"]


# A criterion scores every channel of a layer; the lowest go first. It is given what activations.measure says of the
# layer's filters, the kernel (..., in, out), and a random generator.


def _apoz(filters: pd.DataFrame, kernel: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Black first: share of outputs that are not zero (Hu et al. 2016, arXiv 1607.03250)."""
    return 1 - filters["apoz"].to_numpy()


def _l1(filters: pd.DataFrame, kernel: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Smallest kernels first (Li et al. 2017, arXiv 1608.08710)."""
    return np.abs(kernel.astype(np.float32)).sum(axis=tuple(range(kernel.ndim - 1)))


def _random(filters: pd.DataFrame, kernel: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """By chance: what any other criterion has to beat."""
    return rng.random(size=kernel.shape[-1:])


CRITERIA: dict[str, Callable[[pd.DataFrame, np.ndarray, np.random.Generator], np.ndarray]] = {
    "apoz": _apoz,
    "l1": _l1,
    "random": _random,
}


def select(
    model: keras.Model,
    images: np.ndarray,
    criterion: str = "dead",
    budget: Budget | None = None,
    *,
    layers: Collection[str] | None = None,
    preprocessing: str = "rgb",
    seed: int = 0,
) -> pd.DataFrame:
    """Plan which channels of ``model`` go.

    ``images``: uint8 (N, H, W, 3), the probe set. Criterion ``dead``, without a budget, is lossless on it: a channel
    goes if every layer that reads it sees one constant, which is zero or can be folded into that layer's bias
    exactly. ``apoz``, ``l1`` and ``random`` thin all layers of filters evenly until ``budget`` is met, the share of
    ``{"flops": 0.5}`` or ``{"parameters": 0.5}`` that stays; the criterion only says which filters of a layer go.
    Filters that it does not tell apart, as ``apoz`` where nothing is ever zero, go by ``l1``. At least one channel of a
    layer is kept, unless a parallel branch remains. With ``layers``, names of convolutions (or of dense layers, which
    ``dead`` alone thins), only their channels go, and the budget is a share of what these layers cost.

    Gives columns layer, channel, reason, constants (what readers saw: nothing where they saw zero or the cut is
    lossy), FLOPs and parameters that this channel alone would save. Refused channels, constant but not foldable, are
    in ``.attrs["refused"]`` as (layer, channel, reason). Raises ``UnsupportedLayer``, or ``ValueError`` for an
    unknown criterion or layer, a budget that is missing, out of range or cannot be met, or no images.
    """
    check(criterion, budget)
    if not len(images):
        raise ValueError("No images to measure on: the probe set is empty.")
    if images.dtype != np.uint8:
        raise ValueError(f"The probe images are {images.dtype}; expected uint8, 0 to 255, as they were decoded.")
    if isinstance(layers, str):
        raise ValueError(f"layers is {layers!r}; expected a list of names, such as [{layers!r}].")
    channels = follow(model)
    model = channels.model
    flops.count(model)  # a layer without a formula is said before anything is measured
    if len(model.inputs) != 1:
        names = ", ".join(tensor._keras_history.operation.name for tensor in model.inputs)
        raise UnsupportedLayer(f"{model.name} has several inputs, {names}; one, the image, is needed.")
    given, wanted = pretrained.preprocess(images[:1], preprocessing).shape[1:], model.inputs[0].shape[1:]
    if given != wanted:
        raise ValueError(f"{model.name} takes images of {wanted}, the probe set has {given} by {preprocessing!r}.")
    if layers is not None:
        channels = _only(channels, layers)
        dense = [name for name in layers if type(model.get_layer(name)).__name__ != "Conv2D"]
        if dense and criterion != "dead":
            raise ValueError(f"{dense[0]} is no convolution, and {criterion} thins convolutions only.")
    if criterion == "dead":
        return _dead(channels, images, preprocessing)
    ((kind, share),) = (budget or {}).items()
    order = _order(channels, images, criterion, preprocessing, seed)
    goal = share * _cost(model, kind, layers)

    def met(number: int) -> bool:
        return _cost(rebuild(channels, set(order[:number])), kind, layers) <= goal

    if not met(len(order)):
        raise ValueError(f"{model.name} can't be cut to {share:g} of its {kind}: one filter of each layer stays.")
    low, high = 0, len(order)
    while low < high:  # fewest channels that meet the budget
        middle = (low + high) // 2
        low, high = (low, middle) if met(middle) else (middle + 1, high)
    return _table(channels, {group: {} for group in order[:low]}, dict.fromkeys(order[:low], criterion))


def check(criterion: str, budget: Budget | None) -> None:
    """Raise ``ValueError`` for an unknown criterion, or a budget that does not go with it or is out of range."""
    if criterion != "dead" and criterion not in CRITERIA:
        raise ValueError(f"Unknown criterion {criterion!r}. Use dead, {', '.join(CRITERIA)}.")
    if criterion == "dead":
        if budget:
            raise ValueError("Criterion dead takes no budget: it removes what does no work, and nothing else.")
        return
    if not budget or len(budget) != 1 or next(iter(budget)) not in ("flops", "parameters"):
        raise ValueError(f"The budget is {budget}; expected one of flops or parameters, such as {{'flops': 0.5}}.")
    ((kind, share),) = budget.items()
    if not 0 < share < 1:
        raise ValueError(f"The budget keeps {share} of the {kind}; expected a share between 0 and 1.")


def _cost(model: keras.Model, kind: str, layers: Collection[str] | None) -> int:
    if kind == "flops":
        spent = flops.count(model).by_layer
        return int((spent if layers is None else spent[spent["layer"].isin(layers)])["FLOPs"].sum())
    return sum(layer.count_params() for layer in model.layers if layers is None or layer.name in layers)


def _only(channels: Channels, layers: Collection[str]) -> Channels:
    """The same channels, with those fixed that any other layer than ``layers`` makes."""
    for name in layers:
        channels.group(name, 0)
    others = {group for group, made in channels.makers.items() if any(layer not in layers for layer, _ in made)}
    return replace(channels, fixed=channels.fixed | others)


def _dead(channels: Channels, images: np.ndarray, preprocessing: str) -> pd.DataFrame:
    """Groups whose every reader sees one constant, and can do without it."""
    model = channels.model
    seen = _ranges(channels, images, preprocessing)
    gone: dict[int, dict[str, dict[int, float]]] = {}
    refused = []
    for group in channels.removable:
        constants: dict[str, dict[int, float]] = {}
        constant = True
        for reader, feature in channels.readers.get(group, ()):
            low, high = (float(bound[feature]) for bound in seen[reader])
            constant &= high - low <= CONSTANT * max(abs(low), abs(high))
            if high or low:
                constants.setdefault(reader, {})[feature] = (low + high) / 2
        if not constant:
            continue
        stuck = next((reader for reader in constants if not _foldable(model.get_layer(reader))), None)
        if stuck is None:
            gone[group] = constants
        else:
            layer, channel = channels.makers[group][0]
            refused.append((layer, channel, f"constant, but {stuck} pads its input with zeros"))
    while needed := _needed(channels, set(gone)):
        for group in needed:
            del gone[group]
            refused.append((*channels.makers[group][0], "the last channel of its layer"))
    plan = _table(
        channels, gone, {group: "constant" if constants else "never fires" for group, constants in gone.items()}
    )
    plan.attrs["refused"] = refused
    return plan


def _foldable(reader: keras.Layer) -> bool:
    """Whether a constant input equals a constant added to the bias: not where zeros are padded around it."""
    kind = type(reader).__name__
    return kind == "Dense" or reader.padding == "valid" or tuple(reader.kernel_size) == (1, 1)


def _needed(channels: Channels, gone: set[int]) -> set[int]:
    """One group for each layer that stays and would be left with nothing to read."""
    needed = set()
    for name, given in channels.inputs.items():
        if (
            type(channels.model.get_layer(name)).__name__ in MAKERS
            and not set(map(int, channels.outputs[name])) <= gone
        ):
            read = [int(group) for group in given[0]]
            if set(read) <= gone:
                needed.add(read[0])
    return needed


def _ranges(channels: Channels, images: np.ndarray, preprocessing: str) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Smallest and largest value of every feature that a reader sees, over all images and positions."""
    model = channels.model
    readers = sorted({reader for found in channels.readers.values() for reader, _ in found})
    network = keras.Model(model.inputs, {reader: model.get_layer(reader).input for reader in readers})
    low: dict[str, np.ndarray] = {}
    high: dict[str, np.ndarray] = {}
    for start in range(0, len(images), BATCH):
        batch = pretrained.preprocess(np.asarray(images[start : start + BATCH]), preprocessing)
        for reader, values in network.predict_on_batch(batch).items():
            flat = np.asarray(values).reshape(-1, values.shape[-1])
            low[reader] = np.minimum(low.get(reader, np.inf), flat.min(axis=0))
            high[reader] = np.maximum(high.get(reader, -np.inf), flat.max(axis=0))
    return {reader: (low[reader], high[reader]) for reader in readers}


def _order(channels: Channels, images: np.ndarray, criterion: str, preprocessing: str, seed: int) -> list[int]:
    """Groups in the order in which they go: by rank within their layers, so that all layers thin out evenly.

    The last channel of a layer is not among them.
    """
    measured = activations.measure(channels.model, images, preprocessing)
    rng = np.random.default_rng(seed)
    places: dict[int, list[float]] = defaultdict(list)
    for name, filters in measured.groupby("layer", sort=False):
        kernel = np.asarray(channels.model.get_layer(name).kernel)
        score = CRITERIA[criterion](filters, kernel, rng)
        place = np.lexsort((_l1(filters, kernel, rng), score)).argsort()
        for group, own in zip(channels.outputs[str(name)], place, strict=True):
            places[int(group)].append(own / len(score))
    alike: dict[frozenset[str], list[int]] = defaultdict(list)
    for group in sorted(set(places) - channels.fixed, key=lambda group: (np.mean(places[group]), group)):
        alike[frozenset(layer for layer, _ in channels.makers[group])].append(group)
    # Ranked anew among those of the same layers: means over tied layers crowd in the middle, more or less by criterion.
    ranked = sorted(((n + 1) / len(own), group) for own in alike.values() for n, group in enumerate(own))
    left = {name: set(map(int, groups)) for name, groups in channels.outputs.items()}
    order = []
    for _, group in ranked:
        holders = {layer for layer, _ in channels.makers[group]}
        if all(len(left[layer]) > 1 for layer in holders):
            order.append(group)
            for layer in holders:
                left[layer].discard(group)
    return order


def _table(
    channels: Channels, gone: Mapping[int, dict[str, dict[int, float]]], reasons: Mapping[int, str]
) -> pd.DataFrame:
    costs = flops.count(channels.model).by_layer.set_index("layer")["FLOPs"].to_dict()
    rows = []
    for group, constants in gone.items():
        saved = _saving(channels, group, costs)
        for number, (layer, channel) in enumerate(channels.makers[group]):
            rows.append((layer, channel, reasons[group], constants, *(saved if number == 0 else (0, 0))))
    return pd.DataFrame(rows, columns=COLUMNS)


def _saving(channels: Channels, group: int, costs: Mapping[str, int]) -> tuple[int, int]:
    """FLOPs and parameters that go with one group alone: its share of every layer that makes, passes or reads it."""
    work = weights = 0.0
    for name, groups in channels.outputs.items():
        layer = channels.model.get_layer(name)
        share = float(np.mean(groups == group))
        work += costs[name] * share
        weights += layer.count_params() * share
        if type(layer).__name__ in MAKERS:
            share = float(np.mean(channels.inputs[name][0] == group))
            size = int(np.prod(layer.kernel.shape))
            work += 2 * size * int(np.prod(layer.output.shape[1:-1])) * share
            weights += size * share
    return round(work), round(weights)
