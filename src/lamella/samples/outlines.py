"""Outlines: lesions as the GeoJSON that QuPath reads and writes; `lamella.tissue.regions` reads them back."""

from pathlib import Path

from shapely import Polygon
from shapely.geometry import mapping

from lamella.files import write_json
from lamella.tissue.geojson import make_feature

_CLASS, _COLOUR = "Tumor", (200, 0, 0)


def save_outlines(lesions: tuple[Polygon, ...], path: Path) -> None:
    """Write polygons as QuPath annotations, in level-0 pixels."""
    features = [
        make_feature(mapping(lesion), class_name=_CLASS, colour=_COLOUR, name=f"{_CLASS} {number}")
        for number, lesion in enumerate(lesions, start=1)
    ]
    write_json(path, {"type": "FeatureCollection", "features": features})
