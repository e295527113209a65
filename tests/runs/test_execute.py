"""A run on bags that are there already: what it returns, what it writes and when, and that it can go on."""

import csv
import dataclasses
from pathlib import Path

import h5py
import numpy as np
import pytest

from lamella.cohort import Cohort, load_cohort
from lamella.files import parse_json_file
from lamella.mil.settings import TrainSettings
from lamella.runs import execute
from lamella.runs.execute import train_on_bags
from lamella.runs.metrics import Metrics
from lamella.runs.settings import TrainingSettings

SETTINGS = TrainingSettings(train=TrainSettings(epochs=2), n_seeds=2, n_folds=3, by_batch=False)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    folder, rng = tmp_path_factory.mktemp("cohort"), np.random.default_rng(0)
    (folder / "bags").mkdir()
    with (folder / "cohort.csv").open("w", newline="") as stream:
        rows = csv.writer(stream)
        rows.writerow(["slide", "label", "patient_id", "batch"])
        for i in range(12):
            (folder / f"S{i}.tif").write_bytes(b"slide %d" % i)
            rows.writerow([f"S{i}.tif", ("benign", "malignant")[i % 2], f"P{i}", "ab"[i // 2 % 2]])
            with h5py.File(folder / "bags" / f"S{i}.h5", "w") as file:
                file["features"] = rng.normal(i % 2, 1, (5, 4)).astype(np.float32)
                coords = file.create_dataset("coords", data=np.arange(10).reshape(5, 2) * 64)
                coords.attrs.update({"patch_size": 64, "patch_size_level0": 64})
    return load_cohort(folder / "cohort.csv")


def train(cohort: Cohort, out: Path, settings: TrainingSettings = SETTINGS) -> execute.Run:
    return train_on_bags(cohort, cohort.slides[0].path.parent / "bags", settings, out)


def test_metrics_are_returned_as_they_are_written_and_so_are_predictions(cohort: Cohort, tmp_path: Path) -> None:
    run = train(cohort, tmp_path)
    assert parse_json_file(tmp_path / "metrics.json") == run.metrics.as_json()
    assert Metrics.load(tmp_path / "metrics.json") == run.metrics
    with (tmp_path / "predictions.csv").open(newline="") as stream:
        rows = {row["slide_id"]: row for row in csv.DictReader(stream)}
    assert [prediction.slide_id for prediction in run.predictions] == list(rows)
    for prediction in run.predictions:
        row = rows[prediction.slide_id]
        assert (row["patient_id"], row["label"], int(row["fold"])) == (
            *(prediction.patient_id, prediction.label, prediction.fold),
        )
        assert float(row["logit_malignant"]) == pytest.approx(prediction.logits[1], abs=1e-6)
        assert prediction.seed is None  # the mean of two


def test_a_run_that_ends_before_its_figures_leaves_none_of_an_earlier_run(
    cohort: Cohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Models of one run beside the figures of another would be taken for its own."""
    other = dataclasses.replace(SETTINGS, train=TrainSettings(epochs=1))
    first = train(cohort, tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(execute, "measure_run", None)
        with pytest.raises(TypeError):
            train(cohort, tmp_path, other)
    assert not (tmp_path / "metrics.json").exists()
    again = train(cohort, tmp_path, other)
    assert again.metrics != first.metrics
    assert Metrics.load(tmp_path / "metrics.json") == again.metrics
