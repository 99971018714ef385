"""Which images a source holds: a row per file, with its content's digest and size, read whole once."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from tqdm import tqdm
from tqdm.contrib.concurrent import thread_map

from riceutils import files
from riceutils.sources import DataError, Source, decode


def manifest(source: Source, *, skip_unreadable: bool = False) -> pd.DataFrame:
    """A row per file: ``file, class, sha256, width, height`` (pixels), in class and name order.

    Computed once per source and kept in the cache folder; what could not be read is tried again each time, as the
    same archive may have been fetched anew. Raises ``DataError`` naming the first file that is no whole image, unless
    ``skip_unreadable``, which leaves such files out and prints which.
    """
    cached = files.home() / "manifests" / f"{source.signature}.csv"
    with files.once(cached) as missing:
        if missing:
            _list(source, cached)
    table = pd.read_csv(cached, dtype={"class": str}, keep_default_na=False)
    columns = ["sha256", "width", "height", "error"]
    for row in table.index[table["error"] != ""]:
        table.loc[row, columns] = _describe(source, table.loc[row, "file"])
    broken = table[table["error"] != ""]
    if len(broken) and not skip_unreadable:
        more = f" ({len(broken) - 1} more like it)" if len(broken) > 1 else ""
        raise DataError(f"{broken['error'].iloc[0]} Or set skip_unreadable to leave such files out{more}.")
    if len(broken):
        named = ", ".join(broken["file"][:3]) + ", …" * (len(broken) > 3)
        print(f"{len(broken)} unreadable image{'s' * (len(broken) > 1)} left out: {named}")
    return table[table["error"] == ""].drop(columns="error").reset_index(drop=True)


def _list(source: Source, target: Path) -> None:
    names = [name for members in source.members.values() for name in members]
    labels = [label for label, members in source.members.items() for _ in members]
    rows = parallel(lambda name: _describe(source, name), names, "Reading")
    table = pd.DataFrame(rows, columns=["sha256", "width", "height", "error"])
    table.insert(0, "file", names)
    table.insert(1, "class", labels)
    files.write_csv(target, table)


def _describe(source: Source, name: str) -> tuple[str, int, int, str]:
    try:
        content = source.read(name)
        width, height = decode(content, name).size  # whole, not the header only: a file cut short has one, too
    except DataError as error:
        return "", 0, 0, str(error)
    return hashlib.sha256(content).hexdigest(), width, height, ""


def parallel(function: Callable, items: Sequence, label: str) -> list:
    """``[function(item) …]`` on all cores (decoding releases the interpreter's lock), with a progress bar."""
    bar: dict[str, Any] = {"desc": label, "unit": "image", "leave": False, "mininterval": 1, "tqdm_class": tqdm}
    if len(items) < 500:
        bar["disable"] = True
    return thread_map(function, items, max_workers=os.cpu_count(), **bar)
