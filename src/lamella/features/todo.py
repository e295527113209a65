"""What is left to do: which slides lack which bags, and which have bags that were made otherwise."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lamella.cohort import CohortSlide
from lamella.errors import LamellaError
from lamella.features.bag import FEATURE_KEYS, list_differences, read_stated
from lamella.features.failures import Failure, name_stage
from lamella.features.h5_reading import Attribute
from lamella.features.plan import wanted_provenance
from lamella.features.said import StandingBag, read_standing
from lamella.features.settings import BagTarget, ExtractSettings, name_in_files

_KEYS = (*FEATURE_KEYS, "mpp_source", "precision")


@dataclass(frozen=True, slots=True, kw_only=True)
class Todo:
    """What is left to do, and what stands already.

    Attributes:
        slides: Those whose bags stand or can be made, in the order of the cohort.
        missing: Slides by the targets (their places in the list) whose bags they lack.
        kept: Slides that lack none.
        failures: Slides with a bag that cannot be used.
        standing: Of each target, what its finished bags state, by slide.
    """

    slides: list[CohortSlide] = field(default_factory=list)
    missing: dict[tuple[int, ...], list[CohortSlide]] = field(default_factory=dict)
    kept: list[str] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    standing: dict[BagTarget, dict[str, StandingBag]] = field(default_factory=dict)


def find_todo(slides: Sequence[CohortSlide], settings: ExtractSettings, targets: Sequence[BagTarget]) -> Todo:
    """Group slides by the targets whose bags they lack; list those that lack none, and those that cannot be done."""
    todo = Todo()
    for item in slides:
        missing, refusals = [], []
        for number, target in enumerate(targets):
            path = target.folder.features_path(item.slide_id)
            if not path.exists():
                missing.append(number)
                continue
            try:
                stated = read_stated(path)
                differences = list_differences(stated, _wanted(item, settings, target, stated), _KEYS)
                if differences:
                    refusals.append(
                        Failure(item.slide_id, "provenance", say_differences(item.slide_id, path, differences))
                    )
                else:
                    todo.standing.setdefault(target, {})[item.slide_id] = read_standing(stated)
            except LamellaError as error:
                refusals.append(Failure(item.slide_id, name_stage(error), str(error)))
        todo.failures.extend(refusals)
        if refusals:
            continue
        todo.slides.append(item)
        if missing:
            todo.missing.setdefault(tuple(missing), []).append(item)
        else:
            todo.kept.append(item.slide_id)
    return todo


def _wanted(
    item: CohortSlide, settings: ExtractSettings, target: BagTarget, stated: Mapping[str, Attribute]
) -> dict[str, str | int | float]:
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
    # A precision that was asked for and came too far from fp32 was not used, and would not be now.
    asked = settings.runtime.precision
    if asked not in ("auto", stated.get("precision_asked")):
        wanted["precision"] = asked
    return wanted


def say_differences(slide_id: str, path: Path, differences: tuple[str, ...]) -> str:
    """Say how a file that stands where a slide's would go was made otherwise, and what to do."""
    return (
        f"'{path.name}' of slide '{slide_id}' was made otherwise: {'; '.join(differences)}. Choose another --out, or "
        "delete that file."
    )
