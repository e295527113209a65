"""Fixtures that every part of the tests may use."""

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real slides beside the checkout; skips, with a reason, where it is absent (at a user's)."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("the real slides of ../shared/data are not on this machine")
    return folder
