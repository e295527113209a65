"""lamella tissue."""

from pathlib import Path
from typing import Annotated

import typer

from lamella.cli.groups import takes_groups
from lamella.cli.options import JsonOption, SlideColumnOptions, SlidesArgument, TalkOptions
from lamella.cli.tables import print_json, print_table, tell_failures
from lamella.cli.tile_options import TileOptions


@takes_groups
def tissue(
    slides: SlidesArgument,
    columns: SlideColumnOptions,
    tiles: TileOptions,
    talk: TalkOptions,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for pictures and outlines.", show_default=False)],
    as_json: JsonOption = False,
) -> None:
    """Find the tissue of slides.

    Gives an overlay to look at, outlines for QuPath, and a ledger of the area.

    Writes OUT/<slide_id>.png, OUT/<slide_id>.geojson and OUT/ledger.csv.
    """
    progress = talk.open()

    from lamella.features.tissue import save_tissue

    cohort = columns.gather(slides, slide_mpp=tiles.slide_mpp, image=tiles.image)
    rows, failures = save_tissue(cohort.slides, tiles.cut(), out, progress=progress)
    if as_json:
        print_json({"ledger": rows, "failures": {failure.slide_id: failure.reason for failure in failures}})
    else:
        print_table(["slide_id", "step", "kept_um2", "removed_um2", "n_tiles"], rows)
    tell_failures(failures, out / "failures.csv")
