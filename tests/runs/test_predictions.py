"""The long table of predictions, and what is made of it."""

import csv
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lamella.cohort import CohortSlide
from lamella.mil.prediction import SlidePrediction, Spread, Unlike, average_predictions, make_prediction
from lamella.runs.predictions import average_models, save_predictions, save_table, tabulate

CLASSES = ("benign", "malignant")


def predict(slide_id: str, logits: tuple[float, float], **where: object) -> SlidePrediction:
    label = CLASSES[int(slide_id[-1]) % 2]
    slide = CohortSlide(slide_id=slide_id, path=Path(slide_id), patient_id=f"P{slide_id}", label=label, batch="b1")
    return make_prediction(np.array(logits), np.ones(3)).of(slide, **where)


def read(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def test_the_long_table_has_a_row_a_slide_model_and_side_in_the_order_given() -> None:
    predictions = [predict("S2", (0.5, 1), fold=1, seed=0), predict("S1", (2, 3), fold=0, seed=4, side="val")]
    table = tabulate(predictions, CLASSES)
    assert list(table.columns) == [
        *("slide_id", "patient_id", "label", "batch", "fold", "seed", "side", "logit_benign", "logit_malignant")
    ]
    assert table.values.tolist() == [
        ["S2", "PS2", "benign", "b1", 1, 0, "test", 0.5, 1.0],
        ["S1", "PS1", "malignant", "b1", 0, 4, "val", 2.0, 3.0],
    ]


def test_models_are_averaged_by_slide_in_order_of_appearance() -> None:
    said = (("S2", (1, 5), 1), ("S1", (0, 1), 0), ("S2", (3, 8), 1))
    table = average_models(tabulate([predict(i, z, fold=fold) for i, z, fold in said], CLASSES), CLASSES, "malignant")
    assert (table.slide_ids, table.folds.tolist(), table.batches) == (("S2", "S1"), [1, 0], ("b1", "b1"))
    assert table.logits.tolist() == [[2, 6.5], [0, 1]]
    assert table.positive == "malignant"


def test_of_no_predictions_the_tables_are_empty() -> None:
    table = tabulate([], CLASSES)
    assert len(table) == 0
    assert average_models(table, CLASSES, None).logits.shape == (0, 2)


def test_a_batch_that_is_not_known_is_none_and_not_a_number() -> None:
    table = tabulate([predict("S2", (0, 1)), predict("S1", (0, 1))], CLASSES)
    table["batch"] = pd.Series(["b1", None])
    assert average_models(table, CLASSES, None).batches == ("b1", None)


def test_the_mean_of_models_is_of_their_slide_and_of_no_seed() -> None:
    mean = average_predictions([predict("S1", (0, 2), fold=3, seed=seed, side="val") for seed in (0, 1)])
    assert (mean.slide_id, mean.label, mean.fold, mean.side, mean.seed) == ("S1", "malignant", 3, "val", None)
    assert mean.attention.tolist() == pytest.approx([1 / 3] * 3)


def test_predictions_are_written_with_six_digits_and_what_new_slides_have_besides(tmp_path: Path) -> None:
    plain = predict("S1", (0, np.log(3)), fold=2)
    save_predictions([plain], CLASSES, tmp_path / "own.csv")
    row = {"slide_id": "S1", "patient_id": "PS1", "label": "malignant", "fold": "2", "prob_benign": "0.250000"}
    row |= {"prob_malignant": "0.750000", "logit_benign": "0.000000", "logit_malignant": "1.098612"}
    assert read(tmp_path / "own.csv") == [row]
    half = np.array([0.5, 0.5])
    unlike = Unlike(colour="stained otherwise", embedding="seen otherwise")
    new = SlidePrediction(
        logits=half,
        probabilities=half,
        attention=np.ones(1, np.float32),
        slide_id="N",
        patient_id="N",
        spread=Spread(sd=half / 2, low=half / 4, high=half * 2),
        unlike=unlike,
    )
    save_predictions([new], CLASSES, tmp_path / "new.csv")
    (row,) = read(tmp_path / "new.csv")
    assert (row["label"], row["sd_benign"], row["min_benign"], row["max_malignant"]) == (
        *("", "0.250000", "0.125000", "1.000000"),
    )
    assert [row[f"unlike_{name}"] for name in ("mpp", "colour", "embedding")] == ["0", "1", "1"]
    assert row["unlike"] == "stained otherwise; seen otherwise"


def test_a_table_without_rows_has_its_header_all_the_same(tmp_path: Path) -> None:
    save_predictions([], CLASSES, tmp_path / "none.csv")
    assert (tmp_path / "none.csv").read_text().startswith("slide_id,patient_id,label,fold,prob_benign")


def test_without_a_number_of_digits_every_digit_is_written(tmp_path: Path) -> None:
    value = 0.1 + 0.2
    table = tabulate([predict("S1", (value, -1e-9))], CLASSES)
    save_table(table, ["slide_id", "seed", "logit_benign", "logit_malignant"], tmp_path / "all.csv")
    assert read(tmp_path / "all.csv") == [
        {"slide_id": "S1", "seed": "", "logit_benign": repr(value), "logit_malignant": "-1e-09"}
    ]
