"""All arms of a study held against each other: intervals, comparisons, the verdict. `judge_contest` is the one entry.

`lamella.analysis.frames.judge_arms` is the same for a table of predictions of any origin.
"""

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lamella.analysis.auc import AucEstimate, estimate_auc, find_auc_interval
from lamella.analysis.batches import BatchCheck, Batches, check_batches
from lamella.analysis.chains import Chain
from lamella.analysis.choices import find_expected_loss
from lamella.analysis.comparisons import correlate_with_imagenet
from lamella.analysis.figure import Interval
from lamella.analysis.intervals import draw_patients, find_bootstrap_interval
from lamella.analysis.judgement import Judgement, Rules, ScoredArms, find_needed, judge_pairs
from lamella.analysis.predictions import find_log_odds
from lamella.analysis.selection import PairTable, correct_best
from lamella.analysis.verdict import (
    ArmVerdict,
    ChainStep,
    ChainVerdict,
    Conclusion,
    ContestVerdict,
    PlannedTable,
    RankCorrelation,
    Rung,
    ShownWorse,
    Verdict,
)
from lamella.analysis.verdict_words import say_verdict
from lamella.analysis.weighted import weigh_pooled_auc
from lamella.errors import CohortError

Floats = NDArray[np.float64]
MARGINS = (0.01, 0.02, 0.03, 0.05, 0.10)
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
        batches: `(n,)` int64 batch of each unit, below 0 where it is not known; None where no batches were given.
        batch_logits: `(n, C)` float64, what the training prevalence of its batch says of each unit; None works it out
            from the units of the other folds.
        units: Names of the units; may be empty.
        n_left_out: Folds that the models which score a fold did not learn from: it and one that validates, or it alone.
        notes: What must be said of how they were brought together.
    """

    names: tuple[str, ...]
    logits: Floats
    by_seed: Floats | None
    targets: NDArray[np.int64]
    folds: NDArray[np.int64]
    patients: NDArray[np.int64] | None = None
    batches: NDArray[np.int64] | None = None
    batch_logits: Floats | None = None
    units: tuple[str, ...] = ()
    n_left_out: int = 2
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class ArmFacts:
    """What is known of the arms besides their predictions, by name.

    Attributes:
        costs: What an arm costs, in one unit for all.
        gflops: Arithmetic a tile.
        imagenet_top1: Per cent, of the arms whose encoders have one.
        added_later: Arms that were added after results were seen.
        chains: Arms that are equal in all but depth, of each declared reference encoder: the whole network first.
        is_priced: Whether costs were given, and are not the order in which arms were named.
    """

    costs: Mapping[str, float]
    gflops: Mapping[str, float]
    imagenet_top1: Mapping[str, float | None]
    added_later: AbstractSet[str] = frozenset()
    chains: Sequence[Sequence[str]] = ()
    is_priced: bool = True


def judge_contest(contest: Contest, facts: ArmFacts, *, margin: float, tables: Sequence[PlannedTable] = ()) -> Verdict:
    """Return the verdict: intervals, comparisons, the ladder, and what to use.

    Args:
        contest: All arms on the same units.
        facts: Costs, chains, and what else is known of the arms.
        margin: How much AUC may be given up.
        tables: Declared comparisons.

    Raises:
        CohortError: If no fold tests two classes.
    """
    rules = _find_rules(contest, facts, margin)
    seed_auc = _find_seed_auc(contest)
    n_rounds = len(np.unique(contest.folds))
    arms = ScoredArms(
        names=contest.names,
        logits=contest.logits,
        targets=contest.targets,
        patients=contest.patients,
        # Where all other folds train, models share what those of one fold more share that leave out two.
        n_rounds=n_rounds + (contest.n_left_out == 1 and n_rounds > 2),
        seed_auc=seed_auc,
    )
    plain = judge_pairs(arms, contest.folds, rules, tables)
    if plain is None:
        raise CohortError("no fold tests slides of two classes, so no arm can be measured. Ask for fewer folds.")
    known = Batches(folds=contest.folds, numbers=contest.batches, logits=contest.batch_logits)
    check = check_batches(plain, arms, rules, known, tables)
    ruling = check.ruling
    needed = find_needed(ruling, contest.targets, contest.patients)
    words = say_verdict(ruling, contest.names, needed=needed, within_batch=check.sentence)
    units = np.arange(len(contest.targets)) if contest.patients is None else contest.patients
    rng = np.random.default_rng(0)
    draws = draw_patients(contest.targets, contest.folds, units, n_draws=N_DRAWS, rng=rng)
    pairs = PairTable.of(contest.logits, contest.targets, contest.folds)
    recommended = ruling.find_recommended()
    best = int(plain.estimate.auc.argmax())
    guess = ruling.guess()
    conclusion = Conclusion(
        kind=check.find_kind(),
        arm=None if recommended is None else contest.names[recommended],
        question="reference" if len(rules.chains) == 1 else "contest",
        sentence=" ".join(part for part in (words.use, words.worse, words.open) if part),
        use=words.use,
        worse=words.worse,
        open=words.open,
        shown_worse=tuple(
            ShownWorse(arm=contest.names[i], than=contest.names[b]) for i, b in np.argwhere(ruling.worse).tolist()
        ),
        still_in=tuple(contest.names[i] for i in ruling.still_in),
        best_guess=None if guess is None else contest.names[guess],
        patients_needed=None if needed is None else needed[1].n,
        patients_range=None if needed is None else (needed[1].low, needed[1].high),
        patients_needed_for=None if needed is None else contest.names[needed[0]],
        reachable_margin=ruling.reachable_margin,
        best_arm=contest.names[best],
        best_auc_raw=float(plain.estimate.auc[best]),
        best_auc_corrected=correct_best(pairs, draws[:_N_PICKS]),
    )
    winner = ruling.find_winner() if ruling.find_kind(chain=None) in ("non-inferior", "only") else None
    return Verdict(
        margin=margin,
        n_patients=len(set(units.tolist())),
        n_units=len(contest.targets),
        units="patients" if contest.patients is None else "slides",
        n_per_class=tuple(len(set(units[contest.targets == c].tolist())) for c in range(contest.logits.shape[-1])),
        cross_validated=plain.estimate.cross_validated,
        n_rounds=n_rounds,
        n_seeds=1 if contest.by_seed is None else int(contest.by_seed.shape[1]),
        arms=_list_arms(contest, facts, plain, check, draws, seed_auc),
        tables=ruling.tables,
        chains=tuple(_describe_chain(ruling, contest.names, number) for number in range(len(rules.chains))),
        contest=ContestVerdict(
            kind=ruling.find_kind(chain=None),
            arm=None if winner is None else contest.names[winner],
            noninferior=tuple(contest.names[i] for i in np.flatnonzero(ruling.noninferior)),
        ),
        ladder=_list_ladder(ruling, contest.names),
        batches=check.describe(),
        verdict=conclusion,
        imagenet=_correlate(contest, plain.estimate, pairs.weigh(draws), facts),
        notes=_find_notes(contest, plain, check),
    )


def _find_rules(contest: Contest, facts: ArmFacts, margin: float) -> Rules:
    gflops = np.array([facts.gflops[name] for name in contest.names], dtype=np.float64)
    columns = {name: column for column, name in enumerate(contest.names)}
    chains = []
    for names in facts.chains:
        whole, *cuts = (columns[name] for name in names if name in columns)
        if names[0] in columns and cuts:
            if facts.is_priced:  # else they are in the order in which they were named, the deepest first
                cuts.sort(key=lambda i: -float(gflops[i]))
            chains.append(Chain(whole=whole, cuts=tuple(cuts)))
    return Rules(
        margin=margin,
        chains=tuple(chains),
        costs=np.array([facts.costs[name] for name in contest.names], dtype=np.float64),
        gflops=gflops,
        is_priced=facts.is_priced,
    )


def _list_arms(
    contest: Contest,
    facts: ArmFacts,
    plain: Judgement,
    check: BatchCheck,
    draws: NDArray[np.integer],
    seed_auc: Floats | None,
) -> tuple[ArmVerdict, ...]:
    """Return what is known of each arm; AUCs over pairs of the same fold, statements over the pairs that rule."""
    ruling, estimate = check.ruling, plain.estimate
    judged = ruling.differences is not None
    loss = None if ruling.differences is None else find_expected_loss(ruling.estimate, ruling.differences)
    in_chain = {
        cut: float(margins[k])
        for chain, margins in zip(ruling.rules.chains, ruling.chain_margins, strict=True)
        for k, cut in enumerate(chain.cuts)
    }
    arms = []
    for j, name in enumerate(contest.names):
        pooled, pooled_interval = _measure_pooled(contest.logits[j], contest.targets, draws)
        within, within_interval = check.find_within(j)
        # By fold and by seed: dots on the page, never an interval or a test.
        fold_auc = _find_fold_auc(contest, j)
        own_seed_auc = [] if seed_auc is None else seed_auc[j].tolist()
        arms.append(
            ArmVerdict(
                arm=name,
                auc=float(estimate.auc[j]),
                interval=find_auc_interval(estimate, arm=j),
                auc_pooled=pooled,
                auc_pooled_interval=pooled_interval,
                chance_p=float(plain.chance_p[j]),
                chance_p_holm=plain.chance_holm[j],
                deficit=float(max(0.0, ruling.differences.values[j].max())) if ruling.differences else None,
                deficit_upper=float(ruling.margins[j]) if judged else None,
                not_worse=bool(ruling.noninferior[j]),
                margin_to_whole=in_chain.get(j) if judged else None,
                worse_than=tuple(contest.names[b] for b in np.flatnonzero(ruling.worse[j])),
                expected_loss=None if loss is None else float(loss[j]),
                cost=float(ruling.rules.costs[j]),
                gflops=float(ruling.rules.gflops[j]),
                added_later=name in facts.added_later,
                auc_within_batch=within,
                interval_within_batch=within_interval,
                fold_auc=tuple(fold_auc),
                fold_sd=_find_sd(fold_auc),
                seed_auc=tuple(own_seed_auc),
                seed_sd=_find_sd(own_seed_auc),
            )
        )
    return tuple(arms)


def _describe_chain(judgement: Judgement, names: Sequence[str], number: int) -> ChainVerdict:
    """Return one reference question: its depths in the order in which they are tested."""
    chain, accepted = judgement.rules.chains[number], judgement.accepted[number]
    kind, chosen = judgement.find_kind(chain=number), judgement.find_chosen(number)
    steps = []
    for cut, margin in zip(chain.cuts, judgement.chain_margins[number], strict=True):
        loss = None if judgement.differences is None else judgement.differences.compare(chain.whole, cut)
        steps.append(
            ChainStep(
                arm=names[cut],
                loss=None if loss is None else loss.difference,
                interval=None if loss is None else loss.interval,
                margin=None if loss is None else float(margin),
                accepted=cut in accepted,
            )
        )
    return ChainVerdict(
        whole=names[chain.whole],
        kind=kind,
        arm=names[chosen] if chosen is not None and kind in ("non-inferior", "only") else None,
        steps=tuple(steps),
    )


def _list_ladder(judgement: Judgement, names: Sequence[str]) -> tuple[Rung, ...]:
    """Return for each arm the smallest margin at which it is accepted, and the cheapest arm at some margins.

    The bounds hold together, so they may be read at any margin; at the declared one the step-down result stands.
    """
    rungs = []
    for margin in sorted({*MARGINS, judgement.rules.margin}):
        declared = margin == judgement.rules.margin
        flags = judgement.noninferior if declared else judgement.margins < margin
        accepted = np.flatnonzero(flags & np.array(judgement.differences is not None)).tolist()
        accepted.sort(key=lambda i: (judgement.rules.costs[i], judgement.rules.gflops[i], i))
        order = tuple(names[i] for i in accepted)
        rungs.append(Rung(margin=margin, arm=order[0] if order else None, noninferior=order))
    return tuple(rungs)


def _find_seed_auc(contest: Contest) -> Floats | None:
    """Return the AUC of each arm in each seed, `(J, S)`."""
    if contest.by_seed is None:
        return None
    n_arms, n_seeds = contest.by_seed.shape[:2]
    flat = contest.by_seed.reshape(n_arms * n_seeds, *contest.by_seed.shape[2:])
    estimate = estimate_auc(flat, contest.targets, folds=contest.folds)
    return None if estimate is None else estimate.auc.reshape(n_arms, n_seeds)


def _find_fold_auc(contest: Contest, j: int) -> list[float]:
    """Return an arm's AUC in each fold that tests two classes."""
    by_fold = []
    for fold in np.unique(contest.folds):
        rows = contest.folds == fold
        estimate = estimate_auc(contest.logits[j][rows], contest.targets[rows], folds=contest.folds[rows])
        if estimate is not None:
            by_fold.append(float(estimate.auc[0]))
    return by_fold


def _find_sd(values: Sequence[float]) -> float | None:
    return float(np.std(values, ddof=1)) if len(values) > 1 else None


def _measure_pooled(
    logits: Floats, targets: NDArray[np.int64], draws: NDArray[np.integer]
) -> tuple[float, Interval | None]:
    """Return the AUC over all pairs, whatever their fold, with its bootstrap interval."""
    scores = find_log_odds(logits)
    columns = [1] if scores.shape[1] == 2 else sorted(set(targets.tolist()))

    def weigh(weights: Floats) -> Floats:
        return np.asarray(np.mean([weigh_pooled_auc(scores[:, c], targets == c, weights) for c in columns], axis=0))

    return float(weigh(np.ones((1, len(targets))))[0]), find_bootstrap_interval(weigh, draws)


def _correlate(contest: Contest, estimate: AucEstimate, drawn_auc: Floats, facts: ArmFacts) -> RankCorrelation | None:
    """Return the correlation with ImageNet's order, over whole frozen encoders that have such an accuracy."""
    columns = [j for j, name in enumerate(contest.names) if facts.imagenet_top1.get(name) is not None]
    top1 = np.array([facts.imagenet_top1[contest.names[j]] for j in columns], dtype=np.float64)
    return correlate_with_imagenet(estimate.auc[columns], top1, drawn_auc[:, columns])


def _find_notes(contest: Contest, plain: Judgement, check: BatchCheck) -> tuple[str, ...]:
    notes = list(contest.notes)
    if contest.by_seed is None:
        notes.append("One seed: comparisons are of these trained models; another random seed may differ.")
    if contest.patients is not None:
        notes.append("Slides of a patient differ in label: slides are scored and errors are clustered by patient.")
    if check.note is not None and check.sentence is None:
        notes.append(check.note)
    for j, name in enumerate(contest.names):
        if find_auc_interval(plain.estimate, arm=j)[1] < 0.5:
            notes.append(
                f"{name}: AUC {plain.estimate.auc[j]:.3f}, its 95% interval wholly below 0.50: the order is reversed. "
                "Check for swapped labels, and which class is called positive."
            )
    return tuple(notes)
