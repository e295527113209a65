"""lamella report."""

from pathlib import Path
from typing import Annotated

import typer

from lamella.cli.echo import echo
from lamella.cli.options import JsonOption
from lamella.cli.tables import print_json


def report(
    folders: Annotated[
        list[Path],
        typer.Argument(
            metavar="DIR...",
            help="Folders of `lamella run`, `lamella predict` or `lamella study`.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            metavar="PAGE",
            help="The page, ending in .html; of several folders it must be given.",
            show_default="DIR/report.html",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Write the HTML report of a folder again, or one report of several folders.

    The figures come from DIR/report.parquet, which holds every number of the report; without it, from the folder's
    records. Several folders, runs and studies, stand side by side. The numbers of the new report lie beside it, under
    its name with .parquet.
    """
    from lamella.reports.page import write_report

    page = write_report(folders, out)
    if as_json:
        print_json({"page": str(page), "data": str(page.with_suffix(".parquet"))})
        return
    echo(f"The page is '{page}'.")
