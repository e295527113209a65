"""A study's recommendation asked again on new patients: confirmed, not confirmed, or inconclusive.

New patients are one test set, so intervals take no factor for cross-validation. The rules are those of the study
(docs/statistics.md): one-sided 2.5% with Hall's term, the margin that was declared.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from lamella.analysis.comparisons import LEVEL
from lamella.analysis.contest import ArmFacts, Contest, judge_contest
from lamella.analysis.frames import judge_with_lost
from lamella.analysis.verdict import ArmVerdict, ChainStep, ExternalArm, ExternalClaim, ExternalVerdict, Verdict

CONFIRMED, NOT_CONFIRMED, INCONCLUSIVE = "confirmed", "not confirmed", "inconclusive"
_SHOWN = ("non-inferior", "only")


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Claim:
    """What was recommended, and against what it holds.

    Attributes:
        arms: Names, what the others are held against first, then the dearest first.
        arm: The one that was recommended; None where none was.
        chain: Whether the arms are equal in all but depth, the whole network first; else each is held against all.
        margin: How much AUC may be given up.
        costs: Of each arm, by name.
    """

    arms: tuple[str, ...]
    arm: str | None
    chain: bool
    margin: float
    costs: Mapping[str, float]


def judge_external(predictions: pd.DataFrame, claim: Claim, *, classes: Sequence[str]) -> ExternalVerdict:
    """Return whether what was recommended holds for new patients, and what every arm reaches there.

    The recommended depth is tested first, then the others, the dearest first, until one is not shown: all of that was
    settled before these patients were seen, so nothing needs adjusting.

    Args:
        predictions: A row an arm and slide: `arm`, `slide_id`, `patient_id`, `label`, `logit_<class>`, perhaps `batch`.
        claim: What is asked.
        classes: In the order of the logits.

    Raises:
        CohortError: If the new patients are of one class.
    """
    return judge_with_lost(predictions, lambda contest: _judge(contest, claim), classes=classes)


def _judge(contest: Contest, claim: Claim) -> ExternalVerdict:
    judged = judge_contest(contest, _know(claim, claim.arms), margin=claim.margin)
    arms = {arm.arm: arm for arm in judged.arms}
    losses: dict[str, ChainStep] = {}
    answers: dict[str, str] = {}
    reasons: dict[str, str] = {}
    if claim.chain:
        whole, *cuts = claim.arms
        order = [*([claim.arm] if claim.arm in cuts else []), *(name for name in cuts if name != claim.arm)]
        is_open = True
        for name in order:
            pair = judge_contest(_take(contest, (whole, name)), _know(claim, (whole, name)), margin=claim.margin)
            losses[name] = pair.chains[0].steps[0]
            answers[name], reasons[name] = _answer_depth(pair, name)
            if not is_open and answers[name] == CONFIRMED:  # one before it was not shown, which ends the order
                answers[name] = INCONCLUSIVE
            is_open = is_open and answers[name] == CONFIRMED
    elif claim.arm is not None:
        answers[claim.arm], reasons[claim.arm] = _answer_contest(judged, arms[claim.arm])
    answer = None if claim.arm is None else answers.get(claim.arm)
    return ExternalVerdict(
        answer=answer,
        sentence=_say(claim, answer, losses.get(claim.arm or ""), reasons.get(claim.arm or "", "")),
        claim=ExternalClaim(arm=claim.arm, against=claim.arms[0] if claim.chain else None),
        margin=judged.margin,
        n_patients=judged.n_patients,
        units=judged.units,
        n_per_class=judged.n_per_class,
        cross_validated=judged.cross_validated,
        arms=tuple(_describe(arms[name], losses.get(name), answers.get(name)) for name in claim.arms),
        batches=judged.batches,
        notes=judged.notes,
    )


def _describe(arm: ArmVerdict, loss: ChainStep | None, answer: str | None) -> ExternalArm:
    return ExternalArm(
        arm=arm.arm,
        auc=arm.auc,
        interval=arm.interval,
        chance_p_holm=arm.chance_p_holm,
        auc_within_batch=arm.auc_within_batch,
        interval_within_batch=arm.interval_within_batch,
        worse_than=arm.worse_than,
        cost=arm.cost,
        loss=None if loss is None else loss.loss,
        loss_interval=None if loss is None else loss.interval,
        smallest_margin=arm.deficit_upper if loss is None else loss.margin,
        answer=answer,
    )


def _answer_depth(judged: Verdict, name: str) -> tuple[str, str]:
    """Return the answer of one depth against the whole network, and why there is none."""
    said = judged.verdict
    if said.kind in _SHOWN:
        return CONFIRMED, ""
    if said.kind != "too few" and any(shown.arm == name for shown in said.shown_worse):
        return NOT_CONFIRMED, ""
    return INCONCLUSIVE, "" if said.kind == "inconclusive" else str(said.use)


def _answer_contest(judged: Verdict, arm: ArmVerdict) -> tuple[str, str]:
    """Return the answer of an arm that was recommended against all others, and why there is none."""
    contest = judged.contest
    assert contest is not None
    beats_chance = arm.chance_p_holm is not None and arm.chance_p_holm < LEVEL
    if contest.kind in _SHOWN and arm.arm in contest.noninferior and beats_chance:
        return CONFIRMED, ""
    if arm.worse_than and contest.kind != "too few":
        return NOT_CONFIRMED, f"It is shown to be worse than {', '.join(arm.worse_than)}."
    general = ("too few", "no signal", "margin too wide", "one arm")
    return INCONCLUSIVE, str(judged.verdict.use) if contest.kind in general else ""


def _say(claim: Claim, answer: str | None, loss: ChainStep | None, reason: str) -> str:
    if claim.arm is None:
        return "No arm was recommended, so there is no claim to ask again: the arms are measured, and that is all."
    if answer is None:
        return f"{claim.arm} is the whole network itself, so there is no claim to ask again."
    against = f"the whole network, {claim.arms[0]}" if claim.chain else "every other arm"
    said = {
        CONFIRMED: f"Confirmed: on these patients {claim.arm} is non-inferior to {against}",
        NOT_CONFIRMED: f"Not confirmed: on these patients {claim.arm} is not non-inferior to {against}",
        INCONCLUSIVE: f"Inconclusive: on these patients {claim.arm} is not shown to be non-inferior to {against}",
    }[answer]
    said += f" (margin {claim.margin:g} AUC)"
    if loss is not None and loss.loss is not None and loss.interval is not None:
        low, high = loss.interval
        shown = ", and is shown to be worse" if answer == NOT_CONFIRMED else ""
        said += f"{shown}: it loses {loss.loss:.3f} (95% CI {low:.3f} to {high:.3f})"
    return " ".join(part for part in (f"{said}.", reason) if part)


def _know(claim: Claim, names: Sequence[str]) -> ArmFacts:
    costs = {name: claim.costs[name] for name in names}
    chains = [list(names)] if claim.chain and len(names) > 1 else []
    # The order of a chain is that of its arithmetic, the dearest first: as the arms are listed.
    gflops = {name: float(len(claim.arms) - claim.arms.index(name)) for name in names}
    return ArmFacts(costs=costs, gflops=gflops, imagenet_top1=dict.fromkeys(names), chains=chains)


def _take(contest: Contest, names: tuple[str, ...]) -> Contest:
    columns = np.array([contest.names.index(name) for name in names])
    by_seed = None if contest.by_seed is None else contest.by_seed[columns]
    return replace(contest, names=names, logits=contest.logits[columns], by_seed=by_seed)
