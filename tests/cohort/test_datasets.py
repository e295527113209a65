"""Data sets as downloaded: folders of the true form, filled with tiny made-up slides."""

from pathlib import Path

import pytest

from lamella.cohort import Cohort, list_rounds, load_cohort, split_holdout
from lamella.cohort.datasets import (
    PARTLY_ANNOTATED,
    gather_camelyon16_outlines,
    is_camelyon16,
    list_camelyon16_outlines,
    load_camelyon16,
)
from lamella.errors import CohortError
from tests.tiny import draw_tissue, save_cohort_table, save_slide

XML = """<?xml version="1.0"?>
<ASAP_Annotations><Annotations><Annotation Name="Annotation 0" Type="Polygon" PartOfGroup="_0"><Coordinates>
<Coordinate Order="0" X="200" Y="220"/><Coordinate Order="1" X="330" Y="230"/><Coordinate Order="2" X="260" Y="320"/>
</Coordinates></Annotation></Annotations><AnnotationGroups/></ASAP_Annotations>
"""
NORMAL, TUMOR = (
    ("normal_001", "normal_002", "normal_003", "normal_086", "normal_101"),
    ("tumor_001", "tumor_002", "tumor_010"),
)
REFERENCE = (
    "test_001,Tumor,IDC,Macro\ntest_002,Normal,None,None\ntest_003,Normal,None,None\ntest_049,Tumor,IDC,Macro\n"
    "test_114,Tumor,Non-IDC,Macro\n"
)


def draw_camelyon16(folder: Path) -> Path:
    """Draw the folders of CAMELYON16 with 13 slides, the two that were removed among them."""
    test = [row.split(",")[0] for row in REFERENCE.split()]
    places = dict.fromkeys(NORMAL, "training/normal") | dict.fromkeys(TUMOR, "training/tumor")
    places |= dict.fromkeys(test, "testing/images")
    tumorous = {*TUMOR, "test_001", "test_049", "test_114"}
    for seed, (name, place) in enumerate(places.items()):
        save_slide(folder / place / f"{name}.tif", draw_tissue(seed, malignant=name in tumorous))
    for name in tumorous:
        side = "testing" if name.startswith("test") else "training"
        path = folder / side / "lesion_annotations" / f"{name}.xml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(XML, encoding="utf-8")
    (folder / "testing" / "reference.csv").write_text(REFERENCE, encoding="utf-8")
    (folder / "training" / "normal" / "Thumbs.db").write_bytes(b"")
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_camelyon16(tmp_path_factory.mktemp("c16"))


@pytest.fixture(scope="module")
def cohort(folder: Path) -> Cohort:
    return load_camelyon16(folder)


def test_the_official_split_is_kept_and_part_of_training_validates_by_class(cohort: Cohort) -> None:
    sides = {slide.slide_id: slide.split for slide in cohort.slides}
    assert {name for name, side in sides.items() if side == "test"} == {"test_001", "test_002", "test_003", "test_114"}
    (only,) = list_rounds(cohort)
    by_side = {side: [name.split("_")[0] for name in getattr(only, side)] for side in ("train", "val")}
    assert sorted(by_side["val"]) == ["normal", "tumor"]
    assert sorted(by_side["train"]) == ["normal"] * 3 + ["tumor"] * 2
    assert (cohort.classes, cohort.positive) == (("normal", "tumor"), "tumor")
    assert {slide.slide_id: slide.label for slide in cohort.slides}["test_114"] == "tumor"


def test_the_duplicate_and_the_renamed_slide_are_left_out_and_named(cohort: Cohort) -> None:
    assert {"normal_086", "test_049"}.isdisjoint(slide.slide_id for slide in cohort.slides)
    notes = " ".join(cohort.notes)
    assert "'normal_086' is left out: it was misclassified and is tumor_111 since" in notes
    assert "each slide counts as its own patient" in notes
    assert "11 of CAMELYON16's 399" in notes


def test_who_validates_depends_on_the_seed_alone(folder: Path, cohort: Cohort) -> None:
    assert load_camelyon16(folder).slides == cohort.slides
    drawn = {load_camelyon16(folder, seed=seed).slides for seed in range(6)}
    assert len(drawn) > 1


def test_partly_annotated_slides_count_for_auc_and_not_for_localisation(folder: Path, tmp_path: Path) -> None:
    found = list_camelyon16_outlines(folder)
    assert set(found) == {"tumor_001", "tumor_002", "test_001"}
    out = gather_camelyon16_outlines(folder, tmp_path / "outlines")
    assert sorted(path.name for path in out.iterdir()) == ["test_001.xml", "tumor_001.xml", "tumor_002.xml"]
    assert {"tumor_010", "test_114"} <= {slide.slide_id for slide in load_camelyon16(folder).slides}
    assert len(PARTLY_ANNOTATED) == 21


def test_older_copies_write_names_otherwise(folder: Path, tmp_path: Path) -> None:
    older = tmp_path / "older"
    for name in ("training/normal", "training/tumor", "testing/images"):
        (older / name).mkdir(parents=True)
    for name in ("Normal_001", "Normal_002", "Normal_86"):
        (older / "training/normal" / f"{name}.tif").write_bytes(b"")
    for name in ("Tumor_001", "Tumor_002"):
        (older / "training/tumor" / f"{name}.tif").write_bytes(b"")
    for name in ("Test_001", "Test_002", "Test_049"):
        (older / "testing/images" / f"{name}.tif").write_bytes(b"")
    (older / "testing/reference.csv").write_text("NAME,LABEL\nTest_001,tumor\nTest_002,normal\n", encoding="utf-8")
    found = load_camelyon16(older)
    assert {slide.slide_id for slide in found.slides}.isdisjoint({"Normal_86", "Test_049"})
    assert len(found.slides) == 6


def test_another_folder_is_not_taken_for_it(folder: Path, tmp_path: Path) -> None:
    assert is_camelyon16(folder)
    assert not is_camelyon16(tmp_path)
    with pytest.raises(CohortError, match=r"no folder 'training/normal'.*Name the folder that holds training"):
        load_camelyon16(tmp_path)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("test_001,Tumor\n", "gives no class for 'test_002'"),
        ("test_001,Tumor\ntest_002,Perhaps\n", "in row 2 and a slide's id with Normal or Tumor"),
    ],
)
def test_a_reference_that_does_not_fit_is_refused(text: str, said: str, tmp_path: Path) -> None:
    for name in ("training/normal", "training/tumor", "testing/images"):
        (tmp_path / name).mkdir(parents=True)
    for number in (1, 2):
        (tmp_path / "testing/images" / f"test_{number:03d}.tif").write_bytes(b"")
        (tmp_path / "training/normal" / f"normal_{number:03d}.tif").write_bytes(b"")
        (tmp_path / "training/tumor" / f"tumor_{number:03d}.tif").write_bytes(b"")
    (tmp_path / "testing/reference.csv").write_text(text, encoding="utf-8")
    with pytest.raises(CohortError, match=said):
        load_camelyon16(tmp_path)


def test_outlines_still_packed_are_said_to_be(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "training").mkdir()
    (tmp_path / "training/lesion_annotations.zip").write_bytes(b"")
    with pytest.raises(CohortError, match=r"lesion_annotations.zip' is packed. Extract both"):
        list_camelyon16_outlines(tmp_path)


def test_a_reference_that_is_not_there_and_classes_that_leave_nothing_to_learn_are_refused(tmp_path: Path) -> None:
    for name in ("training/normal", "training/tumor", "testing/images"):
        (tmp_path / name).mkdir(parents=True)
    with pytest.raises(CohortError, match="holds the classes of CAMELYON16's test slides"):
        load_camelyon16(tmp_path)
    (tmp_path / "testing/reference.csv").write_text("", encoding="utf-8")
    with pytest.raises(CohortError, match="training/normal holds 0 slides and 2 are needed"):
        load_camelyon16(tmp_path)


def test_biopsies_with_several_slides_a_patient_are_an_ordinary_table(tmp_path: Path) -> None:
    rows = [
        {
            "slide": f"B{patient:02d}-{number}.tif",
            "patient_id": f"B{patient:02d}",
            "label": "coeliac" if patient % 2 else "normal",
        }
        for patient in range(20)
        for number in range(1 + patient % 4)
    ]
    split = split_holdout(load_cohort(save_cohort_table(tmp_path / "gastro.csv", rows)))
    sides = {(slide.patient_id, slide.split) for slide in split.slides}
    assert len(sides) == 20
    assert [sum(side == name for _, side in sides) for name in ("train", "val", "test")] == [13, 3, 4]
