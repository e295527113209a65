"""A cut of the campaign of machine faults: `make machine` has the rest."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.machine.campaign import CUT

_ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="mounts, and takes on other users, as Linux does")


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """Run the cut in a process of its own, whose mounts end with it."""
    out = tmp_path_factory.mktemp("machine") / "machine.json"
    command = [sys.executable, "-m", "tests.machine.campaign", "--cut", "--out", str(out)]
    ended = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, timeout=600, check=False)
    assert out.exists(), ended.stderr
    found: list[dict[str, Any]] = json.loads(out.read_text())["records"]
    return found


@pytest.mark.parametrize("case", CUT, ids=lambda case: f"{case[1]}, {case[0]}")
def test_a_fault_of_the_machine_is_one_line_or_nothing_and_the_next_run_goes_on(
    case: tuple[str, str], records: list[dict[str, Any]]
) -> None:
    record = next(one for one in records if (one["fault"], one["verb"]) == case)
    if "skipped" in record:
        pytest.skip(record["skipped"])
    assert record["wrong"] == [], record
