"""Why a study can reach no verdict, known from its design and cohort before anything runs."""

from lamella.analysis.judgement import LEAST_PATIENTS
from lamella.cohort import Cohort
from lamella.studies.design import StudyDesign


def list_obstacles(design: StudyDesign, cohort: Cohort) -> list[str]:
    """Return why the verdict will be "no verdict", a sentence each; empty where one can be reached.

    Args:
        design: What is compared.
        cohort: Labelled slides.
    """
    obstacles = []
    patients = {
        label: len({slide.patient_id for slide in cohort.slides if slide.label == label}) for label in cohort.classes
    }
    label = min(patients, key=lambda name: patients[name])
    if patients[label] < LEAST_PATIENTS:
        obstacles.append(
            f"No verdict is possible: class '{label}' has {patients[label]} patients and at least {LEAST_PATIENTS} of "
            "each class are needed. The arms are measured all the same."
        )
    arms = design.list_arms()
    if len(arms) == 1 and not design.finetune_best:
        obstacles.append(
            f"No comparison is possible: '{arms[0].name}' is the only arm. Add an encoder, a depth or fine-tuning."
        )
    return obstacles
