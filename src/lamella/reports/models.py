"""What the JSON files hold that no other room reads, typed: verdict, controls, CKA, localisation, costs.

`lamella.runs.record`, `lamella.runs.metrics` and `lamella.studies.record` have the others.
Keys that a page has no use for are passed over; those that folders of version 0.1.0 lack have a default.
"""

from pydantic import BaseModel, ConfigDict

from lamella.runs.metrics import Figure, GroupScores


class _Content(BaseModel):
    """Content of a file: read, never changed."""

    model_config = ConfigDict(frozen=True, extra="ignore", protected_namespaces=())


class CkaPair(_Content):
    """A fine-tuned encoder against its frozen one, of a fold and seed, by block; or why they were not compared."""

    arm: str = "fine-tuned"
    base: str = "frozen"
    fold: int | str = 0
    seed: int = 0
    cka: tuple[float | None, ...] = ()
    low: tuple[float | None, ...] | None = None
    high: tuple[float | None, ...] | None = None
    one_block: tuple[float | None, ...] | None = None
    another_seed: tuple[float | None, ...] | None = None
    random: tuple[float | None, ...] | None = None
    weight_change: tuple[float | None, ...] | None = None
    matrix: tuple[tuple[float, ...], ...] | None = None
    note: str | None = None


class CkaContent(_Content):
    """`cka.json`."""

    pairs: tuple[CkaPair, ...] = ()


class Froc(_Content):
    """FROC, by the rules of CAMELYON16."""

    score: float
    n_lesions: int
    n_slides: int


class MapMeasures(_Content):
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
    froc: Froc | None = None


class LocalisationSettings(_Content):
    """How maps were held against outlines."""

    k: int | None = None
    radius_um: float | None = None
    smallest_um: float | None = None


class ArmMaps(_Content):
    """The maps of an arm; `localisation.json` of a run holds one, which it does not name."""

    arm: str = ""
    maps: dict[str, MapMeasures] = {}
    settings: LocalisationSettings = LocalisationSettings()
    notes: tuple[str, ...] = ()


class StudyLocalisation(_Content):
    """`localisation.json` of a study."""

    arms: tuple[ArmMaps, ...] = ()
    settings: LocalisationSettings = LocalisationSettings()
    notes: tuple[str, ...] = ()
    reason: str | None = None


class Permutations(_Content):
    """The control with permuted labels."""

    arm: str
    auc: float | None = None
    aucs: tuple[float, ...]
    within: tuple[float, ...] | None = None
    p: float
    mean: float
    sd: float | None = None
    mean_within: float | None = None
    smallest_leak: float | None = None
    leak: bool = False

    @property
    def exchanged(self) -> tuple[float, ...]:
        """The AUCs among those whose labels were exchanged, where that is not everybody."""
        within = self.within or ()
        return within if within != self.aucs else ()


class Gap(_Content):
    """AUC less AUC within batches."""

    value: float | None = None
    standard_error: float | None = None


class RobustnessIndex(_Content):
    """Whether neighbours share the label or the batch."""

    value: float | None = None
    k: int | None = None


class Robustness(_Content):
    """How far an arm follows the batch."""

    arm: str
    gap: Gap | None = None
    index: RobustnessIndex | None = None
    batch_auc: Figure | None = None


class Controls(_Content):
    """`controls.json`."""

    arm: str | None = None
    permutations: Permutations | None = None
    baselines: dict[str, Figure] = {}
    batches: tuple[GroupScores, ...] = ()
    robustness: tuple[Robustness, ...] | None = None
