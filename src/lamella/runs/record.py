"""What a run writes down of itself: predictions as a table, settings and versions as JSON. No paths."""

import platform
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from lamella import __version__
from lamella.cohort import Cohort
from lamella.features.extract import ExtractReport
from lamella.files import write_record, write_table
from lamella.runs.bags import RunBags
from lamella.runs.folder import RunFolder, hash_tables
from lamella.runs.reference import FLAGS
from lamella.runs.rounds import RoundPrediction
from lamella.runs.settings import RunSettings, describe_settings

_PACKAGES = ("torch", "torchvision", "timm", "openvino", "numpy", "scikit-learn", "fastslide", "openslide-python",
             "openslide-bin", "pyvips", "h5py")  # fmt: skip


def save_predictions(predictions: Sequence[RoundPrediction], classes: Sequence[str], path: Path) -> None:
    """Write `slide_id, patient_id, label, fold, prob_<class>..., logit_<class>...`, one row a slide.

    New slides have `sd_<class>..., min_<class>..., max_<class>...` too, the spread of the probability over folds, and
    where it is known what slides of training look like, `unlike_mpp, unlike_colour, unlike_embedding` (1 or 0) and
    `unlike`, the reasons.
    """
    columns = ["slide_id", "patient_id", "label", "fold"]
    columns += [f"prob_{name}" for name in classes] + [f"logit_{name}" for name in classes]
    if any(found.spread is not None for found in predictions):
        columns += [f"{what}_{name}" for what in ("sd", "min", "max") for name in classes]
    if any(found.unlike is not None for found in predictions):
        columns += [*(f"unlike_{flag}" for flag in FLAGS), "unlike"]
    rows: list[Mapping[str, Any]] = []
    for found in predictions:
        row: dict[str, Any] = {
            "slide_id": found.slide.slide_id,
            "patient_id": found.slide.patient_id,
            "label": found.slide.label or "",
            "fold": found.fold,
        }
        row |= {f"prob_{name}": f"{p:.6f}" for name, p in zip(classes, found.probabilities, strict=True)}
        row |= {f"logit_{name}": f"{z:.6f}" for name, z in zip(classes, found.logits, strict=True)}
        if found.spread is not None:
            for what, values in (("sd", found.spread.sd), ("min", found.spread.low), ("max", found.spread.high)):
                row |= {f"{what}_{name}": f"{p:.6f}" for name, p in zip(classes, values, strict=True)}
        if found.unlike is not None:
            row |= {f"unlike_{flag}": int(bool(getattr(found.unlike, flag))) for flag in FLAGS}
            row["unlike"] = "; ".join(found.unlike.reasons)
        rows.append(row)
    write_table(path, columns, rows)


def save_run_record(
    settings: RunSettings,
    cohort: Cohort,
    report: ExtractReport,
    bags: RunBags,
    notes: Sequence[str],
    folder: RunFolder,
) -> None:
    """Write `run.json`: what was asked, what it ran on, what was said aloud."""
    write_record(
        folder.settings,
        {
            "lamella_version": __version__,
            "finished": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            "classes": list(cohort.classes),
            "positive": cohort.positive,
            "settings": describe_settings(settings),
            "runtime": _say_runtime(bags),
            "extraction": {
                "n_encoded": len(report.done),
                "n_kept": len(report.kept),
                "n_failed": len(report.failures),
                "n_tiles": report.n_tiles,
                "seconds": round(report.seconds, 1),
            },
            "notes": list(notes),
            "versions": list_versions(),
            "files": hash_tables(folder.path),
        },
    )


def list_versions() -> dict[str, str]:
    """Return the versions of Python, the system and the packages that bear on results."""
    found = {"lamella": __version__, "python": platform.python_version(), "system": platform.system()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _say_runtime(bags: RunBags) -> str:
    """Return what encoded the bags, now or in an earlier run, and in which precision, as they state it."""
    found = {f"{own['runtime']}, {own['precision']}": None for own in bags.provenance.values() if "runtime" in own}
    return "; ".join(found)
