"""What a study says of itself, `study.json`: the design, each arm and its state, versions, notes. No paths."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from lamella.cohort import Cohort, list_rounds
from lamella.errors import SettingsError
from lamella.files import parse_json_file
from lamella.runs.record import list_versions
from lamella.studies.arms import Arm
from lamella.studies.design import StudyDesign
from lamella.studies.folder import StudyFolder

RECORD_FORMAT = 1
# What may change while a study goes on: its figures stay those of the same folds, seeds, tiles and training.
_FREE = {"arms", "comparisons", "margin", "budget", "preset", "permutations", "cka", "cam", "localise",
         "lesion_class", "lesion_value", "finetune_best", "control_arm", "reference"}  # fmt: skip


def describe_study(
    cohort: Cohort, design: StudyDesign, *, status: str, rows: Iterable[Mapping[str, Any]]
) -> dict[str, Any]:
    """Return the record of a study.

    Args:
        cohort: With folds or splits.
        design: What is compared.
        status: How far it is: `running`, `finished` or `budget spent`.
        rows: What is said of each arm.
    """
    slides = cohort.slides
    return {
        "format": "lamella-study",
        "format_version": RECORD_FORMAT,
        "status": status,
        "preset": design.preset,
        "design": design.as_plain(),
        "classes": list(cohort.classes),
        "positive": cohort.positive,
        "arms": [dict(row) for row in rows],
        "cohort": {
            "n_slides": len(slides),
            "n_patients": len({slide.patient_id for slide in slides}),
            "per_class": {name: len({s.patient_id for s in slides if s.label == name}) for name in cohort.classes},
            "n_rounds": len(list_rounds(cohort)),
        },
        "versions": list_versions(),
    }


def was_declared(arm: Arm, earlier: Mapping[str, Any] | None) -> bool:
    """Say whether an arm stood in the design before any result was seen.

    Args:
        arm: Which arm.
        earlier: The record of an earlier run into the same folder; None where there was none.
    """
    if earlier is None:
        return True
    known = {row["arm"]: bool(row["declared"]) for row in earlier["arms"]}
    return known.get(arm.name, earlier.get("status") == "running")


def load_record(path: Path) -> dict[str, Any] | None:
    """Return what `study.json` holds; None where there is none.

    Raises:
        SettingsError: If it cannot be read.
    """
    if not path.exists():
        return None
    try:
        record = parse_json_file(path)
        if record["format"] != "lamella-study" or record["format_version"] != RECORD_FORMAT:
            raise KeyError("format")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SettingsError(f"'{path}' is no record of a study that this version reads. Name another --out.") from error
    return dict(record)


def refuse_other_design(earlier: Mapping[str, Any] | None, design: StudyDesign, folder: StudyFolder) -> None:
    """Refuse to go on in a folder whose study was divided, cut or trained otherwise: its figures would be mixed."""
    if earlier is None:
        return
    now = design.as_plain()
    for key in now:
        if key not in _FREE and earlier["design"].get(key) != now[key]:
            raise SettingsError(
                f"'{folder.path}' holds a study whose '{key}' is {earlier['design'].get(key)} and {now[key]} is asked "
                "for. Name another --out; only arms may be added to a study."
            )
