"""GeoJSON for QuPath: each tile as a rectangle with its attention and rank as measurements.

Open the slide in QuPath (0.4 or later) and drag the file onto it, then colour the tiles by Measure > Show measurement
maps. The file names no slide and no path.
"""

import json
from pathlib import Path

from lamella.files import replacing
from lamella.reports.draw.heatmap import SlideAttention
from lamella.slide import Bounds, describe_frame
from lamella.tissue.geojson import make_feature

ATTENTION = "Attention"
RELATIVE = "Attention (times the average tile)"
RANK = "Attention rank"
CLASS, COLOUR = "Attention tile", (68, 1, 84)


def save_attention_geojson(tiles: SlideAttention, path: Path, *, bounds_l0: Bounds | None = None) -> None:
    """Write every tile as a QuPath detection, in level-0 pixels of the scan, in the order of the bag.

    Args:
        tiles: The slide's tiles and their attention, on the scan (`SlideAttention.on_scan`).
        path: Where to write; conventionally ends in `.geojson`.
        bounds_l0: `Slide.bounds_l0`, which the file states; None is the whole slide.

    Raises:
        OutputError: If the file cannot be written.
    """
    width, height = tiles.tile_size_l0
    rows = zip(
        tiles.coords_l0.tolist(), tiles.attention.tolist(), tiles.relative.tolist(), tiles.rank.tolist(), strict=True
    )
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8") as stream:
        frame = json.dumps(describe_frame(bounds_l0 or (0, 0, *tiles.slide_size)))
        stream.write(f'{{"type": "FeatureCollection", "lamella": {frame}, "features": [')
        for number, ((x, y), attention, relative, rank) in enumerate(rows):
            right, bottom = round(x + width, 3), round(y + height, 3)
            ring = [[x, y], [right, y], [right, bottom], [x, bottom], [x, y]]
            feature = make_feature(
                {"type": "Polygon", "coordinates": [ring]},
                class_name=CLASS,
                colour=COLOUR,
                name=f"Rank {rank}",
                object_type="detection",
                measurements={ATTENTION: attention, RELATIVE: relative, RANK: rank},
            )
            stream.write(f"{',' if number else ''}\n{json.dumps(feature, allow_nan=False)}")
        stream.write("\n]}\n")
