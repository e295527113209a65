"""What a study says before it begins: why it can reach no verdict."""

from pathlib import Path

import pytest

from lamella.cohort import Cohort, CohortSlide
from lamella.studies.design import StudyDesign
from lamella.studies.design_parts import ArmBlock, TileDesign
from lamella.studies.prospects import list_obstacles


def make_cohort(n_benign: int, n_tumour: int, slides_a_patient: int = 1) -> Cohort:
    slides = [
        CohortSlide(slide_id=f"{label}-{i}-{j}", path=Path("x.svs"), label=label, patient_id=f"{label}-{i}")
        for label, n in (("benign", n_benign), ("tumour", n_tumour))
        for i in range(n)
        for j in range(slides_a_patient)
    ]
    return Cohort(slides=tuple(slides), classes=("benign", "tumour"), positive="tumour", notes=())


def make_design(*depths: int, finetune_best: bool = False) -> StudyDesign:
    return StudyDesign(
        preset="mine",
        tiles={"default": TileDesign()},
        arms=(ArmBlock(encoders=("efficientnet-lite0",), depths=depths),),
        finetune_best=finetune_best,
    )


def test_a_study_that_can_reach_a_verdict_has_no_obstacle() -> None:
    assert list_obstacles(make_design(4, 3), make_cohort(12, 10)) == []


@pytest.mark.parametrize(
    ("counts", "said"), [((12, 9), "'tumour' has 9 patients"), ((3, 30), "'benign' has 3 patients")]
)
def test_too_few_patients_of_a_class_are_named(counts: tuple[int, int], said: str) -> None:
    (obstacle,) = list_obstacles(make_design(4, 3), make_cohort(*counts, slides_a_patient=4))
    assert said in obstacle
    assert "at least 10" in obstacle


def test_one_arm_alone_is_no_comparison() -> None:
    (obstacle,) = list_obstacles(make_design(4), make_cohort(12, 12))
    assert "'efficientnet-lite0@4' is the only arm" in obstacle
    assert list_obstacles(make_design(4, finetune_best=True), make_cohort(12, 12)) == []
