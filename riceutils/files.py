"""Where things lie and how they are written: the cache folder, packaged resources, atomic writes."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import platformdirs
import yaml
from filelock import FileLock

PACKAGE = Path(__file__).parent
RESOURCES = PACKAGE / "resources"


def home() -> Path:
    """The folder of runs and decoded images: ``RICEUTILS_HOME``, else the user's cache folder.

    Raises ``OSError`` with the way out when the folder can not be written.
    """
    folder = Path(os.environ.get("RICEUTILS_HOME") or platformdirs.user_cache_dir("riceutils"))
    return writable(folder, hint="Set RICEUTILS_HOME to a folder that can be written.")


def writable(folder: Path, hint: str = "Name another folder.") -> Path:
    """Create ``folder`` and prove that a file can be written there, before any long work starts."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OSError(f"Cannot write to {folder}: {error.strerror or error}. {hint}") from error
    return folder


@contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``target``; rename it onto ``target`` if the block succeeds.

    A reader therefore sees the old file or the whole new one. For a folder, create it at the yielded path; the old
    one is moved aside first, and back if the new one can't take its place.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    # The suffix is kept at the end: some writers (NumPy, Keras) choose the format by it.
    temporary = target.with_name(f".{os.getpid()}-{target.name}")
    aside = target.with_name(f".{os.getpid()}-old-{target.name}")
    _remove(temporary)  # left behind by a killed process of the same number
    try:
        yield temporary
        if temporary.is_dir() and target.exists():
            _remove(aside)
            os.replace(target, aside)
        try:
            os.replace(temporary, target)
        except OSError:
            if aside.exists():
                os.replace(aside, target)
            raise
        _remove(aside)
    finally:
        _remove(temporary)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def once(target: Path) -> Iterator[bool]:
    """Whether ``target`` still has to be made, under a lock: of two processes, one makes it and the other waits."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists():
        yield False
        return
    with FileLock(target.with_name(f".{target.name}.lock")):
        yield not target.exists()


def write_text(target: Path, text: str) -> None:
    """Write ``text`` to ``target`` atomically, as UTF-8."""
    with replacing(target) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(target: Path, value: Any) -> None:
    """Write ``value`` to ``target`` atomically, as readable JSON."""
    write_text(target, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def write_csv(target: Path, table: pd.DataFrame) -> None:
    """Write ``table`` without its index to ``target`` atomically, as CSV with six significant digits."""
    with replacing(target) as temporary:
        table.to_csv(temporary, index=False, float_format="%.6g")


def read_yaml(path: Path) -> dict[Any, Any]:
    """Content of a YAML file that holds a mapping."""
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def read_tables(folder: Path, **options: Any) -> dict[str, pd.DataFrame]:
    """The CSV files of ``folder`` by name, without the suffix; empty where there are none. ``options``: pandas's."""
    return {path.stem: pd.read_csv(path, **options) for path in sorted(folder.glob("*.csv"))}


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of the CSV file ``path``, which an interrupted experiment goes on from; none when there is no file."""
    return pd.read_csv(path).to_dict("records") if path.exists() else []


def digest(value: Any) -> str:
    """Hexadecimal SHA-256 of ``value`` in canonical JSON, cut to 16 digits."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def chapter(name: str) -> Path:
    """The notebook of a chapter: shipped in the installed package, or in the checkout.

    Raises ``ValueError`` naming the chapters that there are.
    """
    folder = next(path for path in (PACKAGE / "chapters", PACKAGE.parent / "notebooks") if path.is_dir())
    path = folder / f"{name}.ipynb"
    if not path.is_file():
        known = ", ".join(sorted(found.stem for found in folder.glob("*.ipynb")))
        raise ValueError(f"Unknown chapter {name!r}. Chapters: {known}.")
    return path
