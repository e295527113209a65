"""lamella encoders."""

from typing import Annotated

import typer

from lamella.cells import Cell
from lamella.cli.echo import echo
from lamella.cli.encoder_options import DeviceOption, PrecisionOption
from lamella.cli.options import JsonOption
from lamella.cli.tables import print_json, print_table
from lamella.defaults import DEVICE, PRECISION, TILE_PX


def encoders(
    profile: Annotated[
        list[str] | None,
        typer.Option(
            "--profile",
            metavar="NAME",
            help="Print what this encoder costs at each depth, timed here. May be given again.",
            show_default=False,
        ),
    ] = None,
    tile_px: Annotated[
        int, typer.Option("--tile-px", min=32, help="Side of the tiles to profile with, in px.")
    ] = TILE_PX,
    device: DeviceOption = DEVICE,
    precision: PrecisionOption = PRECISION,
    as_json: JsonOption = False,
) -> None:
    """List the encoders by name.

    With width, what they were trained on, licence, and whether their weights are here. Or, with --profile, what one
    costs at each depth: weights, operations, width, stride, cells of its class activation map, tiles a second here.
    """
    rows = _profile(profile, tile_px, device, precision) if profile else _list()
    if as_json:
        print_json(rows)
        return
    print_table(list(rows[0]), rows)
    if not profile:
        echo(
            "\nAlso: timm:NAME, hf-hub:OWNER/NAME, FILE.py:build. NAME@3 keeps the first 3 blocks of 4.\n"
            "Weights that are not here: lamella weights fetch NAME."
        )


def _list() -> list[dict[str, Cell]]:
    from lamella.encoders import list_encoders, list_weights

    here = {weights.name: weights.path is not None for weights in list_weights()}
    return [
        {
            "encoder": card.name,
            "width": card.embedding_dim,
            "weights": card.weights_tag,
            "trained on": ", ".join(card.trained_on),
            "licence": card.licence,
            "here": here.get(card.name, False),
        }
        for card in list_encoders()
    ]


def _profile(names: list[str], tile_px: int, device: str, precision: str) -> list[dict[str, Cell]]:
    from lamella.encoders import RuntimeSettings
    from lamella.encoders.profile import profile_encoder
    from lamella.encoders.trust import trust

    trust(*names)  # they were typed
    settings = RuntimeSettings(device=device, precision=precision)
    return [
        {
            "encoder": depth.name,
            "million weights": round(depth.n_parameters / 1e6, 2),
            "GFLOP a tile": round(depth.gflops, 2),
            "width": depth.width,
            "stride px": depth.stride or None,
            "CAM cells": f"{depth.cells} x {depth.cells}" if depth.cells else None,
            "tiles/s": None if depth.tiles_per_second is None else round(depth.tiles_per_second, 2),
        }
        for name in names
        for depth in profile_encoder(name, tile_px=tile_px, settings=settings)
    ]
