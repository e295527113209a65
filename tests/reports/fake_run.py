"""A run folder as `lamella run` leaves one, drawn and invented here: nothing in it comes from a slide."""

import cv2
import numpy as np

from lamella.analysis.metrics import measure
from lamella.analysis.predictions import PredictionTable
from lamella.analysis.thresholds import Decisions, Threshold
from lamella.files import write_json, write_table
from lamella.reports.draw.heatmap import SlideAttention
from lamella.reports.draw.overlay import OverlayStyle, draw_overlay
from lamella.reports.draw.pictures import save_picture
from lamella.reports.draw.top_tiles import TopTile, draw_top_tiles, find_top_tiles


def draw_tissue(rng, height, width, lesion=None):
    """An `(height, width, 3)` uint8 thumbnail with a pink piece of tissue off-centre, and a dark lesion on it."""
    noise = cv2.GaussianBlur(rng.normal(size=(height, width)), (0, 0), max(height, width) / 40)
    noise = (noise - noise.min()) / np.ptp(noise)
    rows, columns = np.mgrid[0:height, 0:width]
    outline = ((columns - 0.57 * width) / (0.37 * width)) ** 2 + ((rows - 0.46 * height) / (0.4 * height)) ** 2
    tissue = outline + 0.9 * (noise - 0.5) < 1
    picture = np.full((height, width, 3), (244, 243, 245), dtype=float)
    pink = np.array([224, 168, 196]) - 70 * (noise[..., None] - 0.5) * np.array([0.5, 1.2, 0.7])
    picture[tissue] = pink[tissue]
    nuclei = rng.random((height, width)) < np.where(tissue, 0.05, 0)
    if lesion is not None:
        x, y, radius = lesion
        inside = ((columns - x) ** 2 + (rows - y) ** 2 < radius**2) & tissue
        picture[inside] = picture[inside] * 0.72 + np.array([95, 50, 120]) * 0.28
        nuclei |= inside & (rng.random((height, width)) < 0.25)
    picture[nuclei] = (92, 60, 130)
    picture = cv2.GaussianBlur(picture, (0, 0), 0.8) + rng.normal(scale=2, size=picture.shape)
    return np.clip(picture, 0, 255).astype(np.uint8), tissue


def make_attention(rng, *, slide_size=(24_000, 15_000), slide_mpp=(0.2525, 0.2505), lesion_l0=None, tile_um=112.0):
    """Tiles at half a tile's stride over the drawn tissue, and attention that rises at the lesion; with a thumbnail."""
    scale = 24
    width, height = slide_size[0] // scale, slide_size[1] // scale
    lesion = None if lesion_l0 is None else tuple(value / scale for value in lesion_l0)
    thumbnail, tissue = draw_tissue(rng, height, width, lesion)
    size = (tile_um / slide_mpp[0], tile_um / slide_mpp[1])
    xs = np.arange(0, slide_size[0] - size[0], size[0] / 2)
    ys = np.arange(0, slide_size[1] - size[1], size[1] / 2)
    corners = np.rint(np.stack(np.meshgrid(xs, ys), axis=-1).reshape(-1, 2)).astype(np.int64)
    centre = corners + np.array(size) / 2
    on = tissue[
        (centre[:, 1] / scale).astype(int).clip(0, height - 1), (centre[:, 0] / scale).astype(int).clip(0, width - 1)
    ]
    corners, centre = corners[on], centre[on]
    logits = rng.normal(scale=0.5, size=len(corners))
    if lesion_l0 is not None:
        distance = np.hypot(centre[:, 0] - lesion_l0[0], centre[:, 1] - lesion_l0[1])
        logits += 3.2 / (1 + np.exp((distance - lesion_l0[2]) / 150))
    attention = np.exp(logits) / np.exp(logits).sum()
    tiles = SlideAttention(
        attention=attention, coords_l0=corners, tile_size_l0=size, slide_size=slide_size, slide_mpp=slide_mpp
    )
    return tiles, thumbnail


def make_predictions(rng, n_slides=40, classes=("benign", "malignant")):
    """Labels, folds, batches and logits of slides, two of three from patients of their own."""
    targets = rng.permutation(np.arange(n_slides) % len(classes))
    logits = rng.normal(scale=1.0, size=(n_slides, len(classes)))
    logits[np.arange(n_slides), targets] += 2.3
    return targets, logits, np.arange(n_slides) % 5


def make_table(targets, logits, classes, patients, folds, batches):
    return PredictionTable(
        classes=tuple(classes),
        slide_ids=tuple(f"S-{400 + n}" for n in range(len(targets))),
        patient_ids=tuple(patients),
        labels=tuple(classes[target] for target in targets),
        folds=folds,
        logits=logits,
        batches=tuple(batches),
        positive=classes[-1] if len(classes) == 2 else None,
    )


def make_metrics(rng, targets, logits, classes, patients, folds, batches):
    """`metrics.json` as `lamella.runs.measure` lays it out."""
    two = len(classes) == 2
    thresholds = {
        fold: Threshold(
            value=0.4 + 0.03 * fold,
            rule="prevalence",
            note="the training prevalence, because validation has 4 positive and 4 negative and 10 of each are needed",
            n_positive=4,
            n_negative=4,
            prevalence=0.45,
        )
        for fold in range(5)
    }

    def measured(strength, decisions=None):
        weaker = logits * strength + rng.normal(scale=1 - strength, size=logits.shape)
        table = make_table(targets, weaker, classes, patients, folds, batches)
        return measure(table, decisions=decisions, n_draws=50).as_json()

    model = measured(1.0, Decisions(thresholds=thresholds if two else None))
    baselines = {
        "colour": measured(0.5),
        "tissue": measured(0.3),
        "batch": {"reason": "the cohort has no batch column"},
    }
    left_out = measured(0.85) | {"baselines": {"colour": measured(0.4)}}
    return {
        "format": 1,
        "classes": list(classes),
        "positive": classes[-1],
        "arms": {"model": model, "baselines": baselines, "leave_one_batch_out": left_out},
        "thresholds": model["thresholds"],
        "notes": model["notes"],
    }


def write_run(folder, *, n_slides=40, n_drawn=4, classes=("benign", "malignant"), seed=0, title=str):
    """Write a run folder; `title` makes the title that is drawn on a slide's pictures from its id."""
    rng = np.random.default_rng(seed)
    targets, logits, folds = make_predictions(rng, n_slides, classes)
    ids = [f"S-{400 + n}" for n in range(n_slides)]
    patients = [f"P-{n - (n % 15 == 5) * 5:02d}" for n in range(n_slides)]
    targets = np.array([targets[patients.index(patient)] for patient in patients])
    batches = ["block A" if n < n_slides // 2 else "block B" for n in range(n_slides)]
    labels = [classes[target] for target in targets]
    folder.mkdir(parents=True, exist_ok=True)
    rows = zip(ids, patients, labels, folds.tolist(), batches, strict=True)
    columns = ["slide_id", "patient_id", "label", "fold", "batch"]
    cohort = [dict(zip(columns, row, strict=True)) for row in rows]
    write_table(folder / "cohort.csv", columns, cohort)
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    prediction_rows = []
    for row, share, logit in zip(cohort, shares, logits, strict=True):
        own = {key: row[key] for key in ("slide_id", "patient_id", "label", "fold")}
        own |= {f"prob_{name}": f"{p:.6f}" for name, p in zip(classes, share, strict=True)}
        prediction_rows.append(own | {f"logit_{name}": f"{z:.6f}" for name, z in zip(classes, logit, strict=True)})
    write_table(folder / "predictions.csv", list(prediction_rows[0]), prediction_rows)
    write_json(folder / "metrics.json", make_metrics(rng, targets, logits, classes, patients, folds, batches))
    ledger = []
    for slide_id in ids:
        area, n_tiles = rng.uniform(4e7, 9e7), int(rng.integers(80, 900))
        for step, share in (("darker than glass", 0.5), ("pen ink", 0.02), ("specks and holes", 0.01)):
            removed = area * share * rng.random()
            area -= removed
            ledger.append([slide_id, step, round(area, 1), round(removed, 1), n_tiles])
    columns = ["slide_id", "step", "kept_um2", "removed_um2", "n_tiles"]
    write_table(folder / "ledger.csv", columns, [dict(zip(columns, row, strict=True)) for row in ledger])
    reason = "slide '/data/ward 7/Jane Doe/S-439.svs' stops at 0.50 um/px and 0.25 is asked. Ask for 0.50 or coarser."
    failures = [{"slide_id": "S-499", "stage": "open", "reason": reason}]
    write_table(folder / "failures.csv", ["slide_id", "stage", "reason"], failures)
    run = {
        "lamella_version": "0.1.0",
        "finished": "2026-11-23T19:00:00+0000",
        "classes": list(classes),
        "positive": classes[-1],
        "settings": {
            "encoder": "efficientnet-lite0",
            "tile_px": 224,
            "mpp": 0.25,
            "stride_px": 112,
            "min_tissue": 0.5,
            "tissue": "glass",
            "max_upsample": 1.1,
            "dtype": "float16",
            "precision": "auto",
            "sensitivity": None,
            "train": {"head": "attention", "epochs": 100, "lr": 0.001},
        },
        "runtime": "openvino on CPU, bf16",
        "notes": ["There is no column 'patient_id' in '/home/me/cohort.csv', so each slide counts as its own patient."],
        "versions": {"lamella": "0.1.0", "python": "3.11.7", "numpy": "2.4.6"},
    }
    write_json(folder / "run.json", run)
    for place in range(n_drawn):
        _draw(rng, folder / "heatmaps" / ids[place], title(ids[place]), labels[place], lesion=targets[place] > 0)
    return folder


def _draw(rng, folder, title, label, *, lesion):
    """Draw overlay and sheet of one slide."""
    lesion_l0 = (rng.integers(9_000, 17_000), rng.integers(5_000, 9_000), 1500) if lesion else None
    tiles, thumbnail = make_attention(rng, lesion_l0=lesion_l0)
    style = OverlayStyle(panel_px=600)
    save_picture(draw_overlay(tiles, thumbnail, title=title, subtitle=label, style=style), folder / "attention.png")
    tops = []
    for index in find_top_tiles(tiles, 8):
        image = draw_tissue(rng, 112, 112, (50, 45, 60) if lesion else None)[0]
        corner = tuple(tiles.coords_l0[index].tolist())
        rank, relative = int(tiles.rank[index]), float(tiles.relative[index])
        tops.append(TopTile(image=image, rank=rank, relative=relative, corner_l0=corner))
    sheet = draw_top_tiles(tops, tile_um=(112.0, 112.0), title=title, subtitle=label)
    save_picture(sheet, folder / "top_tiles.png")
