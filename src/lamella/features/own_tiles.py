"""Which tiles are cut where nobody says: those that the encoders were made for."""

from collections.abc import Sequence

from lamella.defaults import MPP, TILE_PX
from lamella.encoders import EncoderSpec, find_encoder
from lamella.encoders.scale import find_own_tiles
from lamella.errors import SettingsError


def choose_tiles(
    encoders: Sequence[EncoderSpec], *, tile_px: int | None = None, mpp: float | None = None
) -> tuple[int, float]:
    """Return the side of tiles, in pixels, and their resolution, in um per pixel, for encoders that share them.

    Args:
        encoders: Which; an encoder whose card states no resolution has 512 px at 0.5 um/px, and so has none at all.
        tile_px: The side that is asked for; None is the encoders' own.
        mpp: The resolution that is asked for; None is the encoders' own.

    Raises:
        SettingsError: If something is left to encoders that were made for different tiles.

    Example:
        >>> choose_tiles([EncoderSpec("uni")]), choose_tiles([EncoderSpec("resnet18")], mpp=0.25)
        ((224, 0.5), (512, 0.25))
    """
    if tile_px is not None and mpp is not None:
        return tile_px, mpp
    own = {spec.name: find_own_tiles(find_encoder(spec.name)) or (TILE_PX, MPP) for spec in encoders}
    wanted = {
        (px if tile_px is None else tile_px, resolution if mpp is None else mpp): name
        for name, (px, resolution) in own.items()
    }
    if len(wanted) > 1:
        ((first_px, first_mpp), first), ((px, resolution), other), *_ = wanted.items()
        raise SettingsError(
            f"encoder '{first}' is made for tiles of {first_px} px at {first_mpp:g} um/px and '{other}' for {px} px at "
            f"{resolution:g}. Pass --tile-px and --mpp, or extract them one by one."
        )
    return next(iter(wanted), (TILE_PX if tile_px is None else tile_px, MPP if mpp is None else mpp))
