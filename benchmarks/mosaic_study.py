"""Frozen, head only and fine-tuned on slides of real tissue with known lesions: AUC, CKA and localisation by depth.

    python benchmarks/mosaic_study.py OUT [--rotations 0 1 2] [--slides 40] [--write docs]

Needs `../shared`: its mosaic tool joins labelled fields into slides. For each rotation (which tissue blocks are train,
val and test) one cohort; EfficientNet-Lite0 at depths 4, 3 and 2, tiles of 224 px at 0.25 um, three seeds; stage 2 at
depth 4 with k = 32 and at most 5 epochs; attention and class activation maps against the outlines with all controls.
Takes an hour or two on two cores and goes on where it was killed. With `--write docs` it writes docs/mosaic-study.md
and its charts from what is there.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lamella.analysis.judgement import LEAST_PATIENTS
from lamella.cli.progress import RichProgress
from lamella.cohort import load_cohort
from lamella.encoders import EncoderSpec
from lamella.explain.localise import LocaliseSettings, localise_run
from lamella.features.extract import extract_cohort
from lamella.features.plan import CutSettings
from lamella.features.settings import ExtractSettings
from lamella.files import write_text
from lamella.finetune.settings import FinetuneSettings
from lamella.mil.settings import TrainSettings
from lamella.pipeline.run import run_cohort
from lamella.reports.charts.blocks import BlockSeries, draw_by_block
from lamella.runs.predict import open_run
from lamella.runs.settings import CamSettings, StageTwo, TrainingSettings, join_settings
from lamella.tiles import TileSpec

MOSAIC = Path(__file__).resolve().parent.parent.parent / "shared" / "tools" / "mosaic.py"
ENCODER = "efficientnet-lite0"
DEPTHS = (4, 3, 2)
CUT = CutSettings(spec=TileSpec(tile_px=224, mpp=0.25))
SMALLEST_UM = 200.0
PROGRESS = RichProgress(verbose=False, quiet=False)


def main() -> None:
    """Run what is missing, then print and perhaps write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--rotations", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--slides", type=int, default=40)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--write", type=Path, default=None, metavar="DOCS")
    parser.add_argument("--only-write", action="store_true", help="measure nothing, write what is there")
    args = parser.parse_args()
    if not args.only_write:
        for rotation in args.rotations:
            run_rotation(args.out / f"rotation{rotation}", rotation, args.slides, args.seeds)
            print(tell(args.out, args.slides, args.seeds), flush=True)
    text = tell(args.out, args.slides, args.seeds)
    if args.write is not None:
        write_text(args.write / "mosaic-study.md", text)
        draw(args.out, args.write)


def run_rotation(folder: Path, rotation: int, n_slides: int, n_seeds: int) -> None:
    """Draw one cohort and do everything on it."""
    slides = folder / "slides"
    if not (slides / "cohort.csv").exists():
        options = ["--slides", str(n_slides), "--fields", "8", "--lesion", "640", "--rotate", str(rotation)]
        subprocess.run([sys.executable, str(MOSAIC), str(slides), *options], check=True)
    cohort = load_cohort(slides / "cohort.csv")
    names = {depth: ENCODER if depth == 4 else f"{ENCODER}@{depth}" for depth in DEPTHS}
    for weights, home in (("auto", "features"), ("random", "features-random")):  # all depths in one pass
        specs = tuple(EncoderSpec(name, weights) for name in names.values())
        extract_cohort(cohort.slides, ExtractSettings(cut=CUT, encoders=specs), folder / home, progress=PROGRESS)
    for depth, name in names.items():
        run = folder / f"depth{depth}"
        link(run / "features", folder / "features")
        link(run / "controls" / "random-weights" / "features", folder / "features-random")
        finetune = FinetuneSettings(k=32, epochs=5)
        settings = join_settings(
            TrainingSettings(train=TrainSettings(), n_seeds=n_seeds),
            ExtractSettings(cut=CUT, encoders=(EncoderSpec(name),)),
            stage_two=StageTwo(finetune=finetune, n_seeds=n_seeds) if depth == 4 else None,
            cka=depth == 4,
            n_heatmaps=4,
        )
        run_cohort(cohort, settings, run, progress=PROGRESS)
        wanted = LocaliseSettings(lesions=slides, cam=CamSettings(), controls=True, smallest_um=SMALLEST_UM)
        localise_run(open_run(run), wanted, progress=PROGRESS)
        if depth == 4:
            tuned = LocaliseSettings(lesions=slides, cam=CamSettings(), arm="tuned", smallest_um=SMALLEST_UM)
            localise_run(open_run(run), tuned, progress=PROGRESS)


def link(path: Path, target: Path) -> None:
    """Let runs share the bags."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        path.symlink_to(target.resolve(), target_is_directory=True)


def read(out: Path, depth: int, name: str) -> list[tuple[str, dict[str, Any]]]:
    """Return one JSON file of every rotation that has it."""
    return [
        (folder.name.removeprefix("rotation"), json.loads((folder / f"depth{depth}" / name).read_text()))
        for folder in sorted(out.glob("rotation*"))
        if (folder / f"depth{depth}" / name).exists()
    ]


def tell(out: Path, n_slides: int, n_seeds: int) -> str:
    """Return the tables as Markdown."""
    lines = [
        "# Frozen, head only and fine-tuned on mosaics of real tissue",
        "",
        f"By `python benchmarks/mosaic_study.py OUT --write docs`. Cohorts of {n_slides} slides of 8 real fields, with",
        "one or two malignant pieces of 640 px (160 um) in each malignant slide; EfficientNet-Lite0, tiles of 224 px",
        f"at 0.25 um, {n_seeds} seeds. A rotation is which tissue blocks are train, val and test. The slides share few",
        "fields: this says what happens on these fields, and nothing about tissue at large.",
        "",
        "## Slides: AUC",
        "",
    ]
    arms = read(out, 4, "finetuned/arms.json")
    if arms:
        lines += table(
            ["arm", "read from", *(f"rotation {rotation}" for rotation, _ in arms), "mean"],
            [arm_row([found["arms"][place] for _, found in arms], "auc") for place in range(len(arms[0][1]["arms"]))],
        )
        lines += ["", "Less stage 1, paired (same slides, same reading), with the noise of seeds in the interval:", ""]
        later = [place for place, one in enumerate(arms[0][1]["arms"]) if one["arm"] != "stage 1"]
        lines += table(
            ["arm", "read from", *(f"rotation {rotation}" for rotation, _ in arms), "mean"],
            [arm_row([found["arms"][place] for _, found in arms], "less_stage_1") for place in later],
        )
    lines += ["", "Frozen, by depth (three seeds averaged, all tiles):", ""]
    rows = []
    for depth in DEPTHS:
        found = [m["arms"]["model"]["slides"]["auc"]["value"] for _, m in read(out, depth, "metrics.json")]
        rows.append([f"depth {depth}", *(f"{value:.3f}" for value in found), mean(found)])
    lines += table(["", *(f"rotation {r}" for r, _ in read(out, 4, "metrics.json")), "mean"], rows)
    lines += ["", "## Verdict", "", *tell_verdict(n_slides)]
    lines += ["", "## Which blocks moved", "", *tell_cka(out)]
    lines += ["", "## Localisation", "", *tell_localisation(out)]
    return "\n".join(lines) + "\n"


def tell_verdict(n_slides: int) -> list[str]:
    """Return what the rules say of which depth to use."""
    n = round(0.25 * n_slides) // 2  # the mosaic tool's test side, half of it malignant
    if n >= LEAST_PATIENTS:
        return ["See the verdict of a study of the same slides: `lamella study`."]
    return [
        f"None, by the rules of version 0.1.0 and by today's: a rotation tests {n} slides of a class, and both rules",
        f"ask for {LEAST_PATIENTS}. Where mosaics are enough for a verdict, both are held side by side in",
        "[statistics](statistics.md), line k.",
    ]


def arm_row(ones: Sequence[dict[str, Any]], key: str) -> list[str]:
    """Return one line of the comparison of arms."""
    values, cells = [], []
    for one in ones:
        found = one[key]
        value = found if key == "auc" or found is None else found["difference"]
        interval = one["interval"] if key == "auc" else (found or {}).get("interval")
        if value is None:
            cells.append("-")
            continue
        values.append(value)
        sign = "" if key == "auc" else "+"
        low, high = interval
        cells.append(f"{value:{sign}.3f} ({low:{sign}.3f} to {high:{sign}.3f})")
    return [ones[0]["arm"], ones[0]["reading"], *cells, mean(values, sign=key != "auc")]


def tell_cka(out: Path) -> list[str]:
    """Return CKA and change of weights by block, over rotations and seeds."""
    rows = [row for _, metrics in read(out, 4, "metrics.json") for row in metrics.get("cka", ()) if "cka" in row]
    if not rows:
        return ["Not measured."]
    names = [("CKA", "cka"), ("that block alone", "one_block"), ("another seed", "another_seed")]
    names += [("random weights", "random"), ("change of weights", "weight_change")]
    body = [
        [str(block + 1), *(spread([row[key][block] for row in rows if row[key]]) for _, key in names)]
        for block in range(4)
    ]
    text = f"Frozen against fine-tuned over the test slides: mean (least to most) of {len(rows)} trainings."
    head = ["block", *(name for name, _ in names)]
    return [text, "", *table(head, body), "", "![CKA by block](pictures/mosaic-cka.svg)"]


def spread(values: Sequence[float]) -> str:
    """Return mean and range."""
    return f"{np.mean(values):.3g} ({np.min(values):.3g} to {np.max(values):.3g})" if values else "-"


def mean(values: Sequence[float], *, sign: bool = False) -> str:
    """Return the mean of rotations."""
    return f"{np.mean(values):{'+' if sign else ''}.3f}" if len(values) else "-"


def list_localisation(out: Path) -> dict[str, list[dict[str, Any]]]:
    """Return what each map reached, a list over rotations."""
    found: dict[str, list[dict[str, Any]]] = {}
    for depth in DEPTHS:
        for file, beside in (("localisation.json", ""), ("localisation-tuned.json", ", fine-tuned")):
            for _, content in read(out, depth, file):
                for name, one in content["maps"].items():
                    title = name if name == "darkness" else f"{name}, depth {depth}{beside}"
                    if name == "darkness" and (depth != 4 or beside):
                        continue
                    found.setdefault(title, []).append(one)
    return found


def tell_localisation(out: Path) -> list[str]:
    """Return localisation by depth with all controls."""
    found = list_localisation(out)
    if not found:
        return ["Not measured."]
    measures = ("tile_auc", "tile_ap", "pixel_auc", "pixel_ap", "pointing", "top_k")
    body = []
    for title, ones in found.items():
        cells = [mean([one[key]["value"] for one in ones if one[key] is not None]) for key in measures]
        froc = mean([one["froc"]["score"] for one in ones if one["froc"] is not None])
        body.append([title, *cells, froc])
    first = next(iter(found.values()))
    chance = mean([one["tile_share"]["value"] for one in first])
    text = [
        f"Test slides with lesions, by models that did not learn from them; means over {len(first)} rotations of means",
        f"over slides. Chance of tile AP is {chance}. Top k is of the 10 highest tiles. FROC after CAMELYON16, except",
        f"that lesions from {SMALLEST_UM:g} um count (they are 160 um wide; the challenge counts from 275).",
        "",
    ]
    head = ["map", "tile AUC", "tile AP", "pixel AUC", "pixel AP", "pointing", "top k", "FROC"]
    return [*text, *table(head, body), "", "![Localisation by depth](pictures/mosaic-localisation.svg)"]


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return a Markdown table."""
    return [f"| {' | '.join(head)} |", "|" + "---|" * len(head), *(f"| {' | '.join(row)} |" for row in rows)]


def draw(out: Path, docs: Path) -> None:
    """Draw CKA and localisation."""
    rows = [row for _, metrics in read(out, 4, "metrics.json") for row in metrics.get("cka", ()) if "cka" in row]
    if rows:
        names = (("fine-tuned", "cka"), ("that block alone", "one_block"), ("random weights", "random"))
        lines = [series(name, [row[key] for row in rows]) for name, key in names]
        write_text(docs / "pictures" / "mosaic-cka.svg", draw_by_block(lines, label="CKA"))
    found = list_localisation(out)
    lines = []
    for kind in ("attention", "cam", "attention, random weights", "cam, random weights"):
        by_depth = [[one["tile_auc"]["value"] for one in found.get(f"{kind}, depth {d}", ())] for d in (2, 3, 4)]
        if all(by_depth):
            padded = [[np.nan, *row] for row in np.array(by_depth).T.tolist()]  # nothing is cut after the first block
            lines.append(series(kind, padded))
    if lines:
        write_text(docs / "pictures" / "mosaic-localisation.svg", draw_by_block(lines, label="tile AUC"))


def series(name: str, rows: Sequence[Sequence[float]]) -> BlockSeries:
    """Return a line with the range of its repeats."""
    values = np.array(rows)
    return BlockSeries(name=name, values=values.mean(axis=0), low=values.min(axis=0), high=values.max(axis=0))


if __name__ == "__main__":
    main()
