"""What the JSON files hold that no other room reads, typed: verdict, controls, a study's localisation, costs.

`lamella.runs.record`, `lamella.runs.metrics`, `lamella.explain.records` and `lamella.studies.record` have the others.
Keys that a page has no use for are passed over; those that folders of version 0.1.0 lack have a default.
"""

from pydantic import BaseModel, ConfigDict

from lamella.explain.records import Localisation, LocalisationSettings
from lamella.runs.metrics import Figure, GroupScores, Interval


class _Content(BaseModel):
    """Content of a file: read, never changed."""

    model_config = ConfigDict(frozen=True, extra="ignore", protected_namespaces=())


class StudyLocalisation(_Content):
    """`localisation.json` of a study."""

    arms: tuple[Localisation, ...] = ()
    settings: LocalisationSettings = LocalisationSettings()
    notes: tuple[str, ...] = ()
    reason: str | None = None


class ArmVerdict(_Content):
    """What the judge says of an arm that ran."""

    arm: str
    auc: float
    interval: Interval
    auc_pooled: float | None = None
    auc_pooled_interval: Interval | None = None
    chance_p_holm: float | None = None
    deficit_upper: float | None = None
    margin_to_whole: float | None = None
    not_worse: bool
    worse_than: tuple[str, ...] = ()
    expected_loss: float | None = None
    cost: float
    gflops: float
    added_later: bool = False
    fold_auc: tuple[float | None, ...] = ()
    fold_sd: float | None = None
    seed_sd: float | None = None


class DeclaredPair(_Content):
    """One arm against another, as declared."""

    arm: str
    base: str
    difference: float
    interval: Interval | None
    p: float | None
    p_holm: float | None
    starred: bool


class DeclaredTable(_Content):
    """A declared table."""

    name: str
    title: str
    rows: tuple[DeclaredPair, ...]


class Chain(_Content):
    """The depths of one network."""

    whole: str


class Conclusion(_Content):
    """What to use, what is shown to be worse, what is open."""

    arm: str | None = None
    best_arm: str | None = None
    question: str | None = None
    use: str | None = None
    worse: str | None = None
    open: str | None = None
    sentence: str | None = None
    patients_needed: int | None = None
    patients_range: tuple[int, int | None] | None = None
    patients_needed_for: str | None = None
    best_auc_raw: float | None = None
    best_auc_corrected: float | None = None


class RankCorrelation(_Content):
    """How AUC goes with ImageNet accuracy."""

    rho: float
    p: float
    interval: Interval | None = None
    caption: str


class Verdict(_Content):
    """`verdict.json`."""

    margin: float
    n_patients: int
    units: str = "patients"
    cross_validated: bool = True
    arms: tuple[ArmVerdict, ...] = ()
    tables: tuple[DeclaredTable, ...] = ()
    chains: tuple[Chain, ...] = ()
    verdict: Conclusion
    imagenet: RankCorrelation | None = None
    notes: tuple[str, ...] = ()
    n_lost: int | None = None


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


class Cost(_Content):
    """What encoding a tile costs, and on what that was measured."""

    runtime: str | None = None
    precision: str | None = None
    device: str | None = None
    processor: str | None = None
    n_cores: int | None = None
