"""Shared by all tests: a cache folder of their own, and small folders of drawn grains."""

import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from PIL import Image, ImageDraw

os.environ.setdefault("TQDM_DISABLE", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")  # the same sums whatever the machine's instruction set

settings.register_profile("project", deadline=None)  # a busy machine is not a failure
settings.load_profile("project")

ROOT = Path(__file__).resolve().parents[1]
REAL_ZIP = ROOT.parent / "shared" / "rice" / "rice-image-dataset.zip"
AXES = {"long": (46, 12), "round": (26, 20), "large": (54, 30)}  # px, mean axes of the drawn grains


def draw(label: str, seed: int, size: int = 64) -> Image.Image:
    """One grain: a filled ellipse of the class's shape, turned and coloured by chance, on black; no two are equal."""
    rng = np.random.default_rng((list(AXES).index(label), seed))
    major, minor = np.array(AXES[label]) * rng.uniform(0.9, 1.1, 2) * size / 64
    turn = np.linspace(0, 2 * np.pi, 60)
    angle = rng.uniform(0, np.pi)
    x, y = major / 2 * np.cos(turn), minor / 2 * np.sin(turn)
    points = np.stack([x * np.cos(angle) - y * np.sin(angle), x * np.sin(angle) + y * np.cos(angle)], 1) + size / 2
    image = Image.new("RGB", (size, size))
    fill = tuple(int(value) for value in rng.normal(205, 10, 3).clip(120, 254))
    ImageDraw.Draw(image).polygon([tuple(point) for point in points], fill=fill)
    noise = rng.integers(0, 6, (size, size, 3), np.uint8)
    return Image.fromarray(np.asarray(image) + np.where(np.asarray(image) > 0, noise % 2, noise).astype(np.uint8))


def fill_folder(
    folder: Path, per_class: int = 12, classes: tuple[str, ...] = ("long", "round"), size: int = 64
) -> Path:
    """A folder of classes with ``per_class`` drawn JPEG files each."""
    for label in classes:
        (folder / label).mkdir(parents=True)
        for number in range(per_class):
            draw(label, number, size).save(folder / label / f"{label} ({number + 1}).jpg", quality=90)
    return folder


def pack(folder: Path, target: Path) -> Path:
    """A zip of ``folder``."""
    with zipfile.ZipFile(target, "w") as archive:
        for path in sorted(folder.rglob("*.jpg")):
            archive.write(path, f"grains/{path.relative_to(folder).as_posix()}")
    return target


@pytest.fixture(scope="session", autouse=True)
def home(tmp_path_factory):
    """The cache folder of this test run."""
    folder = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RICEUTILS_HOME", str(folder))
        yield folder


@pytest.fixture
def folder(tmp_path):
    """A folder of two classes with 12 images each, the test's own to spoil."""
    return fill_folder(tmp_path / "grains")


@pytest.fixture(scope="session")
def grains_folder(tmp_path_factory):
    """A folder of three classes with 40 images each, to be left as it is."""
    return fill_folder(tmp_path_factory.mktemp("data") / "grains", 40, tuple(AXES))


@pytest.fixture(scope="session")
def splits():
    """A few embedded synthetic images of each variety, as small as the study's networks take them."""
    from riceutils import data

    return data.load("synthetic", 32, [8, 4, 6])


@pytest.fixture(scope="session")
def grains_splits(grains_folder):
    from riceutils import data

    return data.load(grains_folder, 64, [24, 6, 10])


@pytest.fixture(scope="session")
def real_zip():
    if not REAL_ZIP.exists():
        pytest.skip("the real images are not here (../shared/rice)")
    return REAL_ZIP
