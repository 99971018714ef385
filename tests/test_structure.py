"""Imports run downwards; the wheel ships chapters, profiles, facts and results; nothing names a host or a home."""

import ast
import graphlib
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LAYERS = [  # a module imports from rows below its own, or from its own row, but never in a circle
    ["__main__", "commands", "book"],
    [
        "background",
        "catalogue",
        "cataloguecharts",
        "conclusion",
        "dataset",
        "deadcharts",
        "deadfilters",
        "depth",
        "designcharts",
        "filtercharts",
        "lightest",
        "lightestcharts",
        "reproduction",
        "selection",
        "show",
        "slimcurves",
        "transfer",
        "tuning",
    ],
    ["unitcosts", "claims", "verdicts", "comparison", "charts", "errata", "ledger", "page", "plots", "study"],
    [
        "slimmed",
        "training",
        "subjects",
        "checkpoint",
        "dead",
        "generalisation",
        "audit",
        "baseline",
        "shortcuts",
    ],
    [
        "slimming",
        "surgery",
        "channels",
        "features",
        "gradients",
        "runs",
        "data",
        "manifest",
        "corruptions",
        "perturb",
        "evaluation",
        "activations",
    ],
    ["designs", "models", "flops", "arrays", "sources", "grains", "config", "editions", "files"],
]
RANK = {name: number for number, row in enumerate(LAYERS) for name in row}


def imports(path):
    """Modules of the library that a file imports, at its top level or when a function is called."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module == "riceutils":
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("riceutils."):
            found.add(node.module.split(".")[1])
    return found


def modules():
    """What every module of the library imports; a package counts as one."""
    found = {path.stem: imports(path) for path in (ROOT / "riceutils").glob("*.py")}
    within = {imported for path in (ROOT / "riceutils/models").glob("*.py") for imported in imports(path)}
    return found | {"models": within - {"models"}}


def test_imports_run_downwards():
    found = modules()
    assert not found.pop("__init__")
    wrong = [f"{name} imports {other}" for name in found for other in found[name] if RANK[other] < RANK[name]]
    assert not wrong


def test_no_imports_run_in_a_circle():
    list(graphlib.TopologicalSorter(modules()).static_order())  # raises CycleError, which names the circle


def test_the_wheel_ships_what_is_needed(tmp_path):
    source = tmp_path / "source"  # a copy: setuptools leaves a build folder behind
    for name in ("riceutils", "notebooks"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--no-deps", "--quiet", "-w", tmp_path, source],
        check=True, capture_output=True,
    )  # fmt: skip
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    for needed in (
        "riceutils/chapters/02_cnn.ipynb",
        "riceutils/profiles/quick.yml",
        "riceutils/resources/published/models.csv",
        "riceutils/resources/class_stats.csv",
        "riceutils/results/reference/cnn_light-seed0/record.json",
        "riceutils/models/study.py",
    ):
        assert needed in names
    assert not [name for name in names if name.startswith(("tests", "notebooks"))]


def test_the_lock_names_no_host():
    lines = (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
    assert lines
    assert not [line for line in lines if "://" in line or line.startswith("-")]


def test_reference_measurements_are_complete():
    from riceutils import dataset

    tables = dataset.read()
    assert set(tables) == {"classes", "duplicates", "populations", "order", "shortcut", "baseline", "cross"}
    for table in tables.values():
        assert len(table)
        assert not [column for column in table.columns if column.startswith("Unnamed")]
