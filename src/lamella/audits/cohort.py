"""The audit of a cohort: every slide at once, then what only shows between them."""

import dataclasses
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from lamella.audits.row import AUDIT_COLUMNS, AuditRow
from lamella.audits.slide import Cut, audit_slide
from lamella.cohort import Cohort, list_rounds, list_same_images
from lamella.cores import count_threads
from lamella.errors import CohortError
from lamella.files import write_table
from lamella.progress import Progress, SilentProgress

# EfficientNet-Lite0 on tiles of 224 px by an ordinary core in fp32; other encoders are slower, a GPU is far faster.
TILES_PER_CORE_SECOND = 21.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit:
    """What an audit found.

    Attributes:
        rows: One row a slide, in the cohort's order.
        problems: What is wrong with the cohort as a whole.
        tile_px: Side of the tiles that were counted, in pixels.
        n_threads: Number of threads that looked.
    """

    rows: tuple[AuditRow, ...]
    problems: tuple[str, ...]
    tile_px: int
    n_threads: int

    @property
    def ok(self) -> bool:
        """Whether everything would go well."""
        return not self.problems and not any(row.problems for row in self.rows)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What extracting the features of a cohort is about to cost.

    Attributes:
        n_tiles: Tiles to read and encode.
        reading_seconds: Time to read them, as measured.
        encoding_seconds: Time to encode them, by a rule of thumb for a small encoder on the processor.
        n_bytes: Disk for bags and coordinates.
    """

    n_tiles: int
    reading_seconds: float
    encoding_seconds: float
    n_bytes: int

    @property
    def seconds(self) -> float:
        """Time for both, which overlap."""
        return max(self.reading_seconds, self.encoding_seconds)


def audit_cohort(cohort: Cohort, cut: Cut, *, n_threads: int | None = None, progress: Progress | None = None) -> Audit:
    """Look at every slide of a cohort, in parallel, from headers, a thumbnail and at most 16 tiles.

    One bad slide never stops the rest: what is wrong is in the rows.

    Args:
        cohort: The slides.
        cut: How they are to be cut into tiles.
        n_threads: Slides looked at at once; None is one a core, at most 8.
        progress: Where to report to.

    Raises:
        SettingsError: If regions fit no slide, or it is not clear which of them count.
    """
    progress = progress or SilentProgress()
    for choice in cut.regions:
        note = choice.survey([slide.slide_id for slide in cohort.slides])
        if note is not None:
            progress.say(note)
    n_threads = n_threads or min(count_threads(), 8)
    rows: dict[str, AuditRow] = {}
    with progress.stage("Audit", len(cohort.slides), "slides") as stage:
        pool = ThreadPoolExecutor(n_threads)
        try:
            futures = [pool.submit(audit_slide, item, cut) for item in cohort.slides]
            for future in as_completed(futures):
                row = future.result()
                rows[row.slide_id] = row
                stage.advance()
        finally:
            pool.shutdown(cancel_futures=True)
    ordered = [rows[slide.slide_id] for slide in cohort.slides]
    return Audit(
        rows=tuple(_mark_same_images(ordered)),
        problems=tuple(_check_cohort(cohort)),
        tile_px=cut.spec.tile_px,
        n_threads=n_threads,
    )


def save_audit(audit: Audit, path: Path) -> None:
    """Write the rows as CSV.

    Raises:
        OutputError: If the file cannot be written.
    """
    write_table(path, AUDIT_COLUMNS, (row.cells() for row in audit.rows))


def estimate_cost(audit: Audit, *, embedding_dim: int = 1280, bytes_per_value: int = 2) -> Cost:
    """Estimate time and disk of extracting features, from the slides without a problem.

    Args:
        audit: What was found.
        embedding_dim: Length of an embedding.
        bytes_per_value: Of a stored value: 2 for float16, 4 for float32.

    Example:
        >>> row = AuditRow(slide_id="S-1", n_tiles=1000, tile_seconds=0.02)
        >>> cost = estimate_cost(Audit(rows=(row,), problems=(), tile_px=224, n_threads=2))
        >>> round(cost.reading_seconds), round(cost.encoding_seconds), round(cost.n_bytes / 1e6, 1)
        (10, 24, 2.7)
    """
    rows = [row for row in audit.rows if not row.problems]
    n_tiles = sum(row.n_tiles or 0 for row in rows)
    reading = sum((row.n_tiles or 0) * (row.tile_seconds or 0.0) for row in rows)
    per_second = audit.n_threads * TILES_PER_CORE_SECOND * (224 / audit.tile_px) ** 2
    # Coordinates, two int64, lie in both files of a slide, and each file has some 32 KiB of its own.
    n_bytes = n_tiles * (embedding_dim * bytes_per_value + 2 * 16) + len(rows) * 2 * 32 * 1024
    return Cost(
        n_tiles=n_tiles,
        reading_seconds=reading / audit.n_threads,
        encoding_seconds=n_tiles / per_second,
        n_bytes=n_bytes,
    )


def _mark_same_images(rows: Sequence[AuditRow]) -> list[AuditRow]:
    """Add to the rows that share an image with which others they do."""
    groups = list_same_images({row.slide_id: row.quick_hash for row in rows if row.quick_hash})
    same = {slide_id: group for group in groups for slide_id in group}
    marked = []
    for row in rows:
        others = [f"'{other}'" for other in same.get(row.slide_id, ()) if other != row.slide_id]
        if others:
            named = ", ".join(others)
            text = (
                f"slide '{row.slide_id}' is the same image as {named} (the same bytes, or files of one slide). "
                "Keep one of them."
            )
            row = dataclasses.replace(row, problems=(*row.problems, text))
        marked.append(row)
    return marked


def _check_cohort(cohort: Cohort) -> list[str]:
    """List what is wrong with splits or folds, where the cohort has any."""
    if all(slide.fold is None and slide.split is None for slide in cohort.slides):
        return []
    try:
        list_rounds(cohort)
    except CohortError as error:
        return [str(error)]
    return []
