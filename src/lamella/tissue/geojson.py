"""GeoJSON as QuPath writes and reads it, in level-0 pixels: areas in, features out."""

import json
import uuid
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import shapely
import shapely.geometry
from pydantic import JsonValue
from shapely.geometry.base import BaseGeometry

from lamella.errors import TissueError
from lamella.files import MAX_JSON_BYTES
from lamella.machine import refuse_passing
from lamella.regular import read_regular
from lamella.tissue.areas import UNCLASSIFIED, Area, Drawing, mend_area, tidy_class

POLYGONS = ("Polygon", "MultiPolygon")
_NAMESPACE = uuid.UUID("0e0bd5d4-32ad-4be4-a1e8-6f1c1d0b8c57")
_WRAPPED = {"FeatureCollection": "features", "GeometryCollection": "geometries", "Feature": "geometry"}
# What QuPath makes by itself, measured or detected; a person draws annotations. Before 0.4 the `id` says what it is.
_NOT_DRAWN = {"detection", "cell", "tile", "tmacore", "root"}


def read_geojson(path: Path) -> Drawing:
    """Read the areas of a GeoJSON file with their classes.

    Takes what QuPath exports (a FeatureCollection, a list of features or a single one) and bare geometries, in UTF-8 or
    UTF-16. Detections, cells and tiles are no annotations and are left out, as points and lines are.

    Raises:
        TissueError: If it cannot be read or is not GeoJSON.
    """
    source = f"regions '{path}'"
    drawing = Drawing(source)
    todo = deque([(_load(path, source), UNCLASSIFIED, "")])
    while todo:
        part, name, kind = todo.popleft()
        if isinstance(part, list):
            todo.extendleft((part_, name, kind) for part_ in reversed(part))
            continue
        type_ = part.get("type") if isinstance(part, dict) else None
        if not isinstance(type_, str):
            raise TissueError(f"{source} are JSON but not GeoJSON. Export them from QuPath as GeoJSON.")
        if type_ == "Feature":
            properties = part.get("properties")
            properties = properties if isinstance(properties, dict) else {}
            name, kind = _find_class(properties), _find_kind(properties, part.get("id"))
        if type_ in _WRAPPED:
            if part.get(_WRAPPED[type_]) is not None:
                todo.appendleft((part[_WRAPPED[type_]], name, kind))
        elif type_ in POLYGONS and kind not in _NOT_DRAWN:
            drawing.areas.append(Area(_read_area(part, source), name))
        else:
            drawing.left_out[kind if kind in _NOT_DRAWN else type_] += 1
    return drawing


def _load(path: Path, source: str) -> Any:
    """Parse JSON in any of its encodings, with or without a byte order mark."""
    remedy = "Export annotations alone, without cells and detections."
    try:
        return json.loads(
            read_regular(path, f"{source} are", error=TissueError, max_bytes=MAX_JSON_BYTES, remedy=remedy)
        )
    except TissueError:
        raise
    except OSError as error:
        refuse_passing(error, path.name)
        raise TissueError(f"{source} cannot be read ({error.strerror}). Check the path.") from error
    except RecursionError as error:
        raise TissueError(f"{source} are nested too deeply to be GeoJSON. Export them from QuPath again.") from error
    except ValueError as error:
        raise TissueError(f"{source} are not JSON ({error}). Export them from QuPath as GeoJSON.") from error


def _find_class(properties: Mapping[str, JsonValue]) -> str:
    """Return the class of a feature, in each of the ways that QuPath has written it."""
    given = properties.get("classification")
    if isinstance(given, dict):
        names = given.get("names")
        given = names if isinstance(names, list) and names else given.get("name")
    if isinstance(given, list):
        given = ": ".join(str(part) for part in given if part is not None)
    return tidy_class(given) if isinstance(given, str) else UNCLASSIFIED


def _find_kind(properties: Mapping[str, JsonValue], id_: JsonValue) -> str:
    """Return `annotation`, `detection`, `cell` and the like, wherever the version of QuPath writes it."""
    given = properties.get("objectType", properties.get("object_type", id_))
    text = given.casefold() if isinstance(given, str) else ""
    if text.startswith("path") and text.endswith("object"):
        text = text.removeprefix("path").removesuffix("object")
    return text.replace("_", "").replace(" ", "")


def _read_area(geometry: dict[str, JsonValue], source: str) -> BaseGeometry:
    try:
        with np.errstate(invalid="ignore"):  # nan and inf are told by mend_area
            shape = shapely.geometry.shape(geometry)
    except RecursionError as error:
        raise TissueError(f"{source} are nested too deeply to be GeoJSON. Export them from QuPath again.") from error
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, shapely.errors.ShapelyError) as error:
        raise TissueError(
            f"{source} hold a {geometry['type']} whose coordinates make no area ({error}). "
            "Export them from QuPath as GeoJSON."
        ) from error
    return mend_area(shape, source)


class Feature(TypedDict):
    """A feature of GeoJSON as QuPath writes it."""

    type: str
    id: str
    geometry: Mapping[str, str | Sequence[Any]]
    properties: Mapping[str, str | bool | Mapping[str, float | Sequence[object]]]


def make_feature(
    geometry: Mapping[str, str | Sequence[Any]],
    *,
    class_name: str,
    colour: Sequence[int],
    name: str,
    object_type: str = "annotation",
    measurements: Mapping[str, float] | None = None,
    is_locked: bool = True,
) -> Feature:
    """Return a feature as QuPath 0.4 and later reads it, with an id that the same content always gets.

    Args:
        geometry: A GeoJSON geometry, level-0 pixels.
        class_name: Its class in QuPath.
        colour: Of the class, red, green and blue from 0 to 255.
        name: What the list of annotations shows.
        object_type: `annotation`, or `detection` for what is measured in large numbers.
        measurements: Numbers by name.
        is_locked: Whether QuPath guards it against being moved.
    """
    content = json.dumps([object_type, class_name, name, geometry], allow_nan=False)
    return {
        "type": "Feature",
        "id": str(uuid.uuid5(_NAMESPACE, content)),
        "geometry": geometry,
        "properties": {
            "objectType": object_type,
            "name": name,
            "classification": {"name": class_name, "color": [int(value) for value in colour]},
            "isLocked": is_locked,
            **({} if measurements is None else {"measurements": dict(measurements)}),
        },
    }
