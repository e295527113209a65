"""lamella encoders."""

from typing import Annotated, Any

import typer

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
    columns, rows = _profile(profile, tile_px, device, precision) if profile else _list()
    if as_json:
        print_json(rows)
        return
    print_table(columns, rows)
    if not profile:
        echo(
            "\nAlso: timm:NAME, hf-hub:OWNER/NAME, FILE.py:build. NAME@3 keeps the first 3 blocks of 4.\n"
            "Weights that are not here: lamella weights fetch NAME."
        )


def _list() -> tuple[list[str], list[dict[str, Any]]]:
    from lamella.encoders import list_encoders, list_weights

    here = {one.name: one.path is not None for one in list_weights()}
    rows = [
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
    return ["encoder", "width", "weights", "trained on", "licence", "here"], rows


def _profile(names: list[str], tile_px: int, device: str, precision: str) -> tuple[list[str], list[dict[str, Any]]]:
    from lamella.encoders import RuntimeSettings
    from lamella.encoders.profile import profile_encoder
    from lamella.encoders.trust import trust

    trust(*names)  # they were typed
    settings = RuntimeSettings(device=device, precision=precision)
    rows = [
        {
            "encoder": one.name,
            "million weights": round(one.n_parameters / 1e6, 2),
            "GFLOP a tile": round(one.gflops, 2),
            "width": one.width,
            "stride px": one.stride or None,
            "CAM cells": f"{one.cells} x {one.cells}" if one.cells else None,
            "tiles/s": None if one.tiles_per_second is None else round(one.tiles_per_second, 2),
        }
        for name in names
        for one in profile_encoder(name, tile_px=tile_px, settings=settings)
    ]
    return ["encoder", "million weights", "GFLOP a tile", "width", "stride px", "CAM cells", "tiles/s"], rows
