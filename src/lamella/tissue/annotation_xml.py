"""Areas of the XML that ASAP (CAMELYON) and Aperio ImageScope write, in level-0 pixels."""

from collections.abc import Sequence
from pathlib import Path
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

import numpy as np
import shapely
from shapely.geometry.base import BaseGeometry

from lamella.errors import TissueError
from lamella.machine import refuse_passing
from lamella.regular import read_regular
from lamella.tissue.areas import Area, Drawing, mend_area, tidy_class

# CAMELYON16 calls the groups of its lesions _0 and _1, and those of the holes in them _2.
_ASAP_NAMES = {"_0": "Tumor", "_1": "Tumor", "none": "", "": ""}
_ASAP_HOLES = {"_2", "exclusion", "normal"}
_ASAP_AREAS = {"polygon", "rectangle", "spline", ""}
_IMAGESCOPE_KINDS = {"0": "Polygon", "1": "Rectangle", "2": "Ellipse"}
_ELLIPSE_CORNERS = 128
_MAX_BYTES = 1 << 28


def read_annotation_xml(path: Path) -> Drawing:
    """Read the areas of an XML file of ASAP or ImageScope; its groups, or layers, are the classes.

    Raises:
        TissueError: If it cannot be read, or is of another program.
    """
    source = f"regions '{path}'"
    remedy = "Export areas alone."
    try:
        content = read_regular(path, f"{source} are", error=TissueError, max_bytes=_MAX_BYTES, remedy=remedy)
        root = _parse(content, source)
        drawing = Drawing(source)
        if root.find(".//Coordinates") is not None or root.tag == "ASAP_Annotations":
            _read_asap(root, drawing)
        elif root.tag == "Annotations":
            _read_imagescope(root, drawing)
        else:
            raise TissueError(f"{source} are XML of neither ASAP nor ImageScope. Export them as GeoJSON from QuPath.")
    except OSError as error:
        refuse_passing(error, path.name)
        raise TissueError(f"{source} cannot be read ({error.strerror}). Check the path.") from error
    except (expat.ExpatError, LookupError, ValueError, ArithmeticError, shapely.errors.ShapelyError) as error:
        if isinstance(error, TissueError):
            raise
        raise TissueError(f"{source} are not the XML of ASAP or ImageScope ({error}). Export them again.") from error
    return drawing


def _parse(content: bytes, source: str) -> Element:
    """Parse XML that brings no definitions: entities could read other files, or grow without end."""
    builder, parser = TreeBuilder(), expat.ParserCreate()
    parser.StartElementHandler = builder.start
    parser.EndElementHandler = builder.end

    def refuse(*_: object) -> None:
        raise TissueError(f"{source} have a DOCTYPE, which neither ASAP nor ImageScope writes. Export them again.")

    parser.StartDoctypeDeclHandler = refuse
    parser.Parse(content, True)  # noqa: FBT003  (expat takes no names)
    return builder.close()


def _read_asap(root: Element, drawing: Drawing) -> None:
    for annotation in root.iter("Annotation"):
        points = [(_number(p, "Order", default=i), _point(p)) for i, p in enumerate(annotation.iter("Coordinate"))]
        corners = [point for _, point in sorted(points, key=lambda pair: pair[0])]
        kind = annotation.get("Type", "").strip()
        group = annotation.get("PartOfGroup", "").strip()
        if kind.lower() not in _ASAP_AREAS or len(corners) < 3:
            drawing.left_out[kind or "outline of fewer than 3 points"] += 1
            continue
        name = tidy_class(_ASAP_NAMES.get(group.lower(), group))
        shape = mend_area(shapely.Polygon(corners), drawing.source)
        drawing.areas.append(Area(shape, name, is_hole=group.lower() in _ASAP_HOLES))


def _read_imagescope(root: Element, drawing: Drawing) -> None:
    for number, layer in enumerate(root.iter("Annotation"), start=1):
        areas: list[BaseGeometry] = []
        holes: list[BaseGeometry] = []
        for region in layer.iter("Region"):
            corners = [_point(vertex) for vertex in region.iter("Vertex")]
            kind = _IMAGESCOPE_KINDS.get(region.get("Type", "0").strip())
            shape = None if kind is None else _draw_region(kind, corners)
            if shape is None:
                drawing.left_out["region without area"] += 1
                continue
            is_hole = region.get("NegativeROA", "0").strip().lower() in ("1", "true")
            (holes if is_hole else areas).append(mend_area(shape, drawing.source))
        if areas:
            shape = shapely.union_all(areas).difference(shapely.union_all(holes))
            drawing.areas.append(Area(shape, _name_layer(layer, number)))


def _name_layer(layer: Element, number: int) -> str:
    """Return the name of a layer: its own, else its description, else ImageScope's `Layer 1`."""
    described = next((a.get("Value", "") for a in layer.iter("Attribute") if a.get("Name") == "Description"), "")
    return tidy_class(layer.get("Name", "").strip() or described.strip() or f"Layer {layer.get('Id', number)}")


def _draw_region(kind: str, corners: Sequence[tuple[float, float]]) -> BaseGeometry | None:
    """Return a region of ImageScope as a polygon; rectangles and ellipses may be given by two corners."""
    if len(corners) < 2 or (kind == "Polygon" and len(corners) < 3):
        return None
    if kind == "Polygon" or (kind == "Rectangle" and len(corners) > 2):
        return shapely.Polygon(corners)
    (x0, y0), (x1, y1) = np.min(corners, axis=0), np.max(corners, axis=0)
    if kind == "Rectangle":
        box: BaseGeometry = shapely.box(x0, y0, x1, y1)
        return box
    angle = np.linspace(0, 2 * np.pi, _ELLIPSE_CORNERS, endpoint=False)
    x, y = (x0 + x1) / 2 + (x1 - x0) / 2 * np.cos(angle), (y0 + y1) / 2 + (y1 - y0) / 2 * np.sin(angle)
    ellipse: BaseGeometry = shapely.Polygon(np.stack([x, y], axis=1))
    return ellipse


def _point(element: Element) -> tuple[float, float]:
    return _number(element, "X"), _number(element, "Y")


def _number(element: Element, name: str, *, default: float | None = None) -> float:
    """Return a number of an element; some systems' ASAP writes a decimal comma."""
    text = element.get(name)
    if text is None and default is not None:
        return default
    return float(element.attrib[name].replace(",", "."))
