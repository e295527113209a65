"""The list of rows, and the drawn bag, slide and attention that several subjects start from."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

N_TILES, SIDE_L0, N_COLUMNS = 100_000, 224, 400
SIZE_L0 = (N_COLUMNS * SIDE_L0, N_TILES // N_COLUMNS * SIDE_L0)
CLASSES = ("benign", "malignant")
Work = Callable[[], Any]
ROWS: dict[str, Callable[[Path], Work]] = {}


def row(name: str) -> Callable[[Callable[[Path], Work]], Callable[[Path], Work]]:
    """Register what makes a row's inputs in a folder and returns what is measured; a text it returns is shown."""

    def register(make: Callable[[Path], Work]) -> Callable[[Path], Work]:
        ROWS[name] = make
        return make

    return register


def make_bag(width: int, *, seed: int = 0) -> tuple[NDArray[np.float16], NDArray[np.int64]]:
    """Return features `(10^5, width)` float16 and corners on a grid of 400 columns."""
    features = np.random.default_rng(seed).standard_normal((N_TILES, width), dtype=np.float32).astype(np.float16)
    y, x = np.divmod(np.arange(N_TILES), N_COLUMNS)
    return features, np.stack([x, y], axis=1) * SIDE_L0


def describe_bag(slide_id: str) -> dict[str, Any]:
    """Return the attributes of a bag of ours."""
    return {
        "slide_id": slide_id, "slide_sha256": slide_id, "slide_quickhash": slide_id, "fingerprint": "0" * 64,
        "encoder": "synthetic", "tile_px": 224, "mpp": 0.5, "stride_px": 224, "slide_mpp_x": 0.5, "slide_mpp_y": 0.5,
        "slide_width": SIZE_L0[0], "slide_height": SIZE_L0[1], "tissue_um2": 1e6, "colour": "[200, 150, 180, 9, 9, 9]",
    }  # fmt: skip


def save_bag(path: Path, features: NDArray[np.float16], corners: NDArray[np.int64]) -> Path:
    """Write a bag of ours; one that is there stays."""
    from lamella.features.bag import BagWriter

    if not path.exists():
        writer = BagWriter(path, corners, dim=features.shape[1], dtype="float16")
        writer.append(features)
        writer.finish(describe_bag(path.stem))
    return path


def make_attention() -> Any:
    """Return attention on 10^5 tiles as pictures take it."""
    from lamella.reports.draw.heatmap import SlideAttention

    shares = np.random.default_rng(2).gamma(0.3, size=N_TILES)
    return SlideAttention(
        attention=shares / shares.sum(), coords_l0=make_bag(1)[1], tile_size_l0=(SIDE_L0, SIDE_L0), slide_size=SIZE_L0,
        slide_mpp=(0.5, 0.5),
    )  # fmt: skip


def save_cohort_table(folder: Path, *, n: int, name: str = "cohort.csv") -> Path:
    """Write a cohort table of slides that need not be there."""
    lines = ["slide,slide_id,patient_id,label,batch"]
    lines += [f"slides/S{i:06d}.tif,S{i:06d},P{i:06d},{CLASSES[i % 2]},B{i % 5}" for i in range(n)]
    path = folder / name
    path.write_text("\n".join(lines) + "\n")
    return path


def make_predictions(n_arms: int, n: int, *, n_seeds: int = 3) -> Any:
    """Return the long table of a study, float logits of arms that agree for the most part."""
    import pandas as pd

    rng = np.random.default_rng(4)
    target, shared, frames = np.arange(n) % 2, rng.normal(size=n), []
    for arm in range(n_arms):
        scored = shared + 0.3 * rng.normal(size=n) + target * (1.5 - 0.03 * arm)
        for seed in range(n_seeds):
            logits = scored + 0.1 * rng.normal(size=n)
            frames.append(
                pd.DataFrame(
                    {
                        "arm": f"arm{arm}", "seed": seed, "fold": np.arange(n) // 2 % 5, "side": "test",
                        "slide_id": [f"S{i:06d}" for i in range(n)], "patient_id": [f"P{i:06d}" for i in range(n)],
                        "label": [CLASSES[index] for index in target], "logit_benign": -logits / 2,
                        "logit_malignant": logits / 2,
                    }
                )
            )  # fmt: skip
    return pd.concat(frames, ignore_index=True)


def save_predictions(folder: Path, n: int) -> Path:
    """Write a predictions table of one arm."""
    path = folder / f"predictions{n}.csv"
    make_predictions(1, n, n_seeds=1).drop(columns=["arm", "seed", "side"]).to_csv(path, index=False)
    return path
