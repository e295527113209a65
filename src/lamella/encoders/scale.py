"""The scale at which an encoder sees tissue: what tiles become inside it, and what its authors trained it for."""

from lamella.defaults import MPP
from lamella.encoders.cards import EncoderCard
from lamella.encoders.names import drop_folders
from lamella.errors import EncoderError

_NEAR = 0.1  # of the resolution: authors train with crops of varied size, and slides are scanned to some per cent


def find_seen(card: EncoderCard, tile_px: int, mpp: float) -> tuple[int, float]:
    """Return the side of the tile that an encoder sees, in pixels, and its resolution, in um per pixel.

    Args:
        card: Of the encoder.
        tile_px: Side of a tile as it is cut, in pixels.
        mpp: Resolution at which it is cut.

    Example:
        >>> from lamella.encoders.registry import find_encoder
        >>> find_seen(find_encoder("resnet18"), 512, 0.5), find_seen(find_encoder("h-optimus-0"), 448, 0.5)
        ((512, 0.5), (224, 1.0))
    """
    seen_px = card.find_seen_px(tile_px)
    return seen_px, mpp * tile_px / seen_px


def find_own_tiles(card: EncoderCard) -> tuple[int, float] | None:
    """Return the tile size and resolution that an encoder is made for: px, and um per pixel; None where none is stated.

    The size is that of its input, so that nothing is resized; of several resolutions it is the one nearest to 0.5.

    Example:
        >>> from lamella.encoders.registry import find_encoder
        >>> find_own_tiles(find_encoder("virchow2")), find_own_tiles(find_encoder("resnet18"))
        ((224, 0.5), None)
    """
    tile_px = card.input_px or card.tile_px
    if not card.trained_mpp or tile_px is None:
        return None
    return tile_px, min(card.trained_mpp, key=lambda mpp: abs(mpp - MPP))


def fits(card: EncoderCard, tile_px: int, mpp: float) -> bool:
    """Say whether an encoder sees tiles within 10% of a resolution that it was trained at, or as its authors cut them.

    Where its card states no resolution, all fit.
    """
    if not card.trained_mpp:
        return True
    seen = find_seen(card, tile_px, mpp)[1]
    cut = mpp if tile_px == card.tile_px else seen  # what its authors resize, they resize too
    return any(abs(asked / trained - 1) <= _NEAR for asked in (seen, cut) for trained in card.trained_mpp)


def say_unfit(card: EncoderCard, tile_px: int, mpp: float, *, sees: str = "sees") -> str:
    """Say what an encoder `sees`, or would see, that its card does not declare."""
    seen_px, seen_mpp = find_seen(card, tile_px, mpp)
    resized = "" if seen_px == tile_px else f", resized to {seen_px} px"
    trained = ", ".join(f"{trained:g}" for trained in card.trained_mpp)
    return (
        f"encoder '{drop_folders(card.name)}' was trained at {trained} um/px and {sees} {seen_mpp:.4g} um/px: tiles of "
        f"{tile_px} px at {mpp:g} um/px{resized}"
    )


def refuse_unfit(card: EncoderCard, tile_px: int, mpp: float) -> None:
    """Refuse tiles that an encoder was not made for.

    Raises:
        EncoderError: With the tiles that it was made for.
    """
    if fits(card, tile_px, mpp):
        return
    own = find_own_tiles(card)
    remedy = "" if own is None else f"Pass --tile-px {own[0]} --mpp {own[1]:g}, or "
    said = say_unfit(card, tile_px, mpp, sees="would see")
    raise EncoderError(f"{said}. {remedy or 'Pass '}--off-spec to insist.")
