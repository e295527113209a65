"""The attention overlay: the slide as it looks, and beside it the same view with attention in colour."""

from dataclasses import dataclass
from typing import Literal

import cv2
import matplotlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from lamella.defaults import COLOURS, OPACITY, PANEL_PX
from lamella.errors import SettingsError
from lamella.maps import stitch_tiles
from lamella.reports.draw.heatmap import SlideAttention
from lamella.reports.draw.pictures import FAINT, INK, PAPER, Picture, draw_scale_bar, find_font, fit_text

_MARGIN = 24
_HEADER = 94
_FOOTER = 44
_BAR_WIDTH = 22
_BAR_ROOM = 134  # the colour bar with its ticks and label


@dataclass(frozen=True, slots=True, kw_only=True)
class OverlayStyle:
    """How an overlay looks.

    Attributes:
        colours: A perceptually uniform colour map of matplotlib: "viridis", "inferno", "magma", "plasma", "cividis".
        opacity: Share of colour over the grey slide, 0 to 1.
        measure: "relative": attention in multiples of the slide's average tile, which shows how strong it is;
            "rank": the share of tiles attended less, which shows its order only, and always fills the colour bar.
        panel_px: Longer side of the slide in the picture, in pixels.

    Raises:
        SettingsError: If a value is unknown or out of range.
    """

    colours: str = COLOURS
    opacity: float = OPACITY
    measure: Literal["relative", "rank"] = "relative"
    panel_px: int = PANEL_PX

    def __post_init__(self) -> None:
        """Refuse what cannot be drawn."""
        if self.colours not in matplotlib.colormaps:
            raise SettingsError(f"no colour map is called '{self.colours}'. Use 'viridis' or 'inferno'.")
        if not 0 <= self.opacity <= 1:
            raise SettingsError(f"opacity is {self.opacity:g} and must be from 0 to 1. Use 0.55.")
        if self.measure not in ("relative", "rank"):
            raise SettingsError(f"attention is measured as '{self.measure}'. Use 'relative' or 'rank'.")
        if self.panel_px < 64:
            raise SettingsError(f"the slide is to be drawn {self.panel_px} px long. Ask for at least 64.")


@dataclass(frozen=True, slots=True)
class ColourRange:
    """What the ends of the colour bar stand for.

    Attributes:
        low: Value at the bar's foot.
        high: Value at the bar's top; higher ones are drawn in the same colour.
        capped: Whether any value is above `high`.
        label: What is measured, in words.
        ticks: Values on the bar, and what is written beside them.
    """

    low: float
    high: float
    capped: bool
    label: str
    ticks: tuple[tuple[float, str], ...]


def draw_overlay(
    tiles: SlideAttention, thumbnail: NDArray[np.uint8], *, title: str, subtitle: str = "", style: OverlayStyle
) -> Picture:
    """Draw the slide twice, plain and with attention in colour, with colour bar and scale bar.

    Args:
        tiles: The slide's tiles and their attention.
        thumbnail: `(h, w, 3)` uint8 RGB, covering the whole slide.
        title: First line: which slide.
        subtitle: Second line: what was predicted.
        style: Colours, opacity, measure, size.

    Returns:
        The picture; wide slides have their panels one above the other, others side by side.
    """
    panel = fit_thumbnail(thumbnail, tiles.slide_um, style.panel_px)
    values, colour_range = find_colour_range(tiles, style)
    raster = stitch_tiles(values, tiles.coords_l0, tiles.tile_size_l0, tiles.slide_size, panel.shape[:2])
    coloured = blend_map(panel, raster, colour_range, style)
    um_per_px = tiles.slide_um[0] / panel.shape[1]
    return lay_panels(panel, coloured, um_per_px, colour_range, style, title=title, subtitle=subtitle)


def lay_panels(
    panel: NDArray[np.uint8],
    coloured: NDArray[np.uint8],
    um_per_px: float,
    colour_range: ColourRange,
    style: OverlayStyle,
    *,
    title: str,
    subtitle: str,
) -> Picture:
    """Lay two views of a slide side by side (wide ones one above the other), with title, colour bar and scale bar.

    Args:
        panel: `(h, w, 3)` uint8 RGB, the slide as it looks.
        coloured: `(h, w, 3)` uint8 RGB, the same view with a map over it.
        um_per_px: um that one pixel of them spans.
        colour_range: What the ends of the colours stand for.
        style: Colours and opacity.
        title: First line.
        subtitle: Second line.
    """
    height, width = panel.shape[:2]
    stacked = width > 1.7 * height
    second = (_MARGIN, _HEADER + height + _MARGIN) if stacked else (_MARGIN * 2 + width, _HEADER)
    bar_x = second[0] + width + 18
    size = (max(bar_x + _BAR_ROOM, 480), max(second[1] + height, _HEADER + 220) + _FOOTER)
    canvas = Image.new("RGB", size, PAPER)
    draw = ImageDraw.Draw(canvas)
    draw.text(
        (_MARGIN, 18), fit_text(title, find_font(24, bold=True), size[0] - 2 * _MARGIN), INK, find_font(24, bold=True)
    )
    draw.text((_MARGIN, 52), fit_text(subtitle, find_font(18), size[0] - 2 * _MARGIN), FAINT, find_font(18))
    canvas.paste(Image.fromarray(panel), (_MARGIN, _HEADER))
    canvas.paste(Image.fromarray(coloured), second)
    for x, y in ((_MARGIN, _HEADER), second):
        draw.rectangle((x - 1, y - 1, x + width, y + height), outline=(205, 211, 215))
    draw_scale_bar(draw, (second[0], second[1] + height + 16), um_per_px, width)
    _draw_colour_bar(canvas, (bar_x, second[1]), max(height, 200), colour_range, style)
    return Picture(np.asarray(canvas), (_MARGIN - 2, _HEADER - 12, size[0], size[1]))


def blend_map(
    panel: NDArray[np.uint8], raster: NDArray[np.float32], colour_range: ColourRange, style: OverlayStyle
) -> NDArray[np.uint8]:
    """Return the slide in grey with a map in colour; where no tile lies, grey alone.

    Args:
        panel: `(h, w, 3)` uint8 RGB.
        raster: `(h, w)` float32, NaN where no tile lies.
        colour_range: What the ends of the colours stand for.
        style: Colours and opacity.

    Returns:
        `(h, w, 3)` uint8 RGB, in register with `panel` to the pixel.
    """
    grey = cv2.cvtColor(panel, cv2.COLOR_RGB2GRAY)[..., None].astype(np.float32).repeat(3, axis=2)
    covered = np.isfinite(raster)
    share = (raster[covered] - colour_range.low) / (colour_range.high - colour_range.low)
    colours = matplotlib.colormaps[style.colours](np.clip(share, 0, 1))[:, :3].astype(np.float32) * 255
    grey[covered] = grey[covered] * (1 - style.opacity) + colours * style.opacity
    return np.rint(grey).astype(np.uint8)


def find_colour_range(tiles: SlideAttention, style: OverlayStyle) -> tuple[NDArray[np.float64], ColourRange]:
    """Choose what is drawn and what the ends of the colour bar stand for.

    Even attention is drawn in one middling colour: the bar reaches at least twice the average. Its top is the 99.5th
    percentile, so that a single tile does not leave all others dark.

    Returns:
        `(N,)` float64 values of the tiles, and the range.
    """
    if style.measure == "rank":
        n_tiles = tiles.attention.size
        ticks = tuple((value, f"{value:.0%}") for value in (0.0, 0.25, 0.5, 0.75, 1.0))
        return 1 - (tiles.rank - 0.5) / n_tiles, ColourRange(
            0.0, 1.0, capped=False, label="share of tiles attended less", ticks=ticks
        )
    relative = tiles.relative
    high = max(2.0, float(np.quantile(relative, 0.995, method="higher")))
    capped = bool(relative.max() > high)
    ticks = _list_ticks(high, capped=capped)
    whose = "" if tiles.n_bag is None else " of the patient"
    label = f"attention, times the average tile{whose}"
    return relative, ColourRange(0.0, high, capped=capped, label=label, ticks=ticks)


def fit_thumbnail(thumbnail: NDArray[np.uint8], slide_um: tuple[float, float], long_px: int) -> NDArray[np.uint8]:
    """Resize a thumbnail so that its longer side has `long_px` pixels and its pixels are square in um.

    Args:
        thumbnail: `(h, w, 3)` uint8 RGB, covering the whole slide.
        slide_um: `(width, height)` of the slide, in um.
        long_px: Longer side of the result, in pixels.

    Returns:
        `(h, w, 3)` uint8 RGB.
    """
    um_per_px = max(slide_um) / long_px
    width, height = (max(round(extent / um_per_px), 8) for extent in slide_um)
    shrinks = width < thumbnail.shape[1]
    resized = cv2.resize(thumbnail, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)
    return np.asarray(resized, dtype=np.uint8)


def _draw_colour_bar(
    canvas: Image.Image, corner: tuple[int, int], height: int, colour_range: ColourRange, style: OverlayStyle
) -> None:
    """Draw the colour bar, its ticks and its label, the label reading upwards."""
    draw = ImageDraw.Draw(canvas)
    x, y = corner
    share = np.linspace(1, 0, height)
    strip = (matplotlib.colormaps[style.colours](share)[:, None, :3] * 255).round().astype(np.uint8)
    # The bar shows the colours as they lie over mid-grey tissue, so that the eye finds them on the slide.
    strip = np.rint(strip * style.opacity + 190 * (1 - style.opacity)).astype(np.uint8)
    canvas.paste(Image.fromarray(np.repeat(strip, _BAR_WIDTH, axis=1)), corner)
    draw.rectangle((x, y, x + _BAR_WIDTH - 1, y + height - 1), outline=FAINT)
    font = find_font(16)
    for value, text in colour_range.ticks:
        at = y + (height - 1) * (1 - (value - colour_range.low) / (colour_range.high - colour_range.low))
        draw.line((x + _BAR_WIDTH, at, x + _BAR_WIDTH + 5, at), fill=FAINT)
        draw.text((x + _BAR_WIDTH + 9, at), text, INK, font, anchor="lm")
    font = find_font(15)
    label = Image.new("RGB", (height, 22), PAPER)
    text = fit_text(colour_range.label, font, height)
    ImageDraw.Draw(label).text((height / 2, 11), text, FAINT, font, anchor="mm")
    canvas.paste(label.rotate(90, expand=True), (x + _BAR_WIDTH + 84, y))


def _list_ticks(high: float, *, capped: bool) -> tuple[tuple[float, str], ...]:
    """List round values on the colour bar with their texts; the top one is always named."""
    step = next(
        step for step in (0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 10.0**3, 10.0**4, 10.0**9) if high / step <= 6
    )
    ticks = [(float(value), f"{value:g} x") for value in np.arange(0, high - step * 0.45, step)]
    return (*ticks, (high, f"{'> ' if capped else ''}{high:.3g} x"))
