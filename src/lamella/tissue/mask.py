"""The tissue mask, the ledger of how it came about, and the steps that count in areas."""

from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from lamella.errors import TissueError

FINEST_UM, COARSEST_UM = 1.0, 8.0


@dataclass(frozen=True, slots=True)
class LedgerStep:
    """What one step left and took.

    Attributes:
        step: Name of the step, for example `"glass"`.
        kept_um2: Area that is tissue after the step, in um2.
        removed_um2: Area that the step took away, in um2; negative where it added some (holes filled).
    """

    step: str
    kept_um2: float
    removed_um2: float


@dataclass(frozen=True, slots=True, eq=False)
class TissueMask:
    """Where a slide holds tissue.

    Attributes:
        mask: `(h, w)` bool, True on tissue, covering the whole slide.
        slide_size: `(width, height)` of level 0, in pixels.
        slide_mpp: `(x, y)` resolution of level 0, in um per pixel.
        method: How it was found: `"glass"` or `"otsu"`.
        ledger: The area kept and removed by each step, in order; the first step is the whole slide.
        notes: What a user should be told.
    """

    mask: NDArray[np.bool_]
    slide_size: tuple[int, int]
    slide_mpp: tuple[float, float]
    method: str
    ledger: tuple[LedgerStep, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def mask_um(self) -> tuple[float, float]:
        """`(width, height)` of a mask pixel, in um."""
        return pixel_um(self.mask.shape, self.slide_size, self.slide_mpp)

    @property
    def tissue_um2(self) -> float:
        """Area of the tissue, in um2."""
        width_um, height_um = self.mask_um
        return float(np.count_nonzero(self.mask)) * width_um * height_um

    def with_step(self, step: str, mask: NDArray[np.bool_], *notes: str) -> "TissueMask":
        """Return the tissue after one more step, entered in the ledger.

        Example:
            >>> whole = whole_slide((2, 3), slide_size=(300, 200), slide_mpp=(0.5, 0.5), method="glass")
            >>> left = np.array([[True, False, False], [True, False, False]])
            >>> whole.with_step("glass", left).ledger[-1]
            LedgerStep(step='glass', kept_um2=5000.0, removed_um2=10000.0)
        """
        after = replace(self, mask=mask, notes=(*self.notes, *notes))
        kept_um2 = after.tissue_um2
        return replace(after, ledger=(*self.ledger, LedgerStep(step, kept_um2, self.tissue_um2 - kept_um2)))


def whole_slide(
    shape: tuple[int, int], *, slide_size: tuple[int, int], slide_mpp: tuple[float, float], method: str
) -> TissueMask:
    """Return a mask of `shape` `(h, w)` that counts the whole slide as tissue: where each method begins."""
    start = TissueMask(np.ones(shape, dtype=bool), slide_size, slide_mpp, method)
    return replace(start, ledger=(LedgerStep("whole slide", start.tissue_um2, 0.0),))


def keep_scan(tissue: TissueMask, bounds_l0: tuple[int, int, int, int]) -> TissueMask:
    """Return the tissue inside the scan: what lies beside it on the canvas was never looked at by the scanner.

    Args:
        tissue: What was found on the canvas, by whatever method.
        bounds_l0: `(x, y, width, height)` of the scan, level-0 pixels.

    Returns:
        A mask with a step `outside the scan` in its ledger; the same one where the scan is the whole canvas. A pixel
        belongs to the scan when its centre lies in it.

    Example:
        >>> whole = whole_slide((2, 4), slide_size=(400, 200), slide_mpp=(0.5, 0.5), method="otsu")
        >>> keep_scan(whole, (100, 0, 300, 100)).mask.astype(int).tolist()
        [[0, 1, 1, 1], [0, 0, 0, 0]]
    """
    if bounds_l0 == (0, 0, *tissue.slide_size):
        return tissue
    inside = []
    for n_pixels, extent, start, length in zip(
        tissue.mask.shape[::-1], tissue.slide_size, bounds_l0[:2], bounds_l0[2:], strict=True
    ):
        centre_l0 = (np.arange(n_pixels) + 0.5) * extent / n_pixels
        inside.append((centre_l0 >= start) & (centre_l0 < start + length))
    return tissue.with_step("outside the scan", tissue.mask & np.outer(inside[1], inside[0]))


def thumbnail_mpp(tile_px: int, mpp: float) -> float:
    """Return the resolution that a thumbnail needs for tiles of this size, in um per pixel.

    A sixteenth of the tile's side, so that a tile's share of tissue is measured on at least 256 mask pixels. Never
    coarser than 8 um, where thin membranes and small biopsies would blur into glass, and never finer than 1 um, where
    the thumbnail of a large slide would not fit in memory (tiles under 16 um then span fewer mask pixels).

    Args:
        tile_px: Side of a tile, in pixels at `mpp`.
        mpp: Resolution of the tile, in um per pixel.

    Example:
        >>> thumbnail_mpp(224, 0.25), thumbnail_mpp(512, 0.5)
        (3.5, 8.0)
    """
    return min(max(tile_px * mpp / 16, FINEST_UM), COARSEST_UM)


def pixel_um(
    shape: tuple[int, ...], slide_size: tuple[int, int], slide_mpp: tuple[float, float]
) -> tuple[float, float]:
    """Return the `(width, height)` of a pixel of a picture `shape` `(h, w)` of the whole slide, in um."""
    return slide_size[0] * slide_mpp[0] / shape[1], slide_size[1] * slide_mpp[1] / shape[0]


def check_thumbnail(thumbnail: NDArray[np.uint8]) -> None:
    """Refuse what is not an RGB picture.

    Raises:
        TissueError: If it is not `(h, w, 3)` uint8 with at least one pixel.
    """
    if thumbnail.ndim != 3 or thumbnail.shape[2] != 3 or thumbnail.dtype != np.uint8 or thumbnail.size == 0:
        raise TissueError(
            f"the thumbnail is {thumbnail.dtype} of shape {thumbnail.shape} and must be uint8 (h, w, 3), RGB. "
            "Read it with Slide.read_thumbnail."
        )


def remove_specks(
    mask: NDArray[np.bool_], max_px: float, *, near: NDArray[np.uint8] | None = None
) -> NDArray[np.bool_]:
    """Remove pieces of tissue of at most `max_px` pixels; larger ones stay as they are.

    Args:
        mask: `(h, w)` bool.
        max_px: Area of the largest piece that goes, in mask pixels.
        near: OpenCV kernel; parts that meet when dilated with it are one piece. None: parts that touch.

    Returns:
        `(h, w)` bool.
    """
    grown = mask.view(np.uint8) if near is None else cv2.dilate(mask.view(np.uint8), near)
    n_pieces, labels = cv2.connectedComponents(grown, connectivity=8)
    pieces = labels[mask]
    kept = np.zeros_like(mask)
    kept[mask] = (np.bincount(pieces, minlength=n_pieces) > max_px)[pieces]
    return kept


def fill_holes(mask: NDArray[np.bool_], max_px: float, *, never: NDArray[np.bool_] | None = None) -> NDArray[np.bool_]:
    """Fill holes of at most `max_px` pixels.

    A hole is enclosed by tissue on all sides: background that reaches the slide's edge is never one, however small.

    Args:
        mask: `(h, w)` bool.
        max_px: Area of the largest hole that is filled, in mask pixels.
        never: `(h, w)` bool; a hole that holds any of these pixels (pen, padding) stays open.

    Returns:
        `(h, w)` bool.
    """
    height, width = mask.shape
    n_holes, labels, stats, _ = cv2.connectedComponentsWithStats((~mask).view(np.uint8), connectivity=4)
    x0, y0 = stats[:, cv2.CC_STAT_LEFT], stats[:, cv2.CC_STAT_TOP]
    x1, y1 = x0 + stats[:, cv2.CC_STAT_WIDTH], y0 + stats[:, cv2.CC_STAT_HEIGHT]
    filled = stats[:, cv2.CC_STAT_AREA] <= max_px
    filled &= (x0 > 0) & (y0 > 0) & (x1 < width) & (y1 < height)
    if never is not None:
        filled &= np.bincount(labels[never], minlength=n_holes) == 0
    filled[0] = False
    if not filled.any():
        return mask
    closed: NDArray[np.bool_] = mask | filled[labels]
    return closed
