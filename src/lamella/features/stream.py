"""The stream of an extraction: slides -> tiles -> embeddings -> bags, with all of it overlapped.

    plan thread      opens the next slides, finds tissue, places tiles
    decode threads   read blocks of tiles, a bounded number ahead
    runtimes         encode batches; a batch may hold tiles of two slides, so the encoder never waits for a slide's end
    this thread      hands tiles to the runtimes and rows to the writers

A slide that fails is listed and the others go on. A bag gets its name only when all its rows are there.
"""

import dataclasses
import itertools
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from lamella.cohort import CohortSlide
from lamella.cores import count_threads
from lamella.encoders import Runtime, Trunk, group_by_trunk, open_runtime
from lamella.encoders.tuned import load_seen
from lamella.errors import BagError, LamellaError, MachineError, OutputError, SlideError, TissueError
from lamella.features.bag import PATCH_KEYS, BagWriter, find_differences, load_patches, save_patches
from lamella.features.blocks import Block, list_blocks, read_block
from lamella.features.check_tiles import gather_check_tiles
from lamella.features.failures import Failure, name_stage
from lamella.features.leaks import find_leak
from lamella.features.plan import TilePlan, close_plans, plan_slide, refuse_empty
from lamella.features.said import Making, SlideNotes, StandingBag, find_settled, gather_slide_notes, write_notes
from lamella.features.settings import BagTarget, ExtractSettings, state_encoder
from lamella.features.todo import Todo, say_differences
from lamella.progress import Progress, Stage
from lamella.slide import hash_fully

_PLANS_AHEAD = 2


@dataclass(slots=True, eq=False)
class _SlideWork:
    """One slide on its way through the threads."""

    item: CohortSlide
    plan: TilePlan
    sha256: Future[str]
    blocks_left: int
    in_flight: int = 0
    leaks: dict[BagTarget, str] = field(default_factory=dict)
    writers: dict[BagTarget, BagWriter] = field(default_factory=dict)
    n_finished: int = 0
    failed: bool = False


class Extraction:
    """One run of the pipeline over slides that lack the bags of the same encoders.

    A network is opened, and its precision decided, at all the depths that are asked for, whichever of them these slides
    lack, and on tiles of the whole cohort: what is left to do decides nothing, and a run that was interrupted ends as
    one that was not.
    """

    def __init__(
        self, todo: Todo, missing: tuple[int, ...], settings: ExtractSettings, targets: Sequence[BagTarget]
    ) -> None:
        """Prepare an extraction.

        Args:
            todo: What is left to do; failures are added to it, and the bags that are finished.
            missing: The slides of this extraction: those that lack the bags of these targets (places in `targets`).
            settings: How.
            targets: All that is asked for.
        """
        self._cohort, self._todo = todo.slides, todo.missing[missing]
        self._standing, self._settings = todo.standing, settings
        by_encoder = {target.encoder: target for target in targets}
        self._lacking = {targets[number] for number in missing}
        wanted = {target.encoder for target in self._lacking}
        self._trunks = [trunk for trunk in group_by_trunk(list(by_encoder)) if wanted.intersection(trunk.specs)]
        self._columns = [by_encoder[spec] for trunk in self._trunks for spec in trunk.specs]
        self._seen = {target: load_seen(target.encoder.name) for target in self._lacking}
        self._folder = targets[0].folder
        self._failures = todo.failures
        self._n_threads = settings.n_threads or max(2, min(8, count_threads()))
        self._plans: dict[int, Future[TilePlan]] = {}
        self._works: list[_SlideWork] = []  # on their way; what is finished or failed leaves, and its memory with it
        self._owners: deque[list[tuple[_SlideWork, int]]] = deque()
        self._n_planned = self._n_tiles_planned = 0
        self.done: list[str] = []
        self.runtime_notes: dict[BagTarget, tuple[str, ...]] = {}
        self.slide_notes: dict[str, SlideNotes] = {}
        self.n_tiles = 0
        self.seconds = 0.0
        self.runtime_name = ""

    def run(self, progress: Progress) -> None:
        """Encode all slides."""
        self._planner = ThreadPoolExecutor(1, "lamella-plan")
        self._decoders = ThreadPoolExecutor(self._n_threads, "lamella-decode")
        runtimes: list[Runtime] = []
        try:
            if not self._any_tiles():
                return
            for trunk in self._trunks:
                runtimes.append(self._open(trunk))
                for note in runtimes[-1].notes:
                    progress.say(note)
            self.runtime_name = runtimes[0].name
            started = time.perf_counter()
            with progress.stage("encode tiles", None, "tiles") as stage:
                # Each runtime reads a few batches ahead; what one has read and another not is held here meanwhile.
                feeds = itertools.tee(self._batches(min(r.batch_size for r in runtimes), stage), len(runtimes))
                rows = [runtime.encode(feed) for runtime, feed in zip(runtimes, feeds, strict=True)]
                for parts in zip(*rows, strict=True):
                    self._deliver(parts, runtimes, stage)
            self.seconds = time.perf_counter() - started
        finally:
            self._planner.shutdown(wait=True, cancel_futures=True)
            self._decoders.shutdown(wait=True, cancel_futures=True)
            self._abandon()
            for runtime in runtimes:
                runtime.close()

    def _open(self, trunk: Trunk) -> Runtime:
        targets = [target for target in self._columns if target.encoder in trunk.specs]
        settled = {find_settled(self._standing.get(target, {}).values()) for target in targets}
        runtime = open_runtime(
            trunk,
            self._settings.runtime,
            tile_px=self._settings.cut.spec.tile_px,
            check_tiles=self._check_tiles,
            settled=settled.pop() if len(settled) == 1 else None,
        )
        self.runtime_notes |= dict.fromkeys(self._lacking.intersection(targets), runtime.notes)
        return runtime

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
                self._fail(item.slide_id, name_stage(error), error)
                continue
            finally:
                del self._plans[index]
                self._n_planned += 1
            self._n_tiles_planned += len(plan.corners_l0)
            self.slide_notes[item.slide_id] = gather_slide_notes(plan.slide, plan.tissue.notes)
            work = _SlideWork(
                item, plan, self._decoders.submit(hash_fully, item.path), blocks_left=len(plan.block_sizes)
            )
            self._works.append(work)
            try:
                refuse_empty(item, plan)
                self._save_patches(work)
                work.leaks = {target: find_leak(seen, item, plan.slide) for target, seen in self._seen.items()}
            except (TissueError, BagError, SlideError, MachineError) as error:
                self._fail(item.slide_id, name_stage(error), error)
                self._forget(work)
                continue
            yield work

    def _save_patches(self, work: _SlideWork) -> None:
        """Write where the tiles lie, unless a file of another provenance stands there."""
        path = self._folder.patches_path(work.item.slide_id)
        if path.exists():
            differences = find_differences(path, work.plan.provenance, PATCH_KEYS)
            if differences:
                raise BagError(say_differences(work.item.slide_id, path, differences))
            if np.array_equal(load_patches(path)[0], work.plan.corners_l0):
                return
        save_patches(path, work.plan.corners_l0, work.plan.provenance)

    def _check_tiles(self) -> NDArray[np.uint8]:
        """Read tiles of the first slides of the cohort, those that lack nothing among them."""
        places = {item.slide_id: place for place, item in enumerate(self._todo)}
        lent: list[Future[TilePlan]] = []

        def plan(item: CohortSlide) -> Future[TilePlan]:
            if item.slide_id in places:
                return self._plan(places[item.slide_id])
            lent.append(self._planner.submit(plan_slide, item, self._settings.cut))
            return lent[-1]

        try:
            return gather_check_tiles(map(plan, self._cohort), self._settings.cut, n_slides=len(self._cohort))
        finally:
            close_plans(lent)

    # Decoding ---------------------------------------------------------------------------------------------------

    def _tiles(self) -> Iterator[tuple[_SlideWork, NDArray[np.uint8]]]:
        """Yield decoded blocks in order, a bounded number read ahead."""
        waiting: deque[tuple[_SlideWork, Future[NDArray[np.uint8]]]] = deque()
        blocks = ((work, block) for work in self._open_works() for block in self._blocks(work))
        exhausted = False
        while True:
            while not exhausted and len(waiting) <= self._n_threads:
                piece = next(blocks, None)
                if piece is None:
                    exhausted = True
                    break
                piece[0].in_flight += 1
                waiting.append((piece[0], self._decoders.submit(self._read, *piece)))
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

    def _deliver(self, parts: Sequence[NDArray[np.float32]], runtimes: Sequence[Runtime], stage: Stage) -> None:
        """Hand the rows of one batch to the slides and encoders they belong to.

        Args:
            parts: From each runtime `(b, D)`, the embeddings of its depths side by side.
            runtimes: What made them.
            stage: Where to report to.
        """
        makings = self._list_makings(runtimes)
        columns = [
            column
            for part, runtime in zip(parts, runtimes, strict=True)
            for column in np.split(part, np.cumsum(runtime.widths)[:-1], axis=1)
        ]
        start = 0
        for work, n in self._owners.popleft():
            end = start + n
            stage.advance(n)
            self.n_tiles += n
            for target, column, making in zip(self._columns, columns, makings, strict=True):
                if work.failed:
                    break
                if target not in self._lacking:
                    continue
                try:
                    self._write(work, target, column[start:end], making)
                except OutputError:
                    raise
                except (BagError, SlideError, MachineError) as error:
                    work.failed = True
                    self._fail(work.item.slide_id, "write", error)
            start = end

    def _write(self, work: _SlideWork, target: BagTarget, rows: NDArray[np.float32], making: Making) -> None:
        """Write rows of one slide's bag of one encoder, and finish the bag with its last row."""
        if target not in work.writers:
            path = target.folder.features_path(work.item.slide_id)
            work.writers[target] = BagWriter(path, work.plan.corners_l0, dim=rows.shape[1], dtype=self._settings.dtype)
        writer = work.writers[target]
        writer.append(rows)
        if writer.n_written < len(work.plan.corners_l0):
            return
        sha256 = work.sha256.result()  # raises where the slide can no longer be read: the writer must be known then
        del work.writers[target]
        seen = self._seen[target]
        carried = {"leak": work.leaks[target], "seen_salt": seen.salt} if seen.slides else {}
        writer.finish(
            work.plan.provenance
            | carried
            | {
                **state_encoder(target, self._settings.cut.spec),
                "dtype": self._settings.dtype,
                "embedding_dim": rows.shape[1],
                **dataclasses.asdict(making),
                "precision_asked": self._settings.runtime.precision,
                "notes": write_notes(self.runtime_notes[target], self.slide_notes[work.item.slide_id]),
                "slide_sha256": sha256,
            },
            seen_patients=[slide.patient for slide in seen.slides],
        )
        notes = self.slide_notes[work.item.slide_id]
        made = StandingBag(making=making, runtime_notes=self.runtime_notes[target], slide=notes)
        self._standing.setdefault(target, {})[work.item.slide_id] = made
        work.n_finished += 1
        if work.n_finished == len(self._lacking):
            self.done.append(work.item.slide_id)
            self._forget(work)

    def _list_makings(self, runtimes: Sequence[Runtime]) -> list[Making]:
        """List, for each depth of each runtime, how its embeddings were made, as the bag states it."""
        makings: list[Making] = []
        for runtime in runtimes:
            for check in runtime.checks or (None,) * len(runtime.widths):
                standing = self._standing.get(self._columns[len(makings)], {})
                settled = next(iter(standing.values())).making if runtime.is_settled else None
                # What finished bags settled is not checked again: their check is this one's.
                makings.append(
                    settled
                    or Making(
                        runtime=runtime.name,
                        precision=runtime.precision,
                        check_cosine=-1.0 if check is None else float(check.cosine_min),
                        check_tiles=0 if check is None else int(check.n_tiles),
                    )
                )
        return makings

    def _fail(self, slide_id: str, stage: str, error: BaseException) -> None:
        self._failures.append(Failure(slide_id, stage, str(error)))

    @staticmethod
    def _close(work: _SlideWork) -> None:
        work.plan.slide.close()

    def _forget(self, work: _SlideWork) -> None:
        """Let go of a slide that is finished, or that could not be."""
        for writer in work.writers.values():
            writer.discard()
        work.writers.clear()
        self._close(work)
        if work in self._works:
            self._works.remove(work)

    def _abandon(self) -> None:
        """Close slides and remove unfinished bags, whatever ended the run."""
        for work in self._works:
            for writer in work.writers.values():
                writer.discard()
            work.plan.slide.close()
        close_plans(self._plans.values())
