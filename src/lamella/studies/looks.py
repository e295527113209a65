"""What a study sees besides its verdict, as models: controls, CKA, localisation.

Fields with a default are those that version 0.1.0 did not write, or that are not always there.
"""

from pydantic import Field

from lamella.analysis.figure import Figure
from lamella.analysis.localise import Froc
from lamella.analysis.permutation import Permutations
from lamella.analysis.robustness import RobustnessIndex
from lamella.analysis.scores import GroupScores
from lamella.records import Record


class CkaPair(Record):
    """A fine-tuned encoder against its frozen one, of a fold and seed, by block; or why they were not compared."""

    arm: str = "fine-tuned"
    base: str = "frozen"
    fold: int | str = 0
    seed: int = 0
    cka: tuple[float | None, ...] = ()
    low: tuple[float | None, ...] | None = None
    high: tuple[float | None, ...] | None = None
    matrix: tuple[tuple[float, ...], ...] | None = None
    random: tuple[float | None, ...] | None = None
    another_seed: tuple[float | None, ...] | None = None
    one_block: tuple[float | None, ...] | None = None
    weight_change: tuple[float | None, ...] | None = None
    note: str | None = None


class CkaContent(Record):
    """`cka.json`."""

    pairs: tuple[CkaPair, ...] = ()


class MapMeasures(Record):
    """What one map reaches against outlines."""

    n_slides: int | None = None
    n_patients: int | None = None
    tile_auc: Figure | None = None
    tile_ap: Figure | None = None
    pixel_auc: Figure | None = None
    pixel_ap: Figure | None = None
    pointing: Figure | None = None
    top_k: Figure | None = None
    tile_share: Figure | None = None
    pixel_share: Figure | None = None
    pooled_tile_auc: float | None = None
    froc: Froc | None = None


class LocalisationSettings(Record):
    """How maps were held against outlines."""

    k: int | None = None
    radius_um: float | None = None
    smallest_um: float | None = None


class ArmMaps(Record):
    """The maps of an arm; `localisation.json` of a run holds one, which it does not name."""

    arm: str = ""
    maps: dict[str, MapMeasures] = Field(default_factory=dict)
    settings: LocalisationSettings = LocalisationSettings()
    notes: tuple[str, ...] = ()


class StudyLocalisation(Record):
    """`localisation.json` of a study."""

    arms: tuple[ArmMaps, ...] = ()
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
