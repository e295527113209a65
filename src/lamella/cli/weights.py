"""lamella weights."""

from pathlib import Path
from typing import Annotated

import typer

from lamella.cli.echo import echo
from lamella.cli.tables import print_json, print_table

app = typer.Typer(help="Weights of encoders: which are here, and how to get the others.", no_args_is_help=True)


@app.command("list")
def list_(as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False) -> None:
    """List the weights of the encoders by name: where they are, or the command that gets them."""
    from lamella.encoders import list_weights

    rows = [
        {
            "encoder": entry.name,
            "where": entry.place,
            "file": entry.path.name if entry.path else "",
            "to get them": entry.remedy,
        }
        for entry in list_weights()
    ]
    if as_json:
        print_json(rows)
    else:
        print_table(["encoder", "where", "file", "to get them"], rows)


@app.command("add")
def add(
    name: Annotated[str, typer.Argument(help="Encoder whose weights these are.", show_default=False)],
    path: Annotated[
        Path,
        typer.Argument(
            metavar="FOLDER|FILE",
            help="Weights: a file (.safetensors, .bin, .pth, .ckpt), its index where they are in several, a wheel, a "
            "snapshot folder of the hub, or a folder of its cache (models--OWNER--NAME).",
            show_default=False,
        ),
    ],
) -> None:
    """Register weights that are on this disk; they are checked against the network first."""
    from lamella.encoders import add_weights
    from lamella.encoders.trust import trust

    trust(name)  # it was typed
    echo(f"Weights of '{name}' are registered as '{add_weights(name, path)}'.")


@app.command("fetch")
def fetch(name: Annotated[str, typer.Argument(help="Encoder whose weights to download.", show_default=False)]) -> None:
    """Download the weights of an encoder: the only command that uses the network, besides `doctor --check-access`."""
    from lamella.encoders import fetch_weights

    echo(f"Weights of '{name}' are in '{fetch_weights(name)}'.")
