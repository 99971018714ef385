"""The registry of architectures: every model under the name of the published tables."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True)
class Architecture:
    """How to build a model, with its own input shape (height, width, channels) and number of classes."""

    name: str
    function: Callable[..., Any]
    input_shape: tuple[int, int, int]
    classes: int


REGISTRY: dict[str, Architecture] = {}


def register(name: str, *, input_shape: tuple[int, int, int] = (224, 224, 3), classes: int = 5) -> Callable:
    """Decorate ``function(input_shape, classes) -> keras.Model`` to make it available under ``name``."""

    def decorate(function: Callable) -> Callable:
        REGISTRY[name] = Architecture(name, function, input_shape, classes)
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
) -> keras.Model:
    """Build a model under its registry name, uncompiled, inputs float32 in [0, 1].

    ``input_shape`` and ``classes`` default to the architecture's own. ``weights``: a ``.weights.h5`` file, or
    None for fresh ones. Raises ``ValueError`` for an unknown name, an image too small for the architecture, or
    weights that do not fit.
    """
    entry = architecture(name)
    shape, classes = tuple(input_shape or entry.input_shape), classes or entry.classes
    try:
        model = entry.function(shape, classes)
    except ValueError as error:
        raise ValueError(f"{name} cannot be built for input {shape}: the image is too small.") from error
    model.name = name
    if weights is not None:
        try:
            model.load_weights(weights)
        except (ValueError, OSError) as error:
            raise ValueError(
                f"Weights {weights} do not fit {name} with input {shape} and {classes} classes."
            ) from error
    return model


from riceutils.models import study as _study  # noqa: E402, F401  (registers its models)
