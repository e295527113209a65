"""Files find their slide under every name that programs give them, and what fits none is said."""

import json
import os
import unicodedata

import pytest

from lamella.errors import SettingsError, TissueError
from lamella.tissue.mask import whole_slide
from lamella.tissue.region_files import (
    AREA_SUFFIXES,
    RegionChoice,
    find_slide_file,
    hash_choices,
    restrict_to_choices,
)


def write(path, *classes, left=0):
    """Write a square of 100 pixels for each class, side by side."""
    features = [
        {
            "type": "Feature",
            "geometry": {"type": "Polygon", "coordinates": [[[x, 0], [x + 100, 0], [x + 100, 100], [x, 100], [x, 0]]]},
            "properties": {"classification": {"name": name}},
        }
        for x, name in zip(range(left, left + 1000, 100), classes or ("Tumor",), strict=False)
    ]
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return path


@pytest.mark.parametrize(
    ("slide_id", "name"),
    [
        ("S1", "S1.geojson"),
        ("S1", "S1.tif.geojson"),
        ("S1", "S1.svs.geojson"),
        ("S1", "S1.json"),
        ("S1", "s1.GeoJSON"),
        ("s1", "S1.NDPI.geojson"),
        ("S1", "S1.ome.tif.geojson"),
        ("S1.ome", "S1.ome.tiff.geojson"),
        ("S1.ome", "S1.geojson"),
        ("S1.svs", "S1.geojson"),
        ("S1", "S1.svs_mask.geojson"),
        ("S1", "S1_Mask.json"),
        ("S1_mask", "S1_mask.geojson"),
        ("S1.2", "S1.2.mrxs.geojson"),
        ("TCGA-A1-01Z-00-DX1.4B3C", "TCGA-A1-01Z-00-DX1.4B3C.svs.geojson"),
        (unicodedata.normalize("NFC", "Präparat"), unicodedata.normalize("NFD", "Präparat") + ".geojson"),
        (unicodedata.normalize("NFD", "Präparat"), unicodedata.normalize("NFC", "Präparat") + ".tif.geojson"),
    ],
)
def test_a_slide_finds_its_file(tmp_path, slide_id, name):
    wanted = write(tmp_path / name)
    for other in ("S10.geojson", "S.geojson", "XS1.geojson", "S1 copy.geojson", "S1.txt", "._S1.geojson", "S1.2b.json"):
        write(tmp_path / other)
    assert find_slide_file(tmp_path, slide_id, AREA_SUFFIXES) == wanted


def test_two_files_of_one_slide_are_refused(tmp_path):
    write(tmp_path / "S1.geojson")
    write(tmp_path / "S1.tif.geojson")
    with pytest.raises(TissueError, match=r"slide 'S1' has 2 files in .*: 'S1.geojson' and 'S1.tif.geojson'"):
        find_slide_file(tmp_path, "S1", AREA_SUFFIXES)
    with pytest.raises(SettingsError, match=r"--include: slide 'S1' has 2 files"):
        RegionChoice(kind="include", path=tmp_path).survey(["S1"])


def test_the_slide_itself_is_no_mask_of_it(tmp_path):
    (tmp_path / "S1.tif").write_bytes(b"slide")
    assert find_slide_file(tmp_path, "S1", (".tif",), besides=tmp_path / "S1.tif") is None
    assert find_slide_file(tmp_path, "S1", (".tif",), besides=tmp_path / "gone.tif") == tmp_path / "S1.tif"


def test_a_folder_that_fits_no_slide_is_refused_with_an_example_of_both(tmp_path):
    write(tmp_path / "roi" / "scan_0042.geojson")
    choice = RegionChoice(kind="exclude", path=tmp_path / "roi")
    with pytest.raises(SettingsError, match=r"--exclude: no file in 'roi' .*\(0 of 2\): 'P1.geojson' .*'scan_0042.geo"):
        choice.survey(["P1", "P2"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(SettingsError, match="it is empty"):
        RegionChoice(kind="include", path=tmp_path / "empty").survey(["P1"])


def test_slides_without_a_file_are_counted(tmp_path):
    write(tmp_path / "roi" / "P1.geojson")
    said = RegionChoice(kind="include", path=tmp_path / "roi").survey(["P1", "P2", "P3"])
    assert said == "2 of 3 slides have no regions file in 'roi': used whole"
    assert RegionChoice(kind="include", path=tmp_path / "roi").survey(["P1"]) is None
    assert RegionChoice(kind="include").survey(["P1"]) is None


def test_classes_that_differ_between_the_files_of_a_folder_have_to_be_chosen(tmp_path):
    for slide_id in ("P1", "P2"):
        write(tmp_path / "roi" / f"{slide_id}.geojson", "Tumor", "Ignore*")
    whole = RegionChoice(kind="include", path=tmp_path / "roi")
    assert whole.survey(["P1", "P2"]) is None
    write(tmp_path / "roi" / "P3.geojson", "Stroma")
    ids = ["P1", "P2", "P3"]
    with pytest.raises(
        SettingsError, match=r"hold 2 classes \(2 with Tumor, 1 with Stroma\)\. .*--include-class Tumor"
    ):
        whole.survey(ids)
    assert RegionChoice(kind="include", path=tmp_path / "roi", classes=("Tumor",)).survey(ids) is None
    with pytest.raises(SettingsError, match=r"no area is of class Tumour; the classes are .*Stroma, Tumor"):
        RegionChoice(kind="include", path=tmp_path / "roi", classes=("Tumour",)).survey(ids)
    with pytest.raises(SettingsError, match="Pass --include FOLDER too"):
        RegionChoice(kind="include", classes=("Tumor",)).survey(ids)


def test_only_the_chosen_classes_are_kept_or_left_out(tmp_path):
    write(tmp_path / "roi" / "P1.geojson", "Tumor", "Pen", "Fold")
    write(tmp_path / "roi" / "P2.geojson", "Tumor")
    whole = whole_slide((1, 4), slide_size=(400, 100), slide_mpp=(0.5, 0.5), method="glass")
    roi = tmp_path / "roi"
    include = RegionChoice(kind="include", path=roi, classes=("Tumor", "Pen"))
    exclude = RegionChoice(kind="exclude", path=roi, classes=("pen",))
    assert restrict_to_choices(whole, [include, exclude], "P1", (0, 0, 400, 100)).mask.tolist() == [
        [True, False, False, False]
    ]
    # A slide without pen is left as it is, and one without what is to be kept cannot be used.
    assert restrict_to_choices(whole, [exclude], "P2", (0, 0, 400, 100)).mask.all()
    fold = RegionChoice(kind="include", path=roi, classes=("Fold",))
    with pytest.raises(TissueError, match=r"P2.geojson' hold no area of class Fold; their classes are Tumor"):
        restrict_to_choices(whole, [fold], "P2", (0, 0, 400, 100))


def test_another_choice_of_classes_makes_other_tiles(tmp_path):
    write(tmp_path / "roi" / "P1.geojson", "Tumor", "Pen")
    roi = tmp_path / "roi"

    def digest(kind, *classes, slide_id="P1"):
        return hash_choices([RegionChoice(kind=kind, path=roi, classes=classes)], slide_id)

    digests = [
        digest("include"),
        digest("include", "Tumor"),
        digest("include", "Tumor", "Pen"),
        digest("exclude", "Pen"),
    ]
    assert len({*digests, ""}) == 5
    assert digest("include", "Pen", "tumor") == digests[2]
    assert digest("include", "Tumor", slide_id="P2") == ""
    write(tmp_path / "roi" / "P1.geojson", "Tumor", "Pen", left=5)
    assert digest("include", "Tumor") != digests[1]


def test_a_folder_that_changes_is_looked_at_again(tmp_path):
    write(tmp_path / "roi" / "P1.geojson")
    roi = tmp_path / "roi"
    long_ago = roi.stat().st_mtime - 100
    os.utime(roi, (long_ago, long_ago))
    assert find_slide_file(roi, "P1", AREA_SUFFIXES) == roi / "P1.geojson"
    assert find_slide_file(roi, "P2", AREA_SUFFIXES) is None
    write(roi / "P2.geojson")
    assert find_slide_file(roi, "P2", AREA_SUFFIXES) == roi / "P2.geojson"
    (roi / "P1.geojson").unlink()
    assert find_slide_file(roi, "P1", AREA_SUFFIXES) is None
