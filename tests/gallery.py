"""Every error a user can meet: each is provoked with the real command, and docs/troubleshooting.md shows what it says.

A `Case` lists what the user typed, how the situation comes about, and what to tell the reader. `show_case` builds the
situation in an empty folder and runs the command in this process.
"""

import contextlib
import errno
import os
import re
import shlex
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

from typer.testing import CliRunner

from lamella.cli import build_app
from tests import gallery_scenes as scenes

STEPS = {
    "The table of slides": "",
    "Folds and splits": "",
    "Opening slides": "These name the slide. With several slides the others are finished first; each that could not "
    "be done stands in `failures.csv` too, with the step it stopped in.",
    "Resolution": "Lamella never guesses how large a pixel is.",
    "Tissue and tiles": "",
    "Encoders and weights": "Nothing is downloaded unasked, and no encoder runs with weights that do not fit.",
    "Feature bags": "",
    "Training and results": "",
    "Predicting new slides": "",
    "Heatmaps": "",
    "Fine-tuning, CKA, maps, localisation": "",
    "Studies": "",
    "Writing, and being stopped": "Files get their name only when they are whole, so what is there can be trusted.",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One thing that goes wrong.

    Attributes:
        step: The part of the pipeline it belongs to.
        heading: What happened, in the reader's words.
        command: What was typed, after `lamella`.
        scene: Builds what the command finds; it runs in an empty folder.
        why: What it means, and what to do, in a sentence or two.
        names: What the message must name.
        during: What happens to the machine while the command runs.
        exit_code: How the command ends.
    """

    step: str
    heading: str
    command: str
    scene: Callable[[], object]
    why: str
    names: str
    during: Callable[[], AbstractContextManager[object]] = nullcontext
    exit_code: int = 1


@dataclass(frozen=True, slots=True)
class Shown:
    """What a command said.

    Attributes:
        lines: On standard error, without the machine's folders.
        exit_code: How it ended.
        exception: What escaped, None where it was said in words.
        failures: Rows of every failures.csv it wrote, header left out.
    """

    lines: tuple[str, ...]
    exit_code: int
    exception: BaseException | None
    failures: tuple[str, ...]

    @property
    def message(self) -> str:
        """The line that says what is wrong."""
        return self.lines[0] if self.lines else ""


def show_case(case: Case) -> Shown:
    """Build a case's situation in an empty folder, run its command there, and return what it said."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        store = folder.parent / f"{folder.name}-store"
        with contextlib.chdir(folder), mock.patch.dict(os.environ, {"LAMELLA_HOME": str(store)}):
            case.scene()
            arguments = shlex.split(case.command)
            with case.during():
                done = CliRunner().invoke(build_app(), arguments + _hush(arguments))
        failures = [path.read_text(encoding="utf-8") for path in sorted(folder.rglob("failures.csv"))]
    said = done.stderr.replace(str(store), "~/.cache/lamella").replace(f"{folder}/", "").replace(str(folder), ".")
    said = re.sub(r"\d+ of \d+ tiles", "16 of 16 tiles", said)  # how many go at once is the machine's choice
    escaped = None if done.exception is None or isinstance(done.exception, SystemExit) else done.exception
    rows = tuple(line for text in failures for line in text.replace(f"{folder}/", "").splitlines()[1:])
    return Shown(tuple(said.splitlines()), done.exit_code, escaped, rows)


def _hush(arguments: list[str]) -> list[str]:
    """Return the option that leaves progress and remarks out, for the verbs that have them."""
    return [] if arguments[0] in ("weights", "inspect", "measure") else ["--quiet"]


@contextlib.contextmanager
def disk_full() -> Iterator[None]:
    """Let no new file be made: the operating system says that the disk is full."""
    refusal = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with mock.patch("lamella.files.make_temporary", side_effect=refusal):
        yield


@contextlib.contextmanager
def no_processes() -> Iterator[None]:
    """Let no process be started: this user has as many as the machine allows."""
    refusal = OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
    from lamella.slide.child import CHILD

    CHILD.close()
    with mock.patch("lamella.children.subprocess.Popen", side_effect=refusal):
        yield


@contextlib.contextmanager
def ctrl_c() -> Iterator[None]:
    """Let the user press Ctrl-C the moment the first file is to be written."""
    with mock.patch("lamella.files.make_temporary", side_effect=KeyboardInterrupt):
        yield


_CUT = "--tile-px 64"
_BAGS = "train slides.csv --features bags --out models --epochs 1 --seeds 1 --folds 3"

CASES: tuple[Case, ...] = (
    # The table of slides ------------------------------------------------------------------------------------------
    Case(
        step="The table of slides",
        heading="The table is not there",
        command="split slides.csv --out folds.csv",
        scene=lambda: None,
        names="slides.csv",
        why="Paths are taken from the folder you are in. Look for a slip in the name.",
    ),
    Case(
        step="The table of slides",
        heading="A column is called otherwise",
        command="split slides.csv --out folds.csv",
        scene=lambda: scenes.write_table("slides.csv", "slide,diagnosis", "S-0412.svs,benign", "S-0587.svs,malignant"),
        names="label",
        why="Every column can have another name: `--slide-col`, `--label-col`, `--patient-col` and so on.",
    ),
    Case(
        step="The table of slides",
        heading="The table is empty",
        command="split slides.csv --out folds.csv",
        scene=lambda: scenes.write_table("slides.csv", "slide,label"),
        names="slides.csv",
        why="A header alone is no cohort.",
    ),
    Case(
        step="The table of slides",
        heading="The table is a spreadsheet",
        command="split slides.xlsx --out folds.csv",
        scene=lambda: Path("slides.xlsx").write_bytes(b"PK\x03\x04"),
        names="slides.xlsx",
        why="Spreadsheet programs save CSV too; choose UTF-8, so that names with accents survive.",
    ),
    Case(
        step="The table of slides",
        heading="The table is in another encoding",
        command="split slides.csv --out folds.csv",
        scene=lambda: Path("slides.csv").write_bytes("slide,label\nPr\u00e4parat.svs,benign\n".encode("latin-1")),
        names="slides.csv",
        why="An accented letter in an old encoding would become another letter, and a file would not be found.",
    ),
    Case(
        step="The table of slides",
        heading="A row has too many cells",
        command="split slides.csv --out folds.csv",
        scene=lambda: scenes.write_table("slides.csv", "slide,label", "S-0412.svs,benign,fibroadenoma"),
        names="row 2",
        why="A comma inside a cell begins a new one, unless the cell is in quotes.",
    ),
    Case(
        step="The table of slides",
        heading="A label is missing",
        command="split slides.csv --out folds.csv",
        scene=lambda: scenes.write_table("slides.csv", "slide,label", "S-0412.svs,benign", "S-0587.svs,"),
        names="row 3",
        why="Learning needs the label of every slide. `lamella predict` and `lamella tissue` do not.",
    ),
    Case(
        step="The table of slides",
        heading="All slides have one class",
        command="split slides.csv --out folds.csv",
        scene=lambda: scenes.write_table("slides.csv", "slide,label", "S-0412.svs,benign", "S-0587.svs,benign"),
        names="benign",
        why="There is nothing to tell apart. Often the wrong column is taken for the label.",
    ),
    Case(
        step="The table of slides",
        heading="Two rows have one id",
        command="split slides.csv --out folds.csv",
        scene=lambda: scenes.write_table("slides.csv", "slide,label", "a/S-0412.svs,benign", "b/S-0412.svs,malignant"),
        names="S-0412",
        why="The id is the file's name without its suffix unless a column `slide_id` says otherwise. Capitals do not "
        "make a difference, since some disks know none.",
    ),
    Case(
        step="The table of slides",
        heading="A row stands twice",
        command="split slides.csv --out folds.csv",
        scene=lambda: scenes.write_table("slides.csv", "slide,label", "S-0412.svs,benign", "S-0412.svs,benign"),
        names="the same file",
        why="One slide counts once.",
    ),
    Case(
        step="The table of slides",
        heading="A column is one of ours but for its capitals",
        command="split slides.csv --out folds.csv",
        scene=lambda: scenes.write_table(
            "slides.csv", "slide,label,Patient ID", "S-0412.svs,benign,P-1", "S-0587.svs,malignant,P-2"
        ),
        names="Patient ID",
        why="Passed over in silence, it would let a patient into train and test, or your own split go unused.",
    ),
    Case(
        step="The table of slides",
        heading="A patient is spelt in two ways",
        command="split slides.csv --out folds.csv",
        scene=lambda: scenes.write_table(
            "slides.csv", "slide,label,patient_id", "S-0412.svs,benign,007", "S-0587.svs,malignant,7"
        ),
        why="Two spellings of a patient would put one person on both sides of a split.",
        names="007",
    ),
    Case(
        step="The table of slides",
        heading="The labels are measurements",
        command="split slides.csv --out folds.csv --label-col ki67",
        scene=lambda: scenes.write_table(
            "slides.csv", "slide,ki67", *(f"S-{i:04d}.svs,{i * 1.5 + 0.3:.1f}" for i in range(12))
        ),
        why="Only classes can be learned; an amount or a survival time has to be divided into classes first.",
        names="ki67",
    ),
    Case(
        step="Training and results",
        heading="An option is given twice",
        command="split slides.csv --out folds.csv --label-col label --label-col grade",
        scene=lambda: scenes.write_cohort("slides.csv", n_slides=12),
        why="The last would win, and nothing would say so.",
        names="--label-col",
    ),
    Case(
        step="The table of slides",
        heading="Two labels differ in capitals only",
        command="split slides.csv --out folds.csv",
        scene=lambda: scenes.write_table("slides.csv", "slide,label", "S-0412.svs,Benign", "S-0587.svs,benign"),
        names="Benign",
        why="They would count as two classes.",
    ),
    Case(
        step="The table of slides",
        heading="The paths are written as on Windows",
        command="split slides.csv --out folds.csv",
        scene=lambda: scenes.write_table("slides.csv", "slide,label", "scans\\S-0412.svs,benign"),
        names="S-0412.svs",
        why="On Windows both are read; elsewhere a backslash is a letter of the name.",
    ),
    Case(
        step="The table of slides",
        heading="An id cannot be a file's name",
        command="split slides.csv --out folds.csv",
        scene=lambda: scenes.write_table("slides.csv", "slide,slide_id,label", "S-0412.svs,2026/0412,benign"),
        names="2026/0412",
        why="Results are files named by slide id.",
    ),
    Case(
        step="The table of slides",
        heading="Two ids share one file",
        command="split slides.csv --out folds.csv",
        scene=lambda: scenes.write_table(
            "slides.csv", "slide,slide_id,label", "S-0412.svs,left,benign", "S-0412.svs,right,malignant"
        ),
        names="S-0412.svs",
        why="One image in train and in test makes any model look good.",
    ),
    Case(
        step="The table of slides",
        heading="The same image lies under two names",
        command=f"run slides.csv --out run {_CUT} --folds 3",
        scene=scenes.draw_twins,
        names="S-0587",
        why="Files are compared by content, so a copy under another name is found too.",
    ),
    Case(
        step="The table of slides",
        heading="The positive label does not occur",
        command="split slides.csv --out folds.csv --positive tumour",
        scene=lambda: scenes.write_table("slides.csv", "slide,label", "S-0412.svs,benign", "S-0587.svs,malignant"),
        names="tumour",
        why="Labels are compared letter by letter.",
    ),
    # Folds and splits ---------------------------------------------------------------------------------------------
    Case(
        step="Folds and splits",
        heading="A patient is in two splits",
        command=_BAGS,
        scene=lambda: scenes.write_table(
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
        step="Folds and splits",
        heading="A class is missing from a split",
        command=_BAGS,
        scene=lambda: scenes.write_table(
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
        step="Folds and splits",
        heading="Too few patients for the folds",
        command="split slides.csv --out folds.csv",
        scene=lambda: scenes.write_cohort("slides.csv", n_slides=8),
        names="benign",
        why="Each fold tests once, and must show every class then.",
    ),
    Case(
        step="Folds and splits",
        heading="The table has splits and folds",
        command=_BAGS,
        scene=lambda: scenes.write_table(
            "slides.csv", "slide,label,split,fold", "S-0412.svs,benign,train,0", "S-0587.svs,malignant,test,1"
        ),
        names="slides.csv",
        why="Both say which slides test, and they may disagree.",
    ),
    Case(
        step="Folds and splits",
        heading="A number of folds that is none",
        command="split slides.csv --out folds.csv --folds five",
        scene=lambda: scenes.write_cohort("slides.csv", n_slides=12),
        names="five",
        why="A number, or the word `batch`.",
    ),
    Case(
        step="Folds and splits",
        heading="Too few batches to leave one out",
        command="split slides.csv --out folds.csv --folds batch",
        scene=lambda: scenes.write_cohort("slides.csv", n_slides=12, batches=("east", "west")),
        names="east",
        why="Leaving one batch out asks how a model does on a laboratory or scanner it has never seen.",
    ),
    Case(
        step="Folds and splits",
        heading="The result would overwrite the table",
        command="split slides.csv --out slides.csv",
        scene=lambda: scenes.write_cohort("slides.csv", n_slides=12),
        names="slides.csv",
        why="Your table may hold columns that Lamella does not know.",
    ),
    # Opening slides -----------------------------------------------------------------------------------------------
    Case(
        step="Opening slides",
        heading="The slide is not there",
        command="tiles S-0412.svs --out tiles",
        scene=lambda: None,
        names="S-0412.svs",
        why="In a table, paths are taken from the table's own folder.",
    ),
    Case(
        step="Opening slides",
        heading="The slide is empty",
        command="tiles S-0412.svs --out tiles",
        scene=lambda: Path("S-0412.svs").touch(),
        names="S-0412.svs",
        why="A copy that was broken off at once leaves a file of 0 bytes.",
    ),
    Case(
        step="Opening slides",
        heading="The slide is cut short",
        command=f"tiles S-0412.tif {_CUT} --out tiles",
        scene=scenes.draw_truncated,
        names="S-0412.tif",
        why="It would open, and its lower part would be white. Compare its size with the original.",
    ),
    Case(
        step="Opening slides",
        heading="The slide is something else",
        command="tiles S-0412.svs --out tiles",
        scene=lambda: Path("S-0412.svs").write_text("see the other folder\n", encoding="utf-8"),
        names="S-0412.svs",
        why="The suffix says nothing; the content is looked at.",
    ),
    Case(
        step="Opening slides",
        heading="The folder holds no slide",
        command="tiles S-0412 --out tiles",
        scene=lambda: Path("S-0412").mkdir(),
        names="S-0412",
        why="A folder stands for the slides in it; one of a DICOM slide's files, or of OME-Zarr, is itself a slide.",
    ),
    Case(
        step="Opening slides",
        heading="A level of the slide shows another image",
        command="tiles S-0412.tif --out tiles",
        scene=lambda: scenes.draw_other_level("S-0412.tif"),
        names="S-0412.tif",
        why="A thumbnail stored among the levels, or a level that is shifted: tissue would be detected in the wrong "
        "place. Levels that are merely padded to whole tiles are read as they should be.",
    ),
    Case(
        step="Opening slides",
        heading="OME-Zarr that is not brightfield",
        command="tiles S-0412.zarr --out tiles",
        scene=lambda: scenes.write_zarr("S-0412.zarr", dtype="<u2", channels=4),
        names="S-0412.zarr",
        why="Red, green and blue of 8 bits each are read; fluorescence has no stain to look for tissue by.",
    ),
    Case(
        step="Opening slides",
        heading="A MIRAX slide without its folder",
        command="tiles S-0412.mrxs --out tiles",
        scene=lambda: Path("S-0412.mrxs").write_bytes(b"\xff\xd8\xff\xe0 a preview"),
        names="S-0412.mrxs",
        why="A .mrxs file is only the index; the pixels lie in a folder of the same name.",
    ),
    Case(
        step="Opening slides",
        heading="Two slides have one name",
        command="tiles a/S-0412.svs b/S-0412.svs --out tiles",
        scene=lambda: None,
        names="S-0412",
        why="Slides named one by one go by their file's name; a table can give them ids.",
    ),
    # Resolution ---------------------------------------------------------------------------------------------------
    Case(
        step="Resolution",
        heading="The slide does not state its resolution",
        command=f"tiles S-0412.tif {_CUT} --out tiles",
        scene=lambda: scenes.draw_slide("S-0412.tif", mpp=None),
        names="S-0412.tif",
        why="The scanner's log or a file of the same batch may tell. In a table it goes into the column `slide_mpp`.",
    ),
    Case(
        step="Resolution",
        heading="The slide states an absurd resolution",
        command=f"tiles S-0412.tif {_CUT} --out tiles",
        scene=lambda: scenes.draw_slide("S-0412.tif", mpp=1000),
        names="S-0412.tif",
        why="Programs that write TIFF fill in the dots per inch of a screen. Such a number is not used.",
    ),
    *(
        Case(
            step="Resolution",
            heading=f"A resolution of {value} is given",
            command=f"tiles S-0412.tif {_CUT} --slide-mpp {value} --out tiles",
            scene=lambda: scenes.draw_slide("S-0412.tif"),
            names="S-0412.tif",
            why=why,
        )
        for value, why in (
            ("0", "The resolution is um per pixel, about 0.25 for a scan at 40x and 0.5 at 20x."),
            ("-0.25", "Look for a slip of the pen."),
            ("nan", "A program that found no value may have written nan."),
            ("1000", "Nanometres are not micrometres."),
        )
    ),
    Case(
        step="Resolution",
        heading="The table holds an absurd resolution",
        command=f"tiles slides.csv {_CUT} --out tiles",
        scene=lambda: scenes.write_table("slides.csv", "slide,slide_mpp", "S-0412.tif,0.25", "S-0587.tif,250"),
        names="slide_mpp",
        why="The column overrides what the files state, so it is checked before any slide is opened.",
    ),
    Case(
        step="Resolution",
        heading="Pixels are not square",
        command=f"tiles S-0412.tif {_CUT} --out tiles",
        scene=lambda: scenes.draw_slide("S-0412.tif", mpp=(0.5, 0.7)),
        names="S-0412.tif",
        why="A few per mille are ordinary and are corrected; this much is a wrong entry.",
    ),
    Case(
        step="Resolution",
        heading="Tiles are asked for finer than the slide",
        command=f"tiles S-0412.tif {_CUT} --mpp 0.25 --out tiles",
        scene=lambda: scenes.draw_slide("S-0412.tif"),
        names="S-0412.tif",
        why="Enlarging adds no detail. Up to a tenth is allowed, since files state 0.2525 for 0.25; `--max-upsample` "
        "allows more.",
    ),
    Case(
        step="Resolution",
        heading="A resolution of tiles that cannot be",
        command="tiles S-0412.tif --mpp 0 --out tiles",
        scene=lambda: None,
        names="um/px",
        why="Above 0, in um per pixel; 0.5 is about 20x.",
    ),
    # Tissue and tiles ---------------------------------------------------------------------------------------------
    Case(
        step="Tissue and tiles",
        heading="The slide holds no tissue",
        command=f"tiles S-0412.tif {_CUT} --out tiles",
        scene=lambda: scenes.draw_slide("S-0412.tif", blank=True),
        names="S-0412",
        why="Blank, fluorescent and washed-out slides look like glass. `lamella tissue` draws what was found.",
    ),
    Case(
        step="Tissue and tiles",
        heading="No tile holds enough tissue",
        command=f"tiles S-0412.tif {_CUT} --include lesion.geojson --out tiles",
        scene=lambda: (scenes.draw_slide("S-0412.tif"), scenes.write_region("lesion.geojson", corner=(100, 100))),
        names="S-0412",
        why="The tissue, or what of it the regions leave, is narrower than a tile everywhere.",
    ),
    Case(
        step="Tissue and tiles",
        heading="A tile is larger than the slide",
        command="tiles S-0412.tif --tile-px 1024 --out tiles",
        scene=lambda: scenes.draw_slide("S-0412.tif"),
        names="1024",
        why="Often the resolution is wrong, and the slide is smaller than it should be.",
    ),
    Case(
        step="Tissue and tiles",
        heading="A stride that cannot be",
        command="tiles S-0412.tif --stride 0 --out tiles",
        scene=lambda: None,
        names="stride",
        why="The stride is the way from one tile to the next, in pixels at `--mpp`.",
    ),
    Case(
        step="Tissue and tiles",
        heading="An enlargement that cannot be",
        command="tiles S-0412.tif --max-upsample 40 --out tiles",
        scene=lambda: None,
        names="--max-upsample",
        why="It is a factor, not a magnification.",
    ),
    Case(
        step="Tissue and tiles",
        heading="Regions that are no GeoJSON",
        command=f"tiles S-0412.tif {_CUT} --include tumour.geojson --out tiles",
        scene=lambda: (
            scenes.draw_slide("S-0412.tif"),
            Path("tumour.geojson").write_text("tumour\n", encoding="utf-8"),
        ),
        names="tumour.geojson",
        why="In QuPath: File, Export objects as GeoJSON.",
    ),
    Case(
        step="Tissue and tiles",
        heading="Regions without an area",
        command=f"tiles S-0412.tif {_CUT} --include tumour.geojson --out tiles",
        scene=lambda: (
            scenes.draw_slide("S-0412.tif"),
            Path("tumour.geojson").write_text('{"type": "Point", "coordinates": [100, 80]}', encoding="utf-8"),
        ),
        names="tumour.geojson",
        why="Points and lines enclose nothing.",
    ),
    Case(
        step="Tissue and tiles",
        heading="Regions of another slide",
        command=f"tiles S-0412.tif {_CUT} --include tumour.geojson --out tiles",
        scene=lambda: (scenes.draw_slide("S-0412.tif"), scenes.write_region("tumour.geojson", corner=(9000, 7000))),
        names="S-0412",
        why="The outlines lie outside the slide: they are of another slide, or in um.",
    ),
    Case(
        step="Tissue and tiles",
        heading="One file of regions for several slides",
        command=f"extract S-0412.tif S-0587.tif {_CUT} --exclude pen.geojson --out bags",
        scene=lambda: scenes.write_region("pen.geojson", corner=(10, 10)),
        names="--exclude",
        why="Outlines are in the pixels of one slide.",
    ),
    Case(
        step="Tissue and tiles",
        heading="Regions that are not there",
        command=f"extract S-0412.tif {_CUT} --include outlines --out bags",
        scene=lambda: None,
        names="outlines",
        why="Look for a slip in the name.",
    ),
    Case(
        step="Tissue and tiles",
        heading="No file of regions is called after a slide",
        command=f"tiles S-0412.tif {_CUT} --include regions --out tiles",
        scene=lambda: scenes.write_region("regions/scan-7.geojson", corner=(10, 10)),
        names="S-0412.geojson",
        why="Files are called after slides: `S-0412.geojson`, or `S-0412.svs.geojson` as QuPath does. Slides without a "
        "file are used whole, so where no file fits at all the names are wrong.",
    ),
    Case(
        step="Tissue and tiles",
        heading="Two files of regions for one slide",
        command=f"tiles S-0412.tif {_CUT} --include regions --out tiles",
        scene=lambda: (
            scenes.write_region("regions/S-0412.geojson", corner=(10, 10)),
            scenes.write_region("regions/S-0412.tif.geojson", corner=(90, 10)),
        ),
        names="S-0412.tif.geojson",
        why="Both are of that slide, and they may differ.",
    ),
    Case(
        step="Tissue and tiles",
        heading="Regions of several classes",
        command=f"tiles S-0412.tif {_CUT} --include tumour.geojson --out tiles",
        scene=lambda: scenes.write_region("tumour.geojson", corner=(10, 10), classes=("Tumor", "Stroma")),
        names="Stroma",
        why="Say which class counts. QuPath's classes that end in `*`, such as `Ignore*`, never do.",
    ),
    Case(
        step="Tissue and tiles",
        heading="No region is of that class",
        command=f"tiles S-0412.tif {_CUT} --exclude pen.geojson --exclude-class Pen --out tiles",
        scene=lambda: scenes.write_region("pen.geojson", corner=(10, 10), classes=("Ink", "Fold")),
        names="Ink",
        why="Classes are written as in QuPath; upper and lower case do not matter.",
    ),
    # Encoders and weights -----------------------------------------------------------------------------------------
    Case(
        step="Encoders and weights",
        heading="No encoder has that name",
        command="extract S-0412.tif --encoder resnet51 --out bags",
        scene=lambda: None,
        names="resnet51",
        why="`lamella encoders` lists those by name; all of timm's are `timm:NAME`.",
    ),
    Case(
        step="Encoders and weights",
        heading="The weights are not on this machine",
        command="extract S-0412.tif --encoder resnet50 --out bags",
        scene=lambda: None,
        names="resnet50",
        why="`lamella weights fetch` is the only command that uses the network. Offline, carry the file over and add "
        "it. Random weights are for trying things out.",
    ),
    Case(
        step="Encoders and weights",
        heading="A model of the hub is not on this machine",
        command="extract S-0412.tif --encoder hf-hub:OWNER/NAME --out bags",
        scene=lambda: None,
        names="hf-hub:OWNER/NAME",
        why="Some models ask you to agree to their terms on the hub's site first.",
    ),
    Case(
        step="Encoders and weights",
        heading="The weights file is not there",
        command="extract S-0412.tif --encoder resnet18 --weights resnet18.pth --out bags",
        scene=lambda: None,
        names="resnet18.pth",
        why="Paths are taken from the folder you are in.",
    ),
    Case(
        step="Encoders and weights",
        heading="The weights are of another network",
        command="weights add resnet34 resnet18.pth",
        scene=lambda: scenes.save_weights("resnet18.pth", "resnet18"),
        names="resnet34",
        why="They are compared tensor by tensor before anything runs.",
    ),
    Case(
        step="Encoders and weights",
        heading="The file holds no weights",
        command="weights add resnet18 resnet18.pth",
        scene=lambda: Path("resnet18.pth").write_text("<html>moved</html>", encoding="utf-8"),
        names="resnet18.pth",
        why="A download may bring a web page instead of the file.",
    ),
    Case(
        step="Encoders and weights",
        heading="An encoder of one's own that lacks the function",
        command=f"extract S-0412.tif {_CUT} --encoder mine.py:build --out bags",
        scene=lambda: (scenes.draw_slide("S-0412.tif"), scenes.write_encoder("mine.py", function="make")),
        names="mine.py",
        why="After the colon stands the function that builds the network.",
    ),
    Case(
        step="Encoders and weights",
        heading="An encoder of one's own that gives NaN",
        command=f"extract S-0412.tif {_CUT} --encoder mine.py:build --out bags --precision fp32",
        scene=lambda: (scenes.draw_slide("S-0412.tif"), scenes.write_encoder("mine.py", factor="float('nan')")),
        names="mine.py",
        why="No bag is written with holes in it.",
    ),
    # Feature bags -------------------------------------------------------------------------------------------------
    Case(
        step="Feature bags",
        heading="A finished bag was made otherwise",
        command=f"extract S-0412.tif {_CUT} --encoder mine.py:build --slide-mpp 0.52 --out bags",
        scene=scenes.extract_once,
        names="S-0412",
        why="Bags are kept when slide, tiles and encoder are the same, and never overwritten when they are not.",
    ),
    Case(
        step="Feature bags",
        heading="Embeddings too large for float16",
        command=f"extract S-0412.tif {_CUT} --encoder mine.py:build --precision fp32 --out bags",
        scene=lambda: (scenes.draw_slide("S-0412.tif"), scenes.write_encoder("mine.py", factor="0 + 1e6")),
        names="float16",
        why="float16 ends at 65,504. float32 takes twice the disk.",
    ),
    Case(
        step="Feature bags",
        heading="A bag is damaged",
        command="inspect bags/S-0412.h5",
        scene=lambda: (scenes.save_bags("bags", ["S-0412"]), scenes.cut_short("bags/S-0412.h5", 700)),
        names="S-0412.h5",
        why="Lamella leaves no half bag behind; a copy that was broken off does.",
    ),
    Case(
        step="Feature bags",
        heading="A file is no bag",
        command="inspect S-0412.h5",
        scene=lambda: scenes.save_other_h5("S-0412.h5"),
        names="S-0412.h5",
        why="Bags of TRIDENT, CLAM and STAMP are known too.",
    ),
    Case(
        step="Feature bags",
        heading="A bag's features are no table",
        command=_BAGS,
        scene=lambda: (scenes.write_cohort("slides.csv", n_slides=12), scenes.save_cohort_bags("bags", 12, flat=True)),
        names="S-0412.h5",
        why="Features have a row a tile and a column for each number of the embedding.",
    ),
    Case(
        step="Feature bags",
        heading="A bag is missing",
        command=_BAGS,
        scene=lambda: (scenes.write_cohort("slides.csv", n_slides=12), scenes.save_cohort_bags("bags", 11)),
        names="S-0412",
        why="Bags are found by slide id.",
    ),
    Case(
        step="Feature bags",
        heading="The bags lie deeper",
        command=_BAGS,
        scene=lambda: (
            scenes.write_cohort("slides.csv", n_slides=12),
            scenes.save_cohort_bags("bags/64px_0.5mpp_64px/features_resnet18", 12),
        ),
        names="features_resnet18",
        why="`lamella extract` makes a folder for each way of cutting, and in it one for each encoder.",
    ),
    Case(
        step="Feature bags",
        heading="A bag holds NaN",
        command=_BAGS,
        scene=lambda: (scenes.write_cohort("slides.csv", n_slides=12), scenes.save_cohort_bags("bags", 12, nan=True)),
        names="S-0412",
        why="One such number would spoil every model. Ours never hold any; another tool's may.",
    ),
    Case(
        step="Feature bags",
        heading="Bags of two encoders",
        command=_BAGS,
        scene=lambda: (scenes.write_cohort("slides.csv", n_slides=12), scenes.save_cohort_bags("bags", 12, mixed=True)),
        names="bags",
        why="The numbers of two encoders mean different things.",
    ),
    # Training and results -----------------------------------------------------------------------------------------
    Case(
        step="Training and results",
        heading="No head has that name",
        command=f"{_BAGS} --head atention",
        exit_code=2,
        scene=lambda: scenes.write_cohort("slides.csv", n_slides=12),
        names="atention",
        why="The head pools a slide's tiles into one prediction.",
    ),
    Case(
        step="Training and results",
        heading="A learning rate that cannot be",
        command=f"{_BAGS} --lr nan",
        scene=lambda: scenes.write_cohort("slides.csv", n_slides=12),
        names="learning rate",
        why="The default suits most cohorts.",
    ),
    Case(
        step="Training and results",
        heading="A sensitivity that cannot be",
        command=f"{_BAGS} --sensitivity 95",
        scene=lambda: scenes.write_cohort("slides.csv", n_slides=12),
        names="sensitivity",
        why="A share, not per cent.",
    ),
    Case(
        step="Training and results",
        heading="None of the slides could be done",
        command=f"run slides.csv {_CUT} --encoder mine.py:build --folds 3 --out run",
        scene=scenes.draw_unreadable,
        names="6 slides",
        why="`run/features/failures.csv` has the reason for each.",
    ),
    Case(
        step="Training and results",
        heading="Too many slides of a class could not be done",
        command=f"run slides.csv {_CUT} --encoder mine.py:build --folds 3 --seeds 1 --epochs 1 --out run",
        scene=scenes.draw_mostly_unreadable,
        names="malignant",
        why="The other slides' bags are kept: mend the slides and run the same command again.",
    ),
    Case(
        step="Training and results",
        heading="A table of predictions lacks a column",
        command="measure predictions.csv",
        scene=lambda: scenes.write_table("predictions.csv", "slide_id,prob_benign,prob_malignant", "S-0412,0.2,0.8"),
        names="label",
        why="Predictions are measured against labels.",
    ),
    Case(
        step="Training and results",
        heading="A prediction is not a number",
        command="measure predictions.csv",
        scene=lambda: scenes.write_table(
            "predictions.csv", "slide_id,label,prob_benign,prob_malignant", 'S-0412,benign,"0,8","0,2"'
        ),
        names="predictions.csv",
        why="Some spreadsheets write a comma for the decimal point.",
    ),
    # Predicting new slides ----------------------------------------------------------------------------------------
    Case(
        step="Predicting new slides",
        heading="The folder holds no run",
        command="predict results S-0412.tif --out new",
        scene=lambda: Path("results").mkdir(),
        names="results",
        why="Name the folder itself, not one inside it.",
    ),
    Case(
        step="Predicting new slides",
        heading="The run did not finish",
        command="predict run S-0412.tif --trust mine.py --out new",
        scene=lambda: scenes.save_run("run", models=0),
        names="run",
        why="A run that was stopped goes on where it was.",
    ),
    Case(
        step="Predicting new slides",
        heading="The run's settings are damaged",
        command="predict run S-0412.tif --trust mine.py --out new",
        scene=lambda: (scenes.save_run("run"), scenes.cut_short("run/run.json", 100)),
        names="run.json",
        why="Running again makes this file anew; bags and models that are whole are kept.",
    ),
    Case(
        step="Predicting new slides",
        heading="A model is damaged",
        command="predict run S-0412.tif --trust mine.py --out new",
        scene=lambda: (
            scenes.save_run("run"),
            scenes.cut_short("run/models/fold0/seed0/model.safetensors", 900),
        ),
        names="model.safetensors",
        why="Every model carries the SHA-256 of its numbers.",
    ),
    Case(
        step="Predicting new slides",
        heading="The encoder's weights have changed since",
        command="predict run S-0412.tif --trust mine.py --out new",
        scene=lambda: (scenes.draw_slide("S-0412.tif"), scenes.save_run("run")),
        names="S-0412",
        why="The same name does not make the same encoder; the weights must be those of the run.",
    ),
    Case(
        step="Predicting new slides",
        heading="The run has learned from the slide",
        command="predict run slides.csv --trust mine.py --out new",
        scene=lambda: (
            scenes.draw_slide("S-0412.tif"),
            scenes.write_table("slides.csv", "slide,patient_id,label", "S-0412.tif,P-17,benign"),
            scenes.save_run("run", patients=("P-17",)),
        ),
        names="S-0412",
        why="External validation means slides, and patients, that no model has seen.",
    ),
    Case(
        step="Predicting new slides",
        heading="A margin is given and there is nothing to compare",
        command="predict run S-0412.tif --margin 0.05 --out new",
        scene=lambda: scenes.save_run("run"),
        names="--with",
        why="A margin is how much a shorter network may lose against the whole one: both are needed.",
    ),
    Case(
        step="Predicting new slides",
        heading="The margin cannot be",
        command="predict run S-0412.tif --with other --margin 0.7 --out new",
        scene=lambda: scenes.save_run("run"),
        names="0.7",
        why="The margin is a difference of AUCs, and chance is 0.5.",
    ),
    Case(
        step="Predicting new slides",
        heading="A study is given beside other models",
        command="predict run S-0412.tif --with study --out new",
        scene=lambda: (scenes.save_run("run"), Path("study").mkdir(), scenes.save_undecided_study("study")),
        names="study",
        why="A study knows its arms and what it recommended: `lamella predict STUDY COHORT` predicts them together.",
    ),
    Case(
        step="Predicting new slides",
        heading="The study has reached no verdict yet",
        command="predict study S-0412.tif --out new",
        scene=lambda: (Path("study").mkdir(), scenes.save_undecided_study("study")),
        names="not finished",
        why="What is asked again on new slides is what the study recommended.",
    ),
    Case(
        step="Predicting new slides",
        heading="A prevalence is stated for several models",
        command="predict run S-0412.tif --with other --prevalence 0.1 --out new",
        scene=lambda: scenes.save_run("run"),
        names="--prevalence",
        why="Predictive values at another prevalence are those of one threshold of one model.",
    ),
    Case(
        step="Predicting new slides",
        heading="A file of an exported model was changed",
        command="predict model S-0412.tif --out new",
        scene=lambda: (scenes.save_export("model"), scenes.write_table("model/seen.json", "{}")),
        names="seen.json",
        why="An exported model is used as it was written, byte for byte, or not at all.",
    ),
    Case(
        step="Predicting new slides",
        heading="The card of an exported model was changed",
        command="predict model S-0412.tif --out new",
        scene=lambda: scenes.save_export("model", card_sha256="0"),
        names="model.json",
        why="The threshold stands there, and the hashes of all other files.",
    ),
    Case(
        step="Predicting new slides",
        heading="The study recommends no arm",
        command="export study --out model",
        scene=lambda: scenes.save_undecided_study("study"),
        names="resnet18@2",
        why="Where the study can't tell, the choice is yours, and the card of the model says so.",
    ),
    Case(
        step="Predicting new slides",
        heading="The run's encoder is code, and nobody said that it may run",
        command="predict run S-0412.tif --out new",
        scene=lambda: (scenes.draw_slide("S-0412.tif"), scenes.save_run("run")),
        names="mine.py",
        why="A run may have been passed on by anyone, so nothing that its folder names is executed.",
    ),
    Case(
        step="Predicting new slides",
        heading="The encoder is built by your own code",
        command="export run --out model",
        scene=lambda: scenes.save_run("run"),
        names="mine.py:build",
        why="A file of weights carries numbers, and whoever gets it need not run anybody's code.",
    ),
    Case(
        step="Predicting new slides",
        heading="The folder of the model holds something else",
        command="export run --out slides",
        scene=lambda: scenes.draw_slide("slides/S-0412.tif"),
        names="slides",
        why="An earlier export is replaced; nothing else is.",
    ),
    # Heatmaps -----------------------------------------------------------------------------------------------------
    Case(
        step="Heatmaps",
        heading="The attention is of another slide",
        command="heatmap S-0412.tif run/attention/S-0587.h5 --out pictures",
        scene=lambda: (
            scenes.draw_slide("S-0412.tif"),
            scenes.save_attention_file("run/attention/S-0587.h5", slide_size=(900, 640)),
        ),
        names="S-0587.h5",
        why="Attention on another slide's pixels would look as good, and mean nothing.",
    ),
    Case(
        step="Heatmaps",
        heading="The attention is of another slide of the same size",
        command="heatmap S-0412.tif run/attention/S-0587.h5 --out pictures",
        scene=lambda: (
            scenes.draw_slide("S-0412.tif"),
            scenes.save_attention_file("run/attention/S-0587.h5", slide_size=(620, 500), image="of another file"),
        ),
        names="S-0587.h5",
        why="Slides of one scan format are often of one size; the attention knows which file it was made from.",
    ),
    Case(
        step="Heatmaps",
        heading="A bag is given for the attention",
        command="heatmap S-0412.tif bags/S-0412.h5 --out pictures",
        scene=lambda: (scenes.draw_slide("S-0412.tif"), scenes.save_bags("bags", ["S-0412"])),
        names="S-0412.h5",
        why="A bag holds embeddings. The attention over them lies in the run's folder `attention`.",
    ),
    Case(
        step="Heatmaps",
        heading="No colour map has that name",
        command="heatmap S-0412.tif run/attention/S-0412.h5 --colours infernal --out pictures",
        scene=lambda: (
            scenes.draw_slide("S-0412.tif"),
            scenes.save_attention_file("run/attention/S-0412.h5", slide_size=(620, 500)),
        ),
        names="infernal",
        why="All of matplotlib's are known; viridis, inferno and cividis are read by the colour-blind too.",
    ),
    # Fine-tuning, CKA, maps, localisation ------------------------------------------------------------------------
    Case(
        step="Fine-tuning, CKA, maps, localisation",
        heading="More seeds are to be fine-tuned than are trained",
        command="run slides.csv --finetune tuned --seeds 1 --finetune-seeds 3 --out run",
        scene=lambda: scenes.write_cohort("slides.csv", n_slides=12),
        names="--finetune-seeds",
        why="Each goes on from a head of stage 1.",
    ),
    Case(
        step="Fine-tuning, CKA, maps, localisation",
        heading="There is nothing to compare the encoder with",
        command="run slides.csv --cka --out run",
        scene=lambda: scenes.write_cohort("slides.csv", n_slides=12),
        names="--finetune",
        why="CKA within a run holds the fine-tuned encoder against the frozen one. `lamella cka` compares any two.",
    ),
    Case(
        step="Fine-tuning, CKA, maps, localisation",
        heading="Too few slides for CKA",
        command="cka efficientnet-lite0 efficientnet-lite1 slides.csv --out cka",
        scene=lambda: scenes.write_cohort("slides.csv", n_slides=5),
        names="5 slides",
        why="Each minibatch takes one tile from each slide; with fewer than eight the estimate is mostly noise.",
    ),
    Case(
        step="Fine-tuning, CKA, maps, localisation",
        heading="The run came without its slides' paths",
        command="cam run --trust mine.py",
        scene=lambda: scenes.save_run("run"),
        names="local/cohort.csv",
        why="What is passed on holds no paths. New slides can be predicted, and then mapped: `--predicted`.",
    ),
    Case(
        step="Fine-tuning, CKA, maps, localisation",
        heading="No slide of the run has that id",
        command="cam run --trust mine.py --slide-id S-0999",
        scene=lambda: scenes.save_tested_run("run"),
        names="S-0999",
        why="Ids are those of the table, or the files' names without their ending.",
    ),
    Case(
        step="Fine-tuning, CKA, maps, localisation",
        heading="No class has that name",
        command="cam run --trust mine.py --class cancer",
        scene=lambda: scenes.save_tested_run("run"),
        names="cancer",
        why="A map is of one class, set against the mean of the others.",
    ),
    Case(
        step="Fine-tuning, CKA, maps, localisation",
        heading="The run was not fine-tuned",
        command="cam run --trust mine.py --arm tuned",
        scene=lambda: scenes.save_tested_run("run"),
        names="--arm frozen",
        why="`lamella run --finetune tuned` makes fine-tuned encoders; with --evaluate all they can be mapped.",
    ),
    Case(
        step="Fine-tuning, CKA, maps, localisation",
        heading="No outlines of a tested slide",
        command="localise run --trust mine.py --lesions outlines",
        scene=lambda: (scenes.save_tested_run("run"), Path("outlines").mkdir()),
        names="outlines",
        why="Only slides that a model has not learned from can be measured on, and of these only those with outlines.",
    ),
    Case(
        step="Fine-tuning, CKA, maps, localisation",
        heading="Outlines of several classes",
        command="localise run --trust mine.py --lesions outlines",
        scene=lambda: (
            scenes.save_tested_run("run"),
            [
                scenes.write_region(f"outlines/S-{412 + i:04d}.geojson", corner=(10, 10), classes=("Tumor", "Normal"))
                for i in range(12)
            ],
        ),
        names="--lesion-class",
        why="Only one of them is lesion: say which. Masks with several labels need `--lesion-value`.",
    ),
    # Studies --------------------------------------------------------------------------------------------------------
    Case(
        step="Studies",
        heading="It is not said what to compare",
        command="study slides.csv --out study",
        scene=lambda: scenes.write_cohort("slides.csv", n_slides=12),
        names="--preset",
        why="A study needs a design: a preset, or a file that declares it (docs/study.md).",
    ),
    Case(
        step="Studies",
        heading="No preset has that name",
        command="study slides.csv --preset quik --out study",
        scene=lambda: scenes.write_cohort("slides.csv", n_slides=12),
        names="quick",
        why="`lamella study --print-preset quick` prints one to edit.",
    ),
    Case(
        step="Studies",
        heading="A key of the declared file is misspelt",
        command="study mine.yaml --cohort slides.csv --out study",
        scene=lambda: scenes.write_table(
            "mine.yaml", "arms:", "  - encoders: [efficientnet-lite0]", "    dephts: [4, 3]"
        ),
        names="line 3",
        why="Nothing in the file is ignored in silence. Keys are explained in docs/study.md.",
    ),
    Case(
        step="Studies",
        heading="A value of the declared file cannot be",
        command="study mine.yaml --cohort slides.csv --out study",
        scene=lambda: scenes.write_table("mine.yaml", "arms:", "  - encoders: [efficientnet-lite0]", "margin: 2"),
        names="margin",
        why="The margin is a difference of AUCs.",
    ),
    Case(
        step="Studies",
        heading="The declared file names an encoder that there is not",
        command="study mine.yaml --cohort slides.csv --out study",
        scene=lambda: scenes.write_table("mine.yaml", "arms:", "  - encoders: [resnet81]"),
        names="resnet18",
        why="`lamella encoders` lists all; depths stand under `depths`.",
    ),
    Case(
        step="Studies",
        heading="The reference encoder is not cut",
        command="study mine.yaml --cohort slides.csv --out study",
        scene=lambda: scenes.write_table(
            "mine.yaml", "reference: [efficientnet-lite0]", "arms:", "  - encoders: [efficientnet-lite0]"
        ),
        names="depth 4 and at least one other",
        why="Depths of the reference encoder are tested against its whole network, so there must be some: "
        "`depths: [4, 3, 2]`.",
    ),
    Case(
        step="Studies",
        heading="A study without predictions is to be judged",
        command="study study --judge",
        scene=lambda: (Path("study").mkdir(), scenes.save_undecided_study("study")),
        names="predictions.parquet",
        why="A study is judged from the predictions of its arms; none has finished yet.",
    ),
    Case(
        step="Studies",
        heading="The declared file is not YAML",
        command="study mine.yaml --cohort slides.csv --out study",
        scene=lambda: scenes.write_table("mine.yaml", "arms: ["),
        names="mine.yaml",
        why="Begin with a printed preset.",
    ),
    Case(
        step="Studies",
        heading="The file's cohort is not named",
        command="study mine.yaml --out study",
        scene=lambda: scenes.write_table("mine.yaml", "arms:", "  - encoders: [efficientnet-lite0]"),
        names="--cohort",
        why="A declared study holds no paths, so that it can be passed on.",
    ),
    Case(
        step="Studies",
        heading="A budget that is no time",
        command="study slides.csv --preset quick --budget soon --out study",
        scene=lambda: scenes.write_cohort("slides.csv", n_slides=12),
        names="3h",
        why="Hours, minutes and seconds may be joined: 1h30m.",
    ),
    Case(
        step="Studies",
        heading="The folder holds no study",
        command="study study --status",
        scene=lambda: None,
        names="study.json",
        why="Name the folder that was given as --out.",
    ),
    Case(
        step="Studies",
        heading="The folder holds a study that was designed otherwise",
        command="study mine.yaml --cohort slides.csv --out study",
        scene=lambda: scenes.save_study("study", "mine.yaml"),
        names="seeds",
        why="Arms may be added to a study; with other seeds, folds or tiles its figures would be mixed.",
    ),
    Case(
        step="Studies",
        heading="A table of the cohort has no folds and the design takes given ones",
        command="study mine.yaml --cohort slides.csv --out study",
        scene=lambda: scenes.write_given("mine.yaml"),
        names="lamella split",
        why="camelyon16 takes the official split, which stands in the column `split`.",
    ),
    # Writing, and being stopped -----------------------------------------------------------------------------------
    Case(
        step="Writing, and being stopped",
        heading="A file is in the way of the folder",
        command=f"tiles S-0412.tif {_CUT} --out tiles/new",
        scene=lambda: (scenes.draw_slide("S-0412.tif"), Path("tiles").touch()),
        names="tiles",
        why="The same is said of folders that you may not write to, and of disks mounted read-only.",
    ),
    Case(
        step="Writing, and being stopped",
        heading="The disk is full",
        command=f"tiles S-0412.tif {_CUT} --out tiles",
        scene=lambda: scenes.draw_slide("S-0412.tif"),
        during=disk_full,
        names="tiles",
        why="`lamella audit` estimates the space beforehand.",
    ),
    Case(
        step="Writing, and being stopped",
        heading="The machine allows no more processes",
        command=f"tiles S-0412.tif {_CUT} --out tiles",
        scene=lambda: scenes.draw_slide("S-0412.tif"),
        during=no_processes,
        names="ulimit -a",
        why="Nothing is wrong with the slide: what the machine refuses is said as such.",
    ),
    Case(
        step="Writing, and being stopped",
        heading="Ctrl-C",
        command=f"tiles S-0412.tif {_CUT} --out tiles",
        scene=lambda: scenes.draw_slide("S-0412.tif"),
        during=ctrl_c,
        names="run the same command again",
        why="The exit code is 130. The same holds when the machine is switched off: finished files are used again.",
        exit_code=130,
    ),
)


def render_gallery() -> str:
    """Return docs/troubleshooting.md: each case with what the program says today."""
    parts = [
        "# Troubleshooting\n\nEvery refusal is one line: which thing, what it has and what is needed, what to do. "
        "This page is made from the program: each command below was run, and each message is what it said. Search it "
        "for a few words of yours; your names and numbers stand where these do.\n\n"
        "The command ends with exit code 1. Anything with a traceback is our bug: tell us, with the traceback.\n"
    ]
    for step, introduction in STEPS.items():
        parts.append(f"## {step}\n" + (f"\n{introduction}\n" if introduction else ""))
        parts += [render_case(case, show_case(case).message) for case in CASES if case.step == step]
    return "\n".join(parts)


def render_case(case: Case, message: str) -> str:
    """Return one case as it stands on the page."""
    return f"### {case.heading}\n\n```console\n$ lamella {case.command}\n{message}\n```\n\n{case.why}\n"


def read_gallery(page: Path) -> dict[str, str]:
    """Return what docs/troubleshooting.md has under each heading: heading -> message."""
    text = page.read_text(encoding="utf-8")
    found = re.findall(r"^### (.+)\n\n```console\n\$ .+\n(.*)\n```$", text, flags=re.MULTILINE)
    return dict(found)
