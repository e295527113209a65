"""A cut of `make fuzz`: every kind of file but whole folders, three mutants of each, of fixed seeds."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_mutants_are_read_or_refused_and_nothing_else(tmp_path: Path) -> None:
    """In a process of its own: workers are forked, and must not inherit the threads of this one."""
    record = tmp_path / "fuzz.json"
    command = [sys.executable, "-m", "tests.fuzz.campaign", "--n", "250", "--first-seed", "1000000", "--workers", "1"]
    environment = os.environ | {"PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}", "OMP_NUM_THREADS": "1"}
    command += ["--no-folders", "--out", str(record)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=500)
    assert record.exists(), done.stderr[-2000:]
    found = json.loads(record.read_text())
    assert found["unread"] == []  # each original is one that is read
    assert found["faults"] == []
    assert len(found["counts"]) > 70
    assert found["total"]["refused"] > found["n"] / 3  # mutation bites
    assert found["total"]["same"] + found["total"]["differs"] > found["n"] / 10  # and leaves some whole
