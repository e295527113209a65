"""lamella inspect."""

from pathlib import Path
from typing import Annotated

import typer

from lamella.cli.options import JsonOption
from lamella.cli.tables import print_json, print_table


def inspect(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A bag or patches file.", show_default=False)],
    slide_mpp: Annotated[
        float | None,
        typer.Option("--slide-mpp", help="Resolution of the slide, um per pixel, where the file does not state it."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Say what is in a feature bag.

    Reads our own, TRIDENT's, CLAM's (.h5 or .pt) and STAMP's.
    """
    from lamella.features.inspect import inspect_file

    described = inspect_file(file, slide_mpp=slide_mpp)
    if as_json:
        print_json(described)
    else:
        print_table(["what", "value"], [{"what": key, "value": str(value)} for key, value in described.items()])
