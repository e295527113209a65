"""A picture to judge a tissue mask by."""

import cv2
import numpy as np
from numpy.typing import NDArray

from lamella.tissue.mask import TissueMask, check_thumbnail

OUTLINE = (0, 140, 60)  # green: no H&E slide holds it, and it stays dark enough to be seen on glass
DIMMED_TO = 120


def draw_tissue(thumbnail: NDArray[np.uint8], tissue: TissueMask) -> NDArray[np.uint8]:
    """Draw the tissue's outline on the thumbnail, with what is left out dimmed.

    The outline is drawn on the side of the background, so that every pixel of tissue keeps its colour.

    Args:
        thumbnail: `(h, w, 3)` uint8 RGB of the whole slide, at any resolution.
        tissue: What was found on it, or on another thumbnail of the same slide.

    Returns:
        `(h, w, 3)` uint8 RGB.

    Raises:
        TissueError: If the thumbnail is not an RGB picture.
    """
    check_thumbnail(thumbnail)
    height, width = thumbnail.shape[:2]
    inside = cv2.resize(tissue.mask.view(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST_EXACT)
    dimmed = cv2.addWeighted(thumbnail, 0.45, np.full_like(thumbnail, DIMMED_TO), 0.55, 0)
    drawn = np.where(inside[..., None] > 0, thumbnail, dimmed)
    # One pixel is lost to the eye on a thumbnail of thousands.
    reach = 3 + 2 * (max(height, width) // 1500)
    grown = cv2.dilate(inside, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (reach, reach)))
    drawn[(grown > 0) & (inside == 0)] = OUTLINE
    outlined: NDArray[np.uint8] = drawn
    return outlined
