"""Listing a study's work with its prices: arithmetic over facts, nothing is opened."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from lamella.runs.bags import hash_json
from lamella.studies.arms import CHOSEN_ARMS, Arm, Finetuned
from lamella.studies.design import StudyDesign
from lamella.studies.prices import price_extraction, price_finetuning, price_training
from lamella.studies.work import (
    CKA,
    COST,
    EXTRACT,
    FINETUNE,
    LOCALISE,
    PERMUTE,
    TRAIN,
    BagSet,
    Mark,
    PlanFacts,
    WorkItem,
    bags_of,
    base_of,
    find_source,
)


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
        self._slides, self._table, self._features = facts.slides, facts.table, facts.features
        self._known: dict[tuple[object, ...], Mark] = {}

    def of_bags(self, bags: BagSet) -> Mark:
        """Return the mark of bags."""
        if bags not in self._known:
            if bags.features:
                made_of = _hash(bags.arm.folder, self._features.get(bags.features, ""))
            else:
                made_of = _hash(bags.arm.folder, self._cuts[bags.tiles], self._slides)
            self._known[bags] = Mark(f"bags {bags.arm.folder}", made_of)
        return self._known[bags]

    def of_training(self, arm: Arm) -> Mark:
        """Return the mark of a frozen arm's heads."""
        if (arm,) not in self._known:
            width = [arm.width] if arm.width else []
            made_of = _hash(self.of_bags(bags_of(arm)).made_of, arm.head, self._train, self._table, *width)
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
        self._groups: dict[str, list[BagSet]] = {}  # by what is extracted in one pass into one folder
        self._priced: dict[str, tuple[list[BagSet], list[str]]] = {}  # whose costs are measured in turn, after what
        every = list(dict.fromkeys(bags_of(arm) for arm in chosen if not arm.features))
        for bags in every:
            weights = Arm(encoder="", weights=bags.weights).name.removeprefix("@4")
            most = find_source(bags, every).tiles_per_slide
            group, name = f"{bags.tiles}{weights}{f', {most} tiles' if most else ''}", f"{bags.tiles}{weights}"
            self._groups.setdefault(group, []).append(bags)
            encoders, after = self._priced.setdefault(name, ([], []))
            encoders.append(bags.whole)
            after.append(f"extract {group}")

    def list_all(self, *, chooses: bool) -> tuple[WorkItem, ...]:
        extractions = [self._extraction(name, tuple(bags)) for name, bags in self._groups.items()]
        costs = [self._cost(name, *lists) for name, lists in self._priced.items()]
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

    def _extraction(self, name: str, bags: tuple[BagSet, ...]) -> WorkItem:
        """Return one extraction: a tile is decoded once, and a network runs once for all its depths.

        Bags of fewer tiles are rows of those of the most.
        """
        missing = {kept: self._facts.encoders[kept] for kept in bags if not self._facts.has(self._marks.of_bags(kept))}
        n_tiles = self._facts.n_slides * self._facts.count_tiles(find_source(bags[0], bags)) if missing else 0.0
        networks: dict[tuple[str, str], float] = {}
        for kept, known in missing.items():
            network = (kept.encoder, kept.weights)
            networks[network] = max(networks.get(network, 0.0), known.seconds_per_tile)
        seconds, n_bytes = price_extraction(
            n_tiles,
            networks.values(),
            [(self._facts.n_slides * self._facts.count_tiles(kept), known.dim) for kept, known in missing.items()],
        )
        return WorkItem(
            kind=EXTRACT,
            key=f"extract {name}",
            arms=self._serves(bags),
            makes=tuple(self._marks.of_bags(kept) for kept in bags),
            seconds=seconds if self._facts.tiles_a_slide else None,
            bags=bags,
            n_tiles=round(n_tiles),
            n_bytes=n_bytes,
        )

    def _cost(self, name: str, encoders: Iterable[BagSet], after: Iterable[str]) -> WorkItem:
        bags = tuple(dict.fromkeys(encoders))
        return WorkItem(
            kind=COST,
            key=f"cost {name}",
            arms=tuple(arm.name for arm in self._chosen if bags_of(arm).whole in bags),
            makes=tuple(Mark(f"cost {own.arm.folder}", "") for own in bags),
            after=tuple(dict.fromkeys(after)),
            bags=bags,
        )

    def _training(self, arm: Arm, after: tuple[str, ...]) -> WorkItem:
        mark = self._marks.of_training(arm)
        seconds = None
        if self._facts.tiles_a_slide:
            n_tiles = self._facts.n_slides * self._facts.count_tiles(bags_of(arm))
            dim = self._facts.encoders[bags_of(arm)].dim
            dim = min(dim, arm.width or dim)
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
        kinds: tuple[Finetuned, ...] = ("head", "tuned") if farthest == "tuned" else ("head",)
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

    def _price_finetuning(self, base: Arm, fold: int, kinds: Iterable[Finetuned]) -> float | None:
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
                tiles_a_slide=facts.count_tiles(bags_of(base)),
            )
            for kind in kinds
            if not facts.has(self._marks.of_tuning(base, fold, kind))
        )

    def _list_choices(self, planned: Sequence[WorkItem]) -> list[WorkItem]:
        """List the fine-tuning of what is best in each fold, which is not known yet: the dearest stands in for it."""
        frozen = [arm for arm in self._chosen if arm.finetuned == "frozen" and not arm.features and not arm.width]
        items = []
        for fold in self._facts.folds if frozen else ():
            mark = self._marks.of_choice(frozen, fold)
            anyway = {other.key for item in planned for other in item.makes}
            prices = []
            for base in frozen:
                both: tuple[Finetuned, ...] = ("head", "tuned")
                kinds = [kind for kind in both if self._marks.of_tuning(base, fold, kind).key not in anyway]
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
            arms = [arm for arm in arms if not arm.features]  # their networks are not here
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


def _hash(*content: object) -> str:
    return hash_json(content)[:16]
