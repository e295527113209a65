"""What the commands of the gallery find: tables, slides, bags and runs with something wrong, in the current folder."""

import dataclasses
import hashlib
from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np
from typer.testing import CliRunner

from lamella.cli import build_app
from lamella.files import write_json
from tests import tiny
from tests.slide.drawn import draw, write_levels

_ENCODER = """\
import torch


class Colours(torch.nn.Module):
    def forward(self, tiles):
        mean, sd = tiles.mean((2, 3)), tiles.std((2, 3))
        return torch.cat([mean, sd, mean * sd], 1) * {factor}


def {function}():
    return Colours()
"""


def write_table(path: str, *lines: str) -> None:
    """Write a table line by line."""
    Path(path).write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_cohort(path: str, *, n_slides: int, batches: Sequence[str] = ()) -> None:
    """Write a labelled table of slides that need not be there: S-0412, S-0413, ..."""
    rows = [f"S-{412 + i:04d}.svs,{'malignant' if i % 2 else 'benign'}" for i in range(n_slides)]
    if batches:
        rows = [f"{row},{batches[i // 2 % len(batches)]}" for i, row in enumerate(rows)]
    write_table(path, "slide,label" + (",batch" if batches else ""), *rows)


def draw_slide(path: str, *, mpp: float | tuple[float, float] | None = 0.5, blank: bool = False, seed: int = 0) -> None:
    """Draw a tiny slide without loss, so that what is found on it is the same everywhere."""
    pixels = tiny.draw_glass(seed) if blank else tiny.draw_tissue(seed)
    tiny.save_slide(Path(path), pixels, mpp=mpp, compression="none")


def draw_other_level(path: str) -> None:
    """Save a slide whose second level is another picture, of another shape."""
    pixels, _ = draw(1000, 750, blobs=((300, 250, 200, 180), (750, 560, 150, 120)))
    other, _ = draw(300, 140, blobs=((200, 70, 80, 50),), seed=3)
    write_levels(Path(path), [pixels, other])


def write_zarr(path: str, *, dtype: str, channels: int) -> None:
    """Save an OME-Zarr image (NGFF 0.4) of 300 x 200 pixels, none of which is stored."""
    image = Path(path)
    (image / "0").mkdir(parents=True)
    shape = [channels, 200, 300]
    array = {"shape": shape, "chunks": shape, "dtype": dtype, "compressor": None, "filters": None, "fill_value": 0}
    write_json(image / "0" / ".zarray", array | {"order": "C", "zarr_format": 2})
    write_json(image / ".zgroup", {"zarr_format": 2})
    axes = [{"name": name, "type": kind} for name, kind in (("c", "channel"), ("y", "space"), ("x", "space"))]
    write_json(image / ".zattrs", {"multiscales": [{"version": "0.4", "axes": axes, "datasets": [{"path": "0"}]}]})


def draw_twins() -> None:
    """Draw six slides, one of them twice under two names."""
    rows = ["slide,label"]
    for i, name in enumerate(("S-0412", "S-0413", "S-0414", "S-0415", "S-0416", "S-0587")):
        draw_slide(f"{name}.tif", seed=0 if name == "S-0587" else i)
        rows.append(f"{name}.tif,{'malignant' if i % 2 else 'benign'}")
    write_table("slides.csv", *rows)


def draw_truncated() -> None:
    """Draw a slide that ends before its pixels do."""
    draw_slide("S-0412.tif")
    cut_short("S-0412.tif", 600_000)


def draw_unreadable() -> None:
    """Write six slides that are none, and an encoder."""
    write_encoder("mine.py")
    rows = ["slide,label"]
    for i in range(6):
        Path(f"S-{412 + i:04d}.svs").write_text(f"note {i}\n", encoding="utf-8")
        rows.append(f"S-{412 + i:04d}.svs,{'malignant' if i % 2 else 'benign'}")
    write_table("slides.csv", *rows)


def draw_mostly_unreadable() -> None:
    """Draw six slides, two malignant ones of them unreadable, and an encoder."""
    draw_unreadable()
    rows = ["slide,label"]
    for i in range(6):
        name = f"S-{412 + i:04d}.svs" if i in (1, 3) else f"S-{412 + i:04d}.tif"
        if name.endswith(".tif"):
            draw_slide(name, seed=i)
        rows.append(f"{name},{'malignant' if i % 2 else 'benign'}")
    write_table("slides.csv", *rows)


def cut_short(path: str, n_bytes: int) -> None:
    """Keep only the first bytes of a file."""
    content = Path(path).read_bytes()
    assert len(content) > n_bytes
    Path(path).write_bytes(content[:n_bytes])


def write_region(path: str, *, corner: tuple[int, int], classes: tuple[str, ...] = ()) -> None:
    """Write a square outline as QuPath exports it, or one of each class."""
    x, y = corner
    ring = [[x, y], [x + 80, y], [x + 80, y + 60], [x, y + 60], [x, y]]
    geometry = {"type": "Polygon", "coordinates": [ring]}
    features = [{"type": "Feature", "geometry": geometry, "properties": {"classification": {"name": name}}}
                for name in classes] or [{"type": "Feature", "geometry": geometry}]  # fmt: skip
    write_json(Path(path), {"type": "FeatureCollection", "features": features})


def save_weights(path: str, network: str) -> None:
    """Save the weights of a network of timm's, as made."""
    import timm
    import torch

    torch.save(timm.create_model(network, pretrained=False).state_dict(), path)


def write_encoder(path: str, *, function: str = "build", factor: str = "1") -> None:
    """Write an encoder that sees mean and SD of the colours."""
    Path(path).write_text(_ENCODER.format(function=function, factor=factor), encoding="utf-8")


def extract_once() -> None:
    """Draw a slide and extract its bag."""
    draw_slide("S-0412.tif")
    write_encoder("mine.py")
    command = "extract S-0412.tif --tile-px 64 --encoder mine.py:build --out bags --quiet"
    done = CliRunner().invoke(build_app(), command.split())
    assert done.exit_code == 0, done.output


def save_bags(folder: str, slide_ids: Sequence[str]) -> None:
    """Write bags in TRIDENT's layout."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    for i, slide_id in enumerate(slide_ids):
        rng = np.random.default_rng(i)
        with h5py.File(Path(folder) / f"{slide_id}.h5", "w") as file:
            file["features"] = rng.normal(i % 2, 1, (7, 12)).astype(np.float32)
            file["features"].attrs["encoder"] = "uni_v1"
            file["coords"] = rng.integers(0, 900, (7, 2))
            file["coords"].attrs.update({"patch_size": 64, "patch_size_level0": 64})


def save_cohort_bags(folder: str, n_slides: int, *, nan: bool = False, mixed: bool = False, flat: bool = False) -> None:
    """Write bags for the last slides of a cohort of twelve; the first may be odd in one way."""
    save_bags(folder, [f"S-{412 + i:04d}" for i in range(12 - n_slides, 12)])
    first = Path(folder) / "S-0412.h5"
    if nan:
        with h5py.File(first, "r+") as file:
            file["features"][3, 5] = np.nan
    if flat:
        with h5py.File(first, "w") as file:
            file["features"] = np.zeros(84, np.float32)
    if mixed:
        with h5py.File(first, "r+") as file:
            file["features"].attrs["encoder"] = "conch_v1"


def save_other_h5(path: str) -> None:
    """Write an HDF5 file that holds something else."""
    with h5py.File(path, "w") as file:
        file["counts"] = np.arange(4)


def save_run(folder: str, *, models: int = 1, patients: Sequence[str] = ("P-99",)) -> None:
    """Write a finished run of an encoder of one's own, whose file has been changed since."""
    from lamella.mil import fit_model, save_model
    from lamella.mil.settings import TrainSettings

    write_encoder("mine.py")
    settings = {
        "encoder": "mine.py:build",
        "weights": "pretrained",
        "tile_px": 64,
        "mpp": 0.5,
        "stride_px": 64,
        "min_tissue": 0.5,
        "tissue": "glass",
        "max_upsample": 1.1,
        "dtype": "float16",
        "precision": "auto",
    }
    classes = ("benign", "malignant")
    write_json(Path(folder) / "run.json", {"classes": classes, "positive": "malignant", "settings": settings})
    write_json(Path(folder) / "local" / "encoder.json", {"name": "mine.py:build", "weights": "auto"})
    Path(folder, "models").mkdir()
    rng = np.random.default_rng(0)
    bags = {f"S-{i:04d}": rng.normal(i % 2, 1, (7, 9)).astype(np.float32) for i in range(4)}
    labels = {name: classes[i % 2] for i, name in enumerate(bags)}
    names = tuple(bags)
    train = TrainSettings(epochs=1)
    for i in range(models):
        model = fit_model(bags, labels, train=names[:2], val=names[2:], classes=classes, settings=train)
        provenance = {
            "encoder": "mine.py:build",
            "fingerprint": hashlib.sha256(b"as it was").hexdigest(),
            "tile_px": 64,
            "mpp": 0.5,
            "seen_patients": list(patients),
            "seen_images": [],
        }
        model = dataclasses.replace(model, positive="malignant", provenance=provenance)
        save_model(model, Path(folder) / "models" / f"fold{i}" / "seed0")


def save_export(folder: str, **changes: str) -> None:
    """Write of an exported model what is looked at before its encoder; its card is changed after it was hashed."""
    from lamella.exports.write import CARD, FORMAT, FORMAT_VERSION, hash_card
    from lamella.files import find_sha256

    write_json(Path(folder) / "seen.json", {"salt": "0123456789abcdef", "patients": [], "images": []})
    files = {"seen.json": find_sha256(Path(folder) / "seen.json")}
    card = {"format": FORMAT, "format_version": FORMAT_VERSION, "files": files}
    write_json(Path(folder) / CARD, card | {"card_sha256": hash_card(card)} | changes)


def save_undecided_study(folder: str) -> None:
    """Write the record and the verdict of a study that is inconclusive."""
    write_json(Path(folder) / "study.json", {"format": "lamella-study", "format_version": 1, "arms": []})
    verdict = {"kind": "inconclusive", "arm": None, "best_arm": "resnet18@2", "sentence": ""}
    write_json(Path(folder) / "verdict.json", {"arms": [], "verdict": verdict})


def save_tested_run(folder: str) -> None:
    """Write a finished run that knows where its slides lie, each of which it has tested."""
    save_run(folder, models=3)
    rows = [f"../../S-{412 + i:04d}.tif,{('benign', 'malignant')[i // 3 % 2]},{i % 3}" for i in range(12)]
    write_table(f"{folder}/local/cohort.csv", "slide,label,fold", *rows)


def save_attention_file(path: str, *, slide_size: tuple[int, int], image: str = "") -> None:
    """Write attention over three tiles of a slide of `slide_size` level-0 pixels."""
    from lamella.runs.attention import AttentionRecord, save_attention

    record = AttentionRecord(
        slide_id=Path(path).stem,
        attention=np.array([0.5, 0.3, 0.2], np.float32),
        coords_l0=np.array([[0, 64], [64, 64], [128, 192]], np.int64),
        tile_l0=(64.0, 64.0),
        tile_px=64,
        mpp=0.5,
        slide_size=slide_size,
        slide_mpp=(0.5, 0.5),
        key="",
        image=image,
    )
    save_attention(record, Path(path))


def save_study(folder: str, design: str) -> None:
    """Write a study's record of three seeds, a cohort, and a file that declares two."""
    from lamella.studies.design import check_design

    write_cohort("slides.csv", n_slides=12)
    arms = {"arms": [{"encoders": ["efficientnet-lite0"]}]}
    plain = check_design(arms, "here").as_plain()
    record = {"format": "lamella-study", "format_version": 1, "status": "finished", "preset": None, "design": plain,
              "classes": ["benign", "malignant"], "positive": "malignant", "arms": [],
              "cohort": {"n_slides": 12, "n_patients": 12, "per_class": {}, "n_rounds": 5}}  # fmt: skip
    write_json(Path(folder) / "study.json", record)
    write_table(design, "arms:", "  - encoders: [efficientnet-lite0]", "seeds: 2")


def write_given(design: str) -> None:
    """Write a cohort without folds, and a file that takes given ones."""
    write_cohort("slides.csv", n_slides=12)
    write_table(design, "arms:", "  - encoders: [efficientnet-lite0]", "split: given")
