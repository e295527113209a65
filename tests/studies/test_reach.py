"""What a study says of its power before any slide is read."""

from pathlib import Path

import pytest

from lamella.cohort import Cohort, CohortSlide
from lamella.studies.design import StudyDesign, check_design
from lamella.studies.reach import say_reach


def cohort_of(n: int, m: int, *, split: str | None = None) -> Cohort:
    slides = tuple(
        CohortSlide(
            slide_id=f"S{i}",
            path=Path(f"S{i}.tif"),
            patient_id=f"P{i}",
            label="tumour" if i < m else "normal",
            split=split,
        )
        for i in range(n)
    )
    return Cohort(slides=slides, classes=("normal", "tumour"), positive="tumour")


def design_of(**changes: object) -> StudyDesign:
    arms = [{"encoders": ["resnet18", "resnet34"], "depths": [4, 2, 1]}]
    return check_design({"arms": arms, **changes}, "the test")


def test_a_margin_out_of_reach_says_how_many_patients_it_takes() -> None:
    (line,) = say_reach(design_of(), cohort_of(38, 19))
    assert line.startswith(
        "Question 'may resnet18@4 be cut': no data from these patients can show a margin below 0.073"
    )
    assert line.endswith("0.05 cannot be reached. It takes at least 28 patients of each class.")


def test_a_margin_within_reach_says_with_what_probability() -> None:
    (line,) = say_reach(design_of(reference=["resnet34"]), cohort_of(300, 150))
    assert "'may resnet34@4 be cut'" in line
    assert "with a probability of 9" in line
    first, second = say_reach(design_of(reference=["resnet34", "resnet18"]), cohort_of(300, 150))
    assert "'may resnet34@4 or resnet18@4 be cut'" in first
    assert "which of 6 arms" in second


def test_too_few_patients_of_a_class_are_said_first() -> None:
    assert say_reach(design_of(), cohort_of(60, 7)) == [
        "No verdict can be reached: 7 patients of class 'tumour' are tested and at least 10 are needed."
    ]
    (line,) = say_reach(design_of(split="holdout"), cohort_of(80, 40))  # a fifth is tested
    assert line.startswith("No verdict can be reached: 8 patients")


@pytest.mark.parametrize("reference", [["resnet50"], ["resnet18"]])
def test_a_reference_encoder_that_is_none_is_refused(reference: list[str]) -> None:
    from lamella.errors import SettingsError

    arms = [{"encoders": ["resnet18", "resnet34"], "depths": [4]}]
    said = "no arm has the reference encoder 'resnet50'" if reference == ["resnet50"] else "needs depth 4 and at least"
    with pytest.raises(SettingsError, match=said):
        check_design({"arms": arms, "reference": reference}, "the test")
