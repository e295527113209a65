"""Class activation maps of a run: where on a slide the contrast of a class comes from, cell by cell.

DIR/cam/<slide_id>/cam.json     the contrast and its parts, what was computed, how
DIR/cam/<slide_id>/cam.tiff     the map: pyramidal, float32, in register with the slide
DIR/cam/<slide_id>/tiles.npy    what each tile adds in all, `(N,)` float64
"""

import dataclasses
import itertools
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lamella.analysis.cam import find_gradient, split_contrast
from lamella.cohort import Cohort, CohortSlide, list_rounds, load_cohort
from lamella.encoders import EncoderSpec, fingerprint_encoder
from lamella.encoders.runtime.cells import CellReader, open_cell_reader
from lamella.errors import BagError, CohortError, LamellaError, ModelError, OutputError, SettingsError
from lamella.explain.cam_record import CamRecord, load_cam_record
from lamella.features.bag import read_own_bag
from lamella.features.blocks import list_blocks, order_by_block, read_block
from lamella.features.failures import Failure
from lamella.features.settings import ExtractSettings
from lamella.files import refuse_links, remove, replacing, write_record
from lamella.maps import CellStitcher, plan_map_grid, save_map
from lamella.mil import SlideModel, load_model, predict_ensemble
from lamella.progress import Progress, SilentProgress, Stage
from lamella.runs.bags import hash_json
from lamella.runs.folder import RunFolder
from lamella.runs.predict import FinishedRun, find_run_encoder
from lamella.runs.settings import CamSettings, restore_extract_settings
from lamella.slide import Slide, open_slide, to_scan
from lamella.temporaries import sweep_temporaries

_BLOCKS_AHEAD = 3


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class CamPart:
    """One encoder, the models that read it, and the bags it made.

    Attributes:
        encoder: The encoder.
        models: Of one fold: one a seed for a frozen encoder, a single one for a fine-tuned encoder.
        bags: Folder of the bags.
    """

    encoder: EncoderSpec
    models: tuple[SlideModel, ...]
    bags: Path


def map_run(
    run: FinishedRun,
    settings: CamSettings,
    *,
    slide_ids: Sequence[str] | None = None,
    predicted: Path | None = None,
    progress: Progress | None = None,
) -> tuple[list[CamRecord], tuple[Failure, ...]]:
    """Compute the maps of slides of a run, each by the models that did not learn from it; finished maps are kept.

    Args:
        run: Of `open_run`.
        settings: Which maps.
        slide_ids: Which slides; None is all that were tested.
        predicted: Folder of a `lamella predict` by this run, to map its slides by all models; None is the run's own.
        progress: Where to report to.

    Returns:
        The maps' records, and the slides that could not be done.

    Raises:
        CohortError: If a slide is none of the run's.
        EncoderError: If the encoder's embedding is no mean of a map and the method is `exact`.
        ModelError: If the run has no such arm.
    """
    progress = progress or SilentProgress()
    folder = run.folder if predicted is None else RunFolder(predicted)
    cohort = load_paths(folder, labelled=predicted is None)
    parts = PartFinder(run, settings, cohort, predicted)
    wanted = _choose(cohort, slide_ids, parts)
    root = folder.cam_of(settings.finetuned)
    refuse_links(folder.path)
    sweep_temporaries(root)
    extract = restore_extract_settings(run.settings, find_run_encoder(run))
    mapper = CamMapper(run.classes, settings, run.positive, extract)
    records: dict[str, CamRecord] = {}
    failures = []
    with progress.stage("map classes", None, "tiles") as stage:
        for item in sorted(wanted, key=lambda item: parts.find_fold(item.slide_id)):  # each encoder is opened once
            try:
                found = mapper.map_slide(item, parts.find(item.slide_id), root / item.slide_id, stage)
                records[item.slide_id] = found
            except OutputError:
                raise
            except (LamellaError, OSError) as error:
                failures.append(Failure(item.slide_id, "cam", str(error)))
    return [records[item.slide_id] for item in wanted if item.slide_id in records], tuple(failures)


def find_target(classes: Sequence[str], settings: CamSettings, positive: str | None) -> int:
    """Return the number of the class that is mapped.

    Raises:
        SettingsError: If no class has that name.
    """
    name = settings.target or positive or classes[-1]
    if name not in classes:
        raise SettingsError(f"no class is called '{name}'. Pass --class with one of: {', '.join(classes)}.")
    return list(classes).index(name)


def predict_parts(parts: Sequence[CamPart], slide_id: str) -> tuple[NDArray[np.float64], float]:
    """Return the attention `(N,)` that the models pay to the tiles of a slide, and the positive class's probability.

    The positive class is the models' own, or the last.
    """
    found = [predict_ensemble(part.models, read_own_bag(part.bags / f"{slide_id}.h5")[0]) for part in parts]
    model = parts[0].models[0]
    place = model.classes.index(model.positive) if model.positive in model.classes else -1
    attention = np.mean([one.attention for one in found], axis=0).astype(np.float64)
    return attention, float(np.mean([one.probabilities[place] for one in found]))


def load_paths(folder: RunFolder, *, labelled: bool = True) -> Cohort:
    """Return the cohort of a run with its slides' paths.

    Raises:
        CohortError: If the folder came without them.
    """
    path = folder.local / "cohort.csv"
    if not path.exists():
        raise CohortError(
            f"'{folder.path}' does not say where its slides lie (local/cohort.csv). Use the folder on the machine that "
            "made it, or run it again."
        )
    return load_cohort(path, labelled=labelled)


def _choose(cohort: Cohort, slide_ids: Sequence[str] | None, parts: "PartFinder") -> list[CohortSlide]:
    by_id = {slide.slide_id: slide for slide in cohort.slides}
    if slide_ids is None:
        return [slide for slide in cohort.slides if parts.is_tested(slide.slide_id) and parts.has_bag(slide.slide_id)]
    for slide_id in slide_ids:
        if slide_id not in by_id:
            raise CohortError(f"no slide of the run is called '{slide_id}'. Name one that its cohort.csv lists.")
        if not parts.is_tested(slide_id):
            raise CohortError(
                f"slide '{slide_id}' was never tested, so every model has learned from it. Name tested slides."
            )
    return [by_id[slide_id] for slide_id in slide_ids]


class PartFinder:
    """Finds the encoders and models by which a slide is mapped: those of the fold that tested it."""

    def __init__(self, run: FinishedRun, settings: CamSettings, cohort: Cohort, predicted: Path | None) -> None:
        self._run, self._settings = run, settings
        self._extract = restore_extract_settings(run.settings, find_run_encoder(run))
        self._predicted = predicted
        self._home = run.folder if predicted is None else RunFolder(predicted)
        tuned = settings.finetuned == "tuned"
        self._tuned = run.list_finetuned("tuned") if tuned and predicted is None else []
        if tuned and not self._tuned:
            raise ModelError("the run has no fine-tuned encoders for these slides. Pass --arm frozen.")
        self._fold = {} if predicted is not None else {i: one.fold for one in list_rounds(cohort) for i in one.test}
        self._found: dict[int, tuple[CamPart, ...]] = {}

    def is_tested(self, slide_id: str) -> bool:
        """Say whether there are models that did not learn from a slide."""
        return self._predicted is not None or slide_id in self._fold

    def find_fold(self, slide_id: str) -> int:
        """Return the fold that tested a slide; -1 where all models map it."""
        return self._fold.get(slide_id, -1)

    def has_bag(self, slide_id: str) -> bool:
        """Say whether the run has encoded a slide; those that could not be read stand in its failures.csv."""
        return self._extract.folder(self._home.features).features_path(slide_id).exists()

    def find(self, slide_id: str) -> tuple[CamPart, ...]:
        """Return the parts that did not learn from a slide.

        Raises:
            ModelError: If the run has no such arm.
        """
        fold = self.find_fold(slide_id)
        if fold not in self._found:
            tuned = self._settings.finetuned == "tuned"
            self._found[fold] = self._find_tuned(fold) if tuned else (self._find_frozen(fold),)
        return self._found[fold]

    def _find_frozen(self, fold: int) -> CamPart:
        models = self._run.models
        if self._predicted is None:
            models = tuple(load_model(path) for path in sorted(self._home.models.glob(f"fold{fold}/seed*")))
        if not models:
            raise ModelError(f"the run has no model of fold {fold}. Run `lamella run` again: it makes what is missing.")
        bags = self._extract.folder(self._home.features).features
        return CamPart(encoder=self._extract.encoder, models=models, bags=bags)

    def _find_tuned(self, fold: int) -> tuple[CamPart, ...]:
        parts = []
        for one in self._tuned:
            if one.fold != fold:
                continue
            bags = self._extract.folder(one.home / "features", one.encoder).features
            if not bags.is_dir():
                raise ModelError(
                    "the fine-tuned encoder has read only the most attended tiles of its test slides. Run it again "
                    "with --evaluate all."
                )
            parts.append(CamPart(encoder=one.encoder, models=(one.model,), bags=bags))
        if not parts:
            raise ModelError(
                f"fold {fold} has no fine-tuned encoder. Run `lamella run` again: it makes what is missing."
            )
        return tuple(parts)


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

    def map_slide(self, item: CohortSlide, parts: Sequence[CamPart], folder: Path, stage: Stage) -> CamRecord:
        """Compute one slide's map, or take the finished one."""
        loaded = [read_own_bag(part.bags / f"{item.slide_id}.h5") for part in parts]
        key = self._key(parts, [own for _, _, own in loaded])
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
        self._refuse_other_weights(parts, [own for _, _, own in loaded], item.slide_id)
        corners_l0 = loaded[0][1]
        if any(not np.array_equal(corners, corners_l0) for _, corners, _ in loaded):
            raise BagError(f"the bags of slide '{item.slide_id}' are of different tiles. Extract them anew.")
        readers = self._open_readers(parts)
        weights = [
            self._weigh(part, features.astype(np.float32), reader)
            for part, (features, _, _), reader in zip(parts, loaded, readers, strict=True)
        ]
        cut, own = self._extract.cut, loaded[0][2]
        with open_slide(item.path, slide_mpp=item.slide_mpp, image=item.slide_image) as slide:
            if slide.size != (int(own["slide_width"]), int(own["slide_height"])):
                raise BagError(
                    f"slide '{item.slide_id}' has {slide.size[0]} x {slide.size[1]} px and its bag is of another. "
                    "Run `lamella run` again."
                )
            level = slide.find_read_level(cut.spec.mpp, max_upsample=cut.max_upsample)
            ordered, blocks = order_by_block(corners_l0, cut.spec, slide.mpp, level)
            if not np.array_equal(ordered, corners_l0):
                raise BagError(f"the tiles of slide '{item.slide_id}' are in another order. Run `lamella run` again.")
            record = self._compute(_Placed(slide, corners_l0, blocks), item.slide_id, readers, weights, folder, stage)
        record = dataclasses.replace(record, key=key)
        write_record(folder / "cam.json", dataclasses.asdict(record) | {"residual": record.residual})  # last
        return record

    def _refuse_other_weights(self, parts: Sequence[CamPart], bags: Sequence[dict[str, Any]], slide_id: str) -> None:
        """Refuse an encoder that is not the one that made the bag: its cells would sum to something else."""
        for part, own in zip(parts, bags, strict=True):
            if part.encoder not in self._fingerprints:
                self._fingerprints[part.encoder] = fingerprint_encoder(part.encoder)
            if own.get("fingerprint") != self._fingerprints[part.encoder]:
                raise BagError(
                    f"the bag of slide '{slide_id}' was made with other weights than encoder '{own.get('encoder')}' "
                    "has here now. Run `lamella run` again with the weights that are wanted."
                )

    def _key(self, parts: Sequence[CamPart], provenance: Sequence[dict[str, Any]]) -> str:
        """Return what identifies a map: models, bags and method."""
        models = [
            [model.provenance.get("stage_2_key") or model.provenance.get("key") for model in part.models]
            for part in parts
        ]
        named = ("slide_sha256", "fingerprint", "precision", "dtype", "tile_px", "mpp", "stride_px", "min_tissue")
        bags = [[own.get(name) for name in named] for own in provenance]
        return hash_json([models, bags, self._settings.method, self._target, self._settings.runtime.precision])

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
        bias = np.mean([one.tile_bias for one in weights], axis=0)
        with replacing(folder / "tiles.npy") as temporary, temporary.open("wb") as file:
            np.save(file, sums + bias)
        return CamRecord(
            slide_id=slide_id,
            target=self._classes[self._target],
            others=self._others,
            method=self._settings.method,
            contrast=float(np.mean([one.contrast for one in weights])),
            cells=float(sums.sum()),
            tile_bias=float(bias.sum()),
            constant=float(np.mean([one.constant for one in weights])),
            cell_px=cells.stride,
            slide_um=slide_um,
            key="",
            frame="scan",
        )

    def _read_cells(
        self, placed: _Placed, readers: Sequence[CellReader], weights: Sequence[_Weights]
    ) -> Iterator[NDArray[np.float32]]:
        """Yield the cells of each tile in order, averaged over the parts; tiles are decoded ahead."""
        offsets = np.mean([one.offset for one in weights], axis=0)
        tiles = itertools.tee(self._read_tiles(placed), len(readers))
        rows = [
            reader.read(_batch(own, one.features, reader.batch_size))
            for reader, own, one in zip(readers, tiles, weights, strict=True)
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
        some = list(itertools.islice(tiles, size))
        if not some:
            return
        yield np.stack(some), weights[start : start + len(some)]


def _find_rows(corners_l0: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return for each tile the y above which neither it nor any tile after it begins, level-0 pixels."""
    rows: NDArray[np.float64] = np.minimum.accumulate(corners_l0[::-1, 1])[::-1]
    return rows
