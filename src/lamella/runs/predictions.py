"""Predictions as one long table, made once: a row a slide, model and side; files, tables and figures derive from it.

    [arm], slide_id, patient_id, label, batch, fold, seed, side, logit_<class>...

`seed` is that of the model; a study says which `arm`.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lamella.analysis.predictions import PredictionTable
from lamella.files import write_table
from lamella.mil.prediction import SlidePrediction

_COLUMNS = ("slide_id", "patient_id", "label", "batch", "fold", "seed", "side")
_SPREAD = {"sd": "sd", "min": "low", "max": "high"}
_UNLIKE = ("mpp", "colour", "embedding")


def tabulate(predictions: Iterable[SlidePrediction], classes: Sequence[str]) -> pd.DataFrame:
    """Return the long table of predictions, in their order.

    Args:
        predictions: Each told which slide it is of.
        classes: In the order of the logits.
    """
    rows = [
        {name: getattr(prediction, name) for name in _COLUMNS} | _name("logit", classes, prediction.logits)
        for prediction in predictions
    ]
    return pd.DataFrame(rows, columns=[*_COLUMNS, *(f"logit_{name}" for name in classes)])


def average_models(table: pd.DataFrame, classes: tuple[str, ...], positive: str | None) -> PredictionTable:
    """Return one row a slide, in order of appearance: the mean logits over its rows.

    Args:
        table: Rows of one side; of each slide, one a model.
        classes: In the order of the logits.
        positive: The class that is scored; it is passed on of two classes alone.
    """
    rows: dict[str, list[int]] = {}
    for number, slide_id in enumerate(table["slide_id"]):
        rows.setdefault(slide_id, []).append(number)
    first = table.iloc[[numbers[0] for numbers in rows.values()]]
    logits = np.ascontiguousarray(table[[f"logit_{name}" for name in classes]], dtype=np.float64)
    means = [logits[numbers].mean(axis=0) for numbers in rows.values()]
    batches = tuple(None if pd.isna(batch) else str(batch) for batch in first["batch"])
    return PredictionTable(
        classes=classes,
        slide_ids=tuple(first["slide_id"]),
        patient_ids=tuple(first["patient_id"]),
        labels=tuple(str(label) for label in first["label"]),
        folds=first["fold"].to_numpy(np.int64),
        logits=np.array(means, dtype=np.float64).reshape(len(rows), len(classes)),
        batches=batches if any(batch is not None for batch in batches) else None,
        positive=positive if len(classes) == 2 else None,
    )


def save_predictions(predictions: Sequence[SlidePrediction], classes: Sequence[str], path: Path) -> None:
    """Write `slide_id, patient_id, label, fold, prob_<class>..., logit_<class>...`, one row a slide.

    New slides have `sd_<class>..., min_<class>..., max_<class>...` too, the spread of the probability over folds, and
    where it is known what slides of training look like, `unlike_mpp, unlike_colour, unlike_embedding` (1 or 0) and
    `unlike`, the reasons.
    """
    names = [f"{kind}_{name}" for kind in ("prob", "logit") for name in classes]
    table = pd.DataFrame([_describe(prediction, classes) for prediction in predictions], dtype=object)
    columns = list(table.columns) or ["slide_id", "patient_id", "label", "fold", *names]
    save_table(table, columns, path, digits=6)


def save_table(table: pd.DataFrame, columns: Sequence[str], path: Path, *, digits: int | None = None) -> None:
    """Write columns of a table as CSV; an absent value is an empty cell.

    Args:
        table: Rows.
        columns: Which, and in which order.
        path: The file.
        digits: After the point; None writes every digit that a number has.
    """
    write_table(
        path,
        columns,
        [
            {name: _write_cell(value, digits) for name, value in zip(columns, row, strict=True)}
            for row in table.reindex(columns=list(columns)).itertuples(index=False, name=None)
        ],
    )


def _write_cell(value: Any, digits: int | None) -> Any:
    if isinstance(value, float) and not np.isnan(value):
        return repr(value) if digits is None else f"{value:.{digits}f}"
    return "" if pd.isna(value) else value


def _describe(prediction: SlidePrediction, classes: Sequence[str]) -> dict[str, str | float | None]:
    row: dict[str, str | float | None] = {
        name: getattr(prediction, name) for name in ("slide_id", "patient_id", "label", "fold")
    }
    row |= _name("prob", classes, prediction.probabilities) | _name("logit", classes, prediction.logits)
    if prediction.spread is not None:
        for name, field in _SPREAD.items():
            row |= _name(name, classes, getattr(prediction.spread, field))
    if prediction.unlike is not None:
        row |= {f"unlike_{name}": int(bool(getattr(prediction.unlike, name))) for name in _UNLIKE}
        row["unlike"] = "; ".join(prediction.unlike.reasons)
    return row


def _name(what: str, classes: Sequence[str], values: Iterable[float]) -> dict[str, float]:
    return {f"{what}_{name}": float(value) for name, value in zip(classes, values, strict=True)}
