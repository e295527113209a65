"""A study's work as a list of items: what each makes, what it comes after, what it takes. Nothing is opened here.

An item is plain data: any process that has the cohort, the design and the folder can do it. What it makes goes by
marks, which say what it was made of; an item is done where all its marks are there. `lamella.studies.plan` chooses
items within a budget, `walk` does them, `bench` and `findings` know how.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

from lamella.features.failures import Failure
from lamella.runs.bags import hash_json
from lamella.studies.arms import CHOSEN_ARMS, Arm
from lamella.studies.design import StudyDesign
from lamella.studies.prices import EncoderFacts, price_extraction, price_finetuning, price_training

EXTRACT, COST, TRAIN, FINETUNE, PERMUTE, CKA, LOCALISE = KINDS = (
    "extract", "cost", "train", "finetune", "permute", "cka", "localise"
)  # fmt: skip
OF_ARMS = (EXTRACT, COST, TRAIN, FINETUNE)
"""Kinds of work without which no arm is finished."""


class BagSet(NamedTuple):
    """The bags that arms of one encoder, depth, kind of weights and tile spec share."""

    tiles: str
    weights: str
    encoder: str
    depth: int

    @property
    def key(self) -> str:
        """How `costs.json` names it: `default/auto/resnet18@3`."""
        return f"{self.tiles}/{self.weights}/{self.encoder}@{self.depth}"

    @property
    def arm(self) -> Arm:
        """The arm that needs no more to be told apart from other bags."""
        return Arm(encoder=self.encoder, depth=self.depth, weights=self.weights, tiles=self.tiles)


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
        tiles_a_slide: Expected or counted, by tile spec; empty where work is listed without prices.
        done: What is finished, by the keys of marks: what it was made of; None where version 0.1.0 made it, which is
            taken at its word.
        slides: What tells the slides' files from others.
        table: What tells labels, patients, folds and splits from others.
        lesions: What tells the outlines from others; None where nothing is localised.
    """

    n_slides: int
    folds: tuple[int, ...]
    encoders: Mapping[BagSet, EncoderFacts]
    tiles_a_slide: Mapping[str, float]
    done: Mapping[str, str | None]
    slides: str = ""
    table: str = ""
    lesions: str | None = None

    def has(self, mark: Mark) -> bool:
        """Say whether what a mark speaks of is finished."""
        return mark.key in self.done and self.done[mark.key] in (None, mark.made_of)


class Engine(Protocol):
    """What does work, a method a kind: it does what is missing, and returns the slides that could not be done."""

    def extract(self, item: "WorkItem") -> Sequence[Failure]:
        """Make bags."""

    def cost(self, item: "WorkItem") -> Sequence[Failure]:
        """Measure what encoders cost."""

    def train(self, item: "WorkItem") -> Sequence[Failure]:
        """Train the heads of a frozen arm."""

    def finetune(self, item: "WorkItem") -> Sequence[Failure]:
        """Train on from a frozen arm in one fold."""

    def permute(self, item: "WorkItem") -> Sequence[Failure]:
        """Train on permuted labels."""

    def cka(self, item: "WorkItem") -> Sequence[Failure]:
        """Compare fine-tuned encoders with the frozen one."""

    def localise(self, item: "WorkItem") -> Sequence[Failure]:
        """Hold maps against outlines."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkItem:
    """One piece of work.

    Attributes:
        kind: One of `KINDS`.
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
        does = {
            EXTRACT: engine.extract,
            COST: engine.cost,
            TRAIN: engine.train,
            FINETUNE: engine.finetune,
            PERMUTE: engine.permute,
            CKA: engine.cka,
            LOCALISE: engine.localise,
        }
        return does[self.kind](self)


def bags_of(arm: Arm) -> BagSet:
    """Return the bags an arm reads."""
    return BagSet(tiles=arm.tiles, weights=arm.weights, encoder=arm.encoder, depth=arm.depth)


def base_of(arm: Arm) -> Arm:
    """Return the frozen arm that an arm goes on from; itself where it is frozen."""
    return replace(arm, finetuned="frozen")


def list_items(
    design: StudyDesign, facts: PlanFacts, chosen: Sequence[Arm], *, chooses: bool = False, marks: "Marks | None" = None
) -> tuple[WorkItem, ...]:
    """List the work for some arms, finished or not, each item after those that it takes up.

    Args:
        design: What is compared.
        facts: Of the cohort, the machine, and what is finished.
        chosen: The arms that are to run; the frozen arms they go on from are run for them.
        chooses: Whether in each fold the best of the frozen ones is fine-tuned.
        marks: Of this design and facts, where many lists are made of them.
    """
    return _List(design, facts, chosen, marks or Marks(design, facts)).list_all(chooses=chooses)


class Marks:
    """The marks of a design's work, each worked out once.

    Args:
        design: What is compared.
        facts: What slides and their table are told by.
    """

    def __init__(self, design: StudyDesign, facts: PlanFacts) -> None:
        self._cuts = {name: tiles.model_dump() for name, tiles in design.tiles.items()}
        self._train, self._tune = [design.seeds, design.train.model_dump()], design.finetune.model_dump()
        self._slides, self._table = facts.slides, facts.table
        self._known: dict[tuple[object, ...], Mark] = {}

    def of_bags(self, bags: BagSet) -> Mark:
        """Return the mark of bags."""
        if bags not in self._known:
            made_of = _hash(bags.arm.folder, self._cuts[bags.tiles], self._slides)
            self._known[bags] = Mark(f"bags {bags.arm.folder}", made_of)
        return self._known[bags]

    def of_training(self, arm: Arm) -> Mark:
        """Return the mark of a frozen arm's heads."""
        if (arm,) not in self._known:
            made_of = _hash(self.of_bags(bags_of(arm)).made_of, arm.head, self._train, self._table)
            self._known[arm,] = Mark(f"train {arm.folder}", made_of)
        return self._known[arm,]

    def of_tuning(self, base: Arm, fold: int, kind: str) -> Mark:
        """Return the mark of what went on from a frozen arm in a fold, `head` or `tuned`."""
        if (base, fold, kind) not in self._known:
            made_of = _hash(self.of_training(base).made_of, self._tune, fold, kind)
            self._known[base, fold, kind] = Mark(f"finetune {base.folder} fold{fold} {kind}", made_of)
        return self._known[base, fold, kind]

    def of_choice(self, frozen: Iterable[Arm], fold: int) -> Mark:
        """Return the mark of what went on from the best of some frozen arms in a fold."""
        made_of = _hash(sorted(self.of_training(arm).made_of for arm in frozen), self._tune, fold)
        return Mark(f"finetune chosen fold{fold}", made_of)


class _List:
    """The work for some arms, a method a kind."""

    def __init__(self, design: StudyDesign, facts: PlanFacts, chosen: Sequence[Arm], marks: Marks) -> None:
        self._design, self._facts, self._chosen, self._marks = design, facts, chosen, marks

        def by_cost(arm: Arm) -> tuple[float, str]:
            return facts.encoders[bags_of(arm)].gflops, arm.name

        self._by_base: dict[Arm, list[Arm]] = {}
        for arm in chosen:
            self._by_base.setdefault(base_of(arm), []).append(arm)
        self._bases = sorted(self._by_base, key=by_cost)
        self._groups: dict[tuple[str, str], dict[BagSet, None]] = {}
        for bags in dict.fromkeys(bags_of(arm) for arm in chosen):  # as the design has them
            self._groups.setdefault((bags.tiles, bags.weights), {})[bags] = None

    def list_all(self, *, chooses: bool) -> tuple[WorkItem, ...]:
        extractions = [self._extraction(*group) for group in self._groups]
        costs = [self._cost(*group) for group in self._groups]
        # A slide that cannot be encoded by one encoder is left out of all arms: heads wait for every extraction.
        before = tuple(item.key for item in extractions)
        trainings = [self._training(arm, before) for arm in self._bases]
        tunings = [item for arm in self._bases for item in self._list_finetunings(arm)]
        if chooses:
            tunings += self._list_choices(tunings)
        arms = (*costs, *trainings, *tunings)
        return (*extractions, *arms, *self._list_permutations(arms), *self._list_looks())

    def _serves(self, bags: Iterable[BagSet]) -> tuple[str, ...]:
        return tuple(arm.name for arm in self._chosen if bags_of(arm) in set(bags))

    def _extraction(self, tiles: str, weights: str) -> WorkItem:
        """Return one extraction: a tile is decoded once, and a network runs once for all its depths."""
        bags = tuple(self._groups[tiles, weights])
        missing = {own: self._facts.encoders[own] for own in bags if not self._facts.has(self._marks.of_bags(own))}
        n_tiles = self._facts.n_slides * self._facts.tiles_a_slide.get(tiles, 0.0) if missing else 0.0
        networks: dict[str, float] = {}
        for own, known in missing.items():
            networks[own.encoder] = max(networks.get(own.encoder, 0.0), known.seconds_per_tile)
        seconds, n_bytes = price_extraction(n_tiles, networks.values(), [known.dim for known in missing.values()])
        return WorkItem(
            kind=EXTRACT,
            key=f"extract {_say_group(tiles, weights)}",
            arms=self._serves(bags),
            makes=tuple(self._marks.of_bags(own) for own in bags),
            seconds=seconds if self._facts.tiles_a_slide else None,
            bags=bags,
            n_tiles=round(n_tiles),
            n_bytes=n_bytes,
        )

    def _cost(self, tiles: str, weights: str) -> WorkItem:
        bags = tuple(self._groups[tiles, weights])
        group = _say_group(tiles, weights)
        return WorkItem(
            kind=COST,
            key=f"cost {group}",
            arms=self._serves(bags),
            makes=tuple(Mark(f"cost {own.arm.folder}", "") for own in bags),
            after=(f"extract {group}",),
            bags=bags,
        )

    def _training(self, arm: Arm, after: tuple[str, ...]) -> WorkItem:
        mark = self._marks.of_training(arm)
        seconds = None
        if self._facts.tiles_a_slide:
            n_tiles = self._facts.n_slides * self._facts.tiles_a_slide[arm.tiles]
            dim = self._facts.encoders[bags_of(arm)].dim
            seconds = price_training(self._design, dim, self._facts.n_slides, n_tiles, len(self._facts.folds))
        return WorkItem(
            kind=TRAIN,
            key=f"train {arm.folder}",
            arms=tuple(other.name for other in self._by_base[arm]),
            makes=(mark,),
            after=after,
            seconds=0.0 if seconds is not None and self._facts.has(mark) else seconds,
            arm=arm,
        )

    def _list_finetunings(self, base: Arm) -> list[WorkItem]:
        """List an item a fold: tuned brings its head-only control along, all seeds are trained one after the other."""
        arms = [arm for arm in self._by_base[base] if arm.finetuned != "frozen"]
        if not arms:
            return []
        farthest = "tuned" if any(arm.finetuned == "tuned" for arm in arms) else "head"
        kinds = ("head", "tuned") if farthest == "tuned" else ("head",)
        return [
            WorkItem(
                kind=FINETUNE,
                key=f"finetune {base.folder} fold{fold}",
                arms=tuple(arm.name for arm in arms),
                makes=tuple(self._marks.of_tuning(base, fold, kind) for kind in kinds),
                after=(f"train {base.folder}",),
                seconds=self._price_finetuning(base, fold, kinds),
                arm=base,
                fold=fold,
                finetuned=farthest,
            )
            for fold in self._facts.folds
        ]

    def _price_finetuning(self, base: Arm, fold: int, kinds: Iterable[str]) -> float | None:
        facts = self._facts
        if not facts.tiles_a_slide:
            return None
        return sum(
            price_finetuning(
                self._design.finetune,
                replace(base, finetuned=kind),
                facts.encoders[bags_of(base)],
                n_slides=facts.n_slides,
                n_rounds=len(facts.folds),
                tiles_a_slide=facts.tiles_a_slide[base.tiles],
            )
            for kind in kinds
            if not facts.has(self._marks.of_tuning(base, fold, kind))
        )

    def _list_choices(self, planned: Sequence[WorkItem]) -> list[WorkItem]:
        """List the fine-tuning of what is best in each fold, which is not known yet: the dearest stands in for it."""
        frozen = [arm for arm in self._chosen if arm.finetuned == "frozen"]
        items = []
        for fold in self._facts.folds if frozen else ():
            mark = self._marks.of_choice(frozen, fold)
            anyway = {other.key for item in planned for other in item.makes}
            prices = []
            for base in frozen:
                kinds = [
                    kind for kind in ("head", "tuned") if self._marks.of_tuning(base, fold, kind).key not in anyway
                ]
                prices.append(self._price_finetuning(base, fold, kinds))
            known = [price for price in prices if price is not None]
            items.append(
                WorkItem(
                    kind=FINETUNE,
                    key=f"finetune the arm chosen in fold{fold}",
                    arms=tuple(arm.name for arm in CHOSEN_ARMS),
                    makes=(mark,),
                    after=tuple(f"train {arm.folder}" for arm in frozen),
                    seconds=(0.0 if self._facts.has(mark) else max(known)) if known else None,
                    fold=fold,
                    finetuned="tuned",
                )
            )
        return items

    def _list_permutations(self, before: Sequence[WorkItem]) -> list[WorkItem]:
        """List the control with permuted labels: of the declared arm, else of the one that will be shown."""
        design = self._design
        frozen = [arm for arm in self._chosen if arm.finetuned == "frozen"]
        if not design.permutations or not frozen:
            return []
        control = next((arm for arm in frozen if arm.name == design.control_arm), None)
        if control is not None:
            made_of = _hash(design.permutations, self._marks.of_training(control))
            key, before = (
                f"permute {control.folder}",
                [item for item in before if item.key == f"train {control.folder}"],
            )
        else:  # which arm is shown hangs on all of them
            made = sorted(mark for item in before for mark in item.makes)
            made_of = _hash(design.permutations, design.margin, design.reference, made)
            key = "permute the arm that is shown"
        return [
            WorkItem(
                kind=PERMUTE,
                key=key,
                arms=(),
                makes=(Mark("permute", made_of),),
                after=tuple(item.key for item in before),
                arm=control,
                is_unsettled=control is None and not all(item.is_done(self._facts) for item in before),
            )
        ]

    def _list_looks(self) -> list[WorkItem]:
        """List what is looked at in an arm's networks: CKA of tuned ones, localisation of all but the control."""
        items = []
        for kind, arms in (
            (CKA, [arm for arm in self._chosen if self._design.cka and arm.finetuned == "tuned"]),
            (LOCALISE, [arm for arm in self._chosen if self._facts.lesions is not None and arm.finetuned != "head"]),
        ):
            for arm in arms:
                base, folds = base_of(arm), self._facts.folds if arm.finetuned == "tuned" else ()
                after = [f"finetune {base.folder} fold{fold}" for fold in folds] or [f"train {base.folder}"]
                made = [self._marks.of_training(base), *(self._marks.of_tuning(base, fold, "tuned") for fold in folds)]
                asked = [] if kind == CKA else [self._facts.lesions, self._design.cam]
                items.append(
                    WorkItem(
                        kind=kind,
                        key=f"{kind} {arm.folder}",
                        arms=(arm.name,),
                        makes=(Mark(f"{kind} {arm.folder}", _hash(made, asked)),),
                        after=tuple(after),
                        arm=arm,
                    )
                )
        return items


def _say_group(tiles: str, weights: str) -> str:
    """Return how bags of a tile spec and a kind of weights are called: `default`, `20x-random`."""
    name = Arm(encoder="bags", weights=weights, tiles=tiles).folder.removeprefix("bags@4").removeprefix("-")
    return name or "default"


def _hash(*content: object) -> str:
    return hash_json(content)[:16]
