"""Runs, studies and exported models that cannot predict new slides or be passed on."""

from pathlib import Path

from tests.gallery.case import Case, Step
from tests.gallery.scenes.runs import save_export, save_run
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
            heading="A file of an exported model was changed",
            command="predict model S-0412.tif --out new",
            scene=lambda: (save_export("model"), write_table("model/seen.json", "{}")),
            names="seen.json",
            why="An exported model is used as it was written, byte for byte, or not at all.",
        ),
        Case(
            heading="The card of an exported model was changed",
            command="predict model S-0412.tif --out new",
            scene=lambda: save_export("model", card_sha256="0"),
            names="model.json",
            why="The threshold stands there, and the hashes of all other files.",
        ),
        Case(
            heading="The study recommends no arm",
            command="export study --out model",
            scene=lambda: save_undecided_study("study"),
            names="resnet18@2",
            why="Where the study can't tell, the choice is yours, and the card of the model says so.",
        ),
        Case(
            heading="The run's encoder is code, and nobody said that it may run",
            command="predict run S-0412.tif --out new",
            scene=lambda: (draw_slide("S-0412.tif"), save_run("run")),
            names="mine.py",
            why="A run may have been passed on by anyone, so nothing that its folder names is executed.",
        ),
        Case(
            heading="The encoder is built by your own code",
            command="export run --out model",
            scene=lambda: save_run("run"),
            names="mine.py:build",
            why="A file of weights carries numbers, and whoever gets it need not run anybody's code.",
        ),
        Case(
            heading="The folder of the model holds something else",
            command="export run --out slides",
            scene=lambda: draw_slide("slides/S-0412.tif"),
            names="slides",
            why="An earlier export is replaced; nothing else is.",
        ),
    ),
)
