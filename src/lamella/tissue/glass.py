"""Tissue as what is not the scanner's empty glass, with the glass estimated from the slide itself."""

import itertools
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from lamella.tissue.artefacts import (
    channel_range,
    disc,
    find_flat_areas,
    find_pen,
    looks_like_glass,
    looks_like_tinted_glass,
    open_strictly,
    with_halo,
)
from lamella.tissue.mask import TissueMask, check_thumbnail, fill_holes, pixel_um, remove_specks, whole_slide

# Of the least bright field at hand, dense tumour without a white spot, 95% is lit; of a DAPI slide nothing.
LIT, LIT_SHARE = 100, 0.1
# The glass, the pen and the threshold are found at this resolution whatever the thumbnail's, so that they do not
# depend on it; only the last comparison is made at the thumbnail's.
COARSE_UM = 8.0
# Finer thumbnails are noisy; a light blur brings them to the noise of this resolution. Not coarser ones: a dark edge
# would bleed into the glass beside it.
QUIET_UM = 1.5
# Glass holds a disc this wide. Fat cells are 50 to 120 um but parted by membranes that count as rough.
GLASS_DISC_UM = 100.0
# It covers a good part of the slide's edge, which lumina cut by the edge of a field do not (2% of a prostate field's,
# 66% of the edge of a cut-out with real margin), or it is wider than all but a bowel's lumen.
GLASS_EDGE_SHARE = 0.2
GLASS_WIDE_UM = 500.0
# Smooth: the smallest channel varies less than this over 24 um.
GLASS_RANGE = 12
# Grey levels below glass: more is tissue whatever Otsu says, so that it cannot throw away pale tissue; the noise of
# glass is clipped to the other two.
CLEARLY_DARKER = 18.0
LEAST_NOISE, MOST_NOISE = 3.0, 12.0
# Areas are in um2, so that they mean the same at every resolution of the mask. Crumbs this close count as one piece:
# a torn strip of epithelium is tissue, one crumb by itself is not.
SPECK_UM2 = 2_500.0
SPECK_GAP_UM = 16.0
DUST_UM2 = 50_000.0
HOLE_UM2 = 50_000.0
# Dust, fibres and the edge of the cover slip absorb all colours alike; of stained tissue, the channels differ by at
# least this share of the strongest.
DUST_CHROMA = 0.2


@dataclass(frozen=True, slots=True)
class Glass:
    """The scanner's empty glass.

    Attributes:
        colour: `(h, w, 3)` uint8, its colour all over the slide, at the coarse resolution.
        noise: Darkness that glass reaches by noise alone, in grey levels.
    """

    colour: NDArray[np.uint8]
    noise: float


def find_tissue(
    thumbnail: NDArray[np.uint8], *, slide_size: tuple[int, int], slide_mpp: tuple[float, float]
) -> TissueMask:
    """Find tissue as what does not look like the scanner's empty glass.

    Glass is what is bright, nearly colourless, smooth, wide and at the slide's edge; where there is none of that, what
    is as smooth and wide and has a tint that glass has and stain has not (yellow, blue, green, dim). Its colour is
    estimated from the slide, with slow changes of the lamp followed. What is within its noise is background, what is
    more than 18 grey levels darker in any channel is tissue, and Otsu's threshold divides what lies between. Padding
    and pen strokes go, specks and dust go, and small holes are filled, by area.

    Where there is no empty glass (a field cut from within tissue, white only in lumina and fat) the whole slide is
    tissue, and the notes say so. A picture that is dark where nothing is (fluorescence) holds no tissue.

    Args:
        thumbnail: `(h, w, 3)` uint8 RGB of the whole slide; see `thumbnail_mpp` for its resolution.
        slide_size: `(width, height)` of level 0, in pixels.
        slide_mpp: `(x, y)` resolution of level 0, in um per pixel.

    Returns:
        Mask of the thumbnail's shape, with its ledger.

    Raises:
        TissueError: If the thumbnail is not an RGB picture.

    Example:
        A section of 240 x 160 um off the centre of a slide of 960 x 640 um:

        >>> thumbnail = np.full((80, 120, 3), 243, np.uint8)
        >>> thumbnail[10:30, 15:45] = (200, 130, 180)
        >>> tissue = find_tissue(thumbnail, slide_size=(1920, 1280), slide_mpp=(0.5, 0.5))
        >>> tissue.tissue_um2, tissue.notes
        (38400.0, ())
    """
    check_thumbnail(thumbnail)
    tissue = whole_slide(thumbnail.shape[:2], slide_size=slide_size, slide_mpp=slide_mpp, method="glass")
    width_um, height_um = pixel_um(thumbnail.shape, slide_size, slide_mpp)
    um = (width_um * height_um) ** 0.5
    coarse, coarse_um = _shrink(thumbnail, um)

    padding, glass = _find_padding_and_glass(thumbnail, coarse, um, coarse_um)
    outside = _resize(padding, coarse.shape)
    tissue = tissue.with_step("padding", ~padding, *(["the whole slide is padding"] if padding.all() else []))
    if not _is_brightfield(coarse, ~outside):
        dark = "the slide is dark where it is empty: not brightfield (fluorescence?), so no tissue was looked for"
        return tissue.with_step("not brightfield", np.zeros_like(padding), dark)

    if glass is None:
        whole = "no empty glass was found: the whole slide counts as tissue"
        tissue = tissue.with_step("glass", tissue.mask, whole)
        colour = np.full_like(coarse, max(245, int(np.percentile(coarse, 99))))
    else:
        threshold = _find_threshold(coarse, glass, ~outside)
        full = _enlarge(glass.colour, thumbnail.shape)
        tissue = tissue.with_step("glass", tissue.mask & (_darkness(thumbnail, full, um) > threshold))
        colour = glass.colour

    pen = _resize(find_pen(colour.astype(np.int16) - coarse, coarse, coarse_um), thumbnail.shape)
    tissue = tissue.with_step("pen", tissue.mask & ~pen, *_pen_notes(tissue.mask, pen))
    if glass is None:
        return tissue
    mask = remove_specks(tissue.mask, SPECK_UM2 / um**2, near=disc(SPECK_GAP_UM / 2, um))
    tissue = tissue.with_step("specks", _remove_dust(mask, thumbnail, full, um))
    return tissue.with_step("holes filled", fill_holes(tissue.mask, HOLE_UM2 / um**2, never=pen | padding))


def find_glass(coarse: NDArray[np.uint8], valid: NDArray[np.bool_], um: float, *, tinted: bool = False) -> Glass | None:
    """Find the colour and noise of the empty glass.

    Args:
        coarse: `(h, w, 3)` uint8 RGB of the whole slide.
        valid: `(h, w)` bool, False on padding.
        um: Side of its pixels, in um.
        tinted: Whether glass is looked for by the tints that it may have, or as bright and nearly colourless.

    Returns:
        None where the slide shows no empty glass.
    """
    low, high = channel_range(coarse)
    rough = cv2.morphologyEx(low, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8)) > GLASS_RANGE
    alike = looks_like_tinted_glass(coarse) if tinted else looks_like_glass(low, high)
    seeds = open_strictly(valid & alike & ~rough, GLASS_DISC_UM / 2, um)
    rim = valid & (cv2.erode(valid.view(np.uint8), np.ones((3, 3), np.uint8), borderValue=0) == 0)
    if not seeds.any():
        return None
    n_areas, labels = cv2.connectedComponents(seeds.view(np.uint8), connectivity=8)
    glass = np.bincount(labels[open_strictly(seeds, GLASS_WIDE_UM / 2, um)], minlength=n_areas) > 0
    if np.count_nonzero(rim & seeds) >= GLASS_EDGE_SHARE * np.count_nonzero(rim):
        glass |= np.bincount(labels[rim & seeds], minlength=n_areas) > 0
    glass[0] = False
    return _measure_glass(coarse, glass[labels], um) if glass.any() else None


def _measure_glass(coarse: NDArray[np.uint8], seeds: NDArray[np.bool_], um: float) -> Glass:
    """Measure the colour of glass all over the slide, and its noise."""
    pixels = coarse[seeds]
    median = np.median(pixels[:: max(len(pixels) // 100_000, 1)], axis=0).astype(np.float32)
    # A lamp that fades dims all channels alike, pale stain does not: only the former may move the estimate.
    change = (coarse - median) * (median.max() / np.maximum(median, 1))  # of tinted glass, the same share of each
    least, most = change[..., 0].copy(), change[..., 0].copy()
    for channel in (1, 2):
        np.minimum(least, change[..., channel], out=least)
        np.maximum(most, change[..., channel], out=most)
    plain = seeds & (least >= -CLEARLY_DARKER) & (most <= CLEARLY_DARKER) & (most - least <= 4)
    size = (max(coarse.shape[1] // 8, 1), max(coarse.shape[0] // 8, 1))
    weight = cv2.resize(plain.astype(np.float32), size, interpolation=cv2.INTER_AREA)
    change = cv2.resize((coarse - median) * plain[..., None], size, interpolation=cv2.INTER_AREA)
    reach = 1000.0 / (8 * um)
    change = cv2.GaussianBlur(change, (0, 0), reach) / (cv2.GaussianBlur(weight, (0, 0), reach) + 0.02)[..., None]
    change = cv2.resize(change, coarse.shape[1::-1], interpolation=cv2.INTER_LINEAR)
    colour = np.clip(np.rint(median + change), 0, 255).astype(np.uint8)
    noise = _darkness(coarse, colour, um)[plain] if plain.any() else np.zeros(1)
    noise = noise[:: max(len(noise) // 100_000, 1)]
    spread = 1.4826 * float(np.median(np.abs(noise - np.median(noise))))
    return Glass(colour, float(np.clip(np.median(noise) + 4 * spread, LEAST_NOISE, MOST_NOISE)))


def _find_padding_and_glass(
    thumbnail: NDArray[np.uint8], coarse: NDArray[np.uint8], um: float, coarse_um: float
) -> tuple[NDArray[np.bool_], Glass | None]:
    """Tell padding from glass: flat bright areas are padding only where the slide shows other glass."""
    flat = find_flat_areas(thumbnail, um)
    dark, none = with_halo(flat.dark), np.zeros_like(flat.dark)
    padding = dark | with_halo(flat.white)
    choices = ((padding, flat.bright), (padding, none), (dark, none))
    for tinted, (certain, suspects) in itertools.product((False, True), choices):
        glass = find_glass(coarse, ~_resize(certain | suspects, coarse.shape), coarse_um, tinted=tinted)
        if glass is not None:
            full = _enlarge(glass.colour, thumbnail.shape)
            # JPEG flattens quiet glass too: only another colour makes padding of it.
            differs = channel_range(cv2.absdiff(thumbnail, full).astype(np.uint8))[1] > 2 * LEAST_NOISE
            return certain | with_halo(suspects & differs), glass
    return padding, None


def _find_threshold(coarse: NDArray[np.uint8], glass: Glass, valid: NDArray[np.bool_]) -> float:
    """Divide what is neither glass by its noise nor clearly tissue, by Otsu's method."""
    darkness = _darkness(coarse, glass.colour, COARSE_UM)[valid]
    between = darkness[(darkness > glass.noise) & (darkness < CLEARLY_DARKER)]
    if between.size < 50 or between.min() == between.max():
        return (glass.noise + CLEARLY_DARKER) / 2
    threshold, _ = cv2.threshold(np.ascontiguousarray(between), 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    return float(threshold)


def _is_brightfield(coarse: NDArray[np.uint8], valid: NDArray[np.bool_]) -> bool:
    """Tell whether a good part of the valid pixels is light in two channels: fluorescence lights up but one."""
    red, green, blue = cv2.split(coarse)
    middle = cv2.max(cv2.min(red, green), cv2.min(cv2.max(red, green), blue))
    return bool(np.count_nonzero((middle >= LIT) & valid) >= LIT_SHARE * np.count_nonzero(valid))


def _darkness(picture: NDArray[np.uint8], glass: NDArray[np.uint8], um: float) -> NDArray[np.uint8]:
    """Measure how far each pixel lies below glass in its darkest channel, `(h, w)` uint8."""
    darkness = channel_range(cv2.subtract(glass, picture).astype(np.uint8))[1]
    if um >= QUIET_UM:
        return darkness
    return cv2.GaussianBlur(darkness, (3, 3), 0).astype(np.uint8)


def _remove_dust(
    mask: NDArray[np.bool_], thumbnail: NDArray[np.uint8], glass: NDArray[np.uint8], um: float
) -> NDArray[np.bool_]:
    """Remove small pieces without colour."""
    n_pieces, labels, stats, _ = cv2.connectedComponentsWithStats(mask.view(np.uint8), connectivity=8)
    small = stats[:, cv2.CC_STAT_AREA] * um * um <= DUST_UM2
    small[0] = False
    y, x = np.nonzero(small[labels])
    light = np.maximum(glass[y, x].astype(np.float64), 1)
    # As shares of the light, scaled to the brightest channel: on yellow glass, grey dust takes more red than blue.
    absorbed = np.maximum(light - thumbnail[y, x], 0) * (light.max(axis=1, keepdims=True) / light)
    piece = labels[y, x]
    most = np.bincount(piece, absorbed.max(axis=1), minlength=n_pieces)
    chroma = np.bincount(piece, np.ptp(absorbed, axis=1), minlength=n_pieces)
    dust: NDArray[np.bool_] = (small & (chroma < DUST_CHROMA * most))[labels]
    return mask & ~dust


def _pen_notes(mask: NDArray[np.bool_], pen: NDArray[np.bool_]) -> list[str]:
    """Say aloud when much is taken for ink: a blue or green stain would be."""
    share = float((mask & pen).sum()) / max(float(mask.sum()), 1.0)
    if share < 0.25:
        return []
    return [
        f"{share:.0%} of what looked like tissue has the colours of pen ink and was left out; if it is a stain "
        "(trichrome, Alcian blue), pass --tissue otsu"
    ]


def _shrink(thumbnail: NDArray[np.uint8], um: float) -> tuple[NDArray[np.uint8], float]:
    """Return the thumbnail at `COARSE_UM` or as it is where that is coarser, with the side of its pixels in um."""
    height, width = thumbnail.shape[:2]
    if um >= COARSE_UM:
        return thumbnail, um
    size = (max(round(width * um / COARSE_UM), 1), max(round(height * um / COARSE_UM), 1))
    coarse = cv2.resize(thumbnail, size, interpolation=cv2.INTER_AREA).astype(np.uint8)
    return coarse, um * (width * height / (size[0] * size[1])) ** 0.5


def _enlarge(colour: NDArray[np.uint8], shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Bring the glass's colour to the shape `(h, w, ...)` of the thumbnail."""
    return cv2.resize(colour, (shape[1], shape[0]), interpolation=cv2.INTER_LINEAR).astype(np.uint8)


def _resize(mask: NDArray[np.bool_], shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Bring a mask to another shape `(h, w)`; a pixel that is True in part becomes True."""
    if mask.shape == shape[:2]:
        return mask
    resized = cv2.resize(mask.astype(np.float32), (shape[1], shape[0]), interpolation=cv2.INTER_AREA)
    touched: NDArray[np.bool_] = resized > 0
    return touched
