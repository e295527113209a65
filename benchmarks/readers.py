"""Times the slide readers per format and compares their pixels: what `lamella.slide.opening` chooses by.

    python benchmarks/readers.py DATA [MOSAIC.tiff ...]

DATA is the folder of real slides (../shared/data/slides); mosaics are made by ../shared/tools/mosaic.py OUT --one 8.
Each reader runs in a process of its own, since fastslide can end one; it reads level 0 in blocks, once to warm the
page cache and once timed. CPU seconds count all threads of the process. Differences are in grey levels, over level 0.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyvips

from lamella.errors import LamellaError
from lamella.slide import open_slide
from lamella.slide.readers import FastslideReader, OpenSlideReader, Reader, VipsReader

BLOCK_PX, MAX_BLOCKS = 1024, 24
KINDS: dict[str, type[FastslideReader] | type[OpenSlideReader] | type[VipsReader]] = {
    "fastslide": FastslideReader,
    "openslide": OpenSlideReader,
    "libvips": VipsReader,
}


def list_blocks(size: tuple[int, int]) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """List up to `MAX_BLOCKS` boxes (corner, size) spread over a level."""
    boxes = [
        ((x, y), (min(BLOCK_PX, size[0] - x), min(BLOCK_PX, size[1] - y)))
        for y in range(0, size[1], BLOCK_PX)
        for x in range(0, size[0], BLOCK_PX)
    ]
    return boxes[:: max(1, len(boxes) // MAX_BLOCKS)][:MAX_BLOCKS]


def time_one(path: Path, name: str, out: Path) -> None:
    """Read a slide with one reader, or as Lamella does; save the first blocks and print seconds and megapixels."""
    reader: Reader = open_slide(path)._reader if name == "lamella" else KINDS[name](path)
    boxes = list_blocks(reader.level_dimensions[0])
    np.save(out, np.concatenate([reader.read(corner, 0, size).ravel() for corner, size in boxes]))
    reader.close()
    reader = open_slide(path)._reader if name == "lamella" else KINDS[name](path)
    wall, cpu = time.perf_counter(), time.process_time()
    for corner, size in boxes:
        reader.read(corner, 0, size)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    megapixels = sum(width * height for _, (width, height) in boxes) / 1e6
    print(f"{wall} {cpu} {megapixels} {len(reader.level_dimensions)} {reader.name}")


def compare(path: Path, folder: Path) -> None:
    """Time every reader on one slide and print a row for each."""
    seen: dict[str, np.ndarray] = {}
    speeds: dict[str, float] = {}
    for name in (*KINDS, "lamella"):
        out = folder / f"{name}.npy"
        command = [sys.executable, __file__, "--one", name, str(path), str(out)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        except subprocess.TimeoutExpired:
            print(f"{path.name:28} {name:10} hangs")
            continue
        if done.returncode != 0 or not done.stdout.strip():
            said = (done.stderr.strip().splitlines() or ["ends the process without a word"])[-1]
            print(f"{path.name:28} {name:10} {said[:110]}")
            continue
        wall, cpu, megapixels, n_levels, version = done.stdout.strip().splitlines()[-1].split(" ", 4)
        seen[name] = np.load(out).astype(np.int16)
        speeds[name] = float(megapixels) / max(float(cpu), 1e-9)
        base = seen.get("openslide")
        against = ""
        if base is not None and base.shape == seen[name].shape and name != "openslide":
            difference = np.abs(seen[name] - base)
            against = (
                f"{speeds[name] / speeds['openslide']:6.2f} x openslide, "
                f"differs by {difference.max()} at most, {difference.mean():.3f} on average"
            )
        rate = f"{speeds[name]:7.1f} Mpx per CPU second, {float(megapixels) / float(wall):7.1f} by the clock"
        print(f"{path.name:28} {name:10} {rate}, {n_levels} levels  {against}  ({version})")


def save_compressions(source: Path, folder: Path) -> list[Path]:
    """Save one slide's pixels as tiled TIFF of each compression libvips can write here."""
    with open_slide(source) as slide:
        image = pyvips.Image.new_from_array(slide.read_region((0, 0), 0, slide.size))
    paths = []
    for compression in ("jpeg", "deflate", "lzw", "none", "webp"):
        path = folder / f"tiff-{compression}.tiff"
        image.tiffsave(str(path), compression=compression, tile=True, pyramid=True, tile_width=256, tile_height=256)
        paths.append(path)
    return paths


def main() -> None:
    """Parse arguments and time every file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="the folder of real slides; with --one, the slide")
    parser.add_argument("mosaics", type=Path, nargs="*", help="more slides; with --one, where to save its pixels")
    parser.add_argument("--one", choices=(*KINDS, "lamella"), help="internal: time one reader on one file")
    args = parser.parse_args()
    if args.one:
        try:
            time_one(args.data, args.one, args.mosaics[0])
        except LamellaError as error:
            sys.exit(str(error))
        return
    slides = [path for path in sorted(args.data.iterdir()) if path.is_file()]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for path in (*slides, *args.mosaics, *save_compressions(args.data / "CMU-1-Small-Region.svs", folder)):
            compare(path, folder)


if __name__ == "__main__":
    main()
