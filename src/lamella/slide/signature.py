"""Signatures: what a slide looks like from afar, so that it is known again under another name or in another format."""

import base64

import numpy as np
from numpy.typing import NDArray

from lamella.slide.slide import Slide

_SIDE = 32
# Copies in another format, recompressed, or read by another reader correlate above 0.999; different slides of one
# laboratory, neighbouring sections included, stay below 0.98 (benchmarks and tests hold both).
_SAME = 0.995
_FLAT = 1.0


def sign_slide(slide: Slide) -> str:
    """Return the signature of a slide: 32 x 32 grey levels of the whole, and its shape, as text.

    Raises:
        SlideError: If the slide cannot be read.
    """
    width, height = slide.size[0] * slide.mpp[0], slide.size[1] * slide.mpp[1]
    overview = slide.read_overview((256, 256)) if min(slide.size) >= 256 else slide.read_overview(slide.size)
    grey = _shrink(overview.astype(np.float64).mean(axis=2))
    return f"{width / height:.4f}:{base64.b64encode(grey.round().astype(np.uint8).tobytes()).decode()}"


def is_same_slide(first: str, second: str) -> bool:
    """Say whether two signatures are of one image, in whatever format, turned or mirrored.

    A slide without any structure is like no other: nothing can be said of it.
    """
    (ratio, ours), (other_ratio, theirs) = _read(first), _read(second)
    if min(ours.std(), theirs.std()) < _FLAT:
        return False
    for quarters in range(4):
        turned = np.rot90(theirs, quarters)
        turned_ratio = other_ratio if quarters % 2 == 0 else 1 / other_ratio
        if abs(turned_ratio / ratio - 1) > 0.01:
            continue
        if max(_correlate(ours, turned), _correlate(ours, turned[:, ::-1])) >= _SAME:
            return True
    return False


def _shrink(grey: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return `(32, 32)` means of `(h, w)`, each pixel counted by the share of it that falls into a cell."""
    for _ in range(2):
        edges = np.linspace(0, len(grey), _SIDE + 1)
        sums = np.vstack([np.zeros(grey.shape[1]), grey.cumsum(axis=0)])
        whole = np.minimum(np.floor(edges).astype(int), len(grey) - 1)
        at_edges = sums[whole] + (edges - whole)[:, None] * grey[whole]
        grey = (np.diff(at_edges, axis=0) / np.diff(edges)[:, None]).T
    return grey


def _read(signature: str) -> tuple[float, NDArray[np.float64]]:
    ratio, _, pixels = signature.partition(":")
    return float(ratio), np.frombuffer(base64.b64decode(pixels), np.uint8).reshape(_SIDE, _SIDE).astype(np.float64)


def _correlate(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    return float(np.corrcoef(first.ravel(), second.ravel())[0, 1])
