"""Bags of fewer tiles, made from finished bags of more: the same rows, nothing is encoded again."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from lamella.errors import BagError
from lamella.features.bag import (
    FEATURE_KEYS,
    PATCH_KEYS,
    BagFolder,
    BagWriter,
    FeatureBag,
    Provenance,
    find_differences,
    list_differences,
    load_patches,
    read_stated,
    save_patches,
)
from lamella.features.h5_reading import Attribute
from lamella.features.h5_seal import SEAL
from lamella.features.layouts import open_own_bag
from lamella.tiles import choose_tiles

_KEYS = (*FEATURE_KEYS, "mpp_source", "precision")
_SEEN = "seen_patients"


def keep_fewer_tiles(slide_ids: Iterable[str], source: BagFolder, target: BagFolder) -> None:
    """Write bags of at most `tiles_per_slide` tiles each; those that are there, and made from the same, are kept.

    The tiles are those that `choose_tiles` spreads over the tissue, as a slide cut to so few has them.

    Args:
        slide_ids: Slides whose bags are finished in `source`.
        source: Of all tiles, or of more.
        target: Of the same encoder; its spec says how many tiles are kept.

    Raises:
        BagError: If a bag of the source is damaged.
        OutputError: If the disk is full.
    """
    n = target.spec.tiles_per_slide
    assert n is not None, "bags of all tiles are encoded"
    for slide_id in slide_ids:
        bag = open_own_bag(source.features_path(slide_id))
        wanted = _restate(bag.provenance, n)
        if not _stands(target.features_path(slide_id), wanted):
            _write(bag, wanted, n, source, target)


def _restate(stated: Mapping[str, Attribute | list[str]], n: int) -> dict[str, str | int | float]:
    """Return what a file of ours states, as one of so many tiles a slide states it."""
    kept = {key: value for key, value in stated.items() if isinstance(value, str | int | float) and key != SEAL}
    return kept | {"tiles_per_slide": n}


def _stands(path: Path, wanted: Provenance) -> bool:
    """Say whether a bag is there that was made as is wanted."""
    try:
        return path.exists() and not list_differences(read_stated(path), wanted, _KEYS)
    except BagError:
        return False  # damaged: written again, which loses nothing


def _write(bag: FeatureBag, wanted: Provenance, n: int, source: BagFolder, target: BagFolder) -> None:
    slide_id, rows = bag.slide_id, bag.read_stored()
    chosen = choose_tiles(bag.corners_l0, n, slide_id=slide_id)
    corners = bag.corners_l0[chosen]
    path = target.patches_path(slide_id)
    placed = _restate(load_patches(source.patches_path(slide_id))[1], n)
    if not path.exists() or find_differences(path, placed, PATCH_KEYS):
        save_patches(path, corners, placed)
    writer = BagWriter(target.features_path(slide_id), corners, dim=rows.shape[1], dtype=rows.dtype.name)
    writer.append(rows[chosen])
    seen = bag.provenance.get(_SEEN, [])
    writer.finish(wanted, seen_patients=seen if isinstance(seen, list) else [])
