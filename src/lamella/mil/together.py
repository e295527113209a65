"""Training many heads on one set of bags: folds, seeds, labels and kinds of head in one call.

Each job trains as `fit_model` would train it alone: the same first weights, order of slides, standardisation, class
weights, optimiser and stopping. What differs is the arithmetic. Bags are checked, measured and standardised once for
all jobs; a step is a few matrix products and written-out gradients, with nothing recorded; and the jobs go side by
side, one a core.

So that a job's model never depends on its company: the same bits alone, in any call, with any number of threads.
"""

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from lamella.cores import count_threads, using_threads
from lamella.errors import SettingsError
from lamella.mil.batches import Bag, check_widths
from lamella.mil.gradients import count_rows
from lamella.mil.heads import HEADS
from lamella.mil.model import SlideModel, TrainingRecord
from lamella.mil.settings import TrainSettings
from lamella.mil.standardise import Standardisation, combine_moments, find_moments
from lamella.mil.train import find_bag, find_class_weights, find_targets, fit_model
from lamella.mil.trainee import StandardRows, Trainee
from lamella.progress import Progress, SilentProgress, Stage

_BF16_FROM_FLOPS = 1e12  # of one job; below this nothing is gained that one would notice
_THREADS_FROM_FLOPS = 1e11  # of all jobs
_HELD_BYTES = 3 * 2**30

Keep = Callable[[int, SlideModel], None]


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class FitJob:
    """One head to be trained.

    Attributes:
        train: Slides to learn from.
        val: Slides that decide when to stop; may be empty.
        settings: How to train.
        labels: Class of each slide of `train` and `val`; jobs may differ in them (permuted labels).
    """

    train: tuple[str, ...]
    val: tuple[str, ...]
    settings: TrainSettings
    labels: Mapping[str, str]


def fit_together(
    bags: Mapping[str, Bag],
    jobs: Sequence[FitJob],
    classes: Sequence[str],
    *,
    precision: str = "auto",
    n_threads: int | None = None,
    progress: Progress | None = None,
    keep: Keep | None = None,
) -> list[SlideModel]:
    """Fit heads to the bags of one encoder, all in one call.

    A job's model is the same bit for bit on one machine whatever other jobs are trained beside it and on however many
    threads, so what a killed run has finished need not be trained again. In fp32 it agrees with `fit_model` up to
    rounding. Jobs with dropout, draws of tiles, several slides a step or a CUDA device are trained by `fit_model`.

    Args:
        bags: Per slide id `(N, D)` float16 or float32; each is looked up once and held in memory.
        jobs: What to train; any splits, seeds, labels and heads.
        classes: All classes, in the order of the logits.
        precision: `fp32`; `bf16` for the products of the embedding (weights, pooling and sums stay fp32); `auto` takes
            bf16 for a job where the processor computes it and the job is large.
        n_threads: CPU threads, each with a job of its own; None takes those of the settings, and all cores where there
            is much to do.
        progress: Told of each epoch.
        keep: Told of each model as soon as it is trained, with its place in `jobs`; called in the caller's thread.

    Returns:
        A model for each job, in order, as `fit_model` returns it.

    Raises:
        CohortError: If a slide is in both splits, has no label, or a class is missing from `train`.
        BagError: If a bag is missing, empty, holds NaN, or differs in width.
        ModelError: If a loss does not stay finite.
        SettingsError: If the precision is not known, or a job's device is not there.
    """
    if precision not in ("auto", "fp32", "bf16"):
        raise SettingsError(f"heads train in auto, fp32 or bf16, not in '{precision}'. Leave it out.")
    # All is checked before anything is trained.
    targets = [find_targets(job.labels, job.train, job.val, classes) for job in jobs]
    held = {i: find_bag(bags, i) for i in dict.fromkeys(i for job in jobs for i in (*job.train, *job.val))}
    check_widths(held)
    work = _Work(held, jobs, targets, tuple(classes), precision)
    with (progress or SilentProgress()).stage("train", sum(job.settings.epochs for job in jobs), "epochs") as stage:
        models = {}
        for place, model in work.run(n_threads or _choose_threads(jobs, held), _Count(stage, jobs)):
            models[place] = model
            if keep is not None:
                keep(place, model)
    return [models[place] for place in range(len(jobs))]


class _Work:
    """The jobs of one call, ready to be trained."""

    def __init__(
        self,
        bags: Mapping[str, Bag],
        jobs: Sequence[FitJob],
        targets: Sequence[NDArray[np.int64]],
        classes: tuple[str, ...],
        precision: str,
    ) -> None:
        self._bags, self._jobs, self._targets, self._classes = bags, jobs, targets, classes
        # Jobs of one training side stand together: they share what is held for them.
        first = {job.train: place for place, job in reversed(list(enumerate(jobs)))}
        ours = [place for place, job in enumerate(jobs) if _is_written_out(job.settings)]
        self._order = sorted(ours, key=lambda place: first[jobs[place].train])
        self._dtypes = {place: _choose_dtype(precision, jobs[place], bags) for place in ours}
        self._stop = threading.Event()

    def run(self, n_threads: int, count: "_Count") -> Iterator[tuple[int, SlideModel]]:
        """Train all, yield each model with its place as soon as it is there."""
        for place, job in enumerate(self._jobs):
            if place not in self._dtypes:
                yield place, self._fit_alone(job, count)
        trainees = self._prepare(n_threads)
        with using_threads(1):
            if n_threads == 1:
                for place, trainee in trainees:
                    yield place, self._fit(self._jobs[place], trainee, count)
                return
            with ThreadPoolExecutor(n_threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
                try:
                    places = {
                        pool.submit(self._fit, self._jobs[place], trainee, count): place for place, trainee in trainees
                    }
                    for future in as_completed(places):
                        yield places[future], future.result()
                finally:
                    self._stop.set()
                    pool.shutdown(cancel_futures=True)

    def _prepare(self, n_threads: int) -> list[tuple[int, Trainee]]:
        """Return the jobs that are trained here, with first weights and standardised bags, in the order of training."""
        readers = Counter((self._jobs[place].train, self._dtypes[place]) for place in self._order)
        hold = n_threads * self._count_bytes() <= _HELD_BYTES
        moments = {
            slide_id: find_moments(self._bags[slide_id])
            for slide_id in dict.fromkeys(i for place in self._order for i in self._jobs[place].train)
        }
        standards: dict[tuple[str, ...], Standardisation] = {}
        shared: dict[tuple[tuple[str, ...], torch.dtype], StandardRows] = {}
        trainees = []
        with torch.random.fork_rng(devices=[]):
            for place in self._order:
                job, dtype = self._jobs[place], self._dtypes[place]
                if job.train not in standards:
                    standards[job.train] = combine_moments(moments[slide_id] for slide_id in job.train)
                key = job.train, dtype
                if key not in shared:
                    shared[key] = StandardRows(
                        self._bags, standards[job.train], dtype, n_readers=readers[key], hold=hold
                    )
                torch.manual_seed(job.settings.seed)
                head = HEADS[job.settings.head](len(standards[job.train].mean), len(self._classes), 0.0)
                targets = dict(zip((*job.train, *job.val), self._targets[place].tolist(), strict=True))
                trainees.append(
                    (
                        place,
                        Trainee(
                            head=head,
                            settings=job.settings,
                            train=job.train,
                            val=job.val,
                            targets=targets,
                            weights=find_class_weights(self._targets[place][: len(job.train)], len(self._classes)),
                            rows=shared[key],
                        ),
                    )
                )
        return trainees

    def _count_bytes(self) -> int:
        """Return how much is held for the job that reads most."""
        sizes = [0]
        for place in self._order:
            job = self._jobs[place]
            rows = sum(count_rows(len(self._bags[i])) for i in (*job.train, *job.val))
            sizes.append(rows * self._bags[job.train[0]].shape[1] * self._dtypes[place].itemsize)
        return max(sizes)

    def _fit(self, job: FitJob, trainee: Trainee, count: "_Count") -> SlideModel:
        """Train one job, in any thread."""
        try:
            history, best_epoch = trainee.fit(count.advance, self._stop)
        finally:
            trainee.rows.leave()
        count.end(job, len(history))
        record = TrainingRecord(
            train=job.train,
            val=job.val,
            class_weights=tuple(trainee.weights.tolist()),
            best_epoch=best_epoch,
            history=history,
        )
        return SlideModel(
            classes=self._classes,
            settings=job.settings,
            head=trainee.head.eval().requires_grad_(False),  # noqa: FBT003 - torch's own signature
            standardisation=trainee.rows.standardisation,
            training=record,
        )

    def _fit_alone(self, job: FitJob, count: "_Count") -> SlideModel:
        """Train a job as `fit_model` does."""
        model = fit_model(
            self._bags, job.labels, train=job.train, val=job.val, classes=self._classes, settings=job.settings
        )
        count.advance(len(model.training.history))
        count.end(job, len(model.training.history))
        return model


class _Count:
    """Epochs told to a stage from several threads; a job that stops early lowers what is to come."""

    def __init__(self, stage: Stage, jobs: Sequence[FitJob]) -> None:
        self._stage, self._total = stage, sum(job.settings.epochs for job in jobs)
        self._lock = threading.Lock()

    def advance(self, n: int = 1) -> None:
        """Count epochs."""
        with self._lock:
            self._stage.advance(n)

    def end(self, job: FitJob, n_epochs: int) -> None:
        """Count a job as done after so many epochs."""
        if n_epochs < job.settings.epochs:
            with self._lock:
                self._total -= job.settings.epochs - n_epochs
                self._stage.expect(self._total)


def _is_written_out(settings: TrainSettings) -> bool:
    """Say whether the written-out gradients take a job with these settings."""
    return (
        settings.batch_size == 1
        and settings.dropout == 0
        and settings.tiles_per_slide is None
        and settings.device == "cpu"
    )


def _choose_dtype(precision: str, job: FitJob, bags: Mapping[str, Bag]) -> torch.dtype:
    """Return the type of a job's products: of this job alone, not of those beside it."""
    if precision == "auto":
        precision = "bf16" if _count_flops(job, bags) >= _BF16_FROM_FLOPS and has_bf16() else "fp32"
    return torch.bfloat16 if precision == "bf16" else torch.float32


def _choose_threads(jobs: Sequence[FitJob], bags: Mapping[str, Bag]) -> int:
    """Return how many jobs go side by side."""
    asked = max((job.settings.n_threads for job in jobs), default=1)
    much = sum(_count_flops(job, bags) for job in jobs) >= _THREADS_FROM_FLOPS
    return min(max(asked, count_threads() if much else 1), max(len(jobs), 1))


def _count_flops(job: FitJob, bags: Mapping[str, Bag]) -> float:
    """Return the operations of the first layer, all epochs."""
    rows = sum(len(bags[i]) for i in job.train)
    return 4.0 * rows * int(bags[job.train[0]].shape[1]) * 256 * job.settings.epochs


def has_bf16() -> bool:
    """Say whether the processor multiplies bf16 (AVX-512 BF16 or AMX)."""
    asked = [getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported")]
    return any(ask() for ask in asked if ask is not None)
