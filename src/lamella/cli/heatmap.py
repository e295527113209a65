"""lamella heatmap."""

from pathlib import Path
from typing import Annotated

import typer

from lamella.cli.groups import takes_groups
from lamella.cli.options import TalkOptions
from lamella.defaults import COLOURS, MEASURE, OPACITY, PANEL_PX, MeasureName


@takes_groups
def heatmap(
    slide: Annotated[Path, typer.Argument(metavar="SLIDE", help="The slide.", show_default=False)],
    attention: Annotated[
        Path,
        typer.Argument(
            metavar="ATTENTION", help="DIR/attention/<slide_id>.h5 of a run or prediction.", show_default=False
        ),
    ],
    talk: TalkOptions,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the pictures.", show_default=False)],
    slide_mpp: Annotated[
        float | None,
        typer.Option("--slide-mpp", help="Resolution of level 0, um per pixel.", show_default="what the file states"),
    ] = None,
    colours: Annotated[str, typer.Option(help="Colour map: inferno, viridis, magma, plasma, cividis.")] = COLOURS,
    opacity: Annotated[float, typer.Option(help="Share of colour over the slide, 0 to 1.")] = OPACITY,
    measure: Annotated[
        MeasureName,
        typer.Option(help="relative: attention in multiples of the average tile; rank: its order only."),
    ] = MEASURE,
    panel_px: Annotated[int, typer.Option("--panel-px", help="Longer side of the slide in the picture.")] = PANEL_PX,
) -> None:
    """Draw the attention of one slide.

    Overlay PNG, pyramidal TIFF, GeoJSON for QuPath, the most attended tiles.
    """
    progress = talk.open()

    from lamella.pipeline.pictures import draw_heatmap
    from lamella.reports.draw.overlay import OverlayStyle

    style = OverlayStyle(colours=colours, opacity=opacity, measure=measure, panel_px=panel_px)
    draw_heatmap(slide, attention, out, slide_mpp=slide_mpp, style=style)
    progress.say(f"Pictures are in '{out}'.")
