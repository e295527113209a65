"""What the arms of a study cost: each encoder alone, on the same tiles, all in turn, measured once and kept.

DIR/costs.json    by tile spec, weights and encoder: seconds a tile (median of the runs), arithmetic, what computed it
"""

import math
import platform
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lamella.cohort import CohortSlide
from lamella.cohort.rows import read_rows
from lamella.cohort.spelling import tidy
from lamella.cores import count_threads
from lamella.encoders import EncoderSpec, Runtime, RuntimeSettings, open_runtime
from lamella.encoders.names import split_name
from lamella.encoders.profile import profile_encoder
from lamella.errors import CohortError, LamellaError, TileError
from lamella.features.plan import CutSettings, plan_slide
from lamella.files import write_record
from lamella.finetune.tiles import ChosenTiles, SlideTiles
from lamella.progress import Progress
from lamella.studies.folder import load_if_whole
from lamella.studies.record import Costs, EncoderCost

N_TILES = 64
N_RUNS = 5
_MOST_SLIDES = 8
NOT_PRICED = (
    "nothing is recommended for being cheap: of arms that are equally good, the verdict takes the one that was named "
    "first."
)
COST_UNITS = {"seconds_a_slide": "seconds a slide", "gflops": "GFLOPs a tile", "cost": "cost"}  # by column


def name_cost(tiles: str, encoder: EncoderSpec) -> str:
    """Return the key of a cost: `default/auto/resnet18@3`."""
    return f"{tiles}/{encoder.weights}/{encoder.name}"


def load_costs(path: Path) -> dict[str, EncoderCost]:
    """Return the costs measured so far; none where there is no file, or a damaged one."""
    costs = load_if_whole(path, Costs)
    return {} if costs is None else dict(costs.root)


def measure_costs(
    path: Path,
    tiles: str,
    encoders: Sequence[EncoderSpec],
    pixels: NDArray[np.uint8],
    runtime: RuntimeSettings,
    progress: Progress,
) -> dict[str, EncoderCost]:
    """Measure the encoders that have no cost yet; those that have keep theirs, so that a resumed study says the same.

    Args:
        path: `costs.json`.
        tiles: Name of the tile spec.
        encoders: Each with its depth in its name.
        pixels: `(n, H, W, 3)` uint8, the same tiles for all.
        runtime: Where they run.
        progress: Where to report to.

    Returns:
        All costs of the file, by `name_cost`.
    """
    costs = load_costs(path)
    missing = [spec for spec in encoders if name_cost(tiles, spec) not in costs]
    if not missing:
        return costs
    opened: dict[EncoderSpec, Runtime] = {}
    runs: dict[EncoderSpec, list[float]] = {spec: [] for spec in missing}
    try:
        with progress.stage("measure costs", len(missing) * (N_RUNS + 1), "runs") as stage:
            for spec in missing:
                opened[spec] = open_runtime(spec, runtime, tile_px=pixels.shape[1], check_tiles=lambda: pixels)
                _time(opened[spec], pixels)  # the first run warms up, and does not count
                stage.advance()
            for _ in range(N_RUNS):
                for spec in missing:
                    runs[spec].append(_time(opened[spec], pixels) / len(pixels))
                    stage.advance()
        for spec in missing:
            costs[name_cost(tiles, spec)] = _describe(spec, runs[spec], opened[spec], pixels.shape[1])
    finally:
        for opened_runtime in opened.values():
            opened_runtime.close()
    write_record(path, {key: cost.as_json() for key, cost in costs.items()})
    return costs


def draw_cost_tiles(slides: Sequence[CohortSlide], cut: CutSettings) -> NDArray[np.uint8]:
    """Return 64 tiles, spread over the first slides that can be read; repeated where there are fewer.

    Raises:
        TileError: If none of the slides has a tile.
    """
    parts: list[NDArray[np.uint8]] = []
    for item in slides:
        if len(parts) == _MOST_SLIDES:
            break
        try:
            plan = plan_slide(item, cut)
        except (LamellaError, OSError):
            continue
        plan.slide.close()
        n = len(plan.corners_l0)
        if n == 0:
            continue
        corners = plan.corners_l0[np.unique(np.linspace(0, n - 1, N_TILES // _MOST_SLIDES).astype(int))]
        chosen = {item.slide_id: ChosenTiles(item, corners)}
        parts.append(SlideTiles(chosen, cut.spec, max_upsample=cut.max_upsample).read(item.slide_id))
    if not parts:
        raise TileError("no slide has a tile to measure costs on. Look at failures.csv.")
    tiles = np.concatenate(parts)
    return tiles[np.arange(N_TILES) % len(tiles)]


def _time(runtime: Runtime, pixels: NDArray[np.uint8]) -> float:
    """Return the seconds that a runtime takes for all tiles."""
    batches = [pixels[at : at + runtime.batch_size] for at in range(0, len(pixels), runtime.batch_size)]
    began = time.perf_counter()
    for _ in runtime.encode(batches):
        pass
    return time.perf_counter() - began


def _describe(spec: EncoderSpec, runs: list[float], runtime: Runtime, tile_px: int) -> EncoderCost:
    whole, depth = split_name(spec.name)
    (profile,) = profile_encoder(whole, tile_px=tile_px, depths=(depth,), seconds=0)
    return EncoderCost(
        seconds_per_tile=statistics.median(runs),
        runs=tuple(runs),
        gflops=profile.gflops,
        parameters=profile.n_parameters,
        dim=profile.width,
        device=runtime.device,
        precision=runtime.precision,
        runtime=runtime.name,
        processor=platform.processor() or platform.machine(),
        n_cores=count_threads(),
    )


def load_given_costs(path: Path | str, names: Sequence[str]) -> tuple[dict[str, float], str]:
    """Return what each arm costs, and in which unit, from a table of `arm` and `seconds_a_slide`, `gflops` or `cost`.

    Raises:
        CohortError: If an arm has no cost, two, or one that is no positive number.
    """
    rows = read_rows(Path(path), called="costs")
    whose = f"costs '{Path(path).name}'"
    column = next((name for name in COST_UNITS if name in rows.columns), None)
    if "arm" not in rows.columns or column is None:
        there = ", ".join(f"'{name}'" for name in rows.columns)
        raise CohortError(
            f"{whose} has {there} and needs the columns arm and seconds_a_slide (or gflops, or cost). Name them so."
        )
    costs: dict[str, float] = {}
    for number, row in zip(rows.numbers, rows.cells, strict=True):
        name, cell = tidy(row.get("arm", "")), row.get(column, "")
        try:
            cost = float(cell)
        except ValueError:
            cost = math.nan
        if not 0 < cost < math.inf:
            raise CohortError(f"{whose}: '{column}' in row {number} is '{cell}'. Write a number above 0.")
        if costs.setdefault(name, cost) != cost:
            raise CohortError(f"{whose}: arm '{name}' stands in two rows. Keep one.")
    missing = next((name for name in names if name not in costs), None)
    if missing is not None:
        raise CohortError(f"{whose} has no cost of arm '{missing}'. Add a row for each of {', '.join(names)}.")
    return {name: costs[name] for name in names}, COST_UNITS[column]
