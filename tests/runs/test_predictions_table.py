"""A table of predictions from anywhere: read as it stands, or refused in a line that names the cell."""

from pathlib import Path

import numpy as np
import pytest

from lamella.errors import CohortError
from lamella.reports.summary import list_remarks, summarise_run
from lamella.runs.measure import measure_table
from lamella.runs.metrics import Metrics
from lamella.runs.predictions_table import load_predictions

HEAD = "slide_id,label,fold,prob_a,prob_b\n"
GOOD = HEAD + "s1,a,0.0,0.9,0.1\ns2,b,0,0.2,0.8\n"


def write(folder: Path, content: str | bytes, name: str = "p.csv") -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


@pytest.mark.parametrize(
    "content",
    [
        GOOD,
        "\ufeff" + GOOD,
        GOOD.encode("utf-16"),
        GOOD.replace(",", ";"),
        GOOD.replace(",", "\t"),
        "sep=;\n" + GOOD.replace(",", ";"),
        GOOD.replace("\n", "\r\n"),
    ],
)
def test_every_form_of_table_gives_the_same_predictions(tmp_path: Path, content: str | bytes) -> None:
    table = load_predictions(write(tmp_path, content))
    np.testing.assert_allclose(table.probabilities, [[0.9, 0.1], [0.2, 0.8]])
    assert (table.classes, table.labels, table.folds.tolist()) == (("a", "b"), ("a", "b"), [0, 0])


WRONG = {
    "per cent": (
        "s1,a,0,90,10\n",
        "'prob_a' in row 2 is 90 and a probability from 0 to 1 is needed. If the column holds",
    ),
    "a per cent sign": ("s1,a,0,90%,10%\n", "is '90%', per cent, and a share from 0 to 1 is needed. Divide by 100."),
    "logits named prob": ("s1,a,0,-2.5,2.5\n", "is -2.5 and a probability from 0 to 1 is needed. Name logits"),
    "a decimal comma": ('s1,a,0,"0,9","0,1"\n', "is '0,9', which is not a number. Write 0.9, with a decimal point."),
    "NaN": ("s1,a,0,nan,0.1\n", "is 'nan' and a finite number is needed"),
    "infinity": ("s1,a,0,0.9,inf\n", "is 'inf' and a finite number is needed"),
    "nothing": ("s1,a,0,,0.1\n", "'prob_a' in row 2 is '', which is not a number"),
    "sums": ("s1,a,0,0.9,0.3\n", "the probabilities in row 2 add up to 1.2 and must add up to 1 (1 such row)"),
    "twice": ("s1,a,0,0.9,0.1\ns1,a,0,0.9,0.1\n", "slide 's1' stands in rows 2 and 3"),
    "more cells": ("s1,a,0,0.9,0.1,7\n", "has 6 cells in row 2 and 5 columns"),
    "another label": ("s1,c,0,0.9,0.1\n", "label 'c' in row 2 is no class of the columns, which are prob_a, prob_b"),
    "a label in capitals": ("s1,A,0,0.9,0.1\n", "label 'A' in row 2 is no class"),
    "half a fold": ("s1,a,0.5,0.9,0.1\n", "'fold' in row 2 is '0.5'"),
    "no label": ("s1,NA,0,0.9,0.1\n", "'label' is 'NA' in row 2"),
    "ids alike": ("s1,a,0,0.9,0.1\nS1,b,0,0.2,0.8\n", "'s1' and 'S1', which differ in capitals only"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_cell_that_cannot_be_used_is_named(tmp_path: Path, case: str) -> None:
    rows, message = WRONG[case]
    with pytest.raises(CohortError) as error:
        load_predictions(write(tmp_path, HEAD + rows))
    assert message in str(error.value)
    assert str(error.value).startswith("predictions 'p.csv'")


def test_json_and_one_column_of_scores_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CohortError, match="holds JSON"):
        load_predictions(write(tmp_path, '[{"slide_id": "s1"}]'))
    with pytest.raises(CohortError, match="one column of scores, 'prob_b'"):
        load_predictions(write(tmp_path, "slide_id,label,prob_b\ns1,b,0.5\n"))


def test_an_auc_in_reverse_is_said_and_chance_is_not(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    truth = rng.random(80) < 0.4
    score = np.clip(0.5 - 0.3 * (truth - 0.5) + rng.normal(0, 0.1, 80), 0.01, 0.99)

    def measured(scores: np.ndarray) -> Metrics:
        rows = [
            f"s-{i}x,{'ab'[int(t)]},0,{1 - p:.6f},{p:.6f}" for i, (t, p) in enumerate(zip(truth, scores, strict=True))
        ]
        return measure_table(write(tmp_path, HEAD + "\n".join(rows)))

    (remark,) = list_remarks(measured(score))
    assert "rank the slides in reverse" in remark
    assert "'b' is the class meant to be positive" in remark
    assert list_remarks(measured(1 - score)) == []
    assert list_remarks(measured(rng.random(80))) == []


def test_three_classes_have_no_positive_one_and_the_auc_says_what_it_averages(tmp_path: Path) -> None:
    rows = [f"s-{i}x,{'abc'[i % 3]},0,{'0.8,0.1,0.1' if i % 3 == 0 else '0.1,0.5,0.4'}" for i in range(12)]
    table = write(tmp_path, "slide_id,label,fold,prob_a,prob_b,prob_c\n" + "\n".join(rows))
    metrics = measure_table(table)
    assert metrics.positive is None
    assert summarise_run(metrics)[0]["what"] == "model (mean of one-vs-rest AUCs)"
