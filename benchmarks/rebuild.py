"""What a second build costs, as a share of the first: nothing changed, and one sentence changed. Ratios of one run.

    python benchmarks/rebuild.py [--profile quick]

Works in a copy of the checkout with a cache folder of its own, so the first build trains everything.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def build(copy, home, profile):
    start = time.perf_counter()
    environment = os.environ | {"RICEUTILS_HOME": str(home), "PYTHONPATH": str(copy)}
    command = [sys.executable, "-m", "riceutils.book", "build", "--profile", profile]
    subprocess.run(command, cwd=copy, env=environment, check=True, stdout=sys.stderr)
    return time.perf_counter() - start


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--profile", default="quick")
    profile = parser.parse_args().profile
    with tempfile.TemporaryDirectory() as folder:
        copy, home = Path(folder) / "copy", Path(folder) / "home"
        subprocess.run(["git", "clone", "--quiet", ROOT, copy], check=True)
        first = build(copy, home, profile)
        runs = {path: path.stat().st_mtime_ns for path in home.glob("runs/*/record.json")}
        again = build(copy, home, profile)
        notebook = copy / "notebooks" / "02_cnn.ipynb"
        content = json.loads(notebook.read_text(encoding="utf-8"))
        prose = next(cell for cell in content["cells"] if "en" in cell["metadata"].get("tags", []))
        prose["source"].append(" One sentence more.")
        notebook.write_text(json.dumps(content), encoding="utf-8")
        sentence = build(copy, home, profile)
        trained = {path: path.stat().st_mtime_ns for path in home.glob("runs/*/record.json")} != runs
    print(f"first build {first:.0f} s ({profile})")
    print(f"nothing changed: {again / first:.1%} of the first")
    print(f"one sentence changed: {sentence / first:.1%} of the first, trained again: {trained}")


if __name__ == "__main__":
    main()
