"""Frozen layers computed once against frozen layers computed in every epoch.

The same training (same images, batches and seed) of VGG Light and of VGG16 at 224 px, on cached features and through
the frozen trunk. Printed: the ratio of the two times, computing and writing the features included, and how far the
validation losses of the last epoch lie apart.

    python benchmarks/features.py [MODEL...] [--images 40] [--epochs 10] [--size 224]
"""

import os
import tempfile
import time

import click

os.environ.setdefault("TQDM_DISABLE", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


@click.command()
@click.argument("models", nargs=-1)
@click.option("--images", default=40, show_default=True, help="Training images in all; a quarter more to validate.")
@click.option("--epochs", default=10, show_default=True)
@click.option("--size", default=224, show_default=True)
def main(models: tuple[str, ...], images: int, epochs: int, size: int) -> None:
    """Print the ratio for each of MODELS (VGG Light and VGG16 by default)."""
    from riceutils import config, study, training

    for model in models or ("vgg_light", "vgg16"):
        values = {"image_size": size, "images_per_class": [images // 5, images // 20, 1], "epochs": epochs}
        values |= {"weights": "hed", "batch_size": 8, "patience": epochs, "learning_rate": 1e-4}
        parameters = config.check(config.CHAPTER_OF[model], values)
        seconds, losses = {}, {}
        for reuse in (False, True):
            with tempfile.TemporaryDirectory() as home:  # so that nothing is there already
                os.environ["RICEUTILS_HOME"] = home
                splits = study.load(parameters)
                spec = study.spec(model, parameters, splits)
                start = time.perf_counter()
                run = training.train_or_load(spec, splits, reuse=reuse)
                seconds[reuse], losses[reuse] = time.perf_counter() - start, run.history["val_loss"].iloc[-1]
        click.echo(
            f"{model}, {size} px, {images} images, {epochs} epochs: cached features are "
            f"{seconds[False] / seconds[True]:.1f} times as fast; "
            f"validation losses {losses[False]:.4f} and {losses[True]:.4f}"
        )


if __name__ == "__main__":
    main()
