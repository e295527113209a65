"""A slide that ends, exhausts or hangs the process that opens it is one slide that cannot be read."""

import os
import time
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from lamella.children import Child
from lamella.cli import build_app
from lamella.errors import SlideError
from lamella.slide import child, open_slide
from lamella.slide.readers import VipsReader
from tests.tiny import draw_tissue, save_slide

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def bad_child(monkeypatch):
    """A child that does to itself what a slide's name says, and has two seconds for an answer."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    bad = Child("tests.slide.bad_child", seconds=2.0)
    monkeypatch.setattr(child, "CHILD", bad)
    yield bad
    bad.close()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("abort.tif", "crashes its decoder"),
        ("exit.tif", "crashes its decoder"),
        ("killed.tif", "crashes its decoder"),
        ("endless.tif", "takes over"),
        ("memory.tif", "more than 2 GiB of memory"),
    ],
)
def test_what_ends_the_child_is_that_slide_s_error(tmp_path, bad_child, name, said):
    (tmp_path / name).write_bytes(b"x")
    (tmp_path / "good.tif").write_bytes(b"x")
    began = time.monotonic()
    with pytest.raises(SlideError, match=said):
        child.try_slide(tmp_path / name)
    child.try_slide(tmp_path / "good.tif")  # the next one is asked of a new child
    assert time.monotonic() - began < 20


def test_what_a_library_prints_is_no_answer(tmp_path, bad_child):
    (tmp_path / "talks.tif").write_bytes(b"x")
    child.try_slide(tmp_path / "talks.tif")
    assert bad_child.ask(path="good") == ""


def test_the_other_slides_are_finished_and_the_bad_ones_listed(tmp_path, bad_child):
    for name in ("a-abort", "b-good", "c-endless", "d-good"):
        save_slide(tmp_path / "slides" / f"{name}.tif", draw_tissue(3))
    slides = [str(path) for path in sorted((tmp_path / "slides").iterdir())]
    arguments = ["tiles", *slides, "--tile-px", "64", "--mpp", "0.5", "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(build_app(), arguments)
    assert done.exit_code == 1, done.output
    failures = (tmp_path / "out" / "failures.csv").read_text()
    assert [line.split(",")[0] for line in failures.splitlines()[1:]] == ["a-abort", "c-endless"]
    assert len(list((tmp_path / "out").rglob("*_patches.h5"))) == 2


def test_a_child_does_not_search_the_working_directory(tmp_path, monkeypatch):
    """A module in the folder that one stands in, which may be anyone's, is not imported."""
    (tmp_path / "numpy.py").write_text("open('canary', 'w').write('ran')")
    monkeypatch.chdir(tmp_path)
    fresh = Child("lamella.slide.child")
    try:
        save_slide(tmp_path / "S.tif", draw_tissue(3))
        assert fresh.ask(path=str(tmp_path / "S.tif"), slide_mpp=None) == ""
    finally:
        fresh.close()
    assert not (tmp_path / "canary").exists()


def test_a_child_that_is_not_here_is_not_asked_from_a_fork(tmp_path):
    """A forked process has a child of its own: two that share a pipe would take each other's answers."""
    fresh = Child("lamella.slide.child")
    try:
        save_slide(tmp_path / "S.tif", draw_tissue(3))
        fresh.ask(path=str(tmp_path / "S.tif"), slide_mpp=None)
        first = fresh._process
        fresh._owner = os.getpid() + 1  # as a fork finds it
        fresh.ask(path=str(tmp_path / "S.tif"), slide_mpp=None)
        assert fresh._process.pid != first.pid
        first.kill()
        first.wait()
    finally:
        fresh.close()


@pytest.mark.parametrize("error", [MemoryError("no"), RecursionError("deep"), ValueError("odd"), SystemError("c")])
def test_whatever_a_decoder_raises_is_that_slide_s_error(tmp_path, monkeypatch, error):
    path = save_slide(tmp_path / "S.tif", draw_tissue(3))

    def refuse(*_: object) -> np.ndarray:
        raise error

    with open_slide(path, reader="libvips") as slide:
        monkeypatch.setattr(slide._reader, "read", refuse)
        with pytest.raises(SlideError, match=f"{type(error).__name__}: "):
            slide.read_region((0, 0), 0, (10, 10))
    monkeypatch.setattr(VipsReader, "__init__", refuse)
    with pytest.raises(SlideError, match=f"{type(error).__name__}: "):
        open_slide(path, reader="libvips")
