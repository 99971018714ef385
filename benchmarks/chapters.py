"""Small chapters two at a time against one after another, and with how many threads each.

    python benchmarks/chapters.py [CHAPTER...] [--profile quick]

Every way trains everything in a cache folder of its own, after the images were drawn. Ratios of one run.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import click

ROOT = Path(__file__).resolve().parents[1]
WAYS = {"one after another": (1, None), "two at once": (2, None), "two at once, a thread each": (2, "1")}


def execute(chapter: str, profile: str, home: Path, threads: str | None) -> None:
    """One chapter, in a process of its own, as the build does it."""
    from riceutils.config import chapter_parameters

    environment = os.environ | {"RICEUTILS_HOME": str(home)}
    if threads:
        environment |= {"TF_NUM_INTRAOP_THREADS": threads, "TF_NUM_INTEROP_THREADS": threads}
    command = [
        sys.executable,
        "-m",
        "riceutils.book",
        "execute",
        f"notebooks/{chapter}",
        str(home / "executed" / "notebooks" / f"{chapter}.ipynb"),  # a failed one is kept beside "executed"
    ]
    command += ["--parameters", json.dumps(chapter_parameters(profile, chapter))]
    subprocess.run(command, cwd=ROOT, env=environment, check=True, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)


@click.command()
@click.argument("chapters", nargs=-1)
@click.option("--profile", default="quick", show_default=True)
def main(chapters: tuple[str, ...], profile: str) -> None:
    """Print the time of each way over that of the first."""
    chapters = chapters or ("02_cnn", "03_cnn_light", "08_vgg_custom", "10_final_model")
    seconds = {}
    for way, (workers, threads) in WAYS.items():
        with tempfile.TemporaryDirectory() as folder:
            home = Path(folder)
            execute("01_dataset", profile, home, None)  # draws the images
            start = time.perf_counter()
            with ThreadPoolExecutor(workers) as pool:
                list(pool.map(partial(execute, profile=profile, home=home, threads=threads), chapters))
            seconds[way] = time.perf_counter() - start
        click.echo(f"{way}: {seconds[way] / seconds['one after another']:.2f}")


if __name__ == "__main__":
    main()
