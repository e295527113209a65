"""Tiles a slide as an axis of a study: the same nested tiles for all arms, encoded once, counted in their costs."""

import re
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from lamella.cohort import load_cohort
from lamella.encoders import RuntimeSettings
from lamella.errors import SettingsError
from lamella.features.layouts import load_bag
from lamella.pipeline.study import compare_arms
from lamella.runs.bags import load_bag_folder
from lamella.runs.predict import open_run
from lamella.runs.settings import restore_extract_settings
from lamella.studies.design import StudyDesign, check_design, dump_design, load_design
from lamella.studies.facts import plan_study
from lamella.studies.judge import judge_again
from lamella.studies.options import StudyOptions
from lamella.tiles import choose_tiles
from tests.tiny import draw_cohort

OPTIONS = StudyOptions(runtime=RuntimeSettings(runtime="torch", n_threads=1))
QUICK = {"seeds": 1, "folds": 3, "train": {"epochs": 4}, "permutations": 0}
SLIDES = {"encoders": ["resnet18"], "depths": [1], "weights": ["random"]}
TILES = {"default": {"tile_px": 32, "mpp": 0.5}}


def declare(*blocks: dict[str, object], **more: object) -> StudyDesign:
    return check_design({"arms": list(blocks), **QUICK, **more}, "here")


def find_bags(out: Path, folder: str) -> dict[str, Any]:
    return {path.stem: load_bag(path) for path in sorted(out.glob(f"**/{folder}/features_resnet18_1/*.h5"))}


def test_only_the_tiles_of_the_largest_number_are_encoded_and_all_of_them_where_an_arm_asks(tmp_path: Path) -> None:
    cohort, out = load_cohort(draw_cohort(tmp_path / "slides", 9)), tmp_path / "out"
    few = SLIDES | {"tiles_per_slide": [4, 16]}
    comparisons = [{"name": "V", "title": "Fewer tiles", "rule": "fewer tiles against most"}]
    design = declare(few, tiles=TILES, comparisons=comparisons)
    plan = plan_study(design, cohort, None, options=OPTIONS)
    assert [item.n_tiles for item in plan.items if item.kind == "extract"] == [9 * 16]

    study = compare_arms(cohort, design, out, options=OPTIONS)
    assert plan_study(design, cohort, out, options=OPTIONS).todo == ()
    assert study.verdict is not None
    sixteen, four = (find_bags(out, f"32px_0.5mpp_32px_{n}tiles") for n in (16, 4))
    assert not list(out.glob("**/32px_0.5mpp_32px/"))  # nobody asked for all
    assert len(sixteen) == len(four) == 9
    for slide_id, bag in sixteen.items():
        rows = choose_tiles(bag.corners_l0, 4, slide_id=slide_id)
        assert bag.shape[0] == 16
        assert np.array_equal(four[slide_id].corners_l0, bag.corners_l0[rows])
        assert np.array_equal(four[slide_id].features, bag.features[rows])
    cost = {arm.arm: arm.cost or 0.0 for arm in study.verdict.arms}
    name = "resnet18@1, random weights"
    assert cost[f"{name}, 16 tiles"] == pytest.approx(4 * cost[f"{name}, 4 tiles"])
    table = study.verdict.tables[0]
    assert [(row.arm, row.base) for row in table.rows] == [(f"{name}, 4 tiles", f"{name}, 16 tiles")]
    page = (out / "report.html").read_text()
    assert "at most 4 and 16 tiles were read" in page
    assert "tiles a slide (mean over slides)" in page
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    assert judge_again(out).as_json() == study.verdict.as_json()
    run = open_run(out / "arms" / study.runs["resnet18@1, random weights, 4 tiles"].path.name)
    spec = restore_extract_settings(run.settings, run.predictor().encoders[0]).cut.spec
    assert spec.tiles_per_slide == 4  # so that new slides are read as these were

    heads = {path: path.stat().st_mtime_ns for path in out.rglob("model.safetensors")}
    more = compare_arms(cohort, declare(few, SLIDES, tiles=TILES, comparisons=comparisons), out, options=OPTIONS)
    assert {row.arm: row.state for row in more.record.arms if row.state != "done"} == {}
    assert heads == {path: path.stat().st_mtime_ns for path in heads}
    counts = {row.arm: row.mean_tiles or 0.0 for row in more.record.arms}
    assert counts["resnet18@1, random weights"] > 16 == counts["resnet18@1, random weights, 16 tiles"]
    every = find_bags(out, "32px_0.5mpp_32px")
    for slide_id, bag in sixteen.items():
        rows = choose_tiles(every[slide_id].corners_l0, 16, slide_id=slide_id)
        assert np.array_equal(every[slide_id].corners_l0[rows], bag.corners_l0)


def write_bags(folder: Path, *, dim: int, places: bool) -> str:
    folder.mkdir()
    rng = np.random.default_rng(dim)
    for i in range(18):
        with h5py.File(folder / f"S{i:02d}.h5", "w") as file:
            rows = rng.normal(size=(30, dim)).astype(np.float32)
            rows[:, 0] += 3.0 * (i % 2)
            file.create_dataset("features", data=rows)
            if places:
                coords = np.stack([np.arange(30) % 6 * 512, np.arange(30) // 6 * 512], axis=1)
                file.create_dataset("coords", data=coords)
    return str(folder)


def test_bags_that_are_there_lose_tiles_too_and_what_they_cost_falls_with_them(tmp_path: Path) -> None:
    rows = [f"nowhere/S{i:02d}.svs,S{i:02d},P{i:02d},{('benign', 'tumour')[i % 2]}" for i in range(18)]
    (tmp_path / "cohort.csv").write_text("\n".join(["slide,slide_id,patient_id,label", *rows]) + "\n")
    (tmp_path / "costs.csv").write_text("arm,seconds_a_slide\nuni2,30\nbare,60\n")
    folders = {
        "uni2": write_bags(tmp_path / "uni2", dim=8, places=True),
        "bare": write_bags(tmp_path / "bare", dim=6, places=False),
    }
    block = {"features": folders, "heads": ["mean"], "tiles_per_slide": ["all", 10]}
    cohort = load_cohort(tmp_path / "cohort.csv")
    (tmp_path / "costs.csv").write_text('arm,seconds_a_slide\n"uni2, mean",30\n"bare, mean",60\n')
    design = declare(block, costs=str(tmp_path / "costs.csv"))
    study = compare_arms(cohort, design, tmp_path / "out", options=OPTIONS)
    assert study.verdict is not None
    assert {arm.arm: arm.cost for arm in study.verdict.arms} == {
        "uni2, mean": 30, "uni2, mean, 10 tiles": 10, "bare, mean": 60, "bare, mean, 10 tiles": 20,
    }  # fmt: skip
    said = [note for note in study.record.notes if "do not say where" in note]
    assert len(said) == 1
    assert "The bags of bare" in said[0]
    assert judge_again(tmp_path / "out").as_json() == study.verdict.as_json()


def test_fewer_tiles_are_the_same_in_every_layout_of_bags(tmp_path: Path) -> None:
    bags = load_bag_folder(Path(write_bags(tmp_path / "bags", dim=4, places=True)), ["S03", "S04"])
    ten, unplaced = bags.keep_tiles(10)
    three, _ = ten.keep_tiles(3)
    assert unplaced == ()
    for slide_id, rows in bags.features.items():
        chosen = choose_tiles(bags.corners_l0[slide_id][:], 10, slide_id=slide_id)
        assert np.array_equal(ten.features[slide_id], rows[chosen])
        assert np.array_equal(ten.features[slide_id][3:7], rows[chosen[3:7]])
        assert np.array_equal(three.corners_l0[slide_id][:], bags.keep_tiles(3)[0].corners_l0[slide_id][:])
        assert ten.key(slide_id) != bags.key(slide_id)
    bare = load_bag_folder(Path(write_bags(tmp_path / "bare", dim=4, places=False)), ["S03"])
    fifteen, unplaced = bare.keep_tiles(15)
    assert unplaced == ("S03",)
    kept = {row.tobytes() for row in fifteen.features["S03"][:]}
    assert {row.tobytes() for row in bare.keep_tiles(7)[0].features["S03"][:]} < kept


@pytest.mark.parametrize("given", [64, "all", [64, "all"]])
def test_one_number_serves_as_a_list(given: object, tmp_path: Path) -> None:
    design = declare({"encoders": ["resnet18"], "tiles_per_slide": given})
    (tmp_path / "mine.yaml").write_text(dump_design(design))
    assert load_design(tmp_path / "mine.yaml") == design
    assert len(design.list_arms()) == (2 if isinstance(given, list) else 1)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (0, "holds 0 and takes whole numbers of at least 1"),
        ([64, -1], "holds -1 and takes"),
        ([64, 64.5], "holds 64.5 and takes"),
        ("many", "holds 'many' and takes"),
        ([True], "holds True and takes"),
        ([64, "all", 64], "holds 64 twice"),
        ([], "is empty"),
    ],
)
def test_numbers_of_tiles_that_cannot_be_are_one_line(given: object, said: str) -> None:
    for key in ("tiles_per_slide", "width"):
        word = {"tiles_per_slide": "all", "width": "full"}[key]
        value = [word if item == "all" else item for item in given] if isinstance(given, list) else given
        with pytest.raises(SettingsError, match=f"{key} {said}"):
            declare({"encoders": ["resnet18"], key: value})
