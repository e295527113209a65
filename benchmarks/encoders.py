"""Print how many tiles a second an encoder does here: torch in fp32, OpenVINO by batch and streams, and what we choose.

    python benchmarks/encoders.py resnet18:512 efficientnet-lite0:224 densenet121:512

The last line of each encoder is the whole of our runtime on ready tiles, the bare rate that extraction is held
against. Weights that are not on this machine are drawn at random: they compute as fast. Rates a core-second (from
the process's own clock) stay comparable while other programs run.
"""

import argparse
import time
from collections.abc import Callable, Iterator

import numpy as np
import openvino
import torch
from numpy.typing import NDArray

from lamella.cores import count_cores
from lamella.encoders import EncoderSpec, Runtime, RuntimeSettings, find_encoder, find_weights, open_runtime
from lamella.encoders.network import build_network
from lamella.encoders.runtime.compiled import convert
from lamella.encoders.runtime.openvino_runtime import OpenVINORuntime
from lamella.encoders.runtime.planning import choose_batch_size
from lamella.encoders.runtime.torch_runtime import TorchRuntime
from lamella.errors import WeightsError

Tiles = NDArray[np.uint8]


def main() -> None:
    """Measure each encoder that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("encoders", nargs="*", default=["resnet18:512", "efficientnet-lite0:224", "densenet121:512"])
    parser.add_argument("--seconds", type=float, default=6, help="time to measure each variant for")
    parser.add_argument("--batches", type=int, nargs="*", help="batch sizes; default: ours, 4 and 16 times")
    options = parser.parse_args()
    for asked in options.encoders:
        name, _, tile_px = asked.rpartition(":")
        measure(name, int(tile_px), options.seconds, options.batches)


def measure(name: str, tile_px: int, seconds: float, batches: list[int] | None) -> None:
    """Print one encoder's rates."""
    try:
        find_weights(find_encoder(name))
        spec = EncoderSpec(name)
    except WeightsError:
        spec = EncoderSpec(name, "random")
    print(f"{name} at {tile_px} px, {count_cores()} cores, weights {spec.weights}")
    tiles = np.random.default_rng(0).integers(0, 256, (64, tile_px, tile_px, 3), dtype=np.uint8)
    ours = choose_batch_size("cpu", tile_px)
    torch.set_num_threads(count_cores())
    network = build_network(spec)
    for batch_size in (8, 16):
        rate(
            "torch fp32",
            TorchRuntime(
                network, **common(name), device="cpu", precision="fp32", tile_px=tile_px, batch_size=batch_size
            ),
            tiles,
            seconds,
        )
    for batch_size in batches or (ours, ours * 4, ours * 16):
        started = time.perf_counter()
        model = convert(network, tile_px=tile_px, batch_size=batch_size)
        print(f"  converted for batches of {batch_size} in {time.perf_counter() - started:.1f} s")
        for n_streams in sorted({1, count_cores()}):
            runtime = OpenVINORuntime(
                model, **common(name), precision="fp32", n_threads=count_cores(), n_streams=n_streams
            )
            rate(f"openvino fp32, {n_streams} streams", runtime, tiles, seconds)
    del network
    chosen = open_runtime(spec, RuntimeSettings(device="cpu"), tile_px=tile_px, check_tiles=lambda: tiles)
    started = time.perf_counter()
    again = open_runtime(spec, RuntimeSettings(device="cpu"), tile_px=tile_px, check_tiles=lambda: tiles)
    print(
        f"  opens from the store in {time.perf_counter() - started:.2f} s; checks {again.checks}; notes {again.notes}"
    )
    rate(f"ours: {chosen.name} {chosen.precision}", chosen, tiles, seconds)


def common(name: str) -> dict[str, str]:
    """Return what every runtime is told."""
    return {"encoder": name, "fingerprint": ""}


def rate(label: str, runtime: Runtime, tiles: Tiles, seconds: float) -> None:
    """Print tiles a second over `seconds` of steady work."""
    for _ in runtime.encode([tiles[: runtime.batch_size]]):
        pass
    started, cpu_started = time.perf_counter(), time.process_time()
    n_tiles = sum(map(len, runtime.encode(until(lambda: time.perf_counter() - started > seconds, tiles, runtime))))
    wall, cpu = time.perf_counter() - started, time.process_time() - cpu_started
    print(
        f"  {label:36} batch {runtime.batch_size:3}: {n_tiles / wall:7.2f} tiles/s, {n_tiles / cpu:7.2f} a core-second"
    )


def until(over: Callable[[], bool], tiles: Tiles, runtime: Runtime) -> Iterator[Tiles]:
    """Yield full batches until the time is over."""
    while not over():
        yield tiles[: runtime.batch_size]


if __name__ == "__main__":
    print(f"openvino {openvino.__version__}, torch {torch.__version__}")
    main()
