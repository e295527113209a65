"""Runs mutants in processes that may die, and classifies how each ended.

    python -m tests.fuzz.campaign --n 20000 --out fuzz.json

Each worker is forked from this process once everything is imported, and takes mutants one at a time. The most memory
it held is read after each; its address space is bound, so that a mutant cannot take the machine's. One that dies or
hangs is replaced. A mutant hangs where it takes 30 s while the worker and its children are at work that long, or eight
times as long in any case: a machine that is busy with other work stretches the clock, and is not what is looked for.
`--docs` writes the summary of the record into a page.
"""

import argparse
import json
import math
import multiprocessing
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path

from tests.fuzz.mutate import mutate_file
from tests.fuzz.originals import Original, make_originals
from tests.fuzz.record import FAULTS, REASONS, make_record, write_docs
from tests.fuzz.targets import TARGETS

SECONDS, MOST_BYTES, BOUND_BYTES = 30.0, 2 << 30, 5 << 30  # address space: pyarrow and threads reserve 2 GiB unused
ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class Ending:
    """How a mutant ended.

    Attributes:
        name: Of the original.
        seed: Of the mutation.
        kind: `same` or `differs` (from what comes of the original), `refused` (an error of ours, one line), or a fault:
            one of `tests.fuzz.record.FAULTS`.
        target: What opened it.
        mutation: What was done to it.
        said: The refusal, or the end of the traceback.
        seconds: How long it took.
        extra_bytes: The most memory that the process held above its start.
        is_bound: Whether more address space was asked for than there was.
    """

    name: str
    seed: int
    kind: str
    target: str = ""
    mutation: str = ""
    said: str = ""
    seconds: float = 0.0
    extra_bytes: int = 0
    is_bound: bool = False


def run_mutant(original: Original, seed: int, folder: Path, expected: str) -> Ending:
    """Mutate a copy of an original and open it."""
    from lamella.errors import LamellaError

    began = time.monotonic()
    kind, mutation, said, is_bound = "harness", "", "", False
    try:
        opened = copy_original(original, folder)
        changed = folder / original.path.name
        if original.files:
            file = original.files[seed % len(original.files)]
            mutation = f"{file}: {mutate_file(changed / file, seed)}"
        else:
            mutation = mutate_file(changed, seed)
        kind = "traceback"
        is_same = TARGETS[original.target](opened) == expected
        kind = "same" if is_same else "differs" if original.target in REASONS else "unnoticed"
    except LamellaError as error:
        said, is_bound = str(error), _is_of_memory(error)
        kind = "refused" if "\n" not in said else "traceback"
    except MemoryError:
        kind, said = "memory", traceback.format_exc()[-2500:]
    except Exception:  # noqa: BLE001 - what escapes is what is looked for
        said = traceback.format_exc()[-2500:]
    ending = Ending(original.name, seed, kind, original.target, mutation, said.replace(str(folder), "."))
    return replace(ending, seconds=time.monotonic() - began, is_bound=is_bound)


def copy_original(original: Original, folder: Path) -> Path:
    """Copy an original into a folder; return what is opened."""
    copy = folder / original.path.name
    if original.files:
        shutil.copytree(original.path, copy)
    else:
        shutil.copyfile(original.path, copy)
    return copy / original.opened if original.opened else copy


def _is_of_memory(error: BaseException | None) -> bool:
    """Tell whether an error comes of memory that was not to be had."""
    while error is not None:
        if isinstance(error, MemoryError):
            return True
        error = error.__cause__ or error.__context__
    return False


def _read_bytes(of: str) -> int:
    """Read a number of this process: `VmHWM`, the most memory it has held since `_forget_peak`, or `VmRSS`."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition(f"{of}:")[2].split()[0]) << 10


def _forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def _work(pipe: Connection, originals: Sequence[Original], expected: dict[str, str]) -> None:
    """Take mutants from a pipe and answer with their endings."""
    import torch

    torch.set_num_threads(1)
    os.close(0)
    with Path(os.devnull).open("w") as sink:
        os.dup2(sink.fileno(), 1)
        os.dup2(sink.fileno(), 2)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + BOUND_BYTES, resource.RLIM_INFINITY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    by_name = {original.name: original for original in originals}
    _start_children()
    pipe.send(None)
    start = _read_bytes("VmRSS")
    while True:
        try:
            name, seed = pipe.recv()
        except EOFError:
            return
        _forget_peak()
        with tempfile.TemporaryDirectory(prefix="mutant-") as folder:
            ending = run_mutant(by_name[name], seed, Path(folder), expected[name])
        ending = replace(ending, extra_bytes=max(0, _read_bytes("VmHWM") - start))
        pipe.send(replace(ending, kind="memory") if ending.extra_bytes > MOST_BYTES else ending)


def _start_children() -> None:
    """Start the processes that open slides and HDF5 files first, so that no mutant waits for them."""
    from lamella.features.h5_child import CHILD as H5
    from lamella.slide.child import CHILD as SLIDE

    for child in (H5, SLIDE):
        child.ask(path="/absent", slide_mpp=None, image=None)


def _count_seconds(process: int) -> float:
    """Return the processor time of a process and its living children; 0 where it has died."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    except OSError:
        return 0.0
    own = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return own + sum(_count_seconds(int(child)) for child in children)


class Worker:
    """A process that opens mutants, replaced when it dies."""

    def __init__(self, originals: Sequence[Original], expected: dict[str, str]) -> None:
        self._given = originals, expected
        self._start()
        self.job: tuple[str, int] | None = None
        self.began = 0.0

    def _start(self) -> None:
        context = multiprocessing.get_context("fork")
        self.pipe, theirs = context.Pipe()
        self._process = context.Process(target=_work, args=(theirs, *self._given), daemon=True)
        self._process.start()
        theirs.close()
        self.pipe.recv()  # it is ready

    def give(self, job: tuple[str, int]) -> None:
        """Hand it a mutant."""
        self.job, self.began = job, time.monotonic()
        self._began_seconds = _count_seconds(self._process.pid or 0)
        self.pipe.send(job)

    def take(self) -> Ending | None:
        """Return the ending of its mutant, or None while it is at work."""
        assert self.job is not None
        try:
            if self.pipe.poll(0.005):
                ending: Ending = self.pipe.recv()
                self.job = None
                return ending
        except (EOFError, OSError):
            return self._replace("crash")
        elapsed = time.monotonic() - self.began
        if elapsed > SECONDS and (
            elapsed > 8 * SECONDS or _count_seconds(self._process.pid or 0) - self._began_seconds > SECONDS
        ):
            return self._replace("hang")
        return None

    def _replace(self, kind: str) -> Ending:
        assert self.job is not None
        self._process.kill()
        self._process.join()
        name, seed = self.job
        self.job = None
        code = self._process.exitcode
        self._start()
        return Ending(name, seed, kind, said=f"exit code {code}", seconds=time.monotonic() - self.began)

    def stop(self) -> None:
        """End it."""
        self.pipe.close()
        self._process.kill()
        self._process.join()


def plan_mutants(originals: Sequence[Original], n: int, first_seed: int) -> list[tuple[str, int]]:
    """Share out n mutants, or a few more, among the originals."""
    total = sum(original.share for original in originals)
    jobs = []
    for original in originals:
        count = math.ceil(n * original.share / total)
        jobs += [(original.name, first_seed + i) for i in range(count)]
    return sorted(jobs, key=lambda job: job[1])  # so that a part of a campaign is of all kinds


def run_campaign(
    originals: Sequence[Original], n: int, *, first_seed: int = 0, n_workers: int = 1, minutes: float = math.inf
) -> tuple[list[Ending], dict[str, str]]:
    """Run n mutants, or as many as the minutes allow; return how each ended, and what the originals read."""
    import_all()
    began = time.monotonic()
    expected = _read_originals(originals)
    waiting = plan_mutants(originals, n, first_seed)[::-1]
    workers, endings = [Worker(originals, expected) for _ in range(n_workers)], []
    try:
        while waiting or any(worker.job for worker in workers):
            if time.monotonic() - began > 60 * minutes:
                waiting.clear()
            for worker in workers:
                if worker.job is None and waiting:
                    worker.give(waiting.pop())
                ending = worker.take() if worker.job else None
                if ending is None:
                    continue
                job = ending.name, ending.seed
                endings.append(ending)
                if len(endings) % 500 == 0 or ending.kind in FAULTS:
                    print(len(endings), ending.kind, *job, ending.said[-300:], flush=True)  # noqa: T201
    finally:
        for worker in workers:
            worker.stop()
    return endings, expected


def import_all() -> None:
    """Import what the targets import, so that forked workers need not."""
    import timm  # noqa: F401


def _read_originals(originals: Sequence[Original]) -> dict[str, str]:
    """Read the originals in a process of its own: forked workers must not inherit its threads."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()

    def read() -> None:
        from lamella.errors import LamellaError

        _start_children()
        for original in originals:
            with tempfile.TemporaryDirectory(prefix="original-") as folder:
                try:
                    theirs.send(TARGETS[original.target](copy_original(original, Path(folder))))
                except LamellaError as error:
                    theirs.send(f"refused: {error}")

    process = context.Process(target=read)
    process.start()
    theirs.close()
    expected: dict[str, str] = {}
    try:
        for original in originals:
            expected[original.name] = str(ours.recv())
    except EOFError as error:
        name = originals[len(expected)].name
        raise RuntimeError(f"the original '{name}' is not read") from error
    finally:
        process.join()
    return expected


def make_aside(folder: Path, *, with_folders: bool, shared: Path | None) -> list[Original]:
    """Make the originals in a process of its own, whose libraries leave their threads behind there."""
    command = [sys.executable, "-m", "tests.fuzz.campaign", "--make", str(folder)]
    command += (["--folders"] if with_folders else []) + (["--shared", str(shared)] if shared else [])
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)])}
    subprocess.run(command, cwd=ROOT, check=True, env=environment, stdout=subprocess.DEVNULL)
    listed = json.loads((folder / "originals.json").read_text())
    return [Original(**(one | {"path": Path(one["path"]), "files": tuple(one["files"])})) for one in listed]


def main() -> None:
    """Run a campaign from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=20_000)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--out", type=Path, default=Path("fuzz.json"))
    parser.add_argument("--minutes", type=float, default=math.inf, help="stop sooner")
    parser.add_argument("--only", default="", help="originals whose name holds this")
    parser.add_argument("--make", type=Path)
    parser.add_argument("--folders", action="store_true")
    parser.add_argument("--no-folders", action="store_true", help="leave runs, studies and exports out: quicker")
    parser.add_argument("--shared", type=Path, default=None)
    parser.add_argument("--docs", type=Path, default=None, help="page that the summary is written into")
    given = parser.parse_args()
    if given.make:
        originals = make_originals(given.make, with_folders=given.folders, shared=given.shared)
        listed = [asdict(original) | {"path": str(original.path)} for original in originals]
        (given.make / "originals.json").write_text(json.dumps(listed))
        return
    shared = ROOT.parent / "shared" / "data"
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        known = shared if shared.is_dir() else None
        originals = make_aside(Path(folder), with_folders=not given.no_folders, shared=known)
        originals = [original for original in originals if given.only in original.name]
        how = {"first_seed": given.first_seed, "n_workers": given.workers, "minutes": given.minutes}
        endings, expected = run_campaign(originals, given.n, **how)
    record = make_record([asdict(ending) for ending in endings], expected)
    record |= {"seconds": round(time.monotonic() - began), "first_seed": given.first_seed, "workers": given.workers}
    given.out.write_text(json.dumps(record, indent=1))
    if given.docs:
        write_docs(record, given.docs)
    for name, kinds in record["counts"].items():
        print(f"{name:34s} {kinds}")  # noqa: T201
    n_faults = len(record["faults"])
    print(f"{len(endings):,} mutants in {record['seconds']} s: {record['total']}; {n_faults} faults")  # noqa: T201
    sys.exit(1 if n_faults else 0)


if __name__ == "__main__":
    main()
