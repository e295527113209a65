"""ASAP's and ImageScope's XML mean what these programs show."""

import math

import pytest

from lamella.errors import TissueError
from lamella.tissue import load_regions

SQUARE = [(10, 20), (40, 20), (40, 30), (10, 30)]
INNER = [(20, 22), (25, 22), (25, 26), (20, 26)]
FAR = [(50, 20), (90, 20), (90, 40), (50, 40)]


def write_asap(tmp_path, *annotations, head="", encoding="utf-8"):
    """Write `(kind, group, points)` each as ASAP does."""
    parts = []
    for kind, group, points in annotations:
        corners = "".join(f'<Coordinate Order="{i}" X="{x}" Y="{y}" />' for i, (x, y) in enumerate(points))
        parts.append(
            f'<Annotation Name="A" Type="{kind}" PartOfGroup="{group}" Color="#F4FA58">'
            f"<Coordinates>{corners}</Coordinates></Annotation>"
        )
    groups = '<AnnotationGroups><Group Name="Tumor" PartOfGroup="None" Color="#64FE2E"><Attributes/></Group>'
    path = tmp_path / "asap.xml"
    body = f"{head}<ASAP_Annotations><Annotations>{''.join(parts)}</Annotations>{groups}</AnnotationGroups>"
    path.write_bytes(f"{body}</ASAP_Annotations>".encode(encoding))
    return path


def write_imagescope(tmp_path, *layers):
    """Write `(name, [(type, negative, points), ...])` each as ImageScope does."""
    parts = []
    for number, (name, regions) in enumerate(layers, start=1):
        drawn = "".join(
            f'<Region Id="{i}" Type="{kind}" NegativeROA="{negative}"><Attributes/><Vertices>'
            + "".join(f'<Vertex X="{x}" Y="{y}" Z="0"/>' for x, y in points)
            + "</Vertices></Region>"
            for i, (kind, negative, points) in enumerate(regions)
        )
        parts.append(f'<Annotation Id="{number}" Name="{name}" LineColor="255"><Regions>{drawn}</Regions></Annotation>')
    path = tmp_path / "imagescope.xml"
    path.write_text(f'<Annotations MicronsPerPixel="0.25">{"".join(parts)}</Annotations>')
    return path


def test_asaps_groups_are_classes_and_its_exclusions_are_holes(tmp_path):
    for hole in ("_2", "Exclusion", "normal"):
        path = write_asap(tmp_path, ("Polygon", "Tumor", SQUARE), ("Polygon", hole, INNER))
        assert load_regions(path).area == 300 - 20
        assert load_regions(path, [hole]).area == 20
    several = write_asap(tmp_path, ("Polygon", "Tumor", SQUARE), ("Spline", "Stroma", FAR))
    with pytest.raises(TissueError, match=r"hold 2 classes \(1 Tumor, 1 Stroma\)"):
        load_regions(several)
    assert load_regions(several, ["Stroma"]).area == 800


def test_camelyon16s_two_groups_of_lesions_are_one_class(tmp_path):
    path = write_asap(tmp_path, ("Polygon", "_0", SQUARE), ("Polygon", "_1", FAR), ("Polygon", "_2", INNER))
    assert load_regions(path).area == 300 + 800 - 20


@pytest.mark.parametrize("kind", ["PointSet", "Dot", "Measurement"])
def test_what_has_no_area_in_asap_is_none_however_many_points_it_has(tmp_path, kind):
    path = write_asap(tmp_path, ("Rectangle", "None", SQUARE), (kind, "None", FAR))
    assert load_regions(path).area == 300
    with pytest.raises(TissueError, match=rf"hold no area \(it holds 1 {kind}\)"):
        load_regions(write_asap(tmp_path, (kind, "None", FAR)))


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_xml_may_begin_with_a_byte_order_mark(tmp_path, encoding):
    name = {"utf-8-sig": "UTF-8", "utf-16": "UTF-16"}[encoding]
    head = f'<?xml version="1.0" encoding="{name}"?>'
    path = write_asap(tmp_path, ("Polygon", "Tumeur é", SQUARE), head=head, encoding=encoding)
    assert load_regions(path, ["tumeur é"]).area == 300


def test_decimal_commas_are_read(tmp_path):
    path = write_asap(tmp_path, ("Polygon", "Tumor", [(f"{x},5", f"{y},25") for x, y in SQUARE]))
    assert load_regions(path).bounds == (10.5, 20.25, 40.5, 30.25)


def test_imagescopes_regions_are_drawn_as_it_shows_them(tmp_path):
    outline = [("0", "0", SQUARE), ("0", "1", INNER)]
    path = write_imagescope(tmp_path, ("Tumor", outline), ("", [("1", "0", [(50, 20), (90, 40)])]))
    assert load_regions(path, ["Tumor"]).area == 300 - 20
    assert load_regions(path, ["Layer 2"]).bounds == (50, 20, 90, 40)
    with pytest.raises(TissueError, match=r"1 Tumor, 1 Layer 2"):
        load_regions(path)
    for corners in ([(50, 20), (90, 40)], FAR):
        ellipse = load_regions(write_imagescope(tmp_path, ("Tumor", [("2", "0", corners)])))
        assert ellipse.area == pytest.approx(math.pi * 20 * 10, rel=1e-3)
        assert ellipse.bounds == (50, 20, 90, 40)
    rectangle = write_imagescope(tmp_path, ("Tumor", [("1", "0", FAR), ("3", "0", SQUARE), ("4", "0", SQUARE)]))
    assert load_regions(rectangle).area == 800  # an arrow and a ruler enclose nothing


@pytest.mark.parametrize(
    "definition",
    [
        '<!DOCTYPE x [<!ENTITY a "b"><!ENTITY c "&a;&a;&a;">]>',
        '<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/hostname">]>',
        '<!DOCTYPE x SYSTEM "elsewhere.dtd">',
    ],
)
def test_xml_that_brings_definitions_is_refused(tmp_path, definition):
    with pytest.raises(TissueError, match="have a DOCTYPE"):
        load_regions(write_asap(tmp_path, ("Polygon", "Tumor", SQUARE), head=definition))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("<Annotations", "are not the XML of ASAP or ImageScope"),
        ("", "are not the XML of ASAP or ImageScope"),
        ("<html/>", "XML of neither ASAP nor ImageScope"),
        ("<Annotations/>", "hold no area"),
        ('<?xml version="1.0" encoding="no-such"?><Annotations/>', "unknown encoding"),
        (
            '<Annotations><Annotation><Region><Vertex X="nan" Y="1"/><Vertex X="3" Y="1"/>'
            '<Vertex X="2" Y="7"/></Region></Annotation></Annotations>',
            "ImageScope",
        ),
        ('<ASAP_Annotations><Annotation><Coordinate X="1" Order="0"/></Annotation></ASAP_Annotations>', "'Y'"),
    ],
)
def test_other_xml_is_refused_in_one_line(tmp_path, content, says):
    path = tmp_path / "other.xml"
    path.write_text(content)
    with pytest.raises(TissueError, match=says) as caught:
        load_regions(path)
    assert "\n" not in str(caught.value)
