"""What a run writes down of itself, `run.json`: settings, versions, what was said. No paths.

`Record` is what every record of a run or a study is: a model of its file that saves and loads itself.
"""

import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field

from lamella import __version__
from lamella.errors import ModelError
from lamella.files import parse_json_file, write_record

_PACKAGES = ("torch", "torchvision", "timm", "openvino", "numpy", "scikit-learn", "fastslide", "openslide-python",
             "openslide-bin", "pyvips", "h5py")  # fmt: skip


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
        try:
            return cls.model_validate(parse_json_file(path))
        except (OSError, ValueError) as error:
            state = "damaged" if path.exists() else "absent"
            raise ModelError(
                f"'{path.name}' of '{path.parent}' is {state}. Run `{made_by}` again: it makes what is missing."
            ) from error

    def save(self, path: Path) -> None:
        """Write it, whole or not at all."""
        write_record(path, self.as_json())

    def as_json(self) -> dict[str, Any]:
        """Return it as its file holds it: what was never set is not there."""
        return self.model_dump(mode="json", by_alias=True, exclude_unset=True)


class Extraction(Record):
    """How encoding went: slides encoded, kept from an earlier run and failed, tiles, seconds."""

    n_encoded: int
    n_kept: int
    n_failed: int
    n_tiles: int
    seconds: float


class RunRecord(Record):
    """What `run.json` holds, of a run or (`external`) of a prediction of new slides; docs/formats.md has each field."""

    lamella_version: str = ""
    finished: str = ""
    classes: tuple[str, ...]
    positive: str | None
    settings: dict[str, Any]
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
