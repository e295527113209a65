"""A cut of `make fuzz`: every kind of file but whole folders, a few hundred mutants of fixed seeds."""

from pathlib import Path

import pytest

from tests.fuzz.campaign import GOOD, make_aside, run_campaign, tabulate

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"


def test_mutants_are_read_or_refused_and_nothing_else(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    originals = make_aside(tmp_path, with_folders=False, shared=SHARED if SHARED.is_dir() else None)
    endings, expected = run_campaign(originals, 600, first_seed=1_000_000)
    assert [name for name, read in expected.items() if read.startswith("refused")] == []
    faults = [ending for ending in endings if ending.kind not in GOOD]
    assert faults == []
    counts = tabulate(endings)
    assert len(counts) == len(originals)
    # Mutation bites: of every kind some mutants are refused or read otherwise.
    assert [name for name, kinds in counts.items() if set(kinds) == {"same"} and sum(kinds.values()) > 5] == []
