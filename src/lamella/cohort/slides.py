"""Cohorts without a table: slides named one by one."""

import dataclasses
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from lamella.cohort.cohort import Cohort, CohortColumns, CohortSlide, name_slide
from lamella.cohort.columns import is_slide_id
from lamella.cohort.table import load_cohort
from lamella.errors import CohortError
from lamella.words import name_some

_TABLES = (".csv", ".parquet", ".tsv")


def gather_slides(
    paths: Sequence[Path],
    *,
    slide_mpp: float | None = None,
    image: str | None = None,
    columns: CohortColumns | None = None,
) -> Cohort:
    """Return slides named one by one, or by one table, as a cohort that need not be labelled.

    Args:
        paths: Slides, each its own patient; or a single table (CSV or Parquet).
        slide_mpp: Resolution of level 0, in um per pixel, for slides whose row does not give one.
        image: Which image of files that hold several, for slides whose row does not say; a number from 1 or a name.
        columns: Names of the table's columns.

    Raises:
        CohortError: If nothing is named, or two files have the same stem.
    """
    if not paths:
        raise CohortError("no slide is named. Name slides, or a table of slides.")
    if len(paths) == 1 and paths[0].suffix.lower() in _TABLES:
        cohort = load_cohort(paths[0], columns=columns or CohortColumns(), labelled=False)
        return fill_in(cohort, slide_mpp=slide_mpp, image=image)
    stems = Counter(name_slide(path) for path in paths)
    twice = next((stem for stem, n in stems.items() if n > 1), None)
    if twice is not None:
        raise CohortError(
            f"{stems[twice]} slides are called '{twice}'. Put them into a table with a slide_id column, and "
            "name the table instead."
        )
    unfit = [stem for stem in stems if not is_slide_id(stem)]
    if unfit:
        what = f"slide {name_some(unfit)} gives its" if len(unfit) == 1 else f"slides {name_some(unfit, 20)} give their"
        remedy = "Rename it" if len(unfit) == 1 else "Rename them"
        raise CohortError(
            f"{what} name to result files and tables, and some system or spreadsheet takes it for something else. "
            f"{remedy}, or put all slides into a table with a slide_id column, and name the table instead."
        )
    slides = tuple(
        CohortSlide(
            slide_id=name_slide(path),
            path=path.absolute(),
            patient_id=name_slide(path),
            slide_mpp=slide_mpp,
            slide_image=image,
        )
        for path in paths
    )
    return Cohort(slides=slides, classes=(), positive=None, notes=(), patients_given=False)


def fill_in(cohort: Cohort, *, slide_mpp: float | None = None, image: str | None = None) -> Cohort:
    """Return the cohort with what its rows leave out: a resolution, and which image of files that hold several.

    Args:
        cohort: As its table says.
        slide_mpp: um per level-0 pixel; None leaves it to the files.
        image: A number from 1, or a name; None leaves it to the files.
    """
    slides = tuple(
        dataclasses.replace(
            slide,
            slide_mpp=slide_mpp if slide.slide_mpp is None else slide.slide_mpp,
            slide_image=image if slide.slide_image is None else slide.slide_image,
        )
        for slide in cohort.slides
    )
    return dataclasses.replace(cohort, slides=slides)
