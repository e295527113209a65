"""Runs every verb under faults of the machine, lifts each fault, runs the verb again, and compares what comes out.

    python -m tests.machine.campaign --out machine.json

A verb that meets a fault either does its work, to the same results as undisturbed, or says in one line what is amiss
and exits with 1; it leaves no half file, and goes on once the fault is lifted. Faults that need root, a compiler or
localedef are skipped, with the reason, where there is none. All mounts are made in a namespace of this process.
"""

import argparse
import contextlib
import dataclasses
import json
import os
import re
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.machine.faults import FAULTS, Fault, find_missing, make_locales
from tests.machine.scene import Scene, build_fault_library, can_mount, find_half_files, let_others_run_python
from tests.machine.server import Ended
from tests.machine.verbs import READING, VERBS, Verb

_SLOW = ("finetune", "study", "sample")  # 20 s and more each: they meet these alone, unless more are asked for
_FOR_SLOW = (
    *("disk full after 256", "OUT on a read-only disk", "OUT removed after 50%", "a current folder that is read-only"),
    *("another user than root", "HOME, cache and TMPDIR unwritable", "no /dev/shm", "umask 077", "LC_ALL=de_DE.UTF-8"),
    *("EIO reading the cohort", "EIO writing OUT", "PYTHONOPTIMIZE=1"),
)
CUT = (
    ("disk full after 4 KiB", "tiles"),
    ("OUT on a read-only disk", "split"),
    ("OUT closed to this user", "split"),
    ("a slide closed to this user", "tiles"),
    ("EIO reading the cohort", "split"),
    ("EIO writing OUT", "tiles"),
    ("umask 077", "tiles"),
    ("nobody reads standard output", "split"),
)


def try_case(scene: Scene, verb: Verb, fault: Fault, places: dict[str, str]) -> dict[str, Any]:
    """Run a verb under a fault, lift it, run it again; return the record, whose `wrong` lists what is amiss."""
    _, _, seconds = scene.expect(verb)
    scene.fresh(verb)
    found = dataclasses.replace(
        fault.circumstances,
        environment={key: places.get(value or "", value) for key, value in fault.circumstances.environment.items()},
    )
    server = scene.server({key: places.get(value, value) for key, value in fault.environment.items()})
    struck = threading.Thread(target=fault.meanwhile, args=(scene, seconds)) if fault.meanwhile else None
    wrong: list[str] = []
    with contextlib.ExitStack() as stack:
        stack.enter_context(fault.arrange(scene, verb))
        if struck is not None:
            struck.start()
        ended = server.run(verb.fill("out"), scene.folder, scene.said, found)
        if struck is not None:
            struck.join()
        wrong += judge(scene, verb, fault, ended)
        again = None
        if ended.code != 0 and fault.lift is not None:
            fault.lift(scene)
            again = scene.run(verb)
            wrong += judge_again(scene, verb, again)
    if ended.code != 0 and fault.lift is None and verb in VERBS:
        if verb.prepared and (fault.meanwhile is not None or not scene.out.exists()):
            scene.fresh(verb)  # a run that was taken away does not come back
        again = scene.run(verb)
        wrong += judge_again(scene, verb, again)
    said = " | ".join(ended.stderr.strip().splitlines()[-3:])[-400:]
    return {"fault": fault.name, "verb": verb.name, "code": ended.code, "said": said, "wrong": wrong}


def judge(scene: Scene, verb: Verb, fault: Fault, ended: Ended) -> list[str]:
    """List what is amiss with a run under a fault."""
    wrong = []
    lines = ended.stderr.strip().splitlines()
    allowed = {"works": (0,), "refused": (1,), "either": (0, 1)}[fault.expected]
    if verb.name == "weights fetch":
        allowed = (*allowed, 1)
    if ended.code not in allowed:
        wrong.append(f"ended with {ended.code}")
    if any("Traceback" in line or "Exception ignored" in line for line in lines + ended.stdout.splitlines()):
        wrong.append("a traceback")
    unread = fault.circumstances.streams == "no reader"  # who closes the pipe has seen enough
    if ended.code == 1 and verb.name != "weights fetch" and not unread:
        wrong += judge_words(verb, fault, ended.stderr)
    taken = fault.name.startswith("OUT removed") and not scene.out.exists()  # after the last file was written
    if ended.code == 0 and verb in VERBS and not taken:
        wrong += [f"differs: {name}" for name in scene.find_differences(verb)][:6]
        if fault.circumstances.umask is not None:
            wrong += find_other_modes(scene, verb, fault.circumstances.umask)[:3]
    if scene.out.exists():
        wrong += find_half_files(scene.out)[:6]
    return wrong


def judge_words(verb: Verb, fault: Fault, said: str) -> list[str]:
    """List what is amiss with what a refused verb said."""
    lines = said.strip().splitlines()
    if not lines:
        return ["nothing is said"]
    wrong = []
    if "--quiet" in verb.arguments and len(lines) > 1 and not re.search(r"failures?\.csv|failed|audit", said):
        wrong.append(f"{len(lines)} lines")
    if fault.says and not any(word in said for word in fault.says):
        wrong.append(f"none of {', '.join(fault.says)} is said")
    if re.search(r"delete it|is damaged", said):
        wrong.append("a whole file is called damaged")
    return wrong


def judge_again(scene: Scene, verb: Verb, ended: Ended) -> list[str]:
    """List what is amiss with the run after a fault."""
    wrong = [] if ended.code == 0 else [f"again: ended with {ended.code}: {ended.stderr.strip()[-300:]}"]
    wrong += [f"again: {name}" for name in (*scene.find_differences(verb), *find_half_files(scene.out))][:6]
    return wrong


def find_other_modes(scene: Scene, verb: Verb, umask: int) -> list[str]:
    """List files and folders that a verb made with permissions that are not what the umask leaves."""
    others = []
    for path in scene.out.rglob("*"):
        name = path.relative_to(scene.out)
        if verb.prepared and (scene.folder / verb.prepared / name).exists():
            continue  # it stood there before
        mode = path.stat().st_mode & 0o777
        if mode != (0o777 if path.is_dir() else 0o666) & ~umask:
            others.append(f"mode {mode:o} of {name}")
    return others


def list_cases(given: argparse.Namespace) -> list[tuple[Fault, Verb]]:
    """List which verbs meet which faults."""
    cases = []
    for fault in FAULTS:
        for verb in (*VERBS, *READING):
            writes = verb in VERBS
            if fault.verbs and verb.name not in fault.verbs:
                continue
            if not writes and not (fault.reading or verb.name in fault.verbs):
                continue
            if verb.name in _SLOW and not fault.name.startswith(given.slow or _FOR_SLOW):
                continue
            if re.search(given.fault, fault.name) and re.fullmatch(given.verb or ".*", verb.name):
                cases.append((fault, verb))
    if given.cut:
        return [next((f, v) for f, v in cases if (f.name, v.name) == wanted) for wanted in CUT]
    return sorted(cases, key=lambda case: str(case[0].environment) if case[0].environment else "")


def _find_processor() -> str:
    with contextlib.suppress(OSError):
        found = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
        if found:
            return found[1]
    return "unknown"


@contextlib.contextmanager
def _campaign_folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="machine-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def main() -> None:
    """Run a campaign from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fault", default="", help="regular expression: which faults")
    parser.add_argument("--verb", default="", help="regular expression: which verbs")
    parser.add_argument("--slow", default="", help="start of the names of faults that slow verbs meet too")
    parser.add_argument("--cut", action="store_true", help="eight cases of the drawn slides alone, half a minute")
    parser.add_argument("--out", type=Path, default=Path("machine.json"))
    given = parser.parse_args()
    began = time.monotonic()
    os.environ.pop("TMPDIR", None)
    if given.cut:
        os.environ["MACHINE_CUT"] = "1"
    no_mount = can_mount()
    records: list[dict[str, Any]] = []
    with _campaign_folder() as folder:
        library = build_fault_library(folder)
        no_locale = make_locales(folder / "locales") if shutil.which("localedef") else "no localedef here"
        if not no_mount:
            let_others_run_python()
        places = {"FAULT_IO": str(library), "TMP-FULL": str(folder / "tmp-full"), "LOCALES": str(folder / "locales")}
        scene = Scene(folder, cut=given.cut)
        try:
            for fault, verb in list_cases(given):
                missing = find_missing(fault, no_mount, library)
                if fault.needs == "localedef":
                    missing = missing or no_locale
                if missing:
                    records.append({"fault": fault.name, "verb": verb.name, "skipped": missing, "wrong": []})
                    continue
                records.append(try_case(scene, verb, fault, places))
                if records[-1]["wrong"]:
                    print(json.dumps(records[-1]), flush=True)  # noqa: T201
                _save(given.out, records, began)
        finally:
            scene.close()
    _save(given.out, records, began)
    print(f"{len(records)} cases, {sum(bool(one['wrong']) for one in records)} faults")  # noqa: T201
    sys.exit(1 if any(record["wrong"] for record in records) else 0)


def _save(path: Path, records: list[dict[str, Any]], began: float) -> None:
    about = {
        "date": datetime.now(UTC).date().isoformat(),
        "processor": _find_processor(),
        "seconds": round(time.monotonic() - began),
        "cases": sum("skipped" not in record for record in records),
        "skipped": sum("skipped" in record for record in records),
        "faults": sum(bool(record["wrong"]) for record in records),
    }
    path.write_text(json.dumps(about | {"records": records}, indent=1) + "\n")


if __name__ == "__main__":
    main()
