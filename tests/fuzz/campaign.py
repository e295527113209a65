"""Runs mutants in processes that may die, and classifies how each ended.

    python -m tests.fuzz.campaign --n 20000 --out fuzz.json

Each worker is forked from this process once everything is imported, takes mutants one at a time, and is bound to 2 GiB
of address space above its start; one that dies or takes longer than 30 s is replaced, and its mutant is named.
"""

import argparse
import json
import multiprocessing
import os
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path

from tests.fuzz.mutate import mutate_file
from tests.fuzz.originals import Original, make_originals
from tests.fuzz.targets import TARGETS

SECONDS, EXTRA_BYTES = 30.0, 2 << 30
GOOD = ("same", "differs", "refused")
ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class Ending:
    """How a mutant ended.

    Attributes:
        name: Of the original.
        seed: Of the mutation.
        kind: `same` or `differs` (from what the original reads), `refused` (an error of ours, one line), or a fault:
            `traceback`, `memory`, `crash`, `hang`.
        mutation: What was done to it.
        said: The refusal, or the end of the traceback.
        seconds: How long it took.
    """

    name: str
    seed: int
    kind: str
    mutation: str = ""
    said: str = ""
    seconds: float = 0.0


def run_mutant(original: Original, seed: int, folder: Path, expected: str) -> Ending:
    """Mutate a copy of an original and open it."""
    from lamella.errors import LamellaError

    copy = folder / original.path.name
    began = time.monotonic()
    if original.files:
        shutil.copytree(original.path, copy)
        mutation = mutate_file(copy / original.files[seed % len(original.files)], seed)
        mutation = f"{original.files[seed % len(original.files)]}: {mutation}"
    else:
        shutil.copyfile(original.path, copy)
        mutation = mutate_file(copy, seed)
    kind, said = "differs", ""
    try:
        if TARGETS[original.target](copy) == expected:
            kind = "same"
    except LamellaError as error:
        said = str(error)
        kind = "refused" if "\n" not in said else "traceback"
    except MemoryError:
        kind, said = "memory", traceback.format_exc()[-1500:]
    except Exception:  # noqa: BLE001 - what escapes is what is looked for
        kind, said = "traceback", traceback.format_exc()[-1500:]
    return Ending(original.name, seed, kind, mutation, said.replace(str(folder), "."), time.monotonic() - began)


def _work(pipe: Connection, originals: Sequence[Original], expected: dict[str, str]) -> None:
    """Take mutants from a pipe and answer with their endings."""
    import torch

    torch.set_num_threads(1)
    os.close(0)
    with Path(os.devnull).open("w") as sink:
        os.dup2(sink.fileno(), 1)
        os.dup2(sink.fileno(), 2)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + EXTRA_BYTES, resource.RLIM_INFINITY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    by_name = {original.name: original for original in originals}
    while True:
        try:
            name, seed = pipe.recv()
        except EOFError:
            return
        with tempfile.TemporaryDirectory(prefix="mutant-") as folder:
            pipe.send(run_mutant(by_name[name], seed, Path(folder), expected[name]))


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

    def give(self, job: tuple[str, int]) -> None:
        """Hand it a mutant."""
        self.job, self.began = job, time.monotonic()
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
        if time.monotonic() - self.began > SECONDS:
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
    """Share out n mutants among the originals."""
    total = sum(original.share for original in originals)
    jobs = []
    for original in originals:
        count = max(1, round(n * original.share / total))
        jobs += [(original.name, first_seed + i) for i in range(count)]
    return jobs


def run_campaign(
    originals: Sequence[Original], n: int, *, first_seed: int = 0, n_workers: int = 1
) -> tuple[list[Ending], dict[str, str]]:
    """Run n mutants; return how each ended, and what the originals read."""
    import_all()
    expected = {}
    for original in originals:
        with tempfile.TemporaryDirectory(prefix="original-") as folder:
            copy = Path(folder) / original.path.name
            (shutil.copytree if original.files else shutil.copyfile)(original.path, copy)
            expected[original.name] = _read_aside(original, copy)
    waiting = plan_mutants(originals, n, first_seed)[::-1]
    workers, endings = [Worker(originals, expected) for _ in range(n_workers)], []
    try:
        while waiting or any(worker.job for worker in workers):
            for worker in workers:
                if worker.job is None and waiting:
                    worker.give(waiting.pop())
                ending = worker.take() if worker.job else None
                if ending is not None:
                    endings.append(ending)
    finally:
        for worker in workers:
            worker.stop()
    return endings, expected


def import_all() -> None:
    """Import what the targets import, so that forked workers need not."""
    import timm  # noqa: F401

    import lamella.pipeline
    import lamella.report.page
    import lamella.report.study.page
    import lamella.study.exported  # noqa: F401


def _read_aside(original: Original, copy: Path) -> str:
    """Read an original in a process of its own: forked workers must not inherit its threads."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()

    def read() -> None:
        from lamella.errors import LamellaError

        try:
            theirs.send(TARGETS[original.target](copy))
        except LamellaError as error:
            theirs.send(f"refused: {error}")

    process = context.Process(target=read)
    process.start()
    theirs.close()
    try:
        return str(ours.recv())
    except EOFError as error:
        raise RuntimeError(f"the original '{original.name}' is not read") from error
    finally:
        process.join()


def tabulate(endings: Sequence[Ending]) -> dict[str, dict[str, int]]:
    """Count the endings of each original by kind."""
    counts: dict[str, Counter[str]] = {}
    for ending in endings:
        counts.setdefault(ending.name, Counter())[ending.kind] += 1
    return {name: dict(sorted(kinds.items())) for name, kinds in counts.items()}


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
    parser.add_argument("--only", default="", help="originals whose name holds this")
    parser.add_argument("--make", type=Path)
    parser.add_argument("--folders", action="store_true")
    parser.add_argument("--no-folders", action="store_true", help="leave runs, studies and exports out: quicker")
    parser.add_argument("--shared", type=Path, default=None)
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
        endings, expected = run_campaign(originals, given.n, first_seed=given.first_seed, n_workers=given.workers)
    counts = tabulate(endings)
    faults = [asdict(ending) for ending in endings if ending.kind not in GOOD]
    differs = [asdict(ending) for ending in endings if ending.kind == "differs"]
    slowest = sorted(endings, key=lambda ending: -ending.seconds)[:20]
    record = {
        "n": len(endings),
        "seconds": round(time.monotonic() - began),
        "processor": platform.processor(),
        "total": dict(Counter(ending.kind for ending in endings)),
        "unread": sorted(name for name, read in expected.items() if read.startswith("refused")),
        "counts": counts,
        "faults": faults,
        "slowest": [asdict(ending) for ending in slowest],
        "differs": differs,
    }
    given.out.write_text(json.dumps(record, indent=1))
    for name, kinds in counts.items():
        print(f"{name:28s} {kinds}")  # noqa: T201
    print(f"{len(endings):,} mutants in {record['seconds']} s: {record['total']}; {len(faults)} faults")  # noqa: T201
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
