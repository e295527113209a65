"""What `verdict.json` and `external.json` hold, as models; docs/formats.md says what each field is.

Fields with a default are those that version 0.1.0 did not write, or that are not always there.
"""

from collections.abc import Sequence
from typing import TypedDict

from lamella.analysis.figure import Interval
from lamella.records import Record, Result


class PlannedTable(TypedDict):
    """A table of comparisons as it is declared: its `rows` are pairs of arm and base."""

    name: str
    title: str
    rows: Sequence[tuple[str, str]]


class ArmVerdict(Record):
    """What is known of an arm: AUCs over pairs of the same fold, statements over the pairs that rule.

    `cost` and `gflops` are None where the judge was given no costs.
    """

    arm: str
    auc: float
    interval: Interval
    auc_pooled: float | None = None
    auc_pooled_interval: Interval | None = None
    chance_p: float | None = None
    chance_p_holm: float | None = None
    deficit: float | None = None
    deficit_upper: float | None = None
    not_worse: bool
    margin_to_whole: float | None = None
    worse_than: tuple[str, ...] = ()
    expected_loss: float | None = None
    cost: float | None
    gflops: float | None
    added_later: bool = False
    auc_within_batch: float | None = None
    interval_within_batch: Interval | None = None
    fold_auc: tuple[float | None, ...] = ()
    fold_sd: float | None = None
    seed_auc: tuple[float | None, ...] = ()
    seed_sd: float | None = None


class DeclaredPair(Record):
    """One arm against another, as declared; p adjusted by Holm within the table."""

    arm: str
    base: str
    difference: float
    standard_error: float | None = None
    interval: Interval | None
    p: float | None
    p_holm: float | None
    starred: bool


class DeclaredTable(Record):
    """A declared table, with the pairs that ran."""

    name: str
    title: str
    rows: tuple[DeclaredPair, ...]

    @property
    def declared(self) -> PlannedTable:
        """The table without its figures."""
        return {"name": self.name, "title": self.title, "rows": [(row.arm, row.base) for row in self.rows]}


class ChainStep(Record):
    """A depth against its whole network; `margin` is the smallest at which it is non-inferior."""

    arm: str
    loss: float | None
    interval: Interval | None
    margin: float | None
    accepted: bool


class ChainVerdict(Record):
    """The depths of one network, in the order in which they are tested."""

    whole: str
    kind: str = ""
    arm: str | None = None
    steps: tuple[ChainStep, ...] = ()


class ContestVerdict(Record):
    """Which arm of all: the cheapest that is non-inferior to every other."""

    kind: str
    arm: str | None
    noninferior: tuple[str, ...]


class Rung(Record):
    """The arms that are non-inferior to every other at a margin, the cheapest first."""

    margin: float
    arm: str | None = None
    noninferior: tuple[str, ...] = ()


class BatchBaseline(Record):
    """What the batch alone reaches, and its p against chance."""

    auc: float
    interval: Interval
    p: float


class BatchVerdict(Record):
    """Which pairs rule, and why."""

    pairs: str
    reason: str | None
    baseline: BatchBaseline | None
    kind_over_all_pairs: str
    n_least_within: int
    note: str | None


class ShownWorse(Record):
    """An arm that is shown to be worse than another."""

    arm: str
    than: str


class Conclusion(Record):
    """What to use, what is shown to be worse, what is open; empty where no arm ran."""

    kind: str | None = None
    arm: str | None = None
    question: str | None = None
    sentence: str | None = None
    use: str | None = None
    worse: str | None = None
    open: str | None = None
    shown_worse: tuple[ShownWorse, ...] = ()
    still_in: tuple[str, ...] = ()
    best_guess: str | None = None
    patients_needed: int | None = None
    patients_range: tuple[int, int | None] | None = None
    patients_needed_for: str | None = None
    reachable_margin: float | None = None
    best_arm: str | None = None
    best_auc_raw: float | None = None
    best_auc_corrected: float | None = None


class RankCorrelation(Record):
    """How AUC goes with ImageNet accuracy."""

    rho: float
    p: float
    interval: Interval | None = None
    n: int | None = None
    caption: str


class Summary(Record):
    """A verdict in short."""

    kind: str | None
    arm: str | None
    use: str | None


class Verdict(Result):
    """What `verdict.json` holds. `lost_as_wrong` is the verdict with lost patients counted as misclassified."""

    margin: float
    n_patients: int
    n_units: int | None = None
    units: str = "patients"
    n_per_class: tuple[int, ...] = ()
    cross_validated: bool = True
    n_rounds: int | None = None
    n_seeds: int | None = None
    arms: tuple[ArmVerdict, ...] = ()
    tables: tuple[DeclaredTable, ...] = ()
    chains: tuple[ChainVerdict, ...] = ()
    contest: ContestVerdict | None = None
    ladder: tuple[Rung, ...] = ()
    batches: BatchVerdict | None = None
    verdict: Conclusion
    imagenet: RankCorrelation | None = None
    notes: tuple[str, ...] = ()
    n_lost: int | None = None
    lost_as_wrong: Summary | None = None

    @property
    def summary(self) -> Summary:
        """The verdict in short."""
        return Summary(kind=self.verdict.kind, arm=self.verdict.arm, use=self.verdict.use)


class ExternalClaim(Record):
    """What was recommended, and the whole network that it holds against; None where it holds against all."""

    arm: str | None
    against: str | None


class ExternalArm(Record):
    """What an arm reaches on new patients, its loss against the whole network, and its answer."""

    arm: str
    auc: float
    interval: Interval
    chance_p_holm: float | None
    auc_within_batch: float | None
    interval_within_batch: Interval | None
    worse_than: tuple[str, ...]
    cost: float | None
    loss: float | None
    loss_interval: Interval | None
    smallest_margin: float | None
    answer: str | None


class ExternalVerdict(Result):
    """Whether what was recommended holds for new patients: `answer` is None where nothing was."""

    answer: str | None
    sentence: str
    claim: ExternalClaim
    margin: float
    n_patients: int
    units: str
    n_per_class: tuple[int, ...]
    cross_validated: bool
    arms: tuple[ExternalArm, ...]
    batches: BatchVerdict | None
    notes: tuple[str, ...]
    n_lost: int | None = None
    lost_as_wrong: Summary | None = None

    @property
    def summary(self) -> Summary:
        """The answer in short."""
        return Summary(kind=self.answer, arm=self.claim.arm, use=self.sentence)
