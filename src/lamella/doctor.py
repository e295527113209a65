"""What this machine can do: readers, runtimes, devices, weights, cores, memory, disk.

Each part that is missing is told with the command that gets it. A base install without torch is examined too.
"""

import importlib.util
import os
import platform
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from lamella import __version__
from lamella.cores import count_threads
from lamella.errors import LamellaError

_EXTRAS = {
    "torch": ("torch", "encodes and trains"),
    "timm": ("torch", "holds the encoders' networks"),
    "safetensors": ("torch", "stores trained models"),
    "openvino": ("openvino", "encodes faster on a processor"),
}
_READER_PACKAGES = {"openslide": "openslide-python openslide-bin", "libvips": "pyvips pyvips-binary"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that this machine has or lacks.

    Attributes:
        topic: What it belongs to, for example "reader".
        name: Its name.
        here: Whether it is here and works.
        detail: Version, device, number.
        remedy: What to do to get it; "" where it is here.
    """

    topic: str
    name: str
    here: bool
    detail: str = ""
    remedy: str = ""


def examine_machine() -> tuple[Finding, ...]:
    """Return all that is worth knowing before a run, topic by topic."""
    findings: list[Finding] = []
    for topic, examine in _EXAMINATIONS:
        try:
            findings.extend(examine())
        except (ImportError, LamellaError, OSError) as error:
            # One part that is broken must not hide the others: that is what a doctor is asked about.
            why = f"{type(error).__name__}: {' '.join(str(error).split())}"
            findings.append(Finding(topic=topic, name=topic, here=False, detail=why, remedy=_reinstall(error)))
    return tuple(findings)


def _reinstall(error: Exception) -> str:
    """Return how to get what could not be imported."""
    module = (getattr(error, "name", None) or "").split(".")[0]
    extra = _EXTRAS.get(module)
    if extra:
        return f"pip install 'lamella[{extra[0]}]'"
    return "pip install --force-reinstall lamella" if isinstance(error, ImportError) else ""


def _examine_python() -> list[Finding]:
    system = f"{platform.system()} {platform.release()}, {platform.machine()}"
    return [
        Finding(topic="machine", name="lamella", here=True, detail=__version__),
        Finding(topic="machine", name="python", here=True, detail=f"{platform.python_version()}, {system}"),
        Finding(topic="machine", name="cores", here=True, detail=_describe_cores()),
        _examine_memory(),
    ]


def _describe_cores() -> str:
    """Return the number of cores this process may use, and whether they compute bf16."""
    n_cores = count_threads()
    text = _read_text(Path("/proc/cpuinfo"))
    flags = next((line.split() for line in text.splitlines() if line.startswith(("flags", "Features"))), [])
    fast = [flag for flag in ("amx_bf16", "avx512_bf16", "bf16") if flag in flags]
    known = f", bf16 in hardware ({fast[0]})" if fast else ", no bf16 in hardware" if flags else ""
    return f"{n_cores}{known}"


def _examine_memory() -> Finding:
    """Measure memory: the machine's, or what a container allows."""
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError):  # Windows
        return Finding(topic="machine", name="memory", here=True, detail="not known")
    limit = _read_text(Path("/sys/fs/cgroup/memory.max")).strip()
    if limit.isdecimal():
        total = min(total, int(limit))
    enough = total >= 3.5 * 2**30
    return Finding(
        topic="machine",
        name="memory",
        here=enough,
        detail=f"{total / 2**30:.1f} GiB",
        remedy="" if enough else "An extraction takes up to 2 GiB: close other programs, or use a larger machine.",
    )


def _examine_folders() -> list[Finding]:
    """Try to write where caches and temporary files go."""
    home = Path(os.environ.get("LAMELLA_HOME") or Path.home() / ".cache" / "lamella").expanduser()
    findings = []
    for name, folder, remedy in (
        ("store of weights", home, "Set LAMELLA_HOME to a folder that can be written."),
        ("temporary files", Path(tempfile.gettempdir()), "Set TMPDIR to a folder that can be written."),
    ):
        there = next(path for path in (folder, *folder.parents) if path.exists())
        writable = there.is_dir() and os.access(there, os.W_OK)
        free = shutil.disk_usage(there).free
        detail = f"{folder}, {free / 2**30:.1f} GiB free"
        findings.append(
            Finding(topic="folder", name=name, here=writable, detail=detail, remedy="" if writable else remedy)
        )
    return findings


def _examine_extras() -> list[Finding]:
    """List the packages that a base install leaves out."""
    findings = []
    for name, (extra, use) in _EXTRAS.items():
        here = importlib.util.find_spec(name) is not None
        findings.append(
            Finding(
                topic="package",
                name=name,
                here=here,
                detail=f"{_version(name)}, {use}" if here else f"not installed; {use}",
                remedy="" if here else f"pip install 'lamella[{extra}]'",
            )
        )
    return findings


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "version not known"


def _examine_readers() -> list[Finding]:
    """List what opens slides."""
    from lamella.slide import list_readers

    return [
        Finding(
            topic="reader",
            name=reader.name,
            here=reader.version is not None,
            detail=f"{reader.version or 'not installed'}; {', '.join(reader.formats)}",
            remedy="" if reader.version else f"pip install {_READER_PACKAGES.get(reader.name, reader.name)}",
        )
        for reader in list_readers()
    ]


def _examine_runtimes() -> list[Finding]:
    """List what runs encoders, on which devices."""
    from lamella.encoders import describe_runtimes

    return [
        Finding(
            topic="runtime",
            name=runtime.name,
            here=bool(runtime.version),
            detail="; ".join(
                (runtime.version or "not installed", *runtime.devices, ", ".join(runtime.precisions))
            ).rstrip("; "),
            remedy=runtime.remedy,
        )
        for runtime in describe_runtimes()
    ]


def _examine_weights() -> list[Finding]:
    """List which encoders' weights are here."""
    from lamella.encoders import list_weights

    return [
        Finding(
            topic="weights",
            name=weights.name,
            here=weights.path is not None,
            detail="" if weights.path is None else f"from the {weights.place}: {weights.path.name}",
            remedy=weights.remedy,
        )
        for weights in list_weights()
    ]


def check_access() -> tuple[Finding, ...]:
    """Ask the hub which gated encoders the account of this machine may download. It uses the network.

    Raises:
        WeightsError: If the hub's package is not installed.
    """
    from lamella.encoders import check_access as ask_hub
    from lamella.encoders import find_encoder, list_encoders, list_weights

    gated = [card for card in list_encoders() if card.access == "gated"]
    stored = [find_encoder(entry.name) for entry in list_weights() if entry.name.startswith("hf-hub:")]
    findings = []
    for card in (*gated, *stored):
        access = ask_hub(card.hub_id or "")
        findings.append(
            Finding(
                topic="access",
                name=card.name,
                here=access.granted is True,
                detail=access.detail,
                remedy=access.remedy,
            )
        )
    return tuple(findings)


def _read_text(path: Path) -> str:
    """Return a file's text, "" where there is none to read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


_EXAMINATIONS: tuple[tuple[str, Callable[[], list[Finding]]], ...] = (
    ("machine", _examine_python),
    ("folder", _examine_folders),
    ("package", _examine_extras),
    ("reader", _examine_readers),
    ("runtime", _examine_runtimes),
    ("weights", _examine_weights),
)
