"""What a study's plan is made from, gathered on a machine: tiles, prices of encoders, what is finished."""

import contextlib
import math
from pathlib import Path

from lamella.cohort import Cohort, list_rounds, split_folds, split_holdout
from lamella.errors import CohortError, LamellaError
from lamella.features.encoder_choice import split_address
from lamella.features.finding import find_bags
from lamella.features.layouts import open_bag
from lamella.features.plan import CutSettings, plan_slide
from lamella.runs.bags import hash_json
from lamella.studies.arm_rows import find_command, find_gflops
from lamella.studies.arms import Arm
from lamella.studies.costs import load_costs
from lamella.studies.design import StudyDesign
from lamella.studies.folder import StudyFolder, load_if_whole
from lamella.studies.marks import find_done
from lamella.studies.options import StudyOptions
from lamella.studies.plan import StudyPlan, plan_work
from lamella.studies.prices import EncoderFacts
from lamella.studies.rates import Rates
from lamella.studies.record import StudyRecord
from lamella.studies.work import BagSet, PlanFacts, bags_of, base_of

_LOOKED_AT = 8  # slides whose tiles are counted; the others are taken to be alike
_USUAL_DIM = 1024  # of features that are there, for what training takes
_TIMED = "resnet18"  # what is timed where no encoder of the design has its weights here


def plan_study(design: StudyDesign, cohort: Cohort, out: Path | None, *, options: StudyOptions) -> StudyPlan:
    """Plan a study of a cohort: tiles counted on a few slides, encoders at this machine's rates.

    Rates are taken from the study's `costs.json`, then from those this machine has kept; what is in neither is
    measured, a second an encoder, and kept. Where weights are not here, arithmetic stands for time.

    Args:
        design: What is compared.
        cohort: Labelled slides.
        out: The study folder, where there is one already.
        options: Where encoders run, what is localised, and for how long it may run at most.

    Raises:
        LamellaError: If an encoder is unknown, or the cohort cannot be divided as the design asks.
    """
    facts = gather_facts(design, divide_cohort(cohort, design), out, options=options)
    return plan_work(design, facts, budget_s=options.budget_s)


def divide_cohort(cohort: Cohort, design: StudyDesign) -> Cohort:
    """Give the cohort the folds or splits of the design; those that it brings are kept.

    Raises:
        CohortError: If it brings none and the design takes only those, or it is too small to be divided.
    """
    if any(slide.fold is not None or slide.split is not None for slide in cohort.slides):
        return cohort
    if design.split == "given":
        raise CohortError(
            "the design takes the cohort's own folds or splits and the table has none. Run: lamella split"
        )
    if design.split == "holdout":
        return split_holdout(cohort, seed=design.split_seed)
    return split_folds(cohort, n_folds=design.folds, seed=design.split_seed)


def gather_facts(
    design: StudyDesign, cohort: Cohort, out: Path | None, *, options: StudyOptions, prices: bool = True
) -> PlanFacts:
    """Gather what a plan is made from.

    Args:
        design: What is compared.
        cohort: Labelled slides, with folds or splits.
        out: The study folder, where there is one already.
        options: Where encoders run, and what is localised.
        prices: Whether tiles are counted and encoders timed, so that work can be priced.

    Raises:
        LamellaError: If an encoder is unknown.
    """
    folder = None if out is None else StudyFolder(Path(out))
    record = None if folder is None else load_if_whole(folder.record, StudyRecord)
    counted = {} if record is None else record.cohort.tiles_a_slide
    folds = tuple(round_.fold for round_ in list_rounds(cohort))
    asked = [options.lesion_classes, options.lesion_values]
    return PlanFacts(
        n_slides=len(cohort.slides),
        folds=folds,
        tiles_a_slide={
            name: counted[name] if name in counted else count_tiles(cohort, tiles.cut())
            for name, tiles in design.tiles.items()
            if any(arm.tiles == name and not arm.features for arm in design.list_arms())
        }
        | {features: _look_at_bags(features)[0] for features in list_features(design)}
        if prices
        else {},
        encoders=_find_encoders(design, folder, options, prices=prices),
        done={} if folder is None else find_done(design, cohort, folder, folds=folds),
        slides=hash_json([(slide.slide_id, slide.slide_mpp, _find_size(slide.path)) for slide in cohort.slides]),
        table=hash_json(
            [(s.slide_id, s.patient_id, s.label, s.fold, s.split, s.batch) for s in cohort.slides]
            + [cohort.classes, cohort.positive]
        ),
        features={folder_: _hash_names(folder_) for folder_ in list_features(design)},
        lesions=None if options.lesions is None else hash_json([*asked, _list_files(options.lesions)]),
    )


def count_tiles(cohort: Cohort, cut: CutSettings) -> float:
    """Return the mean number of tiles of a few slides, spread over the cohort; 0 where none can be read."""
    step = max(1, math.ceil(len(cohort.slides) / _LOOKED_AT))
    counts = []
    for row in cohort.slides[::step]:
        try:
            plan = plan_slide(row, cut)
        except (LamellaError, OSError):
            continue
        plan.slide.close()
        counts.append(len(plan.corners_l0))
    return sum(counts) / len(counts) if counts else 0.0


def list_features(design: StudyDesign) -> list[str]:
    """List the folders of bags that a design names."""
    return list(dict.fromkeys(arm.features for arm in design.list_arms() if arm.features))


def _hash_names(folder: str) -> str:
    """Return what tells a folder of bags from others: the names and sizes of its files."""
    where, encoder = split_address(folder)
    return hash_json([encoder, _list_files(where)])


def _describe_features(arm: Arm, *, prices: bool) -> EncoderFacts:
    """Return what is known of bags that are there: nothing is encoded; arithmetic where a card has the name."""
    dim = _look_at_bags(arm.features)[1] if prices else _USUAL_DIM
    return EncoderFacts(gflops=find_gflops(arm) or 0.0, dim=dim, seconds_per_tile=0.0, command=find_command(arm))


def _look_at_bags(folder: str) -> tuple[float, int]:
    """Return the mean number of tiles, and the width, of a few bags, spread over a folder; what is usual of none."""
    shapes = []
    with contextlib.suppress(LamellaError):
        bags = find_bags(folder)
        for _, path in bags[:: max(1, math.ceil(len(bags) / _LOOKED_AT))]:
            with contextlib.suppress(LamellaError, OSError):
                shapes.append(open_bag(path).shape)
    if not shapes:
        return 0.0, _USUAL_DIM
    return sum(n for n, _ in shapes) / len(shapes), shapes[0][1]


def _find_size(path: Path) -> int | None:
    """Return the size of a slide's file; None where it is not there or is a folder."""
    try:
        return path.stat().st_size if path.is_file() else None
    except OSError:
        return None


def _list_files(folder: Path) -> list[tuple[str, int | None]]:
    return [(path.name, _find_size(path)) for path in sorted(folder.glob("*"))]


def _find_encoders(
    design: StudyDesign, folder: StudyFolder | None, options: StudyOptions, *, prices: bool
) -> dict[BagSet, EncoderFacts]:
    """Return what is known of the encoders of a design; an encoder is timed whole, its depths by their arithmetic."""
    every = {bags_of(arm): base_of(arm) for arm in design.list_arms()}
    arms = {bags: arm for bags, arm in every.items() if not arm.features}
    costs = {} if folder is None else load_costs(folder.costs)
    rates = Rates(options.runtime)
    commands = {bags: find_command(arm) for bags, arm in arms.items()}
    profiles = {bags: rates.profile(bags.encoder, design.tiles[bags.tiles].tile_px) for bags in arms}
    a_gflop: dict[BagSet, float] = {}
    usual = 0.0
    if prices:
        for bags in arms:
            if commands[bags] is None and bags.key not in costs:
                tile_px = design.tiles[bags.tiles].tile_px
                a_gflop[bags] = rates.seconds_per_gflop(bags.encoder, bags.weights, tile_px)
        known = list(a_gflop.values())
        known += [costs[b.key].seconds_per_tile / costs[b.key].gflops for b in arms if b.key in costs]
        usual = sorted(known)[len(known) // 2] if known else rates.seconds_per_gflop(_TIMED, "random", 224)
    facts = {bags: _describe_features(arm, prices=prices) for bags, arm in every.items() if arm.features}
    for bags in arms:
        depths = profiles[bags]
        deepest = min(bags.depth, max(depths))
        seconds = depths[deepest].gflops * a_gflop.get(bags, usual)
        facts[bags] = EncoderFacts(
            gflops=depths[deepest].gflops,
            gflops_below=tuple(depths[depth].gflops for depth in range(1, deepest) if depth in depths),
            dim=depths[deepest].dim,
            seconds_per_tile=costs[bags.key].seconds_per_tile if bags.key in costs else seconds,
            command=commands[bags],
        )
    return facts
