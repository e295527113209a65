"""Folds and splits that cannot be made, or would leak."""

from tests.gallery.case import TRAIN, Case, Step
from tests.gallery.scenes.tables import write_cohort, write_folds, write_shared_patient, write_table

STEP = Step(
    title="Folds and splits",
    cases=(
        Case(
            heading="A patient is in two splits",
            command=TRAIN,
            scene=lambda: write_table(
                "slides.csv",
                "slide,patient_id,label,split",
                "S-0412.svs,P-17,benign,train",
                "S-0413.svs,P-18,malignant,train",
                "S-0500.svs,P-19,benign,val",
                "S-0501.svs,P-20,malignant,val",
                "S-0587.svs,P-17,benign,test",
                "S-0588.svs,P-21,malignant,test",
            ),
            names="P-17",
            why="A model can learn to know a patient. `lamella split` keeps all slides of a patient together.",
        ),
        Case(
            heading="Slides of one patient differ in label, and patients are predicted",
            command=f"{TRAIN} --unit patient",
            scene=lambda: write_table(
                "slides.csv",
                "slide,patient_id,label,split",
                "S-0412.svs,P-17,benign,train",
                "S-0413.svs,P-17,malignant,train",
                "S-0500.svs,P-18,benign,val",
                "S-0501.svs,P-19,malignant,val",
                "S-0587.svs,P-20,benign,test",
                "S-0588.svs,P-21,malignant,test",
            ),
            names="patient 'P-17'",
            why="With `--unit patient` a patient's slides are one bag with one label.",
        ),
        Case(
            heading="A class is missing from a split",
            command=TRAIN,
            scene=lambda: write_table(
                "slides.csv",
                "slide,label,split",
                "S-0412.svs,benign,train",
                "S-0413.svs,malignant,train",
                "S-0500.svs,benign,val",
                "S-0587.svs,benign,test",
                "S-0588.svs,malignant,test",
            ),
            names="malignant",
            why="Training is stopped, and the threshold chosen, on val: both classes must be there.",
        ),
        Case(
            heading="Too few patients for the folds",
            command="split slides.csv --out folds.csv",
            scene=lambda: write_cohort("slides.csv", n_slides=8),
            names="benign",
            why="Each fold tests once, and must show every class then.",
        ),
        Case(
            heading="The table has splits and folds",
            command=TRAIN,
            scene=lambda: write_table(
                "slides.csv", "slide,label,split,fold", "S-0412.svs,benign,train,0", "S-0587.svs,malignant,test,1"
            ),
            names="slides.csv",
            why="Both say which slides test, and they may disagree.",
        ),
        Case(
            heading="A number of folds that is none",
            command="split slides.csv --out folds.csv --folds five",
            scene=lambda: write_cohort("slides.csv", n_slides=12),
            names="five",
            why="A number, or the word `batch`.",
        ),
        Case(
            heading="Too few batches to leave one out",
            command="split slides.csv --out folds.csv --folds batch",
            scene=lambda: write_cohort("slides.csv", n_slides=12, batches=("east", "west")),
            names="east",
            why="Leaving one batch out asks how a model does on a laboratory or scanner it has never seen.",
        ),
        Case(
            heading="The result would overwrite the table",
            command="split slides.csv --out slides.csv",
            scene=lambda: write_cohort("slides.csv", n_slides=12),
            names="slides.csv",
            why="Your table may hold columns that Lamella does not know.",
        ),
        Case(
            heading="A holdout and folds are both asked for",
            command="split slides.csv --out folds.csv --holdout --folds 5",
            scene=lambda: write_cohort("slides.csv", n_slides=12),
            names="--holdout",
            why="`--holdout` writes one division into train, val and test; `--folds` writes cross-validation.",
        ),
        Case(
            heading="Fewer than three folds",
            command="split slides.csv --out folds.csv --folds 2",
            scene=lambda: write_cohort("slides.csv", n_slides=12),
            names="--folds 3",
            why="Each model is tested on one fold, stopped early on another and trained on the rest.",
        ),
        Case(
            heading="Some slides have no batch",
            command="split slides.csv --out folds.csv --folds batch",
            scene=lambda: write_table("slides.csv", "slide,label,batch", "S-0412.svs,a,b", "S-0413.svs,c,"),
            names="S-0413",
            why="Leave-one-batch-out needs the batch of every slide.",
        ),
        Case(
            heading="A patient has slides in two batches",
            command="split slides.csv --out folds.csv --folds batch",
            scene=lambda: write_shared_patient("slides.csv"),
            names="P-17",
            why="The held-out batch would hold a patient that the model was trained on.",
        ),
        Case(
            heading="A fold is empty",
            command=TRAIN,
            scene=lambda: write_folds("slides.csv", (0, 0, 1, 1, 3, 3)),
            names="fold 2",
            why="Often the file that lists one fold was not merged.",
        ),
    ),
)
