"""What a run writes down of itself, `run.json`: settings, versions, what was said. No paths."""

import platform
from importlib.metadata import PackageNotFoundError, version

from pydantic import Field

from lamella import __version__
from lamella.defaults import DEVICE, N_FOLDS, N_SEEDS
from lamella.records import Record

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


class SettingsRecord(Record):
    """How a run cut, encoded and trained, without paths: what may be passed on, and what new slides need.

    `train` are `TrainSettings` as files hold them; a prediction of new slides and an export have those of their run.
    """

    encoder: str
    weights: str = "pretrained"
    tile_px: int
    mpp: float
    stride_px: int
    min_tissue: float
    tissue: str
    max_upsample: float
    include_class: tuple[str, ...] = ()
    exclude_class: tuple[str, ...] = ()
    dtype: str
    device: str = DEVICE
    precision: str
    train: dict[str, Value] = Field(default_factory=dict)
    n_seeds: int = N_SEEDS
    n_folds: int = N_FOLDS
    split_seed: int = 0
    sensitivity: float | None = None
    stage_two: StageTwoRecord | None = None


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
