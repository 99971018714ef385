"""Transfer learning: the published experiment beside our models, and its trainings on this build's images.

Charts return ``(figure, table)``, as in :mod:`riceutils.plots`.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from riceutils import background, charts, errata, ledger, models, page
from riceutils.config import TransferParameters
from riceutils.data import Splits
from riceutils.models import pretrained
from riceutils.plots import PALETTE, Chart, figure
from riceutils.runs import Run

TRUNKS = ("VGG16", "ResNet50", "MobileNetV3Large")
KINDS = ("fc", "all", "exp")  # what is trained: the head, all layers, all under a wider head
SETS = ("cifar10", "rice")  # what the reference trainings of resources/background.yml were made on
RATE = 3e-5  # of Adam, for a pretrained network without batch normalisation that is trained as a whole


def run(parameters: TransferParameters, splits: Splits) -> dict[str, Run]:
    """Train or load the models of ``parameters.backbone``, by what is trained (head only, all layers, wider head).

    VGG16 has no batch normalisation, and the usual rate wrecks its weights: as a whole it is trained at ``RATE`` at
    most. Drawn grains are not enlarged, so that a build takes a minute; other images are, as the model says.
    """
    options = {"enlarge": 1} if splits.kind == "synthetic" else {}
    built = {}
    for label, model in background.transfer_models(parameters.backbone).items():
        careful = parameters.backbone == "vgg16" and label != "head only"
        rate = min(parameters.learning_rate, RATE) if careful else parameters.learning_rate
        own = parameters.model_copy(update={"learning_rate": rate})
        built[label] = background.run(model, own, splits, **options)
    return built


def counts() -> pd.DataFrame:
    """Parameters of the published models, all and trainable, as printed and as built here."""
    rows = []
    for model, printed in errata.published("transfer").iterrows():
        ours = ledger.static(str(model))
        pairs = [(int(printed[column.replace(" ", "_")]), int(ours[column].value)) for column in ledger.STATIC[:2]]
        same = all(first == second for first, second in pairs)
        rows.append((model, *pairs[0], *pairs[1], "exact" if same else "differs"))
    names = ["published parameters", "parameters", "published trainable", "trainable parameters"]
    return pd.DataFrame(rows, columns=["model", *names, "verdict"])


def scores() -> Chart:
    """The published accuracies: of training and validation after the last epoch, and of the evaluation."""
    table = errata.published("transfer")[["accuracy", "val_accuracy", "evaluation"]]
    canvas, axes = figure(0.5 * len(table) + 1.3)
    axis, height = axes[0, 0], 0.26
    for number, (column, words) in enumerate(zip(table, ("training", "validation", "test"), strict=True)):
        y = np.arange(len(table)) + (number - 1) * height
        bars = axis.barh(y, table[column], height * 0.92, color=PALETTE[number], label=words)
        axis.bar_label(bars, fmt="%.4f", padding=3, fontsize=8)
    axis.set(
        xlabel="published accuracy, 20 superclasses of CIFAR-100",
        xlim=(0, 1.08),
        yticks=range(len(table)),
        yticklabels=table.index,
    )
    axis.invert_yaxis()
    canvas.legend(loc="outside lower center", ncols=3, fontsize=8)
    names = {"accuracy": "training accuracy", "val_accuracy": "validation accuracy", "evaluation": "test"}
    return canvas, table.rename(columns=names).reset_index()


def parts() -> pd.DataFrame:
    """Where the parameters lie: model, layer (``trunk``, or one of the head), parameters.

    A model that is trained as a whole has the same ones as that of which the head alone is trained, and is left out.
    """
    rows: list[tuple[str, str, int]] = []
    for backbone in ("vgg16", "resnet50", "mobilenetv3"):
        for label, name in background.transfer_models(backbone).items():
            if label == "all layers":
                continue
            network = models.build(name)
            behind = [layer.name for layer in network.layers].index("average")
            head = [(name, layer.name, layer.count_params()) for layer in network.layers[behind:] if layer.weights]
            trunk = network.count_params() - sum(count for *_, count in head)
            rows += [(name, "trunk", trunk), *((name, layer.replace("dense1", "dense"), n) for _, layer, n in head)]
    return pd.DataFrame(rows, columns=["model", "layer", "parameters"])


def heads(table: pd.DataFrame) -> Chart:
    """Parameters of :func:`parts`, a bar per model (left, in all; right, the head alone), a colour per layer."""
    names, layers = list(dict.fromkeys(table["model"])), list(dict.fromkeys(table["layer"]))
    order = [layer for layer in ("trunk", "dense", "dense2", "dense3", "softmax") if layer in layers]
    wide = table.pivot_table("parameters", "model", "layer", aggfunc="sum").reindex(names)[order].fillna(0) / 1e6
    canvas, axes = figure(0.34 * len(names) + 1.4, 1, 2, sharey=True)
    for axis, shown in zip(axes[0], (order, order[1:]), strict=True):
        left = np.zeros(len(names))
        for layer in shown:
            color = "0.75" if layer == "trunk" else PALETTE[order.index(layer) - 1]
            axis.barh(names, wide[layer], left=left, color=color, label=layer)
            left += wide[layer].to_numpy()
        for y, total in enumerate(left):
            axis.text(total, y, f" {total:.2f}", va="center", fontsize=8)
        axis.set(xlabel=f"million parameters, {'whole network' if shown is order else 'head alone'}")
        axis.margins(x=0.14)
    axes[0, 0].invert_yaxis()
    canvas.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=5, fontsize=8)
    return canvas, table


def rules() -> pd.DataFrame:
    """The preprocessing that each backbone gets, with ImageNet's weights and without any."""
    rows = [(name, pretrained.expected(name, "imagenet"), pretrained.expected(name, None)) for name in TRUNKS]
    return pd.DataFrame(rows, columns=["backbone", "pretrained", "without weights"])


def pixels(image: np.ndarray) -> Chart:
    """One image uint8 (H, W, 3) as three rules of preprocessing feed it: range and mean of each input channel."""
    canvas, axes = figure(2.5, 1, 4, width_ratios=(0.8, 1, 1, 1))
    axes[0, 0].imshow(image)
    axes[0, 0].axis("off")
    rows = []
    for axis, how in zip(axes[0, 1:], ("rgb", "caffe", "raw"), strict=True):
        fed = np.asarray(pretrained.preprocess(image, how)).reshape(-1, 3)
        order = "BGR" if how == "caffe" else "RGB"
        for place, (name, values) in enumerate(zip(order, fed.T, strict=True)):
            color = PALETTE[{"R": 3, "G": 2, "B": 0}[name]]
            axis.plot([values.min(), values.max()], [place, place], color=color, linewidth=5, solid_capstyle="butt")
            axis.plot(values.mean(), place, "o", color="k", ms=4)
            rows.append((how, name, values.min(), values.mean(), values.max()))
        axis.set(title=how, ylim=(2.6, -0.6), xlabel="minimum, mean, maximum", yticks=range(3), yticklabels=list(order))
    return canvas, pd.DataFrame(rows, columns=["preprocessing", "channels", "minimum", "mean", "maximum"])


def results(built: Mapping[str, Run]) -> pd.DataFrame:
    """This build's trainings: what was trained, from which weights, how fast, on cached features or not, how well."""
    rows = []
    for label, finished in built.items():
        record, spec = finished.record, finished.spec
        reused = "yes" if record["features_reused"] else "no"
        seconds = f"{record['seconds']['training']:.1f}"
        how = (spec.weights or "none", f"{spec.learning_rate:g}", len(finished.history), reused, seconds)
        rows.append((spec.model, label, *how, background.accuracy([finished])))
    names = ["model", "training", "weights", "learning rate", "epochs", "cached features", "seconds", "accuracy"]
    return pd.DataFrame(rows, columns=names)


def printed() -> dict[str, str]:
    """The report's accuracy in evaluation, of each backbone that it trained so, beside our trainings on photographs."""
    found = ledger.published("transfer").set_index("model")["evaluation"]
    names = {"resnet50": "ResNet50", "mobilenetv3": "MobileNetV3Large"}
    return {
        f"transfer_cifar10_{kind}": ", ".join(
            f"{name} {found[model]}" for stem, name in names.items() if (model := f"{stem}_{kind}") in found
        )
        for kind in KINDS
    }


def reference(built: Mapping[str, Run]) -> None:
    """Display the reference trainings of VGG16 on photographs and on rice beside this build's, and their curves."""
    ours = [finished for finished in built.values() if finished.spec.model.startswith("transfer_vgg16")]
    rows: dict[str, list[Run]] = {}
    for images in SETS:
        for kind in KINDS:
            same = [own for own in ours if own.spec.model.endswith(kind) and images == "rice"]
            rows[f"transfer_{images}_{kind}"] = same
    missing = [name for name in rows if not background.committed(name)]
    if missing:
        page.note("no_reference", model=", ".join(missing))
    page.table(background.table(rows, printed()))
    for images in SETS:
        names = [f"transfer_{images}_{kind}" for kind in KINDS]
        if found := {name: runs for name in names if (runs := background.committed(name))}:
            page.chart(*charts.histories(found))
