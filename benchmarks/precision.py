"""How far slide AUCs move when embeddings are computed in bf16 or int8, and what error of the embedding matters.

    python benchmarks/precision.py CACHE [--encoders efficientnet-lite0 ...] [--write docs/precision.md]

Needs `../shared` (the 40 fields of UCSB; its mosaic tool joins them into 240 slides with known lesions), OpenVINO and
NNCF. Every tile is embedded in fp32 and in each other way; on each embedding, 20 splits into five folds train one
attention head a fold (of the mosaics' splits, which have 48 slides a fold, the first fold alone), with the same first
weights; what is compared is the AUC within folds, in pairs by split.
`noise` adds noise to the fp32 embeddings, so that errors larger than any way's are seen too. Embeddings are kept in
CACHE. With `--write` the tables go into a page between its marks.

    python benchmarks/precision.py CACHE --rates [efficientnet-lite0:224 resnet18:512 timm:vit_small_patch16_224:224]

times fp32, bf16 and int8 in turn, three rounds, and prints medians and ratios.
"""

import argparse
import csv
import dataclasses
import logging
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lamella.analysis.auc import estimate_auc
from lamella.cohort import Cohort, list_rounds, load_cohort, split_folds
from lamella.encoders import EncoderSpec, RuntimeSettings, find_encoder
from lamella.encoders.network import build_network
from lamella.encoders.runtime import machine
from lamella.encoders.runtime.checking import compare_embeddings
from lamella.encoders.runtime.compiled import convert
from lamella.encoders.runtime.opening import time_encoder
from lamella.encoders.runtime.openvino_runtime import OpenVINORuntime
from lamella.features.blocks import list_blocks, read_block
from lamella.features.plan import CutSettings, plan_slide
from lamella.files import replacing, write_text
from lamella.mil.settings import TrainSettings
from lamella.mil.together import FitJob, fit_together
from lamella.tiles import TileSpec

SHARED = Path(__file__).resolve().parent.parent.parent / "shared"
CUT = CutSettings(spec=TileSpec(tile_px=224, mpp=0.25))
ENCODERS = ("efficientnet-lite0", "efficientnet-lite0@3", "densenet121-capricorn", "random:timm:vit_small_patch16_224")
RATED = ("efficientnet-lite0:224", "resnet18:512", "timm:vit_small_patch16_224:224")
NOISE = (0.99, 0.98, 0.95, 0.9)
N_CALIBRATION = 128
_MANY = 100  # slides, of which one fold a split is enough
BEGIN, END = "<!-- made by benchmarks/precision.py -->", "<!-- until here, precision -->"
Rows = NDArray[np.float32]
Bags = dict[str, Rows]


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """A way to compute embeddings.

    Attributes:
        name: What it is called in the table.
        hint: The precision of what is not quantised.
        is_int8: Whether convolutions and products are quantised.
        n_kept: How many of the first convolutions stay as they are.
    """

    name: str
    hint: str
    is_int8: bool = False
    n_kept: int = 0


WAYS = (
    Way(name="fp32", hint="fp32"),
    Way(name="bf16", hint="bf16"),
    Way(name="int8", hint="fp32", is_int8=True),
    Way(name="int8, first 2 convolutions fp32", hint="fp32", is_int8=True, n_kept=2),
    Way(name="int8, first 9 convolutions fp32", hint="fp32", is_int8=True, n_kept=9),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shift:
    """What a way does on one cohort.

    Attributes:
        encoder, cohort, way: Which.
        cosine_mean, cosine_min: To fp32, the tiles' mean subtracted.
        rate: Tiles a second; 0 where none was measured.
        auc: `(seeds,)`, within folds.
        base: `(seeds,)`, of fp32.
    """

    encoder: str
    cohort: str
    way: str
    cosine_mean: float
    cosine_min: float
    rate: float
    auc: NDArray[np.float64]
    base: NDArray[np.float64]

    @property
    def shifts(self) -> NDArray[np.float64]:
        """By split."""
        return self.auc - self.base

    def find_interval(self) -> tuple[float, float]:
        """Return the 95% interval of the mean shift over splits (Student's t)."""
        from scipy.stats import t

        n, mean = len(self.shifts), float(self.shifts.mean())
        half = float(t.ppf(0.975, n - 1)) * float(self.shifts.std(ddof=1)) / np.sqrt(n)
        return mean - half, mean + half


def main() -> None:
    """Embed, train, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cache", type=Path)
    parser.add_argument("--encoders", nargs="*", default=list(ENCODERS))
    parser.add_argument("--cohorts", nargs="*", default=["ucsb", "mosaic"])
    parser.add_argument("--slides", type=int, default=240)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--write", type=Path, default=None)
    parser.add_argument("--rates", nargs="*", default=None, metavar="ENCODER:PX")
    given = parser.parse_args()
    if given.rates is not None:
        print(compare_rates(given.rates or list(RATED)), flush=True)
        return
    given.cache.mkdir(parents=True, exist_ok=True)
    shifts: list[Shift] = []
    for name in given.cohorts:
        cohort = _load_cohort(name, given.cache, given.slides)
        for encoder in given.encoders:
            for shift in compare_ways(name, cohort, encoder, given.cache, given.seeds):
                shifts.append(shift)
                print(_say(shift), flush=True)
    _save_seeds(shifts, given.cache / "shifts.csv")
    if given.write:
        _write(given.write, tabulate(shifts), given)


def compare_rates(rated: list[str], n_rounds: int = 3) -> str:
    """Return a table of tiles a second by precision, each measured in turn so that other programs strike all alike."""
    rows = [
        "| encoder | tiles | fp32 | bf16 | int8 | bf16 / fp32 | int8 / fp32 |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for asked in rated:
        name, _, tile_px = asked.rpartition(":")
        rates: dict[str, list[float]] = {precision: [] for precision in ("fp32", "bf16", "int8")}
        for _ in range(n_rounds):
            for precision, measured in rates.items():
                settings = RuntimeSettings(device="cpu", precision=precision)
                measured.append(time_encoder(EncoderSpec(name, "random"), settings, tile_px=int(tile_px), seconds=5))
        fp32, bf16, int8 = (float(np.median(measured)) for measured in rates.values())
        rows.append(
            f"| `{name}` | {tile_px} px | {fp32:.1f}/s | {bf16:.1f}/s | {int8:.1f}/s | {bf16 / fp32:.2f} | "
            f"{int8 / fp32:.2f} |"
        )
    return "\n".join(rows)


def _load_cohort(name: str, cache: Path, n_slides: int) -> Cohort:
    if name == "ucsb":
        return load_cohort(SHARED / "data" / "ucsb-breast" / "cohort.csv")
    folder = cache / f"mosaic-{n_slides}"
    if not (folder / "cohort.csv").exists():
        command = [sys.executable, str(SHARED / "tools" / "mosaic.py"), str(folder), "--slides", str(n_slides)]
        subprocess.run([*command, "--fields", "8", "--lesion", "640"], check=True)
    return load_cohort(folder / "cohort.csv")


def compare_ways(name: str, cohort: Cohort, encoder: str, cache: Path, n_seeds: int) -> Iterator[Shift]:
    """Yield how far each way moves the AUC from fp32's."""
    model = _load_model(encoder, cache)
    calibration = _find_calibration(cohort)
    rng = np.random.default_rng(0)
    reference: Bags = {}
    base = np.zeros(0)
    for way in WAYS:
        path = cache / f"{name}-{_tidy(encoder)}-{_tidy(way.name)}.npz"
        bags, rate = _embed(path, cohort, encoder, lambda way=way: make_way(model(), way, calibration()), way)
        reference = reference or bags
        auc = _measure_once(path.with_suffix(f".{n_seeds}.npy"), cohort, bags, n_seeds)
        base = auc if way.name == "fp32" else base
        yield _compare((name, encoder, way.name), bags, reference, rate, auc, base)
    for cosine in NOISE:
        bags = _add_noise(reference, cosine, rng)
        auc = _measure_once(cache / f"{name}-{_tidy(encoder)}-noise{cosine}.{n_seeds}.npy", cohort, bags, n_seeds)
        yield _compare((name, encoder, f"noise to {cosine}"), bags, reference, 0.0, auc, base)


def _compare(
    of: tuple[str, str, str],
    bags: Bags,
    reference: Bags,
    rate: float,
    auc: NDArray[np.float64],
    base: NDArray[np.float64],
) -> Shift:
    ours, theirs = (np.concatenate([one[i] for i in sorted(one)]) for one in (bags, reference))
    cohort, encoder, way = of
    check = compare_embeddings(ours, theirs, precision=way)
    return Shift(
        encoder=encoder,
        cohort=cohort,
        way=way,
        cosine_mean=check.cosine_mean,
        cosine_min=check.cosine_min,
        rate=rate,
        auc=auc,
        base=base,
    )


def _load_model(encoder: str, cache: Path) -> Callable[[], object]:
    """Return what reads the converted network anew; quantising changes it."""
    import openvino

    path = cache / f"{_tidy(encoder)}.xml"
    if not path.exists():
        spec = find_spec(encoder)
        network = build_network(spec, (find_encoder(spec.name).depth,))
        openvino.save_model(convert(network, tile_px=CUT.spec.tile_px, batch_size=1), path, compress_to_fp16=False)
    return lambda: openvino.Core().read_model(path)


def _find_calibration(cohort: Cohort) -> Callable[[], NDArray[np.uint8]]:
    def find() -> NDArray[np.uint8]:
        rng = np.random.default_rng(0)
        chosen = rng.permutation(len(cohort.slides))[:16]
        tiles = np.concatenate([tiles for _, tiles in _read(cohort, [cohort.slides[i].slide_id for i in chosen])])
        return tiles[rng.permutation(len(tiles))[:N_CALIBRATION]]

    return find


def find_spec(encoder: str) -> EncoderSpec:
    """Return an encoder; `random:NAME` has random weights."""
    name = encoder.removeprefix("random:")
    return EncoderSpec(name) if name == encoder else EncoderSpec(name, "random")


def _tidy(name: str) -> str:
    return "".join(letter if letter.isalnum() else "_" for letter in name)


def make_way(model: object, way: Way, calibration: NDArray[np.uint8]) -> object:
    """Quantise a network as a way asks; another is returned as it is."""
    if not way.is_int8:
        return model
    import nncf

    nncf.set_log_level(logging.ERROR)
    ordered = [node.get_friendly_name() for node in model.get_ordered_ops() if "Convolution" in node.get_type_name()]
    return nncf.quantize(
        model,
        nncf.Dataset([tile[None] for tile in calibration]),
        preset=nncf.QuantizationPreset.PERFORMANCE,
        subset_size=len(calibration),
        ignored_scope=nncf.IgnoredScope(names=ordered[: way.n_kept]) if way.n_kept else None,
    )


def _read(cohort: Cohort, slide_ids: list[str] | None = None) -> Iterator[tuple[str, NDArray[np.uint8]]]:
    """Yield the tiles of each slide."""
    for item in cohort.slides:
        if slide_ids is not None and item.slide_id not in slide_ids:
            continue
        plan = plan_slide(item, CUT)
        with plan.slide:
            blocks = [
                read_block(plan.slide, block, CUT.spec, plan.level)
                for block in list_blocks(plan.corners_l0, plan.block_sizes)
            ]
        if blocks:
            yield item.slide_id, np.concatenate(blocks)


def _embed(path: Path, cohort: Cohort, encoder: str, make: Callable[[], object], way: Way) -> tuple[Bags, float]:
    """Return the embeddings of every tile, and tiles a second; kept ones are loaded."""
    if path.exists():
        with np.load(path) as kept:
            return {i: kept[i] for i in kept.files if i != "rate"}, float(kept["rate"])
    width = find_encoder(find_spec(encoder).name).embedding_dim
    runtime = OpenVINORuntime(make(), encoder=encoder, widths=(width,), precision=way.hint, n_threads=2)
    bags, seconds, n = {}, 0.0, 0
    for slide_id, tiles in _read(cohort):
        started = time.perf_counter()
        bags[slide_id] = np.concatenate(list(runtime.encode(tile[None] for tile in tiles)))
        seconds, n = seconds + time.perf_counter() - started, n + len(tiles)
    runtime.close()
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez(file, rate=n / seconds, **bags)
    return bags, n / seconds


def _measure_once(path: Path, cohort: Cohort, bags: Mapping[str, Rows], n_seeds: int) -> NDArray[np.float64]:
    if path.exists():
        return np.load(path)
    auc = _measure(cohort, bags, n_seeds)
    np.save(path, auc)
    return auc


def _measure(cohort: Cohort, bags: Mapping[str, Rows], n_seeds: int) -> NDArray[np.float64]:
    """Return `(seeds,)` the AUC within folds of one head a fold, by split seed."""
    kept = tuple(slide for slide in cohort.slides if slide.slide_id in bags)
    labels = {slide.slide_id: str(slide.label) for slide in kept}
    divisions, jobs = [], []
    for seed in range(n_seeds):
        bare = dataclasses.replace(cohort, slides=kept)
        divided = list_rounds(split_folds(bare, seed=seed))[: 5 if len(kept) < _MANY else 1]
        divisions.append(divided)
        jobs += [
            FitJob(train=one.train, val=one.val, settings=TrainSettings(seed=seed), labels=labels) for one in divided
        ]
    models = iter(fit_together(bags, jobs, cohort.classes))
    reached = []
    for divided in divisions:
        tested = [
            (cohort.classes.index(labels[i]), one.fold, model.predict(bags[i]).logits)
            for one, model in zip(divided, models, strict=False)
            for i in one.test
        ]
        targets, folds, logits = (np.array(column) for column in zip(*tested, strict=True))
        estimate = estimate_auc(logits, targets, folds=folds)
        assert estimate is not None
        reached.append(float(estimate.auc[0]))
    return np.array(reached)


def _add_noise(bags: Bags, cosine: float, rng: np.random.Generator) -> Bags:
    """Return embeddings whose mean cosine to these, the mean subtracted, is about `cosine`."""
    rows = np.concatenate(list(bags.values()))
    spread = rows.std(axis=0, dtype=np.float64)
    size = np.sqrt(1 / cosine**2 - 1)
    return {i: (bag + rng.normal(size=bag.shape) * spread * size).astype(np.float32) for i, bag in bags.items()}


def _say(shift: Shift) -> str:
    low, high = shift.find_interval() if shift.way != "fp32" else (0.0, 0.0)
    rate = f"{shift.rate:.0f}/s" if shift.rate else ""
    return (
        f"{shift.cohort:7s} {shift.encoder:24s} {shift.way:34s} {shift.cosine_mean:.4f} {shift.cosine_min:.4f} "
        f"{rate:7s} AUC {shift.auc.mean():.4f} shift {shift.shifts.mean():+.4f} ({low:+.4f} to {high:+.4f})"
    )


def tabulate(shifts: list[Shift]) -> str:
    """Return the table in Markdown."""
    rows = [
        "| cohort | encoder | computed in | mean cosine | least | AUC | shift from fp32 (95%) | largest of a split |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for shift in shifts:
        low, high = shift.find_interval() if shift.way != "fp32" else (0.0, 0.0)
        moved = "" if shift.way == "fp32" else f"{shift.shifts.mean():+.4f} ({low:+.4f} to {high:+.4f})"
        largest = "" if shift.way == "fp32" else f"{np.abs(shift.shifts).max():.3f}"
        rows.append(
            f"| {shift.cohort} | `{shift.encoder}` | {shift.way} | {shift.cosine_mean:.4f} | {shift.cosine_min:.4f} | "
            f"{shift.auc.mean():.4f} | {moved} | {largest} |"
        )
    return "\n".join(rows)


def _save_seeds(shifts: list[Shift], path: Path) -> None:
    with replacing(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["cohort", "encoder", "way", "cosine_mean", "cosine_min", "split", "auc", "auc_fp32"])
        for shift in shifts:
            for seed, (auc, base) in enumerate(zip(shift.auc, shift.base, strict=True)):
                row = [shift.cohort, shift.encoder, shift.way, f"{shift.cosine_mean:.6f}", f"{shift.cosine_min:.6f}"]
                writer.writerow([*row, seed, f"{auc:.6f}", f"{base:.6f}"])


def _write(page: Path, table: str, given: argparse.Namespace) -> None:
    text = page.read_text(encoding="utf-8")
    head, _, rest = text.partition(BEGIN)
    _, _, tail = rest.partition(END)
    processor = machine.describe_processor(machine.find_openvino_core())
    said = f"{time.strftime('%Y-%m-%d')}, {processor}; {given.seeds} splits, {given.slides} mosaic slides."
    write_text(page, f"{head}{BEGIN}\n{said}\n\n{table}\n{END}{tail}")


if __name__ == "__main__":
    main()
