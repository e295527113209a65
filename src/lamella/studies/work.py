"""Pieces of a study's work and what each takes: arithmetic over facts, nothing is opened or built.

Times are for the most epochs; early stopping makes them shorter.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from lamella.studies.arms import Arm
from lamella.studies.design import StudyDesign

_HIDDEN = 256  # width of the head's first layer, which holds nearly all its arithmetic
_STEP_S = 0.001  # what a step of training takes beside the first layer
_COST_TILES = 64 * 6  # tiles of `costs.json`, times the runs, the first one included
_BYTES_BESIDE = 16  # of a tile in a bag: its corner
_CKA_TILES = 64  # tiles of each test slide
_N_PICTURES = 12  # slides with maps on the page
# Torch, with gradients or all blocks' activations, beside the fastest runtime; seen on the UCSB fields: 3 to 5.
_TORCH_SLOWER = 4.0
CHOSEN_KEY = "finetune chosen"
"""How a plan names the fine-tuning of what is best in each fold."""
OPTIONAL = ("permute", "cka", "localise", "maps")
"""Kinds of work that no arm needs to be finished."""


class BagSet(NamedTuple):
    """The bags that arms of one encoder, depth, kind of weights and tile spec share."""

    tiles: str
    weights: str
    encoder: str
    depth: int

    @property
    def key(self) -> str:
        """How finished work names it: `default/auto/resnet18@3`."""
        return f"{self.tiles}/{self.weights}/{self.encoder}@{self.depth}"


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderFacts:
    """What is known of an encoder at one depth, on one tile spec.

    Attributes:
        gflops: Billions of operations a tile.
        gflops_below: The same of each shallower depth, from 1; empty where it cannot be cut.
        dim: Width of its embedding.
        seconds_per_tile: Alone on this machine.
        command: What gets its weights; None where they are here.
    """

    gflops: float
    dim: int
    seconds_per_tile: float
    gflops_below: tuple[float, ...] = ()
    command: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanFacts:
    """What a plan is made from.

    Attributes:
        n_slides: Of the cohort.
        n_rounds: Folds, or 1 for one split.
        tiles_a_slide: Expected or counted, by tile spec.
        encoders: By bag set, for every arm of the design and the frozen arms they go on from.
        done: Keys of what is finished: `bags BAGS`, `cost BAGS`, `train ARM`, `finetune ARM foldK seedS`,
            `finetune chosen`, `permute ARM`, `cka ARM`, `localise ARM`, `maps`; BAGS is `BagSet.key`, ARM is `Arm.key`.
        read_seconds_per_tile: Of decoding, beside which encoding goes on.
        head_gflops_per_second: That training of heads reaches.
    """

    n_slides: int
    n_rounds: int
    tiles_a_slide: Mapping[str, float]
    encoders: Mapping[BagSet, EncoderFacts]
    done: frozenset[str] = frozenset()
    read_seconds_per_tile: float = 0.005
    head_gflops_per_second: float = 30.0

    def n_tiles(self, tiles: str) -> float:
        """Return the tiles of a spec in all slides."""
        return self.n_slides * self.tiles_a_slide[tiles]

    @property
    def shares(self) -> tuple[float, float, float]:
        """Shares of slides that train, validate and test in a round."""
        n = self.n_rounds
        return (0.65, 0.15, 0.20) if n < 3 else ((n - 2) / n, 1 / n, 1 / n)


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """One piece of work that is kept when it is finished.

    Attributes:
        kind: `extract`, `cost`, `train`, `finetune`, `permute`, `cka`, `localise` or `maps`.
        key: Its name among the units: `extract default`, `finetune 0f3a12bc45de fold0 seed0`.
        keys: What `PlanFacts.done` calls what it makes; what is there already is not among them.
        arms: Names of the arms that it serves.
        seconds: Expected.
        bags: What an extraction makes.
        n_tiles: Tiles that are decoded.
        n_bytes: Disk.
    """

    kind: str
    key: str
    keys: tuple[str, ...]
    arms: tuple[str, ...]
    seconds: float
    bags: tuple[BagSet, ...] = ()
    n_tiles: int = 0
    n_bytes: int = 0


def bags_of(arm: Arm) -> BagSet:
    """Return the bags an arm reads."""
    return BagSet(tiles=arm.tiles, weights=arm.weights, encoder=arm.encoder, depth=arm.depth)


def base_of(arm: Arm) -> Arm:
    """Return the frozen arm that an arm goes on from; itself where it is frozen."""
    return replace(arm, finetuned="frozen")


def core_keys(arm: Arm, design: StudyDesign, facts: PlanFacts) -> tuple[str, ...]:
    """Return the keys that are all in `PlanFacts.done` when an arm is finished."""
    bags = bags_of(arm).key
    keys = [f"bags {bags}", f"cost {bags}", f"train {base_of(arm).key}"]
    return (*keys, *(_finetune_keys(arm, design, facts) if arm.finetuned != "frozen" else ()))


def list_units(design: StudyDesign, facts: PlanFacts, here: Sequence[Arm], chosen: Sequence[Arm]) -> list[Unit]:
    """List what is still to be done for some arms, in order.

    Args:
        design: What is compared.
        facts: Of the cohort, the machine, and what is finished.
        here: The arms whose weights are on this machine; the control is one of them.
        chosen: The arms that are to run; the frozen arms they go on from are run for them.
    """
    bases = list(dict.fromkeys(base_of(arm) for arm in chosen))
    units = [*_list_extractions(facts, bases, chosen), *_list_costs(facts, bases, chosen)]
    units += _list_trainings(design, facts, bases, chosen)
    units += [unit for arm in chosen for unit in _list_finetunings(design, facts, arm)]
    units += _list_permutations(design, facts, here, chosen)
    units += [unit for arm in chosen for unit in _list_looks(design, facts, arm)]
    if design.cam and bases:
        shown = max(bases, key=lambda arm: (facts.encoders[bags_of(arm)].seconds_per_tile, arm.name))
        n_tiles = min(_N_PICTURES, facts.n_slides) * facts.tiles_a_slide[shown.tiles]
        units += _unless_done(facts, "maps", "maps", (shown.name,), n_tiles * _torch_seconds(facts, shown))
    return units


def _unless_done(facts: PlanFacts, kind: str, key: str, arms: tuple[str, ...], seconds: float) -> list[Unit]:
    """Return a unit that makes the one thing it is named after, or none where that is there."""
    return [] if key in facts.done else [Unit(kind=kind, key=key, keys=(key,), arms=arms, seconds=seconds)]


def _serves(chosen: Sequence[Arm], bags: Collection[BagSet]) -> tuple[str, ...]:
    return tuple(arm.name for arm in chosen if bags_of(arm) in bags)


def _list_extractions(facts: PlanFacts, bases: Sequence[Arm], chosen: Sequence[Arm]) -> list[Unit]:
    """List one extraction a tile spec: a tile is decoded once, a network runs once for all its depths.

    That the deepest depth pays for the others was measured: four depths in one pass took 1.01 to 1.02 of depth 4.
    """
    groups: dict[str, dict[BagSet, EncoderFacts]] = {}
    for bags in dict.fromkeys(bags_of(arm) for arm in bases):
        if f"bags {bags.key}" not in facts.done:
            groups.setdefault(bags.tiles, {})[bags] = facts.encoders[bags]
    units = []
    for tiles, wanted in groups.items():
        n_tiles = facts.n_tiles(tiles)
        networks: dict[tuple[str, str], float] = {}
        for bags, own in wanted.items():
            network = (bags.encoder, bags.weights)
            networks[network] = max(networks.get(network, 0.0), own.seconds_per_tile)
        units.append(
            Unit(
                kind="extract",
                key=f"extract {tiles}",
                keys=tuple(f"bags {bags.key}" for bags in wanted),
                arms=_serves(chosen, wanted),
                seconds=n_tiles * max(facts.read_seconds_per_tile, sum(networks.values())),
                bags=tuple(wanted),
                n_tiles=round(n_tiles),
                n_bytes=round(n_tiles * sum(2 * own.dim + _BYTES_BESIDE for own in wanted.values())),
            )
        )
    return units


def _list_costs(facts: PlanFacts, bases: Sequence[Arm], chosen: Sequence[Arm]) -> list[Unit]:
    units = []
    for bags in dict.fromkeys(bags_of(arm) for arm in bases):
        seconds = _COST_TILES * facts.encoders[bags].seconds_per_tile
        units += _unless_done(facts, "cost", f"cost {bags.key}", _serves(chosen, [bags]), seconds)
    return units


def _list_trainings(design: StudyDesign, facts: PlanFacts, bases: Sequence[Arm], chosen: Sequence[Arm]) -> list[Unit]:
    """List one training a bag set: of all its heads, folds and seeds."""
    groups: dict[BagSet, list[Arm]] = {}
    for arm in bases:
        if f"train {arm.key}" not in facts.done:
            groups.setdefault(bags_of(arm), []).append(arm)
    return [
        Unit(
            kind="train",
            key=f"train {bags.key}",
            keys=tuple(f"train {arm.key}" for arm in group),
            arms=tuple(arm.name for arm in chosen if base_of(arm) in group),
            seconds=sum(_head_seconds(design, facts, arm, epochs=design.train.epochs * design.seeds) for arm in group),
        )
        for bags, group in groups.items()
    ]


def _head_seconds(design: StudyDesign, facts: PlanFacts, arm: Arm, *, epochs: int) -> float:
    """Return what training heads takes in all rounds: forward and the weights' gradient of the first layer."""
    train, val, _ = facts.shares
    rounds = epochs * facts.n_rounds
    a_tile = facts.encoders[bags_of(arm)].dim * _HIDDEN * 2e-9
    tiles = facts.n_tiles(arm.tiles) * (2 * train + val)
    return rounds * (tiles * a_tile / facts.head_gflops_per_second + facts.n_slides * train * _STEP_S)


def _finetune_keys(arm: Arm, design: StudyDesign, facts: PlanFacts) -> list[str]:
    return [
        f"finetune {arm.key} fold{fold} seed{seed}"
        for fold in range(facts.n_rounds)
        for seed in range(design.finetune.n_seeds)
    ]


def price_choices(design: StudyDesign, facts: PlanFacts, frozen: Sequence[Arm], known: Collection[str]) -> float:
    """Return the most that fine-tuning the best frozen arm of each fold may take: in each fold the dearest.

    Args:
        design: What is compared.
        facts: Of the cohort, the machine, and what is finished.
        frozen: The arms that are chosen from.
        known: Keys of units that are done anyway.
    """
    dearest: dict[str, float] = {}
    for base in frozen:
        folds: dict[str, float] = {}
        for arm in (replace(base, finetuned=kind) for kind in ("head", "tuned")):
            for unit in _list_finetunings(design, facts, arm):
                if unit.key not in known:
                    fold = unit.key.split()[2]
                    folds[fold] = folds.get(fold, 0.0) + unit.seconds
        for fold, seconds in folds.items():
            dearest[fold] = max(dearest.get(fold, 0.0), seconds)
    return sum(dearest.values())


def _list_finetunings(design: StudyDesign, facts: PlanFacts, arm: Arm) -> list[Unit]:
    if arm.finetuned == "frozen":
        return []
    seconds = _finetune_seconds(design, facts, arm)
    keys = _finetune_keys(arm, design, facts)
    return [unit for key in keys for unit in _unless_done(facts, "finetune", key, (arm.name,), seconds)]


def _finetune_seconds(design: StudyDesign, facts: PlanFacts, arm: Arm) -> float:
    """Return what one fold and seed takes: training on the top tiles, then the test slides encoded anew."""
    own, how = facts.encoders[bags_of(arm)], design.finetune
    train, val, test = (facts.n_slides * share for share in facts.shares)
    if arm.finetuned == "head":
        return how.epochs * train * _STEP_S
    top = min(how.k, facts.tiles_a_slide[arm.tiles])
    cut = 0 if how.train_blocks is None else arm.depth - how.train_blocks
    below = own.gflops_below[cut - 1] if 0 < cut <= len(own.gflops_below) else 0.0
    cached = not how.flips and how.stain_jitter == 0
    gflop = how.epochs * top * (3 * train + val) * (own.gflops - below)
    gflop += (1 if cached else how.epochs) * top * (train + val) * below
    gflop += test * (facts.tiles_a_slide[arm.tiles] if how.evaluate == "all" else top) * own.gflops
    return gflop * _torch_seconds(facts, arm) / own.gflops if own.gflops else 0.0


def _torch_seconds(facts: PlanFacts, arm: Arm) -> float:
    return facts.encoders[bags_of(arm)].seconds_per_tile * _TORCH_SLOWER


def _list_permutations(design: StudyDesign, facts: PlanFacts, here: Sequence[Arm], chosen: Sequence[Arm]) -> list[Unit]:
    """List the control with permuted labels: on the declared arm, else on the cheapest of those that can run."""
    frozen = [arm for arm in here if arm.finetuned == "frozen"]
    if not design.permutations or not frozen:
        return []
    cheapest = min(frozen, key=lambda arm: (facts.encoders[bags_of(arm)].seconds_per_tile, arm.name))
    control = next((arm for arm in frozen if arm.name == design.control_arm), cheapest)
    if control not in chosen:
        return []
    epochs = min(design.train.epochs, design.train.patience + 5)  # nothing is learned for long
    seconds = design.permutations * _head_seconds(design, facts, control, epochs=epochs)
    return _unless_done(facts, "permute", f"permute {control.key}", (control.name,), seconds)


def _list_looks(design: StudyDesign, facts: PlanFacts, arm: Arm) -> list[Unit]:
    """List what is looked at in an arm's networks: CKA of tuned ones, localisation of all but the control."""
    tested = facts.n_slides * facts.shares[2] * facts.n_rounds
    units = []
    if design.cka and arm.finetuned == "tuned":
        seconds = tested * design.finetune.n_seeds * _CKA_TILES * 2 * _torch_seconds(facts, arm)
        units += _unless_done(facts, "cka", f"cka {arm.key}", (arm.name,), seconds)
    if design.localise is not None and arm.finetuned != "head":
        mapped = tested * facts.tiles_a_slide[arm.tiles] if design.cam else 0.0
        seconds = tested + mapped * _torch_seconds(facts, arm)
        units += _unless_done(facts, "localise", f"localise {arm.key}", (arm.name,), seconds)
    return units
