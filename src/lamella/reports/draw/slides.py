"""All pictures of one slide: overlay, TIFF, GeoJSON and the sheet of its most attended tiles."""

from dataclasses import dataclass
from pathlib import Path

from lamella.files import parse_json_file, remove, write_json
from lamella.reports.draw.geojson import save_attention_geojson
from lamella.reports.draw.heatmap import SlideAttention
from lamella.reports.draw.overlay import OverlayStyle, draw_overlay
from lamella.reports.draw.pictures import save_picture
from lamella.reports.draw.tiff import save_attention_tiff
from lamella.reports.draw.top_tiles import TopTile, draw_top_tiles, find_top_tiles
from lamella.slide import Slide

_DRAWN = "drawn.json"  # written last: a folder that has it is complete


@dataclass(frozen=True, slots=True, kw_only=True)
class SlideCaption:
    """What is written on a slide's pictures.

    Attributes:
        title: Which slide.
        subtitle: What was predicted.
        key: What the pictures were drawn from; finished ones of the same key are kept.
    """

    title: str
    subtitle: str
    key: str


def is_drawn(folder: Path, caption: SlideCaption) -> bool:
    """Say whether the pictures of a slide are complete and of this key."""
    try:
        return bool(parse_json_file(folder / _DRAWN) == _stamp(caption))
    except (OSError, ValueError):
        return False


def draw_slide(
    slide: Slide,
    tiles: SlideAttention,
    folder: Path,
    caption: SlideCaption,
    *,
    tile_px: int,
    mpp: float,
    style: OverlayStyle | None = None,
) -> None:
    """Draw everything of one slide into a folder.

    Writes `attention.png`, `attention.tiff`, `attention.geojson` and `top_tiles.png`, all of the scan alone where the
    canvas is larger: so QuPath shows the slide, and so they lie on it there.

    Args:
        slide: The open slide.
        tiles: Its tiles and their attention.
        folder: Where to write.
        caption: Title, subtitle and key.
        tile_px: Side of a tile as the encoder saw it, pixels.
        mpp: Resolution the encoder saw, um per pixel.
        style: Colours, opacity, measure, size.

    Raises:
        SlideError: If the slide cannot be read.
        OutputError: If a file cannot be written.
    """
    style = style or OverlayStyle()
    remove(folder / _DRAWN)
    scan = tiles.on_scan(slide.bounds_l0)
    thumbnail = slide.read_scan(max(max(scan.slide_um) / style.panel_px, max(slide.mpp)))
    overlay = draw_overlay(scan, thumbnail, title=caption.title, subtitle=caption.subtitle, style=style)
    save_picture(overlay, folder / "attention.png")
    save_attention_tiff(scan, folder / "attention.tiff")
    save_attention_geojson(scan, folder / "attention.geojson", bounds_l0=slide.bounds_l0)
    relative, rank = tiles.relative, tiles.rank
    top = []
    for index in find_top_tiles(tiles):
        x, y = (int(value) for value in tiles.coords_l0[index])
        # The bag vouches for the enlargement: it was checked, and recorded, when the slide was encoded.
        image = slide.read_box((x, y), (tile_px, tile_px), mpp, max_upsample=4.0)
        x, y = (int(value) for value in scan.coords_l0[index])
        top.append(TopTile(image=image, rank=int(rank[index]), relative=float(relative[index]), corner_l0=(x, y)))
    sheet = draw_top_tiles(top, tile_um=(tile_px * mpp, tile_px * mpp), title=caption.title, subtitle=caption.subtitle)
    save_picture(sheet, folder / "top_tiles.png")
    write_json(folder / _DRAWN, _stamp(caption))


def _stamp(caption: SlideCaption) -> dict[str, str]:
    return {"title": caption.title, "subtitle": caption.subtitle, "key": caption.key, "frame": "scan"}
