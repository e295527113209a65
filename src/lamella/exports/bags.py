"""A bag passed on in another program's format."""

from pathlib import Path

import numpy as np

from lamella.errors import BagError
from lamella.features.anndata import to_anndata
from lamella.features.layouts import load_bag
from lamella.files import replacing
from lamella.runs.attention import load_attention


def export_bag_as_anndata(
    path: Path, out: Path, *, attention: Path | None = None, fold: int | None = None, slide_mpp: float | None = None
) -> tuple[int, int]:
    """Write a bag as AnnData (.h5ad), whole or not at all; return its tiles and width.

    Args:
        path: A bag of any layout; `FILE#ENCODER` where it holds embeddings of several.
        out: The file to write.
        attention: A file of a run's `attention/` of the same slide.
        fold: The fold whose model gave that attention.
        slide_mpp: Resolution of the slide's level 0, um per pixel, for layouts that do not state it.

    Raises:
        BagError: If the bag or the attention cannot be read, or the attention is of other tiles.
    """
    if out.suffix != ".h5ad":
        raise BagError(f"'{out.name}' does not end in .h5ad, by which AnnData is known. Name it {out.stem}.h5ad.")
    bag = load_bag(path, slide_mpp=slide_mpp)
    values = None
    if attention is not None:
        record = load_attention(attention)
        if not np.array_equal(record.coords_l0, bag.corners_l0):
            raise BagError(
                f"the attention in '{attention.name}' is of other tiles than the bag '{path.name}'. Give the attention "
                "that was computed from that bag."
            )
        values = record.attention
    table = to_anndata(bag, attention=values, fold=fold)
    with replacing(out) as temporary:
        table.write_h5ad(temporary)
    return bag.shape
