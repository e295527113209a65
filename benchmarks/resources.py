"""Time and peak memory at the sizes that are promised: 10^5 tiles a bag, 2,000 slides, 10^6 points, 10^5 rows.

    python benchmarks/resources.py                                # every row, about a quarter of an hour
    python benchmarks/resources.py --only GeoJSON                 # rows whose name holds a text
    python benchmarks/resources.py --write docs/reliability.md    # replaces the section Resources there

Each row runs in a process of its own: inputs are made, then the peak of resident memory is set back and the clock
started. Memory is the peak above what the process held at that moment, with imports and inputs; processes that it
starts do not count. Bags, slides, outlines and tables are synthetic, drawn with fixed seeds. Linux alone has these
counters.
"""

import argparse
import json
import platform
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

N_TILES, SIDE_L0, N_COLUMNS = 100_000, 224, 400
N_SLIDES, N_ARMS, N_POINTS, N_ROWS = 2_000, 12, 1_000_000, 100_000
SIZE_L0 = (N_COLUMNS * SIDE_L0, N_TILES // N_COLUMNS * SIDE_L0)
CLASSES = ("benign", "malignant")
BEGIN, END = "<!-- resources: written by benchmarks/resources.py -->", "<!-- end of resources -->"
Work = Callable[[], Any]
ROWS: dict[str, Callable[[Path], Work]] = {}


def row(name: str) -> Callable[[Callable[[Path], Work]], Callable[[Path], Work]]:
    """Register what makes a row's inputs in a folder and returns what is measured; a text it returns is shown."""

    def register(make: Callable[[Path], Work]) -> Callable[[Path], Work]:
        ROWS[name] = make
        return make

    return register


# One bag of 10^5 tiles


def make_bag(width: int, *, seed: int = 0) -> tuple[NDArray[np.float16], NDArray[np.int64]]:
    """Return features `(10^5, width)` float16 and corners on a grid of 400 columns."""
    features = np.random.default_rng(seed).standard_normal((N_TILES, width), dtype=np.float32).astype(np.float16)
    y, x = np.divmod(np.arange(N_TILES), N_COLUMNS)
    return features, np.stack([x, y], axis=1) * SIDE_L0


def describe_bag(slide_id: str) -> dict[str, Any]:
    """Return the attributes of a bag of ours."""
    return {
        "slide_id": slide_id, "slide_sha256": slide_id, "slide_quickhash": slide_id, "fingerprint": "0" * 64,
        "encoder": "synthetic", "tile_px": 224, "mpp": 0.5, "stride_px": 224, "slide_mpp_x": 0.5, "slide_mpp_y": 0.5,
        "slide_width": SIZE_L0[0], "slide_height": SIZE_L0[1], "tissue_um2": 1e6, "colour": "[200, 150, 180, 9, 9, 9]",
    }  # fmt: skip


def save_bag(path: Path, features: NDArray[np.float16], corners: NDArray[np.int64]) -> Path:
    """Write a bag of ours; one that is there stays."""
    from lamella.features.bag import BagWriter

    if not path.exists():
        writer = BagWriter(path, corners, dim=features.shape[1], dtype="float16")
        writer.append(features)
        writer.finish(describe_bag(path.stem))
    return path


def fit_small(width: int) -> Any:
    """Return a head trained on four small bags."""
    from lamella.mil import fit_model
    from lamella.mil.settings import TrainSettings

    rng = np.random.default_rng(1)
    bags = {f"s{i}": rng.standard_normal((50, width), dtype=np.float32) for i in range(4)}
    labels = {name: CLASSES[i % 2] for i, name in enumerate(bags)}
    return fit_model(bags, labels, train=list(bags), val=[], classes=CLASSES, settings=TrainSettings(epochs=1))


def make_attention() -> Any:
    """Return attention on 10^5 tiles as pictures take it."""
    from lamella.reports.draw.heatmap import SlideAttention

    shares = np.random.default_rng(2).gamma(0.3, size=N_TILES)
    return SlideAttention(
        attention=shares / shares.sum(), coords_l0=make_bag(1)[1], tile_size_l0=(SIDE_L0, SIDE_L0), slide_size=SIZE_L0,
        slide_mpp=(0.5, 0.5),
    )  # fmt: skip


def add_bag_rows(width: int) -> None:
    """Register what is done with a bag of one width."""
    called = f"bag of 10^5 x {width}, fp16"

    @row(f"{called}: load for training")
    def load(folder: Path) -> Work:
        from lamella.runs.bags import load_bag_folder

        save_bag(folder / f"bags{width}" / "S0.h5", *make_bag(width))
        return lambda: load_bag_folder(folder / f"bags{width}", ["S0"]) and None

    @row(f"{called}: load of TRIDENT's layout, a row a chunk")
    def load_trident(folder: Path) -> Work:
        import h5py

        from lamella.runs.bags import load_bag_folder

        path = folder / f"trident{width}" / "S0.h5"
        path.parent.mkdir(exist_ok=True)
        features, corners = make_bag(width)
        with h5py.File(path, "w") as file:
            file.create_dataset("features", data=features, chunks=(1, width))
            file.create_dataset("coords", data=corners).attrs.update({"patch_size_level0": 224, "patch_size": 224})
        return lambda: load_bag_folder(path.parent, ["S0"]) and None

    @row(f"{called}: predict with attention, 3 heads")
    def predict(folder: Path) -> Work:
        from lamella.mil.model import predict_ensemble

        models, features = [fit_small(width)] * 3, make_bag(width)[0]
        return lambda: predict_ensemble(models, features) and None

    @row(f"{called}: one epoch over 10 such bags")
    def train(folder: Path) -> Work:
        from lamella.mil import fit_model
        from lamella.mil.settings import TrainSettings

        shared = make_bag(width)[0]  # ten bags of the same numbers: what is held beside them is measured
        bags = {f"s{i}": shared for i in range(10)}
        labels = {name: CLASSES[i % 2] for i, name in enumerate(bags)}
        names, settings = list(bags), TrainSettings(epochs=1)
        return lambda: fit_model(
            bags, labels, train=names[:8], val=names[8:], classes=CLASSES, settings=settings
        ) and None  # fmt: skip


for _width in (512, 1536):
    add_bag_rows(_width)


@row("attention on 10^5 tiles: written and read")
def keep_attention(folder: Path) -> Work:
    """Attention of a bag of ours."""
    from lamella.runs.attention import load_attention, locate_attention, save_attention

    shares, corners = make_attention().attention.astype(np.float32), make_bag(1)[1]

    def run() -> None:
        save_attention(locate_attention(shares, corners, describe_bag("S0"), key="k"), folder / "attention.h5")
        load_attention(folder / "attention.h5")

    return run


@row("attention on 10^5 tiles: picture")
def draw(folder: Path) -> Work:
    """The overlay of the page."""
    from lamella.reports.draw.overlay import OverlayStyle, draw_overlay
    from lamella.reports.draw.pictures import save_picture

    tiles, thumbnail = make_attention(), np.full((560, 900, 3), 220, np.uint8)
    return lambda: save_picture(draw_overlay(tiles, thumbnail, title="S0", style=OverlayStyle()), folder / "a.png")


@row("attention on 10^5 tiles: TIFF map")
def map_tiff(folder: Path) -> Work:
    """The map that QuPath lays over the slide."""
    from lamella.reports.draw.tiff import save_attention_tiff

    tiles = make_attention()
    return lambda: save_attention_tiff(tiles, folder / "a.tiff")


@row("attention on 10^5 tiles: GeoJSON")
def write_geojson(folder: Path) -> Work:
    """A detection a tile."""
    from lamella.reports.draw.geojson import save_attention_geojson

    tiles, path = make_attention(), folder / "a.geojson"

    def run() -> str:
        save_attention_geojson(tiles, path)
        return f"{path.stat().st_size / 1e6:.0f} MB"

    return run


@row("attention on 10^5 tiles: the most attended, for the page and for stage 2")
def choose(folder: Path) -> Work:
    """Top tiles."""
    from lamella.finetune.tiles import choose_top
    from lamella.reports.draw.top_tiles import find_top_tiles

    tiles = make_attention()
    return lambda: (find_top_tiles(tiles), choose_top(tiles.attention, 200), None)[-1]


# A cohort of 2,000 slides


def save_cohort_table(folder: Path, *, n: int = N_SLIDES, name: str = "cohort.csv") -> Path:
    """Write a cohort table of slides that need not be there."""
    lines = ["slide,slide_id,patient_id,label,batch"]
    lines += [f"slides/S{i:06d}.tif,S{i:06d},P{i:06d},{CLASSES[i % 2]},B{i % 5}" for i in range(n)]
    path = folder / name
    path.write_text("\n".join(lines) + "\n")
    return path


def save_cohort_bags(folder: Path) -> Path:
    """Write a bag of 200 x 512 for each slide of the cohort, planted with its label."""
    rng, corners = np.random.default_rng(3), make_bag(1)[1][:200]
    for i in range(N_SLIDES):
        features = rng.standard_normal((200, 512), dtype=np.float32)
        features[:8, :4] += 1.5 * (i % 2) + rng.standard_normal()
        save_bag(folder / "bags" / f"S{i:06d}.h5", features.astype(np.float16), corners)
    return folder / "bags"


def train_cohort(folder: Path) -> Path:
    """Train on the cohort's bags, one seed and one epoch a fold; what is finished stays."""
    from lamella.cohort import load_cohort
    from lamella.mil.settings import TrainSettings
    from lamella.runs.execute import train_on_bags
    from lamella.runs.settings import TrainingSettings

    cohort = load_cohort(save_cohort_table(folder))
    settings = TrainingSettings(train=TrainSettings(epochs=1), n_seeds=1, by_batch=False)
    train_on_bags(cohort, save_cohort_bags(folder), settings, folder / "run")
    return folder / "run"


def make_predictions(n_arms: int, n: int, *, n_seeds: int = 3) -> Any:
    """Return the long table of a study, float logits of arms that agree for the most part."""
    import pandas as pd

    rng = np.random.default_rng(4)
    target, shared, frames = np.arange(n) % 2, rng.normal(size=n), []
    for arm in range(n_arms):
        own = shared + 0.3 * rng.normal(size=n) + target * (1.5 - 0.03 * arm)
        for seed in range(n_seeds):
            logits = own + 0.1 * rng.normal(size=n)
            frames.append(
                pd.DataFrame(
                    {
                        "arm": f"arm{arm}", "seed": seed, "fold": np.arange(n) // 2 % 5, "side": "test",
                        "slide_id": [f"S{i:06d}" for i in range(n)], "patient_id": [f"P{i:06d}" for i in range(n)],
                        "label": [CLASSES[one] for one in target], "logit_benign": -logits / 2,
                        "logit_malignant": logits / 2,
                    }
                )
            )  # fmt: skip
    return pd.concat(frames, ignore_index=True)


@row("cohort of 2,000: table read, folds made, saved")
def split(folder: Path) -> Work:
    """As `lamella split`."""
    from lamella.cohort import list_rounds, load_cohort, save_cohort, split_folds

    table = save_cohort_table(folder)

    def run() -> None:
        cohort = split_folds(load_cohort(table))
        list_rounds(cohort)
        save_cohort(cohort, folder / "folds.csv")

    return run


@row("cohort of 2,000: bags of 200 x 512 loaded")
def load_bags(folder: Path) -> Work:
    """From files, each opened by a child first."""
    from lamella.runs.bags import load_bag_folder

    bags = save_cohort_bags(folder)
    return lambda: load_bag_folder(bags, [f"S{i:06d}" for i in range(N_SLIDES)]) and None


@row("cohort of 2,000: 5 folds, 1 seed, 1 epoch; predicted and measured")
def run_training(folder: Path) -> Work:
    """As `lamella train`, loading included."""
    import shutil

    save_cohort_bags(folder)
    shutil.rmtree(folder / "run", ignore_errors=True)
    return lambda: train_cohort(folder) and None


@row("cohort of 2,000: the same again, all finished")
def run_again(folder: Path) -> Work:
    """Nothing is trained; bags are loaded, slides predicted and measured."""
    train_cohort(folder)
    return lambda: train_cohort(folder) and None


@row("cohort of 2,000: page of a run")
def write_run_page(folder: Path) -> Work:
    """From the folder; 60 slides have pictures of 900 px."""
    from lamella.files import write_json
    from lamella.reports.draw.overlay import OverlayStyle, draw_overlay
    from lamella.reports.draw.pictures import save_picture
    from lamella.reports.page import write_page

    run_dir = train_cohort(folder)
    write_json(
        run_dir / "run.json", {"classes": list(CLASSES), "positive": CLASSES[-1], "settings": {}, "versions": {}}
    )
    noise = np.random.default_rng(5).integers(150, 230, (560, 900, 3)).astype(np.uint8)
    picture = draw_overlay(make_attention(), noise, title="S", style=OverlayStyle())
    for i in range(60):
        save_picture(picture, run_dir / "heatmaps" / f"S{i:06d}" / "attention.png")

    def run() -> str:
        return f"{write_page(run_dir).stat().st_size / 1e6:.1f} MB of HTML"

    return run


@row("cohort of 2,000: verdict on 12 arms, 3 seeds")
def judge(folder: Path) -> Work:
    """72,000 rows."""
    from lamella.analysis.frames import judge_arms

    frame = make_predictions(N_ARMS, N_SLIDES)
    return lambda: judge_arms(frame) and None


@row("cohort of 2,000: metrics of one arm")
def measure_arm(folder: Path) -> Work:
    """From a table."""
    from lamella.runs.measure import measure_table

    path = save_predictions(folder, N_SLIDES)
    return lambda: measure_table(path) and None


@row("cohort of 2,000: study planned")
def plan(folder: Path) -> Work:
    """As `lamella study --plan` of the paper's preset; slides of 620 x 500 px."""
    import os

    from lamella.cohort import load_cohort
    from lamella.studies.facts import plan_study
    from lamella.studies.options import StudyOptions
    from lamella.studies.presets import find_preset

    os.environ["LAMELLA_HOME"] = str(folder / "home")
    cohort = load_cohort(save_slides(folder))
    plan_study(find_preset("paper"), cohort, None, options=StudyOptions())  # times the encoders once
    return lambda: plan_study(find_preset("paper"), cohort, None, options=StudyOptions()) and None


@row("cohort of 2,000: audit of slides of 620 x 500 px")
def audit(folder: Path) -> Work:
    """Each opened by a child first."""
    from lamella.audits import audit_cohort
    from lamella.cohort import load_cohort
    from lamella.features.plan import CutSettings
    from lamella.tiles import TileSpec

    cohort = load_cohort(save_slides(folder))
    return lambda: audit_cohort(cohort, CutSettings(spec=TileSpec(tile_px=64, mpp=0.5))) and None


def save_slides(folder: Path) -> Path:
    """Write 2,000 small pyramids, each of other bytes, and their table."""
    import pyvips

    table, rng = save_cohort_table(folder), np.random.default_rng(6)
    (folder / "slides").mkdir(exist_ok=True)
    for i in range(N_SLIDES):
        path = folder / "slides" / f"S{i:06d}.tif"
        if not path.exists():
            pixels = np.full((500, 620, 3), 243, np.uint8)
            pixels[90:420, 60:420] = rng.integers(120, 220, (330, 360, 3)) * np.array([1.0, 0.7, 0.9])
            image = pyvips.Image.new_from_array(pixels).copy(xres=2000, yres=2000)
            image.tiffsave(str(path), tile=True, tile_width=128, tile_height=128, pyramid=True, compression="jpeg")
    return table


# GeoJSON of 10^6 points


def trace(n: int, centre: tuple[float, float], radius: float, *, seed: int = 0) -> NDArray[np.float64]:
    """Return a closed ring of `n` points around a centre, rough but without crossings."""
    angle = np.linspace(0, 2 * np.pi, n, endpoint=False)
    reach = radius * (0.8 + 0.1 * np.sin(7 * angle) + 0.02 * np.random.default_rng(seed).random(n))
    ring = np.stack([centre[0] + reach * np.cos(angle), centre[1] + reach * np.sin(angle)], axis=1).round(2)
    return np.concatenate([ring, ring[:1]])


def save_outlines(folder: Path, n_polygons: int) -> Path:
    """Write 10^6 points in so many polygons on a grid over the slide."""
    path = folder / f"outlines{n_polygons}.geojson"
    if not path.exists():
        side = int(np.ceil(np.sqrt(n_polygons)))
        cell = (SIZE_L0[0] / side, SIZE_L0[1] / side)
        with path.open("w") as stream:
            stream.write('{"type": "FeatureCollection", "features": [')
            for i in range(n_polygons):
                centre = ((i % side + 0.5) * cell[0], (i // side + 0.5) * cell[1])
                ring = trace(N_POINTS // n_polygons, centre, 0.55 * min(cell), seed=i).tolist()
                feature = {"type": "Feature", "geometry": {"type": "Polygon", "coordinates": [ring]}, "properties": {}}
                stream.write(("," if i else "") + json.dumps(feature))
            stream.write("]}")
    return path


def add_outline_rows(n_polygons: int, called: str) -> None:
    """Register what is done with outlines."""

    @row(f"GeoJSON of 10^6 points in {called}: read")
    def read(folder: Path) -> Work:
        from lamella.tissue.regions import load_regions

        path = save_outlines(folder, n_polygons)
        return lambda: (load_regions(path), f"file of {path.stat().st_size / 1e6:.0f} MB")[1]

    @row(f"GeoJSON of 10^6 points in {called}: tissue inside")
    def restrict(folder: Path) -> Work:
        from lamella.tissue import restrict_to_choices
        from lamella.tissue.mask import whole_slide
        from lamella.tissue.region_files import RegionChoice

        whole = whole_slide((8000, 12800), slide_size=SIZE_L0, slide_mpp=(0.5, 0.5), method="glass")
        choice = RegionChoice(kind="include", path=save_outlines(folder, n_polygons))
        return lambda: restrict_to_choices(whole, [choice], "S0", (0, 0, *SIZE_L0)) and None

    @row(f"GeoJSON of 10^6 points in {called}: lesions for localisation")
    def lesions(folder: Path) -> Work:
        from lamella.analysis.localise import number_lesions
        from lamella.explain.outlines import load_truth

        path = save_outlines(folder, n_polygons)

        def run() -> None:
            mask = load_truth(path, SIZE_L0)((2560, 4096))
            number_lesions(mask, SIZE_L0[0] * 0.5 / 4096)

        return run


for _number, _called in ((1, "one polygon"), (1_000, "1,000 polygons"), (100_000, "100,000 polygons")):
    add_outline_rows(_number, _called)


@row("GeoJSON of 10^6 points: tissue outlines written")
def write_outlines(folder: Path) -> Work:
    """Of a mask full of holes."""
    from lamella.tissue.mask import whole_slide
    from lamella.tissue.regions import save_tissue_geojson

    whole = whole_slide((2500, 4000), slide_size=SIZE_L0, slide_mpp=(0.5, 0.5), method="glass")
    holes = np.random.default_rng(7).random(whole.mask.shape) > 0.03
    tissue, path = whole.with_step("glass", holes), folder / "tissue.geojson"
    return lambda: (save_tissue_geojson(tissue, path), f"file of {path.stat().st_size / 1e6:.0f} MB")[1]


# Tables of 10^5 rows


def save_predictions(folder: Path, n: int) -> Path:
    """Write a predictions table of one arm."""
    path = folder / f"predictions{n}.csv"
    make_predictions(1, n, n_seeds=1).drop(columns=["arm", "seed", "side"]).to_csv(path, index=False)
    return path


@row("table of 10^5 rows: cohort read")
def read_cohort(folder: Path) -> Work:
    """CSV."""
    from lamella.cohort import load_cohort

    table = save_cohort_table(folder, n=N_ROWS, name="large.csv")
    return lambda: load_cohort(table) and None


@row("table of 10^5 rows: folds made, checked and saved")
def split_large(folder: Path) -> Work:
    """As `lamella split`."""
    from lamella.cohort import list_rounds, load_cohort, save_cohort, split_folds

    cohort = load_cohort(save_cohort_table(folder, n=N_ROWS, name="large.csv"))

    def run() -> None:
        made = split_folds(cohort)
        list_rounds(made)
        save_cohort(made, folder / "large_folds.csv")

    return run


@row("table of 10^5 rows: predictions measured")
def measure_large(folder: Path) -> Work:
    """As `lamella measure`."""
    from lamella.runs.measure import measure_table

    path = save_predictions(folder, N_ROWS)
    return lambda: measure_table(path) and None


@row("table of 10^5 rows: verdict on 5 arms of 20,000 patients")
def judge_large(folder: Path) -> Work:
    """One seed."""
    from lamella.analysis.frames import judge_arms

    frame = make_predictions(5, 20_000, n_seeds=1)
    return lambda: judge_arms(frame) and None


@row("table of 10^5 rows: failures written")
def write_failures(folder: Path) -> Work:
    """A reason a slide."""
    from lamella.files import write_table

    rows = [
        {"slide_id": f"S{i}", "stage": "open", "reason": "it cannot be read. Copy it again."} for i in range(N_ROWS)
    ]
    return lambda: write_table(folder / "failures.csv", ["slide_id", "stage", "reason"], rows)


# A slide of 200,000 x 150,000 px


def save_large_slide(folder: Path) -> Path:
    """Write a pyramid of 200,000 x 150,000 px; its tiles are few and shared, so that the file is small."""
    import tifffile

    path = folder / "large.tif"
    if path.exists():
        return path
    rng = np.random.default_rng(8)
    glass = np.full((512, 512, 3), 243, np.uint8)
    tissue = (rng.integers(140, 220, (512, 512, 3)) * np.array([1.0, 0.7, 0.9])).astype(np.uint8)

    def list_tiles(width: int, height: int) -> Any:
        for y in range(-(-height // 512)):
            for x in range(-(-width // 512)):
                inside = 0.12 < (x + 0.5) * 512 / width < 0.72 and 0.2 < (y + 0.5) * 512 / height < 0.85
                yield tissue if inside else glass

    with tifffile.TiffWriter(path, bigtiff=True) as file:
        for level in range(9):
            width, height = 200_000 >> level, 150_000 >> level
            options: dict[str, Any] = {"subifds": 0} if level == 0 else {"subfiletype": 1}
            file.write(
                list_tiles(width, height), shape=(height, width, 3), dtype=np.uint8, tile=(512, 512),
                photometric="rgb", compression="jpeg", compressionargs={"level": 40},
                resolution=(20_000 >> level, 20_000 >> level), resolutionunit="CENTIMETER", metadata=None, **options,
            )  # fmt: skip
    return path


@row("slide of 200,000 x 150,000 px: tissue found and tiles placed")
def plan_large(folder: Path) -> Work:
    """Tiles of 256 px at 0.5 um."""
    from lamella.cohort import CohortSlide
    from lamella.features.plan import CutSettings, plan_slide
    from lamella.tiles import TileSpec

    path = save_large_slide(folder)
    item = CohortSlide(slide_id="S0", path=path, patient_id="P0", label=None)

    def run() -> str:
        made = plan_slide(item, CutSettings(spec=TileSpec(tile_px=224, mpp=0.5, stride_px=224)))
        made.slide.close()
        return f"{len(made.corners_l0):,} tiles"

    return run


@row("slide of 200,000 x 150,000 px: audit")
def audit_large(folder: Path) -> Work:
    """As `lamella audit` does each slide."""
    from lamella.audits import audit_slide
    from lamella.cohort import CohortSlide
    from lamella.features.plan import CutSettings
    from lamella.tiles import TileSpec

    item = CohortSlide(slide_id="S0", path=save_large_slide(folder), patient_id="P0", label=None)
    return lambda: audit_slide(item, CutSettings(spec=TileSpec(tile_px=224, mpp=0.5))) and None


# Measuring


def read_status(key: str) -> int:
    """Return a counter of /proc/self/status, bytes."""
    found = re.search(rf"^{key}:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024


def measure_here(name: str, folder: Path) -> None:
    """Make a row's inputs, measure it in this process, and print JSON."""
    work = ROWS[name](folder)
    Path("/proc/self/clear_refs").write_text("5")  # sets the peak back to what is held now
    held, began, busy = read_status("VmRSS"), time.perf_counter(), find_processor_seconds()
    said = work()
    found = {"seconds": time.perf_counter() - began, "busy": find_processor_seconds() - busy}
    print(json.dumps(found | {"bytes": read_status("VmHWM") - held, "said": said or ""}))


def find_processor_seconds() -> float:
    """Return processor time of this process, of all its threads."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def measure_all(names: list[str], folder: Path) -> dict[str, Mapping[str, Any]]:
    """Measure each row in a process of its own, telling of each as it ends."""
    found: dict[str, Mapping[str, Any]] = {}
    for name in names:
        done = subprocess.run(
            [sys.executable, __file__, "--one", name, "--folder", str(folder)],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode:
            sys.exit(f"{name}: {done.stderr}")
        found[name] = json.loads(done.stdout.splitlines()[-1])
        print(say_row(name, found[name]), flush=True)
    return found


def say_row(name: str, one: Mapping[str, Any]) -> str:
    """Return a row of the table."""
    return (
        f"| {name} | {one['seconds']:.1f} s | {one['busy']:.1f} s | {one['bytes'] / 2**20:,.0f} MiB | {one['said']} |"
    )


def write_section(path: Path, lines: list[str]) -> None:
    """Replace what stands between the marks in a page."""
    from lamella.files import write_text

    before, found, rest = path.read_text(encoding="utf-8").partition(BEGIN)
    if not found or END not in rest:
        sys.exit(f"'{path}' has no section between '{BEGIN}' and '{END}'")
    write_text(path, before + "\n".join([BEGIN, *lines, END]) + rest.partition(END)[2])


def find_processor() -> str:
    """Return the processor's name and cores."""
    import os

    found = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    return f"{found[1] if found else platform.processor()}, {os.cpu_count()} cores"


def main() -> None:
    """Parse arguments and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="measure rows whose name holds this text")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="replace the section Resources of this page")
    parser.add_argument("--folder", type=Path, help="keep inputs here, to measure again; default: a temporary one")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        measure_here(args.one, args.folder)
        return
    names = [name for name in ROWS if args.only in name]
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        head = ["| what | by the clock | processor | peak above start | |", "|---|---:|---:|---:|---|"]
        print("\n".join(head))
        found = measure_all(names, folder)
    if args.write:
        told = f"Measured {time.strftime('%Y-%m-%d')} on {find_processor()}, by `benchmarks/resources.py`."
        write_section(args.write, [told, "", *head, *(say_row(name, one) for name, one in found.items())])


if __name__ == "__main__":
    main()
