"""Plans: the least work, every arm accounted for, a budget kept; and the facts they are made from."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lamella.cohort import Cohort, load_cohort
from lamella.encoders import RuntimeSettings
from lamella.progress import say_time
from lamella.studies import facts as planning
from lamella.studies.arms import Arm
from lamella.studies.design import StudyDesign, check_design
from lamella.studies.facts import Rates, find_done, plan_study
from lamella.studies.folder import StudyFolder
from lamella.studies.plan import plan_units
from lamella.studies.work import EncoderFacts, PlanFacts, bags_of, base_of, core_keys
from tests.tiny import draw_cohort

RULES = ("each against the first", "tuned against frozen", "depth against 4")
BLOCKS = st.lists(
    st.fixed_dictionaries(
        {
            "encoders": st.lists(st.sampled_from(["resnet18", "resnet50", "densenet121"]), min_size=1, max_size=2),
            "depths": st.lists(st.integers(1, 4), min_size=1, max_size=3),
            "weights": st.lists(st.sampled_from(["auto", "random"]), min_size=1, max_size=2),
            "finetuned": st.lists(st.sampled_from(["frozen", "head", "tuned"]), min_size=1, max_size=3),
            "heads": st.lists(st.sampled_from(["attention", "mean"]), min_size=1, max_size=2),
            "tiles": st.lists(st.sampled_from(["default", "fine"]), min_size=1, max_size=2),
        }
    ),
    min_size=1,
    max_size=2,
)


@st.composite
def designs(draw: st.DrawFn) -> StudyDesign:
    """Draw a design of any arms, controls and looks."""
    return check_design(
        {
            "tiles": {"default": {}, "fine": {"mpp": 0.25}},
            "arms": draw(BLOCKS),
            "comparisons": [{"name": rule, "title": rule, "rule": rule} for rule in RULES],
            "finetune": {"n_seeds": draw(st.integers(1, 2)), "train_blocks": draw(st.sampled_from([None, 1]))},
            "finetune_best": draw(st.booleans()),
            "permutations": draw(st.sampled_from([0, 19])),
            "cka": draw(st.booleans()),
            "cam": draw(st.booleans()),
            "localise": draw(st.sampled_from([None, "outlines"])),
        },
        "the test",
    )


@st.composite
def situations(draw: st.DrawFn) -> tuple[StudyDesign, PlanFacts]:
    """Draw a design and facts of it: some weights are not here, some work is finished."""
    design = draw(designs())
    waits = draw(st.sets(st.sampled_from(["resnet18", "resnet50", "densenet121"])))
    facts = PlanFacts(
        n_slides=draw(st.integers(6, 400)),
        n_rounds=draw(st.sampled_from([1, 3, 5])),
        tiles_a_slide={"default": draw(st.floats(0.5, 2000)), "fine": draw(st.floats(0.5, 2000))},
        encoders={bags_of(arm): make_facts(arm, waits) for arm in design.list_arms()},
    )
    finished = draw(st.lists(st.sampled_from(design.list_arms()), max_size=3))
    keys = {key for arm in finished for key in core_keys(arm, design, facts)}
    dropped = draw(st.sets(st.sampled_from(sorted(keys)))) if keys else set()
    return design, replace(facts, done=frozenset(keys - dropped))


def make_facts(arm: Arm, waits: set[str] | frozenset[str] = frozenset()) -> EncoderFacts:
    """Make up what an encoder costs: more with each depth."""
    whole = {"resnet18": 20.0, "resnet50": 45.0, "densenet121": 30.0}[arm.encoder]
    needs = f"lamella weights fetch {arm.encoder}" if arm.encoder in waits and arm.weights == "auto" else None
    return EncoderFacts(
        gflops=whole * arm.depth / 4,
        gflops_below=tuple(whole * depth / 4 for depth in range(1, arm.depth)),
        dim=128 * arm.depth,
        seconds_per_tile=whole * arm.depth / 4 / 200,
        command=needs,
    )


def facts_of(design: StudyDesign, **changes: object) -> PlanFacts:
    """Return facts of 40 slides of 100 tiles, five folds."""
    usual = PlanFacts(
        n_slides=40,
        n_rounds=5,
        tiles_a_slide=dict.fromkeys(design.tiles, 100.0),
        encoders={bags_of(arm): make_facts(arm) for arm in design.list_arms()},
    )
    return replace(usual, **changes)


BUDGETS = st.one_of(st.none(), st.floats(0.0, 1e6))


@given(situations(), BUDGETS)
@settings(max_examples=60, deadline=None)
def test_a_tile_is_decoded_once_and_each_bag_is_made_once(
    situation: tuple[StudyDesign, PlanFacts], budget: float | None
) -> None:
    design, facts = situation
    plan = plan_units(design, facts, budget_s=budget)
    extractions = [unit for unit in plan.units if unit.kind == "extract"]
    assert len({unit.key for unit in extractions}) == len(extractions) <= len(design.tiles)
    for unit in extractions:
        assert {bags.tiles for bags in unit.bags} == {unit.bags[0].tiles}
        assert unit.n_tiles <= round(facts.n_tiles(unit.bags[0].tiles))
    made = [key for unit in plan.units for key in unit.keys]
    assert len(made) == len(set(made))
    assert facts.done.isdisjoint(made)


@given(situations(), BUDGETS)
@settings(max_examples=60, deadline=None)
def test_every_arm_runs_with_all_it_needs_or_says_why_not(
    situation: tuple[StudyDesign, PlanFacts], budget: float | None
) -> None:
    design, facts = situation
    plan = plan_units(design, facts, budget_s=budget)
    assert sorted(one.arm.name for one in plan.arms) == sorted(arm.name for arm in design.list_arms())
    made = {key for unit in plan.units for key in unit.keys} | facts.done
    for one in plan.arms:
        needed = set(core_keys(one.arm, design, facts))
        if one.state == "runs":
            assert one.reason is None
            assert needed <= made
        elif one.state == "done":
            assert needed <= facts.done
        elif one.state == "waiting for weights":
            assert one.reason == one.command == f"lamella weights fetch {one.arm.encoder}"
            assert one.arm.name not in {name for unit in plan.units for name in unit.arms}
        else:
            assert budget is not None
            assert one.reason is not None
            assert "the budget does not reach" in one.reason
            assert one.seconds > 0


@given(situations(), st.floats(0.0, 1e6))
@settings(max_examples=60, deadline=None)
def test_a_budget_is_kept_and_no_arm_that_still_fits_is_left_out(
    situation: tuple[StudyDesign, PlanFacts], budget: float
) -> None:
    design, facts = situation
    plan = plan_units(design, facts, budget_s=budget)
    assert plan.seconds <= budget * (1 + 1e-9)
    left = [one for one in plan.arms if one.state == "not run"]
    assert all(plan.seconds + one.seconds > budget * (1 - 1e-9) for one in left)


@given(situations())
@settings(max_examples=40, deadline=None)
def test_without_a_budget_all_runs_whose_weights_are_here_and_so_it_does_with_just_enough(
    situation: tuple[StudyDesign, PlanFacts],
) -> None:
    design, facts = situation
    plan = plan_units(design, facts)
    assert {one.state for one in plan.arms} <= {"runs", "done", "waiting for weights"}
    ample = plan_units(design, facts, budget_s=plan.seconds * (1 + 1e-9) + 1e-6)
    assert {one.arm for one in ample.arms if one.state == "runs"} == {
        one.arm for one in plan.arms if one.state == "runs"
    }


QUICK = {
    "arms": [{"encoders": ["resnet18"], "depths": [4, 3, 2, 1]}],
    "comparisons": [{"name": "IV", "title": "Cut", "rule": "depth against 4"}],
    "permutations": 19,
}


def test_depths_share_a_network_and_arms_come_by_what_they_tell_for_their_time() -> None:
    design = check_design(QUICK, "here")
    facts = facts_of(design)
    plan = plan_units(design, facts)
    (extraction,) = [unit for unit in plan.units if unit.kind == "extract"]
    deepest = facts.encoders[bags_of(Arm(encoder="resnet18"))].seconds_per_tile
    assert extraction.seconds == pytest.approx(4000 * deepest)
    assert (plan.n_tiles, plan.n_bytes) == (4000, 4000 * (2 * 128 * (4 + 3 + 2 + 1) + 4 * 16))
    assert next(one.arm.depth for one in plan.arms) == 1
    assert [unit.kind for unit in plan.units] == ["extract", *["cost"] * 4, *["train"] * 4, "permute"]
    assert plan.units[-1].arms == ("resnet18@1",)


def test_heads_of_one_bag_set_train_in_one_group() -> None:
    design = check_design({"arms": [{"encoders": ["resnet18"], "heads": ["attention", "mean"]}]}, "here")
    (training,) = [unit for unit in plan_units(design, facts_of(design)).units if unit.kind == "train"]
    assert training.arms == ("resnet18@4", "resnet18@4, mean")
    assert len(training.keys) == 2


def test_a_tuned_arm_brings_the_frozen_one_it_goes_on_from() -> None:
    design = check_design({"arms": [{"encoders": ["resnet18"], "finetuned": ["tuned"]}], "permutations": 0}, "here")
    facts = facts_of(design)
    plan = plan_units(design, facts)
    (arm,) = design.list_arms()
    assert {f"train {base_of(arm).key}"} <= {key for unit in plan.units for key in unit.keys}
    folds = [unit.key for unit in plan.units if unit.kind == "finetune"]
    assert folds == [f"finetune {arm.key} fold{fold} seed0" for fold in range(5)]
    rest = replace(facts, done=frozenset(folds[:3]))
    assert [u.key for u in plan_units(design, rest).units if u.kind == "finetune"] == folds[3:]


def test_cached_maps_make_the_last_block_cheap_to_train() -> None:
    whole = {"arms": [{"encoders": ["resnet18"], "finetuned": ["tuned"]}], "finetune": {"k": 16, "epochs": 5}}
    last = whole | {"finetune": {"k": 16, "epochs": 5, "train_blocks": 1}}
    dear, cheap, jittered = (
        sum(u.seconds for u in plan_units(d, facts_of(d)).units if u.kind == "finetune")
        for d in (
            check_design(whole, "here"),
            check_design(last, "here"),
            check_design(last | {"finetune": last["finetune"] | {"flips": True}}, "here"),
        )
    )
    assert cheap < jittered < dear


def test_a_small_budget_says_what_is_left_out_and_what_it_would_cost() -> None:
    design = check_design(QUICK | {"finetune_best": True}, "here")
    whole = plan_units(check_design(QUICK, "here"), facts_of(design))
    some = plan_units(design, facts_of(design), budget_s=whole.seconds / 2)
    said = "\n".join(some.say())
    assert some.seconds <= whole.seconds / 2
    assert "resnet18@4 is not run: it would take" in said
    assert "best of each fold is not fine-tuned: it would take up to" in said
    nothing = plan_units(design, facts_of(design), budget_s=0.0)
    assert {one.state for one in nothing.arms} == {"not run"}
    assert nothing.units == ()


def test_the_arm_that_is_fine_tuned_later_is_planned_at_the_dearest() -> None:
    design = check_design(QUICK | {"finetune_best": True, "cka": True}, "here")
    plan = plan_units(design, facts_of(design))
    (unit,) = [unit for unit in plan.units if unit.kind in ("finetune", "cka")]
    assert unit.arms == ("best of each fold", "best of each fold, head only", "best of each fold, tuned")
    assert any("in each fold on its validation patients" in note for note in plan.notes)
    dearest = check_design(
        {**QUICK, "arms": [*QUICK["arms"], {"encoders": ["resnet18"], "finetuned": ["head", "tuned"]}]}, "here"
    )
    declared = plan_units(dearest, facts_of(dearest))
    assert unit.seconds == pytest.approx(sum(u.seconds for u in declared.units if u.kind == "finetune"))
    again = plan_units(design, facts_of(design, done=frozenset({"finetune chosen"})))
    assert not any(unit.kind == "finetune" for unit in again.units)


def test_what_is_fine_tuned_in_a_fold_already_is_not_planned_again() -> None:
    design = check_design(QUICK | {"finetune_best": True}, "here")
    whole = next(unit for unit in plan_units(design, facts_of(design)).units if unit.kind == "finetune")
    keys = {
        f"finetune {replace(arm, finetuned=kind).key} fold{fold} seed0"
        for arm in design.list_arms()
        for kind in ("head", "tuned")
        for fold in (0, 1)
    }
    rest = next(
        unit for unit in plan_units(design, facts_of(design, done=frozenset(keys))).units if unit.kind == "finetune"
    )
    assert rest.seconds == pytest.approx(whole.seconds * 3 / 5)


def test_a_budget_that_has_room_for_a_declared_tuned_arm_alone_leaves_the_chosen_one_out() -> None:
    declared = QUICK | {"arms": [*QUICK["arms"], {"encoders": ["resnet18"], "depths": [1], "finetuned": ["tuned"]}]}
    design = check_design(declared | {"finetune_best": True}, "here")
    without = plan_units(check_design(declared, "here"), facts_of(design))
    plan = plan_units(design, facts_of(design), budget_s=without.seconds)
    assert any(unit.kind == "finetune" for unit in plan.units)
    assert "finetune chosen" not in {unit.key for unit in plan.units}
    assert any("best of each fold is not fine-tuned" in note for note in plan.notes)


def test_weights_that_are_not_here_are_said_once_an_encoder() -> None:
    design = check_design(QUICK, "here")
    facts = facts_of(design, encoders={bags_of(a): make_facts(a, {"resnet18"}) for a in design.list_arms()})
    plan = plan_units(design, facts)
    assert plan.units == ()
    assert plan.say()[1:] == ["4 arms of resnet18 wait: lamella weights fetch resnet18"]
    assert all(one.seconds > 0 for one in plan.arms)


def test_finished_arms_stay_whatever_the_budget() -> None:
    design = check_design(QUICK | {"cam": True}, "here")
    facts = facts_of(design)
    arm = Arm(encoder="resnet18", depth=4)
    plan = plan_units(design, replace(facts, done=frozenset(core_keys(arm, design, facts))), budget_s=0.0)
    assert {one.arm: one.state for one in plan.arms}[arm] == "done"
    assert plan.seconds == 0
    assert any(note.startswith("maps (resnet18@4) is not run") for note in plan.notes)


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
OPTIONS = RuntimeSettings(runtime="torch", n_threads=1)


def test_facts_are_gathered_once_and_kept(cohort: Cohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAMELLA_HOME", str(tmp_path))
    design = check_design(TINY, "here")
    plan = plan_study(design, cohort, None, options=OPTIONS)
    assert {one.arm.name: one.state for one in plan.arms} == {
        "resnet18@1, random weights": "runs",
        "resnet18@2, random weights": "runs",
        "resnet18-ciga@4": "waiting for weights",
    }
    assert plan.n_tiles > 0
    monkeypatch.setattr(planning, "time_encoder", None)
    monkeypatch.setattr(planning, "profile_encoder", None)
    assert plan_study(design, cohort, None, options=OPTIONS) == plan


def test_a_costs_file_is_believed_before_anything_is_measured(
    cohort: Cohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAMELLA_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(planning, "time_encoder", None)
    design = check_design(TINY, "here")
    costs = {f"default/random/resnet18@{depth}": {"seconds_per_tile": 0.5 * depth, "gflops": depth} for depth in (1, 2)}
    folder = StudyFolder(tmp_path)
    folder.costs.write_text(json.dumps(costs), encoding="utf-8")
    folder.record.write_text(json.dumps({"cohort": {"tiles_a_slide": {"default": 10.0}}}), encoding="utf-8")
    facts = planning.gather_facts(design, cohort, tmp_path, options=OPTIONS)
    assert facts.tiles_a_slide == {"default": 10.0}
    assert facts.encoders[bags_of(Arm(encoder="resnet18", depth=2, weights="random"))].seconds_per_tile == 1.0
    assert facts.done == {f"cost {key}" for key in costs}
    assert facts.n_rounds == 3


def test_what_a_folder_says_is_finished_is_found(cohort: Cohort, tmp_path: Path) -> None:
    design = check_design(TINY | {"arms": [{"encoders": ["resnet18"], "finetuned": ["frozen", "tuned"]}]}, "here")
    frozen, tuned = design.list_arms()
    folder = StudyFolder(tmp_path)
    rows = [{"arm": frozen.name, "state": "done", "finetuned": "frozen"}]
    rows.append({"arm": "resnet18@3, tuned", "state": "done", "finetuned": "tuned"})
    folder.record.write_text(json.dumps({"arms": rows}), encoding="utf-8")
    folder.controls.write_text(json.dumps({"permutations": {"arm": frozen.name}}), encoding="utf-8")
    (folder.models(frozen) / "finetuned/fold1/seed0/tuned/model").mkdir(parents=True)
    assert find_done(design, cohort, folder, n_rounds=3) == {
        "bags default/auto/resnet18@4",
        f"train {frozen.key}",
        f"finetune {tuned.key} fold1 seed0",
        f"permute {frozen.key}",
    }


def test_a_damaged_file_of_rates_is_measured_anew(tmp_path: Path) -> None:
    path = tmp_path / "rates.json"
    path.write_text("{", encoding="utf-8")
    rates = Rates(OPTIONS, path)
    found = rates.profile("resnet18", 64)
    assert [found[depth].dim for depth in (1, 2, 3, 4)] == [64, 128, 256, 512]
    assert found[1].gflops < found[4].gflops
    assert Rates(OPTIONS, path).profile("resnet18", 64) == found


def test_times_are_said_in_units_that_people_use() -> None:
    assert [say_time(s) for s in (0, 89, 90, 5399, 5400)] == ["0 s", "89 s", "1.5 min", "90.0 min", "1.5 h"]
