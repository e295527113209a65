"""The table of slides cannot be read, or does not say what it must."""

import os
from pathlib import Path

from tests.gallery.case import CUT, Case, Step
from tests.gallery.scenes.slides import draw_twins
from tests.gallery.scenes.tables import write_table

STEP = Step(
    title="The table of slides",
    cases=(
        Case(
            heading="The table is not there",
            command="split slides.csv --out folds.csv",
            scene=lambda: None,
            names="slides.csv",
            why="Paths are taken from the folder you are in. Look for a slip in the name.",
        ),
        Case(
            heading="A column is called otherwise",
            command="split slides.csv --out folds.csv",
            scene=lambda: write_table("slides.csv", "slide,diagnosis", "S-0412.svs,benign", "S-0587.svs,malignant"),
            names="label",
            why="Every column can have another name: `--slide-col`, `--label-col`, `--patient-col` and so on.",
        ),
        Case(
            heading="The table is empty",
            command="split slides.csv --out folds.csv",
            scene=lambda: write_table("slides.csv", "slide,label"),
            names="slides.csv",
            why="A header alone is no cohort.",
        ),
        Case(
            heading="The table is a spreadsheet",
            command="split slides.xlsx --out folds.csv",
            scene=lambda: Path("slides.xlsx").write_bytes(b"PK\x03\x04"),
            names="slides.xlsx",
            why="Spreadsheet programs save CSV too; choose UTF-8, so that names with accents survive.",
        ),
        Case(
            heading="The table is in another encoding",
            command="split slides.csv --out folds.csv",
            scene=lambda: Path("slides.csv").write_bytes("slide,label\nPr\u00e4parat.svs,benign\n".encode("latin-1")),
            names="slides.csv",
            why="An accented letter in an old encoding would become another letter, and a file would not be found.",
        ),
        Case(
            heading="A row has too many cells",
            command="split slides.csv --out folds.csv",
            scene=lambda: write_table("slides.csv", "slide,label", "S-0412.svs,benign,fibroadenoma"),
            names="row 2",
            why="A comma inside a cell begins a new one, unless the cell is in quotes.",
        ),
        Case(
            heading="A label is missing",
            command="split slides.csv --out folds.csv",
            scene=lambda: write_table("slides.csv", "slide,label", "S-0412.svs,benign", "S-0587.svs,"),
            names="row 3",
            why="Learning needs the label of every slide. `lamella predict` and `lamella tissue` do not.",
        ),
        Case(
            heading="All slides have one class",
            command="split slides.csv --out folds.csv",
            scene=lambda: write_table("slides.csv", "slide,label", "S-0412.svs,benign", "S-0587.svs,benign"),
            names="benign",
            why="There is nothing to tell apart. Often the wrong column is taken for the label.",
        ),
        Case(
            heading="Two rows have one id",
            command="split slides.csv --out folds.csv",
            scene=lambda: write_table("slides.csv", "slide,label", "a/S-0412.svs,benign", "b/S-0412.svs,malignant"),
            names="S-0412",
            why="The id is the file's name without its suffix unless a column `slide_id` says otherwise. Capitals do "
            "not make a difference, since some disks know none.",
        ),
        Case(
            heading="A row stands twice",
            command="split slides.csv --out folds.csv",
            scene=lambda: write_table("slides.csv", "slide,label", "S-0412.svs,benign", "S-0412.svs,benign"),
            names="the same file",
            why="One slide counts once.",
        ),
        Case(
            heading="A column is one of ours but for its capitals",
            command="split slides.csv --out folds.csv",
            scene=lambda: write_table(
                "slides.csv", "slide,label,Patient ID", "S-0412.svs,benign,P-1", "S-0587.svs,malignant,P-2"
            ),
            names="Patient ID",
            why="Passed over in silence, it would let a patient into train and test, or your own split go unused.",
        ),
        Case(
            heading="A patient is spelt in two ways",
            command="split slides.csv --out folds.csv",
            scene=lambda: write_table(
                "slides.csv", "slide,label,patient_id", "S-0412.svs,benign,007", "S-0587.svs,malignant,7"
            ),
            why="Two spellings of a patient would put one person on both sides of a split.",
            names="007",
        ),
        Case(
            heading="The labels are measurements",
            command="split slides.csv --out folds.csv --label-col ki67",
            scene=lambda: write_table(
                "slides.csv", "slide,ki67", *(f"S-{i:04d}.svs,{i * 1.5 + 0.3:.1f}" for i in range(12))
            ),
            why="Only classes can be learned; an amount or a survival time has to be divided into classes first.",
            names="ki67",
        ),
        Case(
            heading="Two labels differ in capitals only",
            command="split slides.csv --out folds.csv",
            scene=lambda: write_table("slides.csv", "slide,label", "S-0412.svs,Benign", "S-0587.svs,benign"),
            names="Benign",
            why="They would count as two classes.",
        ),
        Case(
            heading="The paths are written as on Windows",
            command="split slides.csv --out folds.csv",
            scene=lambda: write_table("slides.csv", "slide,label", "scans\\S-0412.svs,benign"),
            names="S-0412.svs",
            why="On Windows both are read; elsewhere a backslash is a letter of the name.",
        ),
        Case(
            heading="An id cannot be a file's name",
            command="split slides.csv --out folds.csv",
            scene=lambda: write_table("slides.csv", "slide,slide_id,label", "S-0412.svs,2026/0412,benign"),
            names="2026/0412",
            why="Results are files named by slide id.",
        ),
        Case(
            heading="Two ids share one file",
            command="split slides.csv --out folds.csv",
            scene=lambda: write_table(
                "slides.csv", "slide,slide_id,label", "S-0412.svs,left,benign", "S-0412.svs,right,malignant"
            ),
            names="S-0412.svs",
            why="One image in train and in test makes any model look good.",
        ),
        Case(
            heading="The same image lies under two names",
            command=f"run slides.csv --out run {CUT} --folds 3",
            scene=draw_twins,
            names="S-0587",
            why="Files are compared by content, so a copy under another name is found too.",
        ),
        Case(
            heading="The positive label does not occur",
            command="split slides.csv --out folds.csv --positive tumour",
            scene=lambda: write_table("slides.csv", "slide,label", "S-0412.svs,benign", "S-0587.svs,malignant"),
            names="tumour",
            why="Labels are compared letter by letter.",
        ),
        Case(
            heading="The table is a folder",
            command="split slides --out folds.csv",
            scene=lambda: Path("slides").mkdir(),
            names="slides",
            why="The table stands in that folder, perhaps.",
        ),
        Case(
            heading="The table is a named pipe",
            command="split slides.csv --out folds.csv",
            scene=lambda: os.mkfifo("slides.csv"),
            names="slides.csv",
            why="Reading a pipe or a device may never end. The same is said of slides, bags, regions and records.",
        ),
        Case(
            heading="The table holds nothing",
            command="split slides.csv --out folds.csv",
            scene=lambda: Path("slides.csv").touch(),
            names="slides.csv",
            why="A copy that was interrupted leaves a file of 0 bytes.",
        ),
        Case(
            heading="The table is a workbook with another ending",
            command="split slides.csv --out folds.csv",
            scene=lambda: Path("slides.csv").write_bytes(b"PK\x03\x04"),
            names="slides.csv",
            why="Renaming a workbook does not convert it.",
        ),
        Case(
            heading="Two columns have one name",
            command="split slides.csv --out folds.csv",
            scene=lambda: write_table("slides.csv", "slide,label,label", "S-0412.svs,benign,malignant"),
            names="label",
            why="The two columns may disagree.",
        ),
    ),
)
