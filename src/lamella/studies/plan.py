"""What a study will do, worked out from facts alone: no slide is opened here, and no network built.

`lamella.studies.facts` gathers the facts on a machine; here is nothing but arithmetic, so that laws can be tested: a
tile is decoded once for all encoders and depths of its tile spec, every arm runs or says why not, a budget is kept.
"""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from lamella.studies.arms import CHOSEN_ARMS, Arm
from lamella.studies.design import StudyDesign
from lamella.studies.work import CHOSEN_KEY, OPTIONAL, PlanFacts, Unit, bags_of, core_keys, list_units, price_choices
from lamella.words import say_time

RUNS, DONE, WAITS, LEFT = "runs", "done", "waiting for weights", "not run"


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedArm:
    """One arm of a plan.

    Attributes:
        arm: Which arm.
        state: `runs`, `done`, `waiting for weights` or `not run`.
        reason: Why it does not run; None where it does.
        command: What gets its weights, where they are not here.
        gflops: Arithmetic a tile.
        seconds: What it takes beyond what it shares with the arms that run before it.
    """

    arm: Arm
    state: str
    reason: str | None
    command: str | None
    gflops: float
    seconds: float

    def as_row(self) -> dict[str, Any]:
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
        units: What is to be done for the arms that run, in order; finished work is not among it.
        budget_s: Seconds that may be spent; None is no limit.
        notes: What is not done, and why, besides arms.
    """

    arms: tuple[PlannedArm, ...]
    units: tuple[Unit, ...]
    budget_s: float | None
    notes: tuple[str, ...] = ()

    @property
    def seconds(self) -> float:
        """What is still to be done takes."""
        return sum(unit.seconds for unit in self.units)

    @property
    def n_tiles(self) -> int:
        """Tiles that are decoded."""
        return sum(unit.n_tiles for unit in self.units)

    @property
    def n_bytes(self) -> int:
        """Disk for the bags."""
        return sum(unit.n_bytes for unit in self.units)

    def say(self) -> list[str]:
        """Return the plan's sums, and what is left out with its price, a line each."""
        sums = f"about {self.n_tiles:,} tiles, {self.n_bytes / 1e6:,.0f} MB of bags, at most {say_time(self.seconds)}"
        by_kind: dict[str, float] = {}
        for unit in self.units:
            by_kind[unit.kind] = by_kind.get(unit.kind, 0.0) + unit.seconds
        parts = ", ".join(f"{kind} {say_time(seconds)}" for kind, seconds in by_kind.items())
        lines = [sums + (f" ({parts})" if parts else "")]
        lines += self._say_waiting()
        lines += [
            f"{one.arm.name} is not run: it would take {say_time(one.seconds)} more"
            for one in self.arms
            if one.state == LEFT
        ]
        return [*lines, *self.notes]

    def _say_waiting(self) -> list[str]:
        """Say once of each encoder what gets its weights."""
        waiting: dict[tuple[str, str], list[PlannedArm]] = {}
        for one in self.arms:
            if one.command is not None:
                waiting.setdefault((one.arm.encoder, one.arm.weights), []).append(one)
        return [
            f"{len(group)} arm{'' if len(group) == 1 else 's'} of {encoder} {'waits' if len(group) == 1 else 'wait'}: "
            f"{group[0].command}"
            for (encoder, _), group in waiting.items()
        ]


def plan_units(design: StudyDesign, facts: PlanFacts, *, budget_s: float | None = None) -> StudyPlan:
    """Plan a study: which arms run, in which order, and what is done for them.

    Arms come before others that tell less for their time: seconds for each declared row that they stand in, frozen
    arms before what goes on from them. With a budget, an arm that does not fit is left out and a later, cheaper one may
    still fit; what is left of the budget then takes arms without their controls and maps. Finished arms always stay.

    Args:
        design: What is compared.
        facts: Of the cohort, the machine, and what is finished.
        budget_s: Seconds that may be spent; None is no limit.

    Raises:
        SettingsError: If an arm names tiles that are not declared.
    """
    arms = design.list_arms()
    here = [arm for arm in arms if facts.encoders[bags_of(arm)].command is None]
    done = [arm for arm in here if set(core_keys(arm, design, facts)) <= facts.done]
    ordered = _order(design, arms, facts)
    plan = _Choice(design, facts, here, budget_s)
    plan.choose(done, ordered)
    units, notes = plan.fit()
    best, said = _plan_best(plan, units)
    return StudyPlan(
        arms=_describe(plan, ordered, done),
        units=tuple(_in_order([*units, *best])),
        budget_s=budget_s,
        notes=(*notes, *said),
    )


class _Choice:
    """Arms that are chosen within a budget, one after the other."""

    def __init__(self, design: StudyDesign, facts: PlanFacts, here: Sequence[Arm], budget_s: float | None) -> None:
        self.design, self.facts, self.here = design, facts, here
        self.budget_s = math.inf if budget_s is None else budget_s
        self.whole: list[Arm] = []
        self.bare: list[Arm] = []  # without what no arm needs to be finished

    @property
    def chosen(self) -> list[Arm]:
        return [*self.whole, *self.bare]

    def choose(self, done: Sequence[Arm], ordered: Sequence[Arm]) -> None:
        """Take finished arms, then others in order as long as they fit."""
        for arm in done:
            within = self.total([*self.whole, arm], []) <= self.budget_s
            (self.whole if within else self.bare).append(arm)
        for arm in ordered:
            whole = [*self.whole, arm]
            if arm in self.here and arm not in self.chosen and self.total(whole, self.bare) <= self.budget_s:
                self.whole = whole
        for arm in ordered:
            bare = [*self.bare, arm]
            if arm in self.here and arm not in self.chosen and self.total(self.whole, bare) <= self.budget_s:
                self.bare = bare

    def list_work(self, whole: Sequence[Arm], bare: Sequence[Arm]) -> list[Unit]:
        """List the units of some arms, of the bare ones without what is optional."""
        units = list_units(self.design, self.facts, self.here, whole)
        if not bare:
            return units
        every = list_units(self.design, self.facts, self.here, [*whole, *bare])
        core = [unit for unit in every if unit.kind not in OPTIONAL]
        return [*core, *(unit for unit in units if unit.kind in OPTIONAL)]

    def total(self, whole: Sequence[Arm], bare: Sequence[Arm]) -> float:
        """Return what some arms take together."""
        return sum(unit.seconds for unit in self.list_work(whole, bare))

    def fit(self) -> tuple[list[Unit], list[str]]:
        """Return the units that are done, and what is said of those that no arm needs and that do not fit."""
        units = self.list_work(self.whole, self.bare)
        kept, notes = {unit.key for unit in units}, []
        for unit in self.list_work(self.chosen, []):
            if unit.key in kept:
                continue
            if sum(one.seconds for one in units) + unit.seconds <= self.budget_s:
                units.append(unit)
            else:
                what = f"{unit.kind} ({', '.join(unit.arms)})"
                notes.append(f"{what} is not run: it would take {say_time(unit.seconds)} more")
        return units, notes


def _order(design: StudyDesign, arms: Sequence[Arm], facts: PlanFacts) -> list[Arm]:
    """Order arms by seconds for each declared row they stand in; what goes on from a frozen arm comes after all."""
    rows = [row for table in design.list_tables(arms) for row in table["rows"]]
    plan = _Choice(design, facts, arms, None)
    score = {arm: plan.total([], [arm]) / (1 + sum(arm.name in row for row in rows)) for arm in arms}
    return sorted(arms, key=lambda arm: (arm.finetuned != "frozen", score[arm], arm.name))


def _describe(plan: _Choice, ordered: Sequence[Arm], done: Collection[Arm]) -> tuple[PlannedArm, ...]:
    """Describe each arm; what it takes is counted beyond the arms that run before it, or beyond all that run."""
    running = [arm for arm in ordered if arm in plan.chosen]
    found = []
    for arm in ordered:
        own = plan.facts.encoders[bags_of(arm)]
        before = running[: running.index(arm)] if arm in running else running
        seconds = max(0.0, plan.total([], [*before, arm]) - plan.total([], before))
        state, reason = (DONE if arm in done else RUNS), None
        if own.command is not None:
            state, reason = WAITS, own.command
        elif arm not in running:
            state, reason = LEFT, f"the budget does not reach: it would take {say_time(seconds)} more"
        found.append(
            PlannedArm(arm=arm, state=state, reason=reason, command=own.command, gflops=own.gflops, seconds=seconds)
        )
    return tuple(found)


def _plan_best(plan: _Choice, units: Sequence[Unit]) -> tuple[list[Unit], list[str]]:
    """Plan the fine-tuning of the best arm of each fold, which is not known yet: the dearest stands in for it."""
    frozen = [arm for arm in plan.chosen if arm.finetuned == "frozen"]
    if not plan.design.finetune_best or not frozen or CHOSEN_KEY in plan.facts.done:
        return [], []
    seconds = price_choices(plan.design, plan.facts, frozen, {unit.key for unit in units})
    if sum(unit.seconds for unit in units) + seconds > plan.budget_s:
        return [], [f"{CHOSEN_ARMS[0].name} is not fine-tuned: it would take up to {say_time(seconds)} more"]
    names = tuple(arm.name for arm in CHOSEN_ARMS)
    unit = Unit(kind="finetune", key=CHOSEN_KEY, keys=(CHOSEN_KEY,), arms=names, seconds=seconds)
    return [unit], ["which arm is fine-tuned is chosen in each fold on its validation patients; planned: the dearest"]


def _in_order(units: Sequence[Unit]) -> list[Unit]:
    kinds = ("extract", "cost", "train", "finetune", *OPTIONAL)
    return sorted(units, key=lambda unit: kinds.index(unit.kind))
