"""Training many heads on one set of bags at once: folds, seeds and labels as one batched model.

Each job trains as `fit_model` would train it alone: the same first weights, order of slides, standardisation, class
weights, optimiser and stopping. What differs is the arithmetic. The first layer, which is nearly all of it, is a matrix
product of each job's own bag with its own weights, without padding and without autograd; all further layers of all jobs
are one batched computation. A job whose training has stopped drops out.
"""

import copy
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.func import functional_call

from lamella.errors import SettingsError
from lamella.mil.batches import Bag, check_widths
from lamella.mil.heads import HEADS, Head
from lamella.mil.model import EpochRecord, SlideModel, TrainingRecord, using_threads
from lamella.mil.settings import TrainSettings
from lamella.mil.standardise import Standardisation, find_standardisation
from lamella.mil.train import check_finite, find_bag, find_class_weights, find_targets, fit_model
from lamella.progress import Progress, SilentProgress, Stage

_BF16_FROM_FLOPS = 2e13  # below this much work nothing is gained that one would notice
_THREADS_FROM_FLOPS = 1e12
_CACHE_BYTES = 3 * 2**30


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
) -> list[SlideModel]:
    """Fit heads to the bags of one encoder, all at once.

    The same jobs, bags, precision and thread count give the same models bit for bit on one machine. A job trained in
    other company agrees up to the order in which its sums are taken. Jobs that the batched computation cannot take
    (dropout, draws of tiles, several slides a step, CUDA) are trained one by one.

    Args:
        bags: Per slide id `(N, D)` float16 or float32; each is looked up once.
        jobs: What to train; any splits, seeds, labels and heads.
        classes: All classes, in the order of the logits.
        precision: `fp32`; `bf16` for the products of the first layer (weights and sums stay fp32); `auto` takes bf16
            where the processor computes it and there is much to do.
        n_threads: CPU threads; None takes those of the settings, and all cores where there is much to do.
        progress: Told of each slide seen.

    Returns:
        A model for each job, in order, as `fit_model` returns it.

    Raises:
        CohortError: If a slide is in both splits, has no label, or a class is missing from `train`.
        BagError: If a bag is missing, empty, holds NaN, or differs in width.
        ModelError: If a loss does not stay finite.
        SettingsError: If the precision is not known.
    """
    if precision not in ("auto", "fp32", "bf16"):
        raise SettingsError(f"heads train in auto, fp32 or bf16, not in '{precision}'. Leave it out.")
    progress = progress or SilentProgress()
    models: dict[int, SlideModel] = {}
    groups: dict[TrainSettings, list[int]] = {}
    for place, job in enumerate(jobs):
        if _can_be_batched(job.settings):
            groups.setdefault(_without_seed(job.settings), []).append(place)
        else:
            models[place] = fit_model(
                bags, job.labels, train=job.train, val=job.val, classes=classes, settings=job.settings
            )
    held = {i: find_bag(bags, i) for i in dict.fromkeys(i for job in jobs for i in (*job.train, *job.val))}
    for group in groups.values():
        own = [jobs[place] for place in group]
        threads = n_threads or _choose_threads(own, held)
        with torch.random.fork_rng(devices=[]), using_threads(threads):
            found = _Group(own, held, classes, _choose(precision, own, held)).run(progress)
        models |= dict(zip(group, found, strict=True))
    return [models[place] for place in range(len(jobs))]


@dataclass(eq=False)
class _Trainee:
    """One job on its way."""

    job: FitJob
    head: Head
    optimiser: torch.optim.Optimizer
    standardisation: Standardisation
    targets: dict[str, int]
    weights: NDArray[np.float64]
    rng: np.random.Generator
    low: Tensor  # first layer's weights in the products' precision, (E, D)
    history: list[EpochRecord] = field(default_factory=list)
    best_loss: float = math.inf
    best_epoch: int = 0
    best: dict[str, Tensor] = field(default_factory=dict)
    order: list[str] = field(default_factory=list)
    train_loss: float = 0.0
    done: bool = False

    @property
    def first(self) -> nn.Linear:
        """The layer that reads embeddings."""
        layer = self.head.embed[0]  # type: ignore[index]
        assert isinstance(layer, nn.Linear)
        return layer


class _Group:
    """Jobs of one head and the same hyperparameters."""

    def __init__(
        self, jobs: Sequence[FitJob], bags: Mapping[str, Bag], classes: Sequence[str], dtype: torch.dtype
    ) -> None:
        self._bags, self._classes, self._dtype = bags, tuple(classes), dtype
        self._width = check_widths({i: bags[i] for job in jobs for i in (*job.train, *job.val)})
        shared: dict[tuple[str, ...], Standardisation] = {}
        self._trainees = []
        for job in jobs:
            targets = find_targets(job.labels, job.train, job.val, classes)
            if job.train not in shared:
                shared[job.train] = find_standardisation(bags[i] for i in job.train)
            torch.manual_seed(job.settings.seed)
            head = HEADS[job.settings.head](self._width, len(classes), job.settings.dropout)
            settings = job.settings
            self._trainees.append(
                _Trainee(
                    job=job,
                    head=head,
                    optimiser=torch.optim.AdamW(
                        head.parameters(), lr=settings.lr, weight_decay=settings.weight_decay, fused=True
                    ),
                    standardisation=shared[job.train],
                    targets=dict(zip((*job.train, *job.val), targets.tolist(), strict=True)),
                    weights=find_class_weights(targets[: len(job.train)], len(classes)),
                    rng=np.random.default_rng(settings.seed),
                    low=torch.empty(0),
                )
            )
        self._rest = _Rest(copy.deepcopy(self._trainees[0].head))
        n_rows = sum(len(bags[i]) for i in dict.fromkeys(i for job in jobs for i in (*job.train, *job.val)))
        size = n_rows * self._width * torch.empty(0, dtype=dtype).element_size() * len(shared)
        self._cache: dict[tuple[int, str], Tensor] | None = {} if size <= _CACHE_BYTES else None

    def run(self, progress: Progress) -> list[SlideModel]:
        """Train all; return their models."""
        settings = self._trainees[0].job.settings
        total = settings.epochs * sum(len(one.job.train) for one in self._trainees)
        with progress.stage("train heads together", total, "slides") as stage:
            for epoch in range(1, settings.epochs + 1):
                active = [one for one in self._trainees if not one.done]
                if not active:
                    break
                self._train_epoch(active, stage)
                losses = self._find_val_losses(active)
                for one, val_loss in zip(active, losses, strict=True):
                    self._close_epoch(one, epoch, val_loss)
        return [self._finish(one) for one in self._trainees]

    def _train_epoch(self, active: Sequence[_Trainee], stage: Stage) -> None:
        for one in active:
            own = one.rng.permutation(len(one.job.train))
            one.order = [one.job.train[i] for i in own]
            one.train_loss = 0.0
        for step in range(max(len(one.order) for one in active)):
            present = [one for one in active if step < len(one.order)]
            self._step(present, [one.order[step] for one in present])
            stage.advance(len(present))

    def _step(self, present: Sequence[_Trainee], slides: Sequence[str]) -> None:
        """Take one step of each job, on one slide each."""
        inputs = [self._read(one, slide) for one, slide in zip(present, slides, strict=True)]
        hidden, real = self._embed(present, inputs)  # (J, N, E), (J, N)
        hidden.requires_grad_()
        rest = {
            name: torch.stack([dict(one.head.named_parameters())[name] for one in present]) for name in self._rest.names
        }
        logits = self._rest.compute(rest, hidden, real)  # (J, C)
        target = torch.tensor([one.targets[slide] for one, slide in zip(present, slides, strict=True)])
        weights = torch.tensor([one.weights[one.targets[s]] for one, s in zip(present, slides, strict=True)])
        loss = nn.functional.cross_entropy(logits, target, reduction="none") * weights.float()  # (J,)
        for one in present:
            one.optimiser.zero_grad(set_to_none=True)
        loss.sum().backward()  # type: ignore[no-untyped-call]
        gradient = hidden.grad
        assert gradient is not None
        for place, (one, x) in enumerate(zip(present, inputs, strict=True)):
            own = gradient[place, : len(x)]  # (n, E)
            one.first.weight.grad = (own.to(self._dtype).T @ x).float()
            one.first.bias.grad = own.sum(dim=0)
            one.optimiser.step()
            one.low = one.first.weight.detach().to(self._dtype)
            one.train_loss += float(loss[place].detach())

    @torch.no_grad()
    def _embed(self, present: Sequence[_Trainee], inputs: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Return what the first layer gives, padded, `(J, N, E)` float32, and which rows are real `(J, N)`."""
        longest = max(len(x) for x in inputs)
        hidden = torch.zeros(len(present), longest, present[0].first.out_features)
        real = torch.zeros(len(present), longest, dtype=torch.bool)
        for place, (one, x) in enumerate(zip(present, inputs, strict=True)):
            if not len(one.low):
                one.low = one.first.weight.detach().to(self._dtype)
            torch.add((x @ one.low.T).float(), one.first.bias, out=hidden[place, : len(x)])
            real[place, : len(x)] = True
        return hidden, real

    @torch.no_grad()
    def _find_val_losses(self, active: Sequence[_Trainee]) -> list[float | None]:
        """Return for each job the mean log-loss of the corrected probabilities over its validation slides."""
        totals = [0.0] * len(active)
        rest = {
            name: torch.stack([dict(one.head.named_parameters())[name] for one in active]) for name in self._rest.names
        }
        for step in range(max(len(one.job.val) for one in active)):
            places = [place for place, one in enumerate(active) if step < len(one.job.val)]
            present = [active[place] for place in places]
            slides = [one.job.val[step] for one in present]
            hidden, real = self._embed(present, [self._read(o, s) for o, s in zip(present, slides, strict=True)])
            own = {name: stacked[places] for name, stacked in rest.items()} if len(places) < len(active) else rest
            logits = self._rest.compute(own, hidden, real).double()  # (J, C)
            logits -= torch.from_numpy(np.log(np.stack([one.weights for one in present])))
            target = torch.tensor([one.targets[slide] for one, slide in zip(present, slides, strict=True)])
            for place, loss in zip(
                places, nn.functional.cross_entropy(logits, target, reduction="none").tolist(), strict=True
            ):
                totals[place] += loss
        return [t / len(one.job.val) if one.job.val else None for t, one in zip(totals, active, strict=True)]

    def _close_epoch(self, one: _Trainee, epoch: int, val_loss: float | None) -> None:
        train_loss = one.train_loss / len(one.job.train)
        check_finite(train_loss, val_loss, epoch)
        one.history.append(EpochRecord(epoch=epoch, train_loss=train_loss, val_log_loss=val_loss))
        if val_loss is None or val_loss < one.best_loss:
            one.best_loss, one.best_epoch = math.inf if val_loss is None else val_loss, epoch
            one.best = copy.deepcopy(one.head.state_dict())
        one.done = epoch - one.best_epoch >= one.job.settings.patience

    def _read(self, one: _Trainee, slide: str) -> Tensor:
        """Return a slide's bag, standardised as the job does, `(n, D)` in the products' precision."""
        key = (id(one.standardisation), slide)
        if self._cache is not None and key in self._cache:
            return self._cache[key]
        own = one.standardisation
        bag = torch.from_numpy(np.asarray(self._bags[slide])).float()
        ready = bag.sub_(torch.from_numpy(own.mean)).div_(torch.from_numpy(own.sd)).to(self._dtype)
        if self._cache is not None:
            self._cache[key] = ready
        return ready

    def _finish(self, one: _Trainee) -> SlideModel:
        one.head.load_state_dict(one.best)
        job = one.job
        record = TrainingRecord(
            train=job.train,
            val=job.val,
            class_weights=tuple(one.weights.tolist()),
            best_epoch=one.best_epoch,
            history=tuple(one.history),
        )
        return SlideModel(
            classes=self._classes,
            settings=job.settings,
            head=one.head.eval().requires_grad_(False),  # noqa: FBT003 - torch's own signature
            standardisation=one.standardisation,
            training=record,
        )


class _Rest:
    """What a head does after its first layer, for many heads at once."""

    def __init__(self, head: Head) -> None:
        self._module = _AfterFirst(head)
        self.names = tuple(name for name, _ in head.named_parameters() if not name.startswith("embed.0."))
        self._compute = torch.vmap(self._one)

    def compute(self, parameters: Mapping[str, Tensor], hidden: Tensor, real: Tensor) -> Tensor:
        """Return logits `(J, C)` from `(J, N, E)` and `(J, N)`, each head with its own parameters."""
        logits: Tensor = self._compute(dict(parameters), hidden, real)
        return logits

    def _one(self, parameters: dict[str, Tensor], hidden: Tensor, real: Tensor) -> Tensor:
        named = {f"head.{name}": value for name, value in parameters.items()}
        logits: Tensor = functional_call(self._module, named, (hidden, real))
        return logits


class _AfterFirst(nn.Module):
    """A head without its first layer."""

    def __init__(self, head: Head) -> None:
        super().__init__()
        self.head = head

    def forward(self, hidden: Tensor, real: Tensor) -> Tensor:
        """Return `(C,)` from `(N, E)` of the first layer, before its ReLU, and `(N,)`."""
        layers: Any = self.head.embed
        for layer in list(layers)[1:]:
            hidden = layer(hidden)
        logits: Tensor = self.head.pool_and_classify(hidden.unsqueeze(0), real.unsqueeze(0)).logits[0]
        return logits


def _can_be_batched(settings: TrainSettings) -> bool:
    return (
        settings.batch_size == 1
        and settings.dropout == 0
        and settings.tiles_per_slide is None
        and settings.device == "cpu"
    )


def _without_seed(settings: TrainSettings) -> TrainSettings:
    return replace(settings, seed=0)


def _choose(precision: str, jobs: Sequence[FitJob], bags: Mapping[str, Bag]) -> torch.dtype:
    """Return the type of the first layer's products."""
    if precision != "auto":
        return torch.bfloat16 if precision == "bf16" else torch.float32
    return torch.bfloat16 if _count_flops(jobs, bags) > _BF16_FROM_FLOPS and has_bf16() else torch.float32


def _choose_threads(jobs: Sequence[FitJob], bags: Mapping[str, Bag]) -> int:
    asked = jobs[0].settings.n_threads
    return asked if asked > 1 or _count_flops(jobs, bags) < _THREADS_FROM_FLOPS else count_threads()


def count_threads() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _count_flops(jobs: Sequence[FitJob], bags: Mapping[str, Bag]) -> float:
    """Return the operations of the first layers of all jobs, all epochs."""
    width = next(iter(bags.values())).shape[1]
    rows = sum(len(bags[i]) for job in jobs for i in job.train)
    return float(4 * rows * width * 256 * jobs[0].settings.epochs)


def has_bf16() -> bool:
    """Say whether the processor multiplies bf16 (AVX-512 BF16 or AMX)."""
    asked = [getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported")]
    return any(ask() for ask in asked if ask is not None)
