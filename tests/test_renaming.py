"""Outlines under pseudonyms are those of the slides that the pseudonyms stand for."""

import dataclasses
from pathlib import Path

import pytest

from lamella.cohort import gather_slides
from lamella.errors import SettingsError, TissueError
from lamella.explain.outlines import SUFFIXES
from lamella.renaming import rename_outlines


@pytest.fixture
def cohorts(tmp_path):
    """Three slides that lie in one folder, and the same under pseudonyms."""
    cohort = gather_slides([tmp_path / f"S{i}.tif" for i in (1, 2, 3)])
    for slide in cohort.slides:
        slide.path.write_bytes(b"slide")
    slides = tuple(dataclasses.replace(one, slide_id=f"x{one.slide_id[1]}") for one in cohort.slides)
    return cohort, dataclasses.replace(cohort, slides=slides)


def test_files_of_every_name_and_kind_are_copied_under_the_pseudonyms(tmp_path, cohorts):
    (tmp_path / "S1.tif.geojson").write_text("one")
    (tmp_path / "s2_mask.PNG").write_bytes(b"two")
    (tmp_path / "S4.xml").write_text("of another slide")
    copy = rename_outlines(tmp_path, *cohorts, tmp_path / "run", kind="lesions", suffixes=SUFFIXES)
    assert {path.name: path.read_bytes() for path in copy.iterdir()} == {"x1.geojson": b"one", "x2.png": b"two"}
    # Copied again, what is gone or of another kind now goes there too; the slides themselves are no masks.
    (tmp_path / "s2_mask.PNG").unlink()
    (tmp_path / "S1.tif.geojson").rename(tmp_path / "S1.xml")
    rename_outlines(tmp_path, *cohorts, tmp_path / "run", kind="lesions", suffixes=SUFFIXES)
    assert [path.name for path in copy.iterdir()] == ["x1.xml"]


def test_a_folder_that_fits_no_slide_or_one_twice_is_refused(tmp_path, cohorts):
    regions = tmp_path / "regions"
    regions.mkdir()
    (regions / "S9.geojson").write_text("")
    with pytest.raises(SettingsError, match=r"include: no file in 'regions' .*'S1.geojson'.*it holds 'S9.geojson'"):
        rename_outlines(regions, *cohorts, tmp_path / "run", kind="include")
    for name in ("S1.geojson", "S1.tif.geojson"):
        (regions / name).write_text("")
    with pytest.raises(TissueError, match="slide 'S1' has 2 files"):
        rename_outlines(regions, *cohorts, tmp_path / "run", kind="include")
    file = regions / "S1.geojson"
    assert rename_outlines(file, *cohorts, tmp_path / "run", kind="include") == Path(file)
    assert rename_outlines(None, *cohorts, tmp_path / "run", kind="include") is None
