"""Synthetic single rice grains on black, after the measured statistics of the Rice Image Dataset.

A grain is drawn in three steps. Its features (axes, solidity, mean and spread of each colour) come from the
multivariate normal of its population (`resources/class_stats.csv`, `class_correlations.csv`). Its outline is a
superellipse with the embryo's notch cut from one end, as deep as the drawn solidity asks, mapped affinely so
that its second moments are those drawn. Its surface (rim, chalky core, ridges, highlights, bran) is laid over
the mean colour and scaled until the JPEG file has the drawn mean and spread.

What the statistics do not say (profile of the rim, strength of ridges, where the notch starts) is in `LOOKS`,
estimated by eye and from averages over some hundred images of each population.
"""

import csv
import io
from dataclasses import dataclass
from functools import cache
from importlib import resources

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy import fft, ndimage
from scipy.spatial import ConvexHull

Floats = NDArray[np.floating]
FEATURES = ("major", "minor", "solidity", "R", "G", "B", "R_sd", "G_sd", "B_sd")
# Jasmine's files 1-11718 and 11719-15000 come from two recordings.
POPULATIONS = {v: {v: 15000} for v in ("Arborio", "Basmati", "Ipsala", "Jasmine", "Karacadag")}
POPULATIONS["Jasmine"] = {"Jasmine_A": 11718, "Jasmine_B": 3282}
VARIETIES = tuple(POPULATIONS)

SIDE = 250  # px, of every file of the data set
THRESHOLD = 20  # grey level above which a pixel counts as grain, as in class_stats.csv
LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601, as Pillow's mode L
RIM_DEPTHS = (2.0, 3.0, 4.0, 6.0, 9.0, 14.0, 22.0)  # px below the edge


@dataclass(frozen=True)
class Look:
    """What the published statistics do not say; grey levels are relative to the mean inside the grain."""

    edge: float  # grey levels of the outermost pixel
    rim: tuple[float, ...]  # grey levels at RIM_DEPTHS
    rim_tint: tuple[float, float, float] = (1.0, 1.0, 1.0)  # factor of edge and rim in R, G, B
    roundness: float = 2.3  # exponent of the superellipse: 2 an ellipse, more is fuller
    notch: tuple[float, float] = (0.4, 0.62)  # where the notch starts, as a fraction of the half length
    bend: float = 0.05  # standard deviation of the curvature of the long axis
    level: float = 0.0  # share of grains lying along the image's rows; the others lie anyhow
    chalk: float = 0.0  # bright core
    chalk_spread: float = 0.2  # of its place, in half lengths
    chalk_share: float = 1.0  # share of grains that have it
    ridges: float = 0.0  # bright and dark lines along the grain
    slope: float = 0.0  # one side brighter than the other
    cloud: float = 0.0  # texture with a power-law spectrum
    spots: float = 0.0  # mean number of small highlights
    bran: float = 0.0  # share of grains with a yellow remnant of bran


LOOKS = {
    "Arborio": Look(edge=-30, rim=(-9, -6, -12, -13, -8, 0, 6), roundness=2.4,
                    chalk=10, ridges=5, slope=6, cloud=3.5, spots=0.6),
    "Basmati": Look(edge=-38, rim=(11, 13, 12, 9, 4, -4, -7), rim_tint=(1.0, 1.0, 0.55), roundness=2.9,
                    notch=(0.58, 0.8), bend=0.2, ridges=1.5, slope=5, cloud=2.2, spots=1.5, bran=0.06),
    "Ipsala": Look(edge=-32, rim=(6, 9, 8, 3, 1, 0, -1), roundness=2.45, slope=2, cloud=1.5, spots=2, bran=0.3),
    "Jasmine_A": Look(edge=-30, rim=(8, 9, 2, -1, -1, 0, 3), roundness=2.9, notch=(0.5, 0.7), bend=0.17,
                      chalk=25, chalk_share=0.12, ridges=1.5, slope=2, cloud=3.5),
    "Jasmine_B": Look(edge=-28, rim=(0, 1, 0, 0, -1, -1, 1), rim_tint=(0.7, 1.0, 1.0), roundness=2.9,
                      notch=(0.5, 0.7), bend=0.17, level=0.3, chalk=18, chalk_share=0.25,
                      ridges=1.5, slope=3, cloud=2.7),
    "Karacadag": Look(edge=-37, rim=(2, 2, 1, 0, 0, 0, 0), rim_tint=(1.0, 1.0, 1.3), roundness=2.4,
                      notch=(0.32, 0.55), chalk=18, chalk_spread=0.45, ridges=1.5, slope=9, cloud=1.8,
                      spots=0.8, bran=0.3),
}  # fmt: skip


@cache
def statistics(population: str) -> tuple[Floats, Floats]:
    """Mean (9,) and covariance (9, 9) of `FEATURES` in one population (px, fractions, levels 0-255)."""
    folder = resources.files("riceutils") / "resources"
    with (folder / "class_stats.csv").open(encoding="utf-8") as file:
        row = next(r for r in csv.DictReader(file) if r["population"] == population)
    with (folder / "class_correlations.csv").open(encoding="utf-8") as file:
        table = {r["feature"]: r for r in csv.DictReader(file) if r["population"] == population}
    mean = np.array([float(row[f"{f}_mean"]) for f in FEATURES])
    std = np.array([float(row[f"{f}_std"]) for f in FEATURES])
    correlation = np.array([[float(table[a][b]) for b in FEATURES] for a in FEATURES])
    return mean, correlation * np.outer(std, std)


def encode(image: NDArray[np.uint8]) -> bytes:
    """JPEG file of an RGB image (height, width, 3), uint8: quality 75, 4:2:0, as in the data set."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=75, subsampling="4:2:0")
    return buffer.getvalue()


def render(variety: str, count: int, seed: int = 0, size: int = SIDE) -> NDArray[np.uint8]:
    """Draw synthetic grains of one variety.

    Every image is drawn at 250 px, passed through JPEG like the data set's files, and scaled if another size is
    asked for. Image i depends on (variety, seed, i) only, so a longer series starts with the shorter one.

    Args:
        variety: one of `VARIETIES`; Jasmine mixes its two populations in their natural proportion.
        count, seed: 0 or more.
        size: side of the images in px, 1 or more.

    Returns:
        uint8 array (count, size, size, 3), RGB, 0-255.

    Raises:
        ValueError: unknown variety, or a number out of range.
    """
    if variety not in POPULATIONS:
        raise ValueError(f"unknown variety {variety!r}; known: {', '.join(VARIETIES)}")
    for name, value, least in (("count", count, 0), ("seed", seed, 0), ("size", size, 1)):
        if value < least:
            raise ValueError(f"{name} must be at least {least}, not {value}")
    images = np.empty((count, size, size, 3), np.uint8)
    for i in range(count):
        image = Image.open(io.BytesIO(file(variety, i, seed)))
        images[i] = np.asarray(image if size == SIDE else image.resize((size, size), Image.Resampling.BILINEAR))
    return images


def file(variety: str, index: int, seed: int = 0) -> bytes:
    """JPEG file of the image that `render` gives at `index`, 250 px a side."""
    rng = np.random.default_rng(np.random.SeedSequence([seed, VARIETIES.index(variety), index]))
    shares = POPULATIONS[variety]
    pick = rng.random() * sum(shares.values())
    population = next(iter(shares)) if pick < next(iter(shares.values())) else list(shares)[-1]
    return _grain(population, rng)


def _grain(population: str, rng: np.random.Generator) -> bytes:
    """One image as a JPEG file."""
    mean, covariance = statistics(population)
    drawn = mean + np.linalg.cholesky(covariance) @ np.clip(rng.standard_normal(len(mean)), -3, 3)
    axes = np.minimum(drawn[:2], 0.93 * SIDE)
    look = LOOKS[population]

    angle = rng.normal(0, 0.2) if rng.random() < look.level else rng.uniform(0, np.pi)
    angle += np.pi * rng.integers(2)
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    mirror = (1, rng.choice((-1, 1)))  # the notch lies left or right of the nose
    points = _outline(look, axes, drawn[2], rng) * mirror @ rotation.T
    # The files are cropped so that the bounding box is centred, to a pixel; the centroid is wherever it falls.
    shift = (SIDE - 1) / 2 + rng.uniform(-1.35, -0.15, 2) - (points.max(0) + points.min(0)) / 2
    cover = _cover(points + shift, rng)
    where = np.flatnonzero(cover)
    y, x = np.divmod(where, SIDE)
    alpha = cover.ravel()[where, None]
    band = cover[y[0] - 1 : y[-1] + 2]  # no more rows than the grain has: the transform is slow
    depth = ndimage.distance_transform_edt(band > 0.5).astype(np.float32).ravel()[where - (y[0] - 1) * SIDE]
    uv = (rotation * mirror / (axes / 2)).T @ (np.stack([x, y]) - shift[:, None])
    detail = _surface(look, uv.astype(np.float32), depth, rng)

    target_mean, target_std = drawn[3:6], np.maximum(drawn[6:9], 5)
    contrast = (target_std.mean() / mean[6:9].mean()) ** 3
    edge = np.outer(depth < 1.2, contrast * look.edge * np.array(look.rim_tint, np.float32))
    base, gain = target_mean + 4, 1.0
    core, around = where[depth > 2], np.flatnonzero(ndimage.binary_dilation(cover > 0))
    image = _background().copy()
    behind = (1 - alpha) * image.reshape(-1, 3)[where] + np.float32(0.5)
    for attempt in range(3):
        level = base.astype(np.float32) + np.float32(gain) * detail + edge
        image.reshape(-1, 3)[where] = alpha * np.clip(level, 0, 255) + behind
        data = encode(image)
        if attempt == 2:
            break
        # The first files tell what JPEG, the edge and saturation do to mean and spread; correct for it.
        pixels = np.asarray(Image.open(io.BytesIO(data))).reshape(-1, 3)
        whole_mean, whole_variance, n = _spread(pixels[around][pixels[around] @ LUMA > THRESHOLD])
        _, core_variance, n_core = _spread(pixels[core])
        edge_variance = whole_variance - core_variance * n_core / n
        room = np.maximum(target_std**2 - edge_variance, 4) * n / n_core
        gain *= float(np.clip(np.sqrt((room / np.maximum(core_variance, 1)).mean()), 0.7, 1.5))
        base = base + target_mean - whole_mean
    return data


def _spread(pixels: NDArray[np.uint8]) -> tuple[Floats, Floats, int]:
    """Mean (3,), variance (3,) and number of pixels (n, 3)."""
    values = pixels.astype(np.float32)
    mean = values.mean(0)
    return mean, np.square(values - mean).mean(0), len(values)


def _cover(points: Floats, rng: np.random.Generator, scale: int = 4) -> Floats:
    """Share (250, 250) of the grain in each pixel, from its outline (n, 2) in px; corners rounded, edge narrow."""
    low = np.maximum(np.floor(points.min(0)).astype(int) - 3, 0)
    high = np.minimum(np.ceil(points.max(0)).astype(int) + 4, SIDE)
    canvas = Image.new("L", tuple(scale * (high - low)))
    ImageDraw.Draw(canvas).polygon([tuple(q) for q in scale * (points - low + 0.5) - 0.5], fill=255)
    share = ndimage.gaussian_filter(np.asarray(canvas.reduce(scale), np.float32) / 255, 1.3)
    edge = np.flatnonzero((share > 0.2) & (share < 0.8))
    share.ravel()[edge] += rng.normal(0, 0.04, edge.size)
    cover = np.zeros((SIDE, SIDE), np.float32)
    cover[low[1] : high[1], low[0] : high[0]] = np.clip(0.5 + 9 * (share - 0.5), 0, 1)
    return cover


@cache
def _background() -> NDArray[np.uint8]:
    """Black (250, 250, 3) with grey level 2 where neighbouring grains were erased, the same in all real files."""
    image = Image.new("RGB", (SIDE, SIDE))
    for x, y, a, b, degrees in ((25, 63, 62, 34, 55), (227, 141, 54, 25, -85), (190, 232, 50, 30, 50)):
        t = np.linspace(0, 2 * np.pi, 60)
        ellipse = (a * np.cos(t) + 1j * b * np.sin(t)) * np.exp(1j * np.radians(degrees)) + complex(x, y)
        ImageDraw.Draw(image).polygon([(q.real, q.imag) for q in ellipse], fill=(2, 2, 2))
    return np.array(image)


def _outline(look: Look, axes: Floats, solidity: float, rng: np.random.Generator) -> Floats:
    """Closed outline (n, 2) in px about its centroid, long axis along x, of the wanted axes (px) and solidity."""
    major, minor = axes
    t = np.linspace(0, 2 * np.pi, 160, endpoint=False)
    c, s = np.cos(t), np.sin(t)
    power = np.where(c > 0, *(2 / np.maximum(rng.normal(look.roundness, 0.2, 2), 1.8)))
    wave = sum(rng.normal(0, 0.016 / k) * np.cos(k * t + rng.uniform(0, 6.3)) for k in range(2, 8))
    x = np.sign(c) * np.abs(c) ** power * (1 + wave)
    y = np.sign(s) * np.abs(s) ** power * (1 + wave) * (1 + rng.normal(0, 0.06) * x)
    y = y - rng.normal(0, look.bend) * x**2

    # The embryo leaves a notch from the upper side to a blunt nose: the more severe, the hollower.
    first, nose, thickness = rng.uniform(*look.notch), rng.uniform(0.88, 0.97), rng.uniform(0.6, 1.0)
    floor = np.interp(nose, x[120:], y[120:])
    blunt = np.where(x > nose, nose + 0.3 * (x - nose), x)
    ragged = ndimage.gaussian_filter1d(rng.normal(0, 0.1, t.size), 1.5)
    # The pixel staircase and its teeth widen the convex hull by 0.7 px all round.
    hull_gain = 1 + 0.7 * 2 * (major + minor) / (major * minor)
    severity, step = 0.7, 0.35
    for _ in range(5):
        start, end = first - 0.12 * severity, floor + thickness * (1 - 0.3 * severity)
        along = np.clip((x - start) / (nose - start), 0, 1)
        top = np.interp(start, x[40::-1], y[40::-1])
        cut = top + (end - top) * (1 - (1 - along) ** (0.6 + 1.8 * severity)) + ragged
        cut -= 0.3 * thickness * (1 - np.sqrt(1 - np.clip(3 * along - 2, 0, 1) ** 2))  # the nose is round
        notched = np.where(along > 0, np.minimum(y, cut), y)
        points = ndimage.gaussian_filter1d(np.stack([blunt, notched], 1), 1.4, axis=0, mode="wrap")
        centroid, covariance, area = _moments(points)
        too_full = area / ConvexHull(points).volume / hull_gain > solidity
        severity, step = severity + (step if too_full else -step), step / 2
    points = points - centroid
    values, vectors = np.linalg.eigh(covariance)
    whitening = vectors / np.sqrt(values) @ vectors.T  # symmetric: moves the notch least
    # The soft edge and JPEG's ringing carry the mask outwards by a fraction of a pixel.
    return points @ whitening * (axes - 0.8) / 4 + rng.normal(0, 0.4, (t.size, 2))


def _moments(points: Floats) -> tuple[Floats, Floats, float]:
    """Centroid (2,), covariance (2, 2) and area of a polygon (n, 2), by Green's theorem."""
    following = np.roll(points, -1, axis=0)
    cross = (points[:, 0] * following[:, 1] - following[:, 0] * points[:, 1])[:, None]
    area = cross.sum() / 2
    centroid = ((points + following) * cross).sum(0) / (6 * area)
    second = sum((q * cross).T @ q for q in (points, following, points + following)) / (24 * area)
    return centroid, second - np.outer(centroid, centroid), area


def _surface(look: Look, uv: Floats, depth: Floats, rng: np.random.Generator) -> Floats:
    """Grey levels (pixels, 3) to add to the mean colour, for pixels at uv (half lengths) and depth (px)."""
    u, v = uv
    a, b = rng.uniform(-0.7, 0.7, 2)
    aspect = 1 + (a * u + b * v) / np.sqrt(u * u + v * v + 0.01)  # light from one side
    rim = (np.interp(depth, RIM_DEPTHS, look.rim) * rng.normal(1, 0.3) * aspect).astype(np.float32)
    along, across = look.slope * rng.normal(0, (0.7, 1))
    more = (along * u + across * v).astype(np.float32) + np.float32(look.cloud) * _cloud(rng, u, v)
    if rng.random() < look.chalk_share:
        at, wide = rng.normal(0, look.chalk_spread, 2), rng.uniform(0.3, 0.7, 2)
        core = np.exp(-(((u - at[0]) / wide[0]) ** 2) - ((v - at[1]) / wide[1]) ** 2)
        more += look.chalk * rng.uniform(0.4, 1.6) * core
    if look.ridges:
        grid = np.linspace(-1.5, 1.5, 90)
        lines = ndimage.gaussian_filter1d(rng.normal(0, 2.5, grid.size), 3)
        for _ in range(rng.integers(1, 4)):
            lines += rng.normal(1, 1) * np.exp(-(((grid - rng.uniform(-0.8, 0.8)) / rng.uniform(0.03, 0.1)) ** 2))
        fade = np.interp(u, np.linspace(-1.1, 1.1, 6), look.ridges * rng.uniform(0, 1.4, 6))
        more += fade * np.interp(v + rng.normal(0, 0.15) * u * u, grid, lines)
    for _ in range(rng.poisson(look.spots)):
        k, (wu, wv) = rng.integers(u.size), rng.uniform(0.015, 0.06, 2)
        near = np.flatnonzero(np.abs(u - u[k]) < 3 * wu)
        more[near] += rng.uniform(8, 25) * np.exp(-(((u[near] - u[k]) / wu) ** 2) - ((v[near] - v[k]) / wv) ** 2)
    detail = rim[:, None] * np.array(look.rim_tint, np.float32) + more[:, None]
    if rng.random() < look.bran:
        k, reach = rng.choice(np.flatnonzero(depth < 2)), rng.uniform(0.2, 0.6)
        stain = np.exp(-((u - u[k]) ** 2 + (v - v[k]) ** 2) / reach**2 - depth / rng.uniform(5, 15))
        detail += np.outer(stain, rng.uniform(0.2, 1.0) * np.array([10, 0, -60]))
    return detail - detail.mean(0)


def _cloud(rng: np.random.Generator, u: Floats, v: Floats) -> Floats:
    """Random texture (pixels,), unit variance; power falls as frequency to the -2.8, as inside real grains."""
    radius = np.hypot(np.fft.fftfreq(128)[:, None], np.fft.rfftfreq(128))
    amplitude = np.where(radius > 0, np.maximum(radius, 1 / 40) ** -1.4, 0).astype(np.float32)
    parts = rng.standard_normal((128, 65, 2), np.float32).view(np.complex64)[..., 0]
    field = fft.irfft2(amplitude * parts, (128, 128))
    fine = np.asarray(Image.fromarray(field / field.std()).resize((256, 256), Image.Resampling.BICUBIC))
    return fine[(128 + 90 * v).astype(int) & 255, (128 + 90 * u).astype(int) & 255]  # drawn out along the grain
