"""Small bags with a needle: positive slides hold a few tiles moved along one direction."""

from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray

from lamella.mil import SlideModel, TrainSettings, fit_model


@dataclass(frozen=True)
class SmallCohort:
    bags: dict[str, NDArray[np.float32]]
    labels: dict[str, str]
    train: tuple[str, ...]
    val: tuple[str, ...]
    test: tuple[str, ...]


def make_cohort(n: int = 40, dim: int = 11, seed: int = 3, classes: tuple[str, ...] = ("a", "b")) -> SmallCohort:
    """Make bags of 3 to 19 tiles; a slide of class c > 0 has 2 tiles moved along dimension c."""
    rng = np.random.default_rng(seed)
    bags, labels = {}, {}
    for i in range(n):
        place = i % len(classes)
        bag = rng.normal(size=(int(rng.integers(3, 20)), dim)).astype(np.float32)
        bag[:2, place] += 6.0 * (place > 0)
        name = f"slide-{i:02d}"
        bags[name], labels[name] = bag * np.float32(3) + np.float32(1), classes[place]
    names = tuple(bags)
    return SmallCohort(bags, labels, names[: n // 2], names[n // 2 : 3 * n // 4], names[3 * n // 4 :])


@pytest.fixture(scope="session")
def small_cohort() -> SmallCohort:
    return make_cohort()


@pytest.fixture(scope="session")
def small_model(small_cohort: SmallCohort) -> SlideModel:
    return fit_model(
        small_cohort.bags,
        small_cohort.labels,
        train=small_cohort.train,
        val=small_cohort.val,
        classes=("a", "b"),
        settings=TrainSettings(epochs=25, n_threads=1),
    )
