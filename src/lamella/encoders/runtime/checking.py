"""Whether a faster way to compute embeddings comes near enough to torch in fp32."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from lamella.encoders.runtime.protocol import Embeddings, PrecisionCheck, Tiles
from lamella.errors import EncoderError

N_COMPARED = 32  # tiles on which a precision is compared with fp32, both by the same program
N_TORCH = 8  # tiles on which a converted network is compared with torch: it is the same function, or it is not
N_CALIBRATED = 64  # more tiles, which int8 takes its scales from
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
    return PrecisionCheck(
        cosine_min=float(cosines.min()),
        cosine_mean=float(cosines.mean()),
        n_tiles=len(reference),
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
    """Take up to 96 real tiles to check with; where there are under 32, add their mirror images and quarter turns.

    Raises:
        EncoderError: If there is none, or they have another shape.
    """
    tiles = np.asarray(check_tiles())
    if tiles.ndim != 4 or tiles.shape[1:] != (tile_px, tile_px, 3) or tiles.dtype != np.uint8 or not len(tiles):
        raise EncoderError(
            f"encoder '{encoder}' is to be checked on tiles of {tiles.dtype} {tiles.shape} and needs uint8 "
            f"(n, {tile_px}, {tile_px}, 3) with n at least 1, better {N_COMPARED}. Give it real tiles."
        )
    n_most = N_COMPARED + N_CALIBRATED
    if len(tiles) > n_most:
        tiles = tiles[np.linspace(0, len(tiles) - 1, n_most).round().astype(int)]
    views = [tiles]
    for turned in _turn(tiles):
        if sum(map(len, views)) >= N_COMPARED:
            break
        views.append(turned)
    return np.ascontiguousarray(np.concatenate(views)[:n_most])


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
