"""Marks: what a chart draws, flat rows of names and numbers, so that a data file can hold them and give them back."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmMark:
    """An arm or a baseline.

    Attributes:
        name: What it is called.
        auc: Its AUC.
        low: Lower end of its interval; None draws the estimate alone.
        high: Upper end.
        folds: AUC of each fold, drawn as dots.
        cost: Seconds a slide, above 0.
        number: Its number in the chart of cost.
        series: Arms of one encoder, weights and head that differ in depth or tuning; they share a line.
        finetuned: `frozen`, `head` or `tuned`.
        emphasised: Whether it is recommended or of highest AUC.
    """

    name: str
    auc: float
    low: float | None = None
    high: float | None = None
    folds: tuple[float, ...] = ()
    cost: float = 1.0
    number: int = 0
    series: str = ""
    finetuned: str = "frozen"
    emphasised: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreMark:
    """The score of one slide or patient, for one class against the rest.

    Attributes:
        series: Whose score, or of which class.
        label: Its label.
        is_positive: Whether that is the class that is scored.
        score: Probability of that class, 0 to 1.
        fold: Round in which it was tested.
    """

    series: str
    label: str
    is_positive: bool
    score: float
    fold: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockMark:
    """A value at one block of an encoder.

    Attributes:
        series: What it is of.
        block: Number of the block, from 1.
        value: CKA.
        low: Lower end of its interval, where known.
        high: Upper end.
    """

    series: str
    block: int
    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PairMark:
    """CKA of a block of one encoder with a block of another.

    Attributes:
        first: Block of the first encoder, from 1.
        second: Block of the second.
        value: CKA.
    """

    first: int
    second: int
    value: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PermutedMark:
    """One run on permuted labels, or the arm's own.

    Attributes:
        series: `own`, `all pairs` or `exchanged only`.
        auc: What it reached.
    """

    series: str
    auc: float


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetMark:
    """An arm that reads so many tiles of a slide.

    Attributes:
        series: The arm without its number of tiles; arms that differ in that alone share a line.
        n_tiles: How many it reads, mean over slides, above 0.
        auc: Its AUC.
        low: Lower end of its interval, where known.
        high: Upper end.
    """

    series: str
    n_tiles: float
    auc: float
    low: float | None = None
    high: float | None = None


Mark = ArmMark | ScoreMark | BlockMark | PairMark | PermutedMark | BudgetMark
