"""What a bag lacks for what can be done with one, and what in it contradicts the rest."""

import numpy as np

from lamella.features.bag import FeatureBag

TOOLS = {
    "lamella": "lamella extract",
    "trident": "TRIDENT",
    "clam": "CLAM, or a tool that writes as it does",
    "stamp": "STAMP",
    "atlaspatch": "AtlasPatch",
    "mussel": "Mussel",
    "slide2vec": "slide2vec",
    "lazyslide": "LazySlide (wsidata)",
    "npz": "not stated",
    "slide embedding": "not stated",
}
_MOST_OFF = 0.05  # of a tile's resolution; hs2p allows as much


def find_slide_mpp(bag: FeatureBag) -> tuple[float, float] | None:
    """Return the slide's resolution by which a bag's corners are in um, along x and y; None where it is not known."""
    if bag.coords_l0 is None or bag.coords_um is None or not len(bag.coords_l0):
        return None
    pixels, um = np.abs(bag.coords_l0).max(axis=0), np.abs(bag.coords_um).max(axis=0)
    if not pixels.min() or not np.isfinite(um).all():
        return None
    return float(um[0] / pixels[0]), float(um[1] / pixels[1])


def list_missing(bag: FeatureBag) -> tuple[str, ...]:
    """List what a bag does not hold, each with what it is needed for."""
    missing = []
    if bag.encoder is None:
        missing.append("encoder (new slides cannot be encoded alike)")
    if bag.is_slide_embedding:
        return tuple(missing)
    if bag.mpp is None:
        missing.append("mpp (pass --slide-mpp)" if bag.tile_l0 or bag.layout == "stamp" else "mpp")
    if bag.coords_l0 is None:
        remedy = "pass --slide-mpp" if bag.coords_um is not None else "no attention maps"
        missing.append(f"corners in level-0 px ({remedy})")
    elif bag.tile_l0 is None:
        missing.append("tile size on the slide (no attention maps)")
    return tuple(missing)


def list_doubts(bag: FeatureBag) -> tuple[str, ...]:
    """List what is wrong in a bag by what it states; its features are not read."""
    doubts = []
    if bag.shape[0] == 0:
        doubts.append("no tiles: nothing can be predicted of that slide")
    if bag.coords_l0 is not None and len(bag.coords_l0):
        n_same = len(bag.coords_l0) - len(np.unique(bag.coords_l0, axis=0))
        if n_same:
            doubts.append(f"{n_same:,} tiles lie where another does")
    slide_mpp = find_slide_mpp(bag)
    if slide_mpp is not None and bag.mpp is not None and bag.tile_l0 is not None and bag.tile_px:
        seen = bag.tile_l0[0] * slide_mpp[0] / bag.tile_px
        if abs(seen / bag.mpp - 1) > _MOST_OFF:
            doubts.append(
                f"mpp is stated as {bag.mpp:.4g}, but {bag.tile_l0[0]:.6g} px of {slide_mpp[0]:.4g} um seen as "
                f"{bag.tile_px} px are {seen:.4g} um/px"
            )
    return tuple(doubts)
