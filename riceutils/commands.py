"""Commands that train: the reference results, and lighter networks from finished ones."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import click
import yaml

from riceutils import config, files


def value(text: str) -> Any:
    """A parameter from the command line, read as YAML; ``1e-3``, which YAML takes for text, is a number."""
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        return text
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


def _real(source: str | None) -> None:
    """Refuse synthetic images, before anything is trained, where figures go into the reference results."""
    if source in ("synthetic", "rice"):
        raise click.ClickException("Reference results rest on real images. Give them with --data: a folder or a zip.")


@click.command()
@click.argument("models", nargs=-1, required=True)
@click.option("--profile", default="reference", show_default=True, help="Profile that gives the parameters.")
@click.option("--data", help="Images, in place of the profile's: synthetic, kaggle, a folder or a zip.")
@click.option("--seed", "seeds", type=int, multiple=True, default=[0], show_default=True, help="May be repeated.")
@click.option("-p", "overrides", nargs=2, multiple=True, metavar="NAME VALUE", help="Set a parameter; may be repeated.")
@click.option("--commit", is_flag=True, help="Copy figures, and weights under 1 MB, into the reference results.")
def train(
    models: Sequence[str],
    profile: str,
    data: str | None,
    seeds: Sequence[int],
    overrides: Sequence[tuple[str, str]],
    commit: bool,
) -> None:
    """Train MODELS as a profile says; runs that are finished are loaded, interrupted ones resumed."""
    from riceutils import runs, study

    if "seed" in dict(overrides):
        raise click.ClickException("Give the seed with --seed, which may be repeated.")
    wanted = []
    for model in models:  # all checked before the first is trained
        base = config.training_parameters(profile, model, data).model_dump()
        changed = base | {name: value(text) for name, text in overrides}
        wanted += [(model, config.check(config.CHAPTER_OF[model], changed | {"seed": seed})) for seed in seeds]
    for _, parameters in wanted if commit else ():
        _real(parameters.data)
    for model, parameters in wanted:
        result = study.run(model, parameters)
        tested = ", ".join(f"{which} {result.accuracy(which)}" for which in ("clean", "perturbed"))
        click.echo(f"{result.name}: {result.record['stopped']} after {len(result.history)} epochs; {tested}")
        if commit:
            click.echo(f"Reference result: {runs.commit(result).name}")


def _per_class(text: str) -> list[int] | int | None:
    counts = [int(number) for number in text.split(",")] if text != "all" else []
    return counts if len(counts) > 1 else counts[0] if counts else None


@click.command()
@click.argument("source", metavar="RUN_OR_KERAS_FILE")
@click.option("--criterion", default="apoz", show_default=True, help="dead, apoz, l1 or random.")
@click.option("--budget", help="What stays: flops=SHARE or parameters=SHARE; none for dead.")
@click.option(
    "--epochs",
    default=5,
    show_default=True,
    type=click.IntRange(0),
    help="Of training after the cut; 0 for the cut alone.",
)
@click.option("--data", default="synthetic", show_default=True, help="Images: synthetic, kaggle, a folder or a zip.")
@click.option("--images-per-class", help="200,50,100 (train, validation, test), 300 or all; by default RUN's, or all.")
@click.option("--images", default=500, show_default=True, type=click.IntRange(1), help="Training images to measure on.")
@click.option(
    "--preprocessing", default="rgb", show_default=True, help="Of a .keras file's images: rgb, caffe, raw, grey."
)
@click.option("--seed", default=0, show_default=True, type=int)
@click.option("--scratch", is_flag=True, help="Start the small network from fresh weights, to compare.")
@click.option("--skip-unreadable", is_flag=True, help="Leave unreadable files out instead of stopping.")
@click.option(
    "--save", type=click.Path(dir_okay=False, path_type=Path), help="Write the slimmed network to a .keras file, too."
)
def slim(
    source: str,
    criterion: str,
    budget: str | None,
    epochs: int,
    data: str,
    images_per_class: str | None,
    images: int,
    preprocessing: str,
    seed: int,
    scratch: bool,
    skip_unreadable: bool,
    save: Path | None,
) -> None:
    """Remove filters of RUN_OR_KERAS_FILE, train what is left, and print both networks' figures."""
    import numpy as np

    from riceutils import data as loading
    from riceutils import evaluation, flops, runs, slimmed, slimming, subjects, training

    kind, _, share = (budget or "").partition("=")
    try:
        wanted = {kind: float(share)} if budget else None
        counts = _per_class(images_per_class or ("200,50,100" if data in ("synthetic", "rice") else "all"))
    except ValueError:
        raise click.ClickException(
            "Give --budget as flops=0.5 and --images-per-class as 200,50,100, 300 or all."
        ) from None
    slimming.check(criterion, wanted)
    if save:
        if save.suffix != ".keras":
            raise click.ClickException(f"Keras saves a network as a .keras file; {save} is named otherwise.")
        if save.resolve() == Path(source).resolve():
            raise click.ClickException(f"{save} is the network that is slimmed. Give --save another name.")
        files.writable(save.parent)
    found = None if source.endswith((".keras", ".h5")) else runs.resolve(source)
    parent = slimmed.parent(found or source, preprocessing)
    if found and (kind := found.record["data"]["kind"]) != ("synthetic" if data in ("synthetic", "rice") else "real"):
        raise click.ClickException(f"{source} was trained on {kind} images; give them with --data.")
    if found and not images_per_class:  # as many as it was trained on; classes of different sizes: all there are
        shares = [found.record["data"]["images"][side] / len(found.classes) for side in loading.SIDES]
        tested = (
            found.predictions["labels"] if (found.folder / "predictions.npz").exists() else range(len(found.classes))
        )
        alike = len(set(np.bincount(tested))) == 1 and all(map(float.is_integer, shares))
        counts = [int(share) for share in shares] if alike else None
    splits = loading.load(data, parent.network.input_shape[1], counts, skip_unreadable=skip_unreadable)
    options: dict[str, Any] = {"epochs": epochs, "images": images, "seed": seed, "scratch": scratch}
    run = slimmed.slim(parent, splits, criterion, wanted, **options)
    small, tests = run.model(), {"clean": splits.test.images, "perturbed": subjects.perturbed_test(splits)}
    left = {layer.name: layer.output.shape[-1] for layer in small.layers}
    for layer in parent.network.layers:
        if hasattr(layer, "kernel") and left.get(layer.name) != (width := layer.output.shape[-1]):
            click.echo(f"{layer.name}: {left.get(layer.name, 0)} of {width} channels stay")
    for name, network in ((source, parent.network), (run.name, small)):
        said = {which: training.predict(network, pixels, run.spec.preprocessing) for which, pixels in tests.items()}
        right = ", ".join(f"{which} {evaluation.accuracy(p, splits.test.labels)}" for which, p in said.items())
        size = f"{network.count_params():,} parameters, {flops.count(network).total / 1e6:,.2f} MFLOPs"
        click.echo(f"{name}: {size}, accuracy {right}")
    if save:
        with files.replacing(save) as temporary:
            small.save(temporary)
        click.echo(f"Saved as {save}")


TRAININGS = files.read_yaml(files.RESOURCES / "background.yml")["trainings"]


@click.command()
@click.argument("names", nargs=-1, required=True, type=click.Choice(list(TRAININGS)), metavar="TRAINING...")
@click.option("--data", help="Images, in place of the data set that the training names: an .npz file, a folder or zip.")
def background(names: Sequence[str], data: str | None) -> None:
    """Train what the background chapters report on real images (resources/background.yml) and commit the figures."""
    from riceutils import background

    wanted = {TRAININGS[name]["data"] for name in names}
    if data and len(wanted) > 1:
        raise click.ClickException(f"These are trained on {', '.join(sorted(wanted))}: give --data for one at a time.")
    for source in wanted:
        _real(data or source)
    for name in names:
        for run in background.reference(name, data):
            click.echo(f"{name}, seed {run.spec.seed}: {run.record['stopped']}; clean {run.accuracy()}")


EXPERIMENTS = {  # name → the function that makes and commits its tables, from images
    "dataset": "riceutils.dataset:reference",
    "dead": "riceutils.dead:reference",
    "causes": "riceutils.dead:reference_causes",
    "filters": "riceutils.deadfilters:reference",
    "lossless": "riceutils.slimcurves:reference_lossless",
    "slimming": "riceutils.slimcurves:reference",
    "block5": "riceutils.slimcurves:reference_block5",
    "search": "riceutils.lightest:reference",
    "lightest": "riceutils.lightest:finish",
    "optuna": "riceutils.tuning:reference",
    "distil": "riceutils.lightest:distil",
    "longer": "riceutils.lightest:longer",
}


@click.command()
@click.argument("names", nargs=-1, required=True, type=click.Choice(list(EXPERIMENTS)), metavar="EXPERIMENT...")
@click.option("--data", required=True, help="The real images: kaggle, a folder or a zip.")
def experiment(names: Sequence[str], data: str) -> None:
    """Make the reference results that chapters with experiments of their own show; resumable."""
    _real(data)
    found = {name: resolve_name(EXPERIMENTS[name]) for name in names}  # what is missing is said before any starts
    for name, make in found.items():
        make(data)
        click.echo(f"{name}: committed.")


@click.command()
@click.argument("names", nargs=-1, required=True, metavar="RUN...")
@click.option("--profile", default="reference", show_default=True, help="Profile of the runs' images.")
@click.option("--data", help="Images, in place of the profile's: synthetic, kaggle, a folder or a zip.")
@click.option("--images", default=600, show_default=True, type=click.IntRange(1), help="Test images, at most.")
@click.option("--commit", is_flag=True, help="Copy the tables into the reference results.")
def generalise(names: Sequence[str], profile: str, data: str | None, images: int, commit: bool) -> None:
    """Measure how RUN... (names of models, runs or reference results) stand each perturbation and corruption alone."""
    from riceutils import runs, study

    chosen = [runs.resolve(name) for name in names]
    known = {run.spec.key: run.record for run in runs.references()}
    if commit and (others := [run.name for run in chosen if known.get(run.spec.key) != run.record]):
        raise click.ClickException(
            f"No reference results, or trained again since: {', '.join(others)}. Make them such with train --commit."
        )
    chosen = [runs.cached(run) for run in chosen]  # the cache has the weights that are not shipped
    if not commit and (shipped := [run.name for run in chosen if run.folder.is_relative_to(files.PACKAGE)]):
        raise click.ClickException(f"Only among the reference results: {', '.join(shipped)}. Measure with --commit.")
    parameters = config.DataParameters(**config.chapter_parameters(profile, "01_dataset", data))
    study.generalise(chosen, study.load(parameters), images)
    for run in chosen:
        table = run.generalisation
        assert table is not None
        accuracy = table.groupby(["kind", "name"], sort=False)["accuracy"].mean()
        click.echo(f"{run.name}: " + ", ".join(f"{name} {share:.3f}" for (_, name), share in accuracy.items()))
        if commit:
            runs.commit(run)
