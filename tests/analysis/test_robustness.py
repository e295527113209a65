"""How far features and scores follow the batch."""

import numpy as np
import pytest

from lamella.analysis.robustness import find_batch_gap, find_robustness_index


def draw(shift_label: float, shift_batch: float, *, n: int = 120, slides: int = 2, seed: int = 0):
    """Return features, labels, batches and patients whose first two directions are label and batch."""
    rng = np.random.default_rng(seed)
    patients = np.arange(n) // slides
    label, batch = rng.permutation(n) % 2, rng.permutation(n) % 3
    features = rng.normal(size=(n, 8))
    features[:, 0] += shift_label * (2 * label - 1)
    features[np.arange(n), 1 + batch] += shift_batch
    return features, label, batch, patients


def test_the_index_is_that_of_a_double_loop() -> None:
    features, label, batch, patients = draw(1.0, 1.5)
    for k in (1, 5, 11):
        so = os = 0
        for i in range(len(label)):
            cosine = features @ features[i] / np.linalg.norm(features, axis=1) / np.linalg.norm(features[i])
            others = sorted((j for j in range(len(label)) if patients[j] != patients[i]), key=lambda j: -cosine[j])
            so += sum(label[j] == label[i] and batch[j] != batch[i] for j in others[:k])
            os += sum(label[j] != label[i] and batch[j] == batch[i] for j in others[:k])
        found = find_robustness_index(features, label, batch, patients, k=k)
        assert (found.n_same_label, found.n_same_batch) == (so, os)
        assert found.value == pytest.approx(so / (so + os))


def test_features_of_the_label_are_robust_and_features_of_the_batch_are_not() -> None:
    label, batch = (find_robustness_index(*draw(*shifts), k=11).value for shifts in ((6.0, 0.0), (0.0, 12.0)))
    assert label is not None
    assert batch is not None
    assert label > 0.95
    assert batch < 0.05


def test_without_a_neighbour_of_either_kind_there_is_no_index() -> None:
    features, label, _, patients = draw(1.0, 0.0, n=8)
    assert find_robustness_index(features, label, label, patients, k=3).value is None  # batch and label are one
    few = find_robustness_index(features[:3], label[:3], np.arange(3), np.arange(3), k=11)
    assert few.k == 3


def test_a_reader_of_batches_loses_its_auc_within_batches() -> None:
    rng = np.random.default_rng(1)
    label = np.arange(400) % 2
    batch = np.where(rng.random(400) < 0.8, label, 1 - label)
    folds = rng.permutation(400) % 5
    gaps = []
    for score in (3.0 * batch + rng.normal(size=400), 1.5 * label + rng.normal(size=400)):
        found = find_batch_gap(np.stack([np.zeros(400), score], axis=1), label, folds, batch)
        assert found is not None
        gaps.append(found)
    assert gaps[0][0] > 0.15
    assert gaps[0][0] > 4 * gaps[0][1]
    assert abs(gaps[1][0]) < 3 * gaps[1][1]
    assert find_batch_gap(np.zeros((4, 2)), np.array([0, 0, 1, 1]), np.zeros(4, int), np.array([0, 0, 1, 1])) is None
