"""What several depths and encoders cost together, whole processes, interleaved; prints medians and ratios.

    python benchmarks/depths.py                                   # resnet18 and efficientnet-lite0, 512 px
    python benchmarks/depths.py --encoder resnet18 --tile-px 224 --side 6 --repeats 5

For each encoder: depth 4 alone, all four depths in one pass, depths 3, 2 and 1 alone; then two encoders in one run
beside each alone, with how much was read. Weights are random: speed does not depend on their values.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
MOSAIC = ROOT.parent / "shared" / "tools" / "mosaic.py"


def run_once(slide: Path, names: list[str], out: Path, tile_px: int) -> tuple[float, float]:
    """Extract one slide in a process of its own; return wall seconds, and seconds of encoding as it reports them."""
    command = [
        sys.executable,
        "-m",
        "lamella.cli",
        "extract",
        str(slide),
        "--weights",
        "random",
        "--mpp",
        "0.25",
        "--precision",
        "fp32",
    ]
    command += ["--tile-px", str(tile_px), "--json", "--quiet", "--out", str(out)]
    for name in names:
        command += ["--encoder", name]
    began = time.perf_counter()
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    return time.perf_counter() - began, float(json.loads(done.stdout)["seconds"])


def main() -> None:
    """Make a slide, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", nargs="+", default=["resnet18", "efficientnet-lite0"])
    parser.add_argument("--tile-px", type=int, default=512)
    parser.add_argument("--side", type=int, default=10, help="fields along each side of the mosaic")
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        subprocess.run([sys.executable, str(MOSAIC), str(folder), "--one", str(args.side)], check=True)
        slide = folder / f"large-{args.side}.tiff"
        arms = {}
        for encoder in args.encoder:
            arms |= {f"{encoder}@{depth}": [f"{encoder}@{depth}"] for depth in (4, 3, 2, 1)}
            arms[f"{encoder}@1,2,3,4"] = [f"{encoder}@1,2,3,4"]
        if len(args.encoder) > 1:
            arms[" + ".join(args.encoder[:2])] = args.encoder[:2]
        seconds: dict[str, list[tuple[float, float]]] = {arm: [] for arm in arms}
        for turn in range(-1, args.repeats):  # the first turn converts and checks the networks, and does not count
            for number, (arm, names) in enumerate(arms.items()):
                found = run_once(slide, names, folder / f"{turn}-{number}", args.tile_px)
                if turn >= 0:
                    seconds[arm].append(found)
                print(f"turn {turn} {arm}: {found[0]:.1f} s, encoding {found[1]:.1f} s", file=sys.stderr, flush=True)
        print(f"{os.cpu_count()} cores, {args.tile_px} px, medians of {args.repeats}, seconds")
        medians = {arm: np.median(np.array(found), axis=0) for arm, found in seconds.items()}
        for arm, (wall, encoding) in medians.items():
            base = medians[f"{arm.partition('@')[0].partition(' ')[0]}@4"]
            print(f"{arm:40} whole {wall:7.1f}  encoding {encoding:7.1f}  of depth 4: {encoding / base[1]:.2f}")
        if len(args.encoder) > 1:
            both, parts = medians[" + ".join(args.encoder[:2])], [medians[f"{e}@4"] for e in args.encoder[:2]]
            print(f"two encoders in one run: {both[1] / sum(p[1] for p in parts):.2f} of the sum of each alone")


if __name__ == "__main__":
    main()
