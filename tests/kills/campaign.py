"""Kills verbs at random moments, runs them again, and compares what comes out with an undisturbed run.

    python -m tests.kills.campaign --kills 20 --out kills.json

Each verb runs in a process forked from this one, in a session of its own, so that a kill takes its children too. The
moments are drawn evenly over the time that the undisturbed run took; the seed is fixed. What may differ between two
undisturbed runs (times, salts and what is hashed from them) is left out of the comparison, by name.
"""

import argparse
import hashlib
import json
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import yaml

from tests.tiny import draw_cohort, draw_tissue, save_slide

ENCODER = ["--encoder", "efficientnet-lite0@2", "--tile-px", "64", "--mpp", "0.5", "--quiet"]
# Keys of JSON and attributes of HDF5 that differ between two undisturbed runs.
VOLATILE = re.compile(
    r"seconds|finished|started|created|date|time|salt|sha256|files|seen|host|n_kept|n_encoded|extraction|costs?$"
)
SKIPPED = re.compile(r"\.html$|costs\.json$|local/|README\.md$|\.safetensors$|seen\.json$")


@dataclass(frozen=True, slots=True)
class Verb:
    """A command that is killed.

    Attributes:
        name: What it is called in the record.
        arguments: After `lamella`; `OUT` stands for its folder.
        prepared: Folder, beside, that is copied to `OUT` first.
        cold: Whether the store of compiled networks is emptied before each time.
        n_slides: How many slides its cohort has.
    """

    name: str
    arguments: tuple[str, ...]
    prepared: str = ""
    cold: bool = False


VERBS = (
    Verb("extract, cold store", ("extract", "cohort.csv", "--out", "OUT", *ENCODER), cold=True),
    Verb("extract, warm store", ("extract", "cohort.csv", "--out", "OUT", *ENCODER)),
    Verb("extract, few tiles, cold store", ("extract", "few.csv", "--out", "OUT", *ENCODER), cold=True),
    Verb("run", ("run", "cohort.csv", "--out", "OUT", "--folds", "3", "--seeds", "2", "--epochs", "4", *ENCODER)),
    Verb("study", ("study", "study.yaml", "--cohort", "cohort.csv", "--out", "OUT", "--quiet")),
    Verb(
        "stage two",
        (
            *("run", "cohort.csv", "--out", "OUT", "--folds", "3", "--seeds", "1", "--epochs", "4"),
            *("--finetune", "tuned", "--top-k", "4", "--finetune-epochs", "1", *ENCODER),
        ),
        prepared="stage-one",
    ),
    Verb("cam", ("cam", "OUT", "--quiet"), prepared="finished"),
    Verb("predict", ("predict", "finished", "new", "--out", "OUT", "--quiet")),
    Verb("export", ("export", "finished", "--out", "OUT", "--quiet")),
)


def run_verb(arguments: Sequence[str], folder: Path, *, kill_after: float | None = None) -> tuple[int, float, str]:
    """Run `lamella ARGUMENTS` in a folder; return its exit code (negative: killed), its time, and what it said."""
    said = folder / ".said"
    began = time.monotonic()
    pid = os.fork()
    if pid == 0:
        os.setsid()
        os.chdir(folder)
        with said.open("wb") as stream:
            os.dup2(stream.fileno(), 1)
            os.dup2(stream.fileno(), 2)
        sys.argv = ["lamella", *arguments]
        from lamella.cli import main

        try:
            main()
        except SystemExit as end:  # this process holds a copy of the caller's stack, which must not unwind here
            sys.stderr.flush()
            os._exit(int(end.code or 0))
        except BaseException:  # noqa: BLE001 - whatever it is, it is said and ends this process alone
            traceback.print_exc()
            sys.stderr.flush()
            os._exit(70)
        os._exit(0)
    limit = began + (kill_after if kill_after is not None else 600.0)
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status), time.monotonic() - began, said.read_text(errors="replace")
        if time.monotonic() > limit:
            os.killpg(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return -9, time.monotonic() - began, said.read_text(errors="replace")
        time.sleep(0.005)


def digest_folder(folder: Path) -> dict[str, str]:
    """Return a hash of each file's content, without what two undisturbed runs differ in."""
    digests = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and not SKIPPED.search(name):
            digests[name] = _digest(path)
        elif path.is_file():
            digests[name] = "there"
    return digests


def _digest(path: Path) -> str:
    if path.suffix == ".json":
        content = json.dumps(drop_volatile(json.loads(path.read_text())), sort_keys=True).encode()
    elif path.suffix == ".h5":
        content = _read_h5(path)
    else:
        content = path.read_bytes()
    return hashlib.sha256(content).hexdigest()


def drop_volatile(value: object) -> object:
    """Return JSON without what two undisturbed runs differ in."""
    if isinstance(value, dict):
        return {key: drop_volatile(inner) for key, inner in value.items() if not VOLATILE.search(str(key))}
    return [drop_volatile(inner) for inner in value] if isinstance(value, list) else value


def _read_h5(path: Path) -> bytes:
    with h5py.File(path) as file:
        parts = [repr(sorted((k, str(v)) for k, v in file.attrs.items() if not VOLATILE.search(k)))]
        for name in sorted(file):
            parts += [name, hashlib.sha256(np.asarray(file[name]).tobytes()).hexdigest()]
    return repr(parts).encode()


def _draw(folder: Path) -> None:
    """Draw the cohorts."""
    draw_cohort(folder, 12)
    rows = (folder / "cohort.csv").read_text().splitlines()
    (folder / "few.csv").write_text("\n".join(rows[:2]) + "\n")
    (folder / "new").mkdir()
    for i in range(4):
        save_slide(folder / "new" / f"N-{i}.tif", draw_tissue(100 + i, malignant=i % 2 == 1))
    design = {
        "tiles": {"default": {"tile_px": 64, "mpp": 0.5}},
        "arms": [{"encoders": ["efficientnet-lite0"], "depths": [2, 1]}],
        "seeds": 1,
        "folds": 3,
        "train": {"epochs": 3},
        "permutations": 1,
    }
    (folder / "study.yaml").write_text(yaml.safe_dump(design))


def prepare(folder: Path) -> None:
    """Draw the cohorts, and run once what later verbs start from."""
    pid = os.fork()
    if pid == 0:  # the threads of what draws must not stand in this process when others are forked from it
        _draw(folder)
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    for name, arguments in (
        ("finished", ["--folds", "3", "--seeds", "2", "--epochs", "4"]),
        ("stage-one", ["--folds", "3", "--seeds", "1", "--epochs", "4"]),
    ):
        code, _, said = run_verb(["run", "cohort.csv", "--out", name, *arguments, *ENCODER], folder)
        assert code == 0, said


def try_verb(verb: Verb, folder: Path, n_kills: int, rng: random.Random) -> dict[str, Any]:
    """Kill one verb n times, each in a fresh folder, run it again, and compare."""
    expected, seconds = _run_undisturbed(verb, folder)
    again, _ = _run_undisturbed(verb, folder)
    unstable = sorted(name for name in expected if expected[name] != again.get(name))
    faults, n_struck = [], 0
    for i in range(n_kills):
        out = _fresh(verb, folder)
        moment = rng.uniform(0.02, 0.98) * seconds
        struck = run_verb(_arguments(verb), folder, kill_after=moment)
        n_struck += struck[0] == -9
        left = [path.name for path in folder.iterdir() if path.name.startswith(".") and path.name != ".said"]
        code, _, said = run_verb(_arguments(verb), folder)
        got = digest_folder(out) if out.exists() else {}
        wrong = sorted(name for name in {*expected, *got} if expected.get(name) != got.get(name))
        wrong = [name for name in wrong if name not in unstable]
        if code != 0 or wrong or left:
            how = {"code": code, "said": said[-300:], "differs": wrong[:8], "left": left}
            faults.append({"kill": i, "after": round(moment, 2), **how})
    return {
        "verb": verb.name,
        "seconds": round(seconds, 1),
        "kills": n_struck,
        "of": n_kills,
        "unstable": unstable,
        "faults": faults,
    }


def _run_undisturbed(verb: Verb, folder: Path) -> tuple[dict[str, str], float]:
    out = _fresh(verb, folder)
    code, seconds, said = run_verb(_arguments(verb), folder)
    assert code == 0, (verb.name, said)
    return digest_folder(out), seconds


def _fresh(verb: Verb, folder: Path) -> Path:
    out = folder / "out"
    shutil.rmtree(out, ignore_errors=True)
    if verb.prepared:
        shutil.copytree(folder / verb.prepared, out)
    if verb.cold:
        for path in Path(os.environ["LAMELLA_HOME"]).glob("*"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    return out


def _arguments(verb: Verb) -> list[str]:
    return ["out" if word == "OUT" else word for word in verb.arguments]


def main() -> None:
    """Run a campaign from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="")
    parser.add_argument("--out", type=Path, default=Path("kills.json"))
    given = parser.parse_args()
    import timm  # noqa: F401

    import lamella.pipeline  # noqa: F401

    records = []
    with tempfile.TemporaryDirectory(prefix="kills-") as name:
        folder = Path(name)
        os.environ["LAMELLA_HOME"] = str(folder / "store")
        (folder / "store").mkdir()
        prepare(folder)
        for verb in VERBS:
            if given.only in verb.name:
                record = try_verb(verb, folder, given.kills, random.Random(f"{given.seed} {verb.name}"))
                records.append(record)
                print(record | {"faults": len(list(record["faults"]))}, flush=True)  # noqa: T201
                given.out.write_text(json.dumps(records, indent=1))
    sys.exit(1 if any(record["faults"] for record in records) else 0)


if __name__ == "__main__":
    main()
