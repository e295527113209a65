"""Runs on bags that were there are whole runs: what opens them, and new patients predicted from bags alone."""

import dataclasses
import re
from pathlib import Path

import h5py
import numpy as np
import pytest
from numpy.typing import NDArray
from typer.testing import CliRunner

from lamella.cli import build_app
from lamella.cohort import load_cohort
from lamella.errors import LamellaError, LeakageError, ModelError
from lamella.exports.open import open_predictor
from lamella.exports.write import ExportSettings, export_model
from lamella.files import parse_json_file
from lamella.mil.settings import TrainSettings
from lamella.pipeline.predict import predict_bags, predict_slides
from lamella.pipeline.run import map_classes, run_bags
from lamella.reports.page import write_report
from lamella.runs.predict import open_run
from lamella.runs.record import RunRecord
from lamella.runs.settings import CamSettings, TrainingSettings

SETTINGS = TrainingSettings(train=TrainSettings(epochs=3), n_seeds=1, n_folds=3, by_batch=False)
N, DIM = 18, 12
Floats = NDArray[np.float32]


def write_table(path: Path, name: str, *, patient: str = "P", labelled: bool = True) -> Path:
    lines = ["slide,slide_id,patient_id" + (",label" if labelled else "")]
    for i in range(N):
        label = f",{('benign', 'tumour')[i % 2]}" if labelled else ""
        lines.append(f"nowhere/{name}{i}.svs,{name}{i},{patient}{name}{i}{label}")
    path.write_text("\n".join(lines) + "\n")
    return path


def write_bags(folder: Path, name: str, *, seed: int, dim: int = DIM, **about: object) -> Path:
    """Write TRIDENT's bags; odd slides have planted tiles."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    for i in range(N):
        features = rng.normal(size=(9 + i, dim)).astype(np.float32)
        features[:4, :4] += 3 * (i % 2)
        corners = np.stack([np.arange(9 + i) % 8 * 512, np.arange(9 + i) // 8 * 512], axis=1)
        with h5py.File(folder / f"{name}{i}.h5", "w") as file:
            file["features"] = features
            said = {"patch_size": 256, "patch_size_level0": 512, "level0_width": 6000, "level0_height": 5000}
            file.create_dataset("coords", data=corners).attrs.update(said | about)
            if "encoder" in about:
                file["features"].attrs["encoder"] = about["encoder"]
    return folder


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run on bags that say little (`plain`), one on bags that say more (`rich`), and new patients."""
    desk = tmp_path_factory.mktemp("desk")
    for name, seed in (("in", 0), ("new", 1)):
        write_table(desk / f"{name}.csv", name)
        write_bags(desk / "plain" / name, name, seed=seed)
        write_bags(desk / "rich" / name, name, seed=seed, encoder="uni_v1", target_magnification=20)
    for kind in ("plain", "rich"):
        run_bags(desk / "in.csv", desk / kind / "in", SETTINGS, desk / f"run-{kind}")
    return desk


def test_a_run_on_bags_says_what_it_knows_of_them_and_names_no_path(desk: Path) -> None:
    plain, rich = (RunRecord.load(desk / f"run-{kind}" / "run.json").settings for kind in ("plain", "rich"))
    assert plain.bags is not None
    assert rich.bags is not None
    assert (plain.encoder, plain.tile_px, plain.mpp, plain.bags.width) == (None, 256, None, DIM)
    assert plain.bags.tools == ("trident",)
    assert (rich.encoder, rich.bags.magnification) == ("uni_v1", 20)
    assert str(desk) not in (desk / "run-plain" / "run.json").read_text()
    assert parse_json_file(desk / "run-plain" / "local" / "bags.json")["folder"] == str(desk / "plain" / "in")
    page = (desk / "run-plain" / "report.html").read_text()
    assert "unknown: the bags do not state it" in page
    assert open_run(desk / "run-plain").threshold is not None


def test_what_needs_slides_says_in_one_line_what_to_do(desk: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"do not state 'encoder'.*lamella predict .* --features DIR"):
        predict_slides(desk / "run-plain", load_cohort(desk / "new.csv"), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(ModelError, match="class activation maps need the run's own encoder"):
        map_classes(desk / "run-plain", CamSettings())


@pytest.mark.parametrize("kind", ["plain", "rich"])
def test_new_patients_are_measured_from_bags_by_run_and_by_export_alike(kind: str, desk: Path, tmp_path: Path) -> None:
    run, bags = desk / f"run-{kind}", desk / kind / "new"
    predictions, failures = predict_bags(run, bags, tmp_path / "by-run", cohort=desk / "new.csv")
    model = export_model(run, tmp_path / "model")
    exported, _ = predict_bags(model, bags, tmp_path / "by-model", cohort=desk / "new.csv")
    assert not failures
    for ours, theirs in zip(predictions, exported, strict=True):
        assert np.array_equal(ours.logits, theirs.logits)
    assert not any(name in path.read_text() for path in model.rglob("*.json") for name in ("in1", "Pin", str(desk)))
    metrics = parse_json_file(tmp_path / "by-run" / "metrics.json")
    assert metrics["external"]
    frozen = parse_json_file(run / "metrics.json")["frozen_threshold"]
    assert metrics["frozen_threshold"] == frozen
    notes = RunRecord.load(tmp_path / "by-run" / "run.json").notes
    assert any("the revision of its weights" in note for note in notes)
    assert any("the encoder," in note for note in notes) == (kind == "plain")
    assert (tmp_path / "by-run" / "attention" / "new3.h5").exists()
    write_report([run, tmp_path / "by-run"], tmp_path / "both.html")


def test_bags_of_another_encoder_width_or_scale_are_refused_where_that_is_known(desk: Path, tmp_path: Path) -> None:
    made = {
        "embeddings of 12 features and it has 16": lambda: write_bags(tmp_path / "wide", "new", seed=2, dim=16),
        "of encoder 'uni_v1'": lambda: write_bags(tmp_path / "other", "new", seed=2, encoder="conch_v1"),
        "tiles of 256 px": lambda: write_bags(tmp_path / "px", "new", seed=2, patch_size=512),
        "tiles at 20 x": lambda: write_bags(tmp_path / "x", "new", seed=2, target_magnification=40),
        "tiles at 0.5 um/px": lambda: write_bags(tmp_path / "mpp", "new", seed=2, mpp=0.25),
    }
    for said, make in made.items():
        with pytest.raises(ModelError, match=said):
            predict_bags(desk / "run-rich", make(), tmp_path / "out")
    same = write_bags(tmp_path / "same", "new", seed=2, encoder="UNI-v1", mpp=0.503)
    assert len(predict_bags(desk / "run-rich", same, tmp_path / "out")[0]) == N


def test_what_was_learned_from_is_refused_by_patient_and_by_content(desk: Path, tmp_path: Path) -> None:
    run, bags = desk / "run-plain", desk / "plain" / "in"
    model = export_model(run, tmp_path / "model")
    renamed = write_table(tmp_path / "renamed.csv", "in", patient="other")
    for source in (run, model):
        with pytest.raises(LeakageError, match="the patient of slide 'in0'"):
            predict_bags(source, bags, tmp_path / "out", cohort=desk / "in.csv")
        with pytest.raises(LeakageError, match="the image of slide 'in0'"):
            predict_bags(source, bags, tmp_path / "out", cohort=renamed)
    assert len(predict_bags(run, bags, tmp_path / "out")[0]) == N  # without labels it is said, and done
    fresh = write_bags(tmp_path / "fresh", "in", seed=3)
    predict_bags(model, fresh, tmp_path / "out", cohort=renamed)
    notes = RunRecord.load(tmp_path / "out" / "run.json").notes
    assert any(f"{N} slides bear ids that the models learned from" in note for note in notes)


def test_bags_that_cannot_be_read_are_listed_and_the_others_predicted(desk: Path, tmp_path: Path) -> None:
    bags = write_bags(tmp_path / "bags", "new", seed=1)
    (bags / "new4.h5").unlink()
    with h5py.File(bags / "new5.h5", "r+") as file:
        file["features"][1, 1] = np.inf
    predictions, failures = predict_bags(desk / "run-plain", bags, tmp_path / "out", cohort=desk / "new.csv")
    assert len(predictions) == N - 2
    assert [(failure.slide_id, failure.stage) for failure in failures] == [("new4", "bags"), ("new5", "bags")]


def test_an_export_of_heads_holds_no_encoder_and_refuses_slides(desk: Path, tmp_path: Path) -> None:
    model = export_model(desk / "run-rich", tmp_path / "model")
    assert {path.suffix for path in model.rglob("*") if path.is_file()} == {".md", ".json", ".npz", ".safetensors"}
    assert "lamella predict MODEL --features DIR" in (model / "README.md").read_text()
    assert open_predictor(model).settings.encoder == "uni_v1"
    with pytest.raises(ModelError, match="--features DIR"):
        predict_slides(model, load_cohort(desk / "new.csv"), tmp_path / "out")
    with pytest.raises(ModelError, match="no arm 'tuned'"):
        export_model(desk / "run-rich", tmp_path / "tuned", ExportSettings(arm="tuned"))


def test_a_run_whose_bags_are_patients_is_exported_and_predicts_patients(desk: Path, tmp_path: Path) -> None:
    for name in ("in", "new"):
        rows = (
            (desk / f"{name}.csv").read_text().replace(f"P{name}1", f"P{name}3").splitlines()
        )  # slides 1, 10.. with 3
        kept = [row for row in rows if not row.startswith(f"nowhere/{name}1") or row.endswith("tumour")]
        (tmp_path / f"{name}.csv").write_text("\n".join(kept) + "\n")
    settings = dataclasses.replace(SETTINGS, unit="patient")
    run_bags(tmp_path / "in.csv", desk / "plain" / "in", settings, tmp_path / "run")
    model = export_model(tmp_path / "run", tmp_path / "model")
    by_run, _ = predict_bags(tmp_path / "run", desk / "plain" / "new", tmp_path / "a", cohort=tmp_path / "new.csv")
    by_model, _ = predict_bags(model, desk / "plain" / "new", tmp_path / "b", cohort=tmp_path / "new.csv")
    assert len(by_run) < len((tmp_path / "new.csv").read_text().splitlines()) - 1
    for theirs, ours in zip(by_run, by_model, strict=True):
        assert np.array_equal(ours.logits, theirs.logits)


def test_the_command_takes_the_table_either_way_and_says_what_does_not_go_together(desk: Path, tmp_path: Path) -> None:
    run, bags, table = desk / "run-plain", str(desk / "plain" / "new"), str(desk / "new.csv")
    words = ["predict", str(run), "--features", bags, "--out", str(tmp_path / "out"), "--quiet"]
    for more in ([], [table], ["--cohort", table]):
        ended = CliRunner().invoke(build_app(), [*words[:2], *(more if more[:1] != ["--cohort"] else []), *words[2:],
                                                 *(more if more[:1] == ["--cohort"] else [])])  # fmt: skip
        assert ended.exit_code == 0, ended.output
    for wrong, said in (
        (["predict", str(run), "--out", "x"], "no slide is named"),
        ([*words, "--features", bags], "one model is given"),
        ([*words, table, "--cohort", table], "slides are named too"),
        ([*words, "--with", str(run)], "given twice|NAME=DIR"),
    ):
        ended = CliRunner().invoke(build_app(), wrong)
        assert ended.exit_code == 1
        assert isinstance(ended.exception, SystemExit | LamellaError)
        assert re.search(said, ended.output), ended.output
