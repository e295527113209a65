"""Whether a faster way to compute embeddings comes near enough to torch in fp32."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from lamella.encoders.runtime.protocol import Embeddings, PrecisionCheck, Tiles
from lamella.errors import EncoderError

# Of the mean over tiles. bf16 keeps 8 bits, and on real tissue even networks that bear it well reach 0.9993 to 0.9997
# on average with single tiles at 0.997; EfficientNet-Lite0, which does not, reaches 0.996 with tiles at 0.984.
MIN_COSINE = 0.999
# Of the worst tile: a good mean must not hide one that went astray.
MIN_COSINE_OF_A_TILE = 0.99
MIN_TILES = 64
MAX_TILES = 128
# A tile whose embedding lies this much nearer to the mean than others do points nowhere: its cosine is rounding.
_NEGLIGIBLE = 1e-3


def compare_embeddings(embeddings: Embeddings, reference: Embeddings, *, precision: str) -> PrecisionCheck:
    """Compare embeddings with those of torch in fp32, tile by tile.

    The reference's mean over tiles is subtracted from both: ReLU leaves embeddings so alike that the plain cosine of
    any two tiles is near 1, and would pass anything.

    Args:
        embeddings: `(n, D)` float32, to be checked.
        reference: `(n, D)` float32, torch in fp32, the same tiles.
        precision: Precision that `embeddings` were computed in.

    Example:
        >>> reference = np.array([[1, 9], [2, 9], [4, 9]], dtype=np.float32)
        >>> compare_embeddings(reference + np.float32(0.001), reference, precision="bf16").passed
        True
        >>> compare_embeddings(reference[::-1], reference, precision="bf16").passed
        False
    """
    mean = reference.mean(axis=0, dtype=np.float64)
    ours, theirs = embeddings.astype(np.float64) - mean, reference.astype(np.float64) - mean
    lengths = np.linalg.norm(theirs, axis=1)
    telling = lengths > max(_NEGLIGIBLE * float(lengths.max()), 1e-6 * float(np.linalg.norm(mean)))
    if not telling.any():  # all tiles are the same: all that can be compared is the embedding as it is
        ours, theirs, telling = ours + mean, theirs + mean, np.ones(len(lengths), dtype=bool)
    cosines = _cosines(ours[telling], theirs[telling])
    least, mean_cosine = float(cosines.min()), float(cosines.mean())
    return PrecisionCheck(
        cosine_min=least,
        cosine_mean=mean_cosine,
        n_tiles=len(reference),
        passed=mean_cosine >= MIN_COSINE and least >= MIN_COSINE_OF_A_TILE,
        precision_used=precision,
    )


def compare_depths(
    embeddings: Embeddings, reference: Embeddings, widths: Sequence[int], *, precision: str
) -> tuple[PrecisionCheck, ...]:
    """Compare embeddings of several depths, which stand side by side, each with its own reference."""
    ends = np.cumsum(widths)[:-1]
    pairs = zip(np.split(embeddings, ends, axis=1), np.split(reference, ends, axis=1), strict=True)
    return tuple(compare_embeddings(ours, theirs, precision=precision) for ours, theirs in pairs)


def take_check_tiles(check_tiles: Callable[[], Tiles], *, encoder: str, tile_px: int) -> Tiles:
    """Take 64 to 128 real tiles to check with; where there are fewer, add their mirror images and quarter turns.

    Raises:
        EncoderError: If there is none, or they have another shape.
    """
    tiles = np.asarray(check_tiles())
    if tiles.ndim != 4 or tiles.shape[1:] != (tile_px, tile_px, 3) or tiles.dtype != np.uint8 or not len(tiles):
        raise EncoderError(
            f"encoder '{encoder}' is to be checked on tiles of {tiles.dtype} {tiles.shape} and needs uint8 "
            f"(n, {tile_px}, {tile_px}, 3) with n at least 1, better {MIN_TILES}. Give it real tiles."
        )
    if len(tiles) > MAX_TILES:
        tiles = tiles[np.linspace(0, len(tiles) - 1, MAX_TILES).round().astype(int)]
    views = [tiles]
    for turned in _turn(tiles):
        if sum(map(len, views)) >= MIN_TILES:
            break
        views.append(turned)
    return np.ascontiguousarray(np.concatenate(views)[:MAX_TILES])


def split_batches(tiles: Tiles, batch_size: int) -> Iterator[Tiles]:
    """Cut tiles into batches, the last perhaps shorter."""
    for start in range(0, len(tiles), batch_size):
        yield tiles[start : start + batch_size]


def _turn(tiles: Tiles) -> Iterator[Tiles]:
    """Yield the seven other orientations of square tiles."""
    for mirrored in (tiles, tiles[:, :, ::-1]):
        for quarters in range(4):
            if mirrored is not tiles or quarters:
                yield np.rot90(mirrored, quarters, axes=(1, 2))


def _cosines(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    products = (a * b).sum(axis=1)
    # An embedding that became the zero vector has lost all: cosine 0, not NaN.
    cosines: NDArray[np.float64] = np.divide(products, lengths, out=np.zeros_like(products), where=lengths > 0)
    return cosines
