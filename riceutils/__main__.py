"""The command line: ``python -m riceutils COMMAND``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from riceutils import commands, config, files


class _Commands(click.Group):
    """Expected errors end the program with their one sentence instead of a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (click.exceptions.Exit, click.Abort, NotImplementedError, RecursionError):  # RuntimeErrors, but not ours
            raise
        except (ValueError, OSError, RuntimeError, ModuleNotFoundError) as error:
            raise click.ClickException(str(error)) from error


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """The rice study: audit images, train, rerun chapters, predict, print the ledger."""


@main.command(add_help_option=False)
@click.argument("chapter", required=False)
@click.option("-p", "overrides", nargs=2, multiple=True, metavar="NAME VALUE", help="Set a parameter; may be repeated.")
@click.option("--profile", default="quick", show_default=True, help="Profile that gives the other parameters.")
@click.option(
    "--out", type=click.Path(dir_okay=False, path_type=Path), help="Executed notebook; CHAPTER.out.ipynb by default."
)
@click.option("--html", type=click.Path(dir_okay=False, path_type=Path), help="Write one HTML page, too.")
@click.option("-h", "--help", "wants_help", is_flag=True, help="Show this message and the chapter's parameters.")
@click.pass_context
def run(
    ctx: click.Context,
    chapter: str | None,
    overrides: Sequence[tuple[str, str]],
    profile: str,
    out: Path | None,
    html: Path | None,
    wants_help: bool,
) -> None:
    """Execute CHAPTER (02_cnn, for one) with parameters of your own.

    A wrong name, type or value stops it before anything is done. The notebook says how the result differs from the
    reference figures.
    """
    if wants_help or chapter is None:
        click.echo(ctx.get_help())
        for name in [chapter] if chapter in config.CHAPTERS else config.CHAPTERS:
            click.echo(f"\nParameters of {name}:\n{_listing(name)}")
        return
    values = config.chapter_parameters(profile, chapter) | {name: commands.value(text) for name, text in overrides}
    parameters = config.check(chapter, values)
    target = out or Path(f"{chapter}.out.ipynb")
    for path in filter(None, (target, html)):
        files.writable(path.parent)
    click.echo(_forecast(chapter, parameters))
    _execute(chapter, parameters.model_dump(), target)
    click.echo(f"Notebook: {target}")
    if html:
        files.write_text(html, _page(target))
        click.echo(f"Page: {html}")


def _page(target: Path) -> str:
    """The executed notebook as one HTML page in both languages, without what its tags hide in the book, nor what
    TensorFlow says."""
    import nbformat
    from nbconvert import HTMLExporter
    from traitlets.config import Config

    from riceutils import editions

    notebook = nbformat.read(target, as_version=4)
    editions.show_parameters(notebook)
    for cell in notebook.cells:
        if "outputs" in cell:
            hidden = {"stderr"} | ({"stdout"} if "remove-stdout" in cell.metadata.get("tags", []) else set())
            cell.outputs = [output for output in cell.outputs if output.get("name") not in hidden]
    tags = {"enabled": True, "remove_cell_tags": ["remove-cell"], "remove_input_tags": ["remove-input"]}
    exporter = HTMLExporter(embed_images=True, config=Config(TagRemovePreprocessor=tags))
    page = exporter.from_notebook_node(notebook)[0]
    # The template's fixed width reaches code in cells alone, not a model's source, which is displayed.
    return page.replace("</head>", "<style>.highlight pre { font-family: monospace }</style></head>", 1)


def _listing(chapter: str) -> str:
    """A line per parameter of ``chapter``: name, type, default, range and meaning."""
    schema = config.CHAPTERS[chapter].model_json_schema()["properties"]
    lines = []
    for name, entry in schema.items():
        low, high = entry.get("minimum", entry.get("exclusiveMinimum")), entry.get("maximum")
        bounds = f", {low} to {high}" if high is not None else ""
        kind = entry.get("type", "list of 3 or integer")
        lines.append(f"  {name} ({kind}{bounds}; default {entry['default']!r}): {entry['description']}")
    return "\n".join(lines)


def _forecast(chapter: str, parameters: config.DataParameters) -> str:
    """What the training of a chapter will take, or that there is none to do."""
    if not isinstance(parameters, config.TrainingParameters):
        return f"{chapter} is no chapter of a study model: how long it takes is not predicted."
    from riceutils import runs, study, training

    splits = study.load(parameters)
    names = (config.MODELS | config.BESIDE)[chapter]
    specs = [study.spec(model, parameters, splits) for model in names]
    missing = [spec for spec in specs if runs.find(spec) is None]
    if not missing:
        return f"{chapter}: {', '.join(names)} in the cache, to be loaded; variants that it compares are not counted."
    seconds = sum(training.estimate(spec, len(splits.train), len(splits.validation)) for spec in missing)
    return (
        f"{chapter}: training {', '.join(names)} takes about {seconds / 60:.1f} minutes for {parameters.epochs} "
        "epochs, less if early stopping ends it sooner; variants that it compares come on top."
    )


def _execute(chapter: str, parameters: dict[str, Any], target: Path) -> None:
    import papermill

    with files.replacing(target) as temporary:
        try:
            papermill.execute_notebook(
                str(files.chapter(chapter)), str(temporary), parameters, kernel_name="python3", progress_bar=True,
                extra_arguments=["--IPKernelApp.log_level=50"],  # not its warnings, which are of no use to a reader
            )  # fmt: skip
        except papermill.PapermillExecutionError as error:
            raise click.ClickException(f"{chapter}, cell {error.exec_count}: {error.ename}: {error.evalue}") from error


@main.command()
@click.argument("model")
@click.argument("images", nargs=-1, required=True, type=click.Path(path_type=Path))
def predict(model: str, images: Sequence[Path]) -> None:
    """Class probabilities of IMAGES by MODEL: a model's name (its reference weights), a run's name or folder."""
    import numpy as np

    from riceutils import runs, sources, study

    chosen = runs.resolve(model)
    size = chosen.spec.image_size
    pixels = np.stack([np.asarray(sources.decode(path.read_bytes(), str(path), size)) for path in images])
    for path, row in zip(images, study.predict(chosen, pixels), strict=True):
        ranked = sorted(zip(row, chosen.classes, strict=True), reverse=True)
        click.echo(f"{path}: " + ", ".join(f"{label} {share:.4f}" for share, label in ranked))


@main.command()
@click.option("--profile", help="Also the values of the runs that a build with this profile left in the cache.")
def ledger(profile: str | None) -> None:
    """Every published figure beside the reference result, with a verdict."""
    from riceutils import runs, study
    from riceutils.ledger import ledger as rows

    if profile:
        parameters = config.check("09_comparison", config.chapter_parameters(profile, "09_comparison"))
        table = rows(study.found(parameters, study.load(parameters)))
    else:
        table = rows().drop(columns="this build")
    click.echo(table.to_string(index=False))
    click.echo("\n" + table["verdict"].value_counts().to_string())
    for spec in runs.adapted():
        click.echo(
            f"\n{spec.model}: initialiser {spec.initializer}, learning rate {spec.learning_rate:g}, not as published."
        )


@main.group()
def data() -> None:
    """Audit, make and fetch images."""


@data.command()
@click.argument("source")
def audit(source: str) -> None:
    """Counts, sizes, damage and duplicates of SOURCE: synthetic, kaggle, a folder of classes or a zip of one."""
    from riceutils.audit import audit as inspect

    click.echo(str(inspect(source)))


@data.command()
@click.argument("directory", type=click.Path(path_type=Path))
@click.option("--per-class", default=300, show_default=True, type=click.IntRange(1), help="Images of each variety.")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0))
def synthesise(directory: Path, per_class: int, seed: int) -> None:
    """Write synthetic grains into DIRECTORY, a folder per variety, in the layout of the public data set."""
    from tqdm import tqdm

    from riceutils import grains

    if directory.exists() and any(directory.iterdir()):
        raise ValueError(f"{directory} is not empty. Name a new folder.")
    files.writable(directory.parent)
    with files.replacing(directory) as temporary:
        for variety in grains.VARIETIES:
            (temporary / variety).mkdir(parents=True)
            for index in tqdm(range(per_class), variety, unit="image"):
                target = temporary / variety / f"{variety} ({index + 1}).jpg"
                target.write_bytes(grains.file(variety, index, seed))
    click.echo(f"{per_class * len(grains.VARIETIES)} images in {directory}")


@data.command()
def fetch() -> None:
    """Download the Rice Image Dataset from Kaggle and print where it lies."""
    from riceutils import sources

    click.echo(sources.fetch())


for _command in (commands.train, commands.generalise, commands.background, commands.slim, commands.experiment):
    main.add_command(_command)


if __name__ == "__main__":
    main()
