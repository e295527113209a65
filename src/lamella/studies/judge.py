"""The arms of a study before the judge: costs, declared tables and depths, the verdict; of a finished study, once more.

Everything is judged from the one long table of predictions, so that a study can be judged anew by newer rules, without
slides, bags or models.
"""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lamella.analysis.contest import ArmFacts, Contest, judge_contest
from lamella.analysis.frames import judge_with_lost
from lamella.encoders.names import N_BLOCKS
from lamella.errors import LamellaError, ModelError
from lamella.files import parse_json_file, write_record
from lamella.machine import refuse_passing
from lamella.runs.folder import refuse_changed_tables
from lamella.studies.arms import Arm
from lamella.studies.costs import load_costs
from lamella.studies.folder import StudyFolder
from lamella.studies.record import StudyRecord

_SAME = ("encoder", "weights", "finetuned", "head", "tiles")


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmCost:
    """What an arm costs.

    Attributes:
        a_slide: Seconds a slide, on average over the cohort.
        a_tile: Seconds a tile.
        gflops: Billions of operations a tile.
    """

    a_slide: float
    a_tile: float
    gflops: float


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Declared:
    """What was declared before results were seen, and what is known of the cohort.

    Attributes:
        classes: In the order of the logits.
        margin: How much AUC may be given up.
        tables: Comparisons: `name`, `title`, `rows` of (arm, base).
        reference: Encoders whose depths are held against their whole; none takes the first that has any.
        slides: Of the whole cohort, training included: `label`, `batch`, `split`.
    """

    classes: tuple[str, ...]
    margin: float
    tables: Sequence[Mapping[str, Any]]
    reference: tuple[str, ...]
    slides: Sequence[Mapping[str, Any]]


def judge_predictions(
    predictions: pd.DataFrame,
    declared: Declared,
    *,
    rows: Mapping[str, Mapping[str, Any]],
    costs: Mapping[str, ArmCost],
) -> dict[str, Any]:
    """Return what `verdict.json` holds.

    Args:
        predictions: The long table of the arms that ran.
        declared: Margin, tables, reference encoders.
        rows: What `study.json` says of each arm, by name.
        costs: Of each arm, by name.
    """

    def judge(contest: Contest) -> dict[str, Any]:
        ran = [rows[name] for name in contest.names]
        whole = {row["arm"] for row in ran if row["finetuned"] == "frozen" and row["depth"] == N_BLOCKS}
        facts = ArmFacts(
            costs={name: costs[name].a_slide for name in contest.names},
            gflops={name: costs[name].gflops for name in contest.names},
            imagenet_top1={name: rows[name]["imagenet_top1"] for name in whole},
            added_later={name for name, row in rows.items() if not row["declared"]},
            chains=find_chains(ran, declared.reference),
        )
        known = _know_training(contest, declared)
        return judge_contest(known, facts, margin=declared.margin, tables=declared.tables)

    return judge_with_lost(predictions, judge, classes=declared.classes)


def judge_again(path: Path) -> dict[str, Any]:
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


def _judge_folder(folder: StudyFolder) -> dict[str, Any]:
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
    declared = Declared(
        classes=record.classes,
        margin=record.design.margin,
        tables=[
            {**table, "rows": [(row["arm"], row["base"]) for row in table["rows"]]}
            for table in _read(folder.verdict).get("tables", ())
        ],
        reference=record.design.reference,
        slides=_read_rows(folder.path / "cohort.csv"),
    )
    costs = _restore_costs(folder, record, set(predictions["arm"]))
    rows = {row.arm: row.model_dump() for row in record.arms}
    verdict = judge_predictions(predictions, declared, rows=rows, costs=costs)
    write_record(folder.verdict, verdict)
    return verdict


def find_chains(rows: Sequence[Mapping[str, Any]], reference: Sequence[str]) -> list[list[str]]:
    """Return the arms that are equal in all but depth, the whole network first, of each reference encoder.

    Args:
        rows: Of the arms that ran, in the order of the design.
        reference: Encoders; of each the first such arms count. None takes the first of all.
    """
    groups: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault(tuple(row[key] for key in _SAME), []).append(row)
    chains: dict[str, list[str]] = {}
    for key, group in groups.items():
        whole = next((row for row in group if row["depth"] == N_BLOCKS), None)
        cuts = [row["arm"] for row in group if row["depth"] < N_BLOCKS and row["declared"]]
        if whole is not None and cuts:
            chains.setdefault(str(key[0]), [whole["arm"], *cuts])
    if not reference:
        return list(chains.values())[:1]
    return [chains[name] for name in reference if name in chains]


def list_chain_rows(arms: Sequence[Arm]) -> list[dict[str, Any]]:
    """Return arms of a design as `find_chains` takes them."""
    return [
        {"arm": arm.name, "depth": arm.depth, "declared": True, **{key: getattr(arm, key) for key in _SAME}}
        for arm in arms
    ]


def _know_training(contest: Contest, declared: Declared) -> Contest:
    """Return a contest that knows what the batch alone says, where the training slides are not among its units."""
    if contest.batches is None or len(np.unique(contest.folds)) > 1:
        return contest
    train = [row for row in declared.slides if row.get("split") == "train" and row.get("batch")]
    if not train:
        return contest
    batch_of = {row["patient_id"]: row["batch"] for row in declared.slides}
    batch_of |= {row["slide_id"]: row["batch"] for row in declared.slides}
    overall = _count(train, declared.classes)
    logits = np.empty((len(contest.units), len(declared.classes)))
    for number, unit in enumerate(contest.units):
        same = [row for row in train if row["batch"] == batch_of.get(unit)] if contest.batches[number] >= 0 else []
        counts = _count(same, declared.classes)
        logits[number] = np.log((counts + (overall + 1e-3) / (overall + 1e-3).sum()) / (counts.sum() + 1))
    return replace(contest, batch_logits=logits)


def _count(rows: Sequence[Mapping[str, Any]], classes: Sequence[str]) -> NDArray[np.float64]:
    return np.array([sum(row["label"] == name for row in rows) for name in classes], dtype=np.float64)


def _restore_costs(folder: StudyFolder, record: StudyRecord, names: set[str]) -> dict[str, ArmCost]:
    """Return what arms cost, as `costs.json` has it.

    Raises:
        ModelError: If an arm's cost was never measured.
    """
    measured = load_costs(folder.costs)
    rows = {row.arm: row for row in record.arms}
    costs: dict[str, ArmCost] = {}
    for name in sorted(names, key=lambda name: (bool(rows[name].chosen), name)):  # what is chosen from goes first
        row = rows[name]
        if row.chosen:
            chosen = {choice.arm for choice in row.chosen}
            costs[name] = join_costs([(rows[arm].model_dump(), costs[arm]) for arm in sorted(chosen & costs.keys())])
            continue
        begins, ends = f"{row.tiles}/", f"/{row.encoder}@{row.depth}"
        keys = [key for key in measured if key.startswith(begins) and key.endswith(ends)]
        keys = [key for key in keys if Path(key.removeprefix(begins).removesuffix(ends)).name == row.weights]
        if not keys:
            raise ModelError(
                f"costs.json holds no cost of arm '{name}'. Run the study again: it measures what is missing."
            )
        a_tile = float(measured[keys[0]]["seconds_per_tile"])
        a_slide = a_tile * record.cohort.tiles_a_slide.get(row.tiles, 1.0)
        costs[name] = ArmCost(a_slide=a_slide, a_tile=a_tile, gflops=float(measured[keys[0]]["gflops"]))
    return costs


def join_costs(arms: Sequence[tuple[Mapping[str, Any], ArmCost]]) -> ArmCost:
    """Return what predicting with several arms' models costs: every network once, as deep as it is read.

    Args:
        arms: What `study.json` says of each, and its cost.
    """
    networks: dict[tuple[Any, ...], list[ArmCost]] = {}
    for row, cost in arms:
        networks.setdefault(tuple(row[key] for key in ("encoder", "weights", "tiles")), []).append(cost)
    deepest = [max(costs, key=lambda cost: (cost.gflops, cost.a_slide)) for costs in networks.values()]
    return ArmCost(
        a_slide=sum(cost.a_slide for cost in deepest),
        a_tile=sum(cost.a_tile for cost in deepest),
        gflops=sum(cost.gflops for cost in deepest),
    )


def _read_rows(path: Path) -> list[dict[str, str]]:
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def _read(path: Path) -> dict[str, Any]:
    try:
        content = parse_json_file(path)
    except OSError:
        return {}
    except ValueError as error:
        raise ModelError(f"'{path}' is damaged ({error}). Run `lamella study` again.") from error
    return content if isinstance(content, dict) else {}
