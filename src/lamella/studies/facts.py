"""What a study will do on this machine: facts are gathered here, `lamella.studies.plan` makes the plan of them.

$LAMELLA_HOME/rates.json    arithmetic and seconds a tile of encoders on this machine, measured once
"""

import math
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lamella import __version__
from lamella.cohort import Cohort
from lamella.cores import count_threads
from lamella.encoders import EncoderSpec, RuntimeSettings
from lamella.encoders.names import N_BLOCKS
from lamella.encoders.profile import DepthProfile, profile_encoder
from lamella.encoders.runtime.opening import time_encoder
from lamella.encoders.store import find_store
from lamella.errors import EncoderError, LamellaError
from lamella.features.plan import CutSettings, plan_slide
from lamella.features.settings import ExtractSettings
from lamella.files import parse_json_file, write_json
from lamella.runs.folder import RunFolder
from lamella.studies.arm_rows import find_command
from lamella.studies.arms import CHOSEN_ARMS, Arm
from lamella.studies.costs import load_costs
from lamella.studies.design import StudyDesign, parse_time
from lamella.studies.folder import StudyFolder
from lamella.studies.plan import StudyPlan, plan_units
from lamella.studies.work import CHOSEN_KEY, BagSet, EncoderFacts, PlanFacts, bags_of, base_of

_LOOKED_AT = 8  # slides whose tiles are counted; the others are taken to be alike
_TIMED = "resnet18"  # what is timed where no encoder of the design has its weights here


def plan_study(design: StudyDesign, cohort: Cohort, out: Path | None, *, options: RuntimeSettings) -> StudyPlan:
    """Plan a study of a cohort: tiles counted on a few slides, encoders at this machine's rates.

    Rates are taken from the study's `costs.json`, then from those this machine has kept; what is in neither is
    measured, a second an encoder, and kept. Where weights are not here, arithmetic stands for time.

    Args:
        design: What is compared.
        cohort: Labelled slides.
        out: The study folder, where there is one already.
        options: Where encoders run.

    Raises:
        LamellaError: If an encoder is unknown.
    """
    budget = None if design.budget is None else parse_time(design.budget)
    return plan_units(design, gather_facts(design, cohort, out, options=options), budget_s=budget)


def gather_facts(design: StudyDesign, cohort: Cohort, out: Path | None, *, options: RuntimeSettings) -> PlanFacts:
    """Gather what a plan is made from.

    Args:
        design: What is compared.
        cohort: Labelled slides.
        out: The study folder, where there is one already.
        options: Where encoders run.

    Raises:
        LamellaError: If an encoder is unknown.
    """
    folder = None if out is None else StudyFolder(Path(out))
    record = _read(folder.record) if folder is not None else {}
    counted = record.get("cohort", {}).get("tiles_a_slide", {})
    n_folds = len({slide.fold for slide in cohort.slides if slide.fold is not None})
    split = any(slide.split is not None for slide in cohort.slides) or design.split == "holdout"
    n_rounds = n_folds or (1 if split else design.folds)
    return PlanFacts(
        n_slides=len(cohort.slides),
        n_rounds=n_rounds,
        tiles_a_slide={
            name: float(counted[name]) if name in counted else count_tiles(cohort, one.cut())
            for name, one in design.tiles.items()
        },
        encoders=_find_encoders(design, folder, options),
        done=frozenset() if folder is None else find_done(design, cohort, folder, n_rounds=n_rounds),
    )


def count_tiles(cohort: Cohort, cut: CutSettings) -> float:
    """Return the mean number of tiles of a few slides, spread over the cohort; 0 where none can be read."""
    step = max(1, math.ceil(len(cohort.slides) / _LOOKED_AT))
    counts = []
    for item in cohort.slides[::step]:
        try:
            plan = plan_slide(item, cut)
        except (LamellaError, OSError):
            continue
        plan.slide.close()
        counts.append(len(plan.corners_l0))
    return sum(counts) / len(counts) if counts else 0.0


def find_done(design: StudyDesign, cohort: Cohort, folder: StudyFolder, *, n_rounds: int) -> frozenset[str]:
    """Return the keys of what a study folder holds already, as `PlanFacts.done` has them."""
    record = _read(folder.record)
    rows = {row["arm"]: row for row in record.get("arms", []) if row.get("state") == "done"}
    done = {f"cost {key}" for key in load_costs(folder.costs)}
    arms = list(design.list_arms())
    for bags in dict.fromkeys(bags_of(arm) for arm in arms):
        if _has_bags(design, cohort, folder, bags):
            done.add(f"bags {bags.key}")
    for arm in arms:
        if arm.name in rows:
            done |= {f"bags {bags_of(arm).key}", f"train {base_of(arm).key}"}
        if arm.finetuned != "frozen":
            done |= _find_finetuned(design, folder, arm, n_rounds)
    if design.finetune_best:
        frozen = [arm for arm in arms if arm.finetuned == "frozen"]
        for arm in (replace(base, finetuned=kind) for base in frozen for kind in ("head", "tuned")):
            done |= _find_finetuned(design, folder, arm, n_rounds)
        if {arm.name for arm in (*frozen, *CHOSEN_ARMS)} <= rows.keys():  # another arm would be chosen from, too
            done.add(CHOSEN_KEY)
    looks = [
        ("permute", [_read(folder.controls).get("permutations") or {}]),
        ("cka", _read(folder.cka).get("pairs", [])),
        ("localise", _read(folder.localisation).get("arms", [])),
    ]
    for kind, found in looks:
        names = {row.get("arm") for row in found}
        done |= {f"{kind} {arm.key}" for arm in arms if arm.name in names}
    return frozenset(done | ({"maps"} if folder.slides.is_dir() else set()))


def _has_bags(design: StudyDesign, cohort: Cohort, folder: StudyFolder, bags: BagSet) -> bool:
    spec = _spec(bags)
    own = ExtractSettings(cut=design.tiles[bags.tiles].cut(), encoders=(spec,)).folder(folder.features_of(bags.weights))
    return all(own.features_path(slide.slide_id).exists() for slide in cohort.slides)


def _find_finetuned(design: StudyDesign, folder: StudyFolder, arm: Arm, n_rounds: int) -> set[str]:
    """Return the folds and seeds of an arm whose training is finished."""
    place = RunFolder(folder.models(base_of(arm))).finetuned
    return {
        f"finetune {arm.key} fold{fold} seed{seed}"
        for fold in range(n_rounds)
        for seed in range(design.finetune.n_seeds)
        if (place / f"fold{fold}" / f"seed{seed}" / arm.finetuned / "model").exists()
    }


def _spec(bags: BagSet) -> EncoderSpec:
    return EncoderSpec(f"{bags.encoder}@{bags.depth}", bags.weights)


def _find_encoders(
    design: StudyDesign, folder: StudyFolder | None, options: RuntimeSettings
) -> dict[BagSet, EncoderFacts]:
    """Return what is known of the encoders of a design; an encoder is timed whole, its depths by their arithmetic."""
    arms = {bags_of(arm): base_of(arm) for arm in design.list_arms()}
    costs = {} if folder is None else load_costs(folder.costs)
    rates = Rates(options)
    commands = {bags: find_command(arm) for bags, arm in arms.items()}
    profiles = {bags: rates.profile(bags.encoder, design.tiles[bags.tiles].tile_px) for bags in arms}
    a_gflop: dict[BagSet, float] = {}
    for bags in arms:
        if commands[bags] is None and bags.key not in costs:
            tile_px = design.tiles[bags.tiles].tile_px
            a_gflop[bags] = rates.seconds_per_gflop(bags.encoder, bags.weights, tile_px)
    known = list(a_gflop.values())
    known += [costs[b.key]["seconds_per_tile"] / costs[b.key]["gflops"] for b in arms if b.key in costs]
    usual = sorted(known)[len(known) // 2] if known else rates.seconds_per_gflop(_TIMED, "random", 224)
    found = {}
    for bags in arms:
        own = profiles[bags]
        at = min(bags.depth, max(own))
        seconds = own[at].gflops * a_gflop.get(bags, usual)
        found[bags] = EncoderFacts(
            gflops=own[at].gflops,
            gflops_below=tuple(own[depth].gflops for depth in range(1, at) if depth in own),
            dim=own[at].dim,
            seconds_per_tile=float(costs[bags.key]["seconds_per_tile"]) if bags.key in costs else seconds,
            command=commands[bags],
        )
    return found


@dataclass(frozen=True, slots=True)
class DepthCost:
    """Arithmetic of an encoder at one depth.

    Attributes:
        gflops: Billions of operations a tile.
        dim: Width of its embedding.
    """

    gflops: float
    dim: int


class Rates:
    """What encoders cost on this machine, measured when it is first asked for and kept in the user's store.

    Args:
        options: Where encoders run.
        path: The file; None is that of the store.
    """

    def __init__(self, options: RuntimeSettings, path: Path | None = None) -> None:
        self._options, self._path = options, path or find_store() / "rates.json"
        self._kept = _read(self._path)

    def profile(self, encoder: str, tile_px: int) -> dict[int, DepthCost]:
        """Return the arithmetic of each depth of an encoder; of the whole alone where it cannot be cut."""
        if encoder.endswith((".py", ".safetensors")) or ".py:" in encoder:  # files change under one name
            return _number(_profile(encoder, tile_px))
        key = f"gflops {encoder} {tile_px} {__version__}"
        if key not in self._kept:
            depths = _number(_profile(encoder, tile_px))
            self._keep(key, {str(depth): [own.gflops, own.dim] for depth, own in depths.items()})
        return {int(depth): DepthCost(float(own[0]), int(own[1])) for depth, own in self._kept[key].items()}

    def seconds_per_gflop(self, encoder: str, weights: str, tile_px: int) -> float:
        """Return the seconds an encoder takes for a billion operations; weights do not change it."""
        options = self._options
        machine = f"{platform.node()} {platform.machine()} {count_threads()}"
        where = f"{options.runtime} {options.device} {options.precision} {options.n_threads} {machine}"
        key = f"seconds {encoder} {tile_px} {where} {__version__}"
        if key not in self._kept:
            rate = time_encoder(EncoderSpec(encoder, weights), options, tile_px=tile_px, seconds=1.0)
            whole = self.profile(encoder, tile_px)
            self._keep(key, 1 / rate / max(whole[max(whole)].gflops, 1e-9))
        return float(self._kept[key])

    def _keep(self, key: str, value: Any) -> None:
        self._kept = {**_read(self._path), **self._kept, key: value}
        write_json(self._path, self._kept)


def _profile(encoder: str, tile_px: int) -> Sequence[DepthProfile]:
    try:
        return profile_encoder(encoder, tile_px=tile_px, seconds=0)
    except EncoderError:
        return profile_encoder(encoder, tile_px=tile_px, depths=(N_BLOCKS,), seconds=0)


def _number(profiles: Sequence[DepthProfile]) -> dict[int, DepthCost]:
    """Number profiles, which come the deepest first, by their depth."""
    return {N_BLOCKS - i: DepthCost(one.gflops, one.width) for i, one in enumerate(profiles)}


def _read(path: Path) -> dict[str, Any]:
    try:
        found = parse_json_file(path)
    except (OSError, ValueError):
        return {}
    return dict(found) if isinstance(found, Mapping) else {}
