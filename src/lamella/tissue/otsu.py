"""Plain Otsu: the threshold of most papers, kept to compare with."""

import cv2
import numpy as np
from numpy.typing import NDArray

from lamella.tissue.mask import TissueMask, check_thumbnail, whole_slide


def find_tissue_otsu(
    thumbnail: NDArray[np.uint8], *, slide_size: tuple[int, int], slide_mpp: tuple[float, float]
) -> TissueMask:
    """Find tissue as what is darker than Otsu's threshold of the grey thumbnail, and nothing else.

    Otsu splits every picture into two, so pale tissue is lost where dark tissue is about, a blank slide is split at its
    noise, and padding and pen count as tissue. `find_tissue` does better; this is for comparing with published work.

    Otsu, "A threshold selection method from gray-level histograms", 1979, equation 18.

    Args:
        thumbnail: `(h, w, 3)` uint8 RGB of the whole slide.
        slide_size: `(width, height)` of level 0, in pixels.
        slide_mpp: `(x, y)` resolution of level 0, in um per pixel.

    Returns:
        Mask of the thumbnail's shape; a picture of one grey level holds no tissue.

    Raises:
        TissueError: If the thumbnail is not an RGB picture.

    Example:
        >>> thumbnail = np.full((20, 30, 3), 240, np.uint8)
        >>> thumbnail[5:10, 2:8] = 130
        >>> find_tissue_otsu(thumbnail, slide_size=(480, 320), slide_mpp=(0.5, 0.5)).tissue_um2
        1920.0
    """
    check_thumbnail(thumbnail)
    start = whole_slide(thumbnail.shape[:2], slide_size=slide_size, slide_mpp=slide_mpp, method="otsu")
    grey = cv2.cvtColor(thumbnail, cv2.COLOR_RGB2GRAY)
    if grey.min() == grey.max():
        return start.with_step("otsu", np.zeros(grey.shape, dtype=bool), "the slide is of one grey level: no tissue")
    threshold, _ = cv2.threshold(grey, 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    return start.with_step("otsu", grey <= threshold, f"Otsu's threshold is grey level {threshold:.0f}")
