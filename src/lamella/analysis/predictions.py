"""Predictions of a cohort, as arrays: what every figure is computed from."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp

from lamella.errors import CohortError, ModelError, SettingsError


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PredictionTable:
    """One row a slide (or, after `average_by_patient`, a patient), each predicted by the model that never saw it.

    Attributes:
        classes: In the order of the columns of `logits`.
        slide_ids: `n` ids, each once.
        patient_ids: Patient of each row.
        labels: True class of each row.
        folds: `(n,)` int64, the round in which the row was tested; all equal for a single test set.
        logits: `(n, C)` float64, class weights taken off.
        batches: Batch of each row, None where not known.
        positive: Class that is looked for, of two; None takes the last of `classes`.

    Raises:
        CohortError: If lengths differ, an id stands twice or a label is not a class.
        ModelError: If a logit is not finite.
        SettingsError: If `positive` is not a class.
    """

    classes: tuple[str, ...]
    slide_ids: tuple[str, ...]
    patient_ids: tuple[str, ...]
    labels: tuple[str, ...]
    folds: NDArray[np.int64]
    logits: NDArray[np.float64]
    batches: tuple[str | None, ...] | None = None
    positive: str | None = None

    def __post_init__(self) -> None:
        """Refuse what does not hang together."""
        n = len(self.slide_ids)
        lengths = {"patient_ids": len(self.patient_ids), "labels": len(self.labels), "folds": len(self.folds)}
        lengths |= {} if self.batches is None else {"batches": len(self.batches)}
        for name, length in lengths.items():
            if length != n:
                raise CohortError(f"predictions have {n} slide_ids but {length} {name}. Give one of each a slide.")
        if self.logits.shape != (n, len(self.classes)):
            raise CohortError(
                f"logits have shape {self.logits.shape} and must have ({n}, {len(self.classes)}): a row a slide, a "
                "column a class. Predict again."
            )
        if len(set(self.slide_ids)) < n:
            twice = next(name for i, name in enumerate(self.slide_ids) if name in self.slide_ids[:i])
            raise CohortError(f"slide '{twice}' is predicted twice. Keep one prediction a slide.")
        if len(set(self.classes)) < max(2, len(self.classes)):
            raise CohortError(
                f"classes are {', '.join(self.classes)} and must be two or more, each once. Look at the labels."
            )
        if self.positive is not None and self.positive not in self.classes:
            raise SettingsError(
                f"positive is '{self.positive}' and must be one of {', '.join(self.classes)}. "
                f"Pass --positive {shlex.quote(self.classes[-1])}."
            )
        self._check_rows()

    def _check_rows(self) -> None:
        """Refuse a label that is no class, and logits that are not finite."""
        for name, label in zip(self.slide_ids, self.labels, strict=True):
            if label not in self.classes:
                raise CohortError(
                    f"slide '{name}' has label '{label}' and must have one of {', '.join(self.classes)}. Correct it."
                )
        for name, row in zip(self.slide_ids, self.logits, strict=True):
            if not np.isfinite(row).all():
                raise ModelError(
                    f"slide '{name}' has logits {row.tolist()}, which are not finite. Train the model again."
                )

    @property
    def targets(self) -> NDArray[np.int64]:
        """Index of each row's class, `(n,)` int64."""
        return np.array([self.classes.index(label) for label in self.labels], dtype=np.int64)

    @property
    def patients(self) -> NDArray[np.int64]:
        """A number for each row's patient, `(n,)` int64."""
        return number_groups(self.patient_ids)

    @property
    def scores(self) -> NDArray[np.float64]:
        """Log-odds of each class against the rest, `(n, C)` float64."""
        return find_log_odds(self.logits)

    @property
    def probabilities(self) -> NDArray[np.float64]:
        """Probability of each class, `(n, C)` float64."""
        return np.asarray(np.exp(self.logits - logsumexp(self.logits, axis=1, keepdims=True)))

    @property
    def positive_index(self) -> int:
        """Column of the positive class."""
        return len(self.classes) - 1 if self.positive is None else self.classes.index(self.positive)

    @property
    def scored_columns(self) -> list[int]:
        """Classes to look at one by one: the positive one of two, else all."""
        return [self.positive_index] if len(self.classes) == 2 else list(range(len(self.classes)))

    @property
    def cross_validated(self) -> bool:
        """Whether rows were tested in more than one round."""
        return len(set(self.folds.tolist())) > 1

    @property
    def mixed_patients(self) -> tuple[str, ...]:
        """Patients whose rows differ in label, sorted."""
        labels: dict[str, set[str]] = {}
        for patient, label in zip(self.patient_ids, self.labels, strict=True):
            labels.setdefault(patient, set()).add(label)
        return tuple(sorted(patient for patient, classes in labels.items() if len(classes) > 1))

    def take(self, rows: Sequence[int] | NDArray[np.int64]) -> "PredictionTable":
        """Return some rows, in the order asked for."""
        places = [int(row) for row in rows]
        return replace(
            self,
            slide_ids=tuple(self.slide_ids[i] for i in places),
            patient_ids=tuple(self.patient_ids[i] for i in places),
            labels=tuple(self.labels[i] for i in places),
            folds=self.folds[places],
            logits=self.logits[places],
            batches=None if self.batches is None else tuple(self.batches[i] for i in places),
        )


def average_by_patient(table: PredictionTable) -> PredictionTable:
    """Return one row a patient: the mean logits of its slides, its id in place of the slide's.

    A patient whose slides lie in several batches has None as batch.

    Raises:
        CohortError: If a patient's slides differ in label or in fold.
    """
    if table.mixed_patients:
        raise CohortError(
            f"patient '{table.mixed_patients[0]}' has slides of several labels, so it has no score of its own. "
            "Measure slides, with errors clustered by patient."
        )
    first: dict[str, list[int]] = {}
    for row, patient in enumerate(table.patient_ids):
        first.setdefault(patient, []).append(row)
    for patient, rows in first.items():
        if len({int(table.folds[row]) for row in rows}) > 1:
            raise CohortError(f"patient '{patient}' is tested in several folds. Run: lamella split COHORT --out NEW")
    averaged = table.take([rows[0] for rows in first.values()])
    batches = None
    if table.batches is not None:
        batch_names = [{table.batches[row] for row in rows} for rows in first.values()]
        batches = tuple(next(iter(names)) if len(names) == 1 else None for names in batch_names)
    logits = np.array([table.logits[rows].mean(axis=0) for rows in first.values()]).reshape(-1, len(table.classes))
    return replace(averaged, slide_ids=averaged.patient_ids, logits=logits, batches=batches)


def find_log_odds(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the log-odds of each class against the rest, `(n, C)`, from logits `(n, C)`.

    Unlike a logit it does not depend on what was added to all logits of a row, so rows can be compared.

    Example:
        >>> find_log_odds(np.array([[1.0, 3.0], [11.0, 13.0]])).tolist()
        [[-2.0, 2.0], [-2.0, 2.0]]
    """
    if logits.shape[1] == 2:
        difference = logits[:, 1] - logits[:, 0]
        return np.stack([-difference, difference], axis=1)
    odds = np.empty_like(logits, dtype=np.float64)
    for column in range(logits.shape[1]):
        rest = np.delete(logits, column, axis=1)
        odds[:, column] = logits[:, column] - logsumexp(rest, axis=1)
    return odds


def number_groups(names: Sequence[str]) -> NDArray[np.int64]:
    """Number names in order of appearance, `(n,)` int64.

    Example:
        >>> number_groups(["b", "a", "b"]).tolist()
        [0, 1, 0]
    """
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(name, len(numbers)) for name in names], dtype=np.int64)
