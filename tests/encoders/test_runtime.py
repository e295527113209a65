"""Runtimes: embeddings in order, near torch in fp32, cached, and refused where they cannot be had."""

import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from lamella.encoders import (
    EncoderSpec,
    PrecisionCheck,
    Runtime,
    RuntimeSettings,
    describe_runtimes,
    open_runtime,
)
from lamella.encoders.network import TileNetwork, build_network
from lamella.encoders.runtime import machine, opening, planning
from lamella.encoders.runtime.checking import compare_embeddings, split_batches
from lamella.encoders.runtime.compiled import CompiledEntry
from lamella.encoders.runtime.torch_runtime import TorchRuntime
from lamella.encoders.trust import trusting
from lamella.errors import EncoderError, SettingsError

Tiles = NDArray[np.uint8]
LITE0 = EncoderSpec("efficientnet-lite0")


@pytest.fixture(scope="module")
def lite0_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One store for this file, so that the network is converted once."""
    return tmp_path_factory.mktemp("store")


@pytest.fixture
def lite0(lite0_store: Path, tiles: Tiles, monkeypatch: pytest.MonkeyPatch) -> Iterator[Runtime]:
    monkeypatch.setenv("LAMELLA_HOME", str(lite0_store))
    settings = RuntimeSettings(device="cpu", precision="fp32", n_threads=2, batch_size=4)
    monkeypatch.setattr(torch, "set_num_threads", lambda n: None)
    runtime = open_runtime(LITE0, settings, tile_px=64, check_tiles=lambda: tiles)
    yield runtime
    runtime.close()


def encode(runtime: Runtime, tiles: Tiles) -> NDArray[np.float32]:
    return np.concatenate(list(runtime.encode(split_batches(tiles, runtime.batch_size))))


def torch_runtime(network: TileNetwork, precision: str = "fp32") -> TorchRuntime:
    return TorchRuntime(
        network,
        encoder="x",
        widths=(network(torch.zeros(1, 3, 64, 64)).shape[1],),
        device="cpu",
        precision=precision,
        tile_px=64,
        batch_size=4,
    )


def test_openvino_gives_torchs_embeddings_in_order(lite0: Runtime, tiles: Tiles) -> None:
    embeddings = encode(lite0, tiles[:23])
    with torch.inference_mode():
        reference = build_network(LITE0)(torch.from_numpy(tiles[:23]).permute(0, 3, 1, 2).float()).numpy()
    assert lite0.name.startswith("openvino ")
    assert (embeddings.shape, embeddings.dtype) == ((23, 1280), np.dtype(np.float32))
    assert compare_embeddings(embeddings, reference, precision="fp32").cosine_min > 0.99999
    np.testing.assert_allclose(embeddings, reference, atol=2e-4)


def test_an_opened_encoder_says_what_it_is_and_that_it_was_checked(lite0: Runtime) -> None:
    assert (lite0.encoder, lite0.device, lite0.precision, lite0.widths) == (LITE0.name, "cpu", "fp32", (1280,))
    (check,) = lite0.checks
    assert (check.passed, check.n_tiles, check.precision_used) == (True, 8, "fp32")
    assert lite0.notes == ()


def test_an_embedding_does_not_depend_on_who_shares_its_batch(lite0: Runtime, tiles: Tiles) -> None:
    together = encode(lite0, tiles[:9])
    alone = np.concatenate(list(lite0.encode(tiles[i : i + 1] for i in range(9))))
    backwards = encode(lite0, tiles[:9][::-1])[::-1]
    assert np.array_equal(together, alone)
    assert np.array_equal(together, backwards)


def test_a_bounded_number_of_batches_is_in_flight(lite0: Runtime, tiles: Tiles) -> None:
    taken = 0

    def batches() -> Iterator[Tiles]:
        nonlocal taken
        for _ in range(40):
            taken += 1
            yield tiles[:4]

    for n_given, _ in enumerate(lite0.encode(batches()), start=1):
        assert taken - n_given <= 8


def test_a_consumer_that_stops_early_leaves_the_runtime_usable(lite0: Runtime, tiles: Tiles) -> None:
    stream = lite0.encode(iter([tiles[:4]] * 12))
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    assert np.array_equal(encode(lite0, tiles[:4]), encode(lite0, tiles[:4]))


def test_an_error_of_the_reader_reaches_the_consumer(lite0: Runtime, tiles: Tiles) -> None:
    def batches() -> Iterator[Tiles]:
        yield tiles[:4]
        raise OSError("the slide ends here")

    with pytest.raises(OSError, match="the slide ends here"):
        list(lite0.encode(batches()))


@pytest.mark.parametrize("shape", [(5, 64, 64, 3), (2, 32, 64, 3), (0, 64, 64, 3), (64, 64, 3)])
def test_a_batch_of_another_shape_is_refused(lite0: Runtime, shape: tuple[int, ...]) -> None:
    with pytest.raises(EncoderError, match="takes uint8"):
        list(lite0.encode([np.zeros(shape, dtype=np.uint8)]))


def test_a_network_once_converted_opens_without_torch_and_without_check_tiles(
    lite0: Runtime, tiles: Tiles, tmp_path: Path
) -> None:
    code = (
        "import sys, numpy as np; from lamella.encoders import *; "
        "r = open_runtime(EncoderSpec('efficientnet-lite0'), "
        "RuntimeSettings(device='cpu', precision='fp32', n_threads=2, batch_size=4), tile_px=64, check_tiles=None); "
        "t = np.load(sys.argv[1]); out = np.concatenate(list(r.encode([t]))); np.save(sys.argv[1], out); "
        "assert r.checks[0].passed; assert not {'torch', 'timm'} & set(sys.modules)"
    )
    file = tmp_path / "tiles.npy"
    np.save(file, tiles[:4])
    subprocess.run([sys.executable, "-c", code, str(file)], check=True)
    assert np.array_equal(np.load(file), encode(lite0, tiles[:4]))


def test_a_damaged_network_in_the_store_is_built_again(
    own_path: Path, store: Path, tiles: Tiles, caplog: pytest.LogCaptureFixture
) -> None:
    spec, settings = EncoderSpec(f"{own_path}:build"), RuntimeSettings(device="cpu", precision="fp32")
    expected = encode(open_runtime(spec, settings, tile_px=64, check_tiles=lambda: tiles), tiles[:4])
    [binary] = store.glob("compiled/*/network.bin")
    whole = binary.read_bytes()
    binary.unlink()
    binary.write_bytes(whole[:-100])
    with caplog.at_level(logging.WARNING):
        again = open_runtime(spec, settings, tile_px=64, check_tiles=lambda: tiles)
    assert "is damaged and is built again" in caplog.text
    assert np.array_equal(encode(again, tiles[:4]), expected)
    assert binary.read_bytes() == whole
    assert not [path for path in store.rglob("*") if path.name.startswith(".")]


def test_a_store_that_cannot_be_written_costs_the_cache_and_nothing_else(
    tiles: Tiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("LAMELLA_HOME", str(tmp_path / "file"))
    (tmp_path / "own.py").write_text(OWN)
    with trusting(tmp_path / "own.py"):
        runtime = open_runtime(
            EncoderSpec(f"{tmp_path / 'own.py'}:build"),
            RuntimeSettings(device="cpu"),
            tile_px=64,
            check_tiles=lambda: tiles,
        )
    assert encode(runtime, tiles[:5]).shape == (5, 6)


def test_a_store_on_a_full_disk_costs_the_cache_and_changes_no_embedding(
    own_path: Path, store: Path, tiles: Tiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OpenVINO says "iostream error" then; it was taken for a network that OpenVINO cannot run."""
    import openvino

    save = openvino.save_model

    def fill_disk(model: object, path: Path, **options: object) -> None:
        if not Path(path).is_relative_to(store):
            save(model, path, **options)
            return
        Path(path).with_suffix(".bin").write_bytes(b"half")
        raise RuntimeError("basic_ios::clear: iostream error")

    spec, settings = EncoderSpec(f"{own_path}:build"), RuntimeSettings(device="cpu", precision="fp32")
    with monkeypatch.context() as patch:
        patch.setattr(openvino, "save_model", fill_disk)
        struck = open_runtime(spec, settings, tile_px=64, check_tiles=lambda: tiles)
        found = encode(struck, tiles[:4])
    assert not list(store.rglob("network.*"))
    whole = open_runtime(spec, settings, tile_px=64, check_tiles=lambda: tiles)
    assert struck.notes == whole.notes
    assert type(struck) is type(whole)
    assert np.array_equal(found, encode(whole, tiles[:4]))


OWN = """
import torch

def build():
    return torch.nn.Sequential(torch.nn.Conv2d(3, 6, 5, stride=3), torch.nn.ReLU())

class Odd(torch.nn.Module):
    def forward(self, x):
        return torch.linalg.svdvals(x.mean(1))

def build_odd():
    return Odd()

class Stray(torch.nn.Module):
    def forward(self, x):
        y = x[:, :, ::9, ::9].flatten(1) / 99
        return y.flip(1) if torch.is_autocast_enabled("cpu") else y

def build_stray():
    return Stray()

class Nan(torch.nn.Module):
    def forward(self, x):
        return x.mean((2, 3)) / x.amin((2, 3)).sub(x.amin((2, 3)))

def build_nan():
    return Nan()
"""


@pytest.fixture
def own_path(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "own.py"
    path.write_text(OWN)
    with trusting(path):
        yield path


def test_what_openvino_cannot_convert_torch_computes_and_says_so(own_path: Path, tiles: Tiles) -> None:
    spec = EncoderSpec(f"{own_path}:build_odd")
    runtime = open_runtime(spec, RuntimeSettings(device="cpu"), tile_px=64, check_tiles=lambda: tiles)
    assert runtime.name.startswith("torch ")
    assert "OpenVINO cannot run" in runtime.notes[0]
    assert encode(runtime, tiles[:3]).shape == (3, 64)


def test_embeddings_that_are_no_numbers_are_an_error(own_path: Path, tiles: Tiles) -> None:
    spec = EncoderSpec(f"{own_path}:build_nan")
    with pytest.raises(EncoderError, match=r"in fp32 gives NaN or infinity for 8 of 8 tiles. Check its weights."):
        open_runtime(spec, RuntimeSettings(device="cpu", batch_size=16), tile_px=64, check_tiles=lambda: tiles)


def test_random_weights_are_said_aloud(tiles: Tiles) -> None:
    settings = RuntimeSettings(device="cpu", runtime="torch")
    runtime = open_runtime(EncoderSpec("resnet18", "random"), settings, tile_px=64, check_tiles=lambda: tiles)
    assert runtime.notes == ("encoder 'resnet18' has random weights, seeded by its name: a control, not a result",)
    assert runtime.checks == ()


def test_torch_pads_the_last_batch(own_path: Path, tiles: Tiles) -> None:
    runtime = torch_runtime(build_network(EncoderSpec(f"{own_path}:build")))
    embeddings = encode(runtime, tiles[:7])
    assert embeddings.shape == (7, 6)
    assert np.array_equal(embeddings[6:], encode(runtime, tiles[6:7]))


def test_a_precision_that_strays_gives_way_to_fp32(
    tiles: Tiles, own_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "cpu_precisions", lambda core: ("fp32",))
    settings = RuntimeSettings(device="cpu", precision="bf16")
    strayed = open_runtime(EncoderSpec(f"{own_path}:build_stray"), settings, tile_px=64, check_tiles=lambda: tiles)
    assert strayed.precision == "fp32"
    assert "this processor has no bf16 arithmetic" in strayed.notes[0]
    assert "in bf16 strays from fp32 over 32 tiles" in strayed.notes[1]
    kept = open_runtime(EncoderSpec(f"{own_path}:build"), settings, tile_px=64, check_tiles=lambda: tiles)
    assert kept.precision == "bf16"
    assert [check.passed for check in kept.checks] == [True]


@pytest.mark.parametrize("outcome", [(False, True), (False, False), (True, True)])
def test_the_precision_used_follows_the_checks(
    outcome: tuple[bool, bool], tiles: Tiles, own_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OpenVINO takes bf16 as a wish where the processor lacks it, so the choice is tested on every machine."""
    monkeypatch.setattr(machine, "cpu_precisions", lambda core: ("fp32", "bf16"))
    passes = dict(zip(("bf16", "fp32"), outcome, strict=True))

    def check(self: object, runtime: Runtime, exact: Runtime | None = None) -> tuple[PrecisionCheck, ...]:
        cosine = 1.0 if passes[runtime.precision] else 0.5
        return (PrecisionCheck(cosine_min=cosine, cosine_mean=cosine, n_tiles=32, precision_used=runtime.precision),)

    monkeypatch.setattr(opening._Reference, "check", check)
    monkeypatch.setattr(opening._Reference, "check_conversion", check)
    for _ in ("first", "from the store"):
        runtime = open_runtime(
            EncoderSpec(f"{own_path}:build"), RuntimeSettings(device="cpu"), tile_px=64, check_tiles=lambda: tiles
        )
        if outcome == (False, False):
            assert (runtime.name.split()[0], runtime.precision, len(runtime.notes)) == ("torch", "fp32", 1)
        else:
            used = "bf16" if outcome[0] else "fp32"
            assert (runtime.name.split()[0], runtime.precision, len(runtime.notes)) == (
                "openvino",
                used,
                1 - outcome[0],
            )
            assert [check.precision_used for check in runtime.checks] == [used]


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (
            RuntimeSettings(device="cuda"),
            "device 'cuda' is asked for but this machine has none that torch can use. Pass --device cpu.",
        ),
        (
            RuntimeSettings(device="cpu", precision="fp16"),
            "precision 'fp16' is asked for but this processor computes fp32. Pass --precision fp32.",
        ),
        (
            RuntimeSettings(device="cpu", precision="bf16", runtime="openvino"),
            "precision 'bf16' is asked for but this processor computes fp32. Pass --precision fp32.",
        ),
        (
            RuntimeSettings(device="cpu", precision="fp16", runtime="torch"),
            "precision 'fp16' is asked for but torch on the CPU has it not. Pass --precision fp32.",
        ),
        (
            RuntimeSettings(device="cpu", precision="int8", runtime="torch"),
            "precision 'int8' is asked for but torch on the CPU has it not. Pass --precision fp32.",
        ),
        (
            RuntimeSettings(device="cpu", precision="int8"),
            "precision 'int8' needs NNCF, which is not installed. Run: pip install 'lamella[int8]'.",
        ),
    ],
)
def test_what_the_machine_has_not_is_an_error_with_what_to_pass(
    settings: RuntimeSettings, sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "_driver_sees_cuda", lambda: False)
    monkeypatch.setattr(machine, "cpu_precisions", lambda core: ("fp32",))
    monkeypatch.setattr(planning, "has_nncf", lambda: False)
    with pytest.raises(EncoderError) as caught:
        open_runtime(EncoderSpec("resnet18", "random"), settings, tile_px=64, check_tiles=lambda: np.zeros(0, np.uint8))
    assert str(caught.value) == sentence


@pytest.mark.parametrize("option", [{"device": "tpu"}, {"precision": "int4"}, {"runtime": "onnx"}, {"n_threads": 0}])
def test_settings_that_no_runtime_knows_are_refused(option: dict[str, str]) -> None:
    with pytest.raises(SettingsError):
        RuntimeSettings(**option)  # type: ignore[arg-type]


def test_this_machine_can_be_described() -> None:
    openvino, pytorch = describe_runtimes()
    assert (openvino.name, pytorch.name) == ("openvino", "torch")
    assert "fp32" in openvino.precisions
    assert pytorch.version


def test_a_compiled_network_is_kept_apart_by_tile_size_batch_and_fingerprint() -> None:
    entries = [
        CompiledEntry(fingerprint=fingerprint, tile_px=px, batch_size=batch, processor="p").folder
        for fingerprint, px, batch in (("a" * 64, 64, 4), ("b" * 64, 64, 4), ("a" * 64, 96, 4), ("a" * 64, 64, 8))
    ]
    assert len(set(entries)) == 4
