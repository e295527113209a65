"""Verbs that are killed or stopped at a random moment end, run again, as if undisturbed: a cut of `make kills`."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lamella.stopping import STOPPED
from tests.tiny import draw_cohort

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="forks, and looks for orphans in /proc")
ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1"}


def test_a_few_verbs_killed_and_stopped_at_random_moments_end_as_if_undisturbed(tmp_path: Path) -> None:
    record = tmp_path / "kills.json"
    command = [sys.executable, "-m", "tests.kills.campaign", "--kills", "1", "--stops", "2", "--out", str(record)]
    command += ["--only", "extract, few tiles", "tiles"]
    subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, check=False)
    found = json.loads(record.read_text())
    assert [verb["faults"] for verb in found["verbs"]] == [[], []]
    assert sum(verb["kills"] + verb["stops"] for verb in found["verbs"]) >= 1


@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGTERM])
def test_a_command_of_its_own_that_is_stopped_says_one_line(tmp_path: Path, by: signal.Signals) -> None:
    """From the first import to the last file: Ctrl-C reaches the child that opens slides too."""
    draw_cohort(tmp_path, 3)
    command = [sys.executable, "-m", "lamella", "tiles", "cohort.csv", "--out", "out", "--tile-px", "64", "--quiet"]
    rng = random.Random(int(by))
    for _ in range(3):
        process = subprocess.Popen(
            command, cwd=tmp_path, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True, start_new_session=True
        )
        while not _has_handler(process.pid):
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 1.5))
        os.killpg(process.pid, by)
        said = process.communicate(timeout=60)[1]
        assert process.returncode in (0, 128 + by)
        assert said in ("", f"{STOPPED}\n")
        assert (process.returncode == 0) == (said == "")
    assert [path for path in tmp_path.rglob(".*") if path.is_file()] == []


def _has_handler(pid: int) -> bool:
    """Say whether a process has got as far as its first line: it catches SIGTERM."""
    status = Path(f"/proc/{pid}/status").read_text()
    caught = int(next(line.split()[1] for line in status.splitlines() if line.startswith("SigCgt")), 16)
    return bool(caught >> (signal.SIGTERM - 1) & 1)
