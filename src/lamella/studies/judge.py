"""The arms of a study before the judge: costs, declared tables and depths, the verdict; of a finished study, once more.

Everything is judged from the one long table of predictions, so that a study can be judged anew by newer rules, without
slides, bags or models.
"""

import csv
import math
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from lamella.analysis.contest import ArmFacts, Contest, judge_contest
from lamella.analysis.frames import judge_arms, judge_with_lost
from lamella.analysis.verdict import DeclaredTable, PlannedTable, Verdict
from lamella.encoders.names import N_BLOCKS
from lamella.errors import LamellaError, ModelError
from lamella.machine import refuse_passing
from lamella.records import Record, load_content
from lamella.runs.folder import refuse_changed_tables
from lamella.studies.arms import Arm
from lamella.studies.costs import load_costs
from lamella.studies.folder import StudyFolder
from lamella.studies.record import ArmRecord, EncoderCost, GivenRecord, StudyRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmCost:
    """What an arm costs.

    Attributes:
        a_slide: Seconds a slide, on average over the cohort.
        a_tile: Seconds a tile.
        gflops: Billions of operations a tile; None where that is not known.
        n_tiles: Tiles a slide, on average.
    """

    a_slide: float
    a_tile: float
    gflops: float | None
    n_tiles: float = 1.0

    @classmethod
    def of(cls, cost: EncoderCost, tiles_a_slide: float) -> Self:
        """Return what an arm costs whose encoder costs so much."""
        seconds = cost.seconds_per_tile
        return cls(a_slide=seconds * tiles_a_slide, a_tile=seconds, gflops=cost.gflops, n_tiles=tiles_a_slide)


class KnownSlide(BaseModel):
    """A slide of the cohort, training included."""

    model_config = ConfigDict(frozen=True, from_attributes=True)

    slide_id: str
    patient_id: str
    label: str | None = None
    batch: str | None = None
    split: str | None = None


class DeclaredTables(Record):
    """The tables of a verdict, of whichever version."""

    tables: tuple[DeclaredTable, ...] = ()


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Declared:
    """What was declared before results were seen, and what is known of the cohort.

    Attributes:
        classes: In the order of the logits.
        margin: How much AUC may be given up.
        tables: Comparisons.
        reference: Encoders whose depths are held against their whole; none takes the first that has any.
        slides: Of the whole cohort.
    """

    classes: tuple[str, ...]
    margin: float
    tables: Sequence[PlannedTable]
    reference: tuple[str, ...]
    slides: Sequence[KnownSlide]


def judge_predictions(
    predictions: pd.DataFrame,
    declared: Declared,
    *,
    arms: Mapping[str, ArmRecord],
    costs: Mapping[str, ArmCost] | None,
) -> Verdict:
    """Return the verdict on the arms that ran.

    Args:
        predictions: The long table of the arms that ran.
        declared: Margin, tables, reference encoders.
        arms: What `study.json` says of each, by name.
        costs: Of each arm, by name; None where that of an arm is not known: then those named first are preferred.
    """

    def judge(contest: Contest) -> Verdict:
        ran = {name: arms[name] for name in contest.names}
        whole = [name for name, arm in ran.items() if arm.finetuned == "frozen" and arm.depth == N_BLOCKS]
        added_later = {name for name, arm in arms.items() if not arm.declared}
        order = {name: 2.0 * number for number, name in enumerate(arms, 1)}  # no two within a tenth
        facts = ArmFacts(
            costs=order if costs is None else {name: costs[name].a_slide for name in contest.names},
            gflops=order if costs is None else _rank_arithmetic({name: costs[name] for name in contest.names}),
            is_priced=costs is not None,
            imagenet_top1={name: arms[name].imagenet_top1 for name in whole},
            added_later=added_later,
            chains=find_chains(ran, declared.reference, added_later=added_later),
        )
        known = _know_training(contest, declared)
        return judge_contest(known, facts, margin=declared.margin, tables=declared.tables)

    verdict = judge_with_lost(predictions, judge, classes=declared.classes)
    if costs is None:
        return verdict.without_costs()
    known = [arm.model_copy(update={"gflops": costs[arm.arm].gflops}) for arm in verdict.arms]
    return verdict.model_copy(update={"arms": tuple(known)})


def _rank_arithmetic(costs: Mapping[str, ArmCost]) -> dict[str, float]:
    """Return arithmetic a slide by arm, which divides arms of nearly one cost; costs where that of one is not known."""
    known = {name: cost.gflops * cost.n_tiles for name, cost in costs.items() if cost.gflops is not None}
    return known if len(known) == len(costs) else {name: cost.a_slide for name, cost in costs.items()}


def judge_again(path: Path) -> Verdict:
    """Judge a finished study by the rules of this version, from its folder alone; nothing is trained or read again.

    Args:
        path: The study folder, of this version or an earlier one.

    Returns:
        The verdict, which `verdict.json` holds from now on.

    Raises:
        ModelError: If the folder holds no study, or no predictions yet.
    """
    try:
        return _judge_folder(StudyFolder(Path(path)))
    except LamellaError:
        raise
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        said = " ".join(str(error).split())[:120]
        raise ModelError(
            f"a record in '{path}' holds a value that cannot be ({type(error).__name__}: {said}). Run `lamella study` "
            "again: it makes what is missing."
        ) from error


def _judge_folder(folder: StudyFolder) -> Verdict:
    path = folder.path
    if not folder.record.exists():
        raise ModelError(f"'{path}' holds no study (study.json). Name the --out folder of a `lamella study`.")
    record = StudyRecord.load(folder.record, made_by="lamella study")
    refuse_changed_tables(folder.path, record.files, made_by="lamella study")
    try:
        predictions = pd.read_parquet(folder.predictions)
    except (OSError, ValueError) as error:
        refuse_passing(error, str(folder.predictions))
        raise ModelError(
            f"'{path}' holds no predictions that can be read (predictions.parquet). Run the study again: it makes what "
            "is missing."
        ) from error
    earlier = load_content(folder.verdict, DeclaredTables, made_by="lamella study")
    tables = () if earlier is None else [table.declared for table in earlier.tables]
    if record.given is not None:
        verdict = judge_given(predictions, record.given, margin=record.design.margin, tables=tables)
        verdict.save(folder.verdict)
        return verdict
    declared = Declared(
        classes=record.classes,
        margin=record.design.margin,
        tables=tables,
        reference=record.design.reference,
        slides=_read_slides(folder.path / "cohort.csv"),
    )
    costs = None if record.cost_unit == "" else _restore_costs(folder, record, set(predictions["arm"]))
    verdict = judge_predictions(predictions, declared, arms={arm.arm: arm for arm in record.arms}, costs=costs)
    verdict.save(folder.verdict)
    return verdict


def judge_given(
    predictions: pd.DataFrame, given: GivenRecord, *, margin: float, tables: Sequence[PlannedTable]
) -> Verdict:
    """Return the verdict on predictions that were made elsewhere.

    Args:
        predictions: The long table of `join_arms`.
        given: Costs, if any, and how many folds a model did not learn from.
        margin: How much AUC may be given up.
        tables: Comparisons.
    """
    return judge_arms(predictions, margin=margin, costs=given.costs, tables=tables, n_left_out=given.n_left_out)


def find_chains(
    arms: Mapping[str, Arm] | Mapping[str, ArmRecord],
    reference: Sequence[str],
    *,
    added_later: AbstractSet[str] = frozenset(),
) -> list[list[str]]:
    """Return the arms that are equal in all but depth, the whole network first, of each reference encoder.

    Args:
        arms: By name, in the order of the design.
        reference: Encoders; of each the first such arms count, of those with the most tiles and the widest embeddings.
            None takes the first of all.
        added_later: Arms that are no depth of a chain, as results had been seen.
    """
    groups: dict[tuple[str, ...], dict[str, int]] = {}
    for name in sorted(arms, key=lambda name: _rank_reading(arms[name])):
        arm = arms[name]
        most, width = f"{arm.tiles_per_slide or ''}", f"{arm.width or ''}"
        same = (arm.encoder, arm.weights, arm.finetuned, arm.head, arm.tiles, most, width)
        if arm.depth is not None and not arm.features:
            groups.setdefault(same, {})[name] = arm.depth
    chains: dict[str, list[str]] = {}
    for (encoder, *_), depths in groups.items():
        whole = next((name for name, depth in depths.items() if depth == N_BLOCKS), None)
        cuts = [name for name, depth in depths.items() if depth < N_BLOCKS and name not in added_later]
        cuts.sort(key=lambda name: -depths[name])
        if whole is not None and cuts:
            chains.setdefault(encoder, [whole, *cuts])
    if not reference:
        return list(chains.values())[:1]
    return [chains[name] for name in reference if name in chains]


def _rank_reading(arm: Arm | ArmRecord) -> tuple[float, float]:
    """Order arms by how much they read: the most tiles first, then the widest embeddings."""
    return -(arm.tiles_per_slide or math.inf), -(arm.width or math.inf)


def _know_training(contest: Contest, declared: Declared) -> Contest:
    """Return a contest that knows what the batch alone says, where the training slides are not among its units."""
    if contest.batches is None or len(np.unique(contest.folds)) > 1:
        return contest
    train = [slide for slide in declared.slides if slide.split == "train" and slide.batch]
    if not train:
        return contest
    batch_of = {slide.patient_id: slide.batch for slide in declared.slides}
    batch_of |= {slide.slide_id: slide.batch for slide in declared.slides}
    overall = _count(train, declared.classes)
    logits = np.empty((len(contest.units), len(declared.classes)))
    for number, unit in enumerate(contest.units):
        same = [slide for slide in train if slide.batch == batch_of.get(unit)] if contest.batches[number] >= 0 else []
        counts = _count(same, declared.classes)
        logits[number] = np.log((counts + (overall + 1e-3) / (overall + 1e-3).sum()) / (counts.sum() + 1))
    return replace(contest, batch_logits=logits)


def _count(slides: Sequence[KnownSlide], classes: Sequence[str]) -> NDArray[np.float64]:
    return np.array([sum(slide.label == name for slide in slides) for name in classes], dtype=np.float64)


def _restore_costs(folder: StudyFolder, record: StudyRecord, names: set[str]) -> dict[str, ArmCost]:
    """Return what arms cost, as `costs.json` has it.

    Raises:
        ModelError: If an arm's cost was never measured.
    """
    measured = load_costs(folder.costs)
    if record.cost_unit is not None:  # of some arms they were given: the verdict has them
        verdict = Verdict.load(folder.verdict, made_by="lamella study")
        counts = {row.arm: row.mean_tiles or 1.0 for row in record.arms}
        return {
            arm.arm: ArmCost(a_slide=arm.cost or 0.0, a_tile=0.0, gflops=arm.gflops, n_tiles=counts.get(arm.arm, 1.0))
            for arm in verdict.arms
        }
    rows = {row.arm: row for row in record.arms}
    costs: dict[str, ArmCost] = {}
    for name in sorted(names, key=lambda name: (bool(rows[name].chosen), name)):  # what is chosen from goes first
        row = rows[name]
        if row.chosen:
            chosen = {choice.arm for choice in row.chosen}
            costs[name] = join_costs([(rows[arm], costs[arm]) for arm in sorted(chosen & costs.keys())])
            continue
        begins, ends = f"{row.tiles}/", f"/{row.encoder}@{row.depth}"
        keys = [key for key in measured if key.startswith(begins) and key.endswith(ends)]
        keys = [key for key in keys if Path(key.removeprefix(begins).removesuffix(ends)).name == row.weights]
        if not keys:
            raise ModelError(
                f"costs.json holds no cost of arm '{name}'. Run the study again: it measures what is missing."
            )
        n_tiles = row.mean_tiles or record.cohort.tiles_a_slide.get(row.tiles, 1.0)
        costs[name] = ArmCost.of(measured[keys[0]], n_tiles)
    return costs


def join_costs(arms: Sequence[tuple[Arm | ArmRecord, ArmCost]]) -> ArmCost:
    """Return what predicting with several arms' models costs: every network once, as deep as it is read.

    Args:
        arms: Each with its cost.
    """
    networks: dict[tuple[str, ...], list[ArmCost]] = {}
    for arm, cost in arms:
        networks.setdefault((arm.encoder, arm.weights, arm.tiles), []).append(cost)
    deepest = [max(costs, key=lambda cost: ((cost.gflops or 0.0) * cost.n_tiles, cost.a_slide))
               for costs in networks.values()]  # fmt: skip
    return ArmCost(
        a_slide=sum(cost.a_slide for cost in deepest),
        a_tile=sum(cost.a_tile for cost in deepest),
        gflops=sum(cost.gflops or 0.0 for cost in deepest),
    )


def _read_slides(path: Path) -> list[KnownSlide]:
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="") as stream:
        return [KnownSlide.model_validate(row) for row in csv.DictReader(stream)]
