"""Models that cannot be exported, and exported models that are not as they were written."""

from pathlib import Path

from tests.gallery.case import Case, Step
from tests.gallery.scenes.runs import save_export, save_run
from tests.gallery.scenes.slides import draw_slide
from tests.gallery.scenes.studies import save_undecided_study
from tests.gallery.scenes.tables import write_table

STEP = Step(
    title="Exporting models",
    introduction="An exported model is one folder. It is opened as it was written, or not at all.",
    cases=(
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
        Case(
            heading="The folder holds something of another kind",
            command="predict model S-0412.tif --out new",
            scene=lambda: (Path("model").mkdir(), Path("model/model.json").write_text("{}")),
            names="model.json",
            why="Name the folder that `lamella export` or `lamella run` wrote.",
        ),
        Case(
            heading="The exported model is of another version",
            command="predict model S-0412.tif --out new",
            scene=lambda: save_export("model", version=99),
            names="99",
            why="The card names the version of Lamella that wrote it.",
        ),
        Case(
            heading="The manifest of an exported model lists a file elsewhere",
            command="predict model S-0412.tif --out new",
            scene=lambda: save_export("model", files={"../seen.json": "0"}),
            names="../seen.json",
            why="Nothing outside the folder is opened.",
        ),
        Case(
            heading="The manifest of an exported model lists a file that is absent",
            command="predict model S-0412.tif --out new",
            scene=lambda: (save_export("model"), Path("model/seen.json").unlink()),
            names="seen.json",
            why="Exported models are passed on as whole folders.",
        ),
        Case(
            heading="No arm of a run has that name",
            command="export run --arm frosen --out model",
            scene=lambda: save_run("run"),
            names="frosen",
            why="`tuned` and `head` exist after fine-tuning.",
        ),
        Case(
            heading="No arm of a study has that name",
            command="export study --arm resnet18@5 --out model",
            scene=lambda: save_undecided_study("study"),
            names="resnet18@5",
            why="`lamella study STUDY --status` lists the arms.",
        ),
    ),
)
