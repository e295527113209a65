"""The plan that is printed is the work that is done: whatever the design, the budget, and where it is killed."""

import pickle
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from lamella.errors import EncoderError, OutputError
from lamella.features.failures import Failure
from lamella.studies.design import StudyDesign, check_design
from lamella.studies.marks import load_marks
from lamella.studies.plan import StudyPlan, plan_work
from lamella.studies.walk import Unfinished, walk
from lamella.studies.work import PlanFacts, WorkItem, bags_of
from tests.studies.test_plan import QUICK, facts_of, make_facts

LISTS = {
    "encoders": ["resnet18", "resnet50"],
    "depths": [1, 4],
    "weights": ["auto", "random"],
    "finetuned": ["frozen", "head", "tuned"],
    "heads": ["attention", "mean"],
    "tiles": ["default", "fine"],
}


@st.composite
def designs(draw: st.DrawFn) -> StudyDesign:
    """Draw a design of a few arms."""
    lists = {name: draw(st.lists(st.sampled_from(own), min_size=1, max_size=2)) for name, own in LISTS.items()}
    design = {
        "tiles": {"default": {}, "fine": {"mpp": 0.25}},
        "arms": [lists | {"heads": lists["heads"][:1], "tiles": lists["tiles"][:1]}, {"encoders": ["resnet18"]}],
        "finetune_best": draw(st.booleans()),
        "permutations": draw(st.sampled_from([0, 2])),
        "control_arm": draw(st.sampled_from([None, "resnet18@4"])),
        "cka": draw(st.booleans()),
    }
    return check_design(design, "the test")


@st.composite
def situations(draw: st.DrawFn) -> tuple[StudyDesign, PlanFacts]:
    """Draw a design, and facts of a folder that holds nothing yet."""
    design = draw(designs())
    waits = draw(st.sets(st.sampled_from(["resnet18", "resnet50"]), max_size=1))
    encoders = {bags_of(arm): make_facts(arm, waits) for arm in design.list_arms()}
    lesions = draw(st.sampled_from([None, "outlines"]))
    folds = tuple(range(draw(st.integers(1, 3))))
    return design, facts_of(design, folds=folds, encoders=encoders, lesions=lesions)


class KilledError(Exception):
    """As if the process ended here."""


class FakeEngine:
    """Does nothing, and writes down what it was asked for; ends at some item, if told to."""

    def __init__(self, *, ends_at: int | None = None, refuses: str = "") -> None:
        self.did: list[WorkItem] = []
        self._ends_at, self._refuses = ends_at, refuses

    def do(self, item: WorkItem) -> Sequence[Failure]:
        """Note an item."""
        if len(self.did) == self._ends_at:
            raise KilledError
        if self._refuses and item.key.startswith(self._refuses):
            raise EncoderError("it cannot be trained.")
        self.did.append(pickle.loads(pickle.dumps(item)))
        return [Failure("S-1", "open", "damaged")] if item.kind == "extract" else []

    def is_over(self, budget: float | None) -> bool:
        """Say whether what was done took more than the budget, at the prices of the plan."""
        return budget is not None and sum(item.seconds or 0 for item in self.did) > budget * (1 + 1e-9)


def plan_now(design: StudyDesign, facts: PlanFacts, folder: Path, budget: float | None) -> StudyPlan:
    """Plan as the same command does, from what the folder holds by now."""
    done = {key: work.made_of for key, work in load_marks(folder).items()}
    return plan_work(design, replace(facts, done=done), budget_s=budget)


def do(plan: StudyPlan, engine: FakeEngine, folder: Path, budget: float | None = None) -> dict[str, Unfinished]:
    return walk(plan.todo, engine, folder, is_over=lambda: engine.is_over(budget), tell=lambda: None)


@given(situations(), st.lists(st.integers(0, 12), max_size=4))
@settings(max_examples=60, deadline=None)
def test_the_plan_printed_is_the_work_done_and_after_each_kill_exactly_the_rest_is(
    situation: tuple[StudyDesign, PlanFacts], kills: list[int]
) -> None:
    design, facts = situation
    with TemporaryDirectory() as out:
        printed = [row["work"] for row in plan_now(design, facts, Path(out), None).list_rows()]
        did: list[str] = []
        for ends_at in (*kills, None):
            plan, engine = plan_now(design, facts, Path(out), None), FakeEngine(ends_at=ends_at)
            assert [row["work"] for row in plan.list_rows()] == printed[len(did) :]
            try:
                assert do(plan, engine, Path(out)) == {}
            except KilledError:
                event("killed")
            did += [item.key for item in engine.did]
        assert did == printed
        assert plan_now(design, facts, Path(out), None).todo == ()


@given(situations(), st.lists(st.integers(0, 12), max_size=3), st.data())
@settings(max_examples=60, deadline=None)
def test_within_a_budget_the_work_done_is_the_plan_printed_and_a_later_run_does_more(
    situation: tuple[StudyDesign, PlanFacts], kills: list[int], data: st.DataObject
) -> None:
    design, facts = situation
    whole = plan_work(design, facts).seconds
    budget = data.draw(st.floats(0.0, 1.2)) * whole
    with TemporaryDirectory() as out:
        finished: set[str] = set()
        for ends_at in (*kills, None):
            plan, engine = plan_now(design, facts, Path(out), budget), FakeEngine(ends_at=ends_at)
            try:
                assert do(plan, engine, Path(out), budget) == {}
                assert [item.key for item in engine.did] == [row["work"] for row in plan.list_rows()]
            except KilledError:
                assert [item.key for item in engine.did] == [row["work"] for row in plan.list_rows()][:ends_at]
            assert sum(item.seconds or 0 for item in engine.did) <= budget * (1 + 1e-9)
            trained = [{mark.key for mark in item.makes} for item in engine.did if item.arm is not None]
            # What is of one arm is never done twice. An item may go on from a part of it: a head that fitted the budget
            # before its encoder did is kept when both are fine-tuned.
            assert not [marks for marks in trained if marks <= finished]
            finished = finished.union(*trained)
        left = [planned for planned in plan_now(design, facts, Path(out), None).arms if planned.state == "runs"]
        event("some arms are left" if left else "all arms ran")
        again = FakeEngine()
        do(plan_now(design, facts, Path(out), None), again, Path(out))
        assert plan_now(design, facts, Path(out), None).todo == ()
        assert plan_now(design, facts, Path(out), 0.0).todo == ()


def test_once_the_time_is_spent_nothing_begins_any_more_and_it_is_said_of_what_hangs_on_it(tmp_path: Path) -> None:
    design = check_design(QUICK, "here")
    plan, engine = plan_work(design, facts_of(design)), FakeEngine()
    unfinished = walk(plan.todo, engine, tmp_path, is_over=lambda: len(engine.did) > 3, tell=lambda: None)
    assert [item.key for item in engine.did] == [item.key for item in plan.todo[:4]]
    assert set(unfinished) == {item.key for item in plan.todo[4:]}
    assert {left.reason for left in unfinished.values()} == {"the budget was spent before it began"}
    assert load_marks(tmp_path)["bags resnet18@4"].failures == (Failure("S-1", "open", "damaged"),)


def test_an_arm_that_cannot_be_fine_tuned_is_left_and_the_others_go_on(tmp_path: Path) -> None:
    content = QUICK | {"arms": [{"encoders": ["resnet18", "resnet50"], "finetuned": ["frozen", "tuned"]}], "cka": True}
    design = check_design(content, "here")
    plan, engine = plan_work(design, facts_of(design)), FakeEngine(refuses="finetune resnet18")
    unfinished = do(plan, engine, tmp_path)
    refused = [f"finetune resnet18@4 fold{fold}" for fold in range(5)]
    assert list(unfinished) == [*refused, "permute the arm that is shown", "cka resnet18@4-tuned"]
    assert set(unfinished.values()) == {Unfinished(reason="it cannot be trained.", is_failure=True)}
    assert [item.key for item in engine.did][-1] == "cka resnet50@4-tuned"
    rest = plan_now(design, facts_of(design), tmp_path, None)
    assert [item.key for item in rest.todo] == list(unfinished)


def test_what_cannot_be_trained_or_written_ends_the_walk(tmp_path: Path) -> None:
    design = check_design(QUICK, "here")
    plan = plan_work(design, facts_of(design))
    with pytest.raises(EncoderError):
        do(plan, FakeEngine(refuses="train resnet18@2"), tmp_path)
    assert next(item.key for item in plan_now(design, facts_of(design), tmp_path, None).todo) == "train resnet18@2"
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        do(plan, FakeEngine(), tmp_path / "file")
