"""Parameters of the chapters and profiles of a build: declared once here, checked alike wherever they come from."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from riceutils import files

PROFILES = files.PACKAGE / "profiles"


class ParameterError(ValueError):
    """A parameter's name, type or value is wrong; the message names it and says what is allowed."""


# The types of parameters that several kinds of chapters have; a kind adds its default.
SOURCES = "synthetic (or rice), kaggle, digits, mnist, cifar10, cifar100_coarse, an .npz file, a folder or a zip"
Images = Annotated[str, Field(min_length=1, description=SOURCES)]
Sides = Annotated[list[Annotated[int, Field(ge=1, le=100_000)]], Field(strict=False, min_length=3, max_length=3)]
Counts = Annotated[
    Sides | Annotated[int, Field(ge=3, le=100_000)],
    Field(description="train, validation, test; or one number, split among the three"),
]
Epochs = Annotated[int, Field(ge=1, le=1000, description="epoch limit; training may end sooner")]
Batch = Annotated[int, Field(ge=1, le=4096, description="images per training step")]
Rate = Annotated[float, Field(gt=0, le=1, description="learning rate of Adam")]
Initializer = Annotated[
    Literal["glorot_uniform", "glorot_normal", "he_uniform", "he_normal", "lecun_uniform", "lecun_normal"],
    Field(description="initialiser of the kernels, by its name in Keras"),
]
Weights = Annotated[str, Field(min_length=1, description="pretrained: imagenet, hed, none, a file, or auto")]
Slimmable = Literal["cnn", "cnn_light", "googlenet_light", "vgg_custom", "final"]


class DataParameters(BaseModel):
    """Which images, how many and how large."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    data: Images = "synthetic"
    image_size: int = Field(64, ge=16, le=512, description="side of the square images in pixels")
    images_per_class: Counts = [200, 50, 100]
    skip_unreadable: bool = Field(False, description="leave unreadable files out instead of stopping")
    seed: int = Field(0, ge=0, le=2**31 - 1, description="draws the weights and the order of training")


class ProtocolParameters(DataParameters):
    """What all trainings of a build share; the published protocol leaves batch size, patience and epochs open."""

    epochs: Epochs = 12
    batch_size: Batch = 32
    patience: int = Field(5, ge=1, le=1000, description="epochs without a better validation loss before stopping")
    time_limit: int = Field(0, ge=0, le=100_000, description="minutes of training, checked after each epoch; 0: none")


class TrainingParameters(ProtocolParameters):
    """How one model is trained."""

    learning_rate: Rate = 1e-3
    initializer: Initializer = "glorot_uniform"
    augment: bool = Field(False, description="train on perturbed images; the published models were not")
    retries: int = Field(0, ge=0, le=20, description="further seeds to try when a training turns out dead")
    probe_images: int = Field(50, ge=5, le=100_000, description="test images for the single perturbations; at most")
    tensorboard: str = Field("", description="folder for TensorBoard logs; empty: none")


class GoogLeNetParameters(TrainingParameters):
    """Deviates from the protocol, or training is dead at small size: see the chapter on dead training."""

    learning_rate: Rate = 3e-4
    initializer: Initializer = "he_normal"


class PretrainedParameters(TrainingParameters):
    """Of the models that stand on VGG16's trunk."""

    weights: Weights = "auto"
    preprocessing: Literal["auto", "rgb", "caffe"] = Field(
        "auto", description="rgb: divided by 255; caffe: BGR minus the mean; auto: what the weights expect"
    )


class VGG16Parameters(PretrainedParameters):
    """Deviates from the protocol, or block 5 shuts down at small size: see the chapter on VGG16."""

    learning_rate: Rate = 1e-4


class ComparisonParameters(ProtocolParameters):
    """The runs that are compared: those that the model chapters make with the same parameters."""

    overrides: dict[str, dict[str, Any]] = Field(
        {}, description="by model, where its chapter was given other values than its defaults"
    )


class MobileNetParameters(TrainingParameters, ComparisonParameters):
    """Of the chapter that trains its own models and compares them with the study's."""


class DeadParameters(DataParameters):
    """Of the chapter that lets training die."""

    epochs: Epochs = 2
    batch_size: Batch = 32
    initialisations: int = Field(3, ge=1, le=1000, description="seeds that each condition is tried with")


class BackgroundParameters(ProtocolParameters):
    """Of the chapters on the architectures that the study stands on: small pictures, few epochs."""

    data: Images = "digits"
    image_size: int = Field(32, ge=8, le=512, description="side of the square images in pixels")
    images_per_class: Counts = [60, 20, 40]
    epochs: Epochs = 4
    learning_rate: Rate = 1e-3


class TransferParameters(BackgroundParameters):
    """Of the chapter on transfer learning."""

    data: Images = "synthetic"
    backbone: Literal["vgg16", "resnet50", "mobilenetv3"] = Field("vgg16", description="network that is transferred")
    weights: Weights = "auto"


class FilterParameters(ProtocolParameters):
    """Of the chapters that look into a trained network: the study's model, as its own chapter trains it."""

    model: Slimmable = Field("cnn", description="model of the study whose filters are looked at")


class SlimmingParameters(FilterParameters):
    """Of the chapter that removes filters."""

    shares: list[Annotated[float, Field(gt=0, lt=1)]] = Field(
        [0.5, 0.1], min_length=1, description="of the FLOPs that stay after a cut"
    )
    epochs_after: int = Field(2, ge=1, le=1000, description="epochs of training after a cut")


class LightestParameters(DataParameters):
    """Of the chapter on the lightest network."""

    epochs: Epochs = 8
    copies: int = Field(2, ge=0, le=100, description="perturbed copies of each training image")
    candidates: int = Field(4, ge=1, le=1000, description="networks of the grid that are trained, evenly chosen")


CHAPTERS: dict[str, type[DataParameters]] = {
    "01_dataset": DataParameters,
    "02_cnn": TrainingParameters,
    "03_cnn_light": TrainingParameters,
    "04_googlenet": GoogLeNetParameters,
    "05_googlenet_light": GoogLeNetParameters,
    "06_vgg16": VGG16Parameters,
    "07_vgg_light": PretrainedParameters,
    "08_vgg_custom": TrainingParameters,
    "09_comparison": ComparisonParameters,
    "10_final_model": TrainingParameters,
    "11_conclusion": ComparisonParameters,
    "12_dead_training": DeadParameters,
    "13_lenet": BackgroundParameters,
    "14_alexnet": BackgroundParameters,
    "15_vgg": BackgroundParameters,
    "16_inception": BackgroundParameters,
    "17_resnet": BackgroundParameters,
    "18_mobilenet": MobileNetParameters,
    "19_pretrained_models": DataParameters,
    "20_transfer_learning": TransferParameters,
    "21_dead_filters": FilterParameters,
    "22_slimming": SlimmingParameters,
    "23_lightest_network": LightestParameters,
}

# Chapters that read the runs which the chapters of the models have left.
READERS = tuple(name for name, kind in CHAPTERS.items() if issubclass(kind, ComparisonParameters))

# The models that a chapter trains, its own first.
MODELS = {
    "02_cnn": ("cnn",),
    "03_cnn_light": ("cnn_light",),
    "04_googlenet": ("googlenet",),
    "05_googlenet_light": ("googlenet_light",),
    "06_vgg16": ("vgg16",),
    "07_vgg_light": ("vgg_light", "vgg_light_draft"),
    "08_vgg_custom": ("vgg_custom",),
    "10_final_model": ("final",),
}
# A chapter that uses what another leaves in the cache (VGG16's features, the run of CNN) and is quicker after it.
AFTER = {"07_vgg_light": "06_vgg16", "21_dead_filters": "02_cnn", "22_slimming": "02_cnn"}
# What a chapter trains beside the study's models, which it is compared with and which do not wait for it.
BESIDE = {"18_mobilenet": ("mobilenet_small", "mobilenetv3_small")}
CHAPTER_OF = {model: chapter for chapter, trained in (MODELS | BESIDE).items() for model in trained}
STUDY = tuple(model for trained in MODELS.values() for model in trained)


def check(chapter: str, values: Mapping[str, Any]) -> Any:
    """Validate the parameters of ``chapter``: a model of its declared type.

    Raises ``ParameterError`` with one sentence naming the first parameter that is unknown, of a wrong type or out
    of range.
    """
    declared = _declared(chapter)
    try:
        parameters = declared(**values)
    except ValidationError as error:
        raise ParameterError(_sentence(chapter, declared, error)) from None
    if isinstance(parameters, ComparisonParameters):
        for model in parameters.overrides:
            if model not in STUDY:
                raise ParameterError(f"{chapter}: overrides names {model!r}. Models: {', '.join(STUDY)}.")
            of_model(model, parameters)
    return parameters


def _declared(chapter: str) -> type[DataParameters]:
    if chapter not in CHAPTERS:
        raise ParameterError(f"Unknown chapter {chapter!r}. Chapters: {', '.join(CHAPTERS)}.")
    return CHAPTERS[chapter]


def _sentence(chapter: str, declared: type[BaseModel], error: ValidationError) -> str:
    first = error.errors()[0]
    name = str(first["loc"][0])
    if first["type"] == "extra_forbidden":
        return f"{chapter} has no parameter {name!r}. Its parameters: {', '.join(declared.model_fields)}."
    return f"{chapter}: {name} is {first['input']!r}; {first['msg'][0].lower()}{first['msg'][1:]}."


def check_notebook(chapter: str, namespace: MutableMapping[str, Any]) -> Any:
    """Validate a notebook's own variables: everything that its parameters cells, papermill's too, have set.

    Only plain values count, as papermill can set them; names with a leading underscore and what IPython hides do not.
    When the notebook runs again in the same kernel, only what counted the first time does, not what later cells left.
    """
    shell = namespace.get("get_ipython")
    hidden = {"In", "Out"} | (set(shell().user_ns_hidden) if callable(shell) else set())
    plain = (str, int, float, list, tuple, dict, type(None))
    found = {name: value for name, value in namespace.items() if isinstance(value, plain) and name not in hidden}
    values = {name: found[name] for name in namespace.get("_checked", found) if name in found and name[0] != "_"}
    parameters = check(chapter, values)
    namespace["_checked"] = tuple(values)
    return parameters


def profile(name: str) -> dict[str, Any]:
    """A profile by name: ``parameters`` for all chapters and ``chapters`` with what differs in one.

    ``ParameterError`` names the known profiles."""
    path = PROFILES / f"{name}.yml"
    if not path.is_file():
        known = ", ".join(sorted(found.stem for found in PROFILES.glob("*.yml")))
        raise ParameterError(f"Unknown profile {name!r}. Profiles: {known}.")
    return files.read_yaml(path)


def chapter_parameters(profile_name: str, chapter: str, data: str | None = None) -> dict[str, Any]:
    """The parameters with which ``chapter`` runs in a profile, validated; ``data`` replaces the profile's images.

    A profile's ``parameters`` are those of the study's chapters, its ``background`` those of the others; ``data``
    leaves the images of the latter alone.
    """
    settings, declared = profile(profile_name), _declared(chapter)
    background, fields = issubclass(declared, BackgroundParameters), declared.model_fields
    data = None if background else data
    shared = settings.get("background" if background else "parameters") or {}
    values = {name: value for name, value in shared.items() if name in fields}
    own = settings.get("chapters") or {}
    values |= own.get(chapter) or {}
    if "overrides" in fields:
        values["overrides"] = {model: own[name] for name, trained in MODELS.items() if name in own for model in trained}
    if data in ("synthetic", "kaggle"):
        values["data"] = data
    elif data:
        path = Path(data).expanduser().resolve()
        if not path.exists():
            raise ParameterError(f"No such folder or zip: {data}. Use 'synthetic', 'kaggle', or an existing path.")
        values["data"] = str(path)
    return check(chapter, values).model_dump()


def of_model(model: str, parameters: ProtocolParameters) -> TrainingParameters:
    """The parameters of a study ``model``'s own chapter that go with those of another: shared ones carry over."""
    shared = parameters.model_dump(include=set(ProtocolParameters.model_fields))
    overrides = parameters.overrides if isinstance(parameters, ComparisonParameters) else {}
    return check(CHAPTER_OF[model], shared | overrides.get(model, {}))


def training_parameters(profile_name: str, model: str, data: str | None = None) -> TrainingParameters:
    """The parameters that a profile gives to the chapter of ``model``; ``ParameterError`` names those that have one."""
    if model not in CHAPTER_OF:
        raise ParameterError(f"Unknown model {model!r}. Models: {', '.join(CHAPTER_OF)}.")
    chapter = CHAPTER_OF[model]
    return check(chapter, chapter_parameters(profile_name, chapter, data))
