"""int8: a network is quantised on tiles, comes near fp32, and each calibration is kept apart."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lamella.encoders import EncoderSpec, Runtime, RuntimeSettings, open_runtime
from lamella.encoders.runtime import quantised
from lamella.encoders.runtime.checking import split_batches
from lamella.encoders.runtime.protocol import Tiles

RESNET = EncoderSpec("resnet18@2", "random")
INT8 = RuntimeSettings(device="cpu", precision="int8", n_threads=2, batch_size=4)
pytestmark = pytest.mark.skipif(importlib.util.find_spec("nncf") is None, reason="needs lamella[int8]")


@pytest.fixture
def real(tiles: Tiles) -> Tiles:
    """96 tiles with something on them, of a strong contrast."""
    return np.concatenate([tiles, tiles[:, ::-1]])[:96]


def encode(runtime: Runtime, tiles: Tiles) -> np.ndarray:
    return np.concatenate(list(runtime.encode(split_batches(tiles, runtime.batch_size))))


def open_int8(tiles: Tiles) -> Runtime:
    return open_runtime(RESNET, INT8, tile_px=64, check_tiles=lambda: tiles)


def test_int8_is_near_fp32_and_not_the_same(real: Tiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAMELLA_HOME", str(tmp_path))
    runtime = open_int8(real)
    exact = open_runtime(
        RESNET, RuntimeSettings(device="cpu", precision="fp32", batch_size=4), tile_px=64, check_tiles=lambda: real
    )
    assert (runtime.precision, runtime.notes) == (
        "int8",
        ("encoder 'resnet18@2' has random weights, seeded by its name: a control, not a result",),
    )
    (check,) = runtime.checks
    assert (check.precision_used, check.n_tiles, check.passed) == ("int8", 32, True)
    ours, theirs = encode(runtime, real), encode(exact, real)
    assert np.abs(ours - theirs).max() > 0
    mean = theirs.mean(axis=0)
    products = ((ours - mean) * (theirs - mean)).sum(axis=1)
    lengths = np.linalg.norm(ours - mean, axis=1) * np.linalg.norm(theirs - mean, axis=1)
    assert np.mean(products / lengths) > 0.98


def test_a_calibration_is_kept_by_its_tiles_and_found_again(
    real: Tiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAMELLA_HOME", str(tmp_path))
    first = encode(open_int8(real), real[:8])
    other = encode(open_int8(255 - real), real[:8])
    assert not np.array_equal(first, other), "other tiles, other scales"
    assert len(list(tmp_path.glob("compiled/*-int8-*/manifest.json"))) == 2
    monkeypatch.setattr(quantised, "quantise", lambda *_: pytest.fail("it was kept"))
    assert np.array_equal(encode(open_int8(real), real[:8]), first)


def test_the_same_tiles_give_the_same_network_in_an_empty_store(
    real: Tiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAMELLA_HOME", str(tmp_path / "one"))
    first = encode(open_int8(real), real[:8])
    monkeypatch.setenv("LAMELLA_HOME", str(tmp_path / "two"))
    assert np.array_equal(encode(open_int8(real), real[:8]), first)


def test_nncf_is_imported_without_its_telemetry() -> None:
    code = (
        "import sys; from lamella.encoders.runtime.silent import import_nncf; nncf = import_nncf(); "
        "from nncf.telemetry import wrapper; assert 'Mock' in type(wrapper.telemetry).__name__, wrapper.telemetry; "
        "assert not [m for m in sys.modules if m.startswith('openvino_telemetry') and sys.modules[m] is not None]"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
