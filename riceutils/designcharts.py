"""Charts of what designs cost and of how a signal passes the layers: ``(figure, table)``, as in riceutils.plots."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.patches import Rectangle

from riceutils import dead, designs, errata, gradients, models, study, training
from riceutils.data import Splits
from riceutils.plots import PALETTE, Chart, figure
from riceutils.runs import Run

FLAT = {"ReLU": ([0], 0.0), "tanh": ([-1, 1], 0.05), "sigmoid": ([0, 1], 0.025)}  # ends, and how near counts
KINDS = {"convolution": PALETTE[0], "dense layer": PALETTE[1], "auxiliary head": PALETTE[2], "other": "0.6"}


def fields() -> Chart:
    """What one output place of each design of ``designs.STACKS`` sees, the outermost square being the input.

    Shade: share of the ways from input to output that pass a pixel; squares: what the place sees in every layer.
    """
    (canvas, axes), rows = figure(2.7, 1, len(designs.STACKS)), []
    limits = np.array([-0.5, 0.5]) * (designs.stacks()["receptive field"].max() + 0.2)
    for axis, (name, kernels) in zip(axes[0], designs.STACKS.items(), strict=True):
        ways = designs.paths(kernels)
        edge = len(ways) / 2
        axis.imshow(ways / ways.max(), extent=(-edge, edge, -edge, edge), cmap="Blues", vmin=0, vmax=1.6)
        for passed in range(len(kernels) + 1):  # from the output place back to the input
            seen = designs.receptive_field((k, 1) for k in kernels[len(kernels) - passed :])
            square = Rectangle((-seen / 2, -seen / 2), seen, seen, fill=False, edgecolor=PALETTE[passed], linewidth=2)
            axis.add_patch(square)
            axis.text(0, seen / 2 - 0.1, f"{seen}×{seen}", ha="center", va="top", fontsize=7)
        axis.set(xlim=limits, ylim=limits, aspect="equal")
        axis.set_title(name, fontsize=10)
        axis.axis("off")
        rows.append((name, len(ways), int(ways.sum()), ways[len(ways) // 2, len(ways) // 2] / ways.sum()))
    return canvas, pd.DataFrame(rows, columns=["design", "receptive field", "paths", "share of the centre"])


def stacks(channels: int) -> Chart:
    """Weights of each design at ``channels`` in and out, one colour per receptive field, and its nonlinearities."""
    table = designs.stacks(channels)
    canvas, axes = figure(2.6)
    colors = [PALETTE[side // 2 - 1] for side in table["receptive field"]]
    bars = axes[0, 0].barh(table["design"], table["weights"] / 1e6, color=colors)
    axes[0, 0].bar_label(bars, [f"sees {row[2]}×{row[2]}, ReLUs: {row[6]}" for row in table.itertuples()], padding=3,
                         fontsize=8)  # fmt: skip
    axes[0, 0].set(xlabel=f"millions of weights, {channels} channels in and out")
    axes[0, 0].margins(x=0.25)
    axes[0, 0].invert_yaxis()
    return canvas, table


def growth(names: Iterable[str]) -> Chart:
    """How the receptive field grows with the layers (convolutions and poolings) of each model, beside the image."""
    (canvas, axes), tables = figure(4.0), []
    axis = axes[0, 0]
    for name, color in zip(names, PALETTE, strict=False):
        table = designs.growth(models.build(name))
        widest = table.groupby("number")["receptive field"].max()
        axis.plot(widest.index, widest, "o-", ms=3, color=color, label=f"{name}: {widest.iloc[-1]} px")
        tables.append(table.assign(model=name))
    axis.axhline(224, color="0.4", linewidth=1, linestyle="--")
    axis.text(0.5, 230, "side of the image", fontsize=8, color="0.4")
    axis.set(xlabel="convolutions and poolings passed", ylabel="receptive field, px", yscale="log")
    axis.set_yticks(ticks := (3, 10, 30, 100, 300, 1000), [str(tick) for tick in ticks])
    axis.legend(fontsize=8)
    return canvas, pd.concat(tables, ignore_index=True)[["model", "layer", "number", "receptive field"]]


def first_layers(table: pd.DataFrame) -> Chart:
    """FLOPs and receptive field of each row of :func:`riceutils.designs.first_layers`."""
    canvas, axes = figure(3.2, 1, 2, sharey=True)
    labels = table["kernel"] + " by " + table["stride"].astype(str)
    drawn = {"MFLOPs": table["FLOPs"] / 1e6, "receptive field (pixels)": table["receptive field"]}
    for axis, (quantity, values) in zip(axes[0], drawn.items(), strict=True):
        bars = axis.barh(labels, values, color=PALETTE[0])
        axis.bar_label(bars, [f"{value:,.0f}" for value in values], padding=3, fontsize=8)
        axis.set(xlabel=quantity)
        axis.margins(x=0.35)
    axes[0, 0].invert_yaxis()
    return canvas, table


def parts(names: Sequence[str]) -> Chart:
    """Where each model keeps its parameters (left) and FLOPs (right): shares in the order of the layers."""
    canvas, axes = figure(0.62 * len(names) + 1.3, 1, 2, sharey=True)
    table = pd.concat([designs.parts(name) for name in names], ignore_index=True)
    for axis, quantity in zip(axes[0], ("parameters", "FLOPs"), strict=True):
        for name, rows in table.groupby("model", sort=False):
            left = 0.0
            for row in rows.to_dict("records"):
                width = row[f"share of {quantity}"]
                axis.barh(name, width, left=left, color=KINDS[row["kind"]], edgecolor="white", linewidth=0.8)
                if width > 0.022 * len(row["part"]):
                    axis.text(left + width / 2, name, row["part"], ha="center", va="center", fontsize=7, color="white")
                left += width
            axis.annotate(f"{rows[quantity].sum() / 1e6:,.1f} M", (1.01, name), va="center", fontsize=8, color="0.3")
        axis.set(xlim=(0, 1.16), xlabel=f"share of the {quantity}")
        axis.set_xticks(np.linspace(0, 1, 6))
    axes[0, 0].invert_yaxis()
    handles = [Rectangle((0, 0), 1, 1, color=color) for color in KINDS.values()]
    canvas.legend(handles, list(KINDS), loc="outside lower center", ncols=4, fontsize=8)
    return canvas, table


def _by_layer(panels: Mapping[str, Mapping[str, pd.Series]]) -> Chart:
    """A log panel per title, a line per label over the layers; each series is indexed by layer. Zeros have no place."""
    (canvas, axes), tables = figure(3.9, 1, len(panels)), []
    for axis, (title, lines) in zip(axes[0], panels.items(), strict=True):
        for (label, values), color in zip(lines.items(), PALETTE, strict=False):
            axis.plot(range(len(values)), values.where(values > 0), "o-", ms=3, color=color, label=label)
            tables.append(pd.DataFrame({"quantity": title, "case": label, "layer": values.index, "value": values}))
        axis.set_xticks(range(len(values)), values.index, rotation=90, fontsize=7)
        axis.set(yscale="log")
        axis.set_title(title, fontsize=10)
    canvas.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=8)
    return canvas, pd.concat(tables, ignore_index=True)


def starts(model: str, splits: Splits, seed: int = 0) -> Chart:
    """Outputs' standard deviation over the images and kernels' gradient in an untrained ``model``, by initialiser."""
    network = models.build(model, splits.test.images.shape[1:], len(splits.classes))
    probes = dead.probes(splits.validation)
    panels: dict[str, dict[str, pd.Series]] = {"standard deviation between images": {}, "norm of the gradient": {}}
    for initializer in ("glorot_uniform", "he_normal"):
        models.initialise(network, initializer, seed)
        found = gradients.diagnose(network, *probes).set_index("layer")
        label = f"{initializer}, gradient share {gradients.gradient_share(network, *probes):.1e}"
        for lines, column in zip(panels.values(), ("spread", "gradient"), strict=True):
            lines[label] = found[column]
    return _by_layer(panels)


def reach(model: str, splits: Splits, seed: int = 0) -> Chart:
    """Norm of the gradient in each module of an untrained ``model`` with heads: by the output that sends it."""
    network = models.build(model, splits.test.images.shape[1:], len(splits.classes))
    models.initialise(network, "glorot_uniform", seed)
    squares = gradients.by_output(network, *dead.probes(splits.validation)).set_index("layer") ** 2
    trunk = squares[~squares.index.str.startswith("head_") & (squares.index != network.output_names[0])]
    module = trunk.index.str.replace(r"^inception_(\w\w)_.*", r"\1", regex=True)
    norms = np.sqrt(trunk.groupby(module, sort=False).sum())
    return _by_layer({"norm of the gradient": {name: norms[name] for name in norms}})


def reduction(table: pd.DataFrame) -> Chart:
    """MFLOPs of every inception branch with its 1×1 reduction and without; ``table`` of ``designs.reduction``."""
    canvas, axes = figure(3.9)
    axis, x = axes[0, 0], np.arange(len(table))
    axis.bar(x - 0.2, table["FLOPs without"] / 1e6, 0.4, color=PALETTE[1], label="without reduction")
    bars = axis.bar(x + 0.2, table["FLOPs"] / 1e6, 0.4, color=PALETTE[0], label="with reduction")
    axis.bar_label(bars, [f"-{saved:.0f}%" for saved in table["FLOPs saved, %"]], padding=2, fontsize=7)
    axis.set_xticks(x, table["layer"].str.removeprefix("inception_"), rotation=60, ha="right", rotation_mode="anchor")
    axis.set(ylabel="MFLOPs per image")
    axis.legend(fontsize=8)
    return canvas, table


def factorised() -> Chart:
    """Weights per pair of channels of k×k, of the 3×3 stack that sees as much, and of 1×k with k×1 (erratum 18)."""
    table = errata.factorised()
    canvas, axes = figure(2.9)
    designs_of = {"square": "k×k", "threes": "3×3 stack", "lines": "1×k and k×1"}
    for shift, (name, label) in enumerate(designs_of.items()):
        bars = axes[0, 0].bar(np.arange(len(table)) + 0.27 * (shift - 1), table[name], 0.25, color=PALETTE[shift],
                              label=label)  # fmt: skip
        saved = table.get(f"{name}_saved", pd.Series(0, table.index))
        texts = [f"{count}" + f" (-{less:.0f}%)" * (less > 0) for count, less in zip(table[name], saved, strict=True)]
        axes[0, 0].bar_label(bars, texts, padding=2, fontsize=8)
    axes[0, 0].set_xticks(range(len(table)), [f"{name[1:]}×{name[1:]}" for name in table.index])
    axes[0, 0].set(ylabel="weights per pair of channels")
    axes[0, 0].legend(fontsize=8)
    return canvas, table.rename(columns=designs_of | {"threes_saved": "stack saves, %", "lines_saved": "lines save, %"})


def slopes(runs: Mapping[str, Run], splits: Splits) -> Chart:
    """Norm of the gradient of every layer's kernel before and after training, a line per run, on validation images."""
    probe = dead.probes(splits.validation)
    panels: dict[str, dict[str, pd.Series]] = {"before training": {}, "after training": {}}
    for name, run in runs.items():
        for title, network in zip(panels, (training.new_model(run.spec), run.model()), strict=True):
            panels[title][name] = gradients.diagnose(network, *probe).set_index("layer")["gradient"]
    canvas, table = _by_layer(panels)
    canvas.axes[0].set_ylabel("norm of the kernel's gradient")
    return canvas, table


def flat(runs: Mapping[str, Run], images: np.ndarray) -> Chart:
    """Share of each convolution's outputs on uint8 ``images`` (N, H, W, 3) that lie where the activation is flat.

    ``runs`` are named as in ``FLAT``, after their activation: zero for ReLU, for others 2.5 % of the range from an end.
    """
    rows = [
        (name, layer, sum(float(np.mean(np.abs(values - end) <= FLAT[name][1])) for end in FLAT[name][0]))
        for name, run in runs.items()
        for layer, values in study.maps(run, images).items()
    ]
    table = pd.DataFrame(rows, columns=["training", "layer", "flat share"])
    canvas, axes = figure(3.2)
    sns.barplot(table, x="layer", y="flat share", hue="training", palette=PALETTE[: len(runs)], ax=axes[0, 0])
    axes[0, 0].set(ylim=(0, 1), ylabel="share of outputs on a flat end")
    return canvas, table
