"""Where images come from: synthetic grains, Kaggle, a folder of classes, or a zip of one.

Every source lists its files by class and gives a file's bytes; nothing above this module knows which it was.
"""

from __future__ import annotations

import io
import os
import struct
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from riceutils import files, grains

KAGGLE_HANDLE = "muratkokludataset/rice-image-dataset"
SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
SYNTHETIC_VERSION = 1  # raise by hand when the rendering of grains changes


class DataError(ValueError):
    """The images cannot be used as they are; the message names the file or folder and the way out."""


@dataclass(frozen=True)
class Source:
    """Image files by class.

    ``members`` maps a class to its file names (relative, sorted), ``read`` gives a file's bytes or raises
    ``DataError``, and ``signature`` changes when the content may have changed (cheap: sizes, dates or CRCs, no
    reading). Files named in ``test`` are the set's own test images; where there are none, a split draws them.
    """

    name: str
    members: dict[str, list[str]]
    read: Callable[[str], bytes] = field(repr=False)
    signature: str
    test: frozenset[str] = field(default=frozenset(), repr=False)

    @property
    def classes(self) -> list[str]:
        return list(self.members)


def open_source(source: str | Path, images_per_class: int | None = None, seed: int = 0) -> Source:
    """Open ``source``: ``"synthetic"``, ``"kaggle"``, a folder of classes, or a zip of one.

    ``images_per_class`` and ``seed`` matter to synthetic images only, which are made in the number asked for.
    Raises ``DataError`` when there is nothing usable, and ``ConnectionError`` when Kaggle is out of reach.
    """
    if source == "synthetic":
        return _synthetic(images_per_class or 300, seed)
    if source == "kaggle":
        return _folder(fetch())
    path = Path(source).expanduser()
    if not path.exists():
        raise DataError(f"No such folder or zip: {path}. Use 'synthetic', 'kaggle', or an existing path.")
    return _folder(path) if path.is_dir() else _zip(path)


def fetch() -> Path:
    """Download the Rice Image Dataset from Kaggle (anonymous, with a progress bar); return its folder.

    Raises ``ConnectionError`` with the local way out when Kaggle cannot be reached.
    """
    import kagglehub

    try:
        return Path(kagglehub.dataset_download(KAGGLE_HANDLE))
    except Exception as error:  # kagglehub lets requests', urllib3's and its own errors through
        raise ConnectionError(
            f"Kaggle data set {KAGGLE_HANDLE} could not be fetched ({type(error).__name__}). Check the network, "
            "or download the zip elsewhere and give its path as data."
        ) from error


def decode(content: bytes, name: str, size: int | None = None) -> Image.Image:
    """Decode an image file to RGB, resized to ``size`` × ``size`` by antialiased bilinear interpolation.

    Grey images get three equal channels; transparency is laid on black, the data set's background.
    Raises ``DataError`` naming the file when it is truncated, not an image, or has values of unknown range.
    """
    try:
        with Image.open(io.BytesIO(content)) as raw:
            raw.load()
            image = ImageOps.exif_transpose(raw)
        if image.mode in ("I", "F"):
            raise DataError(f"Image {name} holds 32-bit values of unknown range. Save it with 8 or 16 bits.")
        if image.mode.startswith("I;16"):
            image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
        if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
            image = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, (0, 0, 0, 255)), image)
        image = image.convert("RGB")
    except DataError:
        raise
    except (OSError, SyntaxError, ValueError, struct.error, Image.DecompressionBombError) as error:
        raise _unreadable(name, error) from error
    return (
        image if size is None or image.size == (size, size) else image.resize((size, size), Image.Resampling.BILINEAR)
    )


def _unreadable(name: str, error: Exception) -> DataError:
    """The error for an image file that cannot be read because of ``error``."""
    reason = "it is not an image" if isinstance(error, UnidentifiedImageError) else error
    return DataError(f"Cannot read image {name}: {reason}. Repair or remove it.")


def _synthetic(count: int, seed: int) -> Source:
    @lru_cache(maxsize=20_000)  # read twice: for the manifest and for the pixels
    def read(name: str) -> bytes:
        path = PurePosixPath(name)
        return grains.file(path.parts[0], int(path.stem) - 1, seed)

    members = {variety: [f"{variety}/{i + 1}.jpg" for i in range(count)] for variety in grains.VARIETIES}
    return Source("synthetic", members, read, files.digest(["synthetic", SYNTHETIC_VERSION, count, seed]))


def _members(paths: list[PurePosixPath], origin: Path) -> dict[str, list[str]]:
    """Group image paths by the folder they lie in; all of these folders must be siblings, two or more."""
    members: dict[str, list[str]] = {}
    for path in sorted(paths, key=str):
        members.setdefault(str(path.parent), []).append(str(path))
    if not members:
        raise DataError(f"No images in {origin}. Expected one folder per class, each with {', '.join(SUFFIXES)} files.")
    above = [str(PurePosixPath(folder).parent) for folder in members if folder != "."]  # whose parent is itself
    for folder, names in members.items():
        if above.count(folder) > 1 or (folder == "." and above):
            raise DataError(f"{names[0]} lies beside the class folders of {origin}. Move or remove it.")
    if len(set(above)) != 1 or len(members) < 2:
        raise DataError(
            f"{origin} is not a folder of classes: images lie in {', '.join(map(repr, list(members)[:4]))}. "
            "Put each class into its own folder, side by side, at least two."
        )
    return {PurePosixPath(folder).name: names for folder, names in members.items()}


def _hidden(name: str) -> bool:
    return name.startswith((".", "__MACOSX"))


def _is_image(path: PurePosixPath) -> bool:
    return path.suffix.lower() in SUFFIXES and not any(map(_hidden, path.parts))


def _folder(root: Path) -> Source:
    found = []
    for place, inside, names in os.walk(root, followlinks=True):  # classes may be links to folders elsewhere
        for link in (Path(place, name) for name in inside):
            if link.is_symlink() and Path(place).resolve().is_relative_to(link.resolve()):
                raise DataError(f"{link} links back to {link.resolve()}, which holds it. Remove the link.")
        found += [path for name in names if (path := Path(place, name)).is_file()]
    found.sort()
    relative = {PurePosixPath(path.relative_to(root).as_posix()): path for path in found}
    images = [path for path in relative if _is_image(path)]
    for name in map(str, images):
        if any("\udc80" <= letter <= "\udcff" for letter in name):  # how Python shows bytes that are no UTF-8
            shown = str(root / name).encode(errors="replace").decode()
            raise DataError(f"The name of {shown} is not UTF-8. Rename it.")
    members = _members(images, root)
    beside = root / PurePosixPath(next(iter(members.values()))[0]).parent.parent
    for folder in sorted(entry for entry in beside.iterdir() if entry.is_dir() and not _hidden(entry.name)):
        if folder.name not in members:
            raise DataError(f"Class folder {folder} holds no image. Fill it or remove it.")
    stats = [(str(path), relative[path].stat().st_size, relative[path].stat().st_mtime_ns) for path in images]
    return Source(str(root), members, partial(_read_file, root), files.digest(stats))


def _read_file(root: Path, name: str) -> bytes:
    try:
        return (root / name).read_bytes()
    except OSError as error:
        raise _unreadable(name, error) from error


def _zip(path: Path) -> Source:
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError) as error:
        raise DataError(f"{path} is not a whole zip file ({error}). Fetch it again.") from error
    entries = {}
    for info in archive.infolist():
        name = PurePosixPath(info.filename.replace("\\", "/"))
        if name.is_absolute() or ".." in name.parts or ":" in "".join(name.parts[:1]):
            raise DataError(f"{path} has a member that points outside: {info.filename!r}. Do not use this file.")
        if not info.is_dir() and _is_image(name):
            entries[str(name)] = info
    members = _members([PurePosixPath(name) for name in entries], path)
    stats = [(name, info.file_size, info.CRC) for name, info in sorted(entries.items())]
    return Source(str(path), members, partial(_read_member, archive, entries), files.digest(stats))


def _read_member(archive: zipfile.ZipFile, entries: dict[str, zipfile.ZipInfo], name: str) -> bytes:
    try:
        return archive.read(entries[name])  # ZipFile shares one file handle under a lock: safe from threads
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, RuntimeError) as error:  # RuntimeError: encrypted
        raise DataError(
            f"{archive.filename}: member {name!r} cannot be read ({error}). Fetch the zip again."
        ) from error
