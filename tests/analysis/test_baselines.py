"""Baselines: learn from train alone, hold at the training prevalence."""

import numpy as np
import pytest

from lamella.analysis.baselines import predict_from_batches, predict_from_vectors
from lamella.errors import BagError, CohortError


def test_vectors_that_tell_are_found_and_weights_are_undone() -> None:
    rng = np.random.default_rng(0)
    names = [f"s{i}" for i in range(400)]
    labels = {name: "rare" if i % 5 == 0 else "common" for i, name in enumerate(names)}
    vectors = {name: 100 + rng.normal(size=4) + 1.5 * (labels[name] == "rare") for name in names}
    found = predict_from_vectors(vectors, labels, train=names[:200], test=names[200:], classes=("common", "rare"))
    assert list(found) == names[200:]
    scores = np.array([found[name][1] - found[name][0] for name in names[200:]])
    rare = np.array([labels[name] == "rare" for name in names[200:]])
    assert (scores[rare][:, None] > scores[~rare]).mean() > 0.9
    assert (1 / (1 + np.exp(-scores))).mean() == pytest.approx(0.2, abs=0.04)


def test_three_classes_have_three_logits() -> None:
    rng = np.random.default_rng(1)
    names = [f"s{i}" for i in range(60)]
    labels = {name: "abc"[i % 3] for i, name in enumerate(names)}
    vectors = {name: rng.normal(size=2) + 4 * np.array([i % 3 == 1, i % 3 == 2]) for i, name in enumerate(names)}
    found = predict_from_vectors(vectors, labels, train=names[:45], test=names[45:], classes=("a", "b", "c"))
    assert np.mean(["abc"[int(found[name].argmax())] == labels[name] for name in names[45:]]) > 0.8


def test_constant_vectors_predict_the_prevalence() -> None:
    names = [f"s{i}" for i in range(10)]
    labels = {name: "b" if i < 3 else "a" for i, name in enumerate(names)}
    found = predict_from_vectors(dict.fromkeys(names, np.ones(2)), labels, train=names, test=["s0"], classes=("a", "b"))
    assert found["s0"][1] - found["s0"][0] == pytest.approx(np.log(3 / 7), abs=1e-3)


def test_a_batch_has_the_prevalence_seen_in_training() -> None:
    batches = {"1": "x", "2": "x", "3": "y", "4": "y", "5": "x", "6": "y", "7": "new", "8": None}
    labels = {"1": "b", "2": "b", "3": "a", "4": "a", "5": "a", "6": "b"}
    found = predict_from_batches(
        batches, labels, train=["1", "2", "3", "4"], test=["5", "6", "7", "8", "9"], classes=("a", "b")
    )
    shares = {name: (np.exp(row) / np.exp(row).sum())[1] for name, row in found.items()}
    assert shares["5"] == pytest.approx(2.5 / 3)
    assert shares["6"] == pytest.approx(0.5 / 3)
    assert shares["7"] == shares["8"] == shares["9"] == pytest.approx(0.5)


def test_bad_input_is_refused_by_name() -> None:
    labels = {"1": "a", "2": "b"}
    good = {"1": np.zeros(2), "2": np.ones(2)}

    def predict(vectors: dict[str, np.ndarray], **changes: object) -> object:
        given: dict[str, object] = {"train": ["1", "2"], "test": ["3"], "classes": ("a", "b")} | changes
        return predict_from_vectors(vectors, labels, **given)  # type: ignore[arg-type]

    with pytest.raises(BagError, match="slide '3' has no vector"):
        predict(good)
    with pytest.raises(BagError, match="vector of slide '3' is"):
        predict({**good, "3": np.array([np.nan, 1])})
    with pytest.raises(BagError, match="3 values, of train 2"):
        predict({**good, "3": np.zeros(3)})
    with pytest.raises(BagError, match="vector of slide '2' has 1 values and that of '1' 2"):
        predict({**good, "2": np.zeros(1)})
    with pytest.raises(CohortError, match="class 'b' has no slide among the 1 of train"):
        predict(good, train=["1"])
    with pytest.raises(CohortError, match="slide '2' has label 'b'"):
        predict_from_batches({}, labels, train=["1", "2"], test=[], classes=("a", "c"))
    assert predict(good, test=[]) == {}
