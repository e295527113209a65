"""lamella export."""

from pathlib import Path
from typing import Annotated

import typer

from lamella.cli.groups import takes_groups
from lamella.cli.options import JsonOption, TalkOptions
from lamella.cli.tables import print_json


@takes_groups
def export(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="DIR", help="Folder of a finished `lamella run` or `lamella study`.", show_default=False
        ),
    ],
    talk: TalkOptions,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the model.", show_default=False)],
    arm: Annotated[
        str | None,
        typer.Option(
            "--arm",
            metavar="NAME",
            help="Of a study, the arm's name; of a run frozen, head or tuned.",
            show_default="the recommended one; of a run frozen",
        ),
    ] = None,
    onnx: Annotated[bool, typer.Option("--onnx", help="Write encoder and heads as ONNX too, for other programs.")] = (
        False
    ),
    pseudonyms: Annotated[
        bool,
        typer.Option(
            "--pseudonyms",
            help="Keep the salt of the ids' hashes back: no id can be tried against the model, and patients of "
            "training are known again by their files alone.",
        ),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Export a model as one folder that predicts by itself.

    The folder holds the encoder, all heads, how slides are cut, the threshold, a card (README.md, model.json) and what
    slides of training look like. `lamella predict` takes it in place of a run; no study, cohort, network or weights
    are needed, and no file names a slide, a patient or a path.
    """
    progress = talk.open()

    from lamella.exports.card import load_card
    from lamella.exports.write import ExportSettings, export_model

    export_model(source, out, ExportSettings(arm=arm, onnx=onnx, pseudonyms=pseudonyms), progress=progress)
    card = load_card(out)
    if as_json:
        print_json({"out": str(out), "arm": card.arm, "files": card.files})
        return
    progress.say(f"The model '{card.arm}' is in '{out}'; README.md there says what it was trained on and its limits.")
