"""What a study will do: its work list, cut by a budget, from facts alone; the same list is what `lamella study` does.

`lamella.studies.facts` gathers the facts on a machine; here is nothing but arithmetic, so that laws can be tested: a
tile is decoded once for all encoders and depths of its tile spec and kind of weights, every arm runs or says why not, a
budget is kept.
"""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from lamella.studies.arms import CHOSEN_ARMS, Arm
from lamella.studies.design import StudyDesign
from lamella.studies.listing import Marks, list_items
from lamella.studies.work import OF_ARMS, PlanFacts, WorkItem, bags_of
from lamella.words import say_time

RUNS, DONE, WAITS, LEFT = "runs", "done", "waiting for weights", "not run"


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedArm:
    """One arm of a plan.

    Attributes:
        arm: Which arm.
        state: `runs`, `done`, `waiting for weights` or `not run`.
        command: What gets its weights, where they are not here.
        gflops: Arithmetic a tile.
        seconds: What it takes beyond what it shares with the arms that run before it.
    """

    arm: Arm
    state: str
    command: str | None
    gflops: float
    seconds: float

    def as_row(self) -> dict[str, str]:
        """Return it as a row of a table: `arm`, `state`, `GFLOPs a tile`, `time`."""
        return {
            "arm": self.arm.name,
            "state": self.state,
            "GFLOPs a tile": f"{self.gflops:.2f}",
            "time": "-" if self.state == DONE else say_time(self.seconds),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyPlan:
    """What a study will do.

    Attributes:
        arms: In the order in which they are worth running: those that tell most for their time first.
        items: All work for the arms that run, in order, finished or not.
        finished: Keys of the work that is finished.
        notes: What is not done, and why, besides arms.
    """

    arms: tuple[PlannedArm, ...]
    items: tuple[WorkItem, ...]
    finished: frozenset[str]
    notes: tuple[str, ...] = ()

    @property
    def todo(self) -> tuple[WorkItem, ...]:
        """What will be done, in this order."""
        return tuple(item for item in self.items if item.key not in self.finished)

    @property
    def seconds(self) -> float:
        """What is still to be done takes, as far as it is priced."""
        return _total(self.todo)

    def list_rows(self) -> list[dict[str, str]]:
        """Return what will be done, a row of a table each: `work`, `at most`."""
        return [
            {"work": item.key, "at most": "not priced" if item.seconds is None else say_time(item.seconds)}
            for item in self.todo
        ]

    def say(self) -> list[str]:
        """Return the plan's sums, and what is left out with its price, a line each."""
        n_tiles, n_bytes = (sum(getattr(item, name) for item in self.todo) for name in ("n_tiles", "n_bytes"))
        sums = f"about {n_tiles:,} tiles, {n_bytes / 1e6:,.0f} MB of bags, at most {say_time(self.seconds)}"
        by_kind: dict[str, float] = {}
        for item in self.todo:
            if item.seconds is not None:
                by_kind[item.kind] = by_kind.get(item.kind, 0.0) + item.seconds
        parts = ", ".join(f"{kind} {say_time(seconds)}" for kind, seconds in by_kind.items())
        lines = [sums + (f" ({parts})" if parts else "")]
        unpriced = [item.kind for item in self.todo if item.seconds is None]
        if unpriced:
            named = ", ".join(f"{unpriced.count(kind)} x {kind}" for kind in dict.fromkeys(unpriced))
            lines.append(f"besides, not priced: {named}")
        lines += self._say_waiting()
        lines += [
            f"{planned.arm.name} is not run: it would take {say_time(planned.seconds)} more"
            for planned in self.arms
            if planned.state == LEFT
        ]
        return [*lines, *self.notes]

    def _say_waiting(self) -> list[str]:
        """Say once of each encoder what gets its weights."""
        waiting: dict[tuple[str, str], list[PlannedArm]] = {}
        for planned in self.arms:
            if planned.command is not None:
                waiting.setdefault((planned.arm.encoder, planned.arm.weights), []).append(planned)
        return [
            f"{len(group)} arm{'' if len(group) == 1 else 's'} of {encoder} {'waits' if len(group) == 1 else 'wait'}: "
            f"{group[0].command}"
            for (encoder, _), group in waiting.items()
        ]


def plan_work(design: StudyDesign, facts: PlanFacts, *, budget_s: float | None = None) -> StudyPlan:
    """Plan a study: which arms run, and the list of what is done for them.

    Arms are taken in the order of what they tell for their time: seconds for each declared row that they stand in,
    frozen arms before what goes on from them. With a budget, an arm that does not fit is left out and a later, cheaper
    one may still fit; finished arms always stay. What is not priced (costs, permuted labels, CKA, localisation) is in
    the list whatever the budget; a study begins none of it once its budget is spent.

    Args:
        design: What is compared.
        facts: Of the cohort, the machine, and what is finished.
        budget_s: Seconds that may be spent; None is no limit.

    Raises:
        SettingsError: If an arm names tiles that are not declared.
    """
    return _Choice(design, facts, math.inf if budget_s is None else budget_s).plan()


class _Choice:
    """Arms that are chosen within a budget, one after the other."""

    def __init__(self, design: StudyDesign, facts: PlanFacts, budget_s: float) -> None:
        self._design, self._facts, self._budget_s = design, facts, budget_s
        self._arms, self._marks = design.list_arms(), Marks(design, facts)

    def plan(self) -> StudyPlan:
        here = [arm for arm in self._arms if self._facts.encoders[bags_of(arm)].command is None]
        done = [arm for arm in here if self._is_done(arm)]
        ordered = self._order()
        chosen = list(done)
        for arm in ordered:
            if arm in here and arm not in chosen and self._total([*chosen, arm]) <= self._budget_s:
                chosen.append(arm)
        items, notes = self._list(chosen), []
        if self._design.finetune_best:
            with_choices = self._list(chosen, chooses=True)
            more = _total(with_choices) - _total(items)
            if more == 0 or _total(with_choices) <= self._budget_s:
                items = with_choices
                notes.append(
                    "which arm is fine-tuned is chosen in each fold on its validation patients; planned: the dearest"
                )
            else:
                name = CHOSEN_ARMS[0].name
                notes.append(f"{name} is not fine-tuned: it would take up to {say_time(more)} more")
        return StudyPlan(
            arms=self._describe(ordered, chosen, done),
            items=items,
            finished=frozenset(item.key for item in items if item.is_done(self._facts)),
            notes=tuple(notes),
        )

    def _list(self, chosen: Collection[Arm], *, chooses: bool = False) -> tuple[WorkItem, ...]:
        wanted = set(chosen)
        in_order = [arm for arm in self._arms if arm in wanted]
        return list_items(self._design, self._facts, in_order, chooses=chooses, marks=self._marks)

    def _total(self, chosen: Collection[Arm]) -> float:
        return _total(self._list(chosen))

    def _is_done(self, arm: Arm) -> bool:
        return all(item.is_done(self._facts) for item in self._list([arm]) if item.kind in OF_ARMS)

    def _order(self) -> list[Arm]:
        """Order arms by seconds for each declared row they stand in; what goes on from a frozen arm comes last."""
        rows = [row for table in self._design.list_tables(self._arms) for row in table["rows"]]
        score = {arm: self._total([arm]) / (1 + sum(arm.name in row for row in rows)) for arm in self._arms}
        return sorted(self._arms, key=lambda arm: (arm.finetuned != "frozen", score[arm], arm.name))

    def _describe(self, ordered: Sequence[Arm], chosen: Sequence[Arm], done: Sequence[Arm]) -> tuple[PlannedArm, ...]:
        """Describe each arm; what it takes is counted beyond the arms that run before it, or beyond all that run."""
        running = [arm for arm in ordered if arm in chosen]
        planned = []
        for arm in ordered:
            encoder = self._facts.encoders[bags_of(arm)]
            before = running[: running.index(arm)] if arm in running else running
            seconds = max(0.0, self._total([*before, arm]) - self._total(before))
            state = DONE if arm in done else RUNS
            if encoder.command is not None:
                state = WAITS
            elif arm not in running:
                state = LEFT
            planned.append(
                PlannedArm(arm=arm, state=state, command=encoder.command, gflops=encoder.gflops, seconds=seconds)
            )
        return tuple(planned)


def _total(items: Sequence[WorkItem]) -> float:
    return sum(item.seconds for item in items if item.seconds is not None)
