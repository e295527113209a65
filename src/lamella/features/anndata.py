"""A bag as AnnData, the table of scanpy, squidpy and LazySlide: a row a tile."""

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lamella.errors import BagError
from lamella.features.bag import FeatureBag
from lamella.features.bag_checks import find_slide_mpp

if TYPE_CHECKING:
    from anndata import AnnData


def to_anndata(bag: FeatureBag, *, attention: NDArray[Any] | None = None, fold: int | None = None) -> "AnnData":
    """Return a bag as AnnData: `X` the embeddings, `obsm['spatial']` the corners, `uns['lamella']` what is stated.

    The corners are top-left ones `(x, y)` in level-0 px, not centres; half a tile (`uns['lamella']['tile_width_l0']`,
    `tile_height_l0`) lies between.

    Args:
        bag: The bag.
        attention: `(N,)` of each tile, in the order of the bag; becomes `obs['attention']`.
        fold: The fold whose model gave the attention; becomes `obs['fold']`.

    Raises:
        BagError: If anndata is not installed, or attention is not of as many tiles.
    """
    try:
        import anndata  # optional, and only this needs it
    except ImportError as error:
        raise BagError(
            "writing AnnData needs anndata, which is not installed. Run: pip install 'lamella[anndata]'"
        ) from error
    n_tiles = bag.shape[0]
    tiles = pd.DataFrame(index=pd.Index([f"{bag.slide_id}:{row}" for row in range(n_tiles)], dtype=object))
    tiles["slide_id"] = pd.Categorical([bag.slide_id] * n_tiles)
    if attention is not None:
        if attention.shape != (n_tiles,):
            raise BagError(
                f"the bag of slide '{bag.slide_id}' has {n_tiles:,} tiles and attention has shape {attention.shape}. "
                "Give the attention of that bag."
            )
        tiles["attention"] = np.asarray(attention, np.float64)
    if fold is not None:
        tiles["fold"] = np.full(n_tiles, fold, np.int64)
    table = anndata.AnnData(X=bag.features, obs=tiles)
    if bag.coords_l0 is not None:
        table.obsm["spatial"] = bag.coords_l0
    table.uns["lamella"] = _list_stated(bag)
    return table


def _list_stated(bag: FeatureBag) -> dict[str, str | int | float]:
    """Return what a bag states, without what it does not."""
    width_l0, height_l0 = (None, None) if bag.tile_l0 is None else bag.tile_l0
    slide_width, slide_height = (None, None) if bag.slide_size is None else bag.slide_size
    mpp_x, mpp_y = find_slide_mpp(bag) or (None, None)
    stated = {
        "slide_id": bag.slide_id, "layout": bag.layout, "encoder": bag.encoder, "tile_px": bag.tile_px, "mpp": bag.mpp,
        "tile_width_l0": width_l0, "tile_height_l0": height_l0, "slide_width": slide_width,
        "slide_height": slide_height, "slide_mpp_x": mpp_x, "slide_mpp_y": mpp_y, "fingerprint": bag.fingerprint,
    }  # fmt: skip
    return {key: value for key, value in stated.items() if value is not None}
