"""lamella audit."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lamella.cells import Cell
from lamella.cli.echo import echo
from lamella.cli.groups import takes_groups
from lamella.cli.options import CohortArgument, ColumnOptions, JsonOption, TalkOptions
from lamella.cli.tables import describe_bytes, print_json, print_table
from lamella.cli.tile_options import TileOptions
from lamella.words import name_some, say_time

if TYPE_CHECKING:
    from lamella.audits import Audit, AuditRow, Cost


@takes_groups
def audit(
    cohort: CohortArgument,
    columns: ColumnOptions,
    tiles: TileOptions,
    talk: TalkOptions,
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FILE", help="The table to write, CSV.")] = Path(
        "audit.csv"
    ),
    unlabelled: Annotated[
        bool, typer.Option("--unlabelled", help="Do not ask for labels: the slides are to be predicted.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Look at every slide before anything long is started.

    A cohort is checked from headers, thumbnails and a few tiles.

    From headers, a thumbnail, at most 16 tiles at full resolution and a hash of each file's size, first and last MiB:
    is it readable, in what format and by which reader, size, levels, resolution and who states it, whether the nominal
    magnification tells the same, tissue, tiles to expect, sharpness, pen marks, duplicates; with an estimate of time
    and disk. Exits with 1 when something would go wrong.
    """
    progress = talk.open()
    is_folder = unlabelled and cohort.is_dir()  # of slides, which have no labels
    given = (
        columns.gather([cohort], slide_mpp=None)
        if is_folder
        else columns.load(cohort, progress, labelled=not unlabelled)
    )

    from lamella.audits import audit_cohort, estimate_cost, save_audit
    from lamella.cohort import fill_in

    result = audit_cohort(fill_in(given, slide_mpp=tiles.slide_mpp, image=tiles.image), tiles.cut(), progress=progress)
    save_audit(result, out)
    cost = estimate_cost(result)
    if as_json:
        print_json(_as_json(result, cost))
    else:
        print_table(
            ["slide_id", "format", "size", "levels", "um/px", "by", "x", "tissue", "tiles", "blur um", "pen", "wrong"],
            [_shorten(row) for row in result.rows],
        )
        for remark, slide_ids in _group_remarks(result).items():
            progress.say(f"{name_some(slide_ids, most=3)}: {remark}")
        progress.say(
            f"{cost.n_tiles:,} tiles: about {say_time(cost.reading_seconds)} to read and "
            f"{say_time(cost.encoding_seconds)} to encode on {result.n_threads} cores (a small encoder, fp32; "
            f"the two overlap, larger encoders take longer), {describe_bytes(cost.n_bytes)} of disk."
        )
        progress.say(f"Wrote '{out}'.")
    _tell_problems(result)


def _group_remarks(result: "Audit") -> dict[str, list[str]]:
    """Map each remark to the slides it was made on: what holds for all is said once."""
    grouped: dict[str, list[str]] = {}
    for row in result.rows:
        for remark in (*row.notes, *row.remarks):
            grouped.setdefault(remark, []).append(row.slide_id)
    return grouped


def _tell_problems(result: "Audit") -> None:
    """Say what would go wrong, and exit with 1 if anything would."""
    for problem in result.problems:
        echo(problem, err=True)
    for row in result.rows:
        for problem in row.problems:
            echo(f"{row.slide_id}: {problem}", err=True)
    if not result.ok:
        raise typer.Exit(1)


def _shorten(row: "AuditRow") -> dict[str, Cell]:
    """Return a row as it fits a screen."""
    agrees = {True: "", False: " (?)", None: ""}[row.magnification_agrees]
    return {
        "slide_id": row.slide_id,
        "format": row.format,
        "size": f"{row.width} x {row.height}" if row.width else None,
        "levels": row.n_levels,
        "um/px": row.mpp_x,
        "by": row.mpp_source,
        "x": None if row.magnification is None else f"{row.magnification:g}{agrees}",
        "tissue": _percent(row.tissue_share),
        "tiles": row.n_tiles,
        "blur um": row.blur_um,
        "pen": _percent(row.pen_share),
        "wrong": len(row.problems) or None,
    }


def _percent(share: float | None) -> str | None:
    return None if share is None else f"{share:.0%}"


def _as_json(result: "Audit", cost: "Cost") -> dict[str, object]:
    """Return everything as JSON."""
    return {
        "ok": result.ok,
        "problems": list(result.problems),
        "tiles": cost.n_tiles,
        "reading_seconds": round(cost.reading_seconds, 1),
        "encoding_seconds": round(cost.encoding_seconds, 1),
        "bytes": cost.n_bytes,
        "slides": [
            row.cells() | {"problems": list(row.problems), "remarks": list(row.remarks), "notes": list(row.notes)}
            for row in result.rows
        ],
    }
