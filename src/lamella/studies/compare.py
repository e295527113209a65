"""Predictions that were made elsewhere, compared as the arms of a study are: the same judge, the same page.

The folder is that of a study without slides, bags or models: `lamella report` makes its page again, and
`lamella study DIR --judge` judges it by the rules of a later version.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from lamella.analysis.auc import estimate_auc
from lamella.analysis.metrics import measure
from lamella.analysis.verdict import PlannedTable, Verdict
from lamella.defaults import MARGIN
from lamella.errors import CohortError, SettingsError
from lamella.files import refuse_links, replacing, write_record, write_table
from lamella.records import load_content
from lamella.runs.folder import RunFolder, hash_tables
from lamella.runs.predictions import average_models
from lamella.runs.record import list_versions
from lamella.studies.costs import NOT_PRICED, load_given_costs
from lamella.studies.folder import StudyFolder
from lamella.studies.given import GivenArm, join_arms, load_given
from lamella.studies.given_columns import Known, load_known
from lamella.studies.judge import judge_given
from lamella.studies.record import RECORD_FORMAT, ArmRecord, CohortCounts, DesignRecord, GivenRecord, StudyRecord

_FACTS = ("slide_id", "patient_id", "label", "batch", "fold")


@dataclass(frozen=True, slots=True, kw_only=True)
class CompareSettings:
    """How predictions that were made elsewhere are compared.

    Attributes:
        margin: How much AUC the recommended arm may give up.
        positive: The class that is looked for, and that a column `score` is of; None takes the last label sorted.
        reference: An arm that every other is held against, in a declared table; None declares none.
        n_left_out: Of cross-validation: how many folds the model that scores a fold did not learn from: the tested one
            and one that validates (2), or the tested one alone (1). It widens the errors of differences.
    """

    margin: float = MARGIN
    positive: str | None = None
    reference: str | None = None
    n_left_out: int = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What came out of a comparison.

    Attributes:
        folder: Where it lies.
        record: What `study.json` holds.
        verdict: What `verdict.json` holds.
    """

    folder: StudyFolder
    record: StudyRecord
    verdict: Verdict

    @property
    def cost_unit(self) -> str | None:
        """What costs are in; None where none were given."""
        return self.record.cost_unit or None


def name_tables(named: Sequence[str]) -> dict[str, Path]:
    """Return tables by the name of their arm, from `NAME=TABLE` or `TABLE`, which is called as its file is.

    Raises:
        CohortError: If two would have one name.

    Example:
        >>> sorted(name_tables(["uni2=a/preds.csv", "virchow2.csv"]))
        ['uni2', 'virchow2']
    """
    tables: dict[str, Path] = {}
    for text in named:
        name, separator, path = text.partition("=")
        if not separator or "/" in name:
            name, path = Path(text).stem, text
        if name in tables:
            raise CohortError(f"two arms are called '{name}'. Name them: NAME={path}.")
        tables[name] = Path(path)
    return tables


def compare_predictions(
    tables: Mapping[str, Path | str],
    out: Path | str,
    *,
    settings: CompareSettings | None = None,
    costs: Path | str | None = None,
    patients: Path | str | None = None,
) -> Comparison:
    """Compare predictions of any tool, and write what a study writes of its arms.

    Args:
        tables: Tables or folders of predictions by the name of their arm (`load_given`).
        out: The folder.
        settings: How they are compared.
        costs: Table of what each arm costs; None recommends by the order in which arms are named.
        patients: Table of `slide_id`, `patient_id`, `label`, `batch`, `fold`, for what the predictions do not say.

    Raises:
        CohortError: Naming the table, the row and the cell that cannot be used, or what does not go together.
        SettingsError: If the settings cannot be.
    """
    settings, folder = settings or CompareSettings(), StudyFolder(Path(out))
    known = Known() if patients is None else load_known(patients)
    loaded = {
        name: load_given(path, name=name, known=known, positive=settings.positive) for name, path in tables.items()
    }
    arms = _name_apart(loaded)
    names = [arm.name for arm in arms]
    if len(arms) < 2:
        raise CohortError(f"there is one arm, '{names[0]}', and nothing to compare it with. Name two tables or more.")
    if settings.reference is not None and settings.reference not in names:
        raise SettingsError(f"no arm is called '{settings.reference}'. Name one of {', '.join(names)}.")
    _refuse_other_content(folder)
    frame, (priced, unit) = join_arms(arms), (None, None) if costs is None else load_given_costs(costs, names)
    given = GivenRecord(
        files={name: Path(path).name for name, path in tables.items()},
        costs=priced,
        n_left_out=settings.n_left_out,
    )
    verdict = judge_given(frame, given, margin=settings.margin, tables=_declare(names, settings.reference))
    refuse_links(folder.path)
    folder.path.mkdir(parents=True, exist_ok=True)
    with replacing(folder.predictions) as temporary:
        frame.to_parquet(temporary, index=False)
    classes = tuple(sorted(arms[0].tables[min(arms[0].tables)].classes))
    positive = settings.positive or classes[-1] if len(classes) == 2 else None
    averaged = {name: average_models(frame[frame["arm"] == name], classes, positive) for name in names}
    _save_results(folder, frame, classes)
    write_record(folder.metrics, {name: measure(table).as_json() for name, table in averaged.items()})
    verdict.save(folder.verdict)
    slides = frame.drop_duplicates("slide_id")
    rows = [dict(zip(_FACTS, row, strict=True)) for row in slides[list(_FACTS)].fillna("").itertuples(index=False)]
    write_table(folder.path / "cohort.csv", _FACTS, rows)
    record = _describe(arms, slides, settings, given, classes=classes, positive=positive)
    record = record.model_copy(update={"cost_unit": unit or "", "files": hash_tables(folder.path)})
    record.save(folder.record)
    return Comparison(folder=folder, record=record, verdict=verdict)


def _name_apart(loaded: Mapping[str, Sequence[GivenArm]]) -> list[GivenArm]:
    """Return all arms, called after their tables (`NAME`, or `NAME: ARM` of several) where tables call theirs alike."""
    names = [arm.name for arms in loaded.values() for arm in arms]
    if len(set(names)) == len(names):
        return [arm for arms in loaded.values() for arm in arms]
    return [
        replace(arm, name=name if len(arms) == 1 else f"{name}: {arm.name}")
        for name, arms in loaded.items()
        for arm in arms
    ]


def _refuse_other_content(folder: StudyFolder) -> None:
    """Refuse a folder that holds anything but a comparison: its files would be lost.

    Raises:
        SettingsError: Then.
    """
    if folder.path.exists() and not folder.path.is_dir():
        raise SettingsError(f"'{folder.path}' is a file and --out names a folder. Name another --out.")
    run = RunFolder(folder.path)
    holds = "a run" if run.settings.exists() or run.models.exists() else ""
    if folder.record.exists():
        record = load_content(folder.record, StudyRecord, made_by="lamella study")
        holds = "a study" if record is None or record.given is None else ""
    elif not holds and any((folder.path / name).exists() for name in ("cohort.csv", "results.csv", "metrics.json")):
        holds = "tables that no comparison wrote"
    if holds:
        raise SettingsError(f"'{folder.path}' holds {holds}, which the comparison would overwrite. Name another --out.")


def _declare(names: Sequence[str], reference: str | None) -> list[PlannedTable]:
    if reference is None:
        return []
    rows = [(name, reference) for name in names if name != reference]
    return [{"name": "A", "title": f"Each arm against {reference}", "rows": rows}]


def _describe(
    arms: Sequence[GivenArm],
    slides: pd.DataFrame,
    settings: CompareSettings,
    given: GivenRecord,
    *,
    classes: tuple[str, ...],
    positive: str | None,
) -> StudyRecord:
    patients = slides.drop_duplicates("patient_id")
    notes = [note for arm in arms for note in arm.notes]
    if given.costs is None:
        notes.append(f"No costs were given (--costs), so {NOT_PRICED}")
    n_folds, n_seeds = int(slides["fold"].nunique()), max(len(arm.tables) for arm in arms)
    return StudyRecord(
        format_version=RECORD_FORMAT,
        status="finished",
        preset=None,
        design=DesignRecord(seeds=n_seeds, folds=n_folds, margin=settings.margin),
        classes=classes,
        positive=positive,
        arms=tuple(
            ArmRecord(
                arm=arm.name, key=hashlib.sha256(arm.name.encode()).hexdigest()[:12], encoder=arm.name, depth=None,
                weights="", finetuned="frozen", head="", tiles="", state="done", reason=None, declared=True,
            )
            for arm in arms
        ),
        cohort=CohortCounts(
            n_slides=len(slides),
            n_patients=len(patients),
            per_class={name: int(slides.loc[slides["label"] == name, "patient_id"].nunique()) for name in classes},
            n_rounds=n_folds,
            own_division=True,
        ),
        versions=list_versions(),
        notes=tuple(dict.fromkeys(notes)),
        given=given,
    )  # fmt: skip


def _save_results(folder: StudyFolder, frame: pd.DataFrame, classes: tuple[str, ...]) -> None:
    """Write `results.csv`: a row an arm, seed and fold, with its AUC there."""
    rows = []
    for (arm, seed, fold), part in frame.groupby(["arm", "seed", "fold"], sort=False):
        table = average_models(part, classes, None)
        estimate = estimate_auc(table.logits, table.targets, folds=table.folds)
        auc = "" if estimate is None else f"{float(estimate.auc[0]):.6f}"
        n_patients = len(set(table.patient_ids))
        rows.append({"arm": arm, "fold": fold, "seed": seed, "n_patients": n_patients, "auc": auc})
    write_table(folder.results, ("arm", "fold", "seed", "n_patients", "auc"), rows)
