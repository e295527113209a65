"""lamella compare."""

from pathlib import Path
from typing import Annotated

import typer

from lamella.cli.echo import echo
from lamella.cli.options import JsonOption
from lamella.cli.tables import print_json, print_verdict
from lamella.defaults import MARGIN


def compare(
    tables: Annotated[
        list[str],
        typer.Argument(
            metavar="[NAME=]TABLE...",
            help="Predictions of one arm each: a table (CSV or Parquet), the folder of a run or study, or a folder "
            "with a file a fold, as STAMP and CLAM write them. NAME is the file's own without its ending.",
            show_default=False,
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Where results go.", show_default=False)],
    patients: Annotated[
        Path | None,
        typer.Option(
            "--patients",
            metavar="TABLE",
            help="What the predictions do not say: slide_id, patient_id, label, batch, fold.",
            show_default=False,
        ),
    ] = None,
    costs: Annotated[
        Path | None,
        typer.Option(
            "--costs",
            metavar="TABLE",
            help="What each arm costs: arm, and seconds_a_slide, gflops or cost.",
            show_default="none: the arm named first is preferred",
        ),
    ] = None,
    positive: Annotated[
        str | None, typer.Option("--positive", help="The label that is looked for.", show_default="the last sorted")
    ] = None,
    margin: Annotated[float, typer.Option("--margin", help="AUC that the recommended arm may give up.")] = MARGIN,
    reference: Annotated[
        str | None,
        typer.Option("--reference", metavar="NAME", help="Arm that every other is held against.", show_default="none"),
    ] = None,
    folds_left_out: Annotated[
        int,
        typer.Option(
            "--folds-left-out",
            min=1,
            max=2,
            help="Of cross-validation: folds that the model which scores a fold did not learn from. 2: that fold and "
            "one that validates; 1: that fold alone.",
        ),
    ] = 2,
    as_json: JsonOption = False,
) -> None:
    """Compare predictions of any tool, paired by patient: which arm is as good, which is worse.

    A table has slide_id or patient_id or both, label, and prob_<class> or logit_<class> for each class (or score, of
    the positive one); perhaps fold, seed, batch, and arm where it holds several. STAMP's patient-preds.csv and CLAM's
    fold_0.csv are read as they are.

    Writes DIR/report.html, and the predictions, metrics and verdict that it shows.
    """
    from lamella.pipeline.compare import compare_tables
    from lamella.studies.compare import CompareSettings, name_tables

    settings = CompareSettings(margin=margin, positive=positive, reference=reference, n_left_out=folds_left_out)
    compared = compare_tables(name_tables(tables), out, settings=settings, costs=costs, patients=patients)
    if as_json:
        verdict = compared.verdict
        print_json({"out": str(out), "verdict": verdict["verdict"], "arms": verdict["arms"]})
        return
    print_verdict(compared.verdict, cost=compared.cost_unit)
    for note in compared.record.notes:
        echo(note)
    echo(f"The page is '{compared.folder.page}'.")
