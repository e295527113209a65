"""Extraction against the plain way, whole processes, one run; prints ratios and peak memory.

    python benchmarks/extract.py                       # resnet18, 512 px at 0.25 um, a mosaic slide of 32 x 32 fields
    python benchmarks/extract.py --encoder resnet50 densenet121 efficientnet-b0 --side 12
    python benchmarks/extract.py --encoder efficientnet-lite0 --tile-px 224 --stride 112 --side 12 --no-plain

Weights are random (seeded), the normalisation's statistics measured on the slide, so that the precision check has
something like a trained network before it. The plain way is given the tiles' corners, so it need find no tissue, and
the best of its settings, found beforehand on a few tiles.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
MOSAIC = ROOT.parent / "shared" / "tools" / "mosaic.py"


def run_process(command: list[str]) -> dict[str, float]:
    """Run a command; return wall seconds, CPU seconds and peak resident memory of its largest process, in MiB."""
    began = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    errors = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - began
    if os.waitstatus_to_exitcode(status) != 0:
        sys.exit(f"{' '.join(command)}\n{errors}")
    return {"wall": seconds, "cpu": usage.ru_utime + usage.ru_stime, "peak_mib": usage.ru_maxrss / 1024}


def save_weights(encoder: str, path: Path, slide: Path, tile_px: int) -> Any:
    """Write the weights that both sides use, as timm's state dict; return the encoder's card.

    Random ones make all tiles' embeddings alike, which no trained network does, and what is left to tell them apart
    is lost in bf16. So the normalisation's means and variances are measured on tiles of the slide.
    """
    code = (
        "import sys, torch, numpy as np; from lamella.encoders import EncoderSpec\n"
        "from lamella.encoders.network import build_network; from lamella.slide import open_slide\n"
        "name, path, slide, side = *sys.argv[1:4], int(sys.argv[4])\n"
        "network = build_network(EncoderSpec(name, 'random'))\n"
        "norms = [m for m in network.modules() if isinstance(m, torch.nn.BatchNorm2d)]\n"
        "for norm in norms: norm.momentum = None; norm.reset_running_stats(); norm.train()\n"
        "with open_slide(slide) as opened, torch.no_grad():\n"
        "    rng, (w, h) = np.random.default_rng(0), opened.size\n"
        "    corners = rng.uniform(0.2, 0.6, (24, 2)) * (w, h)\n"
        "    tiles = np.stack([opened.read_box((float(x), float(y)), (side, side), 0.25) for x, y in corners])\n"
        "    for part in np.split(tiles, 3): network(torch.from_numpy(part).permute(0, 3, 1, 2).float())\n"
        "torch.save(network.blocks.named_state(), path)\n"
    )
    subprocess.run([sys.executable, "-c", code, encoder, str(path), str(slide), str(tile_px)], check=True)
    from lamella.encoders import find_encoder

    return find_encoder(encoder)


def measure_bare(encoder: str, weights: Path, tile_px: int, seconds: float) -> float:
    """Return the rate of the encoder alone, in tiles a second: the same batch again and again, nothing decoded."""
    code = (
        "import sys, time, itertools, numpy as np\n"
        "from lamella.encoders import EncoderSpec, RuntimeSettings, open_runtime\n"
        "name, weights, tile_px, seconds = sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])\n"
        "rng = np.random.default_rng(0)\n"
        "# The check was done on the slide's tiles, by the run before, and is kept.\n"
        "runtime = open_runtime(EncoderSpec(name, weights), RuntimeSettings(), tile_px=tile_px,\n"
        "    check_tiles=lambda: rng.integers(0, 256, (64, tile_px, tile_px, 3), dtype=np.uint8))\n"
        "batch = rng.integers(0, 256, (runtime.batch_size, tile_px, tile_px, 3), dtype=np.uint8)\n"
        "stop, n = [], 0\n"
        "def batches():\n"
        "    while not stop: yield batch\n"
        "rows = runtime.encode(batches())\n"
        "for _ in range(4): next(rows)\n"
        "began = time.perf_counter()\n"
        "for _ in rows:\n"
        "    n += runtime.batch_size\n"
        "    if time.perf_counter() - began > seconds: break\n"
        "print(n / (time.perf_counter() - began))\n"
    )
    shown = subprocess.run(
        [sys.executable, "-c", code, encoder, str(weights), str(tile_px), str(seconds)],
        check=True,
        capture_output=True,
        text=True,
    )
    return float(shown.stdout)


def compare(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Return the least cosine of corresponding rows, each less the mean of its side."""
    a, b = (x.astype(np.float64) - x.mean(axis=0, dtype=np.float64) for x in (ours, theirs))
    return float(((a * b).sum(axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)).min())


def benchmark(encoder: str, slide: Path, folder: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Measure one encoder."""
    import h5py

    weights = folder / f"{encoder}.pth"
    card = save_weights(encoder, weights, slide, args.tile_px)
    lamella = [sys.executable, "-m", "lamella.cli", "extract", str(slide), "--encoder", encoder, "--weights"]
    lamella += [str(weights), "--tile-px", str(args.tile_px), "--mpp", "0.25", "--stride", str(args.stride), "--json"]
    result: dict[str, Any] = {"encoder": encoder}
    cold = run_process([*lamella, "--out", str(folder / f"cold-{encoder}")])  # converts, checks, then encodes
    result["cold_wall"] = cold["wall"]
    bag = next((folder / f"cold-{encoder}").glob("*/features_*/*.h5"))
    with h5py.File(bag) as file:
        coords, features = file["coords"][:], file["features"][:]
        result |= {name: file.attrs[name] for name in ("runtime", "precision")}
        result["check_cosine"] = float(file.attrs["check_cosine"])
    np.save(folder / "coords.npy", coords)
    result["tiles"] = len(coords)
    plain = [sys.executable, str(ROOT / "benchmarks" / "plain.py"), str(slide), str(folder / "coords.npy")]
    rest = ["--network", card.network, "--weights", str(weights), "--tile-px", str(args.tile_px)]
    rest += ["--mean", *map(str, card.mean), "--std", *map(str, card.std)]
    setting = None
    if not args.no_plain:
        run_process([*plain, str(folder / "rates.json"), *rest, "--try-tiles", str(args.try_tiles)])
        rates = json.loads((folder / "rates.json").read_text())
        setting = max(rates, key=lambda rate: rate["tiles_per_second"])
        fastest = {rate["precision"]: 0.0 for rate in rates}
        for rate in rates:
            fastest[rate["precision"]] = max(fastest[rate["precision"]], rate["tiles_per_second"])
        result |= {"plain_setting": setting, "plain_fastest": fastest}
    ours, theirs, bare, steady = [], [], [], []
    for turn in range(args.repeats):
        out = folder / f"warm-{encoder}-{turn}"
        bare.append(measure_bare(encoder, weights, args.tile_px, args.bare_seconds))
        shown = run_json([*lamella, "--out", str(out)])
        ours.append(shown)
        steady.append(shown["report"]["tiles_per_second"])
        if setting is not None:
            target = folder / f"plain-{turn}.npy"
            command = [*plain, str(target), *rest, "--setting", json.dumps(setting)]
            theirs.append(run_process(command))
            result["cosine_min"] = compare(features, np.load(target))
    result |= {
        "wall": float(np.median([o["wall"] for o in ours])),
        "peak_mib": max(o["peak_mib"] for o in ours),
        "tiles_per_second": float(np.median(steady)),
        "bare": float(np.median(bare)),
        "share_of_bare": float(np.median(steady) / np.median(bare)),
    }
    if theirs:
        walls = [t["wall"] for t in theirs]
        result |= {
            "plain_wall": float(np.median(walls)),
            "plain_peak_mib": max(t["peak_mib"] for t in theirs),
            "ratio": float(np.median([t / o["wall"] for t, o in zip(walls, ours, strict=True)])),
        }
    return result


def run_json(command: list[str]) -> dict[str, Any]:
    """Run `lamella extract --json`; return wall, peak memory and what it reported."""
    with tempfile.TemporaryFile("w+") as shown:
        began = time.perf_counter()
        process = subprocess.Popen(command, stdout=shown, stderr=subprocess.PIPE, text=True)
        assert process.stderr is not None
        errors = process.stderr.read()
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - began
        if os.waitstatus_to_exitcode(status) != 0:
            sys.exit(f"{' '.join(command)}\n{errors}")
        shown.seek(0)
        return {"wall": wall, "peak_mib": usage.ru_maxrss / 1024, "report": json.loads(shown.read())}


def main() -> None:
    """Make a slide, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", nargs="+", default=["resnet18"])
    parser.add_argument("--tile-px", type=int, default=512)
    parser.add_argument("--stride", type=int, default=None)
    parser.add_argument("--side", type=int, default=32, help="fields along each side of the mosaic")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--try-tiles", type=int, default=64)
    parser.add_argument("--bare-seconds", type=float, default=20.0)
    parser.add_argument("--no-plain", action="store_true")
    parser.add_argument("--slide", type=Path, default=None, help="a slide to use instead of a mosaic")
    args = parser.parse_args()
    args.stride = args.stride or args.tile_px
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        slide = args.slide
        if slide is None:
            subprocess.run([sys.executable, str(MOSAIC), str(folder), "--one", str(args.side)], check=True)
            slide = folder / f"large-{args.side}.tiff"
        print(f"{find_processor()}, {os.cpu_count()} cores, {platform.python_version()}")
        for encoder in args.encoder:
            result = benchmark(encoder, slide, folder, args)
            print(json.dumps(result, indent=2))


def find_processor() -> str:
    """Return the processor's name and whether it computes bf16."""
    info = Path("/proc/cpuinfo")
    text = info.read_text() if info.exists() else platform.processor()
    name = next((line.split(":")[1].strip() for line in text.splitlines() if line.startswith("model name")), text[:60])
    return f"{name} ({'bf16' if 'avx512_bf16' in text or 'amx_bf16' in text else 'no bf16'})"


if __name__ == "__main__":
    main()
