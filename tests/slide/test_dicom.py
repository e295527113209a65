"""A DICOM slide is a series of files: by any file or by the folder it is the same one slide, and it counts once."""

import numpy as np
import pytest

from lamella.cohort import gather_slides, load_cohort
from lamella.dicom import find_level_scales, list_series, read_dicom_header
from lamella.errors import CohortError, SlideError
from lamella.features.plan import CutSettings, plan_slide
from lamella.features.tissue import save_tiles
from lamella.slide import hash_fully, hash_quickly, list_slides, open_slide
from lamella.tiles import TileSpec
from tests.slide.dicom_files import write_series
from tests.slide.drawn import draw, pad, shrink

CUT = CutSettings(spec=TileSpec(tile_px=112, mpp=0.5))


@pytest.fixture(scope="module")
def drawn():
    return draw()


@pytest.fixture(scope="module")
def whole(drawn):
    return [drawn[0], shrink(drawn[0], 2), shrink(drawn[0], 4)]


@pytest.fixture(scope="module")
def folder(whole, tmp_path_factory):
    """`1.2.840.77/`, a folder of one slide of three levels."""
    folder = tmp_path_factory.mktemp("dicom") / "1.2.840.77"
    write_series(folder, whole, (0.0005, 0.001, 0.002))
    return folder


def corners_of(path, **settings):
    cohort = gather_slides(list_slides([path]), **settings)
    assert len(cohort.slides) == 1
    plan = plan_slide(cohort.slides[0], CUT)
    plan.slide.close()
    return plan.corners_l0


@pytest.mark.parametrize(
    "kind", ["full", "padded", "padded to 512", "padded8", "sparse", "no spacing", "padded, no spacing", "odd spacing"]
)
def test_levels_of_dicom_give_the_tiles_that_lie_on_tissue(drawn, whole, tmp_path, kind):
    levels, spacings = list(whole), [0.0005, 0.001, 0.002]
    if kind == "padded8":
        levels, spacings = [*levels, shrink(drawn[0], 8)], [*spacings, 0.004]
    if kind.startswith("padded"):
        side = 512 if "512" in kind else 256
        levels = [pad(level, side) if k or side == 256 else level for k, level in enumerate(levels)]
    if "no spacing" in kind:
        spacings = [None] * 3
    if kind == "odd spacing":  # says 3 where a pixel spans 4: the pixels decide
        spacings[2] = 0.0015
    write_series(tmp_path / "s", levels, spacings, sparse=kind == "sparse")
    corners = corners_of(tmp_path / "s", slide_mpp=0.5 if "no spacing" in kind else None)
    assert len(corners) == 49
    assert min(drawn[1][y : y + 112, x : x + 112].mean() for x, y in corners) > 0.4
    with open_slide(tmp_path / "s" / "i1.dcm") as slide:
        assert slide.level_downsamples == pytest.approx([2**k for k in range(len(levels))])


def test_spacing_is_read_from_the_headers(folder, whole, tmp_path):
    header = read_dicom_header(folder / "i1.dcm")
    assert (header.is_volume, header.size, header.spacing_mm) == (True, (1000, 750), (0.001, 0.001))
    assert find_level_scales(folder / "i2.dcm", ((2000, 1500), (1000, 750), (500, 375))) == (1, 2, 4)
    assert find_level_scales(folder / "i2.dcm", ((2000, 1500), (999, 750))) == (1, None)
    write_series(tmp_path / "none", whole[1:], (None, None))
    assert read_dicom_header(tmp_path / "none" / "i0.dcm").spacing_mm is None
    (tmp_path / "none" / "cut.dcm").write_bytes((folder / "i0.dcm").read_bytes()[:700])
    read_dicom_header(tmp_path / "none" / "cut.dcm")  # a file cut short raises nothing
    (tmp_path / "none" / "text.dcm").write_text("no DICOM")
    assert read_dicom_header(tmp_path / "none" / "text.dcm") is None


def test_folder_and_files_are_one_slide_of_one_hash(folder, drawn):
    by_folder, by_file = open_slide(folder), open_slide(folder / "i2.dcm")
    with by_folder, by_file:
        assert by_folder.size == by_file.size == (2000, 1500)
        assert by_folder.mpp == (0.5, 0.5)
        box = by_folder.read_region((600, 300), 0, (300, 200))
        np.testing.assert_array_equal(box, by_file.read_region((600, 300), 0, (300, 200)))
    assert np.abs(box.astype(int) - drawn[0][300:500, 600:900]).mean() < 6  # JPEG
    assert hash_quickly(folder) == hash_quickly(folder / "i0.dcm") == hash_quickly(folder / "i2.dcm")
    assert hash_fully(folder) == hash_fully(folder / "i1.dcm")
    np.testing.assert_array_equal(corners_of(folder), corners_of(folder / "i1.dcm"))


def test_all_files_of_a_slide_named_at_once_count_once(folder, tmp_path):
    files = sorted(folder.glob("*.dcm"))
    assert list_slides(files) == (files[0],)
    assert list_slides([files[1], folder, files[0]]) == (files[1],)
    cohort = gather_slides(list_slides([folder]))
    assert [slide.slide_id for slide in cohort.slides] == ["1.2.840.77"]
    rows, failures = save_tiles(gather_slides(list_slides(files)).slides, CUT, tmp_path)
    assert [(row["slide_id"], row["tiles"]) for row in rows] == [("i0", 49)]
    assert failures == ()


def test_two_slides_in_one_folder_are_two_and_a_folder_is_refused_as_one(whole, tmp_path):
    both = tmp_path / "both"
    write_series(both, whole, (0.0005, 0.001, 0.002))
    write_series(both, [level[:, ::-1].copy() for level in whole[:2]], (0.0005, 0.001), prefix="j")
    write_series(both, [whole[2]], (0.01,), prefix="label", kind="LABEL")  # its own series, and no slide
    assert len(list_series(both)) == 2
    assert [path.name for path in list_slides([both])] == ["i0.dcm", "j0.dcm"]
    with pytest.raises(SlideError) as caught:
        open_slide(both)
    assert str(caught.value) == (
        "folder 'both' holds 2 DICOM slides, and a slide is one. Name a file of the one that is meant: "
        "'both/i0.dcm', 'both/j0.dcm'."
    )
    with open_slide(both / "j1.dcm") as slide:
        assert slide.level_dimensions == ((2000, 1500), (1000, 750))
        left, right = slide.read_region((0, 0), 0, (1000, 700)), slide.read_region((1000, 0), 0, (1000, 700))
    assert left.mean() > right.mean()  # the mirrored one


def test_a_label_in_the_series_of_its_slide_is_not_taken_for_it(whole, tmp_path):
    import pydicom

    series = write_series(tmp_path / "s", whole, (0.0005, 0.001, 0.002))
    write_series(tmp_path / "s", [whole[2][:256, :256]], (0.01,), prefix="a-label", kind="LABEL")
    label = pydicom.dcmread(tmp_path / "s" / "a-label0.dcm")
    label.SeriesInstanceUID = series
    label.save_as(tmp_path / "s" / "a-label0.dcm")
    assert [path.name for path in list_series(tmp_path / "s")[series]] == ["i0.dcm", "i1.dcm", "i2.dcm", "a-label0.dcm"]
    with open_slide(tmp_path / "s") as slide:
        assert slide.level_dimensions == ((2000, 1500), (1000, 750), (500, 375))
        assert slide.associated == ("label",)
    assert len(corners_of(tmp_path / "s")) == 49


def test_a_folder_of_slides_lists_each_once(folder, whole, tmp_path):
    from PIL import Image

    home = tmp_path / "slides"
    write_series(home / "S-1", whole[1:], (0.001, 0.002))
    write_series(home / "S-2", whole[1:], (0.001, 0.002))
    Image.fromarray(whole[2]).save(home / "S-3.png")
    (home / "notes.txt").write_text("not a slide")
    (home / "empty").mkdir()
    assert [path.name for path in list_slides([home])] == ["S-1", "S-2", "S-3.png"]
    assert [slide.slide_id for slide in gather_slides(list_slides([home])).slides] == ["S-1", "S-2", "S-3"]
    with pytest.raises(SlideError, match="folder 'empty' holds no slide"):
        list_slides([home / "empty"])
    with pytest.raises(SlideError, match="neither OME-Zarr nor DICOM"):
        open_slide(home / "empty")


def test_rows_of_one_slide_in_a_table_are_one_slide(folder, whole, tmp_path):
    write_series(tmp_path / "other", whole[1:], (0.001, 0.002))
    lines = [f"{path},a" for path in sorted(folder.glob("*.dcm"))] + [f"{tmp_path / 'other'},b"]
    (tmp_path / "c.csv").write_text("slide,label\n" + "\n".join(lines) + "\n")
    cohort = load_cohort(tmp_path / "c.csv")
    assert [(slide.slide_id, slide.label) for slide in cohort.slides] == [("i0", "a"), ("other", "b")]
    assert "3 rows name files of one DICOM slide, which counts once, as 'i0'." in cohort.notes
    lines[1] = lines[1][:-1] + "b"
    (tmp_path / "c.csv").write_text("slide,label\n" + "\n".join(lines) + "\n")
    with pytest.raises(CohortError) as caught:
        load_cohort(tmp_path / "c.csv")
    assert str(caught.value) == (
        "cohort 'c.csv' lists files of one DICOM slide as 'i0' and 'i1', and these rows differ beyond the file. Keep "
        "one row for the slide."
    )
