"""How many tiles of a slide are enough, and a patient's slides as one bag: on slides of real tissue with known lesions.

    python benchmarks/fair_arms.py OUT [--rotations 0 1 2]

Needs `../shared`: its mosaic tool joins labelled fields into slides. Tiles: for each rotation (which tissue blocks are
train, val and test) 80 slides of ten fields, a malignant one with one or two malignant pieces of 640 px; the study asks
for 8, 16, 32, 64 and all tiles. Patients: 36 of five slides of four fields, one slide of a malignant patient with one
such piece, every other slide with a benign one; a fold is a tissue block, so that no field crosses folds; the same bags
with `unit: patient` and `unit: slide`. EfficientNet-Lite0 at depths 4 and 3, tiles of 224 px at 0.25 um, three seeds.
It goes on where it was killed.
"""

import argparse
import csv
import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from lamella.cli.progress import RichProgress
from lamella.cohort import load_cohort
from lamella.pipeline.study import compare_arms
from lamella.studies.design import check_design
from lamella.studies.execute import Study

MOSAIC = Path(__file__).resolve().parent.parent.parent / "shared" / "tools" / "mosaic.py"
N_DRAWN, N_PATIENTS = 8, 6  # patients a block: the first six of eight are studied
N_SLIDES, N_FIELDS, LESION_PX = 5, 4, 640
TILES = (8, 16, 32, 64, "all")
COMMON = {
    "tiles": {"default": {"tile_px": 224, "mpp": 0.25}},
    "split": "given",
    "permutations": 0,
    "seeds": 3,
}
ENCODER = {"encoders": ["efficientnet-lite0"], "depths": [4, 3]}
PROGRESS = RichProgress(verbose=False, quiet=False)


def main() -> None:
    """Run what is missing and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--rotations", type=int, nargs="*", default=[0, 1, 2])
    args = parser.parse_args()
    for rotation in args.rotations:
        tell(f"tiles, rotation {rotation}", run_tiles(args.out / f"tiles{rotation}", rotation))
    for unit, study in run_units(args.out / "patients").items():
        tell(f"unit {unit}", study)


def run_tiles(folder: Path, rotation: int) -> Study:
    """Draw one cohort and run the study of tiles a slide on it."""
    slides = folder / "slides"
    if not (slides / "cohort.csv").exists():
        options = ["--slides", "80", "--fields", "10", "--lesion", str(LESION_PX), "--rotate", str(rotation)]
        subprocess.run([sys.executable, str(MOSAIC), str(slides), *options], check=True)
    comparisons = [{"name": "T", "title": "Fewer tiles", "rule": "fewer tiles against most"}]
    design = {"arms": [ENCODER | {"tiles_per_slide": TILES}], "comparisons": comparisons, **COMMON}
    return _run(slides, design, folder / "study")


def run_units(folder: Path) -> dict[str, Study]:
    """Draw patients and run the same bags by patient and by slide."""
    slides, studies = folder / "slides", {}
    if not (slides / "cohort.csv").exists():
        draw_patients(slides)
    for unit in ("patient", "slide"):
        out = folder / unit
        if unit == "slide" and not out.exists():
            shutil.copytree(folder / "patient" / "features", out / "features")
        studies[unit] = _run(slides, {"arms": [ENCODER], "unit": unit, **COMMON}, out)
    return studies


def draw_patients(out: Path) -> None:
    """Write the slides of all patients, and cohort.csv with a block as a fold."""
    mosaic = _load_mosaic()
    out.mkdir(parents=True, exist_ok=True)
    rng, fields, rows = np.random.default_rng(0), mosaic.read_fields(), []
    for fold, block in enumerate(mosaic.BLOCKS):
        kinds = {
            label: [field for field in fields if field["batch"] == block and field["label"] == label]
            for label in ("benign", "malignant")
        }
        for number in range(N_DRAWN):
            label = ("benign", "malignant")[number % 2]
            sick = int(rng.integers(0, N_SLIDES)) if label == "malignant" else -1
            for place in range(N_SLIDES):
                benign, pieces = kinds["benign"], kinds["malignant" if place == sick else "benign"]
                chosen = [benign[i] for i in rng.integers(0, len(benign), N_FIELDS)]
                canvas = mosaic.scan(2, 2, 300, rng)
                mosaic.lay(canvas, chosen, 2, 300, rng)
                piece = pieces[int(rng.integers(0, len(pieces)))]
                mosaic.graft(canvas, chosen, [piece], LESION_PX, 2, 300, rng)
                slide_id = f"B{fold}P{number}-{'abcde'[place]}"
                mosaic.save_pyramid(canvas, out / f"{slide_id}.tiff")
                rows.append(
                    {"slide": f"{slide_id}.tiff", "slide_id": slide_id, "patient_id": f"B{fold}P{number}",
                     "label": label, "fold": fold, "lesion": int(place == sick)}
                )  # fmt: skip
    with (out / "cohort.csv").open("w", newline="") as stream:
        table = csv.DictWriter(stream, fieldnames=list(rows[0]))
        table.writeheader()
        table.writerows(row for row in rows if int(str(row["patient_id"])[-1]) < N_PATIENTS)


def tell(title: str, study: Study) -> None:
    """Print the AUC and cost of each arm."""
    print(title)
    assert study.verdict is not None
    n_tiles = {row.arm: row.mean_tiles or 0.0 for row in study.record.arms}
    for arm in study.verdict.arms:
        low, high = arm.interval
        said = f"{arm.auc:.3f} ({low:.3f} to {high:.3f}), {n_tiles[arm.arm]:.1f} tiles, {arm.cost:.3g} s a slide"
        print(f"  {arm.arm:32} {said}")
    for sentence in (study.verdict.verdict.use, study.verdict.verdict.worse, study.verdict.verdict.open):
        print(f"  {sentence}")


def _run(slides: Path, design: dict[str, Any], out: Path) -> Study:
    return compare_arms(
        load_cohort(slides / "cohort.csv"), check_design(design, "the benchmark"), out, progress=PROGRESS
    )


def _load_mosaic() -> Any:
    spec = importlib.util.spec_from_file_location("mosaic", MOSAIC)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    main()
