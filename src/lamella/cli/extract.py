"""lamella extract."""

from pathlib import Path
from typing import Annotated

import typer

from lamella.cli.encoder_options import EncodersOptions
from lamella.cli.groups import takes_groups
from lamella.cli.options import JsonOption, SlideColumnOptions, SlidesArgument, TalkOptions
from lamella.cli.tables import print_json, tell_failures
from lamella.cli.tile_options import TileOptions
from lamella.defaults import DTYPE


@takes_groups
def extract(
    slides: SlidesArgument,
    columns: SlideColumnOptions,
    tiles: TileOptions,
    encoder: EncodersOptions,
    talk: TalkOptions,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the bags.", show_default=False)],
    dtype: Annotated[
        str, typer.Option(help="How embeddings are stored: float16 (half the disk, rounding 5e-4) or float32.")
    ] = DTYPE,
    as_json: JsonOption = False,
) -> None:
    """Encode the tiles of slides into feature bags.

    Their layout is one that TRIDENT's readers open too. Several encoders, and several depths of one, share the tiles:
    each is read and decoded once.

    Finished bags made the same way are kept; ones made otherwise are refused, never overwritten. A slide that cannot
    be done is listed in failures.csv, and the others go on.
    """
    progress = talk.open()

    from lamella.features.extract import extract_cohort
    from lamella.features.settings import ExtractSettings

    specs = encoder.specs()
    settings = ExtractSettings(
        cut=tiles.cut(specs), encoders=specs, runtime=encoder.settings(), dtype=dtype, off_spec=encoder.off_spec
    )
    cohort = columns.gather(slides, slide_mpp=tiles.slide_mpp, image=tiles.image)
    report = extract_cohort(cohort.slides, settings, out, progress=progress)
    rate = report.n_tiles / report.seconds if report.seconds else 0.0
    if as_json:
        print_json(
            {
                "folder": str(report.folder.features),
                "folders": {folder.encoder: str(folder.features) for folder in report.folders},
                "done": list(report.done),
                "kept": list(report.kept),
                "failures": {failure.slide_id: failure.reason for failure in report.failures},
                "tiles": report.n_tiles,
                "seconds": round(report.seconds, 3),
                "tiles_per_second": round(rate, 2),
                "runtime": report.runtime,
            }
        )
    else:
        progress.say(
            f"{len(report.done)} slides encoded, {len(report.kept)} kept, {len(report.failures)} not done; "
            f"{report.n_tiles:,} tiles" + (f" at {rate:.3g}/s by {report.runtime}" if rate else "")
        )
        for folder in report.folders if report.done or report.kept else ():
            progress.say(f"Bags are in '{folder.features}'.")
    tell_failures(report.failures, out / "failures.csv")
