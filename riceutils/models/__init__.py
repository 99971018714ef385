"""The registry of architectures: every model under the name of the published tables."""

from __future__ import annotations

import bisect
import inspect
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True)
class Architecture:
    """How to build a model, with its own input shape (height, width, channels) and number of classes.

    ``pretrained``: the network of ``keras.applications`` that its trunk is, whose weights it can take (see
    :mod:`riceutils.models.pretrained`); empty when it has none.
    """

    function: Callable[..., Any]
    input_shape: tuple[int, int, int]
    classes: int
    pretrained: str = ""


REGISTRY: dict[str, Architecture] = {}


def register(
    name: str, *, input_shape: tuple[int, int, int] = (224, 224, 3), classes: int = 5, pretrained: str = ""
) -> Callable:
    """Decorate ``function(input_shape, classes, **options) -> keras.Model`` to make it available under ``name``."""

    def decorate(function: Callable) -> Callable:
        REGISTRY[name] = Architecture(function, input_shape, classes, pretrained)
        return function

    return decorate


def names() -> list[str]:
    """Names of all models, in the book's order."""
    return list(REGISTRY)


def architecture(name: str) -> Architecture:
    """The registry's entry; ``ValueError`` names the known models when ``name`` is unknown."""
    if name not in REGISTRY:
        raise ValueError(f"Unknown model {name!r}. Known models: {', '.join(REGISTRY)}.")
    return REGISTRY[name]


def build(
    name: str,
    input_shape: tuple[int, int, int] | None = None,
    classes: int | None = None,
    weights: str | None = None,
    **options: Any,
) -> keras.Model:
    """Build a model under its registry name, uncompiled, inputs float32 in [0, 1].

    ``input_shape`` and ``classes`` default to the architecture's own, ``options`` are its function's further
    arguments. ``weights``: None for fresh ones, a ``.weights.h5`` file of the whole model, or, for the models on a
    pretrained trunk, whatever :func:`riceutils.models.pretrained.resolve` takes or returns. Raises ``ValueError`` for
    an unknown name or option, an image too small for the architecture, or weights that do not fit.
    """
    entry = architecture(name)
    shape, classes = tuple(input_shape or entry.input_shape), classes or entry.classes
    known = list(inspect.signature(entry.function).parameters)[2:]
    if unknown := set(options) - set(known):
        raise ValueError(f"{name} has no option {min(unknown)!r}. Its options: {', '.join(known) or 'none'}.")
    try:
        model = entry.function(shape, classes, **options)
    except ValueError as error:  # Keras's own words fill many lines; they stay the cause
        given = f" and options {options}" if options else ""
        raise ValueError(
            f"{name} cannot be built for input {shape}{given}: {_reason(entry, shape, options)}"
        ) from error
    model.name = name
    if weights is not None and not _loaded(model, weights):
        if not entry.pretrained:
            raise ValueError(f"Weights {weights} do not fit {name} with input {shape} and {classes} classes.")
        backbone = entry.pretrained
        resolved = weights if weights.startswith(("hed ", "file ")) else pretrained.resolve(weights, backbone)
        for layer, arrays in pretrained.trunk(resolved, backbone).items() if resolved else ():
            if layer in {own.name for own in model.layers}:  # cut after block 3 or 4, the rest is not needed
                model.get_layer(layer).set_weights(arrays)
    return model


def _reason(entry: Architecture, shape: tuple[int, ...], options: dict[str, Any]) -> str:
    """Why a network can't be built: its smallest image, found by trying, or that something else is wrong."""

    def builds(size: int) -> bool:
        try:
            entry.function((size, size, shape[-1]), entry.classes, **options)
        except ValueError:
            return False
        return True

    sizes = range(1, entry.input_shape[0] + 1)
    smallest = bisect.bisect_left(sizes, True, key=builds)
    if smallest == len(sizes) or min(shape[:2]) >= sizes[smallest]:
        return "one of its options has a value that it can't take." if options else "it can't take such an input."
    return f"the image is too small; at least {sizes[smallest]}×{sizes[smallest]} is needed."


def _loaded(model: keras.Model, path: str) -> bool:
    if not Path(path).is_file():
        return False
    try:
        model.load_weights(path)
    except (ValueError, OSError):
        return False
    return True


def initialise(model: keras.Model, initializer: str, seed: int, keep: Collection[str] = ()) -> None:
    """Draw every trainable kernel of ``model`` anew by a Keras initializer's name, but in the layers ``keep``; biases
    stay as they are."""
    import keras

    for number, layer in enumerate(model.layers):
        if layer.trainable and hasattr(layer, "kernel") and layer.name not in keep:
            drawn = keras.initializers.get({"class_name": initializer, "config": {"seed": seed * 1000 + number}})
            layer.kernel.assign(drawn(layer.kernel.shape))


from riceutils.models import classics as _classics  # noqa: E402, F401
from riceutils.models import nano as _nano  # noqa: E402, F401
from riceutils.models import pretrained  # noqa: E402
from riceutils.models import study as _study  # noqa: E402, F401  (these register their models)
from riceutils.models import transfer as _transfer  # noqa: E402, F401
