"""What a study will do, before it does anything: arms in order, tiles, disk, time."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lamella.cohort import Cohort
from lamella.encoders import EncoderSpec, RuntimeSettings
from lamella.encoders.profile import profile_encoder
from lamella.encoders.runtime.opening import time_encoder
from lamella.errors import LamellaError
from lamella.features.plan import plan_slide
from lamella.study.arm_rows import describe_arm
from lamella.study.arms import Arm
from lamella.study.costs import load_costs, name_cost
from lamella.study.design import StudyDesign, parse_time
from lamella.study.study_folder import StudyFolder

_LOOKED_AT = 8  # slides whose tiles are counted; the others are taken to be alike
_HEAD_GFLOPS_A_TILE = 3 * 2 * 256 / 1e9  # forward and backward of the first layer, per unit of width
_HEAD_RATE = 30.0  # GFLOP/s that training of small bags reaches on one core


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedArm:
    """One arm of a plan.

    Attributes:
        arm: Which arm.
        state: `runs`, `waiting for weights` or `past the budget`.
        command: What gets its weights, where they are not here.
        gflops: Arithmetic a tile.
        seconds: What it is estimated to take, beyond what arms before it share with it.
    """

    arm: Arm
    state: str
    command: str | None
    gflops: float
    seconds: float

    def as_row(self) -> dict[str, Any]:
        """Return it as a row of a table."""
        minutes = "-" if self.command else f"{self.seconds / 60:.1f} min"
        gflops = f"{self.gflops:.2f}"
        return {"arm": self.arm.name, "state": self.state, "GFLOPs a tile": gflops, "time": minutes}


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyPlan:
    """What a study will do.

    Attributes:
        arms: In the order in which they run: the cheapest first, a stage-2 arm after its frozen one.
        n_tiles: Tiles, each decoded once for all encoders and depths of its tile spec.
        n_bytes: Disk for the bags.
        budget_s: Seconds that may be spent; None is no limit.
    """

    arms: tuple[PlannedArm, ...]
    n_tiles: int
    n_bytes: int
    budget_s: float | None

    @property
    def seconds(self) -> float:
        """What the arms that run are estimated to take together."""
        return sum(one.seconds for one in self.arms if one.state == "runs")

    def say(self) -> list[str]:
        """Return the plan's sums, a line each."""
        lines = [
            f"about {self.n_tiles:,} tiles, {self.n_bytes / 1e6:,.0f} MB of bags, {self.seconds / 60:.0f} min on this "
            "machine (encoding at measured rates; training estimated)"
        ]
        lines += [f"{one.arm.name} waits: {one.command}" for one in self.arms if one.command]
        left = [one for one in self.arms if one.state == "past the budget"]
        if left:
            lines.append(f"{len(left)} arms lie past the budget; they would take {sum(o.seconds for o in left):.0f} s")
        return lines


def plan_study(design: StudyDesign, cohort: Cohort, out: Path | None, *, options: RuntimeSettings) -> StudyPlan:
    """Plan a study of a cohort: tiles counted on a few slides, encoders at this machine's rates.

    Rates that the study has measured before are taken from its `costs.json`; others are measured now, a second each.

    Args:
        design: What is compared.
        cohort: Labelled slides.
        out: The study folder, where there is one already.
        options: Where encoders run.

    Raises:
        LamellaError: If an encoder is unknown.
    """
    costs = load_costs(StudyFolder(out).costs) if out is not None else {}
    per_slide = {name: count_tiles(cohort, one.cut()) for name, one in design.tiles.items()}
    rates: dict[str, float] = {}
    described = []
    for arm in design.list_arms():
        row = describe_arm(arm, declared=True)
        n_tiles = per_slide[arm.tiles] * len(cohort.slides)
        rate = 0.0
        if row["command"] is None:
            spec = EncoderSpec(arm.trunk, arm.weights)
            key = name_cost(arm.tiles, spec)
            if key not in rates:
                tile_px = design.tiles[arm.tiles].tile_px
                rates[key] = (
                    1 / float(costs[key]["seconds_per_tile"])
                    if key in costs
                    else time_encoder(spec, options, tile_px=tile_px, seconds=1.0)
                )
            rate = rates[key]
        described.append((arm, row, n_tiles, rate))
    budget = None if design.budget is None else parse_time(design.budget)
    return StudyPlan(
        arms=order_arms([_estimate(design, *one) for one in described], budget),
        n_tiles=round(sum(per_slide.values()) * len(cohort.slides)),
        n_bytes=round(sum(2 * row["dim"] * n for _, row, n, _ in _once_a_bag(described))),
        budget_s=budget,
    )


def order_arms(arms: Sequence[PlannedArm], budget_s: float | None) -> tuple[PlannedArm, ...]:
    """Return arms in the order in which they run, those past the budget marked.

    Frozen arms come before stage 2, the cheapest first; an arm whose weights are not here takes no time.
    """
    found, spent = [], 0.0
    for one in sorted(arms, key=lambda one: (one.arm.finetuned != "frozen", one.seconds, one.arm.name)):
        if one.command is not None:
            found.append(one)
            continue
        fits = budget_s is None or spent + one.seconds <= budget_s
        spent += one.seconds if fits else 0.0
        state = "runs" if fits else "past the budget"
        found.append(PlannedArm(arm=one.arm, state=state, command=None, gflops=one.gflops, seconds=one.seconds))
    return tuple(found)


def count_tiles(cohort: Cohort, cut: Any) -> float:
    """Return the mean number of tiles of a few slides, spread over the cohort; 0 where none can be read."""
    step = max(1, math.ceil(len(cohort.slides) / _LOOKED_AT))
    counts = []
    for item in cohort.slides[::step]:
        try:
            plan = plan_slide(item, cut)
        except (LamellaError, OSError):
            continue
        plan.slide.close()
        counts.append(len(plan.corners_l0))
    return sum(counts) / len(counts) if counts else 0.0


def _estimate(design: StudyDesign, arm: Arm, row: dict[str, Any], n_tiles: float, rate: float) -> PlannedArm:
    (profile,) = profile_encoder(arm.encoder, tile_px=design.tiles[arm.tiles].tile_px, depths=(arm.depth,), seconds=0)
    seconds = 0.0
    if row["command"] is None:
        rounds = design.folds if design.split == "folds" else 1
        epochs = design.train.epochs * design.seeds * rounds
        heads = n_tiles * epochs * row["dim"] * _HEAD_GFLOPS_A_TILE / _HEAD_RATE
        seconds = n_tiles / rate + heads
        if arm.finetuned != "frozen":
            top = design.finetune.k * n_tiles / max(n_tiles, 1)
            passes = 3 if arm.finetuned == "tuned" else 1  # forward and backward
            tuned = design.finetune.epochs * design.finetune.n_seeds * rounds * top * passes
            seconds = tuned * max(1.0, n_tiles / 1000) / rate + (n_tiles / rate if arm.finetuned == "tuned" else 0)
    state = "runs" if row["command"] is None else "waiting for weights"
    return PlannedArm(arm=arm, state=state, command=row["command"], gflops=profile.gflops, seconds=seconds)


def _once_a_bag(described: Sequence[tuple[Arm, dict[str, Any], float, float]]) -> list[tuple[Any, ...]]:
    """Return what is described once for each bag: arms of one encoder, depth and tiles share theirs."""
    seen = {(arm.trunk, arm.weights, arm.tiles): (arm, row, n, r) for arm, row, n, r in described if not row["command"]}
    return list(seen.values())
