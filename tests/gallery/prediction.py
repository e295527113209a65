"""Runs, studies and exported models that cannot predict new slides or be passed on."""

import os
from pathlib import Path

from tests.gallery.case import Case, Step
from tests.gallery.scenes.bags import save_other_bags, train_once
from tests.gallery.scenes.encoders import write_encoder
from tests.gallery.scenes.runs import change_record, save_run
from tests.gallery.scenes.slides import draw_slide
from tests.gallery.scenes.studies import save_undecided_study
from tests.gallery.scenes.tables import cut_short, write_table

STEP = Step(
    title="Predicting new slides",
    cases=(
        Case(
            heading="The folder holds no run",
            command="predict results S-0412.tif --out new",
            scene=lambda: Path("results").mkdir(),
            names="results",
            why="Name the folder itself, not one inside it.",
        ),
        Case(
            heading="The run did not finish",
            command="predict run S-0412.tif --trust mine.py --out new",
            scene=lambda: save_run("run", models=0),
            names="run",
            why="A run that was stopped goes on where it was.",
        ),
        Case(
            heading="The run's settings are damaged",
            command="predict run S-0412.tif --trust mine.py --out new",
            scene=lambda: (save_run("run"), cut_short("run/run.json", 100)),
            names="run.json",
            why="Running again makes this file anew; bags and models that are whole are kept.",
        ),
        Case(
            heading="A model is damaged",
            command="predict run S-0412.tif --trust mine.py --out new",
            scene=lambda: (
                save_run("run"),
                cut_short("run/models/fold0/seed0/model.safetensors", 900),
            ),
            names="model.safetensors",
            why="Every model carries the SHA-256 of its numbers.",
        ),
        Case(
            heading="The encoder's weights have changed since",
            command="predict run S-0412.tif --trust mine.py --out new",
            scene=lambda: (draw_slide("S-0412.tif"), save_run("run")),
            names="S-0412",
            why="The same name does not make the same encoder; the weights must be those of the run.",
        ),
        Case(
            heading="Slides are given to a run that was made from bags",
            command="predict run S-0412.tif --out new",
            scene=train_once,
            names="run",
            why="Slides must become such bags first, and the bags do not say how.",
        ),
        Case(
            heading="The bags are of another encoder than the run's",
            command="predict run --features new-bags --out new",
            scene=lambda: save_other_bags("new-bags"),
            names="S-0900",
            why="Features of another encoder mean something else in each column, even where they are as many.",
        ),
        Case(
            heading="The run has learned from the bags",
            command="predict run --features bags --cohort slides.csv --out new",
            scene=train_once,
            names="S-0412",
            why="Without labels they are predicted all the same, and it is said.",
        ),
        Case(
            heading="Bags and slides are given at once",
            command="predict run S-0412.tif S-0413.tif --features bags --out new",
            scene=train_once,
            names="--features",
            why="Bags are predicted without their slides.",
        ),
        Case(
            heading="The run has learned from the slide",
            command="predict run slides.csv --trust mine.py --out new",
            scene=lambda: (
                draw_slide("S-0412.tif"),
                write_table("slides.csv", "slide,patient_id,label", "S-0412.tif,P-17,benign"),
                save_run("run", patients=("P-17",)),
            ),
            names="S-0412",
            why="External validation means slides, and patients, that no model has seen.",
        ),
        Case(
            heading="A margin is given and there is nothing to compare",
            command="predict run S-0412.tif --margin 0.05 --out new",
            scene=lambda: save_run("run"),
            names="--with",
            why="A margin is how much a shorter network may lose against the whole one: both are needed.",
        ),
        Case(
            heading="The margin cannot be",
            command="predict run S-0412.tif --with other --margin 0.7 --out new",
            scene=lambda: save_run("run"),
            names="0.7",
            why="The margin is a difference of AUCs, and chance is 0.5.",
        ),
        Case(
            heading="A study is given beside other models",
            command="predict run S-0412.tif --with study --out new",
            scene=lambda: (save_run("run"), Path("study").mkdir(), save_undecided_study("study")),
            names="study",
            why="A study knows its arms and what it recommended: `lamella predict STUDY COHORT` predicts them "
            "together.",
        ),
        Case(
            heading="The study has reached no verdict yet",
            command="predict study S-0412.tif --out new",
            scene=lambda: (Path("study").mkdir(), save_undecided_study("study")),
            names="not finished",
            why="What is asked again on new slides is what the study recommended.",
        ),
        Case(
            heading="A prevalence is stated for several models",
            command="predict run S-0412.tif --with other --prevalence 0.1 --out new",
            scene=lambda: save_run("run"),
            names="--prevalence",
            why="Predictive values at another prevalence are those of one threshold of one model.",
        ),
        Case(
            heading="The run's encoder is code, and nobody said that it may run",
            command="predict run S-0412.tif --out new",
            scene=lambda: (draw_slide("S-0412.tif"), save_run("run")),
            names="mine.py",
            why="A run may have been passed on by anyone, so nothing that its folder names is executed.",
        ),
        Case(
            heading="A run's folder holds a link",
            command="predict run S-0412.tif --trust mine.py --out new",
            scene=lambda: (save_run("run"), Path("run/figures").symlink_to(Path("elsewhere").absolute())),
            names="figures",
            why="A folder that was passed on could otherwise read or overwrite files elsewhere.",
        ),
        Case(
            heading="A run's folder holds a pipe",
            command="predict run S-0412.tif --trust mine.py --out new",
            scene=lambda: (save_run("run"), os.mkfifo("run/notes.txt")),
            names="notes.txt",
            why="Opening a pipe may never end.",
        ),
        Case(
            heading="A run's record was changed by hand",
            command="predict run S-0412.tif --trust mine.py --out new",
            scene=lambda: (save_run("run"), change_record("run/run.json")),
            names="run.json",
            why="Records carry the SHA-256 of their content.",
        ),
        Case(
            heading="The description of a model was changed",
            command="predict run S-0412.tif --trust mine.py --out new",
            scene=lambda: (save_run("run"), change_record("run/models/fold0/seed0/model.json")),
            names="model.json",
            why="Classes and settings of a model stand there.",
        ),
        Case(
            heading="A model is given twice",
            command="predict run S-0412.tif --with run --margin 0.05 --trust mine.py --out new",
            scene=lambda: save_run("run"),
            names="twice",
            why="External validation compares different models on the same slides.",
        ),
        Case(
            heading="Models of different classes are compared",
            command="predict run S-0412.tif --with other --margin 0.05 --trust mine.py --out new",
            scene=lambda: (save_run("run"), save_run("other", classes=("benign", "tumour"))),
            names="tumour",
            why="The comparison is of AUCs for one question.",
        ),
        Case(
            heading="A prevalence is stated for slides without labels",
            command="predict run S-0412.tif --prevalence 0.1 --trust mine.py --out new",
            scene=lambda: (save_run("run"), draw_slide("S-0412.tif")),
            names="--prevalence",
            why="Predictive values are calculated from measured sensitivity and specificity.",
        ),
        Case(
            heading="Two trusted files have one name",
            command="predict run S-0412.tif --trust a/mine.py --trust b/mine.py --out new",
            scene=lambda: (
                save_run("run"),
                [(Path(name).mkdir(), write_encoder(f"{name}/mine.py")) for name in ("a", "b")],
            ),
            names="mine.py",
            why="A run records its encoder's file by name, without folders.",
        ),
    ),
)
