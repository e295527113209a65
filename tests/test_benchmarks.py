"""Benchmarks are scripts: each opens as one, and none hides a module that others import by its name."""

import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

SCRIPTS = sorted((Path(__file__).parent.parent / "benchmarks").glob("*.py"))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_a_benchmark_says_what_it_does(script: Path) -> None:
    """Run with the folder of the benchmarks first on the path, as a script is."""
    ran = subprocess.run([sys.executable, script, "--help"], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert f"usage: {script.name}" in ran.stdout


def test_no_benchmark_has_the_name_of_a_module_of_others() -> None:
    """A script's folder comes before the standard library: a `statistics.py` beside it broke all that import that."""
    taken = sys.stdlib_module_names | set(packages_distributions())
    assert not [script.name for script in SCRIPTS if script.stem in taken]
