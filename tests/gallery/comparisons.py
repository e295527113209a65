"""Predictions of other tools that cannot be compared."""

from tests.gallery.case import Case, Step
from tests.gallery.scenes.tables import write_table

_HEAD = "patient_id,label,fold,prob_a,prob_b"
_GOOD = [f"p{i},{'ab'[i % 2]},{i // 2 % 3},0.{3 + i % 2},0.{7 - i % 2}" for i in range(12)]


_OTHER_FOLDS = [row.replace(f",{i // 2 % 3},", f",{i // 4},") for i, row in enumerate(_GOOD)]


def _write_two(*second: str) -> None:
    write_table("a.csv", _HEAD, *_GOOD)
    write_table("b.csv", *(second or (_HEAD, *_GOOD)))


STEP = Step(
    title="Comparing predictions",
    cases=(
        Case(
            heading="There is one table",
            command="compare a.csv --out compared",
            scene=lambda: write_table("a.csv", _HEAD, *_GOOD),
            names="nothing to compare it with",
            why="Each table is an arm; a table with a column `arm` holds several.",
        ),
        Case(
            heading="A table holds per cent",
            command="compare a.csv b.csv --out compared",
            scene=lambda: _write_two(_HEAD, "p0,a,0,30,70", "p1,b,0,60,40"),
            names="per cent",
            why="Probabilities are shares from 0 to 1.",
        ),
        Case(
            heading="Folds divide patients differently",
            command="compare a.csv b.csv --out compared",
            scene=lambda: _write_two(
                _HEAD, *(row.replace(f",{i // 2 % 3},", f",{i // 4},") for i, row in enumerate(_GOOD))
            ),
            names="different folds",
            why="AUCs are compared over pairs of patients of the same fold. Models of other folds learned from "
            "other patients; give both tools the same folds (`lamella split`).",
        ),
        Case(
            heading="Tables speak of different classes",
            command="compare a.csv b.csv --out compared",
            scene=lambda: _write_two(_HEAD.replace("prob_b", "prob_c"), *(row.replace(",b,", ",c,") for row in _GOOD)),
            names="different classes",
            why="Labels and columns are matched by name.",
        ),
        Case(
            heading="A table has no scores",
            command="compare a.csv b.csv --out compared",
            scene=lambda: _write_two("patient_id,label,pred", "p0,a,a", "p1,b,b"),
            names="no scores that are known",
            why="A predicted class alone has no AUC.",
        ),
        Case(
            heading="A label is another one in the table of patients",
            command="compare a.csv b.csv --patients patients.csv --out compared",
            scene=lambda: (_write_two(), write_table("patients.csv", "patient_id,label", "p0,b")),
            names="in the table of patients",
            why="One of the two is wrong, and Lamella does not choose.",
        ),
        Case(
            heading="An arm has no cost",
            command="compare a.csv b.csv --costs costs.csv --out compared",
            scene=lambda: (_write_two(), write_table("costs.csv", "arm,seconds_a_slide", "a,1.5")),
            names="no cost of arm 'b'",
            why="Which arm is the cheapest cannot be said of some alone.",
        ),
    ),
)
