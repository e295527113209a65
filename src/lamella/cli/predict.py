"""lamella predict."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lamella.cells import Cell
from lamella.cli.encoder_options import TrustOptions
from lamella.cli.groups import takes_groups
from lamella.cli.options import ImageOption, JsonOption, LabelColumnOptions, TalkOptions
from lamella.cli.tables import print_json, print_table, tell_failures
from lamella.defaults import MARGIN
from lamella.errors import SettingsError

if TYPE_CHECKING:
    from lamella.mil import SlidePrediction


@takes_groups
def predict(
    model: Annotated[
        Path,
        typer.Argument(
            metavar="DIR",
            help="Folder of a finished `lamella run`, `lamella study`, or of `lamella export`.",
            show_default=False,
        ),
    ],
    slides: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="SLIDE...|COHORT",
            help="New slides, or one table of them; none with --features.",
            show_default=False,
        ),
    ] = None,
    *,
    columns: LabelColumnOptions,
    trusted: TrustOptions,
    talk: TalkOptions,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the predictions.", show_default=False)],
    features: Annotated[
        list[str] | None,
        typer.Option(
            "--features",
            metavar="[NAME=]DIR",
            help="Bags of the new slides, of any tool that `lamella inspect` knows: nothing is encoded. Of a study, "
            "or with --with, once for each arm, by its name.",
            show_default=False,
        ),
    ] = None,
    table: Annotated[
        Path | None,
        typer.Option(
            "--cohort",
            metavar="TABLE",
            help="With --features: the table of the slides, labelled or not.",
            show_default="all bags, unlabelled",
        ),
    ] = None,
    slide_mpp: Annotated[
        float | None,
        typer.Option(
            "--slide-mpp",
            help="Resolution of level 0, um per pixel, for slides whose file and row do not state it.",
            show_default="what the file states",
        ),
    ] = None,
    image: ImageOption = None,
    beside: Annotated[
        list[Path] | None,
        typer.Option(
            "--with",
            metavar="DIR",
            help="Another run or export, predicted too and held against DIR: its network cut shorter. May be given "
            "again, the deepest first.",
            show_default=False,
        ),
    ] = None,
    margin: Annotated[
        float | None,
        typer.Option(
            "--margin",
            help="How much AUC may be given up, with --with or a study.",
            show_default=f"the study's, or {MARGIN}",
        ),
    ] = None,
    prevalence: Annotated[
        float | None,
        typer.Option(
            "--prevalence",
            metavar="SHARE",
            help="With labels: PPV, NPV and net benefit at this share of positives, such as 0.1.",
            show_default="that of these slides",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Predict new slides with a finished run or an exported model.

    Slides are cut and encoded as it did; the prediction is the mean of its models' logits. Heatmaps are drawn. An
    exported model also says which slides are unlike those it was trained on.

    Where the table has labels, metrics.json is written too, at the threshold that was frozen: external validation.
    Slides and patients that it has learned from are refused then.

    With --features nothing is encoded: bags are predicted, of any tool, and refused where they are known to be of
    another encoder, revision, width or scale than those that the model has learned from.

    Of a study, or with --with, every depth up to the recommended one is predicted, and external.json says whether the
    recommendation is confirmed there, not confirmed, or inconclusive; arms.csv has a row for each.
    """
    progress = talk.open()
    trusted.apply()

    from lamella.exports.external import is_study, open_beside, open_study_arms
    from lamella.exports.open import open_predictor
    from lamella.files import parse_json_file
    from lamella.pipeline.predict import predict_bags, predict_slides, predict_together
    from lamella.runs.predict_bags import list_bag_slides

    several = is_study(model) or bool(beside)
    _refuse_unfit(features or [], margin=margin, prevalence=prevalence, several=several)
    paths = _find_slides(slides or [], features or [], table)
    given = columns.gather(paths, slide_mpp=slide_mpp, image=image) if paths else None
    external = None
    if several:
        folders = _name_folders(features or [])
        arms = (
            open_beside([model, *beside], margin=margin)
            if beside
            else open_study_arms(model, margin=margin, on_bags=bool(features), progress=progress)
        )
        cohort = given or list_bag_slides(next(iter(folders.values())))
        predictions, failures, external = predict_together(
            arms, cohort, out, features=folders or None, progress=progress
        )
        classes = arms.predictor().classes
    else:
        predictor = open_predictor(model)
        classes = predictor.classes
        if features:
            predictions, failures = predict_bags(
                predictor, features[0], out, cohort=given, prevalence=prevalence, progress=progress
            )
        else:
            assert given is not None, "without bags slides are named"
            predictions, failures = predict_slides(predictor, given, out, prevalence=prevalence, progress=progress)
    rows = [_describe(prediction, classes) for prediction in predictions]
    if as_json:
        print_json({"out": str(out), "predictions": rows, **({} if external is None else {"external": external})})
    elif rows:
        print_table(list(rows[0]), rows)
        if external is not None:
            print_table(["arm", "AUC", "95% interval", "loss", "answer"], [_compare(arm) for arm in external["arms"]])
            progress.say(external["sentence"])
        if prevalence is not None:
            stated = parse_json_file(out / "metrics.json")["at_prevalence"]
            print_table(["what", "value", "95% interval"], [_restate(name, stated[name]) for name in ("ppv", "npv")])
            progress.say(f"At a prevalence of {prevalence:g}; net benefit at each cut is in metrics.json.")
        progress.say(f"Predictions and heatmaps are in '{out}'.")
    tell_failures(failures, out / "failures.csv")


def _refuse_unfit(features: list[str], *, margin: float | None, prevalence: float | None, several: bool) -> None:
    """Refuse options that do not go together."""
    if margin is not None and not 0 < margin < 0.5:
        raise SettingsError(f"--margin is {margin} and must be above 0 and below 0.5. Pass --margin {MARGIN}.")
    if prevalence is not None and several:
        raise SettingsError("--prevalence is of one model and several are given. Predict with the one you mean.")
    if margin is not None and not several:
        raise SettingsError("--margin compares models and only one is given. Name others by --with, or leave it out.")
    if len(features) > 1 and not several:
        raise SettingsError("--features names several folders and one model is given. Pass one folder.")


def _find_slides(slides: list[Path], features: list[str], table: Path | None) -> list[Path]:
    """Return the slides, or their table; nothing where all bags of a folder are meant."""
    if table is not None and (slides or not features):
        what = "slides are named too" if slides else "no --features"
        raise SettingsError(f"--cohort is the table of bags, and {what}. Name slides, or pass --features and --cohort.")
    if features and len(slides) > 1:
        raise SettingsError("--features names bags, and slides are named too. Pass their table: --cohort TABLE.")
    if not features and not slides:
        raise SettingsError("no slide is named. Name slides, a table of them, or the folder of their bags: --features.")
    return slides if table is None else [table]


def _name_folders(features: list[str]) -> dict[str, Path]:
    """Return the folders of bags by arm, each given as NAME=DIR."""
    named = [text.partition("=") for text in features]
    for text, (name, separator, folder) in zip(features, named, strict=True):
        if not (name and separator and folder):
            raise SettingsError(f"--features is '{text}' and several models are given. Pass NAME=DIR for each arm.")
    return {name: Path(folder) for name, _, folder in named}


def _restate(name: str, figure: Mapping[str, Any]) -> dict[str, Cell]:
    """Return one figure's row: its value and interval, or why it cannot be had."""
    if figure["value"] is None:
        return {"what": name.upper(), "value": figure["reason"]}
    interval = "" if figure["interval"] is None else "{:.3f} to {:.3f}".format(*figure["interval"])
    return {"what": name.upper(), "value": f"{figure['value']:.3f}", "95% interval": interval}


def _compare(arm: Mapping[str, Any]) -> dict[str, Cell]:
    """Return one arm's row: its AUC, what it loses against the whole network, and whether that is confirmed."""
    low, high = arm["interval"]
    loss = "" if arm["loss"] is None else f"{arm['loss']:.3f}"
    return {
        "arm": arm["arm"],
        "AUC": f"{arm['auc']:.3f}",
        "95% interval": f"{low:.3f} to {high:.3f}",
        "loss": loss,
        "answer": arm["answer"] or "",
    }


def _describe(prediction: "SlidePrediction", classes: tuple[str, ...]) -> dict[str, Cell]:
    """Return one slide's row: probabilities, where folds differ their SD, and how it is unlike those of training."""
    row: dict[str, Cell] = {"slide_id": prediction.slide_id, "label": prediction.label or ""}
    row |= {name: round(float(p), 4) for name, p in zip(classes, prediction.probabilities, strict=True)}
    if prediction.spread is not None:
        row["sd"] = round(float(prediction.spread.sd.max()), 4)
    if prediction.unlike is not None:
        row["unlike"] = ", ".join(name for name in ("mpp", "colour", "embedding") if getattr(prediction.unlike, name))
    return row
