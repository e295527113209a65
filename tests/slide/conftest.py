"""Small slides of true format, wider than high, with a mark in one corner so that swapped axes show."""

from pathlib import Path

import numpy as np
import pytest
import pyvips
from numpy.typing import NDArray

WIDTH, HEIGHT = 1203, 707


@pytest.fixture(scope="session")
def scene() -> NDArray[np.uint8]:
    """`(707, 1203, 3)` uint8: smooth texture with fine grain, red top left, blue bottom right."""
    rng = np.random.default_rng(7)
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    waves = [
        128 + 60 * np.sin(x / 17.0 + y / 41.0),
        120 + 50 * np.cos(x / 29.0 - y / 13.0),
        140 + 40 * np.sin((x + 2 * y) / 53.0),
    ]
    picture = np.stack(waves, axis=2) + rng.normal(0, 12, (HEIGHT, WIDTH, 1))
    picture[:60, :90] = (220, 20, 30)
    picture[-40:, -110:] = (20, 30, 220)
    return picture.clip(0, 255).astype(np.uint8)


@pytest.fixture(scope="session")
def save_tiff(tmp_path_factory: pytest.TempPathFactory):
    """A function that writes an array as a tiled TIFF by libvips and returns its path."""
    folder = tmp_path_factory.mktemp("tiff")

    def save(pixels: NDArray[np.uint8], name: str, *, mpp: tuple[float, float] = (0.25, 0.25), **options) -> Path:
        path = folder / name
        if not path.exists():
            image = pyvips.Image.new_from_array(pixels).copy(xres=1000 / mpp[0], yres=1000 / mpp[1])
            settings = {"compression": "deflate", "tile": True, "pyramid": True, "resunit": "cm"}
            image.tiffsave(str(path), **{**settings, "tile_width": 128, "tile_height": 128, **options})
        return path

    return save


@pytest.fixture(scope="session")
def pyramid(scene, save_tiff) -> Path:
    """The scene as a lossless pyramid of levels 1, 2, 4, 8, at 0.25 um."""
    return save_tiff(scene, "pyramid.tiff")


@pytest.fixture(scope="session")
def flat(scene, save_tiff) -> Path:
    """The scene as one lossless level at 0.2525 um, as some scanners make them."""
    return save_tiff(scene, "flat.tiff", mpp=(0.2525, 0.2525), pyramid=False)


@pytest.fixture(scope="session")
def jpeg_pyramid(scene, save_tiff) -> Path:
    """The scene as a pyramid of JPEG tiles with subsampled colour, at 0.25 um."""
    return save_tiff(scene, "jpeg.tiff", compression="jpeg", Q=85)
