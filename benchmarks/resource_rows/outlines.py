"""GeoJSON of 10^6 points."""

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from resource_rows.shared import SIZE_L0, Work, row

N_POINTS = 1_000_000


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
