"""Outlines: lesions as the GeoJSON that QuPath reads and writes."""

import uuid
from pathlib import Path

from shapely import MultiPolygon, Polygon
from shapely.errors import ShapelyError
from shapely.geometry import mapping, shape

from lamella.errors import TissueError
from lamella.files import parse_json_file, write_json
from lamella.machine import refuse_passing

_NAMESPACE = uuid.UUID("6b0f7a52-7a6e-4f3c-9f0c-0d7c7b1f2a11")


def save_outlines(lesions: tuple[Polygon, ...], path: Path, *, name: str = "Tumor") -> None:
    """Write polygons as QuPath annotations of class `name`, in level-0 pixels."""
    features = [
        {
            "type": "Feature",
            "id": str(uuid.uuid5(_NAMESPACE, f"{path.stem} {number}")),
            "geometry": mapping(lesion),
            "properties": {
                "objectType": "annotation",
                "name": f"{name} {number + 1}",
                "classification": {"name": name, "color": [200, 0, 0]},
                "isLocked": True,
            },
        }
        for number, lesion in enumerate(lesions)
    ]
    write_json(path, {"type": "FeatureCollection", "features": features})


def load_outlines(path: Path) -> tuple[Polygon, ...]:
    """Return the polygons of a GeoJSON file, in level-0 pixels; several in one feature become several.

    Args:
        path: A file of `save_outlines`, or annotations exported from QuPath (a FeatureCollection, or a bare list).

    Raises:
        TissueError: If the file is absent or holds no outlines as GeoJSON.
    """
    path = Path(path)
    try:
        content = parse_json_file(path)
        features = content["features"] if isinstance(content, dict) else content
        shapes = [shape(feature["geometry"]) for feature in features]
    except OSError as error:
        refuse_passing(error, path.name)
        raise TissueError(f"outlines '{path}' cannot be read ({error.strerror}). Check the path.") from error
    except (ValueError, KeyError, TypeError, AttributeError, ShapelyError) as error:
        raise TissueError(
            f"outlines '{path}' are not GeoJSON features with a geometry. Export annotations from QuPath as GeoJSON."
        ) from error
    polygons: list[Polygon] = []
    for geometry in shapes:
        if isinstance(geometry, MultiPolygon):
            polygons.extend(geometry.geoms)
        elif isinstance(geometry, Polygon):
            polygons.append(geometry)
        else:
            raise TissueError(
                f"outlines '{path}' hold a {geometry.geom_type} and need polygons. Draw lesions as closed outlines."
            )
    return tuple(polygons)
