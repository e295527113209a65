"""What a study sees besides its verdict, as models: controls and localisation; CKA is `explain.records`.

Fields with a default are those that version 0.1.0 did not write, or that are not always there.
"""

from pydantic import Field

from lamella.analysis.figure import Figure
from lamella.analysis.permutation import Permutations
from lamella.analysis.robustness import RobustnessIndex
from lamella.analysis.scores import GroupScores
from lamella.explain.records import Localisation, LocalisationSettings
from lamella.records import Record


class StudyLocalisation(Record):
    """`localisation.json` of a study."""

    arms: tuple[Localisation, ...] = ()
    settings: LocalisationSettings = LocalisationSettings()
    notes: tuple[str, ...] = ()
    reason: str | None = None


class BatchGap(Record):
    """AUC less AUC within batches."""

    value: float | None = None
    standard_error: float | None = None


class Robustness(Record):
    """How far an arm follows the batch."""

    arm: str
    gap: BatchGap | None = None
    index: RobustnessIndex | None = None
    batch_auc: Figure | None = None


class Controls(Record):
    """`controls.json`."""

    permutations: Permutations | None = None
    baselines: dict[str, Figure] = Field(default_factory=dict)
    arm: str | None = None
    batches: tuple[GroupScores, ...] = ()
    robustness: tuple[Robustness, ...] | None = None
