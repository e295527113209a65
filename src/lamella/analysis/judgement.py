"""What the rules say of all arms, over pairs of one kind: of the same fold, or of the same fold and batch."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lamella.analysis.auc import AucEstimate, estimate_auc, find_auc_interval
from lamella.analysis.chains import Chain, find_chain_margins, judge_chains
from lamella.analysis.choices import find_cheapest, guess_best
from lamella.analysis.comparisons import LEVEL, adjust_holm, compare_declared, judge_against_chance
from lamella.analysis.differences import Differences, find_differences
from lamella.analysis.maxt import ALPHA, Z, find_critical
from lamella.analysis.noninferior import find_margins, find_noninferior, find_worse
from lamella.analysis.sample_size import PatientsNeeded, Question, find_patients_needed
from lamella.analysis.verdict import DeclaredTable, PlannedTable

Floats = NDArray[np.float64]
LEAST_PATIENTS = 10
"""Patients of a class in pairs, below which nothing is said."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Rules:
    """What is asked, declared beforehand.

    Attributes:
        margin: How much AUC may be given up.
        chains: Depths held against their whole network; the reference question is asked where there is one.
        costs: `(J,)` of the arms, in one unit.
        gflops: `(J,)` arithmetic a tile.
    """

    margin: float
    chains: tuple[Chain, ...]
    costs: Floats
    gflops: Floats


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class ScoredArms:
    """All arms on the same units.

    Attributes:
        names: Of the arms.
        logits: `(J, n, C)` float64, averaged over seeds.
        targets: `(n,)` class of each unit.
        patients: `(n,)` where units are slides; None where they are patients.
        n_rounds: Models that trained on each other's test units; 1 for a test set.
        seed_auc: `(J, S)` AUC of each arm in each seed; None leaves the noise of training out.
    """

    names: tuple[str, ...]
    logits: Floats
    targets: NDArray[np.int64]
    patients: NDArray[np.int64] | None
    n_rounds: int
    seed_auc: Floats | None


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Judgement:
    """What the rules say of all arms.

    Attributes:
        rules: What was asked.
        estimate: AUCs and their errors.
        differences: None where no spread can be seen.
        n_least: Patients of the rarest class that stand in a pair.
        chance_p: `(J,)` p against chance, one-sided.
        chance_holm: The same, adjusted over arms.
        noninferior: `(J,)` arms that are non-inferior to every other (the contest).
        margins: `(J,)` the smallest margin at which each is.
        worse: `(J, J)` row i is shown to be worse than column b.
        accepted: Of each chain, the depths that are non-inferior to the whole network.
        chain_margins: Of each chain, the smallest margin at which each depth is.
        tables: The declared comparisons, as `compare_declared` has them.
    """

    rules: Rules
    estimate: AucEstimate
    differences: Differences | None
    n_least: int
    chance_p: Floats
    chance_holm: tuple[float, ...]
    noninferior: NDArray[np.bool_]
    margins: Floats
    worse: NDArray[np.bool_]
    accepted: tuple[tuple[int, ...], ...]
    chain_margins: tuple[Floats, ...]
    tables: tuple[DeclaredTable, ...]

    @property
    def reference(self) -> bool:
        """Whether the reference question is the first one: whether a network may be cut."""
        return bool(self.rules.chains)

    @property
    def still_in(self) -> list[int]:
        """Arms that are not shown to be worse than any."""
        return np.flatnonzero(~self.worse.any(axis=1)).tolist()

    def beats_chance(self, arm: int) -> bool:
        """Whether an arm is itself shown to do better than chance."""
        return self.chance_holm[arm] < LEVEL

    def find_chosen(self, chain: int) -> int | None:
        """Return the last accepted depth of a chain that beats chance; None where there is none."""
        return next((arm for arm in reversed(self.accepted[chain]) if self.beats_chance(arm)), None)

    def find_winner(self) -> int | None:
        """Return the cheapest arm that wins the contest and beats chance; None where there is none."""
        winners = [int(i) for i in np.flatnonzero(self.noninferior) if self.beats_chance(int(i))]
        return find_cheapest(winners, self.rules.costs, self.rules.gflops)

    def find_widest_margin(self, arm: int) -> float:
        """Return the widest margin that makes sense of an arm's signal: half of what it is surely above chance."""
        return max(0.0, (find_auc_interval(self.estimate, arm=arm)[0] - 0.5) / 2)

    @property
    def reachable_margin(self) -> float | None:
        """The bound below which no data from so many patients can come; None where no spread can be seen."""
        return None if self.differences is None else Z * float(np.sqrt(self.differences.disagreement))

    def find_kind(self, *, chain: int | None) -> str:
        """Return what can be said: of a chain's question, or of the contest (None).

        Returns:
            "too few", "one arm", "no signal", "inconclusive", "no own signal" (accepted, but not shown to beat chance),
            "margin too wide", "non-inferior" (and the cheapest that could be) or "only" (cheaper ones are not shown).
        """
        everyone = list(range(len(self.estimate.auc)))
        if self.n_least < LEAST_PATIENTS or self.differences is None:
            return "too few"
        if not any(self.beats_chance(i) for i in everyone):
            return "no signal"
        if len(everyone) == 1:
            return "one arm"
        if chain is None:
            accepted, chosen = np.flatnonzero(self.noninferior).tolist(), self.find_winner()
            reference, last = (
                int(self.estimate.auc.argmax()),
                find_cheapest(everyone, self.rules.costs, self.rules.gflops),
            )
        else:
            accepted, chosen = list(self.accepted[chain]), self.find_chosen(chain)
            reference, last = self.rules.chains[chain].whole, self.rules.chains[chain].cuts[-1]
        if not accepted:
            return "inconclusive"
        if self.rules.margin > self.find_widest_margin(reference):
            return "margin too wide"
        if chosen is None:
            return "no own signal"
        return "non-inferior" if chosen == last else "only"

    def find_recommended(self) -> int | None:
        """Return the arm that is recommended: of the one chain, else of the contest; None where none is."""
        chain = 0 if len(self.rules.chains) == 1 else None
        kind = self.find_kind(chain=chain)
        if kind == "one arm":
            return 0
        if kind not in ("non-inferior", "only"):
            return None
        return self.find_winner() if chain is None else self.find_chosen(chain)

    def guess(self) -> int | None:
        """Return the best guess, which is not shown: among the arms still in."""
        if self.differences is None:
            return None
        return guess_best(self.differences, self.still_in, self.rules.costs, self.rules.gflops)

    def find_question(self) -> tuple[int, Question] | None:
        """Return what more patients would settle: the arm that is asked for, and what has to be shown of it.

        The cheapest arm that is not shown to be worse than another; of a chain the last depth before one that is. None
        where it is shown already, or none is left.
        """
        if self.differences is None or len(self.estimate.auc) < 2:
            return None
        return self._ask_chain(0) if len(self.rules.chains) == 1 else self._ask_contest()

    def _ask_chain(self, number: int) -> tuple[int, Question] | None:
        chain = self.rules.chains[number]
        asked: list[int] = []
        for cut in chain.cuts:
            if self.worse[cut].any():
                break
            asked.append(cut)
        if not asked or asked[-1] in self.accepted[number]:
            return None
        question = Question(
            arms=tuple(asked),
            others=(chain.whole,) * len(asked),
            critical=np.full(len(asked), Z),
            margin=self.rules.margin,
        )
        return asked[-1], question

    def _ask_contest(self) -> tuple[int, Question] | None:
        assert self.differences is not None
        still = np.array(self.still_in, dtype=np.int64)
        arm = find_cheapest(still.tolist(), self.rules.costs, self.rules.gflops)
        if arm is None or self.noninferior[arm]:
            return None
        others = [b for b in range(len(self.estimate.auc)) if b != arm and not self.worse[b, arm]]
        if not others:
            return None
        critical = [find_critical(self.differences, b, still[still != b], level=ALPHA) for b in others]
        question = Question(
            arms=(arm,) * len(others), others=tuple(others), critical=np.array(critical), margin=self.rules.margin
        )
        return arm, question


def judge_pairs(
    arms: ScoredArms, cells: NDArray[np.int64], rules: Rules, tables: Sequence[PlannedTable] = ()
) -> Judgement | None:
    """Return what the rules say over pairs of the same cell; None where no cell holds two classes.

    Args:
        arms: On the same units.
        cells: `(n,)` fold of each unit, or fold and batch.
        rules: What is asked.
        tables: Declared comparisons.
    """
    names, targets = list(arms.names), arms.targets
    estimate = estimate_auc(arms.logits, targets, folds=cells, patients=arms.patients, n_rounds=arms.n_rounds)
    if estimate is None:
        return None
    differences = find_differences(estimate, seed_auc=arms.seed_auc)
    chance = judge_against_chance(estimate)
    n_arms = len(estimate.auc)
    noninferior, margins = np.zeros(n_arms, dtype=bool), np.ones(n_arms)
    worse = np.zeros((n_arms, n_arms), dtype=bool)
    accepted: list[tuple[int, ...]] = [() for _ in rules.chains]
    chain_margins: list[Floats] = [np.ones(len(chain.cuts)) for chain in rules.chains]
    if differences is not None:
        noninferior, margins = find_noninferior(differences, rules.margin), find_margins(differences)
        margins = np.where(noninferior, np.minimum(margins, rules.margin), margins)
        worse = find_worse(differences)
        accepted = judge_chains(differences, rules.chains, rules.margin)
        for number, chain in enumerate(rules.chains):
            margins_of_chain = find_chain_margins(differences, chain)
            passed = np.isin(chain.cuts, accepted[number])
            chain_margins[number] = np.where(passed, np.minimum(margins_of_chain, rules.margin), margins_of_chain)
    compared = compare_declared(differences, names, tables)
    for pair in (pair for table in compared for pair in table.rows if pair.starred):
        ends = names.index(pair.arm), names.index(pair.base)
        worse[ends if pair.difference < 0 else ends[::-1]] = True
    return Judgement(
        rules=rules,
        estimate=estimate,
        differences=differences,
        n_least=count_least(arms.logits.shape[-1], targets, cells, arms.patients),
        chance_p=chance,
        chance_holm=tuple(adjust_holm(chance.tolist())),
        noninferior=noninferior,
        margins=margins,
        worse=worse,
        accepted=tuple(accepted),
        chain_margins=tuple(chain_margins),
        tables=tuple(compared),
    )


def count_least(
    n_classes: int, targets: NDArray[np.int64], cells: NDArray[np.int64], patients: NDArray[np.int64] | None
) -> int:
    """Return how many patients of the rarest class stand in a pair: with another class in their cell."""
    mixed = [cell for cell in np.unique(cells) if len(set(targets[cells == cell].tolist())) > 1]
    inside = np.isin(cells, mixed)
    units = np.arange(len(targets)) if patients is None else patients
    return min(len(set(units[inside & (targets == c)].tolist())) for c in range(n_classes))


def find_needed(
    judgement: Judgement, targets: NDArray[np.int64], patients: NDArray[np.int64] | None
) -> tuple[int, PatientsNeeded] | None:
    """Return which arm more patients would settle, and how many; None where that cannot be said."""
    kind = judgement.find_kind(chain=0 if len(judgement.rules.chains) == 1 else None)
    asked = judgement.find_question()
    if asked is None or judgement.differences is None or kind in ("too few", "no signal", "margin too wide"):
        return None
    needed = find_patients_needed(
        judgement.estimate, judgement.differences, asked[1], targets=targets, patients=patients
    )
    return None if needed is None else (asked[0], needed)
