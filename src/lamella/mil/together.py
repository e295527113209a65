"""Training heads on the bags of one encoder: one by `fit_model`, or folds, seeds, labels and kinds of head in one call.

Nothing here sees the test slides: standardisation and class weights come from the training slides, stopping from the
validation slides. The steps of a job are written out (`written`) where that is possible, which is faster, and torch's
own (`recorded`) for any other head, device or setting; the loop is the same, and so is the model up to rounding. Bags
are checked, measured and standardised once for all jobs, and jobs go side by side, one a core.

A job's model never depends on its company: the same bits alone, in any call, with any number of threads.
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
from lamella.memory import find_free_memory
from lamella.mil.batches import HELD_BYTES, Bag, check_widths
from lamella.mil.gradients import count_rows
from lamella.mil.heads import HEADS, Head
from lamella.mil.loop import train_head
from lamella.mil.model import EpochRecord, SlideModel, TrainingRecord
from lamella.mil.recorded import RecordedSteps, find_device, repeatably
from lamella.mil.settings import TrainSettings
from lamella.mil.standardise import Standardisation, combine_moments, find_moments
from lamella.mil.targets import find_bag, find_class_weights, find_targets
from lamella.mil.written import StandardRows, WrittenSteps, is_written_out
from lamella.progress import Progress, SilentProgress, Stage

_STEP_BYTES = 5 << 10  # of one tile in a step, besides its embedding: measured with 10^6 tiles
_BF16_FROM_FLOPS = 1e12  # of one job; below this nothing is gained that one would notice
_THREADS_FROM_FLOPS = 1e11  # of all jobs

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


def fit_model(
    bags: Mapping[str, Bag],
    labels: Mapping[str, str],
    *,
    train: Sequence[str],
    val: Sequence[str],
    classes: Sequence[str],
    settings: TrainSettings | None = None,
    progress: Progress | None = None,
) -> SlideModel:
    """Fit a head to bags of labelled slides.

    The loss weighs each class by the inverse of its share, so that a rare class counts. That shifts the logits by the
    log of the weight, which is taken off again before any probability (King and Zeng 2001): what the model returns
    holds at the training prevalence. The epoch kept is the one of the lowest validation log-loss of these *corrected*
    probabilities: what is reported is what is chosen by, and the log-loss rewards the true probability, not a good
    order alone. The same bags, settings and `n_threads` give the same model bit for bit on one machine (on CUDA as
    far as its kernels do).

    Args:
        bags: Per slide id `(N, D)` float16 or float32; each is looked up once, and `StoredRows` stay in
            their files.
        labels: Class of each slide of `train` and `val`.
        train: Slides to learn from; each class must be among them.
        val: Slides that decide when to stop; may be empty, then the last epoch is kept.
        classes: All classes, in the order of the logits.
        settings: How to train; None is the defaults.
        progress: Told of each epoch.

    Returns:
        The model, on the CPU, with `training` filled; `provenance` is the caller's to add.

    Raises:
        CohortError: If a slide is in both splits, has no label, or a class is missing from `train`.
        BagError: If a bag is missing, empty, holds NaN, or differs in width.
        ModelError: If the loss does not stay finite.
        SettingsError: If the device is not there.
    """
    job = FitJob(train=tuple(train), val=tuple(val), settings=settings or TrainSettings(), labels=labels)
    (model,) = fit_together(bags, [job], classes, precision="fp32", progress=progress)
    return model


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
    threads, so what a killed run has finished need not be trained again. In fp32 it is what `fit_model` gives. Jobs
    with dropout, draws of tiles, several slides a step or a CUDA device go one after the other, in fp32.

    Args:
        bags: Per slide id `(N, D)` float16 or float32; each is looked up once, and `StoredRows` stay in
            their files.
        jobs: What to train; any splits, seeds, labels and heads.
        classes: All classes, in the order of the logits.
        precision: `fp32`; `bf16` for the products of the embedding (weights, pooling and sums stay fp32); `auto` takes
            bf16 for a job where the processor computes it and the job is large.
        n_threads: CPU threads, each with a job of its own; None takes those of the settings, and all cores where there
            is much to do.
        progress: Told of each epoch.
        keep: Told of each model as soon as it is trained, with its place in `jobs`; called in the caller's thread.

    Returns:
        A model for each job, in order, on the CPU, with `training` filled; `provenance` is the caller's to add.

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
    for device in {job.settings.device for job in jobs}:
        find_device(device)
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
        self._order = sorted(range(len(jobs)), key=lambda place: first[jobs[place].train])
        written = [place for place, job in enumerate(jobs) if is_written_out(job.settings)]
        self._dtypes = {place: _choose_dtype(precision, jobs[place], bags) for place in written}
        self._standards: dict[tuple[str, ...], Standardisation] = {}
        self._stop = threading.Event()

    def run(self, n_threads: int, count: "_Count") -> Iterator[tuple[int, SlideModel]]:
        """Train all, yield each model with its place as soon as it is there."""
        self._standardise()
        for place in range(len(self._jobs)):
            if place not in self._dtypes:
                yield place, self._fit_recorded(place, count)
        trainees = self._prepare(n_threads)
        with using_threads(1):
            if n_threads == 1:
                for trainee in trainees:
                    yield trainee.place, self._fit_written(trainee, count)
                return
            with ThreadPoolExecutor(n_threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
                try:
                    places = {pool.submit(self._fit_written, trainee, count): trainee.place for trainee in trainees}
                    for future in as_completed(places):
                        yield places[future], future.result()
                finally:
                    self._stop.set()
                    pool.shutdown(cancel_futures=True)

    def _standardise(self) -> None:
        """Find the standardisation of each training side."""
        sides = dict.fromkeys(job.train for job in self._jobs)
        moments = {
            slide_id: find_moments(self._bags[slide_id]) for slide_id in dict.fromkeys(i for s in sides for i in s)
        }
        self._standards = {side: combine_moments(moments[slide_id] for slide_id in side) for side in sides}

    def _prepare(self, n_threads: int) -> list["_Trainee"]:
        """Return the jobs whose steps are written out, with first weights and bags, in the order of training."""
        readers = Counter((self._jobs[place].train, dtype) for place, dtype in self._dtypes.items())
        hold = n_threads * self._count_bytes() <= HELD_BYTES
        shared: dict[tuple[tuple[str, ...], torch.dtype], StandardRows] = {}
        trainees = []
        with torch.random.fork_rng(devices=[]):
            for place in self._order:
                if place not in self._dtypes:
                    continue
                job, key = self._jobs[place], (self._jobs[place].train, self._dtypes[place])
                if key not in shared:
                    standard = self._standards[job.train]
                    shared[key] = StandardRows(self._bags, standard, key[1], n_readers=readers[key], hold=hold)
                torch.manual_seed(job.settings.seed)
                trainees.append(_Trainee(place, self._make_head(job), shared[key]))
        return trainees

    def _make_head(self, job: FitJob) -> Head:
        width = len(self._standards[job.train].mean)
        return HEADS[job.settings.head](width, len(self._classes), job.settings.dropout)

    def _name_targets(self, place: int) -> tuple[dict[str, int], NDArray[np.float64]]:
        """Return the class index of each slide of a job, and the weight of each class."""
        job, targets = self._jobs[place], self._targets[place]
        weights = find_class_weights(targets[: len(job.train)], len(self._classes))
        return dict(zip((*job.train, *job.val), targets.tolist(), strict=True)), weights

    def _count_bytes(self) -> int:
        """Return how much is held for the job that reads most."""
        sizes = [0]
        for place, dtype in self._dtypes.items():
            job = self._jobs[place]
            rows = sum(count_rows(len(self._bags[i])) for i in (*job.train, *job.val))
            sizes.append(rows * self._bags[job.train[0]].shape[1] * dtype.itemsize)
        return max(sizes)

    def _fit_written(self, trainee: "_Trainee", count: "_Count") -> SlideModel:
        """Train one job by written-out gradients, in any thread."""
        job, (targets, weights) = self._jobs[trainee.place], self._name_targets(trainee.place)
        steps = WrittenSteps(trainee.head, trainee.rows, targets, weights, self._stop)
        try:
            history, best_epoch = train_head(
                trainee.head, steps, job.settings, train=job.train, val=job.val, say=count.advance
            )
        finally:
            trainee.rows.leave()
        return self._finish(job, trainee.head, weights, history, best_epoch, count)

    def _fit_recorded(self, place: int, count: "_Count") -> SlideModel:
        """Train one job by torch's own gradients, in the caller's thread: dropout draws from torch's one stream."""
        job, (targets, weights) = self._jobs[place], self._name_targets(place)
        bags = {slide_id: self._bags[slide_id] for slide_id in targets}
        with repeatably(job.settings) as device:
            head = self._make_head(job).to(device)
            steps = RecordedSteps(head, bags, self._standards[job.train], targets, weights, job.settings, device)
            history, best_epoch = train_head(head, steps, job.settings, train=job.train, val=job.val, say=count.advance)
        return self._finish(job, head.cpu(), weights, history, best_epoch, count)

    def _finish(
        self,
        job: FitJob,
        head: Head,
        weights: NDArray[np.float64],
        history: tuple[EpochRecord, ...],
        best_epoch: int,
        count: "_Count",
    ) -> SlideModel:
        count.end(job, len(history))
        return SlideModel(
            classes=self._classes,
            settings=job.settings,
            head=head.eval().requires_grad_(False),  # noqa: FBT003 - torch's own signature
            standardisation=self._standards[job.train],
            training=TrainingRecord(
                train=job.train,
                val=job.val,
                class_weights=tuple(weights.tolist()),
                best_epoch=best_epoch,
                history=history,
            ),
        )


@dataclass(frozen=True, slots=True, eq=False)
class _Trainee:
    """A head on its way: which job, with its first weights, and the bags that it reads."""

    place: int
    head: Head
    rows: StandardRows


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


def _choose_dtype(precision: str, job: FitJob, bags: Mapping[str, Bag]) -> torch.dtype:
    """Return the type of a job's products: of this job alone, not of those beside it."""
    if precision == "auto":
        precision = "bf16" if _count_flops(job, bags) >= _BF16_FROM_FLOPS and has_bf16() else "fp32"
    return torch.bfloat16 if precision == "bf16" else torch.float32


def _choose_threads(jobs: Sequence[FitJob], bags: Mapping[str, Bag]) -> int:
    """Return how many jobs go side by side: no more than half of free memory holds, were all at the largest bag."""
    asked = max((job.settings.n_threads for job in jobs), default=1)
    much = sum(_count_flops(job, bags) for job in jobs) >= _THREADS_FROM_FLOPS
    largest = max((count_rows(len(bag)) for bag in bags.values()), default=0)
    n_bytes = largest * (4 * max((int(bag.shape[1]) for bag in bags.values()), default=0) + _STEP_BYTES)
    fit = max(1, find_free_memory() // 2 // max(n_bytes, 1))
    return min(max(asked, count_threads() if much else 1), max(len(jobs), 1), fit)


def _count_flops(job: FitJob, bags: Mapping[str, Bag]) -> float:
    """Return the operations of the first layer, all epochs."""
    rows = sum(len(bags[i]) for i in job.train)
    return 4.0 * rows * int(bags[job.train[0]].shape[1]) * 256 * job.settings.epochs


def has_bf16() -> bool:
    """Say whether the processor multiplies bf16 (AVX-512 BF16 or AMX)."""
    asked = [getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported")]
    return any(ask() for ask in asked if ask is not None)
