"""What is written of explaining a run: `cka.json` and `localisation.json`. Read without torch."""

from pydantic import Field

from lamella.analysis.figure import Interval
from lamella.analysis.localise import Froc
from lamella.records import Record

Row = tuple[float | None, ...]


class AlignmentRecord(Record):
    """CKA of blocks of one encoder (rows) with blocks of another (columns), with bounds, over tiles of slides."""

    cka: tuple[Row, ...]
    low: tuple[Row, ...]
    high: tuple[Row, ...]
    undefined: tuple[tuple[bool, ...], ...]
    n_slides: int
    n_batches: int


class ComparisonRecord(Record):
    """What `lamella cka` writes: alignments by the name of what is held against the first encoder."""

    first: str
    second: str
    slides: tuple[str, ...]
    n_tiles_a_slide: int
    alignments: dict[str, AlignmentRecord]
    one_block: AlignmentRecord | None
    weight_change: Row | None


class CkaPair(Record):
    """A fine-tuned encoder against its frozen one, of a fold and seed, by block; or a `note` why there is none.

    `matrix` is of all blocks; `random` is the frozen network against random weights; `one_block` is CKA where that
    block alone is the fine-tuned one; `weight_change` is relative to the block's weights.
    """

    arm: str = "fine-tuned"
    base: str = "frozen"
    fold: int | str = 0
    seed: int = 0
    note: str | None = None
    cka: Row = ()
    low: Row | None = None
    high: Row | None = None
    matrix: tuple[tuple[float, ...], ...] | None = None
    random: Row | None = None
    another_seed: Row | None = None
    one_block: Row | None = None
    weight_change: Row | None = None


class CkaRecord(Record):
    """What `cka.json` of a run or study holds."""

    pairs: tuple[CkaPair, ...] = ()


class PatientMean(Record):
    """A mean over `n` patients, with a 95% interval where there are two."""

    value: float
    interval: Interval | None
    n: int


class MapMeasures(Record):
    """What one map reaches against outlines; `tile_share` and `pixel_share` are what precision is by chance."""

    n_slides: int | None = None
    n_patients: int | None = None
    tile_auc: PatientMean | None = None
    tile_ap: PatientMean | None = None
    pixel_auc: PatientMean | None = None
    pixel_ap: PatientMean | None = None
    pointing: PatientMean | None = None
    top_k: PatientMean | None = None
    tile_share: PatientMean | None = None
    pixel_share: PatientMean | None = None
    pooled_tile_auc: float | None = None
    froc: Froc | None = None


class LocalisationSettings(Record):
    """How maps were held against outlines; `positive` is the class whose lesions they are."""

    k: int | None = None
    radius_um: float | None = None
    smallest_um: float | None = None
    arm: str | None = None
    positive: str | None = Field(default=None, validation_alias="class", serialization_alias="class")
    lesion_classes: tuple[str, ...] = ()
    lesion_values: tuple[str, ...] = ()


class Localisation(Record):
    """What `localisation.json` holds of an arm's maps, by name; that of a study says which arm."""

    arm: str = ""
    maps: dict[str, MapMeasures] = Field(default_factory=dict)
    settings: LocalisationSettings = LocalisationSettings()
    notes: tuple[str, ...] = ()
