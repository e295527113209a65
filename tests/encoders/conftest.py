"""Fixtures of the encoders' tests: an empty store, no network, tiles with structure."""

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty store of weights, so that no test sees or touches the user's."""
    folder = tmp_path / "store"
    monkeypatch.setenv("LAMELLA_HOME", str(folder))
    return folder


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """One thread: on small inputs several only wait for each other, the more so beside other tests."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiles() -> NDArray[np.uint8]:
    """`(70, 64, 64, 3)` uint8: coloured gradients with blobs, no two alike, none symmetric."""
    rng = np.random.default_rng(7)
    y, x = np.mgrid[0:64, 0:64] / 64
    made = []
    for _ in range(70):
        tint, slope = rng.uniform(90, 230, 3), rng.uniform(-60, 60, (2, 3))
        image = tint + slope[0] * x[..., None] + slope[1] * y[..., None]
        for cx, cy, size in rng.uniform((0, 0, 0.02), (1, 1, 0.15), (9, 3)):
            blob = np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / size**2)
            image -= blob[..., None] * rng.uniform(0, 120, 3)
        made.append(np.clip(image + rng.normal(0, 4, image.shape), 0, 255))
    return np.stack(made).astype(np.uint8)
