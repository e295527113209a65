"""A cohort of 2,000 slides."""

from pathlib import Path

import numpy as np

from resource_rows.shared import (
    CLASSES,
    Work,
    make_attention,
    make_bag,
    make_predictions,
    row,
    save_bag,
    save_cohort_table,
    save_predictions,
)

N_SLIDES, N_ARMS = 2_000, 12


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

    cohort = load_cohort(save_cohort_table(folder, n=N_SLIDES))
    settings = TrainingSettings(train=TrainSettings(epochs=1), n_seeds=1, by_batch=False)
    train_on_bags(cohort, save_cohort_bags(folder), settings, folder / "run")
    return folder / "run"


@row("cohort of 2,000: table read, folds made, saved")
def split(folder: Path) -> Work:
    """As `lamella split`."""
    from lamella.cohort import list_rounds, load_cohort, save_cohort, split_folds

    table = save_cohort_table(folder, n=N_SLIDES)

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

    table, rng = save_cohort_table(folder, n=N_SLIDES), np.random.default_rng(6)
    (folder / "slides").mkdir(exist_ok=True)
    for i in range(N_SLIDES):
        path = folder / "slides" / f"S{i:06d}.tif"
        if not path.exists():
            pixels = np.full((500, 620, 3), 243, np.uint8)
            pixels[90:420, 60:420] = rng.integers(120, 220, (330, 360, 3)) * np.array([1.0, 0.7, 0.9])
            image = pyvips.Image.new_from_array(pixels).copy(xres=2000, yres=2000)
            image.tiffsave(str(path), tile=True, tile_width=128, tile_height=128, pyramid=True, compression="jpeg")
    return table
