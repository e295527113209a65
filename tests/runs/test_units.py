"""Patients as units: a patient's slides are one bag, and attention goes back to the slides it came from."""

import dataclasses
import re
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from lamella.cli import build_app
from lamella.cohort import Cohort, load_cohort
from lamella.encoders import EncoderSpec, RuntimeSettings
from lamella.errors import CohortError, ModelError, SettingsError
from lamella.explain.cam import map_run
from lamella.exports.write import export_model
from lamella.features.plan import CutSettings
from lamella.features.rows import join_stored
from lamella.features.settings import ExtractSettings
from lamella.mil import load_model
from lamella.mil.settings import TrainSettings
from lamella.pipeline.predict import predict_slides
from lamella.pipeline.run import run_cohort
from lamella.pipeline.study import compare_arms
from lamella.reports.draw.heatmap import SlideAttention
from lamella.runs.attention import load_attention
from lamella.runs.bags import load_bag_folder
from lamella.runs.metrics import Metrics
from lamella.runs.predict import open_run
from lamella.runs.settings import CamSettings, RunSettings
from lamella.runs.units import gather_units
from lamella.studies.design import check_design
from lamella.studies.judge import judge_again
from lamella.tiles import TileSpec
from tests.tiny import draw_tissue, save_slide

N_PATIENTS, N_SLIDES = 18, 3
TABLE = "slide,slide_id,patient_id,label"


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a cohort of patients with three slides, of which one holds three odd tiles where the label is tumour."""
    folder, rng, rows = tmp_path_factory.mktemp("desk"), np.random.default_rng(0), [TABLE]
    (folder / "bags").mkdir()
    for patient in range(N_PATIENTS):
        sick = int(rng.integers(N_SLIDES)) if patient % 2 else -1
        for slide in reversed(range(N_SLIDES)):
            name, n = f"P{patient:02d}-{slide}", 10 + slide
            features = rng.normal(size=(n, 6)).astype(np.float32)
            if slide == sick:
                features[:3, 0] += 6
            rows.append(f"nowhere/{name}.svs,{name},P{patient:02d},{('benign', 'tumour')[patient % 2]}")
            with h5py.File(folder / "bags" / f"{name}.h5", "w") as file:
                file["features"] = features
                coords = file.create_dataset("coords", data=np.stack([np.arange(n) * 64, np.arange(n) % 2 * 64], 1))
                coords.attrs.update({"patch_size": 64, "patch_size_level0": 64})
    (folder / "cohort.csv").write_text("\n".join(rows) + "\n")
    return folder


def load(desk: Path) -> Cohort:
    return load_cohort(desk / "cohort.csv")


def test_a_patient_is_one_bag_of_its_slides_in_the_order_of_their_ids(desk: Path) -> None:
    cohort = load(desk)
    bags = load_bag_folder(desk / "bags", [slide.slide_id for slide in cohort.slides if slide.slide_id != "P03-1"])
    units = gather_units(cohort, bags, "patient")
    assert len(units.cohort.slides) == len(units.bags.features) == N_PATIENTS
    assert units.slides["P04"] == ("P04-0", "P04-1", "P04-2")
    assert units.slides["P03"] == ("P03-0", "P03-2")
    together = np.concatenate([bags.features[f"P04-{i}"][:] for i in range(3)])
    joined = units.bags.features["P04"]
    assert joined.shape == together.shape == (33, 6)
    for start, stop in ((0, 33), (4, 9), (8, 25), (21, 33), (12, 12)):
        assert np.array_equal(joined[start:stop], together[start:stop])
        assert np.array_equal(join_stored([bags.features[f"P04-{i}"] for i in range(3)])._read(start, stop),
                              together[start:stop])  # fmt: skip
    assert units.bags.key("P04") != units.bags.key("P05")
    assert gather_units(cohort, bags, "slide").bags is bags


def test_slides_of_a_patient_that_differ_in_label_are_refused_in_one_line(desk: Path) -> None:
    cohort = load(desk)
    last = dataclasses.replace(cohort.slides[-1], label="benign")
    mixed = dataclasses.replace(cohort, slides=(*cohort.slides[:-1], last))
    bags = load_bag_folder(desk / "bags", [slide.slide_id for slide in cohort.slides])
    with pytest.raises(CohortError, match="'P17-2' and 'P17-0' of patient 'P17' are labelled 'tumour' and 'benign'"):
        gather_units(mixed, bags, "patient")
    assert gather_units(mixed, bags, "slide").cohort is mixed


def test_train_predicts_patients_and_writes_attention_slide_by_slide(desk: Path, tmp_path: Path) -> None:
    words = ["run", str(desk / "cohort.csv"), "--features", str(desk / "bags"), "--unit", "patient", "--folds", "3",
             "--seeds", "1", "--epochs", "20", "--out", str(tmp_path / "out"), "--quiet"]  # fmt: skip
    ended = CliRunner().invoke(build_app(), words)
    assert ended.exit_code == 0, ended.output
    predictions = pd.read_csv(tmp_path / "out" / "predictions.csv")
    assert sorted(predictions["slide_id"]) == [f"P{i:02d}" for i in range(N_PATIENTS)]
    patients = Metrics.load(tmp_path / "out" / "metrics.json").scores.model.patients
    assert patients is not None
    assert patients.n == N_PATIENTS
    assert (patients.auc.value or 0) > 0.9
    for patient in ("P04", "P05"):
        records = [load_attention(tmp_path / "out" / "attention" / f"{patient}-{i}.h5") for i in range(N_SLIDES)]
        assert [len(record.attention) for record in records] == [10, 11, 12]
        assert sum(float(record.attention.sum()) for record in records) == pytest.approx(1, abs=1e-5)
        assert {record.n_bag for record in records} == {33}
    page = (tmp_path / "out" / "report.html").read_text()
    assert re.search("54 slides of 18 patients, a patient.{1,6}s slides being one bag", page)
    assert "All patients, as" in page
    assert "Each dot is a patient" in page


def test_a_study_of_patients_speaks_of_patients(desk: Path, tmp_path: Path) -> None:
    block = {"features": {"uni2": str(desk / "bags")}, "heads": ["attention", "mean"]}
    plain = {"arms": [block], "unit": "patient", "seeds": 1, "folds": 3, "train": {"epochs": 12}, "permutations": 2}
    study = compare_arms(load(desk), check_design(plain, "here"), tmp_path / "out")
    assert study.verdict is not None
    assert study.verdict.n_patients == N_PATIENTS
    table = pd.read_parquet(tmp_path / "out" / "predictions.parquet")
    assert set(table["slide_id"]) == set(table["patient_id"]) == {f"P{i:02d}" for i in range(N_PATIENTS)}
    assert judge_again(tmp_path / "out").as_json() == study.verdict.as_json()
    page = (tmp_path / "out" / "report.html").read_text()
    assert re.search("54 slides of 18 patients, a patient.{1,6}s slides being one bag", page)
    assert "one label a patient" in page
    assert "predicted from all its slides" in page
    with pytest.raises(SettingsError, match="'unit' is patient and slide"):
        compare_arms(load(desk), check_design(plain | {"unit": "slide"}, "here"), tmp_path / "out")


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"arms": [{"encoders": ["resnet18"], "finetuned": ["tuned"]}]}, "'resnet18@4, tuned' trains on the tiles"),
        ({"finetune_best": True}, "'best of each fold, tuned' trains"),
        ({"cam": True}, "map one slide's bag"),
        ({"unit": "block"}, "The nearest is"),
    ],
)
def test_a_design_that_needs_one_slide_a_bag_is_refused(more: dict[str, object], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        check_design({"arms": [{"encoders": ["resnet18"]}], "unit": "patient"} | more, "here")


def test_new_patients_are_predicted_as_the_run_did_and_so_by_its_export(tmp_path: Path) -> None:
    rows = [TABLE]
    for number in range(18):
        name, malignant = f"P{number // 2:02d}-{'ba'[number % 2]}", number // 2 % 2 == 1
        tissue = draw_tissue(number, malignant=malignant and number % 2 == 1)
        save_slide(tmp_path / "slides" / f"{name}.tif", tissue)
        label = ("benign", "malignant")[number // 2 % 2]
        rows.append(f"slides/{name}.tif,{name},P{number // 2:02d},{label}")
    (tmp_path / "cohort.csv").write_text("\n".join(rows) + "\n")
    extract = ExtractSettings(
        cut=CutSettings(spec=TileSpec(tile_px=64, mpp=0.5)),
        encoders=(EncoderSpec("resnet18@1", "random"),),
        runtime=RuntimeSettings(runtime="torch", n_threads=1),
    )
    settings = RunSettings(
        extract=extract, train=TrainSettings(epochs=2), n_seeds=1, n_folds=3, unit="patient", width=16, n_heatmaps=2
    )
    with pytest.raises(SettingsError, match="--cam reads the bag of one slide"):
        dataclasses.replace(settings, cam=CamSettings())
    run = run_cohort(load_cohort(tmp_path / "cohort.csv"), settings, tmp_path / "run")
    assert len(run.predictions) == 9
    assert load_model(tmp_path / "run" / "models" / "fold0" / "seed0").width == 16  # of 64, and so is its export's
    assert len(list((tmp_path / "run" / "heatmaps").iterdir())) == 2
    fresh = load_cohort(tmp_path / "cohort.csv", labelled=False)
    fresh = dataclasses.replace(
        fresh, slides=tuple(dataclasses.replace(slide, label=None) for slide in fresh.slides[:4]), classes=()
    )
    predictions, failures = predict_slides(tmp_path / "run", fresh, tmp_path / "new")
    assert failures == ()
    assert [prediction.slide_id for prediction in predictions] == ["P00", "P01"]
    assert {path.stem for path in (tmp_path / "new" / "attention").iterdir()} == {"P00-a", "P00-b", "P01-a", "P01-b"}
    with pytest.raises(ModelError, match="a map is of one slide's bag"):
        map_run(open_run(tmp_path / "run"), CamSettings())
    export_model(tmp_path / "run", tmp_path / "model")
    assert "A patient's slides are one bag" in (tmp_path / "model" / "README.md").read_text()
    exported, _ = predict_slides(tmp_path / "model", fresh, tmp_path / "again")
    for one, other in zip(predictions, exported, strict=True):
        assert np.allclose(one.logits, other.logits, atol=1e-5)


def test_a_slide_of_a_patient_on_which_no_attention_falls_is_dark() -> None:
    dark = SlideAttention(
        attention=np.zeros(2),
        coords_l0=np.array([[0, 0], [4, 0]]),
        tile_size_l0=(4.0, 2.0),
        slide_size=(16, 4),
        slide_mpp=(0.5, 0.5),
        n_bag=40,
    )
    assert dark.relative.tolist() == [0, 0]
    lit = dataclasses.replace(dark, attention=np.array([0.5, 0.025]))
    assert lit.relative.tolist() == [20, 1]
