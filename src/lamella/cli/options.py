"""Options that several verbs share: declared once, so that they are spelt and explained the same everywhere.

Groups of options that travel together are dataclasses; `lamella.cli.groups` says how a verb takes them.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lamella.cohort.cohort import CohortColumns
from lamella.cohort.column_names import OPTIONS
from lamella.defaults import CamArm

if TYPE_CHECKING:
    from lamella.cli.progress import RichProgress
    from lamella.cohort import Cohort

_COHORT = "Columns of the cohort"
_USUAL = CohortColumns()


def read_mpp(text: str) -> float:
    """Return a resolution in um per pixel; a magnification is answered with what it usually is.

    Raises:
        typer.BadParameter: If it is no number.

    Example:
        >>> read_mpp("0.25")
        0.25
    """
    try:
        mpp = float(text)
    except ValueError:
        scale = re.fullmatch(r"\s*(?:[x\u00d7]\s*)?(\d+(?:\.\d+)?)\s*[x\u00d7]?\s*", text, re.IGNORECASE)
        if scale is None or float(scale[1]) <= 0:
            raise typer.BadParameter(f"'{text}' is not a number. Give um per pixel, such as 0.5.") from None
        raise typer.BadParameter(
            f"'{text}' is a magnification and um per pixel are needed: 0.5 is 20x and 0.25 is 40x on most scanners. "
            f"For {scale[1]}x pass {10 / float(scale[1]):g}."
        ) from None
    return mpp


def read_px(text: str) -> int | str:
    """Return the side of a tile, or `auto`.

    Raises:
        typer.BadParameter: If it is neither.

    Example:
        >>> read_px("224"), read_px("auto")
        (224, 'auto')
    """
    if text == "auto":
        return text
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise typer.BadParameter(f"'{text}' is no number of pixels. Give one, such as 224, or auto.")
    return int(text)


def read_own_mpp(text: str) -> float | str:
    """Return a resolution as `read_mpp` does, or `auto`."""
    return text if text == "auto" else read_mpp(text)


CohortArgument = Annotated[
    Path,
    typer.Argument(
        metavar="COHORT",
        help="Cohort table, CSV or Parquet, one row a slide: the columns slide (a path, relative to the table) and "
        "label; if you like slide_id, patient_id, split, fold, slide_mpp, batch, slide_image.",
        show_default=False,
    ),
]
SlidesArgument = Annotated[
    list[Path],
    typer.Argument(metavar="SLIDE...|COHORT", help="Slides, or one table of slides.", show_default=False),
]
RunArgument = Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a finished run.", show_default=False)]
ArmOption = Annotated[CamArm, typer.Option(help="Stage 1, or the fine-tuned encoders of --finetune tuned.")]
ImageOption = Annotated[
    str | None,
    typer.Option(
        "--image",
        metavar="N|NAME",
        help="Which image of files that hold several, for slides whose row names none (column slide_image).",
        show_default="the largest in colour",
    ),
]
LesionClassOption = Annotated[
    list[str] | None,
    typer.Option(
        "--lesion-class",
        metavar="NAME",
        help="Class of the outlines that is lesion, where they have several (repeatable).",
        show_default=False,
    ),
]
LesionValueOption = Annotated[
    list[str] | None,
    typer.Option(
        "--lesion-value",
        metavar="VALUE",
        help="Value of the masks that is lesion, 2 or #00ff00, where they have several (repeatable).",
        show_default=False,
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as JSON on standard output.")]
SeedOption = Annotated[int, typer.Option("--seed", min=0, help="Number that all that is drawn by chance depends on.")]


def _column(field: str, help_text: str) -> Any:
    return typer.Option(OPTIONS[field], metavar="NAME", help=help_text, rich_help_panel=_COHORT)


@dataclass(frozen=True, slots=True, kw_only=True)
class SlideColumnOptions:
    """Names of the columns that say which slides there are."""

    slide_col: Annotated[str, _column("slide", "Column of the slides' paths.")] = _USUAL.slide
    id_col: Annotated[str, _column("slide_id", "Column of the slides' ids; without it, the file names.")] = (
        _USUAL.slide_id
    )
    mpp_col: Annotated[str, _column("slide_mpp", "Column of resolutions, um per pixel, that override the files'.")] = (
        _USUAL.slide_mpp
    )
    image_col: Annotated[str, _column("slide_image", "Column of the image to read, of files that hold several.")] = (
        _USUAL.slide_image
    )

    def names(self) -> CohortColumns:
        """Return the names of the columns; those that a verb does not ask for keep their defaults."""
        options = {field: option.removeprefix("--").replace("-", "_") for field, option in OPTIONS.items()}
        return CohortColumns(
            **{field: getattr(self, option) for field, option in options.items() if hasattr(self, option)}
        )

    def gather(self, paths: list[Path], *, slide_mpp: float | None, image: str | None = None) -> "Cohort":
        """Return slides named one by one, or by one table, as a cohort that need not be labelled."""
        from lamella.cohort import gather_slides
        from lamella.slide import list_slides

        return gather_slides(list_slides(paths), slide_mpp=slide_mpp, image=image, columns=self.names())


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelColumnOptions(SlideColumnOptions):
    """Names of the columns of new slides, which may have labels."""

    label_col: Annotated[str, _column("label", "Column of the labels.")] = _USUAL.label
    patient_col: Annotated[str, _column("patient_id", "Column of the patients; without it, each slide is one.")] = (
        _USUAL.patient_id
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnOptions(LabelColumnOptions):
    """Names of a cohort table's columns, and the positive label."""

    split_col: Annotated[str, _column("split", "Column that says train, val or test.")] = _USUAL.split
    fold_col: Annotated[str, _column("fold", "Column of the round, from 0, in which a slide is tested.")] = _USUAL.fold
    batch_col: Annotated[str, _column("batch", "Column of batches (laboratory, scanner, block).")] = _USUAL.batch
    positive: Annotated[
        str | None,
        typer.Option(
            "--positive",
            metavar="LABEL",
            help="The label whose probability is scored.",
            show_default="the last label sorted",
            rich_help_panel=_COHORT,
        ),
    ] = None

    def load(self, path: Path, progress: "RichProgress", *, labelled: bool = True) -> "Cohort":
        """Read a cohort table and say what was assumed."""
        from lamella.cohort import load_cohort

        cohort = load_cohort(path, columns=self.names(), positive=self.positive, labelled=labelled)
        for note in cohort.notes:
            progress.say(note)
        return cohort


@dataclass(frozen=True, slots=True, kw_only=True)
class TalkOptions:
    """How much is said."""

    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Say on standard error what is done, step by step.")
    ] = False
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Show no progress and say nothing but results and errors.")
    ] = False

    def open(self) -> "RichProgress":
        """Return what the library reports to."""
        from lamella.cli.progress import RichProgress

        return RichProgress(verbose=self.verbose, quiet=self.quiet)
