"""What a run writes down of itself, `run.json`: settings, versions, what was said. No paths."""

import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from pydantic import Field

from lamella import __version__
from lamella.records import Record

_PACKAGES = ("torch", "torchvision", "timm", "openvino", "numpy", "scikit-learn", "fastslide", "openslide-python",
             "openslide-bin", "pyvips", "h5py")  # fmt: skip


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
    classes: tuple[str, ...] = Field(min_length=1)
    positive: str | None = None
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
