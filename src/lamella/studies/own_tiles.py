"""Tiles that a study leaves to its encoders: each sees the size and resolution that its authors trained it at.

`tiles: {default: {tile_px: auto, mpp: auto}}`, or no word of either. Where encoders of one block have tiles of their
own that differ, the block becomes several, and their tile specs are called by what they are: `224px_0.5mpp`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from lamella.defaults import MPP, TILE_PX
from lamella.encoders import find_encoder
from lamella.encoders.scale import find_own_tiles
from lamella.errors import LamellaError

AUTO = "auto"


def settle_tiles(content: Any) -> Any:
    """Return what a study declares with every `auto` of its tiles put in numbers.

    Args:
        content: As it was read, unchecked; where it has not the form of a study it is returned as it is, to be refused
            by whoever checks it.
    """
    if not isinstance(content, Mapping):
        return content
    tiles, blocks = content.get("tiles", {"default": {}}), content.get("arms")
    if not isinstance(tiles, Mapping) or not isinstance(blocks, list | tuple):
        return content
    open_specs = {name: spec for name, spec in tiles.items() if isinstance(spec, Mapping) and _is_open(spec)}
    if not open_specs:
        return content
    settled: dict[Any, Any] = {name: spec for name, spec in tiles.items() if name not in open_specs}
    owners: dict[Any, dict[tuple[Any, ...], str]] = {name: {} for name in open_specs}
    taken = {*tiles}
    divided = [part for block in blocks for part in _divide(block, open_specs, owners, taken)]
    for name, own in owners.items():
        for (tile_px, mpp), called in (own or {(TILE_PX, MPP): name}).items():
            settled[called] = {**open_specs[name], **_put(open_specs[name], tile_px, mpp)}
    return {**content, "tiles": settled, "arms": divided}


def merge_alike(tiles: Mapping[str, Any], blocks: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return tile specs without those that are as one before them, and blocks of arms that name them so.

    Args:
        tiles: Specs by name, in numbers.
        blocks: Of arms, as plain data.
    """
    kept: dict[str, Any] = {}
    called: dict[str, str] = {}
    for name, spec in tiles.items():
        called[name] = next((other for other, like in kept.items() if like == spec), name)
        kept.setdefault(called[name], spec)
    named = [{**block, "tiles": list(dict.fromkeys(called[name] for name in block["tiles"]))} for block in blocks]
    return {"tiles": kept, "arms": named}


def _is_open(spec: Mapping[str, Any]) -> bool:
    return any(spec.get(key, AUTO) == AUTO for key in ("tile_px", "mpp"))


def _put(spec: Mapping[str, Any], tile_px: Any, mpp: Any) -> dict[str, Any]:
    """Return both numbers, what is given before what is the encoder's."""
    own = {"tile_px": tile_px, "mpp": mpp}
    return {key: own[key] if spec.get(key, AUTO) == AUTO else spec[key] for key in own}


def _divide(
    block: Any,
    open_specs: Mapping[Any, Mapping[str, Any]],
    owners: dict[Any, dict[tuple[Any, ...], str]],
    taken: set[Any],
) -> list[Any]:
    """Return the blocks that a block of arms becomes, and note who has which tiles.

    Args:
        block: As it was read; one of bags is cut by nobody.
        open_specs: Tile specs that are left to the encoders.
        owners: Of each of them, what it is called by what it is; filled here.
        taken: Names of tile specs; filled here.
    """
    plain = block if isinstance(block, Mapping) else None
    if plain is None or not isinstance(plain.get("encoders"), list | tuple) or not plain["encoders"]:
        return [block]
    names = plain.get("tiles", ["default"])
    if not isinstance(names, list | tuple):
        return [block]
    parts: dict[tuple[str, ...], list[str]] = {}
    for encoder in plain["encoders"]:
        called = []
        for name in names:
            if name not in open_specs:
                called.append(name)
                continue
            own = tuple(_put(open_specs[name], *_find_own(encoder)).values())
            if own not in owners[name]:
                owners[name][own] = name if not owners[name] else _find_free(own, taken)
            called.append(owners[name][own])
        parts.setdefault(tuple(called), []).append(encoder)
    if [*parts] == [tuple(names)]:
        return [block]
    return [{**plain, "encoders": encoders, "tiles": list(called)} for called, encoders in parts.items()]


def _find_own(encoder: Any) -> tuple[int, float]:
    """Return the tiles of an encoder, or what is taken where none are stated; an unknown one is refused elsewhere."""
    try:
        return find_own_tiles(find_encoder(str(encoder))) or (TILE_PX, MPP)
    except LamellaError:
        return TILE_PX, MPP


def _find_free(own: tuple[Any, ...], taken: set[Any]) -> str:
    tile_px, mpp = (f"{number:g}" if isinstance(number, int | float) else str(number) for number in own)
    name = f"{tile_px}px_{mpp}mpp"
    while name in taken:
        name = f"{name}_own"
    taken.add(name)
    return name
