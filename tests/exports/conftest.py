"""A run, a study and an export of them, made once, on drawn slides."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from lamella.cohort import Cohort, CohortSlide, load_cohort
from lamella.encoders import EncoderSpec, RuntimeSettings
from lamella.exports.write import export_model
from lamella.features.extract import ExtractSettings
from lamella.features.plan import CutSettings
from lamella.mil.settings import TrainSettings
from lamella.runs.execute import execute_run
from lamella.runs.settings import RunSettings
from lamella.studies.design import check_design
from lamella.studies.execute import Study, StudyOptions, execute_study
from lamella.tiles import TileSpec
from tests.tiny import draw_cohort, draw_tissue, save_slide

EXTRACT = ExtractSettings(
    cut=CutSettings(spec=TileSpec(tile_px=64, mpp=0.5)),
    encoders=(EncoderSpec("efficientnet-lite0@2"),),
    runtime=RuntimeSettings(precision="fp32", n_threads=1),
)
SETTINGS = RunSettings(extract=EXTRACT, train=TrainSettings(epochs=3), n_seeds=2, n_folds=3)
DESIGN = {
    "tiles": {"default": {"tile_px": 64, "mpp": 0.5}},
    "arms": [
        {"encoders": ["resnet18"], "depths": [1, 2], "weights": ["random"]},
        {"encoders": ["resnet18"], "depths": [1], "weights": ["random"], "finetuned": ["head", "tuned"]},
        {"encoders": ["resnet18-ciga"]},
    ],
    "seeds": 2,
    "folds": 3,
    "train": {"epochs": 2},
    "finetune": {"k": 4, "epochs": 1, "train_blocks": 1, "n_seeds": 1},
    "permutations": 0,
}


@pytest.fixture(scope="package", autouse=True)
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A store of one's own, in which nothing is yet."""
    with pytest.MonkeyPatch.context() as patch:
        home = tmp_path_factory.mktemp("home")
        patch.setenv("LAMELLA_HOME", str(home))
        yield home


@pytest.fixture(scope="package")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    return load_cohort(draw_cohort(tmp_path_factory.mktemp("cohort"), 12))


@pytest.fixture(scope="package")
def run(cohort: Cohort, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run") / "out"
    execute_run(cohort, SETTINGS, out)
    return out


@pytest.fixture(scope="package")
def model(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_model(run, tmp_path_factory.mktemp("export") / "model")


@pytest.fixture(scope="package")
def study(cohort: Cohort, tmp_path_factory: pytest.TempPathFactory) -> Study:
    options = StudyOptions(runtime=RuntimeSettings(runtime="torch", n_threads=1))
    return execute_study(
        cohort, check_design(DESIGN, "test"), tmp_path_factory.mktemp("study") / "out", options=options
    )


@pytest.fixture(scope="package")
def new(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    """Four slides like those of training, and one each that differs in resolution and in colour."""
    folder = tmp_path_factory.mktemp("new")
    slides = []
    for i in range(6):
        pixels, mpp = draw_tissue(50 + i, malignant=i % 2 == 1), 0.5
        if i == 4:
            pixels, mpp = draw_tissue(54, width=1240, height=1000), 0.25
        if i == 5:
            pixels = (pixels * [0.75, 0.95, 0.6]).astype(np.uint8)
        path = save_slide(folder / f"N-{i}.tif", pixels, mpp=mpp)
        label = "malignant" if i % 2 else "benign"
        slides.append(CohortSlide(slide_id=f"N-{i}", patient_id=f"Q-{i}", path=path, label=label))
    return Cohort(slides=tuple(slides), classes=("benign", "malignant"), positive="malignant", notes=())


def unlabelled(cohort: Cohort) -> Cohort:
    return dataclasses.replace(cohort, slides=tuple(dataclasses.replace(s, label=None) for s in cohort.slides))
