"""Where verbs are struck: the drawn cohorts, the folder that results go to, and what is done to both."""

import contextlib
import ctypes
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np

from tests.kills.campaign import VOLATILE, digest_folder, drop_volatile
from tests.machine.server import NOBODY, Circumstances, Ended, Server
from tests.machine.verbs import Verb, draw_scene

_SOURCE = Path(__file__).with_name("fault_io.c")


class Scene:
    """The folder of a campaign.

    Attributes:
        folder: Where verbs run; `slides`, `new`, `bags`, `finished`, `lesions` lie in it.
        out: Where their results go.
        store: `LAMELLA_HOME`.
        said: What they say; no fault strikes it.
    """

    def __init__(self, folder: Path, *, cut: bool = False) -> None:
        self.folder = folder / "scene"
        self.out, self.store, self.said = self.folder / "out", folder / "store", folder / "said"
        self._kept_store = folder / "kept-store"
        self._servers: dict[str, Server] = {}
        self._expected: dict[str, tuple[dict[str, str], frozenset[str], float]] = {}
        for path in (self.folder, self.store, self.said):
            path.mkdir(parents=True)
        folder.chmod(0o755)
        os.environ["LAMELLA_HOME"] = str(self.store)
        draw_scene(
            self.folder,
            None if cut else lambda words: self.server().run(words, self.folder, self.said),
            n_slides=6 if cut else 9,
        )
        shutil.copytree(self.store, self._kept_store)

    def server(self, environment: dict[str, str] | None = None, options: tuple[str, ...] = ()) -> Server:
        """Return the server that was started so; at most two stand at a time."""
        key = json.dumps([environment or {}, options])
        if key not in self._servers:
            plain = json.dumps([{}, []])
            for other in [name for name in self._servers if name != plain]:
                self._servers.pop(other).close()
            self._servers[key] = Server(environment, options)
        return self._servers[key]

    def fresh(self, verb: Verb) -> None:
        """Make `out` and the store anew."""
        shutil.rmtree(self.out, ignore_errors=True)
        if verb.prepared:
            shutil.copytree(self.folder / verb.prepared, self.out)
        self.restore_store()

    def restore_store(self) -> None:
        """Fill the store as it was after the scene was drawn."""
        empty(self.store)
        shutil.copytree(self._kept_store, self.store, dirs_exist_ok=True)

    def run(self, verb: Verb, circumstances: Circumstances | None = None) -> Ended:
        """Run a verb on the scene as it is."""
        return self.server().run(verb.fill("out"), self.folder, self.said, circumstances)

    def expect(self, verb: Verb) -> tuple[dict[str, str], frozenset[str], float]:
        """Return the digests of an undisturbed run, the names that differ between two such, and its seconds."""
        if verb.name not in self._expected:
            found = []
            for _ in range(2):
                self.fresh(verb)
                ended = self.run(verb)
                assert ended.code == 0, (verb.name, ended.stderr)
                found.append(digest_results(self.out))
            unstable = frozenset(name for name in found[0] if found[0][name] != found[1].get(name))
            self._expected[verb.name] = (found[0], unstable, ended.seconds)
        return self._expected[verb.name]

    def find_differences(self, verb: Verb) -> list[str]:
        """List the files that are not as after an undisturbed run."""
        expected, unstable, _ = self.expect(verb)
        got = digest_results(self.out)
        names = sorted(name for name in {*expected, *got} if expected.get(name) != got.get(name))
        return [name for name in names if name not in unstable]

    def close(self) -> None:
        """End the servers."""
        for server in self._servers.values():
            server.close()


def digest_results(folder: Path) -> dict[str, str]:
    """Return a hash of each file without what may differ, such as the notes of a run.

    A run that goes on notes what it read of the slides that were left, and not of those that were finished before.
    """
    digests = digest_folder(folder, "^$") if folder.exists() else {}
    for path in [*folder.rglob("run.json"), *folder.rglob("model.json")] if folder.exists() else []:
        content = drop_volatile(json.loads(path.read_text()))
        assert isinstance(content, dict)
        content.pop("notes", None)
        content.pop("made", None)  # a local date
        digests[path.relative_to(folder).as_posix()] = json.dumps(content, sort_keys=True)
    for path in folder.rglob("*.h5") if folder.exists() else []:
        digests[path.relative_to(folder).as_posix()] = _digest_h5(path)
    return digests


def _digest_h5(path: Path) -> str:
    """Hash a bag without what its encoder's check found: one kept in the store was made on other tiles."""
    with h5py.File(path) as file:
        kept = {key: str(file.attrs[key]) for key in sorted(file.attrs) if not VOLATILE.search(f"{key}")}
        kept = {key: value for key, value in kept.items() if not key.startswith("check_")}
        arrays = [(name, hashlib.sha256(np.asarray(file[name]).tobytes()).hexdigest()) for name in sorted(file)]
    return repr((kept, arrays))


def empty(folder: Path) -> None:
    """Remove what is in a folder, which may be a mount."""
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def find_half_files(folder: Path) -> list[str]:
    """List files that bear a final name and cannot be read, and temporary files that stayed."""
    found = []
    for path in sorted(folder.rglob("*")) if folder.is_dir() else []:
        name = path.relative_to(folder).as_posix()
        if path.is_file() and any(part.startswith(".") for part in Path(name).parts):
            found.append(f"left: {name}")
        elif path.is_file() and not _is_whole(path):
            found.append(f"half: {name}")
    return found


def _is_whole(path: Path) -> bool:
    try:
        content = path.read_bytes()
        if path.suffix == ".json":
            json.loads(content)
        elif path.suffix == ".h5":
            with h5py.File(path) as file:
                for name in file:
                    np.asarray(file[name])
        elif path.suffix in (".csv", ".svg", ".html"):
            return content.rstrip(b" ").endswith(b"\n") or content.rstrip().endswith(b">")
        elif path.suffix == ".png":
            return b"IEND" in content[-16:]
        elif path.suffix == ".safetensors":
            size = int.from_bytes(content[:8], "little")
            ends = [part["data_offsets"][1] for part in json.loads(content[8 : 8 + size]).values() if "dtype" in part]
            return len(content) == 8 + size + max(ends)
    except (OSError, ValueError, KeyError):
        return False
    return len(content) > 0


def can_mount() -> str:
    """Return why nothing can be mounted here, or nothing."""
    if os.geteuid() != 0:
        return "not root: nothing can be mounted, and nobody else can be become"
    if sys.platform != "linux" or not all(shutil.which(tool) for tool in ("mount", "umount")):
        return "no mount here"
    if ctypes.CDLL(None, use_errno=True).unshare(0x00020000) != 0:  # CLONE_NEWNS
        return "no mount namespace can be made here"
    made = subprocess.run(["mount", "--make-rprivate", "/"], capture_output=True, check=False)
    return "" if made.returncode == 0 else "mounts cannot be made private here"


@contextlib.contextmanager
def mounted(where: Path, options: str, *, keep: bool = False) -> Iterator[None]:
    """Mount a tmpfs on a folder; with `keep`, copy into it first what the folder holds."""
    where.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        held = Path(name) / "held"
        shutil.copytree(where, held) if keep else held.mkdir()
        _call("mount", "-t", "tmpfs", "-o", "size=1g", "tmpfs", str(where))
        shutil.copytree(held, where, dirs_exist_ok=True)
    try:
        remount(where, options)
        yield
    finally:
        _call("umount", "-l", str(where))


def remount(where: Path, options: str) -> None:
    """Change a mount's size, or whether it can be written."""
    _call("mount", "-o", f"remount,{options}", str(where))


def find_used_kib(where: Path) -> int:
    """Return what a mounted tmpfs holds."""
    found = os.statvfs(where)
    return (found.f_blocks - found.f_bfree) * found.f_frsize // 1024


@contextlib.contextmanager
def bound_read_only(where: Path) -> Iterator[None]:
    """Make a folder read-only, for root too."""
    _call("mount", "--bind", str(where), str(where))
    try:
        _call("mount", "-o", "remount,bind,ro", str(where))
        yield
    finally:
        _call("umount", "-l", str(where))


def let_others_run_python() -> None:
    """Let another user reach the interpreter, where it lies in a home that is closed, in this mount namespace alone."""
    real = Path(sys.executable).resolve()
    for folder in reversed(real.parents):
        if not folder.stat().st_mode & 0o001:
            inner = folder / real.relative_to(folder).parts[0]
            with tempfile.TemporaryDirectory() as name:
                _call("mount", "--bind", str(inner), name)
                _call("mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", str(folder))
                inner.mkdir()
                _call("mount", "--bind", name, str(inner))
                _call("umount", "-l", name)
            return


def give(folder: Path, uid: int = NOBODY) -> None:
    """Give a folder and all in it to a user."""
    for path in (folder, *folder.rglob("*")):
        os.chown(path, uid, uid)


def build_fault_library(folder: Path) -> Path | None:
    """Compile the library for `LD_PRELOAD`; None where there is no compiler."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None or sys.platform != "linux":
        return None
    name = hashlib.sha256(_SOURCE.read_bytes()).hexdigest()[:8]
    library = folder / f"fault_io-{name}.so"
    command = [compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(_SOURCE), "-ldl"]
    return library if subprocess.run(command, capture_output=True, check=False).returncode == 0 else None


def _call(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)
