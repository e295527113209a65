"""Feature bags with something wrong."""

import shutil
from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np
from typer.testing import CliRunner

from lamella.cli import build_app
from tests.gallery.scenes.encoders import write_encoder
from tests.gallery.scenes.slides import draw_slide
from tests.gallery.scenes.tables import write_cohort


def extract_once() -> None:
    """Draw a slide and extract its bag."""
    draw_slide("S-0412.tif")
    write_encoder("mine.py")
    command = "extract S-0412.tif --tile-px 64 --encoder mine.py:build --out bags --quiet"
    done = CliRunner().invoke(build_app(), command.split())
    assert done.exit_code == 0, done.output


def save_bags(folder: str, slide_ids: Sequence[str]) -> None:
    """Write bags in TRIDENT's layout."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    for i, slide_id in enumerate(slide_ids):
        rng = np.random.default_rng(i)
        with h5py.File(Path(folder) / f"{slide_id}.h5", "w") as file:
            file["features"] = rng.normal(i % 2, 1, (7, 12)).astype(np.float32)
            file["features"].attrs["encoder"] = "uni_v1"
            file["coords"] = rng.integers(0, 900, (7, 2))
            file["coords"].attrs.update({"patch_size": 64, "patch_size_level0": 64})


def save_cohort_bags(folder: str, n_slides: int, *, nan: bool = False, mixed: bool = False, flat: bool = False) -> None:
    """Write bags for the last slides of a cohort of twelve; the first may be odd in one way."""
    save_bags(folder, [f"S-{412 + i:04d}" for i in range(12 - n_slides, 12)])
    first = Path(folder) / "S-0412.h5"
    if nan:
        with h5py.File(first, "r+") as file:
            file["features"][3, 5] = np.nan
    if flat:
        with h5py.File(first, "w") as file:
            file["features"] = np.zeros((3, 4, 7), np.float32)
    if mixed:
        with h5py.File(first, "r+") as file:
            file["features"].attrs["encoder"] = "conch_v1"


def train_once() -> None:
    """Train a run on bags of a cohort of twelve."""
    write_cohort("slides.csv", n_slides=12)
    save_cohort_bags("bags", 12)
    command = "train slides.csv --features bags --out run --epochs 1 --seeds 1 --folds 3 --quiet"
    done = CliRunner().invoke(build_app(), command.split())
    assert done.exit_code == 0, done.output


def save_other_bags(folder: str) -> None:
    """Train a run on bags, and write bags of other slides by another encoder."""
    train_once()
    save_bags(folder, ["S-0900", "S-0901"])
    for path in Path(folder).glob("*.h5"):
        with h5py.File(path, "r+") as file:
            file["features"].attrs["encoder"] = "conch_v1"


def save_other_h5(path: str) -> None:
    """Write an HDF5 file that holds something else."""
    with h5py.File(path, "w") as file:
        file["counts"] = np.arange(4)


def save_two_encoders(path: str) -> None:
    """Write AtlasPatch's file with embeddings of two encoders."""
    with h5py.File(path, "w") as file:
        file["coords"] = np.array([[0, 512, 256, 256, 1], [512, 512, 256, 256, 1]], np.int32)
        for name, width in (("uni_v1", 8), ("resnet50", 6)):
            file[f"features/{name}"] = np.ones((2, width), np.float32)
        file.attrs.update({"patch_size": 256, "patch_size_level0": 512})


def change_bag(path: str) -> None:
    """Extract a bag, and change one number of a copy of it."""
    extract_once()
    shutil.copy(next(Path("bags").rglob("S-0412.h5")), path)
    with h5py.File(path, "r+") as file:
        file["features"][0, 0] = 7


def link_features(path: str) -> None:
    """Write a bag whose features lie in another file."""
    save_bags(str(Path(path).parent), [Path(path).stem])
    with h5py.File(path, "r+") as file:
        del file["features"]
        file["features"] = h5py.ExternalLink("S-0587.h5", "features")


def claim_features(path: str) -> None:
    """Write a bag whose features are claimed and not stored."""
    save_bags(str(Path(path).parent), [Path(path).stem])
    with h5py.File(path, "r+") as file:
        del file["features"]
        file.create_dataset("features", (10**9, 1024), np.float32, chunks=(1, 1024))


def drop_coordinates(path: str) -> None:
    """Write a bag with fewer coordinates than features."""
    save_bags(str(Path(path).parent), [Path(path).stem])
    with h5py.File(path, "r+") as file:
        coords, stated = file["coords"][:5], dict(file["coords"].attrs)
        del file["coords"]
        file["coords"] = coords
        file["coords"].attrs.update(stated)
