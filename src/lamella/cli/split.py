"""lamella split."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lamella.cells import Cell
from lamella.cli.groups import takes_groups
from lamella.cli.options import CohortArgument, ColumnOptions, JsonOption, SeedOption, TalkOptions
from lamella.cli.tables import print_json, print_table
from lamella.defaults import N_FOLDS
from lamella.errors import SettingsError

if TYPE_CHECKING:
    from lamella.cohort import Cohort, CohortSlide


@takes_groups
def split(
    cohort: CohortArgument,
    columns: ColumnOptions,
    talk: TalkOptions,
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="FILE", help="The table to write, CSV.", show_default=False)
    ],
    folds: Annotated[
        str | None,
        typer.Option(
            "--folds",
            metavar="N|batch",
            help="Number of folds, 3 or more; or batch, which leaves out one batch at a time.",
            show_default=str(N_FOLDS),
        ),
    ] = None,
    holdout: Annotated[
        bool, typer.Option("--holdout", help="Split once into train, val and test, 65/15/20, instead of making folds.")
    ] = False,
    seed: SeedOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Divide a cohort into folds or splits, by patient.

    All slides of a patient stay together and the labels are spread evenly. In round k fold k tests, fold k+1
    validates and the others train. The same seed gives the same folds on every machine, whatever the order of rows.
    """
    if holdout and folds is not None:
        raise SettingsError("--holdout and --folds ask for two different divisions. Pass one of them.")
    if out.resolve() == cohort.resolve():
        raise SettingsError(
            f"--out '{out}' is the cohort itself, whose other columns would be lost. Pass another --out."
        )
    progress = talk.open()
    given = columns.load(cohort, progress)

    from lamella.cohort import save_cohort, split_by_batch, split_folds, split_holdout

    if holdout:
        divided = split_holdout(given, seed=seed)
    elif folds == "batch":
        divided = split_by_batch(given)
    else:
        divided = split_folds(given, n_folds=_read_folds(folds), seed=seed)
    for was in ("split", "fold"):
        if any(getattr(slide, was) is not None for slide in given.slides):
            progress.say(
                f"The column '{getattr(columns.names(), was)}' of '{cohort.name}' is replaced in '{out.name}'."
            )
    save_cohort(divided, out)
    rows = _count(divided)
    if as_json:
        print_json({"out": str(out), "counts": rows})
    else:
        print_table(list(rows[0]), rows)
        progress.say(f"Wrote '{out}'.")


def _read_folds(folds: str | None) -> int:
    """Return the number of folds."""
    if folds is None:
        return N_FOLDS
    if not folds.isdecimal():
        raise SettingsError(f"--folds is '{folds}' and must be a number from 3, or batch. Pass --folds {N_FOLDS}.")
    return int(folds)


def _count(cohort: "Cohort") -> list[dict[str, Cell]]:
    """Count patients and slides, and slides of each class, by fold or split."""
    parts: dict[str, list[CohortSlide]] = {}
    for slide in sorted(
        cohort.slides, key=lambda slide: (slide.fold or 0, slide.split != "train", slide.split != "val")
    ):
        parts.setdefault(slide.split or str(slide.fold), []).append(slide)
    name = "split" if cohort.slides[0].split else "fold"
    batches = cohort.folds_are_batches
    return [
        {
            name: part,
            **({"batch": slides[0].batch} if batches else {}),
            "patients": len({slide.patient_id for slide in slides}),
            "slides": len(slides),
            **{label: sum(slide.label == label for slide in slides) for label in cohort.classes},
        }
        for part, slides in parts.items()
    ]
