"""What is left to do: which slides lack which bags, and which have bags that were made otherwise."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lamella.cohort import CohortSlide
from lamella.errors import LamellaError
from lamella.features.bag import FEATURE_KEYS, find_differences
from lamella.features.failures import Failure, name_stage
from lamella.features.plan import wanted_provenance
from lamella.features.settings import BagTarget, ExtractSettings, name_in_files


def find_todo(
    slides: Sequence[CohortSlide], settings: ExtractSettings, targets: Sequence[BagTarget]
) -> tuple[dict[tuple[int, ...], list[CohortSlide]], list[str], list[Failure]]:
    """Group slides by the targets whose bags they lack; list those that lack none, and those that cannot be done."""
    todo: dict[tuple[int, ...], list[CohortSlide]] = {}
    kept: list[str] = []
    failures: list[Failure] = []
    for item in slides:
        missing, refusals = [], []
        for place, target in enumerate(targets):
            path = target.folder.features_path(item.slide_id)
            if not path.exists():
                missing.append(place)
                continue
            try:
                wanted = _wanted(item, settings, target)
                differences = find_differences(path, wanted, (*FEATURE_KEYS, "mpp_source", "precision"))
                if differences:
                    refusals.append(
                        Failure(item.slide_id, "provenance", say_differences(item.slide_id, path, differences))
                    )
            except LamellaError as error:
                refusals.append(Failure(item.slide_id, name_stage(error), str(error)))
        failures += refusals
        if missing and not refusals:
            todo.setdefault(tuple(missing), []).append(item)
        elif not refusals:
            kept.append(item.slide_id)
    return todo, kept, failures


def _wanted(item: CohortSlide, settings: ExtractSettings, target: BagTarget) -> dict[str, Any]:
    """Return what a finished bag must state; the file's own resolution is vouched for by the slide's hash."""
    given = item.slide_mpp
    wanted = wanted_provenance(item, settings.cut, (given or 0.0, given or 0.0))
    wanted |= {
        "mpp_source": "file" if given is None else "given",
        "encoder": name_in_files(target.encoder),
        "fingerprint": target.fingerprint,
        "dtype": settings.dtype,
    }
    if given is None:
        del wanted["slide_mpp_x"], wanted["slide_mpp_y"]
    if settings.runtime.precision != "auto":
        wanted["precision"] = settings.runtime.precision
    return wanted


def say_differences(slide_id: str, path: Path, differences: tuple[str, ...]) -> str:
    """Say how a file that stands where a slide's would go was made otherwise, and what to do."""
    return (
        f"'{path.name}' of slide '{slide_id}' was made otherwise: {'; '.join(differences)}. Choose another --out, or "
        "delete that file."
    )
