"""lamella predict."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lamella.cli.encoder_options import TrustOptions
from lamella.cli.groups import takes_groups
from lamella.cli.options import ImageOption, JsonOption, LabelColumnOptions, TalkOptions
from lamella.cli.tables import print_json, print_table, tell_failures

if TYPE_CHECKING:
    from lamella.study.rounds import RoundPrediction


@takes_groups
def predict(
    model: Annotated[
        Path,
        typer.Argument(
            metavar="DIR", help="Folder of a finished `lamella run`, or of `lamella export`.", show_default=False
        ),
    ],
    slides: Annotated[
        list[Path],
        typer.Argument(metavar="SLIDE...|COHORT", help="New slides, or one table of them.", show_default=False),
    ],
    columns: LabelColumnOptions,
    trusted: TrustOptions,
    talk: TalkOptions,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the predictions.", show_default=False)],
    slide_mpp: Annotated[
        float | None,
        typer.Option(
            "--slide-mpp",
            help="Resolution of level 0, um per pixel, for slides whose file and row do not state it.",
            show_default="what the file states",
        ),
    ] = None,
    image: ImageOption = None,
    as_json: JsonOption = False,
) -> None:
    """Predict new slides with a finished run or an exported model.

    Slides are cut and encoded as it did; the prediction is the mean of its models' logits. Heatmaps are drawn. An
    exported model also says which slides are unlike those it was trained on.

    Where the table has labels, metrics.json is written too, at the threshold that was frozen: external validation.
    Slides and patients that it has learned from are refused then.
    """
    progress = talk.open()
    trusted.apply()

    from lamella.pipeline import predict_slides
    from lamella.study.exported import open_predictor

    predictor = open_predictor(model)
    cohort = columns.gather(slides, slide_mpp=slide_mpp, image=image)
    predictions, failures = predict_slides(predictor, cohort, out, progress=progress)
    rows = [_describe(found, predictor.classes) for found in predictions]
    if as_json:
        print_json({"out": str(out), "predictions": rows})
    elif rows:
        print_table(list(rows[0]), rows)
        progress.say(f"Predictions and heatmaps are in '{out}'.")
    tell_failures(failures, out / "failures.csv")


def _describe(found: "RoundPrediction", classes: tuple[str, ...]) -> dict[str, Any]:
    """Return one slide's row: probabilities, where folds differ their SD, and how it is unlike those of training."""
    row: dict[str, Any] = {"slide_id": found.slide.slide_id, "label": found.slide.label or ""}
    row |= {name: round(float(p), 4) for name, p in zip(classes, found.probabilities, strict=True)}
    if found.spread is not None:
        row["sd"] = round(float(found.spread.sd.max()), 4)
    if found.unlike is not None:
        row["unlike"] = ", ".join(name for name in ("mpp", "colour", "embedding") if getattr(found.unlike, name))
    return row
