"""Heads trained together are the heads that each job would train alone, by written-out gradients as by torch's own."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from lamella.errors import BagError, CohortError, ModelError, SettingsError
from lamella.mil import HEADS, SlideModel, fit_model, together
from lamella.mil import settings as mil_settings
from lamella.mil.heads import Head
from lamella.mil.pools import TilePool
from lamella.mil.settings import TrainSettings
from lamella.mil.together import FitJob, fit_together
from lamella.mil.written import is_written_out
from tests.mil.heads import WRITTEN_OUT

CLASSES = ("benign", "malignant")


def make_bags(n: int = 24, width: int = 12, *, n_classes: int = 2, seed: int = 0) -> tuple[dict, dict[str, str]]:
    """Bags of different sizes in which a few tiles tell the class."""
    rng = np.random.default_rng(seed)
    bags, labels = {}, {}
    for i in range(n):
        kind = i % n_classes
        bag = rng.normal(size=(int(rng.integers(3, 19)), width)).astype(np.float16)
        bag[:2, kind] += 2.0
        bags[f"S{i}"], labels[f"S{i}"] = bag, ("benign", "malignant", "other")[kind]
    return bags, labels


class Counted:
    """A progress that counts one stage."""

    def __init__(self) -> None:
        self.n, self.total = 0, 0

    def stage(self, name: str, total: int | None, unit: str) -> "Counted":
        assert (name, unit) == ("train", "epochs")
        assert total is not None
        self.total = total
        return self

    def say(self, message: str) -> None:
        raise AssertionError(message)

    def __enter__(self) -> "Counted":
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def advance(self, n: int = 1) -> None:
        self.n += n

    def expect(self, total: int) -> None:
        self.total = total


def make_jobs(labels: Mapping[str, str], *, seeds: int = 2, head: str = "attention", epochs: int = 6) -> list[FitJob]:
    ids = list(labels)
    jobs = []
    for fold in range(3):
        val = ids[fold * 6 : fold * 6 + 6]
        train = tuple(i for i in ids if i not in val)[: 16 - fold]  # folds of different sizes
        for seed in range(seeds):
            settings = TrainSettings(head=head, epochs=epochs, patience=3, seed=seed)
            jobs.append(FitJob(train=train, val=tuple(val), settings=settings, labels=labels))
    return jobs


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> Callable[..., SlideModel]:
    """`fit_model` whose steps are torch's own, whatever the settings."""

    def fit(*given: Any, **named: Any) -> SlideModel:
        with monkeypatch.context() as patch:
            patch.setattr(together, "is_written_out", lambda _: False)
            return fit_model(*given, **named)

    return fit


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("seed", [0, 7])
@pytest.mark.parametrize("head", WRITTEN_OUT)
def test_written_out_steps_train_the_model_that_recorded_ones_train(
    recorded: Callable[..., SlideModel], head: str, seed: int, n_classes: int
) -> None:
    bags, labels = make_bags(n_classes=n_classes)
    ids = list(labels)
    wanted = {
        "train": ids[:18],
        "val": ids[18:],
        "classes": ("benign", "malignant", "other")[:n_classes],
        "settings": TrainSettings(head=head, epochs=6, patience=3, seed=seed),
    }
    assert is_written_out(wanted["settings"])
    written, other = fit_model(bags, labels, **wanted), recorded(bags, labels, **wanted)
    assert written.training.best_epoch == other.training.best_epoch
    for epoch, same in zip(written.training.history, other.training.history, strict=True):
        assert epoch.train_loss == pytest.approx(same.train_loss, abs=1e-5)
        assert epoch.val_log_loss == pytest.approx(same.val_log_loss, abs=1e-5)
    for slide in ids:
        first, second = written.predict(bags[slide]), other.predict(bags[slide])
        assert first.logits == pytest.approx(second.logits, abs=1e-5)
        assert first.attention == pytest.approx(second.attention, abs=1e-5)
    weights = other.head.state_dict()
    for name, weight in written.head.state_dict().items():
        if name != "pool.score.bias":  # a softmax does not see it: its gradient is rounding, which Adam blows up
            torch.testing.assert_close(weight, weights[name], rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "changes", [{"dropout": 0.2}, {"batch_size": 3}, {"tiles_per_slide": 4}, {"device": "cuda"}, {"head": "last"}]
)
def test_what_is_not_written_out_is_recorded(monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]) -> None:
    monkeypatch.setattr(mil_settings, "HEAD_NAMES", (*mil_settings.HEAD_NAMES, "last"))
    monkeypatch.setitem(HEADS, "last", lambda dim, n_classes, _: Head(nn.Linear(dim, 4), LastPool(), 4, n_classes))
    settings = TrainSettings(epochs=2, **changes)
    assert not is_written_out(settings)
    if settings.device == "cpu":
        bags, labels = make_bags()
        ids = list(labels)
        model = fit_model(bags, labels, train=ids[:18], val=ids[18:], classes=CLASSES, settings=settings)
        assert np.isfinite(model.predict(bags["S0"]).logits).all()


class LastPool(TilePool):
    """A pool that the written-out gradients do not know: the last tile alone."""

    def forward(self, tiles: torch.Tensor, real: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        last = nn.functional.one_hot(real.sum(dim=1) - 1, real.shape[1]).to(tiles.dtype)
        return torch.einsum("bn,bne->be", last, tiles), last


def test_a_job_that_has_stopped_drops_out_and_the_others_go_on() -> None:
    bags, labels = make_bags()
    jobs = make_jobs(labels, epochs=30)
    lengths = {len(model.training.history) for model in fit_together(bags, jobs, CLASSES, precision="fp32")}
    assert len(lengths) > 1


def assert_same_bits(one: SlideModel, other: SlideModel) -> None:
    assert one.training == other.training
    assert np.array_equal(one.standardisation.sd, other.standardisation.sd)
    for a, b in zip(one.head.state_dict().values(), other.head.state_dict().values(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_job_is_the_same_bits_alone_in_any_company_and_on_any_number_of_threads(precision: str) -> None:
    bags, labels = make_bags(width=150)
    jobs = [*make_jobs(labels), *make_jobs(labels, head="gated", seeds=1)]
    whole = fit_together(bags, jobs, CLASSES, precision=precision, n_threads=1)
    threads = fit_together(bags, jobs[::-1], CLASSES, precision=precision, n_threads=3)[::-1]
    for one, other in zip(whole, threads, strict=True):
        assert_same_bits(one, other)
    (alone,) = fit_together(bags, [jobs[3]], CLASSES, precision=precision)
    assert_same_bits(whole[3], alone)


def test_what_is_standardised_at_each_read_gives_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    bags, labels = make_bags()
    jobs = make_jobs(labels)[:2]
    held = fit_together(bags, jobs, CLASSES)
    monkeypatch.setattr(together, "HELD_BYTES", 0)
    for one, other in zip(held, fit_together(bags, jobs, CLASSES), strict=True):
        assert_same_bits(one, other)


@pytest.mark.parametrize("n_threads", [1, 2])
def test_nothing_of_the_callers_is_changed(n_threads: int) -> None:
    bags, labels = make_bags()
    bags = {name: bag.astype(np.float32) for name, bag in bags.items()}
    for bag in bags.values():
        bag.flags.writeable = False
    before = torch.get_rng_state(), torch.get_num_threads()
    models = fit_together(bags, make_jobs(labels), CLASSES, n_threads=n_threads)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert torch.get_num_threads() == before[1]
    assert torch.is_grad_enabled()
    for parameter in models[0].head.parameters():
        assert not parameter.requires_grad
        assert parameter.grad is None


@pytest.mark.parametrize("n_threads", [1, 2])
def test_each_model_is_handed_over_once_and_each_epoch_counted(n_threads: int) -> None:
    bags, labels = make_bags()
    jobs = make_jobs(labels, epochs=12)
    jobs.append(replace(jobs[0], settings=replace(jobs[0].settings, dropout=0.1)))
    count = Counted()
    kept: dict[int, SlideModel] = {}
    models = fit_together(
        bags, jobs, CLASSES, n_threads=n_threads, progress=count, keep=lambda place, one: kept.update({place: one})
    )
    assert sorted(kept) == list(range(len(jobs)))
    assert all(kept[place] is model for place, model in enumerate(models))
    n_epochs = sum(len(model.training.history) for model in models)
    assert (count.n, count.total) == (n_epochs, n_epochs)


@pytest.mark.parametrize("n_threads", [1, 2])
def test_a_loss_that_is_no_number_ends_all(n_threads: int) -> None:
    bags, labels = make_bags()
    jobs = make_jobs(labels, epochs=300)
    jobs.insert(1, replace(jobs[0], settings=replace(jobs[0].settings, lr=1e30)))
    with pytest.raises(ModelError, match="left the finite numbers"):
        fit_together(bags, jobs, CLASSES, n_threads=n_threads)


def test_jobs_may_have_labels_of_their_own_and_several_classes(recorded: Callable[..., SlideModel]) -> None:
    bags, labels = make_bags(n_classes=3)
    classes = ("benign", "malignant", "other")
    other = dict(zip(labels, [*list(labels.values())[1:], "benign"], strict=True))
    settings = TrainSettings(epochs=4)
    ids = tuple(labels)
    jobs = [FitJob(train=ids[:18], val=ids[18:], settings=settings, labels=own) for own in (labels, other)]
    for job, model in zip(jobs, fit_together(bags, jobs, classes, precision="fp32"), strict=True):
        alone = recorded(bags, job.labels, train=job.train, val=job.val, classes=classes, settings=settings)
        assert model.predict(bags["S2"]).logits == pytest.approx(alone.predict(bags["S2"]).logits, abs=1e-5)


def test_without_validation_the_last_epoch_is_kept() -> None:
    bags, labels = make_bags()
    job = FitJob(train=tuple(labels), val=(), settings=TrainSettings(epochs=3), labels=labels)
    (model,) = fit_together(bags, [job], CLASSES)
    assert model.training.best_epoch == 3


def test_bf16_orders_slides_as_fp32_does() -> None:
    bags, labels = make_bags(60)
    ids = tuple(labels)
    job = FitJob(train=ids[:40], val=ids[40:50], settings=TrainSettings(epochs=15), labels=labels)
    scores = []
    for precision in ("fp32", "bf16"):
        (model,) = fit_together(bags, [job], CLASSES, precision=precision)
        scores.append([model.predict(bags[i]).logits[1] for i in ids[50:]])
    assert np.corrcoef(scores)[0, 1] > 0.9


def test_what_cannot_be_batched_is_trained_one_by_one_to_the_same_bits() -> None:
    bags, labels = make_bags()
    settings = TrainSettings(epochs=2, dropout=0.2)
    ids = tuple(labels)
    (model,) = fit_together(bags, [FitJob(train=ids[:18], val=ids[18:], settings=settings, labels=labels)], CLASSES)
    alone = fit_model(bags, labels, train=ids[:18], val=ids[18:], classes=CLASSES, settings=settings)
    assert (model.predict(bags["S0"]).logits == alone.predict(bags["S0"]).logits).all()


def test_what_cannot_be_trained_is_refused_as_it_is_alone() -> None:
    bags, labels = make_bags()
    ids = tuple(labels)
    settings = TrainSettings(epochs=1)
    with pytest.raises(CohortError, match="class 'malignant' has no slide"):
        fit_together(bags, [FitJob(train=ids[:6:2], val=(), settings=settings, labels=labels)], CLASSES)
    with pytest.raises(BagError, match="has no bag"):
        fit_together({}, [FitJob(train=ids, val=(), settings=settings, labels=labels)], CLASSES)
    with pytest.raises(SettingsError, match="int8"):
        fit_together(bags, [], CLASSES, precision="int8")
