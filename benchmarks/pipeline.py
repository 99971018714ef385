"""Our pipeline against Keras's, and against no pipeline at all.

1. ``data.load`` and ``Split.training`` against ``keras.utils.image_dataset_from_directory`` on the same JPEG files
   at the same size and batch: images per second in the first epoch (decoding and building included) and in later
   ones, and peak memory, each side in a process of its own.
2. Training the fastest study model, ``cnn_light``: steps per second fed by the pipeline, over steps per second on
   one batch that never changes. 1 means that the pipeline costs nothing.

    python benchmarks/pipeline.py [--data FOLDER_OR_ZIP] [--images 1000] [--size 224]

Everything is printed as ratios from one run on one machine; synthetic images unless ``--data`` is given. CPU time
is printed beside: on a busy machine it is the steadier of the two.
"""

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
BATCH, EPOCHS, ROUNDS, STEPS = 32, 4, 5, 20


def unpack(source: str, images: int, target: Path) -> None:
    """Write ``images`` files of ``source``, evenly over its classes, as a folder of classes."""
    from riceutils.sources import open_source

    opened = open_source(source, images_per_class=images)
    each = images // len(opened.classes)
    for label, names in opened.members.items():
        (target / label).mkdir(parents=True)
        for number, name in enumerate(names[:each]):
            (target / label / f"{number + 1}{Path(name).suffix}").write_bytes(opened.read(name))


def ours(folder: Path, size: int):
    """Batches of ours, endless, and images per epoch: all but two of each class, which are decoded with them."""
    from riceutils import data

    each = min(len(list(label.iterdir())) for label in folder.iterdir())
    splits = data.load(folder, size, [each - 2, 1, 1])
    return iter(splits.train.training(BATCH, seed=0)), len(splits.train)


def keras_loader(folder: Path, size: int):
    """Batches of ``image_dataset_from_directory``, endless, scaled to [0, 1] as ours are."""
    import keras

    loader = keras.utils.image_dataset_from_directory(
        folder, label_mode="categorical", image_size=(size, size), batch_size=BATCH, seed=0, verbose=False
    )
    count = len(loader.file_paths)
    return iter(loader.map(lambda images, labels: (images / 255.0, labels)).prefetch(2).repeat()), count


def epochs(side: str, folder: Path, size: int) -> dict[str, float]:
    """Images per second of the first and of later epochs, and memory in MB above that of TensorFlow itself."""
    import tensorflow as tf

    from riceutils import data  # noqa: F401  imports are not what is measured

    tf.constant(0.0).numpy()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start, spent = time.perf_counter(), time.process_time()
    batches, images = {"ours": ours, "keras": keras_loader}[side](folder, size)
    rates, cpu = [], []
    for _ in range(EPOCHS):
        for _ in range(-(-images // BATCH)):
            next(batches)[0].numpy()
        rates.append(images / (time.perf_counter() - start))
        cpu.append((time.process_time() - spent) / images * 1000)
        start, spent = time.perf_counter(), time.process_time()
    memory = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    return {
        "first": rates[0],
        "later": statistics.median(rates[1:]),
        "first CPU": cpu[0],
        "later CPU": statistics.median(cpu[1:]),
        "memory": memory,
    }


def training(folder: Path, size: int) -> dict[str, float]:
    """Steps per second of ``cnn_light`` fed by the pipeline and by a constant batch, in alternating rounds."""
    import keras

    from riceutils import models

    model = models.build("cnn_light", (size, size, 3), len(list(folder.iterdir())))
    model.compile(keras.optimizers.Adam(), loss="categorical_crossentropy")
    batches, _ = ours(folder, size)
    constant = next(batches)

    def fed():
        while True:
            yield next(batches)

    def still():
        while True:
            yield constant

    rates: dict[str, list[float]] = {"pipeline": [], "constant": []}
    cpu = dict.fromkeys(rates, 0.0)
    for feed in (fed(), still()):
        for _ in range(5):  # warm up: tracing, caches
            model.train_on_batch(*next(feed))
    for _ in range(ROUNDS):
        for name, feed in (("pipeline", fed()), ("constant", still())):
            start, spent = time.perf_counter(), time.process_time()
            for _ in range(STEPS):
                model.train_on_batch(*next(feed))
            rates[name].append(STEPS / (time.perf_counter() - start))
            cpu[name] += time.process_time() - spent
    ratio = statistics.median(a / b for a, b in zip(*rates.values(), strict=True))
    return {name: statistics.median(values) for name, values in rates.items()} | {
        "ratio": ratio,
        "CPU": cpu["constant"] / cpu["pipeline"],
    }


@click.command()
@click.option("--data", default="synthetic", show_default=True, help="Folder of classes or zip.")
@click.option("--images", default=1000, show_default=True)
@click.option("--size", default=224, show_default=True, help="Side in pixels.")
@click.option("--only", hidden=True, help="One part, in this process: ours, keras or training.")
@click.option("--folder", hidden=True, type=click.Path(path_type=Path))
def main(data: str, images: int, size: int, only: str | None, folder: Path | None) -> None:
    if only and folder:
        result = training(folder, size) if only == "training" else epochs(only, folder, size)
        click.echo(json.dumps(result))
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "images"
        unpack(data, images, folder)
        # A cache folder of its own: the first epoch of ours has to decode.
        environment = os.environ | {"RICEUTILS_HOME": f"{scratch}/home"}

        def measure(part: str) -> dict[str, float]:
            command = [sys.executable, __file__, "--only", part, "--folder", str(folder), "--size", str(size)]
            done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
            return json.loads(done.stdout.splitlines()[-1])

        keras, own, fit = measure("keras"), measure("ours"), measure("training")
    click.echo(f"{images} images ({data}), {size} px, batches of {BATCH}: ours / image_dataset_from_directory")
    for name, label, digits in (
        ("first", "first epoch, images/s", 0),
        ("later", "later epochs, images/s", 0),
        ("first CPU", "first epoch, CPU ms per image", 2),
        ("later CPU", "later epochs, CPU ms per image", 2),
    ):
        values = f"({own[name]:.{digits}f} / {keras[name]:.{digits}f})"
        click.echo(f"  {label:32} {own[name] / keras[name]:6.2f}   {values}")
    memory = (
        f"({own['memory']:.0f} / {keras['memory']:.0f} MB, of which decoded images {images * size**2 * 3 / 2**20:.0f})"
    )
    click.echo(f"  {'peak memory':32} {own['memory'] / keras['memory']:6.2f}   {memory}")
    click.echo("cnn_light training: with the pipeline / with one constant batch")
    click.echo(f"  {'steps/s':32} {fit['ratio']:6.2f}   ({fit['pipeline']:.2f} / {fit['constant']:.2f})")
    click.echo(f"  {'steps per CPU second':32} {fit['CPU']:6.2f}")


if __name__ == "__main__":
    main()
