"""The faults of the machine: how each is made, and what is expected of a verb that meets it."""

import contextlib
import errno
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.machine.scene import (
    Scene,
    bound_read_only,
    find_used_kib,
    give,
    mounted,
    remount,
)
from tests.machine.server import NOBODY, Circumstances
from tests.machine.verbs import Verb

Arrange = Callable[[Scene, Verb], contextlib.AbstractContextManager[None]]
_QUICK = ("audit", "tiles", "extract", "train", "run", "predict")


@contextlib.contextmanager
def _as_it_is(scene: Scene, verb: Verb) -> Iterator[None]:
    yield


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault of the machine.

    Attributes:
        name: What it is called in the record.
        expected: `"works"`; `"refused"`, in one line, and works once it is lifted; or `"either"`.
        says: Words of which the line must hold one, where the verb is refused.
        circumstances: What the process finds.
        arrange: Context in which the verb runs.
        lift: What mends it within that context, where the verb then goes on; None: leaving the context does.
        meanwhile: What is done while the verb runs, given the seconds that it takes undisturbed.
        environment: What stands when the interpreter starts.
        needs: `"root"`, `"gcc"`, `"localedef"` or nothing.
        verbs: Which are struck; empty: all that write.
        reading: Whether the verbs that only read are struck too.
    """

    name: str
    expected: str = "works"
    says: tuple[str, ...] = ()
    circumstances: Circumstances = field(default_factory=Circumstances)
    arrange: Arrange = _as_it_is
    lift: Callable[[Scene], None] | None = None
    meanwhile: Callable[[Scene, float], None] | None = None
    environment: dict[str, str] = field(default_factory=dict)
    needs: str = ""
    verbs: tuple[str, ...] = ()
    reading: bool = False


def _full(kib: int) -> Fault:
    @contextlib.contextmanager
    def arrange(scene: Scene, verb: Verb) -> Iterator[None]:
        with mounted(scene.out, "size=1g", keep=True):
            remount(scene.out, f"size={find_used_kib(scene.out) + kib}k")
            yield

    return Fault(
        f"disk full after {kib} KiB",
        "either",
        ("full",),
        arrange=arrange,
        lift=lambda scene: remount(scene.out, "size=1g"),
        needs="root",
    )


@contextlib.contextmanager
def _full_store(scene: Scene, verb: Verb) -> Iterator[None]:
    with mounted(scene.store, "size=4k"):
        yield


@contextlib.contextmanager
def _full_temporary(scene: Scene, verb: Verb) -> Iterator[None]:
    folder = scene.folder.parent / "tmp-full"
    with mounted(folder, "size=4k"):
        (folder / "filling").write_bytes(bytes(4096))
        yield


@contextlib.contextmanager
def _read_only_out(scene: Scene, verb: Verb) -> Iterator[None]:
    with mounted(scene.out, "ro", keep=True):
        yield


@contextlib.contextmanager
def _read_only_sources(scene: Scene, verb: Verb) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        for name in ("slides", "new", "bags", "finished", "lesions"):
            stack.enter_context(bound_read_only(scene.folder / name))
        yield


@contextlib.contextmanager
def _read_only_folder(scene: Scene, verb: Verb) -> Iterator[None]:
    scene.out.mkdir(exist_ok=True)
    with bound_read_only(scene.folder), mounted(scene.out, "size=1g", keep=True):
        yield


@contextlib.contextmanager
def _folder_not_utf8(scene: Scene, verb: Verb) -> Iterator[None]:
    real = scene.folder.with_name(os.fsdecode(b"sc\xe8ne"))  # Latin-1
    scene.folder.rename(real)
    scene.folder.symlink_to(real, target_is_directory=True)
    try:
        yield
    finally:
        scene.folder.unlink()
        real.rename(scene.folder)


@contextlib.contextmanager
def _slide_not_utf8(scene: Scene, verb: Verb) -> Iterator[None]:
    slide = scene.folder / "new" / os.fsdecode(b"N-\xe8.tif")
    shutil.copy(scene.folder / "new" / "N-1.tif", slide)
    try:
        yield
    finally:
        slide.unlink()


@contextlib.contextmanager
def _no_shared_memory(scene: Scene, verb: Verb) -> Iterator[None]:
    with mounted(Path("/dev/shm"), "ro,size=4k"):
        yield


@contextlib.contextmanager
def _of_nobody(scene: Scene, verb: Verb) -> Iterator[None]:
    with _closed_to_nobody(scene, verb):
        give(scene.out)
        yield


@contextlib.contextmanager
def _closed_to_nobody(scene: Scene, verb: Verb) -> Iterator[None]:
    scene.out.mkdir(exist_ok=True)
    give(scene.store)
    try:
        yield
    finally:
        give(scene.store, 0)


@contextlib.contextmanager
def _slides_closed_to_nobody(scene: Scene, verb: Verb) -> Iterator[None]:
    with _of_nobody(scene, verb):
        slides = [scene.folder / "slides" / "S-03.tif", scene.folder / "new" / "N-1.tif"]
        for slide in slides:
            slide.chmod(0o600)
        try:
            yield
        finally:
            for slide in slides:
                slide.chmod(0o644)


def _remove_out(share: float) -> Callable[[Scene, float], None]:
    def remove(scene: Scene, seconds: float) -> None:
        time.sleep(share * seconds)
        gone = scene.out.with_name("gone")
        with contextlib.suppress(FileNotFoundError):
            scene.out.rename(gone)
        shutil.rmtree(gone, ignore_errors=True)

    return remove


def _hide_slides(share: float) -> Fault:
    def hide(scene: Scene, seconds: float) -> None:
        time.sleep(share * seconds)
        (scene.folder / "slides").rename(scene.folder / "hidden")
        (scene.folder / "new").rename(scene.folder / "hidden-new")

    @contextlib.contextmanager
    def arrange(scene: Scene, verb: Verb) -> Iterator[None]:
        try:
            yield
        finally:
            (scene.folder / "hidden").rename(scene.folder / "slides")
            (scene.folder / "hidden-new").rename(scene.folder / "new")

    return Fault(f"slides vanish after {share:.0%}", "either", meanwhile=hide, arrange=arrange)


def _io(name: str, part: str, call: str, number: int, at: int, expected: str, verbs: tuple[str, ...] = ()) -> Fault:
    environment = {"FAULT_PATH": part, "FAULT_CALL": call, "FAULT_ERRNO": str(number), "FAULT_AT": str(at)}
    says = ("full",) if number == errno.ENOSPC else ()
    return Fault(
        f"{name}, from the {at}th {call}" if at > 1 else name,
        expected,
        says,
        Circumstances(environment),
        environment={"LD_PRELOAD": "FAULT_IO"},
        needs="gcc",
        verbs=verbs,
    )


def _locale(name: str, charmap: str, **more: str) -> Fault:
    environment = {"LC_ALL": f"{name}.{charmap}", "LANG": f"{name}.{charmap}", "LOCPATH": "LOCALES", **more}
    said = f"LC_ALL={name}.{charmap}" + "".join(f", {key}={value}" for key, value in more.items())
    return Fault(said, environment=environment, needs="localedef", reading=True)


_C = {"LC_ALL": "C", "LANG": "C"}
_NO_HOME = {"HOME": "/nonexistent", "XDG_CACHE_HOME": "/nonexistent/cache", "LAMELLA_HOME": None}
_REFUSED_HOME = {"HOME": "/proc", "XDG_CACHE_HOME": "/proc", "TMPDIR": "/proc", "MPLCONFIGDIR": "/proc"}
EIO, ENOSPC = errno.EIO, errno.ENOSPC

FAULTS = (
    *(_full(kib) for kib in (4, 64, 256, 1024, 3072)),
    Fault("store on a full disk", "either", ("full",), arrange=_full_store, needs="root"),
    Fault(
        "TMPDIR on a full disk",
        circumstances=Circumstances({"TMPDIR": "TMP-FULL"}),
        arrange=_full_temporary,
        needs="root",
    ),
    Fault("OUT on a read-only disk", "refused", ("Read-only", "--out"), arrange=_read_only_out, needs="root"),
    Fault(
        "OUT closed to this user",
        "refused",
        ("Permission denied", "may not"),
        Circumstances(uid=NOBODY),
        arrange=_closed_to_nobody,
        needs="root",
    ),
    Fault("slides, bags and run on a read-only disk", arrange=_read_only_sources, needs="root"),
    Fault(
        "a slide closed to this user",
        "either",
        ("S-03", "N-1", "slide"),
        Circumstances(uid=NOBODY),
        arrange=_slides_closed_to_nobody,
        needs="root",
    ),
    Fault("a current folder that is read-only", arrange=_read_only_folder, needs="root", reading=True),
    Fault(
        "a current folder whose name is not UTF-8",
        "either",
        ("not UTF-8",),
        arrange=_folder_not_utf8,
        reading=True,
    ),
    Fault("a slide whose name is not UTF-8", "refused", ("Rename",), arrange=_slide_not_utf8, verbs=("predict",)),
    *(Fault(f"OUT removed after {share:.0%}", "either", meanwhile=_remove_out(share)) for share in (0.2, 0.5, 0.8)),
    _hide_slides(0.1),
    _hide_slides(0.5),
    Fault(
        "another user than root",
        circumstances=Circumstances(uid=NOBODY),
        arrange=_of_nobody,
        needs="root",
        reading=True,
    ),
    Fault(
        "another user, no HOME, store unwritable",
        "either",
        circumstances=Circumstances({"HOME": None, "XDG_CACHE_HOME": None}, uid=NOBODY),
        arrange=_of_nobody,
        needs="root",
        reading=True,
    ),
    Fault("HOME absent, no store", "either", ("LAMELLA_HOME", "store"), Circumstances(_NO_HOME), reading=True),
    Fault("HOME, cache and TMPDIR unwritable", circumstances=Circumstances(_REFUSED_HOME), reading=True),
    Fault("TMPDIR absent", circumstances=Circumstances({"TMPDIR": "/nonexistent"}), reading=True),
    Fault("no /dev/shm", arrange=_no_shared_memory, needs="root"),
    Fault("umask 077", circumstances=Circumstances(umask=0o077)),
    Fault("umask 000", circumstances=Circumstances(umask=0o000)),
    Fault("standard streams closed", circumstances=Circumstances(streams="closed"), reading=True),
    Fault("nobody reads standard output", "either", circumstances=Circumstances(streams="no reader"), reading=True),
    Fault("COLUMNS=1", circumstances=Circumstances({"COLUMNS": "1", "LINES": "1"}), reading=True),
    Fault("TZ=Pacific/Chatham", circumstances=Circumstances({"TZ": "Pacific/Chatham"})),
    Fault("64 open files", "either", ("open", "file"), Circumstances(n_files=64)),
    Fault("24 open files", "either", ("open", "file"), Circumstances(n_files=24)),
    *(
        Fault(f"{mib} MiB of memory beyond the start", "either", ("memory",), Circumstances(n_bytes=mib << 20))
        for mib in (16, 200, 1000)
    ),
    _io("EIO reading slide S-03", "S-03.tif", "read", EIO, 1, "either"),
    _io("EIO reading slide S-03", "S-03.tif", "read", EIO, 30, "either"),
    _io("short reads of slides", ".tif", "read", 0, 1, "works", _QUICK),
    _io("EIO reading the cohort", "cohort.csv", "read", EIO, 1, "either"),
    _io("EIO reading bags", "bags/", "read", EIO, 3, "either", ("train", "inspect")),
    _io("EIO reading the run", "finished/", "read", EIO, 1, "either", ("predict", "export", "heatmap")),
    _io("EIO reading the run", "finished/", "read", EIO, 40, "either", ("predict", "export", "heatmap")),
    _io("EIO reading OUT", "scene/out/", "read", EIO, 5, "either"),
    *(_io("EIO writing OUT", "scene/out", "write", EIO, at, "either") for at in (1, 25)),
    *(_io("ENOSPC writing OUT", "scene/out", "write", ENOSPC, at, "either") for at in (3, 60)),
    _io("EIO syncing OUT", "scene/out", "sync", EIO, 1, "either", _QUICK),
    _io("EIO in the store", "/store/", "read", EIO, 1, "either", ("extract", "run", "predict", "export", "cka")),
    _io("EIO writing the store", "/store/", "write", EIO, 1, "either", ("extract", "run")),
    Fault("LC_ALL=C", environment=_C, reading=True),
    Fault(
        "LC_ALL=POSIX, PYTHONUTF8=0, no coercion",
        reading=True,
        environment={"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    ),
    _locale("de_DE", "UTF-8"),
    _locale("de_DE", "ISO-8859-1", PYTHONUTF8="0"),
    Fault("PYTHONOPTIMIZE=1", environment={"PYTHONOPTIMIZE": "1"}, reading=True),
    Fault("PYTHONOPTIMIZE=2", environment={"PYTHONOPTIMIZE": "2"}, reading=True),
)


def find_missing(fault: Fault, no_mount: str, library: Path | None) -> str:
    """Return why a fault cannot be made here, or nothing."""
    if fault.needs == "root":
        return no_mount
    if fault.needs == "gcc" and library is None:
        return "no C compiler (gcc) here"
    if fault.needs == "localedef" and shutil.which("localedef") is None:
        return "no localedef here"
    return ""


def make_locales(folder: Path) -> str:
    """Make the German locales; return why they cannot be made, or nothing."""
    folder.mkdir(exist_ok=True)
    for charmap in ("UTF-8", "ISO-8859-1"):
        command = ["localedef", "-i", "de_DE", "-f", charmap, str(folder / f"de_DE.{charmap}")]
        made = subprocess.run(command, capture_output=True, check=False)
        if not (folder / f"de_DE.{charmap}").is_dir():
            return f"localedef makes no de_DE.{charmap} here: {made.stderr.decode(errors='replace')[:80].strip()}"
    return ""
