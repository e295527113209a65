"""Fine-tuning, CKA, maps and localisation that lack what they need."""

from pathlib import Path

from tests.gallery.case import Case, Step
from tests.gallery.scenes.bags import train_once
from tests.gallery.scenes.runs import save_run, save_tested_run
from tests.gallery.scenes.tables import write_cohort, write_region

STEP = Step(
    title="Fine-tuning, CKA, maps, localisation",
    cases=(
        Case(
            heading="More seeds are to be fine-tuned than are trained",
            command="run slides.csv --finetune tuned --seeds 1 --finetune-seeds 3 --out run",
            scene=lambda: write_cohort("slides.csv", n_slides=12),
            names="--finetune-seeds",
            why="Each goes on from a head of stage 1.",
        ),
        Case(
            heading="There is nothing to compare the encoder with",
            command="run slides.csv --cka --out run",
            scene=lambda: write_cohort("slides.csv", n_slides=12),
            names="--finetune",
            why="CKA within a run holds the fine-tuned encoder against the frozen one. `lamella cka` compares any two.",
        ),
        Case(
            heading="Too few slides for CKA",
            command="cka efficientnet-lite0 efficientnet-lite1 slides.csv --out cka",
            scene=lambda: write_cohort("slides.csv", n_slides=5),
            names="5 slides",
            why="Each minibatch takes one tile from each slide; with fewer than eight the estimate is mostly noise.",
        ),
        Case(
            heading="A map is asked of a run that was made from bags",
            command="cam run",
            scene=train_once,
            names="run",
            why="A map goes back through the encoder to the slide, and neither came with the bags.",
        ),
        Case(
            heading="The run came without its slides' paths",
            command="cam run --trust mine.py",
            scene=lambda: save_run("run"),
            names="local/cohort.csv",
            why="What is passed on holds no paths. New slides can be predicted, and then mapped: `--predicted`.",
        ),
        Case(
            heading="No slide of the run has that id",
            command="cam run --trust mine.py --slide-id S-0999",
            scene=lambda: save_tested_run("run"),
            names="S-0999",
            why="Ids are those of the table, or the files' names without their ending.",
        ),
        Case(
            heading="No class has that name",
            command="cam run --trust mine.py --class cancer",
            scene=lambda: save_tested_run("run"),
            names="cancer",
            why="A map is of one class, set against the mean of the others.",
        ),
        Case(
            heading="The run was not fine-tuned",
            command="cam run --trust mine.py --arm tuned",
            scene=lambda: save_tested_run("run"),
            names="--arm frozen",
            why="`lamella run --finetune tuned` makes fine-tuned encoders; with --evaluate all they can be mapped.",
        ),
        Case(
            heading="No outlines of a tested slide",
            command="localise run --trust mine.py --lesions outlines",
            scene=lambda: (save_tested_run("run"), Path("outlines").mkdir()),
            names="outlines",
            why="Only slides that a model has not learned from can be measured on, and of these only those with "
            "outlines.",
        ),
        Case(
            heading="Outlines of several classes",
            command="localise run --trust mine.py --lesions outlines",
            scene=lambda: (
                save_tested_run("run"),
                [
                    write_region(f"outlines/S-{412 + i:04d}.geojson", corner=(10, 10), classes=("Tumor", "Normal"))
                    for i in range(12)
                ],
            ),
            names="--lesion-class",
            why="Only one of them is lesion: say which. Masks with several labels need `--lesion-value`.",
        ),
        Case(
            heading="A stain jitter that cannot be",
            command="run slides.csv --finetune tuned --stain-jitter 5 --out run",
            scene=lambda: write_cohort("slides.csv", n_slides=12),
            names="stain jitter",
            why="Stronger jitter yields colours that no stain has.",
        ),
        Case(
            heading="The folder of outlines is not there",
            command="localise run --trust mine.py --lesions outlines",
            scene=lambda: save_tested_run("run"),
            names="outlines",
            why="One file per slide, named by slide id.",
        ),
        Case(
            heading="A mask value that cannot be",
            command="localise run --trust mine.py --lesions masks --lesion-value red",
            scene=lambda: (save_tested_run("run"), Path("masks").mkdir()),
            names="--lesion-value",
            why="Values are those stored in the file, 1, 2, 255 and so on.",
        ),
    ),
)
