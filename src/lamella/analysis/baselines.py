"""Baselines: what simple vectors, or the batch alone, predict on the same folds. No pixels are read here.

All return logits `(C,)` a slide that hold at the training prevalence, as a model's do, so that `measure` reads both.
"""

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from lamella.errors import BagError, CohortError

Floats = NDArray[np.float64]


def predict_from_vectors(
    vectors: Mapping[str, NDArray[np.floating]],
    labels: Mapping[str, str],
    *,
    train: Sequence[str],
    test: Sequence[str],
    classes: Sequence[str],
    penalty: float = 1.0,
) -> dict[str, Floats]:
    """Predict slides by logistic regression on one vector a slide (its colour, its area).

    Vectors are standardised on `train`; classes are balanced in the loss and the weights are taken off the logits.

    Args:
        vectors: `(d,)` a slide, all of one length.
        labels: Class of each slide of `train`.
        train: Slides to learn from; each class must be among them.
        test: Slides to predict.
        classes: In the order of the logits.
        penalty: Strength of the ridge penalty; scikit-learn's default.

    Returns:
        Per test slide its logits `(C,)` float64.

    Raises:
        BagError: If a vector is missing, not finite or of another length.
        CohortError: If a class is missing from `train`.
    """
    _check_classes(labels, train, classes)
    if not test:
        return {}
    x_train, x_test = (_stack(vectors, names) for names in (train, test))
    if x_train.shape[1] != x_test.shape[1]:
        raise BagError(
            f"vectors of test slides have {x_test.shape[1]} values, of train {x_train.shape[1]}. Measure all alike."
        )
    scaler = StandardScaler().fit(x_train)
    targets = np.array([list(classes).index(labels[name]) for name in train])
    model = LogisticRegression(C=1.0 / penalty, class_weight="balanced", max_iter=5000)
    model.fit(scaler.transform(x_train), targets)
    scores = np.asarray(model.decision_function(scaler.transform(x_test)), dtype=np.float64)
    logits = np.stack([np.zeros_like(scores), scores], axis=1) if scores.ndim == 1 else scores
    counts = np.bincount(targets, minlength=len(classes))
    logits = logits - np.log(len(targets) / (len(classes) * counts))
    return dict(zip(test, logits, strict=True))


def predict_from_batches(
    batches: Mapping[str, str | None],
    labels: Mapping[str, str],
    *,
    train: Sequence[str],
    test: Sequence[str],
    classes: Sequence[str],
) -> dict[str, Floats]:
    """Predict slides by the training prevalence of their batch: what knowing the batch alone gives away.

    One slide of the overall prevalence is added to each batch, so that a batch of one class is not infinitely sure,
    and a batch that training never saw has just the overall prevalence.

    Args:
        batches: Batch of each slide; None or absent is a batch never seen.
        labels: Class of each slide of `train`.
        train: Slides to learn from; each class must be among them.
        test: Slides to predict.
        classes: In the order of the logits.

    Returns:
        Per test slide its logits `(C,)` float64.

    Raises:
        CohortError: If a class is missing from `train`.

    Example:
        Half of training is malignant, all of batch "x":

        >>> found = predict_from_batches(
        ...     {"1": "x", "2": "y", "3": "x", "4": "z"}, {"1": "malignant", "2": "benign"},
        ...     train=["1", "2"], test=["3", "4"], classes=["benign", "malignant"])
        >>> np.exp(found["3"]).round(2).tolist(), np.exp(found["4"]).round(2).tolist()
        ([0.25, 0.75], [0.5, 0.5])
    """
    _check_classes(labels, train, classes)
    overall = Counter(labels[name] for name in train)
    shares = np.array([overall[name] / len(train) for name in classes])
    seen: dict[str, Counter[str]] = {}
    for name in train:
        batch = batches.get(name)
        if batch is not None:
            seen.setdefault(batch, Counter())[labels[name]] += 1
    logits = {}
    for name in test:
        of_batch = seen.get(batches.get(name) or "", Counter())
        counts = np.array([of_batch[label] for label in classes])
        logits[name] = np.log((counts + shares) / (counts.sum() + 1))
    return logits


def _check_classes(labels: Mapping[str, str], train: Sequence[str], classes: Sequence[str]) -> None:
    """Refuse training slides without a label of `classes`, and a class without training slides."""
    for name in train:
        if labels.get(name) not in classes:
            raise CohortError(
                f"slide '{name}' has label '{labels.get(name)}' and must have one of {', '.join(classes)}. Correct it."
            )
    missing = sorted(set(classes) - {labels[name] for name in train})
    if missing:
        raise CohortError(
            f"class '{missing[0]}' has no slide among the {len(train)} of train. Use fewer folds, or other splits."
        )


def _stack(vectors: Mapping[str, NDArray[np.floating]], names: Sequence[str]) -> Floats:
    """Stack the vectors of some slides, `(n, d)` float64."""
    rows: list[Floats] = []
    for name in names:
        if name not in vectors:
            raise BagError(f"slide '{name}' has no vector. Measure it, or leave the slide out.")
        row = np.asarray(vectors[name], dtype=np.float64).reshape(-1)
        if not np.isfinite(row).all():
            raise BagError(
                f"the vector of slide '{name}' is {row.tolist()} and must be finite. Measure the slide again."
            )
        if rows and len(row) != len(rows[0]):
            raise BagError(
                f"the vector of slide '{name}' has {len(row)} values and that of '{names[0]}' {len(rows[0])}. "
                "Measure all alike."
            )
        rows.append(row)
    return np.array(rows)
