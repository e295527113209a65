"""One bag of 10^5 tiles, and attention on it."""

from pathlib import Path
from typing import Any

import numpy as np

from resource_rows.shared import CLASSES, Work, describe_bag, make_attention, make_bag, row, save_bag


def fit_small(width: int) -> Any:
    """Return a head trained on four small bags."""
    from lamella.mil import fit_model
    from lamella.mil.settings import TrainSettings

    rng = np.random.default_rng(1)
    bags = {f"s{i}": rng.standard_normal((50, width), dtype=np.float32) for i in range(4)}
    labels = {name: CLASSES[i % 2] for i, name in enumerate(bags)}
    return fit_model(bags, labels, train=list(bags), val=[], classes=CLASSES, settings=TrainSettings(epochs=1))


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
