"""Views of one slide in the same frame, without margins: a page lays one over the other under a slider."""

from pathlib import Path

from PIL import Image

from lamella.explain.cam_record import CamRecord
from lamella.files import parse_json_file, replacing, write_json
from lamella.maps import fit_map, load_map, stitch_tiles
from lamella.reports.draw.cam import CAM_COLOURS, find_signed_range
from lamella.reports.draw.heatmap import SlideAttention
from lamella.reports.draw.overlay import OverlayStyle, blend_map, find_colour_range, fit_thumbnail
from lamella.slide import Slide

_DRAWN = "drawn.json"  # written last: a folder that has it is complete
_QUALITY = 82


def draw_panels(
    slide: Slide,
    tiles: SlideAttention,
    folder: Path,
    *,
    key: str,
    cam: tuple[CamRecord, Path] | None = None,
    style: OverlayStyle | None = None,
) -> None:
    """Draw `thumbnail.jpg`, `attention.jpg` and, where there is a map, `cam.jpg`: all of the scan, equal to the pixel.

    Args:
        slide: The open slide.
        tiles: Its tiles and their attention.
        folder: Where to write; what is drawn there from the same `key` is kept.
        key: What the views are drawn from.
        cam: A class activation map's record and its `cam.tiff`.
        style: Colours, opacity, size.

    Raises:
        SlideError: If the slide cannot be read.
        OutputError: If a file cannot be written.
    """
    style = style or OverlayStyle(panel_px=640)
    stamp = {"key": key, "frame": "scan", "px": style.panel_px, "cam": None if cam is None else cam[0].key}
    try:
        if parse_json_file(folder / _DRAWN) == stamp:
            return
    except (OSError, ValueError):
        pass
    tiles = tiles.on_scan(slide.bounds_l0)
    thumbnail = slide.read_scan(max(max(tiles.slide_um) / style.panel_px, max(slide.mpp)))
    panel = fit_thumbnail(thumbnail, tiles.slide_um, style.panel_px)
    values, colour_range = find_colour_range(tiles, style)
    raster = stitch_tiles(values, tiles.coords_l0, tiles.tile_size_l0, tiles.slide_size, panel.shape[:2])
    views = {"thumbnail": panel, "attention": blend_map(panel, raster, colour_range, style)}
    if cam is not None:
        record, path = cam
        signed = fit_map(load_map(path, long_px=2 * style.panel_px), panel.shape[:2])
        own = OverlayStyle(colours=CAM_COLOURS, panel_px=style.panel_px)
        views["cam"] = blend_map(panel, signed, find_signed_range(signed, record), own)
    for name, view in views.items():
        with replacing(folder / f"{name}.jpg") as temporary:
            Image.fromarray(view).save(temporary, format="JPEG", quality=_QUALITY)
    write_json(folder / _DRAWN, stamp)
