"""Predictions made from a known logistic model."""

from collections.abc import Callable

import numpy as np
import pytest

from lamella.analysis.predictions import PredictionTable

MakeTable = Callable[..., PredictionTable]


def make_table(
    n: int = 60,
    *,
    n_folds: int = 5,
    classes: tuple[str, ...] = ("benign", "malignant"),
    per_patient: int = 1,
    seed: int = 0,
) -> PredictionTable:
    """Make `n` slides, `per_patient` slides a patient, patients dealt to folds and to three batches."""
    rng = np.random.default_rng(seed)
    patients = np.arange(n) // per_patient
    targets = rng.permutation(np.arange(patients.max() + 1) % len(classes))[patients]
    logits = rng.normal(size=(n, len(classes))) + 1.2 * np.eye(len(classes))[targets]
    return PredictionTable(
        classes=classes,
        slide_ids=tuple(f"s{i:03d}" for i in range(n)),
        patient_ids=tuple(f"p{p:03d}" for p in patients),
        labels=tuple(classes[t] for t in targets),
        folds=patients % n_folds,
        logits=logits,
        batches=tuple("xyz"[p % 3] for p in patients),
    )


@pytest.fixture
def table() -> PredictionTable:
    return make_table()
