"""What is in a set of images before anything is trained on it: counts, sizes, damage, duplicates, and shortcuts.

Works on any source; what is particular to rice is in :mod:`riceutils.shortcuts`.
"""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from scipy.sparse import triu
from sklearn.neighbors import radius_neighbors_graph

from riceutils import data
from riceutils.manifest import parallel
from riceutils.sources import DataError, Source, decode, open_source

THUMBNAIL = 32  # px; near-duplicates are compared at this size, in RGB
# Root mean square difference of two thumbnails up to which they are near-duplicates, grey levels of 255. JPEG
# again at quality 40 makes about 1.1, another size 1.4 to 2.1; two different grains of rice are 3.5 apart or more.
NEAR = 3.0
SHOWN = 20  # rows of a table in the report
BLOCK = 2048  # thumbnails compared at once


@dataclass(frozen=True)
class Audit:
    """What :func:`audit` found; ``str()`` of it is the report.

    ``files``: a row per file (``file, class, bytes, sha256, width, height, mode, split, error``).
    ``classes``: per class, ``files``, ``unreadable``, ``sizes``, ``modes``, ``copies`` (files less distinct ones).
    ``unreadable``: ``file, class, error``. ``duplicates``: the files that have an exact twin (``group, file, class,
    split``). ``near_duplicates``: pairs (``first, second, class, other class, difference, split, other split``),
    ``difference`` in grey levels; one file stands for all of its exact copies.
    ``separated``: groups and pairs that end up on two sides under our split and under a naive random one, which
    differs in not knowing of duplicates only. ``remark`` says why there is no split, when there is none.
    """

    source: str
    files: pd.DataFrame = field(repr=False)
    classes: pd.DataFrame
    unreadable: pd.DataFrame = field(repr=False)
    duplicates: pd.DataFrame = field(repr=False)
    near_duplicates: pd.DataFrame = field(repr=False)
    separated: pd.DataFrame
    remark: str

    def __str__(self) -> str:
        groups = self.duplicates.groupby("group")["class"]
        crossing = int((groups.min() != groups.max()).sum())
        parts = [
            f"{self.source}: {len(self.files)} files in {len(self.classes)} classes",
            self.classes.to_string(),
            _section(f"Unreadable files: {len(self.unreadable)}", self.unreadable[["error"]]),
            _section(
                f"Exact duplicates: {groups.ngroups} groups, {crossing} of them in more than one class",
                self.duplicates[["group", "file", "split"]],
            ),
            _section(
                f"Near-duplicates: {len(self.near_duplicates)} pairs within {NEAR:g} grey levels",
                self.near_duplicates[["first", "second", "difference"]],
            ),
            f"No split is possible. {self.remark}"
            if self.remark
            else f"Split between train, validation and test\n{self.separated.to_string()}",
        ]
        return "\n\n".join(parts)


def _section(title: str, table: pd.DataFrame) -> str:
    if table.empty:
        return title
    rows = table.head(SHOWN).to_string(index=False, header=False, max_colwidth=120)
    more = f"\n… and {len(table) - SHOWN} more" if len(table) > SHOWN else ""
    return f"{title}\n{rows}{more}"


def audit(source: str | Path | Source) -> Audit:
    """Read and decode every file of ``source`` and report; see :class:`Audit`.

    Files that cannot be read are listed, not raised. Raises ``DataError`` and ``ConnectionError`` as
    ``sources.open_source`` does, when there are no classes to audit.
    """
    opened = source if isinstance(source, Source) else open_source(source)
    labels = {name: label for label, members in opened.members.items() for name in members}
    found = parallel(lambda name: _describe(opened, name), list(labels), "Auditing")
    table = pd.DataFrame([row for row, _ in found], columns=["bytes", "sha256", "width", "height", "mode", "error"])
    table.insert(0, "file", list(labels))
    table.insert(1, "class", list(labels.values()))
    readable = table["error"] == ""
    usable = table[readable]
    distinct = usable.drop_duplicates("sha256")
    pairs = near_pairs(np.stack([found[row][1] for row in distinct.index])) if len(distinct) else []

    table["split"], naive, remark = "", pd.Series("", index=table.index), ""
    try:
        table.loc[readable, "split"] = data.split(usable, None, 0, opened.test)
        # The same draw by the same code, blind to duplicates: every file is content of its own.
        blind = usable.assign(sha256=usable["sha256"] + usable["file"])
        naive.loc[readable] = data.split(blind, None, 0, opened.test)
    except DataError as error:
        remark = str(error)

    usable = table[readable]
    twins = usable[usable.duplicated("sha256", keep=False)].sort_values(["sha256", "file"])
    duplicates = twins[["file", "class", "split"]].assign(group=twins.groupby("sha256", sort=False).ngroup() + 1)
    near = pd.DataFrame([(distinct.index[a], distinct.index[b], d) for a, b, d in pairs], columns=["a", "b", "d"])
    near = near.astype({"a": np.int64, "b": np.int64, "d": np.float64}).sort_values("d")
    one, other = (table.loc[near[column]].reset_index(drop=True) for column in ("a", "b"))

    def torn(sides: pd.Series) -> list[int | None]:
        if remark:
            return [None, None]
        by_group = sides.loc[twins.index].groupby(twins["sha256"]).nunique()
        return [int((by_group > 1).sum()), int((sides.loc[near["a"]].values != sides.loc[near["b"]].values).sum())]

    return Audit(
        source=opened.name,
        files=table,
        classes=_classes(table),
        unreadable=table[~readable][["file", "class", "error"]].reset_index(drop=True),
        duplicates=duplicates[["group", "file", "class", "split"]].reset_index(drop=True),
        near_duplicates=pd.DataFrame(
            {
                "first": one["file"],
                "second": other["file"],
                "class": one["class"],
                "other class": other["class"],
                "difference": near["d"].round(2).values,
                "split": one["split"],
                "other split": other["split"],
            }
        ),
        separated=pd.DataFrame(
            {
                "in all": [twins["sha256"].nunique(), len(near)],
                "separated by a naive split": torn(naive),
                "separated by ours": torn(table["split"]),
            },
            index=["groups of exact duplicates", "near-duplicate pairs"],
        ),
        remark=remark,
    )


def _describe(source: Source, name: str) -> tuple[tuple, np.ndarray | None]:
    """``(bytes, sha256, width, height, mode, error)`` of a file, and its thumbnail unless there is an error."""
    content = b""
    try:
        content = source.read(name)
        image = decode(content, name)
        with Image.open(io.BytesIO(content)) as raw:
            mode = raw.mode
    except DataError as error:
        return (len(content), "", 0, 0, "", str(error)), None
    small = np.asarray(image.resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX))
    return (len(content), hashlib.sha256(content).hexdigest(), *image.size, mode, ""), small


def _classes(table: pd.DataFrame) -> pd.DataFrame:
    def summary(rows: pd.DataFrame) -> pd.Series:
        good = rows[rows["error"] == ""]
        sizes = (good["width"].astype(str) + "×" + good["height"].astype(str)).value_counts()
        modes = good["mode"].value_counts()
        return pd.Series(
            {
                "files": len(rows),
                "unreadable": len(rows) - len(good),
                "sizes": _listing(sizes),
                "modes": _listing(modes),
                "copies": len(good) - good["sha256"].nunique(),
            }
        )

    return pd.DataFrame({label: summary(rows) for label, rows in table.groupby("class")}).T.rename_axis("class")


def _listing(counts: pd.Series) -> str:
    if len(counts) == 1:
        return str(counts.index[0])
    shown = [f"{value} ({count})" for value, count in counts.head(3).items()]
    return ", ".join([*shown, f"{len(counts) - 3} more"] if len(counts) > 3 else shown)


def near_pairs(thumbnails: np.ndarray, limit: float = NEAR) -> list[tuple[int, int, float]]:
    """All pairs ``(a, b, difference)``, a < b, of ``thumbnails`` uint8 (N, S, S, 3) that differ by ``limit`` at most.

    The difference is the root mean square over all values, in grey levels. Averaging over blocks of pixels can
    only lower it, so a coarser look, at 8 × 8 averages, leaves out no pair. Mirrored, rotated and recoloured copies
    are not found.
    """
    count, side = len(thumbnails), thumbnails.shape[1] // 8
    coarse = thumbnails.reshape(count, 8, side, 8, side, 3).mean(axis=(2, 4), dtype=np.float32).reshape(count, -1)
    reach = limit * np.sqrt(coarse.shape[1]) * 1.001  # room for rounding
    first, second = triu(radius_neighbors_graph(coarse, reach), 1).nonzero()
    pairs: list[tuple[int, int, float]] = []
    for start in range(0, len(first), BLOCK):
        a, b = first[start : start + BLOCK], second[start : start + BLOCK]
        gap = thumbnails[a].astype(np.float32) - thumbnails[b]
        difference = np.sqrt((gap**2).mean(axis=(1, 2, 3)))
        close = difference <= limit
        pairs += zip(a[close].tolist(), b[close].tolist(), difference[close].tolist(), strict=True)
    return sorted(pairs)
