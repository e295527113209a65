"""External validation of several models together: a study's arms, or runs and exports that are given side by side.

OUT/               predictions, metrics and pictures of the arm that was recommended, as of any prediction
OUT/arms/<n>/      predictions, metrics and attention of each other arm
OUT/arms.csv       a row an arm: AUC, interval, loss against the whole network, answer
OUT/external.json  the same, and whether what was recommended is confirmed
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import JsonValue

from lamella.analysis.external import Claim, judge_external
from lamella.analysis.verdict import Verdict
from lamella.cohort import Cohort
from lamella.defaults import MARGIN
from lamella.errors import ModelError, SettingsError
from lamella.exports.card import CARD, load_card
from lamella.exports.open import open_predictor
from lamella.exports.source import find_arm_run, find_source
from lamella.features.extract import extract_cohort
from lamella.features.failures import Failure
from lamella.features.settings import ExtractSettings
from lamella.files import refuse_links, write_json, write_table
from lamella.mil import SlidePrediction
from lamella.progress import Progress
from lamella.records import load_content
from lamella.runs.folder import RunFolder
from lamella.runs.metrics import Metrics
from lamella.runs.predict import predict_cohort
from lamella.runs.predict_bags import predict_bag_cohort
from lamella.runs.predictions import tabulate
from lamella.runs.predictor import Predictor, list_seen
from lamella.runs.settings import restore_extract_settings
from lamella.studies.folder import StudyFolder
from lamella.studies.record import ArmRecord, StudyRecord

EXTERNAL_FORMAT = 1
_COLUMNS = ("arm", "n_patients", "auc", "auc_low", "auc_high", "loss", "loss_low", "loss_high", "smallest_margin",
            "answer")  # fmt: skip
_DECIDED = ("sensitivity", "specificity", "ppv", "npv")


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class ExternalArms:
    """Models that predict the same new slides.

    Attributes:
        predictors: By the arm's name; what the others are held against first.
        claim: What is asked again.
    """

    predictors: Mapping[str, Predictor]
    claim: Claim

    @property
    def shown(self) -> str:
        """The arm whose predictions are drawn: the recommended one, else what the others are held against."""
        return self.claim.arm or self.claim.arms[0]

    def predictor(self) -> Predictor:
        """Return the models of the arm that is shown."""
        return self.predictors[self.shown]


def is_study(path: Path) -> bool:
    """True for the folder of a study."""
    return StudyFolder(Path(path)).record.exists()


def open_study_arms(
    path: Path, *, margin: float | None = None, on_bags: bool = False, progress: Progress
) -> ExternalArms:
    """Open the arms of a study that its recommendation speaks of: the whole network and its depths, or all arms.

    Args:
        path: Folder of a finished study.
        margin: How much AUC may be given up; None takes what the study declared.
        on_bags: Whether bags of the new slides are there: else arms whose features were made elsewhere cannot be asked.
        progress: Where to report to; a fine-tuned arm's threshold is found here.

    Raises:
        ModelError: If the study is not finished, or an arm's models are not there.
    """
    folder = StudyFolder(Path(path))
    refuse_links(folder.path)
    verdict = load_content(folder.verdict, Verdict, made_by="lamella study")
    if verdict is None or verdict.verdict.kind is None or not verdict.arms:
        raise ModelError(f"the study in '{folder.path}' is not finished. Run it again: it makes what is missing.")
    rows = {row.arm: row for row in StudyRecord.load(folder.record, made_by="lamella study").arms}
    chains, recommended = verdict.chains, verdict.verdict.arm
    if len(chains) == 1:
        steps = [step.arm for step in chains[0].steps]
        if recommended in steps:
            steps = steps[: steps.index(recommended) + 1]
        names = [chains[0].whole, *steps]
    else:
        judged = sorted(verdict.arms, key=lambda arm: (-(arm.cost or 0), -(arm.gflops or 0)))
        names = [arm.arm for arm in judged if not rows[arm.arm].chosen and (on_bags or rows[arm.arm].depth is not None)]
    if not names or (recommended is not None and rows[recommended].depth is None and not on_bags):
        said = f"recommends '{recommended}'" if recommended else "has arms"
        raise ModelError(
            f"the study in '{folder.path}' {said} whose features were made elsewhere, so no encoder is here to predict "
            f"slides. Give bags of the slides: lamella predict {folder.path} --features NAME=DIR for each arm"
        )
    costs = {arm.arm: arm.cost or 0.0 for arm in verdict.arms}
    claim = Claim(
        arms=tuple(names),
        arm=recommended if recommended in names else None,
        chain=len(chains) == 1,
        margin=verdict.margin if margin is None else margin,
        costs={name: costs[name] for name in names},
    )
    return ExternalArms(predictors={name: _open_arm(folder, rows, name, progress) for name in names}, claim=claim)


def open_beside(paths: Sequence[Path], *, margin: float | None = None) -> ExternalArms:
    """Open runs and exports that are given together: the first is what the others are held against.

    Args:
        paths: The whole network first, then its depths, the dearest first; the last is what was recommended.
        margin: How much AUC may be given up; None is the default of studies.

    Raises:
        ModelError: If a folder is neither a run nor an export.
        SettingsError: If they do not tell the same classes apart, or a folder is given twice.
    """
    study = next((path for path in paths if is_study(path)), None)
    if study is not None:
        raise SettingsError(f"'{study}' is a study: it brings its arms along. Give it alone, without --with.")
    if len({Path(path).resolve() for path in paths}) < len(paths):
        raise SettingsError("a model is given twice. Give each run or export once.")
    opened: dict[str, Predictor] = {}
    for path in paths:
        predictor = open_predictor(path)
        name = load_card(path).arm if (Path(path) / CARD).exists() else predictor.settings.encoder or Path(path).name
        alike = sum(other == name or other.startswith(f"{name} (") for other in opened)
        opened[f"{name} ({alike + 1})" if alike else name] = predictor
    first, *others = opened
    for name in others:
        beside, whole = opened[name], opened[first]
        if (beside.classes, beside.positive) != (whole.classes, whole.positive):
            raise SettingsError(
                f"'{first}' tells {', '.join(whole.classes)} apart and '{name}' {', '.join(beside.classes)}, so they "
                "cannot be compared. Give models of the same classes."
            )
    names = tuple(opened)
    claim = Claim(
        arms=names,
        arm=names[-1],
        chain=True,
        margin=MARGIN if margin is None else margin,
        costs={name: float(len(names) - index) for index, name in enumerate(names)},
    )
    return ExternalArms(predictors=opened, claim=claim)


def name_bags(arms: ExternalArms, named: Mapping[str, Path]) -> dict[str, Path]:
    """Return the folder of bags of each arm, from those that were named by arm or by what its bags are called.

    Raises:
        SettingsError: If an arm has none, or a name is of no arm.
    """
    by_arm = {
        arm: next((named[name] for name in named if arm == name or arm.startswith(f"{name}, ")), None)
        for arm in arms.claim.arms
    }
    strange = next((name for name in named if not any(a == name or a.startswith(f"{name}, ") for a in by_arm)), None)
    lacking = next((arm for arm, folder in by_arm.items() if folder is None), None)
    if strange is not None or lacking is not None:
        what = f"'{strange}' is none of the arms" if strange is not None else f"'{lacking}' has no bags"
        raise SettingsError(f"--features: {what}. Give NAME=DIR for each of {', '.join(by_arm)}.")
    return {arm: folder for arm, folder in by_arm.items() if folder is not None}


def predict_external(
    arms: ExternalArms,
    cohort: Cohort,
    out: Path,
    *,
    features: Mapping[str, Path] | None = None,
    progress: Progress,
) -> tuple[list[SlidePrediction], tuple[Failure, ...], dict[str, Any] | None]:
    """Predict new slides by every arm; with labels, ask again whether what was recommended holds.

    Args:
        arms: Of `open_study_arms` or `open_beside`.
        cohort: New slides, labelled or not.
        out: Where to write.
        features: Folder of the bags of each arm, where slides are not encoded.
        progress: Where to report to.

    Returns:
        What the arm that is shown says of each slide, the slides that could not be done, and what `external.json`
        holds; None without labels.

    Raises:
        LeakageError: If labels are given and a model has learned from one of these slides or patients.
        CohortError: If the labelled patients are of one class.
    """
    folders = {name: out if name == arms.shown else out / "arms" / str(n) for n, name in enumerate(arms.claim.arms)}
    encoded = _extract(arms, cohort, out, progress) if features is None else {}
    by_arm: dict[str, list[SlidePrediction]] = {}
    failures: dict[str, Failure] = {}
    for name, predictor in arms.predictors.items():
        predictions, failed = (
            predict_cohort(predictor, cohort, folders[name], features=encoded[name], progress=progress)
            if features is None
            else predict_bag_cohort(predictor, cohort, features[name], folders[name], progress=progress)
        )
        by_arm[name] = predictions
        failures |= {failure.slide_id: failure for failure in failed}
    if not all(slide.label is not None for slide in cohort.slides) or not all(by_arm.values()):
        return by_arm[arms.shown], tuple(failures.values()), None
    first = arms.predictors[arms.claim.arms[0]]
    tables = [tabulate(predictions, first.classes).assign(arm=name) for name, predictions in by_arm.items()]
    # One model a slide: the judge is told of no folds and seeds.
    table = pd.concat(tables, ignore_index=True).drop(columns=["fold", "seed", "side"])
    judged = judge_external(table, arms.claim, classes=first.classes).as_json()
    for row in judged["arms"]:
        row["at_frozen_threshold"] = _find_decided(folders[row["arm"]])
    content = {"format": EXTERNAL_FORMAT, "classes": list(first.classes), "positive": first.positive, **judged}
    write_json(RunFolder(out).external, content)
    write_table(out / "arms.csv", _COLUMNS, [_list_row(row, judged["n_patients"]) for row in judged["arms"]])
    return by_arm[arms.shown], tuple(failures.values()), content


def _open_arm(folder: StudyFolder, rows: Mapping[str, ArmRecord], name: str, progress: Progress) -> Predictor:
    """Return the models of one arm; of a fine-tuned one with its own threshold, found on validation."""
    row = rows[name]
    run = find_arm_run(folder, row, rows.values())
    if row.finetuned == "frozen":
        return run.predictor()
    source = find_source(folder.path, name, progress=progress)
    return Predictor(
        called="study",
        folder=folder.path,
        classes=source.classes,
        positive=source.positive,
        settings=source.settings,
        members=source.members,
        threshold=source.threshold,
        seen=list_seen([*run.models, *(member.model for member in source.members)]),
    )


def _extract(arms: ExternalArms, cohort: Cohort, out: Path, progress: Progress) -> dict[str, Path]:
    """Encode every tile once for all encoders that cut slides alike; return where each arm's bags lie.

    Names in files do not tell weights apart, so encoders of one name and other weights go to folders of their own.
    """
    groups: list[ExtractSettings] = []
    folders: dict[str, Path] = {}
    for name, predictor in arms.predictors.items():
        settings = restore_extract_settings(predictor.settings, predictor.encoders[0])
        settings = dataclasses.replace(settings, encoders=predictor.encoders)
        number = next((n for n, group in enumerate(groups) if _go_together(group, settings)), len(groups))
        if number == len(groups):
            groups.append(settings)
        encoders = tuple(dict.fromkeys((*groups[number].encoders, *predictor.encoders)))
        groups[number] = dataclasses.replace(groups[number], encoders=encoders)
        folders[name] = out / "features" / str(number)
    for number, group in enumerate(groups):
        extract_cohort(cohort.slides, group, out / "features" / str(number), progress=progress)
    return folders


def _go_together(first: ExtractSettings, second: ExtractSettings) -> bool:
    """Say whether two cut slides alike, and no two encoders of them share a file's name and not its weights."""
    specs = {*first.encoders, *second.encoders}
    return first.cut == second.cut and len({Path(spec.name).name for spec in specs}) == len(specs)


def _find_decided(folder: Path) -> dict[str, JsonValue]:
    """Return what an arm reaches at the threshold that was frozen for it."""
    units = Metrics.load(RunFolder(folder).metrics, made_by="lamella predict").scores.model.headline_units
    return {name: None if units is None else getattr(units, name).as_json() for name in _DECIDED}


def _list_row(row: Mapping[str, Any], n_patients: int) -> dict[str, Any]:
    (low, high), loss = row["interval"], row["loss_interval"] or ("", "")
    values = (row["arm"], n_patients, row["auc"], low, high, row["loss"], *loss, row["smallest_margin"], row["answer"])
    return {
        key: f"{value:.6f}" if isinstance(value, float) else "" if value is None else value
        for key, value in zip(_COLUMNS, values, strict=True)
    }
