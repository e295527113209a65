"""What a run writes down of itself, `run.json`: settings, versions, what was said. No paths."""

import platform
from importlib.metadata import PackageNotFoundError, version

from pydantic import Field

from lamella import __version__
from lamella.defaults import DEVICE, N_FOLDS, N_SEEDS, UNIT, UnitName
from lamella.records import Record

MADE_BY = ("encoder", "weights", "tile_px", "mpp", "stride_px", "min_tissue", "tissue", "max_upsample", "dtype",
           "precision")  # fmt: skip
"""Settings that say how slides became bags."""

Value = str | int | float | bool | None
_PACKAGES = ("torch", "torchvision", "timm", "openvino", "numpy", "scikit-learn", "fastslide", "openslide-python",
             "openslide-bin", "pyvips", "h5py")  # fmt: skip


class Extraction(Record):
    """How encoding went: slides encoded, kept from an earlier run and failed, tiles, seconds."""

    n_encoded: int
    n_kept: int
    n_failed: int
    n_tiles: int
    seconds: float


class EncoderRecord(Record):
    """Where a machine finds a run's encoder, `local/encoder.json`: it may hold paths."""

    name: str
    weights: str


class StageTwoRecord(Record):
    """How stage 2 was trained: `FinetuneSettings` as files hold them, how many seeds, which tiles were tested."""

    finetune: dict[str, Value]
    n_seeds: int
    evaluate: str


class BagsRecord(Record):
    """What is known of bags that were there before the run, besides how tiles were cut and encoded.

    `tools` wrote them; `fingerprint` is of the encoder's weights, `width` of an embedding; `magnification` is nominal,
    as TRIDENT states it where it states no um per pixel. None is not stated, or differs from bag to bag.
    """

    tools: tuple[str, ...]
    fingerprint: str | None
    width: int
    magnification: float | None


class BagsPlace(Record):
    """Where a machine finds the bags of a run that were there before it, `local/bags.json`: a path."""

    folder: str


class SettingsRecord(Record):
    """How a run cut, encoded and trained, without paths: what may be passed on, and what new slides need.

    `train` are `TrainSettings` as files hold them; a prediction of new slides and an export have those of their run.
    Of a run on bags that were there, `bags` is set, and what their files do not state is None. `mpp` is the resolution
    that was asked for, `mpp_seen` what the encoder saw once it had resized tiles, if it did.
    """

    encoder: str | None
    weights: str | None = "pretrained"
    tile_px: int | None
    mpp: float | None
    mpp_seen: float | None = None
    stride_px: int | None
    min_tissue: float | None
    tissue: str | None
    max_upsample: float | None
    tiles_per_slide: int | None = None
    include_class: tuple[str, ...] = ()
    exclude_class: tuple[str, ...] = ()
    dtype: str | None
    device: str = DEVICE
    precision: str | None
    bags: BagsRecord | None = None
    train: dict[str, Value] = Field(default_factory=dict)
    unit: UnitName = UNIT
    width: int | None = None
    n_seeds: int = N_SEEDS
    n_folds: int = N_FOLDS
    split_seed: int = 0
    sensitivity: float | None = None
    stage_two: StageTwoRecord | None = None

    @property
    def encoder_name(self) -> str:
        """The encoder's name, or that it is not stated."""
        return self.encoder or "encoder not stated"

    @property
    def unknown(self) -> tuple[str, ...]:
        """What of cutting and encoding is not known, by name; empty where new slides can be treated alike."""
        absent = tuple(name for name in MADE_BY if getattr(self, name) is None)
        return (*absent, "fingerprint") if self.bags is not None and self.bags.fingerprint is None else absent


class RunRecord(Record):
    """What `run.json` holds, of a run or (`external`) of a prediction of new slides; docs/formats.md has each field."""

    lamella_version: str = ""
    finished: str = ""
    classes: tuple[str, ...] = Field(min_length=1)
    positive: str | None = None
    settings: SettingsRecord
    runtime: str = ""
    extraction: Extraction | None = None
    external: bool = False
    notes: tuple[str, ...] = ()
    versions: dict[str, str] = Field(default_factory=dict)
    files: dict[str, str] = Field(default_factory=dict)


def list_versions() -> dict[str, str]:
    """Return the versions of Python, the system and the packages that bear on results."""
    versions = {"lamella": __version__, "python": platform.python_version(), "system": platform.system()}
    for name in _PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions
