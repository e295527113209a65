"""Studies that are not declared, or cannot be judged."""

from pathlib import Path

from tests.gallery.case import Case, Step
from tests.gallery.scenes.studies import save_study, save_undecided_study, write_given
from tests.gallery.scenes.tables import write_cohort, write_table

STEP = Step(
    title="Studies",
    cases=(
        Case(
            heading="It is not said what to compare",
            command="study slides.csv --out study",
            scene=lambda: write_cohort("slides.csv", n_slides=12),
            names="--preset",
            why="A study needs a design: a preset, or a file that declares it (docs/study.md).",
        ),
        Case(
            heading="No preset has that name",
            command="study slides.csv --preset quik --out study",
            scene=lambda: write_cohort("slides.csv", n_slides=12),
            names="quick",
            why="`lamella study --print-preset quick` prints one to edit.",
        ),
        Case(
            heading="A key of the declared file is misspelt",
            command="study mine.yaml --cohort slides.csv --out study",
            scene=lambda: write_table("mine.yaml", "arms:", "  - encoders: [efficientnet-lite0]", "    dephts: [4, 3]"),
            names="line 3",
            why="Nothing in the file is ignored in silence. Keys are explained in docs/study.md.",
        ),
        Case(
            heading="A value of the declared file cannot be",
            command="study mine.yaml --cohort slides.csv --out study",
            scene=lambda: write_table("mine.yaml", "arms:", "  - encoders: [efficientnet-lite0]", "margin: 2"),
            names="margin",
            why="The margin is a difference of AUCs.",
        ),
        Case(
            heading="A number of tiles a slide that cannot be",
            command="study mine.yaml --cohort slides.csv --out study",
            scene=lambda: write_table(
                "mine.yaml", "arms:", "  - encoders: [efficientnet-lite0]", "    tiles_per_slide: [64, 0, all]"
            ),
            names="[64, 256, all]",
            why="`all` reads every tile of a slide; numbers are the most tiles that are encoded and read of one.",
        ),
        Case(
            heading="A number of tiles a slide stands twice",
            command="study mine.yaml --cohort slides.csv --out study",
            scene=lambda: write_table(
                "mine.yaml", "arms:", "  - encoders: [efficientnet-lite0]", "    tiles_per_slide: [64, 256, 64]"
            ),
            names="64 twice",
            why="Each number makes an arm of its own.",
        ),
        Case(
            heading="Patients are predicted and fine-tuning is asked for",
            command="study mine.yaml --cohort slides.csv --out study",
            scene=lambda: write_table(
                "mine.yaml",
                "unit: patient",
                "arms:",
                "  - encoders: [efficientnet-lite0]",
                "    finetuned: [frozen, tuned]",
            ),
            names="unit: slide",
            why="Fine-tuning reads the tiles of one slide a bag. Frozen arms run with `unit: patient`.",
        ),
        Case(
            heading="The declared file names an encoder that there is not",
            command="study mine.yaml --cohort slides.csv --out study",
            scene=lambda: write_table("mine.yaml", "arms:", "  - encoders: [resnet81]"),
            names="resnet18",
            why="`lamella encoders` lists all; depths stand under `depths`.",
        ),
        Case(
            heading="The reference encoder is not cut",
            command="study mine.yaml --cohort slides.csv --out study",
            scene=lambda: write_table(
                "mine.yaml", "reference: [efficientnet-lite0]", "arms:", "  - encoders: [efficientnet-lite0]"
            ),
            names="depth 4 and at least one other",
            why="Depths of the reference encoder are tested against its whole network, so there must be some: "
            "`depths: [4, 3, 2]`.",
        ),
        Case(
            heading="A study without predictions is to be judged",
            command="study study --judge",
            scene=lambda: (Path("study").mkdir(), save_undecided_study("study")),
            names="predictions.parquet",
            why="A study is judged from the predictions of its arms; none has finished yet.",
        ),
        Case(
            heading="The declared file is not YAML",
            command="study mine.yaml --cohort slides.csv --out study",
            scene=lambda: write_table("mine.yaml", "arms: ["),
            names="mine.yaml",
            why="Begin with a printed preset.",
        ),
        Case(
            heading="The file's cohort is not named",
            command="study mine.yaml --out study",
            scene=lambda: write_table("mine.yaml", "arms:", "  - encoders: [efficientnet-lite0]"),
            names="--cohort",
            why="A declared study holds no paths, so that it can be passed on.",
        ),
        Case(
            heading="A budget that is no time",
            command="study slides.csv --preset quick --budget soon --out study",
            scene=lambda: write_cohort("slides.csv", n_slides=12),
            names="3h",
            why="Hours, minutes and seconds may be joined: 1h30m.",
        ),
        Case(
            heading="The folder holds no study",
            command="study study --status",
            scene=lambda: None,
            names="study.json",
            why="Name the folder that was given as --out.",
        ),
        Case(
            heading="The folder holds a study that was designed otherwise",
            command="study mine.yaml --cohort slides.csv --out study",
            scene=lambda: save_study("study", "mine.yaml"),
            names="seeds",
            why="Arms may be added to a study; with other seeds, folds or tiles its figures would be mixed.",
        ),
        Case(
            heading="A table of the cohort has no folds and the design takes given ones",
            command="study mine.yaml --cohort slides.csv --out study",
            scene=lambda: write_given("mine.yaml"),
            names="lamella split",
            why="camelyon16 takes the official split, which stands in the column `split`.",
        ),
        Case(
            heading="The declared file is empty",
            command="study mine.yaml --cohort slides.csv --out study",
            scene=lambda: Path("mine.yaml").touch(),
            names="mine.yaml",
            why="`lamella study --print-preset quick > mine.yaml` writes one to edit.",
        ),
        Case(
            heading="A key is declared twice",
            command="study mine.yaml --cohort slides.csv --out study",
            scene=lambda: write_table("mine.yaml", "seeds: 2", "seeds: 3", "arms:", "  - encoders: [resnet18]"),
            names="seeds",
            why="YAML would silently take the last.",
        ),
        Case(
            heading="A preset and a declared file are both given",
            command="study mine.yaml --cohort slides.csv --preset quick --out study",
            scene=lambda: write_table("mine.yaml", "arms:", "  - encoders: [efficientnet-lite0]"),
            names="--preset",
            why="A preset is itself a declared file.",
        ),
        Case(
            heading="A margin of a plan that cannot be",
            command="study slides.csv --preset quick --margin 0.8 --plan",
            scene=lambda: write_cohort("slides.csv", n_slides=12),
            names="margin",
            why="The non-inferiority margin is a difference of AUCs, usually 0.02 to 0.1.",
        ),
    ),
)
