"""Training that cannot begin, and tables of predictions that cannot be measured."""

from tests.gallery.case import CUT, TRAIN, Case, Step
from tests.gallery.scenes.slides import draw_mostly_unreadable, draw_unreadable
from tests.gallery.scenes.tables import write_cohort, write_predictions, write_table

STEP = Step(
    title="Training and results",
    cases=(
        Case(
            heading="An option is given twice",
            command="split slides.csv --out folds.csv --label-col label --label-col grade",
            scene=lambda: write_cohort("slides.csv", n_slides=12),
            why="The last would win, and nothing would say so.",
            names="--label-col",
        ),
        Case(
            heading="No head has that name",
            command=f"{TRAIN} --head atention",
            exit_code=2,
            scene=lambda: write_cohort("slides.csv", n_slides=12),
            names="atention",
            why="The head pools a slide's tiles into one prediction.",
        ),
        Case(
            heading="A learning rate that cannot be",
            command=f"{TRAIN} --lr nan",
            scene=lambda: write_cohort("slides.csv", n_slides=12),
            names="learning rate",
            why="The default suits most cohorts.",
        ),
        Case(
            heading="A sensitivity that cannot be",
            command=f"{TRAIN} --sensitivity 95",
            scene=lambda: write_cohort("slides.csv", n_slides=12),
            names="sensitivity",
            why="A share, not per cent.",
        ),
        Case(
            heading="None of the slides could be done",
            command=f"run slides.csv {CUT} --encoder mine.py:build --folds 3 --out run",
            scene=draw_unreadable,
            names="6 slides",
            why="`run/features/failures.csv` has the reason for each.",
        ),
        Case(
            heading="Too many slides of a class could not be done",
            command=f"run slides.csv {CUT} --encoder mine.py:build --folds 3 --seeds 1 --epochs 1 --out run",
            scene=draw_mostly_unreadable,
            names="malignant",
            why="The other slides' bags are kept: mend the slides and run the same command again.",
        ),
        Case(
            heading="A table of predictions lacks a column",
            command="measure predictions.csv",
            scene=lambda: write_table("predictions.csv", "slide_id,prob_benign,prob_malignant", "S-0412,0.2,0.8"),
            names="label",
            why="Predictions are measured against labels.",
        ),
        Case(
            heading="A prediction is not a number",
            command="measure predictions.csv",
            scene=lambda: write_predictions('S-0412,benign,"0,8","0,2"'),
            names="predictions.csv",
            why="Some spreadsheets write a comma for the decimal point.",
        ),
        Case(
            heading="Probabilities do not add up to 1",
            command="measure predictions.csv",
            scene=lambda: write_predictions("S-0412,benign,0.8,0.8"),
            names="row 2",
            why="Softmax was not applied, or a class is missing.",
        ),
        Case(
            heading="A slide is predicted twice",
            command="measure predictions.csv",
            scene=lambda: write_predictions("S-0412,benign,0.8,0.2", "S-0412,benign,0.7,0.3"),
            names="S-0412",
            why="Average the predictions of several models first.",
        ),
        Case(
            heading="A label is no class of the columns",
            command="measure predictions.csv",
            scene=lambda: write_predictions("S-0412,tumour,0.8,0.2"),
            names="tumour",
            why="Labels and column names must match exactly.",
        ),
        Case(
            heading="Probabilities are given in per cent",
            command="measure predictions.csv",
            scene=lambda: write_predictions("S-0412,benign,80%,20%"),
            names="80%",
            why="Probabilities are fractions from 0 to 1.",
        ),
    ),
)
