"""Facts of a plan: gathered once, kept, and what is finished found from its marks."""

import json
from pathlib import Path

import pytest

from lamella.analysis.permutation import judge_permutations
from lamella.cohort import Cohort, load_cohort
from lamella.encoders import RuntimeSettings
from lamella.studies import facts as planning
from lamella.studies import rates as timing
from lamella.studies.arm_rows import describe_arm
from lamella.studies.arms import Arm
from lamella.studies.design import check_design
from lamella.studies.design_parts import TileDesign
from lamella.studies.facts import gather_facts, plan_study
from lamella.studies.folder import StudyFolder
from lamella.studies.looks import Controls
from lamella.studies.marks import find_done, save_mark
from lamella.studies.options import StudyOptions
from lamella.studies.rates import Rates
from lamella.studies.record import describe_study
from lamella.studies.work import Mark, bags_of
from lamella.words import say_time
from tests.tiny import draw_cohort


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    return load_cohort(draw_cohort(tmp_path_factory.mktemp("cohort"), 12))


TINY = {
    "tiles": {"default": {"tile_px": 64, "mpp": 0.5}},
    "arms": [
        {"encoders": ["resnet18"], "depths": [2, 1], "weights": ["random"]},
        {"encoders": ["resnet18-ciga"]},
    ],
    "folds": 3,
}
RUNTIME = RuntimeSettings(runtime="torch", n_threads=1)
OPTIONS = StudyOptions(runtime=RUNTIME)


def test_facts_are_gathered_once_and_kept(cohort: Cohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAMELLA_HOME", str(tmp_path))
    design = check_design(TINY, "here")
    plan = plan_study(design, cohort, None, options=OPTIONS)
    assert {one.arm.name: one.state for one in plan.arms} == {
        "resnet18@1, random weights": "runs",
        "resnet18@2, random weights": "runs",
        "resnet18-ciga@4": "waiting for weights",
    }
    assert sum(item.n_tiles for item in plan.todo) > 0
    monkeypatch.setattr(timing, "time_encoder", None)
    monkeypatch.setattr(timing, "profile_encoder", None)
    assert plan_study(design, cohort, None, options=OPTIONS) == plan


def test_a_costs_file_is_believed_before_anything_is_measured(
    cohort: Cohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAMELLA_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(timing, "time_encoder", None)
    design = check_design(TINY, "here")
    costs = {f"default/random/resnet18@{depth}": {"seconds_per_tile": 0.5 * depth, "gflops": depth} for depth in (1, 2)}
    folder = StudyFolder(tmp_path)
    folder.costs.write_text(json.dumps(costs), encoding="utf-8")
    divided = planning.divide_cohort(cohort, design)
    record = describe_study(divided, design, status="running", arms=())
    counts = record.cohort.model_copy(update={"tiles_a_slide": {"default": 10.0}})
    record.model_copy(update={"cohort": counts}).save(folder.record)
    facts = gather_facts(design, divided, tmp_path, options=OPTIONS)
    assert facts.tiles_a_slide == {"default": 10.0}
    assert facts.encoders[bags_of(Arm(encoder="resnet18", depth=2, weights="random"))].seconds_per_tile == 1.0
    assert facts.done == dict.fromkeys(f"cost resnet18@{depth}-random" for depth in (1, 2))
    assert facts.folds == (0, 1, 2)


def test_what_is_marked_and_still_there_is_found(cohort: Cohort, tmp_path: Path) -> None:
    design = check_design(TINY | {"arms": [{"encoders": ["resnet18"], "finetuned": ["frozen", "tuned"]}]}, "here")
    frozen, _ = design.list_arms()
    folder = StudyFolder(tmp_path)
    marks = [
        "bags resnet18@4",
        "train resnet18@4",
        "permute",
        "finetune resnet18@4 fold1 tuned",
        "cka resnet18@4-tuned",
    ]
    for key in marks:
        save_mark(folder.work, Mark(key, f"of {key}"), seconds=1.0)
    assert find_done(design, cohort, folder, folds=(0, 1, 2)) == {}
    folder.models(frozen).joinpath("models").mkdir(parents=True)
    folder.models(frozen).joinpath("finetuned/fold1/seed0/tuned/model").mkdir(parents=True)
    Controls(permutations=judge_permutations(0.9, [0.4, 0.6], arm=frozen.name)).save(folder.controls)
    assert find_done(design, cohort, folder, folds=(0, 1, 2)) == {
        key: f"of {key}" for key in ("train resnet18@4", "finetune resnet18@4 fold1 tuned", "permute")
    }


def test_an_arm_that_version_0_1_0_finished_is_done_and_what_it_began_is_work(cohort: Cohort, tmp_path: Path) -> None:
    design = check_design(TINY | {"arms": [{"encoders": ["resnet18"], "depths": [2, 1]}]}, "here")
    first, second = design.list_arms()
    folder = StudyFolder(tmp_path)
    for arm in (first, second):
        (tmp_path / "arms" / arm.key / "models").mkdir(parents=True)
    arms = [
        describe_arm(first, {"default": TileDesign()}, declared=True).model_copy(update={"state": "done"}),
        describe_arm(second, {"default": TileDesign()}, declared=True),
    ]
    describe_study(planning.divide_cohort(cohort, design), design, status="running", arms=arms).save(folder.record)
    assert find_done(design, cohort, folder, folds=(0, 1, 2)) == {"train resnet18@2": None}


def test_a_damaged_file_of_rates_is_measured_anew(tmp_path: Path) -> None:
    path = tmp_path / "rates.json"
    path.write_text("{", encoding="utf-8")
    rates = Rates(RUNTIME, path)
    found = rates.profile("resnet18", 64)
    assert [found[depth].dim for depth in (1, 2, 3, 4)] == [64, 128, 256, 512]
    assert found[1].gflops < found[4].gflops
    assert Rates(RUNTIME, path).profile("resnet18", 64) == found


def test_times_are_said_in_units_that_people_use() -> None:
    assert [say_time(s) for s in (0, 89, 90, 5399, 5400)] == ["0 s", "89 s", "1.5 min", "90.0 min", "1.5 h"]
