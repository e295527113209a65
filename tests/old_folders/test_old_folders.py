"""Folders that an earlier commit made open with today's verbs, to the same figures, and nothing is trained again."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from lamella.cli import build_app
from lamella.reports.page import write_page
from tests.old_folders.build import OldFolders, build, find_absence

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


@pytest.fixture(scope="session")
def old(tmp_path_factory: pytest.TempPathFactory) -> OldFolders:
    absence = find_absence()
    if absence is not None:
        pytest.skip(absence)
    made = os.environ.get("LAMELLA_OLD_FOLDERS")  # of an earlier `python -m tests.old_folders.build FOLDER`
    return OldFolders(Path(made)) if made else build(tmp_path_factory.mktemp("old"))


def call(*arguments: object) -> str:
    """Run a verb of today; return what it printed."""
    ended = CliRunner().invoke(build_app(), [str(one) for one in arguments])
    assert ended.exit_code == 0, ended.output
    return ended.output


def stamp(folder: Path, pattern: str = "**/model/**/*.*") -> dict[Path, tuple[bytes, int]]:
    """Return content and time of every file of a model: of one that was trained again, the time differs."""
    found = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.glob(pattern) if path.is_file()}
    assert found, f"no model in {folder}"
    return found


def read_logits(folder: Path) -> pd.DataFrame:
    frame = pd.read_csv(folder / "predictions.csv").set_index("slide_id")
    return frame[sorted(name for name in frame if name.startswith("logit_"))].sort_index()


def copy(source: Path, target: Path) -> Path:
    """Copy a folder; it finds its slides beside it, as where it was made."""
    (target.parent / "slides").symlink_to(source.parent / "slides")
    return Path(shutil.copytree(source, target))


@pytest.mark.parametrize("kind", ["run", "export"])
def test_predictions_are_those_of_the_commit_that_made_the_folder(old: OldFolders, kind: str, tmp_path: Path) -> None:
    call("predict", old.path / kind, old.slides / "new" / "cohort.csv", "--out", tmp_path / "out")
    before, now = read_logits(old.path / f"predicted-{kind}"), read_logits(tmp_path / "out")
    assert len(now) == 20
    pd.testing.assert_frame_equal(now, before, atol=1e-6, rtol=0)
    for name, key in (("metrics.json", "auc"),):
        figures = [
            json.loads((place / name).read_text())["arms"]["model"]["patients"][key]["value"]
            for place in (old.path / f"predicted-{kind}", tmp_path / "out")
        ]
        assert figures[0] == pytest.approx(figures[1], abs=1e-9)


def test_the_page_of_an_old_run_is_written_anew(old: OldFolders, tmp_path: Path) -> None:
    folder = copy(old.run, tmp_path / "run")
    assert (folder / "index.html").exists()
    text = write_page(folder).read_text()
    assert not (folder / "index.html").exists()
    assert "AUC" in text
    assert not find_nonsense(text)


def test_an_old_run_is_exported_and_the_export_predicts_the_same(old: OldFolders, tmp_path: Path) -> None:
    before = stamp(old.run, "**/model.safetensors")
    call("export", old.run, "--out", tmp_path / "export")
    call("predict", tmp_path / "export", old.slides / "new" / "cohort.csv", "--out", tmp_path / "out")
    pd.testing.assert_frame_equal(read_logits(tmp_path / "out"), read_logits(old.predicted_run), atol=1e-5, rtol=0)
    call("export", old.run, "--arm", "tuned", "--out", tmp_path / "tuned")
    assert stamp(old.run, "**/model.safetensors") == before


def test_maps_of_an_old_run_are_drawn_and_held_against_outlines(old: OldFolders, tmp_path: Path) -> None:
    folder = copy(old.run, tmp_path / "run")
    before = stamp(folder, "**/model.safetensors")
    call("cam", folder, "--slide-id", "S-01", "--device", "cpu")
    assert list((folder / "cam" / "S-01").iterdir())
    call("localise", folder, "--lesions", draw_outlines(tmp_path / "lesions"))
    found = json.loads((folder / "localisation.json").read_text())
    assert found
    assert stamp(folder, "**/model.safetensors") == before


def test_an_old_study_is_judged_anew_and_nothing_is_trained(old: OldFolders, tmp_path: Path) -> None:
    folder = copy(old.study, tmp_path / "study")
    kept = stamp(folder, "arms/**/*.*")
    said = call("study", folder, "--judge")
    verdict = json.loads((folder / "verdict.json").read_text())["verdict"]
    assert all(verdict[key] for key in ("use", "worse", "open"))
    assert verdict["use"] in " ".join(said.split())
    assert stamp(folder, "arms/**/*.*") == kept
    text = (folder / "report.html").read_text()
    assert not find_nonsense(text)
    write_page(folder)


def test_an_old_arm_is_exported_and_predicts(old: OldFolders, tmp_path: Path) -> None:
    arm = "resnet18@1, random weights"
    call("export", old.study, "--arm", arm, "--out", tmp_path / "export")
    call("predict", tmp_path / "export", old.slides / "new" / "cohort.csv", "--out", tmp_path / "out")
    assert len(read_logits(tmp_path / "out")) == 20


def rerun_study(old: OldFolders, folder: Path) -> None:
    table = old.slides / "cohort.csv"
    call("study", old.path / "study.yaml", "--cohort", table, "--device", "cpu", "--out", folder)


def test_an_old_study_run_again_keeps_every_model_and_every_prediction(old: OldFolders, tmp_path: Path) -> None:
    folder = copy(old.study, tmp_path / "study")
    kept, before = stamp(folder, "**/model.safetensors"), pd.read_parquet(folder / "predictions.parquet")
    rerun_study(old, folder)
    assert stamp(folder, "**/model.safetensors") == kept
    now = pd.read_parquet(folder / "predictions.parquet")
    keys = ["arm", "slide_id", "seed", "side", "fold"]
    pd.testing.assert_frame_equal(
        now.sort_values(keys, ignore_index=True)[before.columns],
        before.sort_values(keys, ignore_index=True),
        atol=1e-6,
        rtol=0,
    )


def test_an_old_study_that_was_killed_goes_on_from_its_first_arm(old: OldFolders, tmp_path: Path) -> None:
    folder = copy(old.unfinished, tmp_path / "study")
    kept = stamp(folder, "arms/**/model.safetensors")
    rerun_study(old, folder)
    now = stamp(folder, "arms/**/model.safetensors")
    assert {path: now[path] for path in kept} == kept
    rows = {row["arm"]: row for row in json.loads((folder / "study.json").read_text())["arms"]}
    assert {row["state"] for row in rows.values()} == {"done"}
    assert all(row["declared"] for row in rows.values())
    frames = [pd.read_parquet(one / "predictions.parquet") for one in (folder, old.study)]
    test = [one[one["side"] == "test"].sort_values(["arm", "slide_id", "seed"]) for one in frames]
    np.testing.assert_allclose(test[0]["logit_malignant"], test[1]["logit_malignant"], atol=1e-4)


def find_nonsense(text: str) -> list[str]:
    """Return what no page says: numbers that are none."""
    return [word for word in (">nan<", ">None<", ">inf<", " nan ", " None ") if word in text]


def draw_outlines(folder: Path) -> Path:
    """Outline a part of the tissue of every malignant slide."""
    folder.mkdir()
    square = [[160, 180], [330, 180], [330, 330], [160, 330], [160, 180]]
    feature: dict[str, Any] = {"type": "Feature", "geometry": {"type": "Polygon", "coordinates": [square]}}
    feature["properties"] = {"classification": {"name": "Tumor"}}
    for number in range(1, 24, 2):
        (folder / f"S-{number:02d}.geojson").write_text(json.dumps([feature]))
    return folder


def test_the_reason_is_said_where_the_history_is_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.old_folders import build as building

    monkeypatch.setattr(building, "_ROOT", tmp_path)
    assert "is not in this clone's history" in str(find_absence())
