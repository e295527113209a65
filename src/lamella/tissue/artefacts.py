"""What lies on a slide picture and is neither tissue nor glass: padding by the scanner, and pen ink."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

# A flat area smaller than this is a saturated highlight or a quiet spot of the glass, not padding.
PADDING_SIDE_UM = 100.0
# Resampling smears the padding's edge over this many thumbnail pixels.
PADDING_HALO_PX = 2
# Felt-tip strokes are 300 um wide and more, on small drawn slides 40 um; specks of surgical ink in a section's margin
# are narrower or smaller. Black is also the colour of coal dust and other pigment in tissue, so there the width must
# convince.
STROKE_UM, BLACK_STROKE_UM, STROKE_UM2 = 32.0, 100.0, 8_000.0
# A line is at least this much longer than wide.
LINE_LENGTH = 4.0
# Strokes fade at their edge: this much beside them goes too.
STROKE_HALO_UM = 24.0
# Red less green absorbance of ink, in grey levels. At 8 um per pixel no H&E picture at hand passes 5 in more than one
# dark pixel of a thousand: haematoxylin and eosin both take more green than red, blue and green ink more red.
# Under 55 grey levels of red, where ink lies over tissue, the difference shrinks with the light that is left.
BLUE_OR_GREEN = 15
# Red ink lets all red through and next to nothing else; erythrocytes and eosin leave 80 in 999 of 1000 pixels, but
# packed blood comes near. Ink is also smooth, or a line on glass.
RED, REDDISH = 110, 60
BLACK_BELOW, BLACK_CHROMA = 90, 30
# Mean difference of neighbours at 8 um per pixel, grey levels: ink hides what lies under it, blood is cells.
INK_TEXTURE = 8.0

# Tinted glass: the brightest channel of dim glass, what still counts as grey, and the least channel in per cent of the
# brightest. Blue at 60% of the others is the yellowest glass that is expected.
DIM, GREY_SPREAD, YELLOW_PERCENT, BLUE_PERCENT = 120, 10, 50, 72


@dataclass(frozen=True, slots=True)
class FlatAreas:
    """Exactly flat areas that reach the slide's edge, as bool `(h, w)`.

    Attributes:
        dark: Darker than any glass, or of a colour that no glass has: padding beyond doubt.
        white: Pure white: padding where the slide also shows glass, else the glass itself.
        bright: Of a bright grey or a tint of glass: padding beside glass of another colour, else glass without noise.
    """

    dark: NDArray[np.bool_]
    white: NDArray[np.bool_]
    bright: NDArray[np.bool_]


def find_flat_areas(thumbnail: NDArray[np.uint8], um: float) -> FlatAreas:
    """Find what the scanner never saw: areas without any noise that reach the edge of the picture.

    Args:
        thumbnail: `(h, w, 3)` uint8 RGB of the whole slide.
        um: Side of a thumbnail pixel, in um.
    """
    square = np.ones((3, 3), np.uint8)
    # Outside the picture OpenCV takes no part in either, so an area at the edge is as flat as one inside.
    flat = channel_range(cv2.morphologyEx(thumbnail, cv2.MORPH_GRADIENT, square).astype(np.uint8))[1] == 0
    low, high = channel_range(thumbnail)
    white = flat & (low >= 254)
    bright = flat & ~white & (looks_like_glass(low, high) | looks_like_tinted_glass(thumbnail))
    dark = flat & ~white & ~bright
    return FlatAreas(*(_reaching_edge(area, um) for area in (dark, white, bright)))


def with_halo(flat: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return flat areas with their rim: the pixel whose neighbour differs, and what resampling smeared beyond it."""
    if not flat.any():
        return flat
    side = 2 * (1 + PADDING_HALO_PX) + 1
    grown: NDArray[np.bool_] = cv2.dilate(flat.view(np.uint8), np.ones((side, side), np.uint8)) > 0
    return grown


def channel_range(picture: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return the smallest and the largest channel, `(h, w)` uint8; numpy along an axis of 3 takes ten times as long."""
    red, green, blue = cv2.split(picture)
    return cv2.min(cv2.min(red, green), blue).astype(np.uint8), cv2.max(cv2.max(red, green), blue).astype(np.uint8)


def looks_like_glass(low: NDArray[np.uint8], high: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Tell the bright and nearly colourless pixels, from the smallest and largest channel."""
    return (low >= 150) & (high - low <= 40)


def looks_like_tinted_glass(picture: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Tell the pixels whose colour may be that of dim, yellow, blue or green glass and is not that of stain.

    Haematoxylin and eosin take more green than red or blue; a lamp, a filter or an old mounting medium takes red or
    blue, and clearly less green.

    Args:
        picture: `(h, w, 3)` uint8 RGB.
    """
    low, high = channel_range(picture)
    spread = cv2.subtract(high, low)
    green = cv2.subtract(picture[..., 1], low)
    is_tinted = (3 * green.astype(np.int16) >= spread) | (spread <= GREY_SPREAD)
    yellow = picture[..., 0] >= picture[..., 2]
    # Blue dyes (Alcian blue, trichrome) take ever more red: glass of that tint stays pale.
    pale = 100 * low.astype(np.int32) >= np.where(yellow, YELLOW_PERCENT, BLUE_PERCENT) * high.astype(np.int32)
    tinted: NDArray[np.bool_] = (high >= DIM) & is_tinted & pale
    return tinted


def find_pen(absorbed: NDArray[np.int16], coarse: NDArray[np.uint8], um: float) -> NDArray[np.bool_]:
    """Find strokes of blue, green, red and black felt-tip pen.

    Ink is told from stain by colour *and* by lying in strokes: a coloured piece counts as ink when at least half of it
    holds a disc of 32 um, a black one of 100 um. Haematoxylin, erythrocytes, pigment and specks of surgical ink stay.
    Yellow and violet pens are not found: their colours are those of bile and haematoxylin.

    Args:
        absorbed: `(h, w, 3)` int16, glass less pixel.
        coarse: `(h, w, 3)` uint8 RGB, the same pixels.
        um: Side of their pixels, in um.

    Returns:
        `(h, w)` bool.
    """
    red, green, blue = (absorbed[..., channel] for channel in range(3))
    low, high = channel_range(coarse)
    black = (high < BLACK_BELOW) & (high - low < BLACK_CHROMA)
    cold = red - green > np.minimum(BLUE_OR_GREEN, coarse[..., 0] / 5 + 4)
    redness = np.minimum(green, blue) - red
    warm = _strokes((redness > RED) & _smooth(coarse[..., 1]), STROKE_UM, um)
    warm |= _lines_on_glass(_strokes(redness > RED, STROKE_UM, um), absorbed.max(axis=2) < BLUE_OR_GREEN, um)
    # The rim of a red stroke is neither smooth nor as red, but reddish beside red is ink.
    warm |= (cv2.dilate(warm.view(np.uint8), disc(2 * STROKE_HALO_UM, um)) > 0) & (redness > REDDISH)
    # Colour by colour: taken together, ink of a margin and pigment might make a stroke.
    ink = _strokes(cold, STROKE_UM, um) | warm | _strokes(black, BLACK_STROKE_UM, um)
    grown: NDArray[np.bool_] = cv2.dilate(ink.view(np.uint8), disc(STROKE_HALO_UM, um)) > 0
    return grown if ink.any() else ink


def disc(radius_um: float, um: float) -> NDArray[np.uint8]:
    """Return a disc of at least one pixel around its centre, as a kernel for OpenCV."""
    side = 2 * max(round(radius_um / um), 1) + 1
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side)).astype(np.uint8)


def open_strictly(mask: NDArray[np.bool_], radius_um: float, um: float) -> NDArray[np.bool_]:
    """Keep what holds a disc of this radius that lies wholly inside the picture."""
    kernel = disc(radius_um, um)
    inside = cv2.erode(mask.view(np.uint8), kernel, borderType=cv2.BORDER_CONSTANT, borderValue=0)
    opened: NDArray[np.bool_] = cv2.dilate(inside, kernel) > 0
    return opened


def _reaching_edge(flat: NDArray[np.bool_], um: float) -> NDArray[np.bool_]:
    """Keep the large pieces that reach the edge of the picture."""
    height, width = flat.shape
    nothing = np.zeros(flat.shape, dtype=bool)
    if not (flat[0].any() or flat[-1].any() or flat[:, 0].any() or flat[:, -1].any()):
        return nothing
    _, labels, stats, _ = cv2.connectedComponentsWithStats(flat.view(np.uint8), connectivity=4)
    x0, y0 = stats[:, cv2.CC_STAT_LEFT], stats[:, cv2.CC_STAT_TOP]
    x1, y1 = x0 + stats[:, cv2.CC_STAT_WIDTH], y0 + stats[:, cv2.CC_STAT_HEIGHT]
    kept = (x0 == 0) | (y0 == 0) | (x1 == width) | (y1 == height)
    kept &= stats[:, cv2.CC_STAT_AREA] * um * um >= PADDING_SIDE_UM**2
    kept[0] = False
    reaching: NDArray[np.bool_] = kept[labels] if kept.any() else nothing
    return reaching


def _strokes(ink: NDArray[np.bool_], width_um: float, um: float) -> NDArray[np.bool_]:
    """Keep the pieces of which at least half is as wide as a stroke."""
    if not ink.any():
        return ink
    closed = cv2.morphologyEx(ink.view(np.uint8), cv2.MORPH_CLOSE, disc(2 * um, um))
    # Strokes run off the slide, so here the outside counts as ink.
    wide = cv2.morphologyEx(closed, cv2.MORPH_OPEN, disc(width_um / 2, um))
    n_pieces, labels = cv2.connectedComponents(closed, connectivity=8)
    area = np.bincount(labels.ravel(), minlength=n_pieces)
    kept = (np.bincount(labels[wide > 0], minlength=n_pieces) >= area / 2) & (area * um * um >= STROKE_UM2)
    kept[0] = False
    strokes: NDArray[np.bool_] = kept[labels]
    return strokes


def _lines_on_glass(strokes: NDArray[np.bool_], glass: NDArray[np.bool_], um: float) -> NDArray[np.bool_]:
    """Keep the strokes that are long and have glass along at least half of their sides: blood does not."""
    lines = np.zeros_like(strokes)
    if not strokes.any():
        return lines
    n_pieces, labels = cv2.connectedComponents(strokes.view(np.uint8), connectivity=8)
    for piece in range(1, n_pieces):
        piece_mask = (labels == piece).view(np.uint8)
        # Padded: a stroke that runs off the slide has no other side there.
        half = float(cv2.distanceTransform(np.pad(piece_mask, 1), cv2.DIST_L2, 5).max())
        near, far = (cv2.dilate(piece_mask, disc(reach * STROKE_HALO_UM, um)) > 0 for reach in (1, 2))
        beside = far & ~near
        if np.count_nonzero(piece_mask) >= LINE_LENGTH * (2 * half) ** 2 and glass[beside].mean() >= 0.5:
            lines |= piece_mask > 0
    return lines


def _smooth(channel: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Tell where neighbours differ little, averaged over some 50 um."""
    differences = cv2.morphologyEx(channel, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8)).astype(np.float32)
    # The stroke's own edge must not count against it: the least of the averages around a pixel decides.
    smooth: NDArray[np.bool_] = cv2.erode(cv2.blur(differences, (5, 5)), np.ones((5, 5), np.uint8)) < INK_TEXTURE
    return smooth
