"""lamella inspect."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from lamella.cli.echo import echo
from lamella.cli.options import JsonOption
from lamella.cli.tables import print_json, print_table


def inspect(
    path: Annotated[
        Path,
        typer.Argument(
            metavar="PATH",
            help="A bag, a patches file or a folder of bags; PATH#ENCODER where files hold several encoders.",
            show_default=False,
        ),
    ],
    slide_mpp: Annotated[
        float | None,
        typer.Option("--slide-mpp", help="Resolution of the slide, um per pixel, where the file does not state it."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Say which tool wrote a feature bag, what is in it, and what is missing or wrong.

    Reads bags of lamella, TRIDENT, CLAM, STAMP, AtlasPatch, slide2vec, LazySlide and Mussel.
    """
    from lamella.features.encoder_choice import split_address
    from lamella.features.inspect import inspect_file

    there = split_address(path)[0]
    if there.is_dir() and there.suffix != ".zarr":
        _inspect_folder(path, slide_mpp, as_json=as_json)
        return
    content = inspect_file(path, slide_mpp=slide_mpp)
    if as_json:
        print_json(content)
    else:
        print_table(["what", "value"], [{"what": key, "value": str(value)} for key, value in content.items()])


def _inspect_folder(folder: Path, slide_mpp: float | None, *, as_json: bool) -> None:
    """Print a line a bag and what keeps a model from learning from all; exit 1 where a bag cannot be opened."""
    from lamella.features.inspect_folder import inspect_folder

    content = inspect_folder(folder, slide_mpp=slide_mpp)
    unreadable = [line for line in content.bags if line.tool is None]
    if as_json:
        print_json(asdict(content))
    else:
        rows = [
            {
                "slide": line.slide_id,
                "written by": line.tool,
                "encoder": line.encoder,
                "tiles": line.n_tiles,
                "width": line.width,
                "mpp": line.mpp,
                "missing": "; ".join(line.missing) or None,
            }
            for line in content.bags
        ]
        print_table(["slide", "written by", "encoder", "tiles", "width", "mpp", "missing"], rows)
        for line in content.bags:
            for text in line.wrong:
                echo(f"{line.slide_id}: {text}")
        for remark in content.remarks:
            echo(remark)
    if unreadable:
        echo(f"{len(unreadable)} of {len(content.bags)} bags cannot be read.", err=True)
        raise typer.Exit(1)
