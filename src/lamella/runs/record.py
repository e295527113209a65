"""What a run writes down of itself: settings and versions as JSON. No paths."""

import platform
import time
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version

from lamella import __version__
from lamella.cohort import Cohort
from lamella.features.extract import ExtractReport
from lamella.files import write_record
from lamella.runs.bags import RunBags
from lamella.runs.folder import RunFolder, hash_tables
from lamella.runs.settings import RunSettings, describe_settings

_PACKAGES = ("torch", "torchvision", "timm", "openvino", "numpy", "scikit-learn", "fastslide", "openslide-python",
             "openslide-bin", "pyvips", "h5py")  # fmt: skip


def save_run_record(
    settings: RunSettings,
    cohort: Cohort,
    report: ExtractReport,
    bags: RunBags,
    notes: Sequence[str],
    folder: RunFolder,
) -> None:
    """Write `run.json`: what was asked, what it ran on, what was said aloud."""
    write_record(
        folder.settings,
        {
            "lamella_version": __version__,
            "finished": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            "classes": list(cohort.classes),
            "positive": cohort.positive,
            "settings": describe_settings(settings),
            "runtime": _say_runtime(bags),
            "extraction": {
                "n_encoded": len(report.done),
                "n_kept": len(report.kept),
                "n_failed": len(report.failures),
                "n_tiles": report.n_tiles,
                "seconds": round(report.seconds, 1),
            },
            "notes": list(notes),
            "versions": list_versions(),
            "files": hash_tables(folder.path),
        },
    )


def list_versions() -> dict[str, str]:
    """Return the versions of Python, the system and the packages that bear on results."""
    found = {"lamella": __version__, "python": platform.python_version(), "system": platform.system()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _say_runtime(bags: RunBags) -> str:
    """Return what encoded the bags, now or in an earlier run, and in which precision, as they state it."""
    found = {f"{own['runtime']}, {own['precision']}": None for own in bags.provenance.values() if "runtime" in own}
    return "; ".join(found)
