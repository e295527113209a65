"""Slides that could not be finished: in which stage, why, and the table that lists them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lamella.errors import BagError, ResolutionError, TileError, TissueError
from lamella.files import remove, write_table

_STAGES: tuple[tuple[type[BaseException], str], ...] = (
    (ResolutionError, "resolution"),
    (TissueError, "tissue"),
    (TileError, "tiles"),
    (BagError, "provenance"),
)


@dataclass(frozen=True, slots=True)
class Failure:
    """A slide that could not be finished: in which stage, and why."""

    slide_id: str
    stage: str
    reason: str


def save_failures(failures: Sequence[Failure], path: Path) -> None:
    """Write `failures.csv`, or remove an old one where nothing failed."""
    if failures:
        rows = [{"slide_id": f.slide_id, "stage": f.stage, "reason": f.reason} for f in failures]
        write_table(path, ["slide_id", "stage", "reason"], rows)
    else:
        remove(path)


def name_stage(error: BaseException) -> str:
    """Return the stage in which a slide fails with this error."""
    return next((stage for kind, stage in _STAGES if isinstance(error, kind)), "open")
