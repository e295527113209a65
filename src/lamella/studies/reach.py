"""What a study can show with its patients, said before any slide is read."""

from lamella.analysis.judgement import LEAST_PATIENTS
from lamella.analysis.reach import USUAL_AUC, Reach, find_reach
from lamella.cohort import Cohort
from lamella.studies.design import StudyDesign
from lamella.studies.judge import find_chains


def say_reach(design: StudyDesign, cohort: Cohort) -> list[str]:
    """Return what can be shown at the declared margin, a line each; of more than two classes, by the rarest.

    Args:
        design: Arms, margin, reference encoders.
        cohort: Labelled slides, with a split where it brings one.
    """
    arms = design.list_arms()
    tested = _count_tested(cohort, design)
    if len(arms) < 2 or not tested:
        return []
    if min(tested.values()) < LEAST_PATIENTS:
        rarest = min(tested, key=lambda name: tested[name])
        return [
            f"No verdict can be reached: {tested[rarest]} patients of class '{rarest}' are tested and at least "
            f"{LEAST_PATIENTS} are needed."
        ]
    m, *rest = sorted(tested.values())
    q, n_rounds = rest[0] if len(rest) == 1 else sum(rest), _count_rounds(cohort, design)
    chains = find_chains({arm.name: arm for arm in arms}, design.reference)
    lines = []
    if chains:
        reach = find_reach(m, q, margin=design.margin, n_others=len(chains), n_rounds=n_rounds)
        lines.append(_say(f"may {' or '.join(chain[0] for chain in chains)} be cut", reach, design.margin))
    if len(chains) != 1:
        reach = find_reach(m, q, margin=design.margin, n_others=len(arms) - 1, n_rounds=n_rounds)
        lines.append(_say(f"which of {len(arms)} arms is the cheapest that is good enough", reach, design.margin))
    return lines


def _say(question: str, reach: Reach, margin: float) -> str:
    lowest = f"{reach.lowest:.3f}"
    if f"{reach.highest:.3f}" != lowest:
        lowest += f" to {reach.highest:.3f}"
    said = f"Question '{question}': no data from these patients can show a margin below {lowest} AUC"
    if reach.lowest >= margin or reach.power is None:
        return (
            f"{said}, so the declared margin of {margin:g} cannot be reached. It takes at least {reach.least} patients "
            "of each class."
        )
    return (
        f"{said}; the declared margin is {margin:g}. If two arms are equal (AUC {USUAL_AUC:.2f}) and agree as encoders "
        f"usually do, one is shown to be non-inferior to the other with a probability of {reach.power:.0%}."
    )


def _count_tested(cohort: Cohort, design: StudyDesign) -> dict[str, int]:
    """Return the patients of each class that are tested; of a split that is still to be made, its share."""
    split = any(slide.split is not None for slide in cohort.slides)
    tested = [slide for slide in cohort.slides if not split or slide.split == "test"]
    counts = {name: len({s.patient_id for s in tested if s.label == name}) for name in cohort.classes}
    made = not split and design.split == "holdout" and all(slide.fold is None for slide in cohort.slides)
    return {name: round(0.2 * n) if made else n for name, n in counts.items()}


def _count_rounds(cohort: Cohort, design: StudyDesign) -> int:
    folds = {slide.fold for slide in cohort.slides if slide.fold is not None}
    if folds:
        return len(folds)
    return 1 if design.split == "holdout" or any(slide.split is not None for slide in cohort.slides) else design.folds
