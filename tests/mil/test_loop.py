"""Training: repeatable, blind to test slides, class weights undone."""

from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from lamella.errors import BagError, CohortError, ModelError, SettingsError
from lamella.mil import SlideModel, TrainSettings, fit_model
from lamella.mil.batches import Bags, split_batch
from lamella.mil.heads import HEADS
from lamella.mil.standardise import find_standardisation
from lamella.mil.targets import find_class_weights
from tests.mil.conftest import SmallCohort, make_cohort

QUICK = TrainSettings(epochs=6, n_threads=1)


def fit(cohort: SmallCohort, settings: TrainSettings = QUICK, **changes: object) -> SlideModel:
    given: dict[str, object] = {"train": cohort.train, "val": cohort.val, "classes": ("a", "b")} | changes
    return fit_model(cohort.bags, cohort.labels, settings=settings, **given)  # type: ignore[arg-type]


@pytest.mark.parametrize("head", sorted(HEADS))
def test_every_head_finds_the_needle(head: str) -> None:
    large = head in ("clam-sb", "transmil")
    cohort, epochs, lr = (make_cohort(100), 6, 2e-4) if large else (make_cohort(60), 40, 1e-3)
    model = fit(cohort, TrainSettings(head=head, epochs=epochs, lr=lr, n_threads=1))
    margins = np.array([np.diff(model.predict(cohort.bags[name]).logits)[0] for name in cohort.test])
    positive = np.array([cohort.labels[name] == "b" for name in cohort.test])
    auc = np.mean(margins[positive][:, None] > margins[~positive])
    assert auc > (0.8 if head == "mean" else 0.9)
    assert np.mean((margins > 0) == positive) >= (0.6 if head == "mean" else 0.85)


def test_attention_finds_the_tiles_that_matter(small_cohort: SmallCohort, small_model: SlideModel) -> None:
    positive = [name for name in small_cohort.test if small_cohort.labels[name] == "b"]
    gains = []
    for name in positive:
        attention = small_model.predict(small_cohort.bags[name]).attention
        gains.append(attention[:2].mean() / attention[2:].mean())
    assert np.median(gains) > 1.5


def test_three_classes_train_and_predict() -> None:
    cohort = make_cohort(48, classes=("a", "b", "c"))
    model = fit(cohort, TrainSettings(epochs=30, n_threads=1), classes=("a", "b", "c"))
    predictions = [model.predict(cohort.bags[name]) for name in cohort.test]
    right = [
        ("a", "b", "c")[int(p.logits.argmax())] == cohort.labels[n]
        for p, n in zip(predictions, cohort.test, strict=True)
    ]
    assert np.mean(right) > 0.7


@pytest.mark.parametrize("settings", [QUICK, replace(QUICK, tiles_per_slide=4, max_tiles=30, n_threads=2)])
def test_training_twice_is_bit_identical(small_cohort: SmallCohort, settings: TrainSettings) -> None:
    first = fit(small_cohort, settings)
    torch.manual_seed(77)  # the caller's random state must not matter
    second = fit(small_cohort, settings)
    for name, tensor in first.head.state_dict().items():
        assert torch.equal(tensor, second.head.state_dict()[name]), name
    assert first.training == second.training


def test_another_seed_is_another_model(small_cohort: SmallCohort) -> None:
    first, second = fit(small_cohort), fit(small_cohort, replace(QUICK, seed=1))
    assert not torch.equal(first.head.classify.weight, second.head.classify.weight)


def test_training_leaves_torch_as_it_was(small_cohort: SmallCohort) -> None:
    before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled(), torch.get_rng_state()
    model = fit(small_cohort, replace(QUICK, n_threads=3 if before[0] != 3 else 2))
    model.predict(small_cohort.bags[small_cohort.test[0]])
    after = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled(), torch.get_rng_state()
    assert before[:2] == after[:2]
    assert torch.equal(before[2], after[2])


def test_the_cap_on_tiles_changes_memory_and_not_the_model(small_cohort: SmallCohort) -> None:
    whole = fit(small_cohort, replace(QUICK, dropout=0.0, epochs=3))
    parts = fit(small_cohort, replace(QUICK, dropout=0.0, epochs=3, max_tiles=1))
    for record, other in zip(whole.training.history, parts.training.history, strict=True):
        assert record.val_log_loss == pytest.approx(other.val_log_loss, rel=1e-4)


def test_no_batch_holds_more_tiles_than_the_cap_but_for_a_single_long_slide() -> None:
    rng = np.random.default_rng(4)
    lengths = [1, 700, 40, 3, 40, 39, 41, 5, 100]
    bags = [rng.normal(size=(n, 3)).astype(np.float16) for n in lengths]
    data = Bags(bags, find_standardisation(bags), torch.device("cpu"))
    seen = []
    for batch in data.batches(range(len(bags)), max_tiles=100):
        assert batch.real.numel() <= 100 or len(batch.places) == 1
        assert batch.bag.dtype == torch.float32
        for slot, place in enumerate(batch.places):
            assert int(batch.real[slot].sum()) == lengths[place]
        seen += batch.places
    assert sorted(seen) == list(range(len(bags)))
    assert split_batch([], 5) == []


def test_bags_that_are_held_are_the_same_batches(small_cohort: SmallCohort) -> None:
    bags = [small_cohort.bags[name] for name in small_cohort.train]
    kinds = [Bags(bags, find_standardisation(bags), torch.device("cpu"), hold=hold) for hold in (False, True)]
    for _ in range(2):  # the second time from what is held
        for fresh, held in zip(*(kind.batches([3, 0, 2], max_tiles=1) for kind in kinds), strict=True):
            assert fresh.places == held.places
            assert torch.equal(fresh.bag, held.bag)
            assert bool(held.real.all())


def test_a_draw_of_tiles_takes_no_tile_twice() -> None:
    bag = np.arange(50, dtype=np.float32).reshape(-1, 1)
    standard = find_standardisation([bag])
    data = Bags([bag], standard, torch.device("cpu"))
    batch = next(iter(data.batches([0], max_tiles=100, draw=20, rng=np.random.default_rng(0))))
    drawn = batch.bag[0, :, 0].numpy() * standard.sd + standard.mean
    assert len(set(drawn.round(3).tolist())) == 20


def test_each_bag_is_looked_up_once(small_cohort: SmallCohort) -> None:
    class Counting(Mapping[str, NDArray[np.float32]]):
        def __init__(self) -> None:
            self.asked: list[str] = []

        def __getitem__(self, key: str) -> NDArray[np.float32]:
            self.asked.append(key)
            return small_cohort.bags[key]

        def __iter__(self) -> Iterator[str]:
            return iter(small_cohort.bags)

        def __len__(self) -> int:
            return len(small_cohort.bags)

    bags = Counting()
    fit_model(
        bags, small_cohort.labels, train=small_cohort.train, val=small_cohort.val, classes=("a", "b"), settings=QUICK
    )
    assert sorted(bags.asked) == sorted((*small_cohort.train, *small_cohort.val))


def test_the_epoch_kept_is_the_one_of_the_lowest_validation_log_loss(small_cohort: SmallCohort) -> None:
    model = fit(small_cohort, TrainSettings(epochs=60, patience=5, lr=5e-3, n_threads=1))
    losses = [record.val_log_loss for record in model.training.history]
    assert losses.index(min(losses)) + 1 == model.training.best_epoch
    assert len(losses) in (60, model.training.best_epoch + 5)
    # The weights kept are those of that epoch, and its loss is of the probabilities the model gives.
    truth = [("a", "b").index(small_cohort.labels[name]) for name in small_cohort.val]
    given = [
        model.predict(small_cohort.bags[name]).probabilities[t] for name, t in zip(small_cohort.val, truth, strict=True)
    ]
    assert -np.log(given).mean() == pytest.approx(min(losses), rel=1e-5)


def test_without_validation_slides_the_last_epoch_is_kept(small_cohort: SmallCohort) -> None:
    model = fit(small_cohort, val=())
    assert model.training.best_epoch == 6
    assert model.training.history[-1].val_log_loss is None


def test_class_weights_average_to_one_over_slides() -> None:
    targets = np.array([0] * 12 + [1] * 3 + [2] * 1)
    weights = find_class_weights(targets, 3)
    assert weights[targets].mean() == pytest.approx(1)
    assert weights[2] / weights[0] == pytest.approx(12)


@pytest.mark.parametrize("batch_size", [1, 8])
def test_class_weights_are_undone_before_probabilities(batch_size: int) -> None:
    """Bags that say nothing: the mean probability must be the training prevalence, not one half."""
    rng = np.random.default_rng(8)
    bags = {f"s{i}": rng.normal(size=(3, 4)).astype(np.float32) for i in range(150)}
    labels = {f"s{i}": "rare" if i % 5 == 0 else "common" for i in range(150)}
    names = list(bags)
    settings = TrainSettings(epochs=12, n_threads=1, batch_size=batch_size, lr=3e-4)
    model = fit_model(bags, labels, train=names[:100], val=names[100:], classes=("common", "rare"), settings=settings)
    given = np.mean([model.predict(rng.normal(size=(3, 4)).astype(np.float32)).probabilities[1] for _ in range(50)])
    assert given == pytest.approx(0.2, abs=0.06)
    assert model.training.class_weights == pytest.approx((0.625, 2.5))


@pytest.mark.slow
def test_probabilities_hold_at_the_training_prevalence() -> None:
    """Statistics.md, test h, through a trained head: at 20% prevalence nothing must be added to the log-odds."""
    found = []
    for seed in range(5):
        rng = np.random.default_rng(seed)
        positive = np.arange(3200) % 5 == 0
        bags = {
            f"s{i}": rng.normal(size=(2, 4)).astype(np.float32) + np.float32(0.8 * p) for i, p in enumerate(positive)
        }
        labels = {f"s{i}": "b" if p else "a" for i, p in enumerate(positive)}
        names = list(bags)
        settings = TrainSettings(epochs=8, batch_size=32, n_threads=1, seed=seed)
        model = fit_model(bags, labels, train=names[:1000], val=names[1000:1200], classes=("a", "b"), settings=settings)
        scores = np.array([np.diff(model.predict(bags[name]).logits)[0] for name in names[1200:]])
        found.append(find_intercept(scores, positive[1200:]))
    assert np.mean(found) == pytest.approx(0, abs=0.25)  # one run varies by 0.2; left in, the weights give -1.39


def find_intercept(scores: NDArray[np.float64], positive: NDArray[np.bool_]) -> float:
    """Find what must be added to all log-odds for the mean probability to be the prevalence."""
    low, high = -5.0, 5.0
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if (1 / (1 + np.exp(-scores - middle))).mean() < positive.mean() else (low, middle)
    return low


def test_half_precision_bags_train_as_well(small_cohort: SmallCohort) -> None:
    halves = {name: bag.astype(np.float16) for name, bag in small_cohort.bags.items()}
    for bag in halves.values():
        bag.setflags(write=False)
    model = fit_model(
        halves, small_cohort.labels, train=small_cohort.train, val=small_cohort.val, classes=("a", "b"), settings=QUICK
    )
    assert model.predict(halves[small_cohort.test[0]]).attention.dtype == np.float32


def test_bad_bags_are_refused_by_name(small_cohort: SmallCohort) -> None:
    name = small_cohort.train[3]

    def refuse(bag: NDArray[np.float32], match: str) -> None:
        with pytest.raises(BagError, match=match):
            fit_model(
                {**small_cohort.bags, name: bag},
                small_cohort.labels,
                train=small_cohort.train,
                val=small_cohort.val,
                classes=("a", "b"),
                settings=QUICK,
            )

    poisoned = small_cohort.bags[name].copy()
    poisoned[1, 2] = np.nan
    refuse(poisoned, f"'{name}' has NaN or infinite features in 1 of")
    poisoned[0, 0], poisoned[0, 1] = np.inf, -np.inf
    refuse(poisoned, "in 2 of")
    refuse(np.zeros((0, 11), np.float32), f"'{name}' has shape \\(0, 11\\)")
    refuse(np.zeros((0,), np.float32), "at least one tile")
    refuse(np.zeros((4, 5), np.float32), "has 5 features a tile and that of")
    refuse(np.zeros((4, 11), np.int32), "holds int32")


def test_splits_that_cannot_train_are_refused(small_cohort: SmallCohort) -> None:
    with pytest.raises(CohortError, match="in both train and val"):
        fit(small_cohort, val=small_cohort.train[:1])
    with pytest.raises(CohortError, match="class 'b' has no slide among the 2 of train"):
        fit(small_cohort, train=small_cohort.train[0:4:2])
    with pytest.raises(CohortError, match="has label 'b' and must have one of 'a', 'c'"):
        fit(small_cohort, classes=("a", "c"))
    with pytest.raises(CohortError, match="there is 1 class"):
        fit(small_cohort, classes=("a",))
    with pytest.raises(BagError, match="slide 'absent' has no bag"):
        fit_model(
            small_cohort.bags,
            {**small_cohort.labels, "absent": "a"},
            train=(*small_cohort.train, "absent"),
            val=(),
            classes=("a", "b"),
        )


def test_a_loss_that_leaves_the_finite_numbers_is_said(small_cohort: SmallCohort) -> None:
    with pytest.raises(ModelError, match="left the finite numbers in epoch 1"):
        fit(small_cohort, replace(QUICK, lr=1e30))


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"head": "atention"}, "nearest is 'attention'"),
        ({"epochs": 0}, "epochs is 0"),
        ({"tiles_per_slide": 0}, "tiles_per_slide is 0"),
        ({"lr": float("nan")}, "learning rate is nan"),
        ({"weight_decay": -1.0}, "weight decay is -1.0"),
        ({"dropout": 1.0}, "dropout is 1.0"),
    ],
)
def test_settings_that_cannot_train_are_refused(change: dict[str, object], match: str) -> None:
    with pytest.raises(SettingsError, match=match):
        TrainSettings(**change)  # type: ignore[arg-type]


@pytest.mark.parametrize("device", ["gpu", "meta"])
def test_a_device_that_is_not_there_is_said(small_cohort: SmallCohort, device: str) -> None:
    with pytest.raises(SettingsError, match=f"'{device}'"):
        fit(small_cohort, replace(QUICK, device=device))


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
def test_cuda_without_a_cuda_device_is_said(small_cohort: SmallCohort) -> None:
    with pytest.raises(SettingsError, match="sees no CUDA device"):
        fit(small_cohort, replace(QUICK, device="cuda"))


@pytest.mark.gpu
def test_training_on_cuda_gives_a_model_that_predicts_here(small_cohort: SmallCohort) -> None:
    model = fit(small_cohort, replace(QUICK, device="cuda"))
    assert np.isfinite(model.predict(small_cohort.bags[small_cohort.test[0]]).logits).all()


def test_the_progress_hears_of_each_epoch(small_cohort: SmallCohort) -> None:
    class Listener:
        def __init__(self) -> None:
            self.total: int | None = None
            self.n = 0

        def stage(self, name: str, total: int | None, unit: str) -> "Listener":
            assert (name, unit) == ("train", "epochs")
            self.total = total
            return self

        def say(self, message: str) -> None:
            raise AssertionError(message)

        def __enter__(self) -> "Listener":
            return self

        def __exit__(self, *_: object) -> None:
            return None

        def advance(self, n: int = 1) -> None:
            self.n += n

    listener = Listener()
    fit(small_cohort, progress=listener)
    assert (listener.total, listener.n) == (6, 6)
