"""Plans: the least work, every arm accounted for, a budget kept; and the facts they are made from."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lamella.studies.arms import Arm
from lamella.studies.design import StudyDesign, check_design
from lamella.studies.listing import list_items
from lamella.studies.plan import StudyPlan, plan_work
from lamella.studies.prices import EncoderFacts
from lamella.studies.work import OF_ARMS, Mark, PlanFacts, WorkItem, bags_of

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
        folds=tuple(range(draw(st.sampled_from([1, 3, 5])))),
        tiles_a_slide={"default": draw(st.floats(0.5, 2000)), "fine": draw(st.floats(0.5, 2000))},
        encoders={bags_of(arm): make_facts(arm, waits) for arm in design.list_arms()},
        done={},
        lesions=draw(st.sampled_from([None, "outlines"])),
    )
    finished = draw(st.lists(st.sampled_from(design.list_arms()), max_size=3))
    marks = sorted(mark for arm in finished for mark in list_marks(design, facts, arm))
    dropped = draw(st.sets(st.sampled_from(marks))) if marks else set()
    return design, replace(facts, done=dict(set(marks) - dropped))


def list_marks(design: StudyDesign, facts: PlanFacts, arm: Arm) -> list[Mark]:
    """Return the marks without which an arm is not finished."""
    return [mark for item in list_items(design, facts, [arm]) if item.kind in OF_ARMS for mark in item.makes]


def list_made(items: tuple[WorkItem, ...]) -> list[Mark]:
    return [mark for item in items for mark in item.makes]


def list_kind(plan: StudyPlan, kind: str) -> list[WorkItem]:
    return [item for item in plan.todo if item.kind == kind]


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
        folds=tuple(range(5)),
        tiles_a_slide=dict.fromkeys(design.tiles, 100.0),
        encoders={bags_of(arm): make_facts(arm) for arm in design.list_arms()},
        done={},
    )
    return replace(usual, **changes)


BUDGETS = st.one_of(st.none(), st.floats(0.0, 1e6))


@given(situations(), BUDGETS)
@settings(max_examples=40, deadline=None)
def test_a_tile_is_decoded_once_for_all_bags_of_one_kind_of_weights_and_nothing_is_made_twice(
    situation: tuple[StudyDesign, PlanFacts], budget: float | None
) -> None:
    design, facts = situation
    plan = plan_work(design, facts, budget_s=budget)
    extractions = list_kind(plan, "extract")
    assert len({(item.bags[0].tiles, item.bags[0].weights) for item in extractions}) == len(extractions)
    for item in extractions:
        assert len({(bags.tiles, bags.weights) for bags in item.bags}) == 1
        assert item.n_tiles == round(facts.n_slides * facts.tiles_a_slide[item.bags[0].tiles])
    keys = [item.key for item in plan.items]
    made = [mark.key for mark in list_made(plan.items)]
    assert len(keys) == len(set(keys))
    assert len(made) == len(set(made))
    for item in plan.todo:
        assert item.is_unsettled or not all(facts.has(mark) for mark in item.makes)
        assert set(item.after) <= set(keys[: keys.index(item.key)])


@given(situations(), BUDGETS)
@settings(max_examples=40, deadline=None)
def test_every_arm_runs_with_all_it_needs_or_says_why_not(
    situation: tuple[StudyDesign, PlanFacts], budget: float | None
) -> None:
    design, facts = situation
    plan = plan_work(design, facts, budget_s=budget)
    assert sorted(planned.arm.name for planned in plan.arms) == sorted(arm.name for arm in design.list_arms())
    made = set(list_made(plan.todo))
    for planned in plan.arms:
        needed = set(list_marks(design, facts, planned.arm))
        if planned.state == "runs":
            assert all(mark in made or facts.has(mark) for mark in needed)
        elif planned.state == "done":
            assert all(facts.has(mark) for mark in needed)
        elif planned.state == "waiting for weights":
            assert planned.command == f"lamella weights fetch {planned.arm.encoder}"
            assert planned.arm.name not in {name for item in plan.items for name in item.arms}
        else:
            assert budget is not None
            assert planned.arm.name not in {name for item in plan.items for name in item.arms}
            assert planned.seconds > 0


@given(situations(), st.floats(0.0, 1e6))
@settings(max_examples=40, deadline=None)
def test_a_budget_is_kept_and_no_arm_that_still_fits_is_left_out(
    situation: tuple[StudyDesign, PlanFacts], budget: float
) -> None:
    design, facts = situation
    plan = plan_work(design, facts, budget_s=budget)
    assert plan.seconds <= budget * (1 + 1e-9)
    arms = plan_work(design.model_copy(update={"finetune_best": False}), facts, budget_s=budget)
    left = [planned for planned in plan.arms if planned.state == "not run"]
    assert all(arms.seconds + planned.seconds > budget * (1 - 1e-9) for planned in left)


@given(situations())
@settings(max_examples=30, deadline=None)
def test_without_a_budget_all_runs_whose_weights_are_here_and_so_it_does_with_just_enough(
    situation: tuple[StudyDesign, PlanFacts],
) -> None:
    design, facts = situation
    plan = plan_work(design, facts)
    assert {planned.state for planned in plan.arms} <= {"runs", "done", "waiting for weights"}
    ample = plan_work(design, facts, budget_s=plan.seconds * (1 + 1e-9) + 1e-6)
    assert ample.items == plan.items
    unpriced = plan_work(design, replace(facts, tiles_a_slide={}))
    assert [item.key for item in unpriced.todo] == [item.key for item in plan.todo]
    assert {item.seconds for item in unpriced.items} <= {None}


QUICK = {
    "arms": [{"encoders": ["resnet18"], "depths": [4, 3, 2, 1]}],
    "comparisons": [{"name": "IV", "title": "Cut", "rule": "depth against 4"}],
    "permutations": 19,
}


def test_depths_share_a_network_and_arms_come_by_what_they_tell_for_their_time() -> None:
    design = check_design(QUICK, "here")
    facts = facts_of(design)
    plan = plan_work(design, facts)
    (extraction,) = list_kind(plan, "extract")
    deepest = facts.encoders[bags_of(Arm(encoder="resnet18"))].seconds_per_tile
    assert extraction.seconds == pytest.approx(4000 * deepest)
    assert (extraction.n_tiles, extraction.n_bytes) == (4000, 4000 * (2 * 128 * (4 + 3 + 2 + 1) + 4 * 16))
    assert next(planned.arm.depth for planned in plan.arms) == 1
    assert [item.key for item in plan.todo] == [
        "extract default",
        "cost default",
        *(f"train resnet18@{depth}" for depth in (1, 2, 3, 4)),
        "permute the arm that is shown",
    ]
    assert plan.say()[1] == "besides, not priced: 1 x cost, 1 x permute"


def test_the_declared_control_waits_for_its_own_heads_alone() -> None:
    plan = plan_work(design := check_design(QUICK | {"control_arm": "resnet18@2"}, "here"), facts_of(design))
    assert plan.todo[-1].after == ("train resnet18@2",)
    assert plan.todo[-1].key == "permute resnet18@2"


def test_a_tuned_arm_brings_the_frozen_one_it_goes_on_from_and_its_control() -> None:
    design = check_design({"arms": [{"encoders": ["resnet18"], "finetuned": ["tuned"]}], "permutations": 0}, "here")
    facts = facts_of(design)
    plan = plan_work(design, facts)
    folds = [f"finetune resnet18@4 fold{fold}" for fold in range(5)]
    assert [item.key for item in plan.todo][2:] == ["train resnet18@4", *folds]
    assert [mark.key for mark in plan.todo[-1].makes] == [f"{folds[-1]} head", f"{folds[-1]} tuned"]
    half = [mark for item in plan.todo[3:6] for mark in item.makes][:-1]
    rest = plan_work(design, replace(facts, done=dict(half)))
    assert [item.key for item in list_kind(rest, "finetune")] == folds[2:]
    assert 0 < list_kind(rest, "finetune")[0].seconds < list_kind(rest, "finetune")[1].seconds


def test_cached_maps_make_the_last_block_cheap_to_train() -> None:
    whole = {"arms": [{"encoders": ["resnet18"], "finetuned": ["tuned"]}], "finetune": {"k": 16, "epochs": 5}}
    last = whole | {"finetune": {"k": 16, "epochs": 5, "train_blocks": 1}}
    dear, cheap, jittered = (
        sum(item.seconds or 0 for item in list_kind(plan_work(design, facts_of(design)), "finetune"))
        for design in (
            check_design(whole, "here"),
            check_design(last, "here"),
            check_design(last | {"finetune": last["finetune"] | {"flips": True}}, "here"),
        )
    )
    assert cheap < jittered < dear


def test_a_small_budget_says_what_is_left_out_and_what_it_would_cost() -> None:
    design = check_design(QUICK | {"finetune_best": True}, "here")
    whole = plan_work(check_design(QUICK, "here"), facts_of(design))
    some = plan_work(design, facts_of(design), budget_s=whole.seconds / 2)
    said = "\n".join(some.say())
    assert some.seconds <= whole.seconds / 2
    assert "resnet18@4 is not run: it would take" in said
    assert "best of each fold is not fine-tuned: it would take up to" in said
    nothing = plan_work(design, facts_of(design), budget_s=0.0)
    assert {planned.state for planned in nothing.arms} == {"not run"}
    assert nothing.items == ()


def test_the_arm_that_is_fine_tuned_later_is_planned_at_the_dearest() -> None:
    design = check_design(QUICK | {"finetune_best": True, "cka": True}, "here")
    plan = plan_work(design, facts_of(design))
    assert not list_kind(plan, "cka")
    choices = list_kind(plan, "finetune")
    assert [item.key for item in choices] == [f"finetune the arm chosen in fold{fold}" for fold in range(5)]
    assert choices[0].arms == ("best of each fold", "best of each fold, head only", "best of each fold, tuned")
    assert choices[0].after == tuple(f"train resnet18@{depth}" for depth in (4, 3, 2, 1))
    assert any("in each fold on its validation patients" in note for note in plan.notes)
    dearest = check_design(
        {**QUICK, "arms": [*QUICK["arms"], {"encoders": ["resnet18"], "finetuned": ["head", "tuned"]}]}, "here"
    )
    declared = list_kind(plan_work(dearest, facts_of(dearest)), "finetune")
    assert [item.seconds for item in choices] == pytest.approx([item.seconds for item in declared])
    two = plan_work(design, facts_of(design, done=dict(list_made(tuple(choices[:2])))))
    assert [item.key for item in list_kind(two, "finetune")] == [item.key for item in choices[2:]]


def test_another_frozen_arm_may_be_chosen_so_that_folds_are_chosen_anew() -> None:
    design = check_design(QUICK | {"finetune_best": True}, "here")
    done = dict(list_made(plan_work(design, facts_of(design)).items))
    assert plan_work(design, facts_of(design, done=done)).todo == ()
    more = check_design(QUICK | {"finetune_best": True, "arms": [*QUICK["arms"], {"encoders": ["resnet50"]}]}, "here")
    again = [item.key for item in plan_work(more, facts_of(more, done=done)).todo]
    assert again == [
        "extract default",
        "cost default",
        "train resnet50@4",
        *(f"finetune the arm chosen in fold{fold}" for fold in range(5)),
        "permute the arm that is shown",
    ]


def test_a_budget_that_has_room_for_a_declared_tuned_arm_alone_leaves_the_chosen_one_out() -> None:
    declared = QUICK | {"arms": [*QUICK["arms"], {"encoders": ["resnet18"], "depths": [1], "finetuned": ["tuned"]}]}
    design = check_design(declared | {"finetune_best": True}, "here")
    without = plan_work(check_design(declared, "here"), facts_of(design))
    plan = plan_work(design, facts_of(design), budget_s=without.seconds)
    assert [item.key for item in list_kind(plan, "finetune")] == [f"finetune resnet18@1 fold{n}" for n in range(5)]
    assert any("best of each fold is not fine-tuned" in note for note in plan.notes)


def test_weights_that_are_not_here_are_said_once_an_encoder() -> None:
    design = check_design(QUICK, "here")
    facts = facts_of(design, encoders={bags_of(a): make_facts(a, {"resnet18"}) for a in design.list_arms()})
    plan = plan_work(design, facts)
    assert plan.items == ()
    assert plan.say()[1:] == ["4 arms of resnet18 wait: lamella weights fetch resnet18"]
    assert all(planned.seconds > 0 for planned in plan.arms)


def test_finished_arms_stay_whatever_the_budget() -> None:
    design = check_design(QUICK, "here")
    facts = facts_of(design)
    arm = Arm(encoder="resnet18", depth=4)
    plan = plan_work(design, replace(facts, done=dict(list_marks(design, facts, arm))), budget_s=0.0)
    assert {planned.arm: planned.state for planned in plan.arms}[arm] == "done"
    assert plan.seconds == 0
