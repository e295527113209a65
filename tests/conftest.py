"""Fixtures that every part of the tests may use."""

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest


def pytest_configure() -> None:
    """Give each parallel worker a core of its own: libraries that count cores would fight for all of them.

    Ctrl-C and a closed terminal are heard even where the tests run in the background of a script (`nohup`, `&`): there
    they are ignored from the start, commands keep ignored what whoever started them ignores, and tests that stop them
    would wait.
    """
    for number, usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, usual)
    worker = os.environ.get("PYTEST_XDIST_WORKER", "")
    if worker.removeprefix("gw").isdigit() and hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[int(worker.removeprefix("gw")) % len(cores)]})


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real slides beside the checkout; skips, with a reason, where it is absent (at a user's)."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("the real slides of ../shared/data are not on this machine")
    return folder


@pytest.fixture(autouse=True)
def _nothing_stays_trusted() -> Iterator[None]:
    """End each test's trust in encoders' code with it."""
    from lamella.encoders.trust import trusting

    with trusting():
        yield


@pytest.fixture(autouse=True)
def _gradients_are_left_on() -> Iterator[None]:
    """Fail the test that leaves torch without gradients: the next one to train would fail in its place."""
    yield
    torch = sys.modules.get("torch")
    if torch is not None:
        off = not torch.is_grad_enabled() or torch.is_inference_mode_enabled()
        torch.set_grad_enabled(True)
        assert not off, "gradients are off after this test: a generator waits inside torch.inference_mode()"
