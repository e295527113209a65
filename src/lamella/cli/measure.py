"""lamella measure."""

from pathlib import Path
from typing import Annotated

import typer

from lamella.cli.echo import echo
from lamella.cli.options import JsonOption
from lamella.cli.tables import print_json, print_table


def measure(
    predictions: Annotated[
        Path, typer.Argument(metavar="PREDICTIONS", help="Table as predictions.csv of a run.", show_default=False)
    ],
    positive: Annotated[
        str | None, typer.Option("--positive", help="The label that is scored.", show_default="the last label sorted")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Measure a table of predictions.

    AUC within folds with its interval, calibration, by slide, patient and batch.

    The table has the columns slide_id, label and prob_<class> or logit_<class>; optionally patient_id, fold, batch.
    """
    from lamella.reports.summary import list_remarks, summarise_run
    from lamella.runs.measure import measure_table

    metrics = measure_table(predictions, positive=positive)
    if as_json:
        print_json(metrics.as_json())
    else:
        print_table(["what", "AUC", "95% interval", "pooled AUC"], summarise_run(metrics))
        for remark in list_remarks(metrics):
            echo(remark)
