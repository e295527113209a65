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
    like: Annotated[
        str | None,
        typer.Option(
            "--like",
            metavar="TEXT",
            help="Only encoders with this in their name, network, group or training data: vit, dinov2, TCGA.",
            show_default=False,
        ),
    ] = None,
    licence: Annotated[
        str | None,
        typer.Option(
            "--licence",
            metavar="TEXT",
            help="Only encoders under this licence: permissive, commercial (use allowed), or part of its name.",
            show_default=False,
        ),
    ] = None,
    max_gflops: Annotated[
        float | None,
        typer.Option(
            "--max-gflops", min=0, help="Only encoders that cost at most this much a tile.", show_default=False
        ),
    ] = None,
    here: Annotated[bool, typer.Option("--here", help="Only encoders whose weights are on this machine.")] = False,
    check: Annotated[
        str | None,
        typer.Option(
            "--check",
            metavar="FILE.py:build",
            help="Check that an encoder of your own keeps to what is asked of one, and say what fails.",
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

    In groups, with width, the resolution and sizes of their tiles, cost, licence, and whether their weights are here;
    --json adds the rest of their cards. Or, with --profile, what one costs at each depth: weights, operations, width,
    stride, cells of its class activation map, tiles a second here. Or, with --check, whether your own can be used, cut,
    fine-tuned and run by OpenVINO like the others.
    """
    if check is not None:
        _check(check, as_json=as_json)
        return
    rows = _profile(profile, tile_px, device, precision) if profile else _list(like, licence, max_gflops, here=here)
    if as_json:
        print_json(rows)
        return
    if not rows:
        echo("No encoder is like that. Leave out one of --like, --licence, --max-gflops and --here.")
        return
    print_table([column for column in rows[0] if column not in _JSON_ONLY], rows)
    if not profile:
        echo(
            "\nAlso: timm:NAME, hf-hub:OWNER/NAME, FILE.py:build. NAME@3 keeps the first 3 blocks of 4, "
            "NAME@block18 a transformer's first 18.\n"
            "Weights that are not here: lamella weights fetch NAME."
        )


def _check(name: str, *, as_json: bool) -> None:
    from lamella.encoders.conformance import check_encoder
    from lamella.encoders.names import drop_folders
    from lamella.encoders.trust import trust
    from lamella.errors import EncoderError

    trust(name)  # it was typed
    checks = check_encoder(name)
    words = {True: "ok", None: "note", False: "fails"}
    rows: list[dict[str, Cell]] = [
        {"check": check.name, "result": words[check.passed], "what was seen": check.said} for check in checks
    ]
    if as_json:
        print_json(rows)
    else:
        print_table(list(rows[0]), rows)
    failed = [check.name for check in checks if check.passed is False]
    if failed:
        raise EncoderError(
            f"encoder '{drop_folders(name)}' fails {len(failed)} of {len(checks)} checks ({', '.join(failed)}). "
            "Correct your file and check it again."
        )


_JSON_ONLY = (
    "weights",
    "trained on",
    "commercial use",
    "pooling",
    "tile px",
    "resizing",
    "citation",
    "from",
    "read in",
)


def _list(like: str | None, licence: str | None, max_gflops: float | None, *, here: bool) -> list[dict[str, Cell]]:
    from lamella.encoders import list_weights, select_encoders
    from lamella.encoders.catalogue import find_group

    found = {weights.name: weights.path is not None for weights in list_weights()}
    return [
        {
            "group": find_group(card.name),
            "encoder": card.name,
            "width": card.embedding_dim,
            "um/px": ", ".join(f"{mpp:g}" for mpp in card.trained_mpp) or None,
            "input": card.sizes,
            "million weights": card.n_parameters,
            "GFLOP a tile": card.gflops,
            "access": card.access,
            "licence": card.licence,
            "here": found.get(card.name, False),
            "weights": card.weights_tag,
            "trained on": ", ".join(card.trained_on),
            "commercial use": card.commercial_use,
            "pooling": card.pooling or None,
            "tile px": card.tile_px,
            "resizing": card.resizing or None,
            "citation": card.citation or None,
            "from": card.source,
            "read in": card.declared_by or None,
        }
        for card in select_encoders(like=like, licence=licence, max_gflops=max_gflops)
        if found.get(card.name, False) or not here
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
