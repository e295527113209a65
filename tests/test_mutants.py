"""The faults that `make mutants` plants must have a place to be planted in: a renamed line would hide one."""

import pytest

from tests.mutants import MUTANTS, ROOT, Mutant


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.fault)
def test_the_place_of_a_fault_is_found_once(mutant: Mutant) -> None:
    source = (ROOT / "src" / "lamella" / mutant.file).read_text(encoding="utf-8")
    assert source.count(mutant.before) == 1
    assert mutant.before != mutant.after
