"""A table of predictions of any origin, read: which columns count, and what cannot be a score."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lamella.errors import CohortError, ModelError

NEEDED = ("arm", "patient_id", "label")
_TEXTS = (*NEEDED, "slide_id")
_FILLED = (*_TEXTS, "fold", "seed", "side")
_SUM_WITHIN = 0.01


def prepare_frame(predictions: pd.DataFrame) -> pd.DataFrame:
    """Return the test rows with all columns that may be absent.

    Raises:
        CohortError: If it is no table, or a column is missing, named twice or has empty cells.
    """
    _refuse_columns(predictions)
    frame = _keep_tested(predictions.copy())
    for name in _TEXTS:
        if name in frame:
            frame[name] = frame[name].astype(str).str.strip()
    if "slide_id" not in frame:
        frame["slide_id"] = frame["patient_id"]
    frame["fold"] = frame.get("fold", 0)
    frame["seed"] = frame.get("seed", 0)
    twice = frame.duplicated(["arm", "slide_id", "seed"])
    if twice.any():
        row = frame[twice].iloc[0]
        raise CohortError(
            f"arm '{row['arm']}' predicts slide '{row['slide_id']}' twice with seed {row['seed']}. Keep one row an "
            "arm, slide and seed."
        )
    return frame


def _refuse_columns(predictions: pd.DataFrame) -> None:
    """Refuse what is no table, and columns that are missing, named twice or not filled."""
    if not isinstance(predictions, pd.DataFrame):
        kind = type(predictions).__name__
        raise CohortError(f"the predictions are of type {kind}. Give a pandas DataFrame with a row an arm and slide.")
    named_twice = predictions.columns[predictions.columns.duplicated()]
    if len(named_twice):
        raise CohortError(f"the predictions have several columns '{named_twice[0]}'. Keep one.")
    missing = [name for name in NEEDED if name not in predictions]
    if missing:
        raise CohortError(
            f"the predictions have no column '{missing[0]}'. They need {', '.join(NEEDED)} and a score: "
            "logit_<class>, prob_<class> or score."
        )
    for name in _FILLED:
        if (
            name in predictions
            and (predictions[name].isna() | predictions[name].astype(str).str.fullmatch(r"\s*")).any()
        ):
            raise CohortError(f"column '{name}' of the predictions has empty cells. Fill them, or leave the rows out.")


def _keep_tested(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of `side` test."""
    if "side" in frame:
        sides = sorted(set(frame["side"].astype(str)))
        frame = frame[frame["side"] == "test"].copy()
        if frame.empty and sides:
            said = ", ".join(sides)
            raise CohortError(
                f"column 'side' of the predictions holds {said}; only rows of 'test' count. Call them so."
            )
    if frame.empty:
        raise CohortError("the predictions hold no row of a test slide. Give a row an arm and slide.")
    return frame


def find_logits(frame: pd.DataFrame, classes: Sequence[str] | None, positive: str | None) -> list[str]:
    """Give the frame `logit_<class>` columns; return the classes in their order.

    Raises:
        CohortError: If columns and labels do not go together, or probabilities are none.
        ModelError: If a score is not finite.
    """
    kind = next((k for k in ("logit_", "prob_") if any(str(c).startswith(k) for c in frame.columns)), None)
    if kind is None and "score" not in frame:
        raise CohortError(
            "the predictions have no score. Give a column logit_<class> or prob_<class> a class, or score."
        )
    labels = sorted(set(frame["label"]))
    if len(labels) < 2:
        raise CohortError(f"all patients are '{labels[0]}', and two classes are needed. Add patients of another class.")
    if kind is None:
        names = list(classes or labels)
        _refuse_positive(positive, names)
        if len(names) != 2:
            raise CohortError(
                f"a column 'score' speaks of two classes and the labels are {', '.join(names)}. Give prob_<class> for "
                "each class."
            )
        last = positive or names[-1]
        names = [name for name in names if name != last] + [last]
        values = np.stack([np.zeros(len(frame)), _read_numbers(frame, "score")], axis=1)
    else:
        columns = [str(c).removeprefix(kind) for c in frame.columns if str(c).startswith(kind)]
        names = list(classes or sorted(columns))
        unknown = [label for label in labels if label not in names] + [name for name in names if name not in columns]
        if unknown or len(names) < 2:
            raise CohortError(
                f"the predictions have columns for {', '.join(columns)} and labels {', '.join(labels)}. Give one "
                f"column {kind}<class> for every label."
            )
        _refuse_positive(positive, names)
        values = np.stack([_read_numbers(frame, f"{kind}{name}") for name in names], axis=1)
        if kind == "prob_":
            _refuse_no_probabilities(frame, values, names)
            values = np.log(np.clip(values, np.finfo(np.float64).tiny, 1))
    bad = ~np.isfinite(values).all(axis=1)
    if bad.any():
        row = frame[bad].iloc[0]
        raise ModelError(
            f"arm '{row['arm']}' gives slide '{row['slide_id']}' a score that is not finite. Predict it again, or "
            "leave it out."
        )
    frame[[f"logit_{name}" for name in names]] = values
    return names


def _read_numbers(frame: pd.DataFrame, name: str) -> NDArray[np.float64]:
    """Return a column `(n,)` float64."""
    if not np.iscomplexobj(frame[name].to_numpy()):
        numbers = pd.to_numeric(frame[name], errors="coerce")
        odd = numbers.isna() & frame[name].notna()
        if not odd.any():
            return numbers.to_numpy(np.float64)
        raise CohortError(
            f"column '{name}' of the predictions holds {str(frame[name][odd].iloc[0])!r}, which is no number. Write "
            "numbers with a point."
        )
    raise CohortError(f"column '{name}' of the predictions holds complex numbers. Give real ones.")


def _refuse_positive(positive: str | None, names: Sequence[str]) -> None:
    if positive is not None and positive not in names:
        raise CohortError(f"no class is called '{positive}'. Name one of {', '.join(names)} as positive.")


def _refuse_no_probabilities(frame: pd.DataFrame, values: NDArray[np.float64], names: Sequence[str]) -> None:
    """Refuse percentages, and shares that do not sum to 1."""
    with np.errstate(invalid="ignore"):
        outside = ((values < 0) | (values > 1)).any(axis=1)
        unlike = np.abs(values.sum(axis=1) - 1) > _SUM_WITHIN
    for bad, what in ((outside, "is not between 0 and 1"), (unlike, "does not sum to 1 with the others")):
        if bad.any():
            row = int(np.flatnonzero(bad)[0])
            column, slide_id = int(values[row].argmax()), frame["slide_id"].iloc[row]
            raise CohortError(
                f"prob_{names[column]} is {values[row, column]:g} for slide '{slide_id}' and {what}. Give shares that "
                "sum to 1 over the classes, or logit_<class>."
            )
