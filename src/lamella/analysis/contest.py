"""All arms of a study held against each other: intervals, comparisons, the recommendation. The one entry."""

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lamella.analysis.auc import AucEstimate, estimate_auc, find_auc_interval
from lamella.analysis.comparisons import adjust_holm, compare_declared, correlate_with_imagenet, judge_against_chance
from lamella.analysis.intervals import draw_patients, find_bootstrap_interval
from lamella.analysis.predictions import find_log_odds
from lamella.analysis.recommend import (
    LEAST_PATIENTS,
    BestEstimate,
    find_cheapest,
    find_deficits,
    list_ladder,
    say_verdict,
)
from lamella.analysis.sample_size import find_patients_needed
from lamella.analysis.selection import PairTable, correct_best
from lamella.analysis.weighted import weigh_pooled_auc
from lamella.errors import CohortError

Floats = NDArray[np.float64]
N_DRAWS = 2000
_N_PICKS = 500


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Contest:
    """All arms on the same units.

    Attributes:
        names: Of the arms, J of them.
        logits: `(J, n, C)` float64, averaged over seeds.
        by_seed: `(J, S, n, C)` float64; None with one seed.
        targets: `(n,)` int64 class of each unit.
        folds: `(n,)` int64 round that tested it.
        patients: `(n,)` int64 where units are slides; None where they are patients.
    """

    names: tuple[str, ...]
    logits: Floats
    by_seed: Floats | None
    targets: NDArray[np.int64]
    folds: NDArray[np.int64]
    patients: NDArray[np.int64] | None = None


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class ArmFacts:
    """What is known of the arms besides their predictions, by name.

    Attributes:
        costs: What an arm costs, in one unit for all.
        gflops: Arithmetic a tile.
        imagenet_top1: Per cent, of the arms whose encoders have one.
        added_later: Arms that were added after results were seen.
    """

    costs: Mapping[str, float]
    gflops: Mapping[str, float]
    imagenet_top1: Mapping[str, float | None]
    added_later: AbstractSet[str] = frozenset()


def judge_arms(
    contest: Contest, facts: ArmFacts, *, margin: float, tables: Sequence[Mapping[str, Any]] = ()
) -> dict[str, Any]:
    """Return what `verdict.json` holds: intervals, comparisons, the ladder and the verdict.

    Args:
        contest: All arms on the same units.
        facts: Costs, and what else is known of the arms.
        margin: How much AUC the recommended arm may lie below every other.
        tables: Declared comparisons: `name`, `title`, `rows` of (arm, base).

    Raises:
        CohortError: If no fold tests two classes.
    """
    estimate = estimate_auc(contest.logits, contest.targets, folds=contest.folds, patients=contest.patients)
    if estimate is None:
        raise CohortError("no fold tests slides of two classes, so no arm can be measured. Ask for fewer folds.")
    seed_auc = _find_seed_auc(contest)
    costs = np.array([facts.costs[name] for name in contest.names])
    gflops = np.array([facts.gflops[name] for name in contest.names])
    chance = judge_against_chance(estimate)
    chance_holm = adjust_holm(chance.tolist())
    deficits = find_deficits(estimate, seed_auc=seed_auc)
    units = np.arange(len(contest.targets)) if contest.patients is None else contest.patients
    rng = np.random.default_rng(0)
    draws = draw_patients(contest.targets, contest.folds, units, n_draws=N_DRAWS, rng=rng)
    pairs = PairTable.of(contest.logits, contest.targets, contest.folds)
    drawn_auc = pairs.weigh(draws.astype(np.float64))
    n_classes = contest.logits.shape[-1]
    counts = [len(set(units[contest.targets == target].tolist())) for target in range(n_classes)]
    not_worse = [] if deficits is None else np.flatnonzero(deficits.upper < margin).tolist()
    cheapest = find_cheapest(list(range(len(costs))), costs, gflops)
    best = int(estimate.auc.argmax())
    corrected = correct_best(pairs, draws[:_N_PICKS])
    needed = None
    if deficits is not None and cheapest is not None and min(counts) >= LEAST_PATIENTS:
        needed = find_patients_needed(
            estimate, deficits, cheapest, margin, targets=contest.targets, patients=contest.patients
        )
    raw = float(estimate.auc[best])
    verdict = say_verdict(
        names=contest.names,
        deficits=deficits,
        places=(find_cheapest(not_worse, costs, gflops), cheapest),
        margin=margin,
        chance_p=chance_holm,
        n_least=min(counts),
        best=BestEstimate(arm=contest.names[best], auc=raw if corrected is None else corrected, needed=needed),
    )
    verdict |= {
        "patients_needed": None if needed is None else needed[0],
        "patients_range": None if needed is None else list(needed[1]),
        "best_arm": contest.names[best],
        "best_auc_raw": raw,
        "best_auc_corrected": corrected,
    }
    pooled = [_measure_pooled(arm, contest.targets, draws) for arm in contest.logits]
    arms = [
        {
            "arm": name,
            "auc": float(estimate.auc[j]),
            "interval": list(find_auc_interval(estimate, arm=j)),
            "auc_pooled": pooled[j][0],
            "auc_pooled_interval": pooled[j][1],
            "chance_p": float(chance[j]),
            "chance_p_holm": chance_holm[j],
            "deficit": None if deficits is None else float(max(0.0, deficits.differences[j].max())),
            "deficit_upper": None if deficits is None else float(deficits.upper[j]),
            "not_worse": bool(deficits is not None and deficits.upper[j] < margin),
            "cost": float(costs[j]),
            "gflops": float(gflops[j]),
            "added_later": name in facts.added_later,
            **_spread(contest, j, seed_auc),
        }
        for j, name in enumerate(contest.names)
    ]
    return {
        "margin": margin,
        "n_patients": len(set(units.tolist())),
        "n_units": len(contest.targets),
        "units": "patients" if contest.patients is None else "slides",
        "n_per_class": counts,
        "cross_validated": estimate.cross_validated,
        "n_seeds": 1 if contest.by_seed is None else int(contest.by_seed.shape[1]),
        "arms": arms,
        "tables": compare_declared(estimate, contest.names, tables, seed_auc=seed_auc),
        "ladder": [] if deficits is None else list_ladder(deficits, contest.names, costs, gflops),
        "verdict": verdict,
        "imagenet": _correlate(contest, estimate, drawn_auc, facts),
        "notes": _find_notes(contest),
    }


def _find_seed_auc(contest: Contest) -> Floats | None:
    """Return the AUC of each arm in each seed, `(J, S)`."""
    if contest.by_seed is None:
        return None
    n_arms, n_seeds = contest.by_seed.shape[:2]
    flat = contest.by_seed.reshape(n_arms * n_seeds, *contest.by_seed.shape[2:])
    found = estimate_auc(flat, contest.targets, folds=contest.folds)
    return None if found is None else found.auc.reshape(n_arms, n_seeds)


def _spread(contest: Contest, j: int, seed_auc: Floats | None) -> dict[str, Any]:
    """Return an arm's AUC by fold and by seed, with SDs: dots on the page, never an interval or a test."""
    by_fold = []
    for fold in np.unique(contest.folds):
        rows = contest.folds == fold
        found = estimate_auc(contest.logits[j][rows], contest.targets[rows], folds=contest.folds[rows])
        if found is not None:
            by_fold.append(float(found.auc[0]))
    by_seed = [] if seed_auc is None else seed_auc[j].tolist()
    return {
        "fold_auc": by_fold,
        "fold_sd": float(np.std(by_fold, ddof=1)) if len(by_fold) > 1 else None,
        "seed_auc": by_seed,
        "seed_sd": float(np.std(by_seed, ddof=1)) if len(by_seed) > 1 else None,
    }


def _measure_pooled(
    logits: Floats, targets: NDArray[np.int64], draws: NDArray[np.int64]
) -> tuple[float, list[float] | None]:
    """Return the AUC over all pairs, whatever their fold, with its bootstrap interval."""
    scores = find_log_odds(logits)
    columns = [1] if scores.shape[1] == 2 else sorted(set(targets.tolist()))

    def weigh(weights: Floats) -> Floats:
        return np.asarray(np.mean([weigh_pooled_auc(scores[:, c], targets == c, weights) for c in columns], axis=0))

    interval = find_bootstrap_interval(weigh, draws)
    return float(weigh(np.ones((1, len(targets))))[0]), None if interval is None else list(interval)


def _correlate(contest: Contest, estimate: AucEstimate, drawn_auc: Floats, facts: ArmFacts) -> dict[str, Any] | None:
    """Return the correlation with ImageNet's order, over whole frozen encoders that have such an accuracy."""
    places = [j for j, name in enumerate(contest.names) if facts.imagenet_top1.get(name) is not None]
    top1 = np.array([facts.imagenet_top1[contest.names[j]] for j in places], dtype=np.float64)
    return correlate_with_imagenet(estimate.auc[places], top1, drawn_auc[:, places])


def _find_notes(contest: Contest) -> list[str]:
    notes = []
    if contest.by_seed is None:
        notes.append("One seed: the noise of training is left out of every comparison.")
    if contest.patients is not None:
        notes.append("Slides of a patient differ in label: slides are scored and errors are clustered by patient.")
    return notes
