"""lamella tiles."""

from pathlib import Path
from typing import Annotated

import typer

from lamella.cli.groups import takes_groups
from lamella.cli.options import JsonOption, SlideColumnOptions, SlidesArgument, TalkOptions
from lamella.cli.tables import print_json, print_table, tell_failures
from lamella.cli.tile_options import TileOptions


@takes_groups
def tiles(
    slides: SlidesArgument,
    columns: SlideColumnOptions,
    tiles: TileOptions,
    talk: TalkOptions,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the coordinates.", show_default=False)],
    as_json: JsonOption = False,
) -> None:
    """Place tiles over tissue.

    No pixel is encoded.

    Writes OUT/<px>px_<mpp>mpp_<stride>px/patches/<slide_id>_patches.h5, as `lamella extract` does.
    """
    progress = talk.open()

    from lamella.features.tissue import save_tiles

    cohort = columns.gather(slides, slide_mpp=tiles.slide_mpp, image=tiles.image)
    rows, failures = save_tiles(cohort.slides, tiles.cut(), out, progress=progress)
    if as_json:
        print_json({"slides": rows, "failures": {failure.slide_id: failure.reason for failure in failures}})
    else:
        print_table(["slide_id", "tiles", "tissue_mm2", "mpp", "level", "upsample"], rows)
    tell_failures(failures, out / "failures.csv")
