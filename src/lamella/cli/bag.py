"""lamella bag: verbs that take one bag."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from lamella.cli.echo import echo

app = typer.Typer(help="Pass a feature bag on to other programs.", no_args_is_help=True)


class Format(StrEnum):
    """What a bag can be written as."""

    ANNDATA = "anndata"


@app.command("export")
def export(
    path: Annotated[
        Path, typer.Argument(metavar="BAG", help="A bag of any tool; FILE#ENCODER where it holds several.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="File to write, ending in .h5ad.", show_default=False)],
    to: Annotated[Format, typer.Option("--to", help="Format to write.")] = Format.ANNDATA,
    attention: Annotated[
        Path | None,
        typer.Option("--attention", help="Attention of the same tiles: a file of RUN/attention.", show_default=False),
    ] = None,
    fold: Annotated[
        int | None, typer.Option("--fold", min=0, help="Fold whose model gave the attention.", show_default=False)
    ] = None,
    slide_mpp: Annotated[
        float | None,
        typer.Option("--slide-mpp", help="Resolution of the slide, um per pixel, where the file does not state it."),
    ] = None,
) -> None:
    """Write a bag as AnnData: embeddings, corners, and attention where given.

    scanpy, squidpy and LazySlide read it. obsm['spatial'] holds top-left corners (x, y) in level-0 pixels.
    """
    from lamella.exports.bags import export_bag_as_anndata

    if to is Format.ANNDATA:
        n_tiles, width = export_bag_as_anndata(path, out, attention=attention, fold=fold, slide_mpp=slide_mpp)
        echo(f"{out}: {n_tiles:,} tiles x {width:,}")
