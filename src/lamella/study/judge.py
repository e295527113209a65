"""The arms of a study before the judge: the same patients and seeds for all, costs, declared tables, the verdict."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lamella.analysis.contest import ArmFacts, Contest, judge_arms
from lamella.cohort import Cohort
from lamella.encoders.names import N_BLOCKS
from lamella.study.design import StudyDesign
from lamella.study.outcome import ArmOutcome, pair_scores


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmCost:
    """What an arm costs.

    Attributes:
        a_slide: Seconds a slide, on average over the cohort.
        a_tile: Seconds a tile.
        gflops: Billions of operations a tile.
    """

    a_slide: float
    a_tile: float
    gflops: float


def judge_outcomes(
    outcomes: Sequence[ArmOutcome],
    cohort: Cohort,
    design: StudyDesign,
    *,
    rows: Mapping[str, Mapping[str, Any]],
    costs: Mapping[str, ArmCost],
) -> dict[str, Any]:
    """Return what `verdict.json` holds.

    Args:
        outcomes: Of the arms that ran.
        cohort: Classes, labels, patients.
        design: Margin and declared tables.
        rows: What `study.json` says of each arm, by name.
        costs: Of each arm, by name.
    """
    paired = pair_scores(outcomes, cohort)
    contest = Contest(
        names=paired.names,
        logits=paired.logits,
        by_seed=paired.by_seed,
        targets=paired.targets,
        folds=paired.folds,
        patients=paired.patients,
    )
    whole = {o.arm.name for o in outcomes if o.arm.finetuned == "frozen" and o.arm.depth == N_BLOCKS}
    facts = ArmFacts(
        costs={name: one.a_slide for name, one in costs.items()},
        gflops={name: one.gflops for name, one in costs.items()},
        imagenet_top1={name: row["imagenet_top1"] for name, row in rows.items() if name in whole},
        added_later={name for name, row in rows.items() if not row["declared"]},
    )
    tables = design.list_tables([o.arm for o in outcomes])
    verdict = judge_arms(contest, facts, margin=design.margin, tables=tables)
    return verdict | {"n_lost": len(paired.lost)}
