"""The table of predictions refuses what does not hang together."""

from dataclasses import replace

import numpy as np
import pytest

from lamella.analysis.predictions import PredictionTable, average_by_patient
from lamella.errors import CohortError, LamellaError, ModelError, SettingsError
from tests.analysis.conftest import make_table


def test_a_patient_has_the_mean_logits_of_its_slides() -> None:
    table = make_table(7, per_patient=3, n_folds=2)
    found = average_by_patient(table)
    assert found.slide_ids == ("p000", "p001", "p002")
    np.testing.assert_allclose(found.logits[1], table.logits[3:6].mean(axis=0))
    assert found.folds.tolist() == [0, 1, 0]
    assert found.batches == ("x", "y", "z")


def test_a_patient_in_two_batches_has_none() -> None:
    table = replace(make_table(4, per_patient=2, n_folds=1), batches=("x", "y", "z", "z"))
    assert average_by_patient(table).batches == (None, "z")


def test_patients_of_several_labels_or_folds_have_no_score_of_their_own() -> None:
    table = make_table(4, per_patient=2, n_folds=1)
    mixed = replace(table, labels=("benign", "malignant", "benign", "benign"))
    assert mixed.mixed_patients == ("p000",)
    with pytest.raises(CohortError, match="patient 'p000' has slides of several labels"):
        average_by_patient(mixed)
    with pytest.raises(CohortError, match="patient 'p001' is tested in several folds"):
        average_by_patient(replace(table, folds=np.array([0, 0, 0, 1])))


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"labels": ("benign",)}, CohortError, "4 slide_ids but 1 labels"),
        ({"logits": np.zeros((4, 3))}, CohortError, r"shape \(4, 3\) and must have \(4, 2\)"),
        ({"slide_ids": ("a", "b", "a", "c")}, CohortError, "slide 'a' is predicted twice"),
        ({"labels": ("benign", "odd", "benign", "benign")}, CohortError, "slide 's001' has label 'odd'"),
        ({"logits": np.array([[0, 1], [0, np.nan], [0, 1], [0, 1]])}, ModelError, "slide 's001' has logits"),
        ({"positive": "odd"}, SettingsError, "positive is 'odd'"),
        ({"classes": ("benign", "benign")}, CohortError, "each once"),
    ],
)
def test_what_does_not_hang_together_is_refused(
    change: dict[str, object], error: type[LamellaError], match: str
) -> None:
    with pytest.raises(error, match=match):
        replace(make_table(4), **change)  # type: ignore[arg-type]


def test_scores_and_probabilities_agree(table: PredictionTable) -> None:
    np.testing.assert_allclose(table.probabilities.sum(axis=1), 1)
    np.testing.assert_allclose(table.scores, np.log(table.probabilities / (1 - table.probabilities)), atol=1e-9)
    assert replace(table, positive="benign").positive_index == 0
