"""Computing the class activation map of a slide: its tiles are read once, their cells weighed and laid on the slide."""

import itertools
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lamella.analysis.cam import find_gradient, split_contrast
from lamella.cohort import CohortSlide
from lamella.encoders import EncoderSpec, fingerprint_encoder
from lamella.encoders.runtime.cells import CellReader, open_cell_reader
from lamella.errors import BagError, OutputError, SettingsError
from lamella.explain.cam_parts import CamPart
from lamella.explain.cam_record import CamRecord, load_cam_record
from lamella.features.bag import FeatureBag
from lamella.features.blocks import list_blocks, order_by_block, read_block
from lamella.features.settings import ExtractSettings
from lamella.files import remove, replacing
from lamella.maps import CellStitcher, plan_map_grid, save_map
from lamella.progress import Stage
from lamella.runs.bags import hash_json
from lamella.runs.settings import CamSettings
from lamella.slide import Slide, open_slide, to_scan

_BLOCKS_AHEAD = 3


def find_target(classes: Sequence[str], settings: CamSettings, positive: str | None) -> int:
    """Return the number of the class that is mapped.

    Raises:
        SettingsError: If no class has that name.
    """
    name = settings.target or positive or classes[-1]
    if name not in classes:
        raise SettingsError(f"no class is called '{name}'. Pass --class with one of: {', '.join(classes)}.")
    return list(classes).index(name)


@dataclass(frozen=True, slots=True, eq=False)
class _Weights:
    """How the feature maps of a slide's tiles are weighed, by one part.

    Attributes:
        features: `(N, D)` float32, what a unit of each feature adds in each cell.
        offset: `(N,)` float64, what each cell adds beside.
        tile_bias: `(N,)` float64, what each tile adds beside its cells.
        constant: What is there without any tile.
        contrast: What all of it should sum to.
    """

    features: NDArray[np.float32]
    offset: NDArray[np.float64]
    tile_bias: NDArray[np.float64]
    constant: float
    contrast: float


@dataclass(frozen=True, slots=True, eq=False)
class _Placed:
    """Where the tiles of a slide lie, sorted by block.

    Attributes:
        slide: The open slide.
        corners_l0: `(N, 2)` int64, level-0 pixels.
        blocks: Tiles in each block.
    """

    slide: Slide
    corners_l0: NDArray[np.int64]
    blocks: tuple[int, ...]


class CamMapper:
    """Computes maps; readers are kept from slide to slide."""

    def __init__(
        self, classes: Sequence[str], settings: CamSettings, positive: str | None, extract: ExtractSettings
    ) -> None:
        self._classes, self._settings, self._extract = tuple(classes), settings, extract
        self._target = find_target(classes, settings, positive)
        self._readers: dict[EncoderSpec, CellReader] = {}
        self._fingerprints: dict[EncoderSpec, str] = {}
        others = [name for number, name in enumerate(classes) if number != self._target]
        self._others = others[0] if len(others) == 1 else "the mean of the others"

    def map_slide(
        self, item: CohortSlide, parts: Sequence[CamPart], bags: Sequence[FeatureBag], folder: Path, stage: Stage
    ) -> CamRecord:
        """Compute one slide's map, or take the finished one, for which no features are read.

        Args:
            item: The slide.
            parts: The encoders with their models.
            bags: The bag that each made of the slide.
            folder: Where the map is written.
            stage: Where to report to.
        """
        key = self._key(parts, bags)
        try:
            kept = load_cam_record(folder)
            if (
                kept.key == key
                and kept.frame == "scan"
                and (folder / "cam.tiff").exists()
                and (folder / "tiles.npy").exists()
            ):
                return kept
        except OutputError:
            pass
        self._refuse_other_weights(parts, bags)
        corners_l0 = bags[0].corners_l0
        if any(not np.array_equal(bag.corners_l0, corners_l0) for bag in bags):
            raise BagError(f"the bags of slide '{item.slide_id}' are of different tiles. Extract them anew.")
        readers = self._open_readers(parts)
        weights = [
            self._weigh(part, bag.features, reader) for part, bag, reader in zip(parts, bags, readers, strict=True)
        ]
        cut = self._extract.cut
        with open_slide(item.path, slide_mpp=item.slide_mpp, image=item.slide_image) as slide:
            if slide.size != bags[0].slide_size:
                raise BagError(
                    f"slide '{item.slide_id}' has {slide.size[0]} x {slide.size[1]} px and its bag is of another. "
                    "Run `lamella run` again."
                )
            level = slide.find_read_level(cut.spec.mpp, max_upsample=cut.max_upsample)
            ordered, blocks = order_by_block(corners_l0, cut.spec, slide.mpp, level)
            if not np.array_equal(ordered, corners_l0):
                raise BagError(f"the tiles of slide '{item.slide_id}' are in another order. Run `lamella run` again.")
            record = self._compute(_Placed(slide, corners_l0, blocks), item.slide_id, readers, weights, folder, stage)
        record = record.model_copy(update={"key": key})
        record.save(folder / "cam.json")  # last
        return record

    def _refuse_other_weights(self, parts: Sequence[CamPart], bags: Sequence[FeatureBag]) -> None:
        """Refuse an encoder that is not the one that made the bag: its cells would sum to something else."""
        for part, bag in zip(parts, bags, strict=True):
            if part.encoder not in self._fingerprints:
                self._fingerprints[part.encoder] = fingerprint_encoder(part.encoder)
            if bag.fingerprint != self._fingerprints[part.encoder]:
                raise BagError(
                    f"the bag of slide '{bag.slide_id}' was made with other weights than encoder '{bag.encoder}' "
                    "has here now. Run `lamella run` again with the weights that are wanted."
                )

    def _key(self, parts: Sequence[CamPart], bags: Sequence[FeatureBag]) -> str:
        """Return what identifies a map: models, bags and method."""
        models = [
            [model.provenance.get("stage_2_key") or model.provenance.get("key") for model in part.models]
            for part in parts
        ]
        named = ("slide_sha256", "fingerprint", "precision", "dtype", "tile_px", "mpp", "stride_px", "min_tissue")
        made = [[bag.provenance.get(name) for name in named] for bag in bags]
        return hash_json([models, made, self._settings.method, self._target, self._settings.runtime.precision])

    def _open_readers(self, parts: Sequence[CamPart]) -> list[CellReader]:
        wanted = [part.encoder for part in parts]
        self._readers = {spec: reader for spec, reader in self._readers.items() if spec in wanted}
        for spec in wanted:
            if spec not in self._readers:
                self._readers[spec] = open_cell_reader(
                    spec,
                    self._settings.runtime,
                    tile_px=self._extract.cut.spec.tile_px,
                    by_gradient=self._settings.method == "grad",
                )
        return [self._readers[spec] for spec in wanted]

    def _weigh(self, part: CamPart, features: NDArray[np.float32], reader: CellReader) -> _Weights:
        """Return the weights of one part on one slide."""
        n_cells, n_tiles = reader.grid.cells**2, len(features)
        if self._settings.method == "exact":
            split = split_contrast(part.models, features, target=self._target)
            offset = -(split.gradient @ split.centre).astype(np.float64) / n_cells
            return _Weights(
                split.gradient / np.float32(n_cells), offset, split.tile_bias, split.constant, split.contrast
            )
        gradient, contrast = find_gradient(part.models, features, target=self._target)
        nothing = np.zeros(n_tiles)
        share = np.float32(1 if reader.by_gradient else n_cells)
        return _Weights(gradient / share, nothing, nothing, 0.0, contrast)

    def _compute(
        self,
        placed: _Placed,
        slide_id: str,
        readers: Sequence[CellReader],
        weights: Sequence[_Weights],
        folder: Path,
        stage: Stage,
    ) -> CamRecord:
        """Read the slide's tiles once, lay their cells, write map and tile sums."""
        slide, spec, cells = placed.slide, self._extract.cut.spec, readers[0].grid
        tile_l0 = (spec.tile_px * spec.mpp / slide.mpp[0], spec.tile_px * spec.mpp / slide.mpp[1])
        grid = plan_map_grid(
            slide_size=slide.bounds_l0[2:],
            tile_l0=tile_l0,
            tile_px=spec.tile_px,
            stride=cells.stride,
            first=cells.first,
            cells=cells.cells,
        )
        slide_um = (slide.bounds_l0[2] * slide.mpp[0], slide.bounds_l0[3] * slide.mpp[1])
        corners = to_scan(placed.corners_l0, slide.bounds_l0)  # QuPath, for which the map is made, shows the scan
        sums = np.empty(len(placed.corners_l0))
        folder.mkdir(parents=True, exist_ok=True)
        remove(folder / "cam.json")
        with replacing(folder / "raster.npy") as raster:
            with CellStitcher(grid, raster) as stitcher:
                begins = _find_rows(corners)
                for number, values in enumerate(self._read_cells(placed, readers, weights)):
                    stitcher.begin_row(begins[number])
                    stitcher.add((corners[number, 0], corners[number, 1]), values)
                    sums[number] = values.sum(dtype=np.float64)
                    stage.advance()
            channel = f"contrast of {self._classes[self._target]}, logits a cell"
            save_map(raster, folder / "cam.tiff", slide_um=slide_um, channel=channel)
        remove(folder / "raster.npy")  # the TIFF holds it
        bias = np.mean([part.tile_bias for part in weights], axis=0)
        with replacing(folder / "tiles.npy") as temporary, temporary.open("wb") as file:
            np.save(file, sums + bias)
        return CamRecord(
            slide_id=slide_id,
            target=self._classes[self._target],
            others=self._others,
            method=self._settings.method,
            contrast=float(np.mean([part.contrast for part in weights])),
            cells=float(sums.sum()),
            tile_bias=float(bias.sum()),
            constant=float(np.mean([part.constant for part in weights])),
            cell_px=cells.stride,
            slide_um=slide_um,
            key="",
            frame="scan",
        )

    def _read_cells(
        self, placed: _Placed, readers: Sequence[CellReader], weights: Sequence[_Weights]
    ) -> Iterator[NDArray[np.float32]]:
        """Yield the cells of each tile in order, averaged over the parts; tiles are decoded ahead."""
        offsets = np.mean([part.offset for part in weights], axis=0)
        tiles = itertools.tee(self._read_tiles(placed), len(readers))
        rows = [
            reader.read(_batch(decoded, part.features, reader.batch_size))
            for reader, decoded, part in zip(readers, tiles, weights, strict=True)
        ]
        single = [(cells for batch in row for cells in batch) for row in rows]
        for number, parts in enumerate(zip(*single, strict=True)):
            yield (np.mean(parts, axis=0) + offsets[number]).astype(np.float32)

    def _read_tiles(self, placed: _Placed) -> Iterator[NDArray[np.uint8]]:
        """Yield `(H, W, 3)` uint8 tiles, blocks read ahead."""
        cut = self._extract.cut
        level = placed.slide.find_read_level(cut.spec.mpp, max_upsample=cut.max_upsample)
        with ThreadPoolExecutor(2, "lamella-decode") as pool:
            waiting: deque[Future[NDArray[np.uint8]]] = deque()
            try:
                for block in list_blocks(placed.corners_l0, placed.blocks):
                    waiting.append(pool.submit(read_block, placed.slide, block, cut.spec, level))
                    if len(waiting) >= _BLOCKS_AHEAD:
                        yield from waiting.popleft().result()
                while waiting:
                    yield from waiting.popleft().result()
            finally:
                pool.shutdown(wait=True, cancel_futures=True)


def _batch(
    tiles: Iterator[NDArray[np.uint8]], weights: NDArray[np.float32], size: int
) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.float32]]]:
    """Yield tiles with their weights, `size` at once."""
    for start in itertools.count(0, size):
        batch = list(itertools.islice(tiles, size))
        if not batch:
            return
        yield np.stack(batch), weights[start : start + len(batch)]


def _find_rows(corners_l0: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return for each tile the y above which neither it nor any tile after it begins, level-0 pixels."""
    rows: NDArray[np.float64] = np.minimum.accumulate(corners_l0[::-1, 1])[::-1]
    return rows
