"""Kills and stops verbs at random moments, runs them again, and compares what comes out with an undisturbed run.

    python -m tests.kills.campaign --kills 20 --stops 8 --out kills.json

Each verb runs in a process forked from this one, in a session of its own. Half of the kills (SIGKILL) strike it alone,
so that children that outlive it show, half its whole group; stops are SIGINT and SIGTERM in turn, to it alone and to
the group in turn. The moments are drawn evenly over the time that the undisturbed run took; the seed is fixed. What may
differ between two undisturbed runs (times, salts and what is hashed from them) is left out of the comparison, by name;
any other difference between two undisturbed runs is a fault of its own.
"""

import argparse
import csv
import hashlib
import json
import os
import platform
import random
import re
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from lamella.stopping import STOPPED
from tests.kills.process import Ended, Strike, run_verb
from tests.kills.verbs import VERBS, Verb, list_arguments, prepare

# Keys of JSON and attributes of HDF5 that differ between two undisturbed runs: times, what is hashed from salts, and
# how much of the work this time did.
VOLATILE = re.compile(
    r"^(extraction|finished|started|created|date|seconds.*|.*_seconds|.*seconds_per_tile|.*_salt|salt|.*sha256|files)$"
)
TIMED = re.compile(r"(^|/)costs\.json$|^local/|\.safetensors$|(^|/)seen\.json$")
# In pages: dates, and times taken.
SAID_TIMES = re.compile(rb"\d{4}-\d\d-\d\d(T| )?[\d:+]*|\d+(\.\d+)? ?(ms|s|min|h)\b|data:image/svg[^\"]*")
SALTED = re.compile(r"[0-9a-f]{16}")
CODES = {signal.SIGKILL: -9, signal.SIGINT: 130, signal.SIGTERM: 143}


def digest_folder(folder: Path, timed: str) -> dict[str, str]:
    """Return a hash of each file's content, hidden ones too, without what two undisturbed runs differ in.

    Args:
        folder: Of what came out.
        timed: Pattern of files of which only the presence counts.
    """
    digests = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file():
            digests[name] = "there" if TIMED.search(name) or re.search(timed, name) else _digest(path)
    return digests


def _digest(path: Path) -> str:
    # The file of a fine-tuned encoder holds hashes under a salt, and its fingerprint is that of the file.
    but = "fingerprint" if "/tuned/" in path.as_posix() else ""
    if path.suffix == ".json":
        content = json.dumps(drop_volatile(json.loads(path.read_text()), but), sort_keys=True).encode()
    elif path.suffix == ".csv":
        with path.open(newline="") as stream:
            rows = list(csv.DictReader(stream))
        content = json.dumps(drop_volatile(rows, but)).encode()
    elif path.suffix == ".h5":
        content = _read_h5(path, but)
    elif path.suffix == ".html":
        content = SAID_TIMES.sub(b"", path.read_bytes())
    else:
        content = path.read_bytes()
    return hashlib.sha256(content).hexdigest()


def drop_volatile(value: object, but: str = "") -> object:
    """Return JSON without what two undisturbed runs differ in."""
    if isinstance(value, dict):
        return {key: drop_volatile(inner, but) for key, inner in value.items() if _is_stable(str(key), but)}
    if isinstance(value, list):
        return [drop_volatile(inner, but) for inner in value]
    return "salted" if isinstance(value, str) and SALTED.fullmatch(value) else value


def _is_stable(key: str, but: str) -> bool:
    return not VOLATILE.search(key) and key != but


def _read_h5(path: Path, but: str) -> bytes:
    with h5py.File(path) as file:
        parts = [repr(sorted((k, str(v)) for k, v in file.attrs.items() if _is_stable(k, but)))]
        for name in sorted(set(file) - {"seen_patients"}):  # salted hashes
            parts += [name, hashlib.sha256(np.asarray(file[name]).tobytes()).hexdigest()]
    return repr(parts).encode()


class Trial:
    """A verb that is struck again and again in one folder.

    Args:
        verb: Which.
        folder: Of the campaign.
        rng: Draws the moments.
    """

    def __init__(self, verb: Verb, folder: Path, rng: random.Random) -> None:
        self._verb, self._folder, self._rng = verb, folder, rng
        self._out, self._store = folder / "out", Path(os.environ["LAMELLA_HOME"])
        self._temporary = Path(os.environ["TMPDIR"])
        self.faults: list[dict[str, Any]] = []
        self.n_struck, self.n_tried = {"kills": 0, "stops": 0}, 0
        self._run_whole()  # what it needs of the store is there from now on
        self._expected, self.seconds = self._run_whole()
        again, _ = self._run_whole()
        unstable = sorted(name for name in self._expected if self._expected[name] != again.get(name))
        if unstable:
            self.faults.append({"undisturbed runs differ": unstable[:20]})
        self._expected |= dict.fromkeys(unstable, "unstable")

    def strike(self, kind: str, by: signal.Signals, *, whole_group: bool) -> None:
        """Strike the verb at a random moment, run it again, and note what is amiss."""
        self._clear()
        self.n_tried += 1
        after = self._rng.uniform(0.02, 0.98) * self.seconds
        struck = run_verb(list_arguments(self._verb), self._folder, Strike(after, by, whole_group))
        self.n_struck[kind] += struck.was_struck
        if not struck.was_struck:  # the machine was busier when the undisturbed run was timed
            self.seconds = min(self.seconds, struck.seconds)
        amiss = {"struck": self._look_at(struck, by), "alive after 2 s": list(struck.alive)}
        if kind == "stops":
            amiss["left when stopped"] = self._list_left()
        ended = run_verb(list_arguments(self._verb), self._folder)
        amiss |= {"code": ended.code, "differs": self._compare(), "left": self._list_left()}
        if any(amiss.values()):
            whom = "its group" if whole_group else "it alone"
            where = {"by": by.name, "to": whom, "after": round(after, 2), "said": ended.said[-300:]}
            self.faults.append(where | {key: value for key, value in amiss.items() if value})

    def _look_at(self, struck: Ended, by: signal.Signals) -> str:
        """Return what is wrong with how a verb that was struck ended; empty where nothing is."""
        ended_before = not struck.was_struck or struck.code == 0
        if struck.code not in (CODES[by], *([0] if ended_before else [])):
            return f"exit code {struck.code}: {struck.said[-600:]}"
        lines = struck.said.splitlines()
        if "Traceback" in struck.said or "Exception ignored" in struck.said:
            return f"said: {struck.said[-600:]}"
        if struck.code > 0 and (lines[-1:] != [STOPPED] or lines.count(STOPPED) != 1):
            return f"said: {struck.said[-600:]}"
        return ""

    def _compare(self) -> list[str]:
        got = digest_folder(self._out, self._verb.timed)
        names = {*self._expected, *got}
        return sorted(name for name in names if self._expected.get(name) not in ("unstable", got.get(name)))[:8]

    def _list_left(self) -> list[str]:
        """List temporary files below OUT and in the store, and whatever lies in TMPDIR."""
        roots = (self._out, self._store)
        left = [path for root in roots for path in root.rglob("*") if path.name.startswith(".") or ".tmp" in path.name]
        return [path.relative_to(self._folder).as_posix() for path in (*left, *self._temporary.rglob("*"))]

    def _run_whole(self) -> tuple[dict[str, str], float]:
        self._clear()
        ended = run_verb(list_arguments(self._verb), self._folder)
        assert ended.code == 0, (self._verb.name, ended.said)
        left = self._list_left()
        assert not left, (self._verb.name, left)
        return digest_folder(self._out, self._verb.timed), ended.seconds

    def _clear(self) -> None:
        for folder in (self._out, self._temporary, *([self._store] if self._verb.cold else [])):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
        if self._verb.prepared:
            shutil.copytree(self._folder / self._verb.prepared, self._out, dirs_exist_ok=True)


def try_verb(verb: Verb, folder: Path, n_kills: int, n_stops: int, seed: int) -> dict[str, Any]:
    """Kill and stop one verb, each time in a fresh folder, run it again, and compare; return the record."""
    began = time.monotonic()
    trial = Trial(verb, folder, random.Random(f"{seed} {verb.name}"))
    while (i := trial.n_struck["kills"]) < n_kills and trial.n_tried < 3 * (n_kills + n_stops):
        trial.strike("kills", signal.SIGKILL, whole_group=i % 2 == 1)
    while (i := trial.n_struck["stops"]) < n_stops and trial.n_tried < 3 * (n_kills + n_stops):
        by = signal.SIGINT if i % 2 == 0 else signal.SIGTERM
        trial.strike("stops", by, whole_group=i % 4 < 2)
    return {
        "verb": verb.name,
        "seconds": round(trial.seconds, 1),
        **trial.n_struck,
        "of": [n_kills, n_stops],
        "took": round(time.monotonic() - began),
        "faults": trial.faults,
    }


def _name_processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    names = re.findall(r"model name\s*:\s*(.*)", cpuinfo.read_text()) if cpuinfo.exists() else []
    return f"{names[0] if names else platform.processor()}, {os.cpu_count()} cores"


def main() -> None:
    """Run a campaign from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--stops", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="*", default=[""], help="names of verbs, or their beginnings")
    parser.add_argument("--out", type=Path, default=Path("kills.json"))
    given = parser.parse_args()
    import timm  # noqa: F401

    import lamella.cli
    import lamella.pipeline.run  # noqa: F401

    verbs = [verb for verb in VERBS if verb.name.startswith(tuple(given.only))]
    record: dict[str, Any] = {"date": time.strftime("%Y-%m-%d"), "processor": _name_processor(), "verbs": []}
    with tempfile.TemporaryDirectory(prefix="kills-") as name:
        folder = Path(name)
        os.environ |= {"LAMELLA_HOME": str(folder / "store"), "TMPDIR": str(folder / "tmp")}
        tempfile.tempdir = None  # the children's is the campaign's, which must stay empty
        (folder / "store").mkdir()
        (folder / "tmp").mkdir()
        prepare(folder, verbs)
        for verb in verbs:
            record["verbs"].append(try_verb(verb, folder, given.kills, given.stops, given.seed))
            found = record["verbs"][-1]
            print(found | {"faults": len(found["faults"])}, flush=True)  # noqa: T201
            given.out.write_text(json.dumps(record, indent=1))
    sys.exit(1 if any(found["faults"] for found in record["verbs"]) else 0)


if __name__ == "__main__":
    main()
