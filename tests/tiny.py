"""Tiny slides and cohorts, drawn in milliseconds: wider than high, tissue off-centre, so that swapped axes show."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
import pyvips
import tifffile
from numpy.typing import NDArray

from lamella.files import write_table

WIDTH, HEIGHT = 620, 500
GLASS = (243, 242, 244)
LABEL_COLOURS = ((250, 240, 10), (0, 90, 250))
"""The two colours of a label picture; nothing else that Lamella draws or finds on tissue comes near them."""


def draw_tissue(seed: int = 0, *, malignant: bool = False, width: int = WIDTH, height: int = HEIGHT) -> NDArray:
    """Draw glass with one pink, textured piece of tissue, `(height, width, 3)` uint8; darker where malignant."""
    rng = np.random.default_rng(seed)
    picture = np.full((height, width, 3), GLASS, float)
    inside = np.zeros((height, width), np.uint8)
    centre = (round(0.42 * width) + int(rng.integers(-12, 12)), round(0.55 * height))
    cv2.ellipse(inside, centre, (round(0.33 * width), round(0.34 * height)), 15, 0, 360, 1, -1)
    nuclei = cv2.GaussianBlur(rng.random((height, width)), (0, 0), 1.2)
    dark = nuclei > np.quantile(nuclei, 0.7 if malignant else 0.9)
    tissue = np.where(dark[..., None], (104.0, 78.0, 152.0), (222.0, 166.0, 203.0))
    picture[inside > 0] = (tissue + rng.normal(0, 8, (height, width, 1)))[inside > 0]
    return np.clip(picture + rng.normal(0, 1, picture.shape), 0, 255).astype(np.uint8)


def draw_glass(seed: int = 0, *, width: int = WIDTH, height: int = HEIGHT) -> NDArray:
    """Draw glass without any tissue, `(height, width, 3)` uint8."""
    noise = np.random.default_rng(seed).normal(0, 1, (height, width, 3))
    return np.clip(noise + np.array(GLASS), 0, 255).astype(np.uint8)


def save_slide(
    path: Path, pixels: NDArray, *, mpp: float | tuple[float, float] | None = 0.5, compression: str = "jpeg"
) -> Path:
    """Write `(h, w, 3)` uint8 as a tiled, pyramidal TIFF of `mpp` um per pixel (None: it does not say)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = pyvips.Image.new_from_array(pixels)
    if mpp is not None:
        mpp_x, mpp_y = mpp if isinstance(mpp, tuple) else (mpp, mpp)
        image = image.copy(xres=1000 / mpp_x, yres=1000 / mpp_y)
    tiled = {"tile": True, "tile_width": 128, "tile_height": 128, "pyramid": True, "compression": compression}
    image.tiffsave(str(path), **tiled, **({} if mpp is None else {"resunit": "cm"}))
    if mpp is None:
        _forget_resolution(path)
    return path


def _forget_resolution(path: Path) -> None:
    """Take the resolution out of a TIFF: libvips always writes one."""
    with tifffile.TiffFile(path, mode="r+b") as file:
        for page in file.pages:
            if "ResolutionUnit" in page.tags:
                page.tags["ResolutionUnit"].overwrite(1)


def save_labelled_slide(path: Path, pixels: NDArray, *, said: str, mpp: float = 0.5) -> Path:
    """Write an Aperio slide whose description, label and macro pictures hold what must not be passed on."""
    path.parent.mkdir(parents=True, exist_ok=True)
    height, width = pixels.shape[:2]
    about = f"Aperio Image Library v12.0.0\n{width}x{height} [0,0 {width}x{height}] (128x128) JPEG/RGB Q=90"
    stripes = np.zeros((90, 140, 3), np.uint8)
    stripes[:, :] = LABEL_COLOURS[0]
    stripes[20:70, 10:90] = LABEL_COLOURS[1]
    thumbnail = cv2.resize(pixels, (width // 4, height // 4), interpolation=cv2.INTER_AREA)
    with tifffile.TiffWriter(path) as file:
        options = {"photometric": "rgb", "metadata": None, "contiguous": False}
        tiled = {"tile": (128, 128), "compression": "jpeg", "compressionargs": {"level": 90}}
        file.write(pixels, **options, **tiled, description=f"{about}|AppMag = 20|MPP = {mpp}|Patient = {said}")
        file.write(thumbnail, **options, rowsperstrip=16, description=f"{about} thumbnail|Patient = {said}")
        for name, kind in (("label", 1), ("macro", 9)):
            described = f"{about}\n{name} 140x90|Patient = {said}"
            file.write(stripes, **options, rowsperstrip=90, description=described, subfiletype=kind)
    return path


def save_cohort_table(path: Path, rows: Sequence[Mapping[str, object]]) -> Path:
    """Write a table whose columns are the first row's."""
    write_table(path, list(rows[0]), rows)
    return path


def draw_cohort(folder: Path, n_slides: int = 12) -> Path:
    """Draw `n_slides` slides, every other one malignant, and write `cohort.csv` beside them; return the table."""
    rows = []
    for i in range(n_slides):
        malignant = i % 2 == 1
        save_slide(folder / f"S-{i:02d}.tif", draw_tissue(i, malignant=malignant))
        label = "malignant" if malignant else "benign"
        rows.append({"slide": f"S-{i:02d}.tif", "patient_id": f"P-{i:02d}", "label": label})
    return save_cohort_table(folder / "cohort.csv", rows)
