"""lamella train."""

from pathlib import Path
from typing import Annotated

import typer

from lamella.cli.groups import takes_groups
from lamella.cli.options import CohortArgument, ColumnOptions, JsonOption, SeedOption, TalkOptions
from lamella.cli.tables import print_json, print_table
from lamella.cli.training_options import TrainOptions


@takes_groups
def train(
    cohort: CohortArgument,
    columns: ColumnOptions,
    training: TrainOptions,
    talk: TalkOptions,
    features: Annotated[
        Path,
        typer.Option(
            "--features", help="Folder of <slide_id>.h5 or .pt: ours, TRIDENT's, CLAM's or STAMP's.", show_default=False
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for models and results.", show_default=False)],
    seed: SeedOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Train and test heads on feature bags.

    The bags are there already; no slide is opened.

    Writes OUT/models, OUT/predictions.csv and OUT/metrics.json, and OUT/attention where the bags state where their
    tiles lie. Finished models of the same data are kept.
    """
    progress = talk.open()
    given = columns.load(cohort, progress)

    from lamella.reports.summary import list_remarks, summarise_run
    from lamella.runs.execute import train_on_bags

    result = train_on_bags(given, features, training.settings(seed=seed), out, progress=progress)
    for note in result.notes:
        progress.say(note)
    if as_json:
        print_json({"out": str(out), "metrics": result.metrics.as_json()})
    else:
        print_table(["what", "AUC", "95% interval", "pooled AUC"], summarise_run(result.metrics))
        for remark in list_remarks(result.metrics):
            progress.say(remark)
        progress.say(f"Models and results are in '{out}'.")
