"""Pictures of a class activation map: a signed overlay, and contours for QuPath."""

import json
import math
from pathlib import Path
from typing import Any

import contourpy
import numpy as np
from numpy.typing import NDArray

from lamella.explain.cam_record import CamRecord
from lamella.files import parse_json_file, remove, write_json, write_text
from lamella.maps import fit_map, load_map
from lamella.reports.draw.overlay import ColourRange, OverlayStyle, blend_map, fit_thumbnail, lay_panels
from lamella.reports.draw.pictures import save_picture
from lamella.slide import Bounds, Slide, describe_frame
from lamella.tissue.geojson import make_feature

CAM_COLOURS = "RdBu_r"  # red for the class, blue against it: told apart in every colour vision
_SHARES = (0.5, 0.8)
_CONTOUR_PX = 4096
_DRAWN = "drawn.json"  # written last: a folder that has it is complete
_FOR, _AGAINST = (178, 24, 43), (33, 102, 172)


def draw_cam(
    slide: Slide, record: CamRecord, folder: Path, *, title: str, subtitle: str = "", style: OverlayStyle | None = None
) -> None:
    """Draw a slide's map into its folder: `cam.png` and `cam.geojson`; what is drawn already is kept.

    Args:
        slide: The open slide.
        record: What the map says.
        folder: Holds `cam.tiff`.
        title: First line of the picture: which slide.
        subtitle: Second line: what was predicted.
        style: Opacity and size; the colours are those of signed maps unless others are named.

    Raises:
        SlideError: If the slide cannot be read.
        OutputError: If a file cannot be written.
    """
    style = style or OverlayStyle(colours=CAM_COLOURS)
    stamp = {
        "key": record.key,
        "frame": "scan",
        "title": title,
        "subtitle": subtitle,
        "colours": style.colours,
        "px": style.panel_px,
    }
    try:
        if parse_json_file(folder / _DRAWN) == stamp:
            return
    except (OSError, ValueError):
        pass
    remove(folder / _DRAWN)
    thumbnail = slide.read_scan(max(max(record.slide_um) / style.panel_px, max(slide.mpp)))
    panel = fit_thumbnail(thumbnail, record.slide_um, style.panel_px)
    raster = fit_map(load_map(folder / "cam.tiff", long_px=2 * style.panel_px), panel.shape[:2])
    colour_range = find_signed_range(raster, record)
    picture = lay_panels(
        panel,
        blend_map(panel, raster, colour_range, style),
        record.slide_um[0] / panel.shape[1],
        colour_range,
        style,
        title=title,
        subtitle=subtitle,
    )
    save_picture(picture, folder / "cam.png")
    save_contours(load_map(folder / "cam.tiff", long_px=_CONTOUR_PX), record, slide.bounds_l0, folder / "cam.geojson")
    write_json(folder / _DRAWN, stamp)


def find_signed_range(raster: NDArray[np.float32], record: CamRecord) -> ColourRange:
    """Choose what the ends of the colours stand for: as far above 0 as below, 0 in the middle."""
    values = np.abs(raster[np.isfinite(raster)])
    high = float(np.quantile(values, 0.998)) if values.size else 0.0
    high = high if high > 0 else 1.0
    digits = (-high, -high / 2, 0.0, high / 2, high)
    power = math.floor(math.log10(high))
    power = power if power < -1 else 0
    # Typographic minus; the unit stands in the label, and so does a power of ten for which the bar has no room.
    ticks = tuple((value, f"{value / 10**power:+.2g}".replace("-", "\u2212") if value else "0") for value in digits)
    unit = "logits a cell" if power == 0 else f"1e{power} logits a cell".replace("-", "\u2212")
    return ColourRange(
        -high,
        high,
        capped=bool(values.size and values.max() > high),
        label=f"{unit}, for {record.target} over {record.others}",
        ticks=ticks,
    )


def save_contours(raster: NDArray[np.float32], record: CamRecord, bounds_l0: Bounds, path: Path) -> None:
    """Write the smallest areas that hold half, and four fifths, of what speaks for the class, and against it.

    Args:
        raster: `(h, w)` float32 over the scan, NaN where no tile lies.
        record: What the map says.
        bounds_l0: `Slide.bounds_l0`.
        path: Where to write; QuPath annotations, level-0 pixels of the scan.

    Raises:
        OutputError: If the file cannot be written.
    """
    features = []
    for sign, colour, said in ((1, _FOR, f"for {record.target}"), (-1, _AGAINST, f"against {record.target}")):
        signed = np.where(np.isfinite(raster), sign * raster, 0.0)
        for share in _SHARES:
            level = find_level(signed, share)
            if level is None:
                continue
            shapes = trace_areas(signed, level, bounds_l0[2:])
            if not shapes:
                continue
            features.append(
                make_feature(
                    {"type": "MultiPolygon", "coordinates": shapes},
                    class_name=f"CAM {said}",
                    colour=colour,
                    name=f"{share:.0%} {said}",
                    measurements={"Level (logits a cell)": sign * level, "Share": share},
                )
            )
    collection = {"type": "FeatureCollection", "lamella": describe_frame(bounds_l0), "features": features}
    write_text(path, json.dumps(collection, separators=(",", ":"), allow_nan=False) + "\n")


def find_level(values: NDArray[np.floating], share: float) -> float | None:
    """Return the level above which the smallest area holds `share` of all that is above 0; None where nothing is.

    Example:
        >>> find_level(np.array([[1.0, 4.0], [3.0, -2.0]]), 0.5)
        4.0
    """
    above = np.sort(values[values > 0])[::-1]
    if not above.size:
        return None
    sums = np.cumsum(above, dtype=np.float64)
    return float(above[np.searchsorted(sums, share * sums[-1] * (1 - 1e-9))])


def trace_areas(
    values: NDArray[np.floating], level: float, slide_size: tuple[int, int]
) -> list[list[list[list[float]]]]:
    """Trace where a raster is above a level, with holes, as a MultiPolygon's coordinates in level-0 pixels.

    Values stand at pixel centres and are interpolated between them.
    """
    height, width = values.shape
    padded = np.pad(values, 1, constant_values=min(0.0, float(values.min())))
    # Just below: the pixel that has the level itself belongs to the area.
    generator = contourpy.contour_generator(
        x=(np.arange(-1, width + 1) + 0.5) * slide_size[0] / width,
        y=(np.arange(-1, height + 1) + 0.5) * slide_size[1] / height,
        z=padded,
        fill_type=contourpy.FillType.OuterOffset,
    )
    traced: Any = generator.filled(level * (1 - 1e-6), np.inf)
    points, offsets = traced
    return [
        [
            np.round(ring, 1).tolist()
            for ring in np.split(own, ends[1:-1])
            if len(ring) >= 4  # closed
        ]
        for own, ends in zip(points, offsets, strict=True)
        if own is not None
    ]
