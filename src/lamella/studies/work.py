"""A study's work is a list of items: what each makes, what it comes after, what it takes.

An item is plain data: any process that has the cohort, the design and the folder can do it. What it makes goes by
marks, which say what it was made of; an item is done where all its marks are there. `lamella.studies.listing`
lists them, `plan` chooses within a budget, `walk` does them, `bench` and `findings` know how.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple, Protocol

from lamella.features.failures import Failure
from lamella.studies.arms import Arm
from lamella.studies.prices import EncoderFacts

EXTRACT, COST, TRAIN, FINETUNE = "extract", "cost", "train", "finetune"
PERMUTE, CKA, LOCALISE = "permute", "cka", "localise"
OF_ARMS = (EXTRACT, COST, TRAIN, FINETUNE)
"""Kinds of work without which no arm is finished."""


class BagSet(NamedTuple):
    """The bags that arms of one encoder, depth, kind of weights, tile spec and number of tiles share."""

    tiles: str
    weights: str
    encoder: str
    depth: int
    features: str = ""
    tiles_per_slide: int = 0

    @property
    def whole(self) -> "BagSet":
        """The bags of all tiles of the same encoder, which cost as much a tile."""
        return self._replace(tiles_per_slide=0)

    @property
    def counted(self) -> str:
        """What their tiles are counted by: the tile spec, or the folder of bags that are there."""
        return self.features or self.tiles

    @property
    def key(self) -> str:
        """How `costs.json` names it: `default/auto/resnet18@3`."""
        return f"{self.tiles}/{self.weights}/{self.arm.trunk}"

    @property
    def arm(self) -> Arm:
        """The arm that needs no more to be told apart from other bags."""
        return Arm(**self._asdict())


class Mark(NamedTuple):
    """What finished work leaves: what was made, and a hash of what it was made of."""

    key: str
    made_of: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanFacts:
    """What work is listed and priced from.

    Attributes:
        n_slides: Of the cohort.
        folds: Numbers of the rounds.
        encoders: By bag set, for every arm of the design.
        tiles_a_slide: Expected or counted, by tile spec or folder of bags; empty where work is listed without prices.
        done: What is finished, by the keys of marks: what it was made of; None where version 0.1.0 made it, which is
            taken at its word.
        slides: What tells the slides' files from others.
        table: What tells labels, patients, folds and splits from others.
        lesions: What tells the outlines from others; None where nothing is localised.
        features: What tells folders of bags that are there from others, by folder.
    """

    n_slides: int
    folds: tuple[int, ...]
    encoders: Mapping[BagSet, EncoderFacts]
    tiles_a_slide: Mapping[str, float]
    done: Mapping[str, str | None]
    slides: str = ""
    table: str = ""
    lesions: str | None = None
    features: Mapping[str, str] = field(default_factory=dict)

    def count_tiles(self, bags: BagSet) -> float:
        """Return how many tiles of a slide some bags hold, on average; 0 where that is not known."""
        counted = self.tiles_a_slide.get(bags.counted, 0.0)
        return min(counted, bags.tiles_per_slide) if bags.tiles_per_slide else counted

    def has(self, mark: Mark) -> bool:
        """Say whether what a mark speaks of is finished."""
        return mark.key in self.done and self.done[mark.key] in (None, mark.made_of)


class Engine(Protocol):
    """What does work."""

    def do(self, item: "WorkItem") -> Sequence[Failure]:
        """Do what is missing of an item; return the slides that could not be done."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkItem:
    """One piece of work.

    Attributes:
        kind: `extract`, `cost`, `train`, `finetune`, `permute`, `cka` or `localise`.
        key: Its name in the list, as the plan prints it: `finetune resnet18@3 fold0`.
        arms: Names of the arms that it serves.
        makes: What it leaves when it is finished.
        after: Keys of the items whose work it takes up.
        seconds: Expected, of what is missing; None where that is not priced.
        bags: What is extracted, or whose cost is measured.
        arm: Whose heads, folds or maps; None: whichever is chosen once the items before are done (`finetune`: in the
            fold; `permute`: the arm that is shown).
        fold: Which round is fine-tuned.
        finetuned: How far: `head`, or `tuned`, which brings its control along.
        n_tiles: Tiles that are decoded.
        n_bytes: Disk for the bags.
        is_unsettled: Whether it hangs on work that is not finished, so that what is there may be of another arm.
    """

    kind: str
    key: str
    arms: tuple[str, ...]
    makes: tuple[Mark, ...]
    after: tuple[str, ...] = ()
    seconds: float | None = None
    bags: tuple[BagSet, ...] = ()
    arm: Arm | None = None
    fold: int | None = None
    finetuned: str = "frozen"
    n_tiles: int = 0
    n_bytes: int = 0
    is_unsettled: bool = False

    def is_done(self, facts: PlanFacts) -> bool:
        """Say whether all that it makes is there."""
        return not self.is_unsettled and all(facts.has(mark) for mark in self.makes)

    def run(self, engine: Engine) -> Sequence[Failure]:
        """Do it; return the slides that could not be done."""
        return engine.do(self)


def bags_of(arm: Arm) -> BagSet:
    """Return the bags an arm reads."""
    return BagSet(**{name: getattr(arm, name) for name in BagSet._fields})


def find_source(bags: BagSet, others: Iterable[BagSet]) -> BagSet:
    """Return the bags of the same encoder with the most tiles, of which those of fewer tiles are rows."""
    same = [other for other in others if other.whole == bags.whole]
    return max(same, key=lambda other: other.tiles_per_slide or math.inf)


def base_of(arm: Arm) -> Arm:
    """Return the frozen arm that an arm goes on from; itself where it is frozen."""
    return replace(arm, finetuned="frozen")
