"""The command line: ``python -m riceutils COMMAND``."""

from __future__ import annotations

import click


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """The rice study: audit images, train, rerun chapters, predict."""


@main.command()
@click.argument("models", nargs=-1, required=True)
@click.option("--profile", default="reference", show_default=True, help="Profile that gives the parameters.")
@click.option("--data", help="Images, in place of the profile's: synthetic, kaggle, a folder or a zip.")
@click.option(
    "--seed", "seeds", type=int, multiple=True, default=[0], show_default=True, help="May be repeated."
)
@click.option("--augment", is_flag=True, help="Train on perturbed images.")
@click.option(
    "--commit",
    is_flag=True,
    help="Copy the figures (and weights under 1 MB) into the package as reference results.",
)
def train(
    models: tuple[str, ...],
    profile: str,
    data: str | None,
    seeds: tuple[int, ...],
    augment: bool,
    commit: bool,
) -> None:
    """Train MODELS as a profile says; runs that are finished are loaded, interrupted ones resumed."""
    from riceutils import config, runs, study

    base = config.training_parameters(profile, data)
    for model in models:
        for seed in seeds:
            parameters = base.model_copy(update={"seed": seed, "augment": augment})
            run = study.run(model, parameters)
            click.echo(f"{run.name}: {run.record['stopped']}, {run.record['metrics']}")
            if commit:
                click.echo(f"reference result: {runs.commit(run).name}")


if __name__ == "__main__":
    main()
