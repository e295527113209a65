"""Marks of finished work, and what a study folder holds by them.

DIR/local/work/<mark>.json    what was made, a hash of what it was made of, how long it took, slides that were lost
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from lamella.cohort import Cohort
from lamella.encoders import EncoderSpec
from lamella.explain.records import CkaRecord
from lamella.features.failures import Failure
from lamella.features.settings import ExtractSettings
from lamella.files import parse_json_file, write_json
from lamella.runs.folder import RunFolder
from lamella.studies.arms import Arm
from lamella.studies.costs import load_costs
from lamella.studies.design import StudyDesign
from lamella.studies.folder import StudyFolder, load_if_whole
from lamella.studies.looks import Controls, StudyLocalisation
from lamella.studies.record import StudyRecord
from lamella.studies.work import BagSet, Mark, bags_of, base_of


@dataclass(frozen=True, slots=True, kw_only=True)
class FinishedWork:
    """What a mark says.

    Attributes:
        made_of: A hash of what it was made of.
        seconds: How long it took.
        failures: Slides that could not be done.
    """

    made_of: str
    seconds: float
    failures: tuple[Failure, ...] = ()


def save_mark(folder: Path, mark: Mark, *, seconds: float, failures: Sequence[Failure] = ()) -> None:
    """Write that something is finished."""
    content = {"made": mark.key, "made_of": mark.made_of, "seconds": round(seconds, 1)}
    name = re.sub(r"[^A-Za-z0-9@._-]+", "-", mark.key)
    write_json(folder / f"{name}.json", content | {"failures": [asdict(failure) for failure in failures]})


def load_marks(folder: Path) -> dict[str, FinishedWork]:
    """Return what is finished, by key; a damaged mark is none."""
    finished: dict[str, FinishedWork] = {}
    for path in sorted(folder.glob("*.json")):
        try:
            content = parse_json_file(path)
            finished[str(content["made"])] = FinishedWork(
                made_of=str(content["made_of"]),
                seconds=float(content["seconds"]),
                failures=tuple(Failure(**failure) for failure in content["failures"]),
            )
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return finished


def find_done(
    design: StudyDesign, cohort: Cohort, folder: StudyFolder, *, folds: tuple[int, ...]
) -> dict[str, str | None]:
    """Return what a study folder holds, as `PlanFacts.done` has it: what was marked and still is there.

    Arms that version 0.1.0 finished bear no marks: `study.json` says that they are done. What it left unfinished is
    listed as work, and what is there of it is kept when that work is done.
    """
    marks, arms = load_marks(folder.work), design.list_arms()
    record = load_if_whole(folder.record, StudyRecord)
    finished = set() if record is None else {arm.arm for arm in record.arms if arm.state == "done"}
    old = [arm for arm in arms if arm.name in finished and (folder.path / "arms" / base_of(arm).key).is_dir()]
    done: dict[str, str | None] = dict.fromkeys(mark for arm in old for mark in _list_trainings(arm, folds))
    done |= _find_bags(design, cohort, folder, {bags_of(arm): marks.get(_name_bags(arm)) for arm in old})
    there = _find_bags(design, cohort, folder, {bags_of(arm): marks.get(_name_bags(arm)) for arm in arms})
    there |= dict.fromkeys(_find_trained(arms, folder, marks, folds) + _find_looks(arms, folder))
    done |= {mark: marks[mark].made_of for mark in there if mark in marks}
    costs = load_costs(folder.costs)
    return done | {f"cost {bags_of(arm).whole.arm.folder}": None for arm in arms if bags_of(arm).key in costs}


def _name_bags(arm: Arm) -> str:
    return f"bags {bags_of(arm).arm.folder}"


def _list_trainings(arm: Arm, folds: tuple[int, ...]) -> list[str]:
    """Return the marks of an arm's trainings."""
    base = base_of(arm)
    kinds = {"frozen": (), "head": ("head",), "tuned": ("head", "tuned")}[arm.finetuned]
    return [f"train {base.folder}", *(f"finetune {base.folder} fold{fold} {kind}" for fold in folds for kind in kinds)]


def _find_bags(
    design: StudyDesign, cohort: Cohort, folder: StudyFolder, wanted: Mapping[BagSet, FinishedWork | None]
) -> dict[str, None]:
    """Return the marks of bags that are there, of all slides but those that could not be encoded."""
    there: dict[str, None] = {}
    for bags, work in wanted.items():
        if bags.features:
            continue
        spec = EncoderSpec(f"{bags.encoder}@{bags.depth}", bags.weights)
        settings = ExtractSettings(cut=design.tiles[bags.tiles].cut(bags.tiles_per_slide), encoders=(spec,))
        files = settings.folder(folder.features_of(bags.weights))
        failed = set() if work is None else {failure.slide_id for failure in work.failures}
        if all(files.features_path(row.slide_id).exists() for row in cohort.slides if row.slide_id not in failed):
            there[_name_bags(bags.arm)] = None
    return there


def _find_trained(
    arms: Sequence[Arm], folder: StudyFolder, marks: Mapping[str, FinishedWork], folds: tuple[int, ...]
) -> list[str]:
    """Return the marks of trainings whose models are there."""
    trained, is_whole = [], True
    for base in dict.fromkeys(base_of(arm) for arm in arms):
        run = RunFolder(folder.models(base))
        if run.models.is_dir():
            trained.append(f"train {base.folder}")
        elif f"train {base.folder}" in marks:
            is_whole = False
        for fold in folds:
            for kind in ("head", "tuned"):
                if any((run.finetuned / f"fold{fold}").glob(f"seed*/{kind}/model")):
                    trained.append(f"finetune {base.folder} fold{fold} {kind}")
    if is_whole:  # else it is not known whose models a fold's choice went on from
        trained += [f"finetune chosen fold{fold}" for fold in folds]
    return trained


def _find_looks(arms: Sequence[Arm], folder: StudyFolder) -> list[str]:
    """Return the marks of controls and looks whose figures are there."""
    controls, cka = load_if_whole(folder.controls, Controls), load_if_whole(folder.cka, CkaRecord)
    localisation = load_if_whole(folder.localisation, StudyLocalisation)
    compared = set() if cka is None else {pair.arm for pair in cka.pairs}
    mapped = set() if localisation is None else {maps.arm for maps in localisation.arms}
    return [
        *(["permute"] if controls is not None and controls.permutations is not None else []),
        *(f"cka {arm.folder}" for arm in arms if arm.name in compared),
        *(f"localise {arm.folder}" for arm in arms if arm.name in mapped),
    ]
