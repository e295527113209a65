"""What a run writes down of itself, `run.json`: settings, versions, what was said. No paths.

`Record` is what every record of a run or a study is: a model of its file that saves and loads itself.
"""

import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from lamella import __version__
from lamella.defaults import DEVICE, N_FOLDS, N_SEEDS
from lamella.errors import ModelError
from lamella.files import parse_json_file, write_record

Value = str | int | float | bool | None
_C = TypeVar("_C", bound=BaseModel)
_PACKAGES = ("torch", "torchvision", "timm", "openvino", "numpy", "scikit-learn", "fastslide", "openslide-python",
             "openslide-bin", "pyvips", "h5py")  # fmt: skip


def load_content(path: Path, kind: type[_C], *, made_by: str) -> _C | None:
    """Return what a file of ours holds; None where there is no file.

    Args:
        path: The file.
        kind: What it should hold.
        made_by: The command that writes it, for the error.

    Raises:
        ModelError: Naming the file and the first value that cannot be.
    """
    if not path.is_file():
        return None
    remedy = f"Run `{made_by}` again: it makes what is missing."
    try:
        return kind.model_validate(parse_json_file(path))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise ModelError(f"'{path}' is damaged ({where}: {' '.join(first['msg'].split())[:120]}). {remedy}") from error
    except (OSError, ValueError) as error:
        raise ModelError(f"'{path}' is damaged ({' '.join(str(error).split())[:120]}). {remedy}") from error


class Record(BaseModel):
    """A file of ours as a model; keys of other versions that it does not know are kept as they are."""

    model_config = ConfigDict(frozen=True, extra="allow", populate_by_name=True)

    @classmethod
    def load(cls, path: Path, *, made_by: str = "lamella run") -> Self:
        """Load what `save` wrote, this version's or an earlier one's.

        Args:
            path: The file.
            made_by: The command that makes it, for the message.

        Raises:
            ModelError: If it is absent, cannot be read, was changed after it was written, or lacks something.
        """
        content = load_content(path, cls, made_by=made_by)
        if content is None:
            raise ModelError(f"there is no '{path}'. Run `{made_by}` again: it makes what is missing.")
        return content

    def save(self, path: Path) -> None:
        """Write it, whole or not at all."""
        write_record(path, self.as_json())

    def as_json(self) -> dict[str, JsonValue]:
        """Return it as its file holds it: what was never set is not there."""
        return self.model_dump(mode="json", by_alias=True, exclude_unset=True)


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
