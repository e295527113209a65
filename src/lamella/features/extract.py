"""Extraction: slides x encoder -> bags, with decoding, encoding and writing overlapped.

    plan thread      opens the next slides, finds tissue, places tiles
    decode threads   read blocks of tiles, a bounded number ahead
    runtime          encodes batches; a batch may hold tiles of two slides, so the encoder never waits for a slide's end
    this thread      hands tiles to the runtime and rows to the writers

A slide that fails is listed and the others go on. A bag gets its name only when all its rows are there.
"""

import os
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lamella.cohort import CohortSlide
from lamella.encoders import EncoderSpec, Runtime, RuntimeSettings, fingerprint_encoder, open_runtime
from lamella.errors import BagError, LamellaError, OutputError, ResolutionError, SettingsError, TileError, TissueError
from lamella.features.bag import (
    FEATURE_KEYS,
    PATCH_KEYS,
    BagFolder,
    BagWriter,
    find_differences,
    load_patches,
    name_without_folders,
    save_patches,
)
from lamella.features.blocks import Block, list_blocks, read_block
from lamella.features.plan import (
    CutSettings,
    TilePlan,
    plan_slide,
    refuse_empty,
    refuse_shared_regions,
    wanted_provenance,
)
from lamella.files import remove, sweep_temporaries, write_table
from lamella.progress import Progress, SilentProgress, Stage
from lamella.slide import hash_fully

_N_CHECK_TILES = 64
_PLANS_AHEAD = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtractSettings:
    """How slides become bags.

    Attributes:
        cut: How slides are cut into tiles.
        encoder: Which encoder, with which weights.
        runtime: Where and at which precision it runs.
        dtype: How embeddings are stored: `float16` (half the disk; relative rounding 5e-4) or `float32`.
        n_threads: Decoding threads; None is one a core, at most 8.
    """

    cut: CutSettings = field(default_factory=CutSettings)
    encoder: EncoderSpec
    runtime: RuntimeSettings = field(default_factory=RuntimeSettings)
    dtype: str = "float16"
    n_threads: int | None = None

    def __post_init__(self) -> None:
        """Refuse a type that is not stored."""
        if self.dtype not in ("float16", "float32"):
            raise SettingsError(f"embeddings cannot be stored as '{self.dtype}'. Pass --dtype float16 or float32.")

    def folder(self, out: Path) -> BagFolder:
        """Return where the bags of these settings lie under `out`."""
        return BagFolder(out, self.cut.spec, name_without_folders(self.encoder.name))


@dataclass(frozen=True, slots=True)
class Failure:
    """A slide that could not be finished: in which stage, and why."""

    slide_id: str
    stage: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtractReport:
    """What an extraction did.

    Attributes:
        folder: Where the bags lie.
        done: Slides encoded now.
        kept: Slides whose finished bags were used again.
        failures: Slides that could not be finished.
        n_tiles: Tiles encoded now.
        seconds: Time from the first batch handed over to the last bag written.
        runtime: What encoded, in words; empty when nothing was.
        notes: What must be said aloud.
    """

    folder: BagFolder
    done: tuple[str, ...]
    kept: tuple[str, ...]
    failures: tuple[Failure, ...]
    n_tiles: int
    seconds: float
    runtime: str
    notes: tuple[str, ...]


def extract_cohort(
    slides: Sequence[CohortSlide], settings: ExtractSettings, out: Path, *, progress: Progress | None = None
) -> ExtractReport:
    """Encode the tiles of slides into one bag each; finished bags of the same provenance are kept.

    Args:
        slides: What to encode.
        settings: How.
        out: Folder for the bags; see `BagFolder` for what goes where. `failures.csv` (`slide_id, stage, reason`) is
            written there when a slide fails, and removed when none does.
        progress: Where to report to.

    Raises:
        EncoderError: If the encoder is unknown or cannot run as asked.
        WeightsError: If its weights are not here.
        OutputError: If `out` cannot be written or the disk is full.
        SettingsError: If one region file is given for several slides.
    """
    progress = progress or SilentProgress()
    refuse_shared_regions(slides, settings.cut)
    fingerprint = fingerprint_encoder(settings.encoder)
    folder = settings.folder(out)
    sweep_temporaries(folder.root)
    todo, kept, failures = _find_todo(slides, settings, folder, fingerprint)
    extraction = _Extraction(todo, settings, folder, fingerprint, failures)
    if todo:
        extraction.run(progress)
    save_failures(failures, out / "failures.csv")
    return ExtractReport(
        folder=folder,
        done=tuple(extraction.done),
        kept=tuple(kept),
        failures=tuple(failures),
        n_tiles=extraction.n_tiles,
        seconds=extraction.seconds,
        runtime=extraction.runtime_name,
        notes=tuple(extraction.notes),
    )


def save_failures(failures: Sequence[Failure], path: Path) -> None:
    """Write `failures.csv`, or remove an old one where nothing failed."""
    if failures:
        rows = [{"slide_id": f.slide_id, "stage": f.stage, "reason": f.reason} for f in failures]
        write_table(path, ["slide_id", "stage", "reason"], rows)
    else:
        remove(path)


@dataclass(slots=True, eq=False)
class _SlideWork:
    """One slide on its way through the threads."""

    item: CohortSlide
    plan: TilePlan
    sha256: Future[str]
    blocks_left: int
    in_flight: int = 0
    writer: BagWriter | None = None
    failed: bool = False


class _Extraction:
    """One run of the pipeline over slides that are not finished."""

    def __init__(
        self,
        todo: Sequence[CohortSlide],
        settings: ExtractSettings,
        folder: BagFolder,
        fingerprint: str,
        failures: list[Failure],
    ) -> None:
        self._todo = todo
        self._settings = settings
        self._folder = folder
        self._fingerprint = fingerprint
        self._failures = failures
        self._n_threads = settings.n_threads or max(2, min(8, count_cores()))
        self._plans: dict[int, Future[TilePlan]] = {}
        self._works: list[_SlideWork] = []  # on their way; what is finished or failed leaves, and its memory with it
        self._owners: deque[list[tuple[_SlideWork, int]]] = deque()
        self._n_planned = self._n_tiles_planned = 0
        self.done: list[str] = []
        self.notes: list[str] = []
        self.n_tiles = 0
        self.seconds = 0.0
        self.runtime_name = ""

    def run(self, progress: Progress) -> None:
        """Encode all slides."""
        self._planner = ThreadPoolExecutor(1, "lamella-plan")
        self._decoders = ThreadPoolExecutor(self._n_threads, "lamella-decode")
        runtime: Runtime | None = None
        try:
            if not self._any_tiles():
                return
            runtime = open_runtime(
                self._settings.encoder,
                self._settings.runtime,
                tile_px=self._settings.cut.spec.tile_px,
                check_tiles=self._check_tiles,
            )
            self.runtime_name = runtime.name
            for note in runtime.notes:
                self.notes.append(note)
                progress.say(note)
            started = time.perf_counter()
            with progress.stage("encode tiles", None, "tiles") as stage:
                for rows in runtime.encode(self._batches(runtime.batch_size, stage)):
                    self._deliver(rows, runtime, stage)
            self.seconds = time.perf_counter() - started
        finally:
            self._planner.shutdown(wait=True, cancel_futures=True)
            self._decoders.shutdown(wait=True, cancel_futures=True)
            self._abandon()
            if runtime is not None:
                runtime.close()

    # Planning ---------------------------------------------------------------------------------------------------

    def _plan(self, index: int) -> Future[TilePlan]:
        """Return the plan of a slide, begun at the first call."""
        if index not in self._plans:
            self._plans[index] = self._planner.submit(plan_slide, self._todo[index], self._settings.cut)
        return self._plans[index]

    def _any_tiles(self) -> bool:
        """Say whether at least one slide has tiles; else no encoder need be opened, and each failure is listed."""
        for index in range(len(self._todo)):
            try:
                if len(self._plan(index).result().corners_l0):
                    return True
            except (LamellaError, OSError):
                continue
        for _ in self._open_works():
            pass
        return False

    def _open_works(self) -> Iterator[_SlideWork]:
        """Yield the slides that have tiles, planning a little ahead; list the others as failures."""
        for index, item in enumerate(self._todo):
            for ahead in range(index, min(len(self._todo), index + 1 + _PLANS_AHEAD)):
                self._plan(ahead)
            try:
                plan = self._plan(index).result()
            except (LamellaError, OSError) as error:
                self._fail(item.slide_id, _stage_of(error), error)
                continue
            finally:
                del self._plans[index]
                self._n_planned += 1
            self._n_tiles_planned += len(plan.corners_l0)
            work = _SlideWork(
                item, plan, self._decoders.submit(hash_fully, item.path), blocks_left=len(plan.block_sizes)
            )
            self._works.append(work)
            try:
                refuse_empty(item, plan)
                self._save_patches(work)
            except (TissueError, BagError) as error:
                self._fail(item.slide_id, _stage_of(error), error)
                self._forget(work)
                continue
            yield work

    def _save_patches(self, work: _SlideWork) -> None:
        """Write where the tiles lie, unless a file of another provenance stands there."""
        path = self._folder.patches_path(work.item.slide_id)
        if path.exists():
            differences = find_differences(path, work.plan.provenance, PATCH_KEYS)
            if differences:
                raise BagError(_refusal(work.item.slide_id, path, differences))
            if np.array_equal(load_patches(path)[0], work.plan.corners_l0):
                return
        save_patches(path, work.plan.corners_l0, work.plan.provenance)

    def _check_tiles(self) -> NDArray[np.uint8]:
        """Read at least 64 real tiles for the precision check, from the first slides, shifted where there are few."""
        rng = np.random.default_rng(0)
        spec, tiles, n_open = self._settings.cut.spec, [], 0
        for index in range(min(len(self._todo), 16)):
            try:
                plan = self._plan(index).result()
                n_open += 1
                tiles += _draw_tiles(plan, spec.tile_px, spec.mpp, self._settings.cut.max_upsample, rng)
            except (LamellaError, OSError):
                continue
            if len(tiles) >= _N_CHECK_TILES and n_open >= min(4, len(self._todo)):
                break
        rng.shuffle(tiles)
        while len(tiles) < _N_CHECK_TILES:
            tiles += tiles[: _N_CHECK_TILES - len(tiles)]
        return np.stack(tiles[:_N_CHECK_TILES])

    # Decoding ---------------------------------------------------------------------------------------------------

    def _tiles(self) -> Iterator[tuple[_SlideWork, NDArray[np.uint8]]]:
        """Yield decoded blocks in order, a bounded number read ahead."""
        waiting: deque[tuple[_SlideWork, Future[NDArray[np.uint8]]]] = deque()
        blocks = ((work, block) for work in self._open_works() for block in self._blocks(work))
        exhausted = False
        while True:
            while not exhausted and len(waiting) <= self._n_threads:
                found = next(blocks, None)
                if found is None:
                    exhausted = True
                    break
                found[0].in_flight += 1
                waiting.append((found[0], self._decoders.submit(self._read, *found)))
            if not waiting:
                return
            work, future = waiting.popleft()
            try:
                tiles = future.result()
            except (LamellaError, OSError) as error:
                if not work.failed:
                    work.failed = True
                    self._fail(work.item.slide_id, "decode", error)
                tiles = np.empty((0, 0, 0, 3), np.uint8)
            work.blocks_left -= 1
            work.in_flight -= 1
            if work.failed and work.in_flight == 0:  # a slide is not closed under the hands of its decoders
                self._forget(work)
            elif work.blocks_left == 0:
                self._close(work)
            if not work.failed:
                yield work, tiles

    @staticmethod
    def _blocks(work: _SlideWork) -> Iterator[Block]:
        for block in list_blocks(work.plan.corners_l0, work.plan.block_sizes):
            if work.failed:
                return
            yield block

    def _read(self, work: _SlideWork, block: Block) -> NDArray[np.uint8]:
        return read_block(work.plan.slide, block, self._settings.cut.spec, work.plan.level)

    def _batches(self, batch_size: int, stage: Stage) -> Iterator[NDArray[np.uint8]]:
        """Yield batches of exactly `batch_size` tiles (the last may be smaller), across blocks and slides."""
        parts: list[NDArray[np.uint8]] = []
        owners: list[tuple[_SlideWork, int]] = []
        n = 0
        for work, tiles in self._tiles():
            stage.expect(self._expected_tiles())
            start = 0
            while start < len(tiles):
                piece = tiles[start : start + batch_size - n]
                parts.append(piece)
                owners.append((work, len(piece)))
                n, start = n + len(piece), start + len(piece)
                if n == batch_size:
                    self._owners.append(owners)
                    yield parts[0] if len(parts) == 1 else np.concatenate(parts)
                    parts, owners, n = [], [], 0
        if parts:
            self._owners.append(owners)
            yield parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _expected_tiles(self) -> int:
        """Extrapolate the number of tiles from the slides planned so far."""
        return round(self._n_tiles_planned / max(1, self._n_planned) * len(self._todo))

    # Writing ----------------------------------------------------------------------------------------------------

    def _deliver(self, rows: NDArray[np.float32], runtime: Runtime, stage: Stage) -> None:
        """Hand the rows of one batch to the slides they belong to."""
        start = 0
        for work, n in self._owners.popleft():
            mine = rows[start : start + n]
            start += n
            stage.advance(n)
            self.n_tiles += n
            if work.failed:
                continue
            try:
                self._write(work, mine, runtime)
            except OutputError:
                raise
            except BagError as error:
                work.failed = True
                self._fail(work.item.slide_id, "write", error)

    def _write(self, work: _SlideWork, rows: NDArray[np.float32], runtime: Runtime) -> None:
        if work.writer is None:
            path = self._folder.features_path(work.item.slide_id)
            work.writer = BagWriter(path, work.plan.corners_l0, dim=runtime.embedding_dim, dtype=self._settings.dtype)
        work.writer.append(rows)
        if work.writer.n_written == len(work.plan.corners_l0):
            writer, work.writer = work.writer, None
            writer.finish(
                work.plan.provenance | self._encoder_provenance(runtime) | {"slide_sha256": work.sha256.result()}
            )
            self.done.append(work.item.slide_id)
            self._forget(work)

    def _encoder_provenance(self, runtime: Runtime) -> dict[str, Any]:
        check = runtime.check
        return {
            "encoder": name_without_folders(self._settings.encoder.name),
            "weights": self._settings.encoder.weights if self._settings.encoder.weights == "random" else "pretrained",
            "fingerprint": self._fingerprint,
            "dtype": self._settings.dtype,
            "embedding_dim": runtime.embedding_dim,
            "runtime": runtime.name,
            "precision": runtime.precision,
            "check_cosine": -1.0 if check is None else float(check.cosine_min),
            "check_tiles": 0 if check is None else int(check.n_tiles),
        }

    def _fail(self, slide_id: str, stage: str, error: BaseException) -> None:
        self._failures.append(Failure(slide_id, stage, str(error)))

    @staticmethod
    def _close(work: _SlideWork) -> None:
        work.plan.slide.close()

    def _forget(self, work: _SlideWork) -> None:
        """Let go of a slide that is finished, or that could not be."""
        if work.writer is not None:
            work.writer.discard()
            work.writer = None
        self._close(work)
        if work in self._works:
            self._works.remove(work)

    def _abandon(self) -> None:
        """Close slides and remove unfinished bags, whatever ended the run."""
        for work in self._works:
            if work.writer is not None:
                work.writer.discard()
            work.plan.slide.close()
        for future in self._plans.values():
            if future.done() and not future.cancelled() and future.exception() is None:
                future.result().slide.close()


def count_cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _find_todo(
    slides: Sequence[CohortSlide], settings: ExtractSettings, folder: BagFolder, fingerprint: str
) -> tuple[list[CohortSlide], list[str], list[Failure]]:
    """Divide slides into those to encode, those whose finished bag is kept, and those that cannot be done."""
    todo: list[CohortSlide] = []
    kept: list[str] = []
    failures: list[Failure] = []
    for item in slides:
        path = folder.features_path(item.slide_id)
        if not path.exists():
            todo.append(item)
            continue
        try:
            wanted = _wanted(item, settings, fingerprint)
            differences = find_differences(path, wanted, (*FEATURE_KEYS, "mpp_source", "precision"))
            if differences:
                failures.append(Failure(item.slide_id, "provenance", _refusal(item.slide_id, path, differences)))
            else:
                kept.append(item.slide_id)
        except LamellaError as error:
            failures.append(Failure(item.slide_id, _stage_of(error), str(error)))
    return todo, kept, failures


def _wanted(item: CohortSlide, settings: ExtractSettings, fingerprint: str) -> dict[str, Any]:
    """Return what a finished bag must state; the file's own resolution is vouched for by the slide's hash."""
    given = item.slide_mpp
    wanted = wanted_provenance(item, settings.cut, (given or 0.0, given or 0.0))
    wanted |= {
        "mpp_source": "file" if given is None else "given",
        "encoder": name_without_folders(settings.encoder.name),
        "fingerprint": fingerprint,
        "dtype": settings.dtype,
    }
    if given is None:
        del wanted["slide_mpp_x"], wanted["slide_mpp_y"]
    if settings.runtime.precision != "auto":
        wanted["precision"] = settings.runtime.precision
    return wanted


def _refusal(slide_id: str, path: Path, differences: tuple[str, ...]) -> str:
    return (
        f"'{path.name}' of slide '{slide_id}' was made otherwise: {'; '.join(differences)}. Choose another --out, or "
        "delete that file."
    )


def _draw_tiles(
    plan: TilePlan, tile_px: int, mpp: float, max_upsample: float, rng: np.random.Generator
) -> list[NDArray[np.uint8]]:
    """Read up to 64 tiles of a slide; where it has fewer places, the same ones shifted by up to half a tile."""
    if not len(plan.corners_l0):
        return []
    places = rng.choice(len(plan.corners_l0), _N_CHECK_TILES, replace=len(plan.corners_l0) < _N_CHECK_TILES)
    room = np.maximum(np.array(plan.slide.size) - np.array([tile_px * mpp / m for m in plan.slide.mpp]), 0)
    shift = rng.random((len(places), 2)) * tile_px * mpp / np.array(plan.slide.mpp) / 2
    corners = np.minimum(np.floor(plan.corners_l0[places] + shift), np.floor(room))
    return [
        plan.slide.read_box((float(x), float(y)), (tile_px, tile_px), mpp, max_upsample=max_upsample)
        for x, y in corners
    ]


def _stage_of(error: BaseException) -> str:
    kinds: tuple[tuple[type[BaseException], str], ...] = (
        (ResolutionError, "resolution"),
        (TissueError, "tissue"),
        (TileError, "tiles"),
        (BagError, "provenance"),
    )
    return next((stage for kind, stage in kinds if isinstance(error, kind)), "open")
