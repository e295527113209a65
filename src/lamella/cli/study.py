"""lamella study."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lamella.cli.echo import echo
from lamella.cli.encoder_options import DeviceOption, OffSpecOption, PrecisionOption, TrustOptions
from lamella.cli.groups import takes_groups
from lamella.cli.options import (
    ColumnOptions,
    JsonOption,
    LesionClassOption,
    LesionValueOption,
    TalkOptions,
    read_own_mpp,
    read_px,
)
from lamella.cli.tables import print_json, print_table, print_verdict, tell_failures
from lamella.defaults import DEVICE, PRECISION, TissueName

if TYPE_CHECKING:
    from lamella.cli.progress import RichProgress
    from lamella.cohort import Cohort
    from lamella.studies.design import StudyDesign
    from lamella.studies.execute import Study
    from lamella.studies.options import StudyOptions


@takes_groups
def study(
    columns: ColumnOptions,
    trusted: TrustOptions,
    talk: TalkOptions,
    what: Annotated[
        Path | None,
        typer.Argument(
            metavar="COHORT|STUDY.yaml|DIR",
            help="Cohort table or CAMELYON16's folder (with --preset), a declared study (with --cohort), or with "
            "--status a study's folder.",
            show_default=False,
        ),
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option("--preset", metavar="NAME", help="paper, quick, camelyon16 or gastro.", show_default=False),
    ] = None,
    cohort: Annotated[
        Path | None, typer.Option("--cohort", metavar="TABLE", help="Cohort of a STUDY.yaml.", show_default=False)
    ] = None,
    features: Annotated[
        list[str] | None,
        typer.Option(
            "--features",
            metavar="NAME=DIR",
            help="An arm whose bags are there already, of any tool that `lamella inspect` knows. May be given again.",
            show_default=False,
        ),
    ] = None,
    costs: Annotated[
        Path | None,
        typer.Option(
            "--costs",
            metavar="TABLE",
            help="What those arms cost: arm, and seconds_a_slide or gflops.",
            show_default="GFLOPs, where a card has that name",
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder for everything.", show_default=False)] = None,
    tile_px: Annotated[
        Any,
        typer.Option(
            "--tile-px",
            parser=read_px,
            metavar="INT",
            help="Side of a tile, in pixels; auto is what each encoder was made for.",
            show_default="the preset's",
        ),
    ] = None,
    stride: Annotated[
        int | None, typer.Option("--stride", help="Distance of tiles, in pixels.", show_default="the preset's")
    ] = None,
    mpp: Annotated[
        Any,
        typer.Option(
            "--mpp",
            parser=read_own_mpp,
            metavar="FLOAT",
            help="Resolution of tiles, um per pixel; auto is what each encoder was made for.",
            show_default="the preset's",
        ),
    ] = None,
    slide_mpp: Annotated[
        float | None,
        typer.Option(
            "--slide-mpp",
            help="Resolution of level 0, um per pixel, where a row gives none.",
            show_default="what the file states",
        ),
    ] = None,
    tissue: Annotated[
        TissueName | None,
        typer.Option("--tissue", help="How tissue is told from background.", show_default="the preset's"),
    ] = None,
    lesions: Annotated[
        Path | None,
        typer.Option(
            "--lesions",
            metavar="DIR",
            help="Outlines, <slide_id>.geojson each: measures localisation.",
            show_default=False,
        ),
    ] = None,
    lesion_class: LesionClassOption = None,
    lesion_value: LesionValueOption = None,
    permutations: Annotated[
        int | None, typer.Option("--permutations", min=0, help="Runs on permuted labels.", show_default="the design's")
    ] = None,
    margin: Annotated[
        float | None, typer.Option("--margin", help="How much AUC may be given up.", show_default="the design's")
    ] = None,
    budget: Annotated[
        str | None, typer.Option("--budget", metavar="TIME", help="Such as 3h or 90m.", show_default="none")
    ] = None,
    caution: Annotated[
        list[str] | None,
        typer.Option(
            "--caution",
            metavar="TEXT",
            help="What the page is to say of this cohort, such as that its slides share tissue. May be given again.",
            show_default=False,
        ),
    ] = None,
    pseudonyms: Annotated[
        bool,
        typer.Option("--pseudonyms", help="Call patients and slides by salted hashes; the key stays in OUT/local."),
    ] = False,
    plan: Annotated[bool, typer.Option("--plan", help="Print arms, tiles, disk and time; run nothing.")] = False,
    status: Annotated[bool, typer.Option("--status", help="Say how far the study in DIR is; run nothing.")] = False,
    judge: Annotated[
        bool, typer.Option("--judge", help="Judge the study in DIR again by this version's rules; train nothing.")
    ] = False,
    print_preset: Annotated[
        str | None,
        typer.Option("--print-preset", metavar="NAME", help="Print a preset as a file to edit.", show_default=False),
    ] = None,
    device: DeviceOption = DEVICE,
    off_spec: OffSpecOption = False,
    precision: PrecisionOption = PRECISION,
    as_json: JsonOption = False,
) -> None:
    """Which encoder, how deep, frozen or fine-tuned: compare arms on the same folds, and recommend one.

    The verdict says what to use (how much of the reference encoder may be cut, or the cheapest arm that is non-inferior
    to every other), which arms are shown to be worse, and how many patients would settle what is open. The page is
    OUT/report.html; results.csv, predictions.parquet and verdict.json lie beside it. Killed and run again, it does only
    what is missing, to the same figures; arms may be added to the design later.
    """
    from lamella.studies.design import dump_design, parse_time
    from lamella.studies.presets import find_preset, list_differences

    if print_preset is not None:
        for difference in list_differences(print_preset):
            echo(f"# differs from the paper: {difference}")
        echo(dump_design(find_preset(print_preset)), nl=False)
        return
    if status:
        _tell_status(_need(what, "Name the folder of a study: lamella study DIR --status"), as_json=as_json)
        return
    if judge:
        _judge_again(_need(what, "Name the folder of a study: lamella study DIR --judge"), as_json=as_json)
        return
    progress = talk.open()
    trusted.apply()
    table, design = _find_design(what, cohort, preset, features or ())
    design = design.with_changes(
        tile_px=tile_px,
        stride_px=stride,
        mpp=mpp,
        off_spec=off_spec or None,
        tissue=tissue,
        permutations=permutations,
        margin=margin,
        budget=budget,
        costs=None if costs is None else str(costs),
    )

    from lamella.cohort import fill_in
    from lamella.cohort.datasets import gather_camelyon16_outlines, is_camelyon16
    from lamella.encoders import RuntimeSettings
    from lamella.studies.options import StudyOptions

    given = fill_in(_load(table, columns, progress), slide_mpp=slide_mpp)
    options = StudyOptions(
        runtime=RuntimeSettings(device=device, precision=precision),
        lesions=lesions or (Path(design.localise) if design.localise else None),
        lesion_classes=tuple(lesion_class or design.lesion_class),
        lesion_values=tuple(lesion_value or design.lesion_value),
        budget_s=None if design.budget is None else parse_time(design.budget),
        cautions=tuple(caution or ()),
    )
    if plan:
        _print_plan(design, given, out, dataclasses.replace(options, lesions=_find_outlines(options, table)), progress)
        return

    from lamella.pipeline.study import compare_arms

    folder = _need(out, "Name a folder for the study: --out DIR")
    if lesions is None and is_camelyon16(table):
        options = dataclasses.replace(options, lesions=gather_camelyon16_outlines(table, folder / "local" / "outlines"))
    result = compare_arms(given, design, folder, options=options, pseudonyms=pseudonyms, progress=progress)
    _tell(result, progress, as_json=as_json)
    tell_failures(result.failures, result.folder.path / "failures.csv")


def _tell(result: "Study", progress: "RichProgress", *, as_json: bool) -> None:
    """Print the verdict, and where the page lies."""
    from lamella.studies.costs import NOT_PRICED

    verdict, unit = result.verdict, result.record.cost_unit
    if as_json:
        judged = (None, []) if verdict is None else (verdict["verdict"], verdict["arms"])
        print_json({"out": str(result.folder.path), "verdict": judged[0], "arms": judged[1]})
        return
    print_verdict(verdict, cost="seconds a slide" if unit is None else unit or None)
    for note in result.record.notes:
        if note.endswith(NOT_PRICED):
            progress.say(note)
    for arm in result.record.arms:
        if arm.state not in ("done", "waiting for weights"):
            progress.say(f"{arm.arm} is not among them: {arm.reason or arm.state}")
    progress.say(f"The page is '{result.folder.page}'.")


def _find_outlines(options: "StudyOptions", table: Path) -> Path | None:
    """Return where a study's outlines lie: CAMELYON16's folder brings its own along."""
    from lamella.cohort.datasets import is_camelyon16

    return table if options.lesions is None and is_camelyon16(table) else options.lesions


def _print_plan(
    design: "StudyDesign", cohort: "Cohort", out: Path | None, options: "StudyOptions", progress: "RichProgress"
) -> None:
    """Print arms, what these patients can show, and the work list."""
    from lamella.studies.facts import plan_study
    from lamella.studies.prospects import list_obstacles
    from lamella.studies.reach import say_reach

    print_table(["arm"], [{"arm": arm.name} for arm in design.list_arms()])
    for line in list_obstacles(design, cohort) or say_reach(design, cohort):
        progress.say(line)
    progress.say("Counting tiles and measuring encoders that were not timed on this machine yet.")
    plan = plan_study(design, cohort, out, options=options)
    print_table(["arm", "state", "GFLOPs a tile", "time"], [row.as_row() for row in plan.arms])
    print_table(["work", "at most"], plan.list_rows())
    for line in plan.say():
        progress.say(line)


def _load(table: Path, columns: ColumnOptions, progress: "RichProgress") -> "Cohort":
    """Return the cohort of a table, or of CAMELYON16's folder as downloaded."""
    from lamella.cohort.datasets import is_camelyon16, load_camelyon16

    if not is_camelyon16(table):
        return columns.load(table, progress)
    cohort = load_camelyon16(table)
    for note in cohort.notes:
        progress.say(note)
    return cohort


def _find_design(
    what: Path | None, cohort: Path | None, preset: str | None, features: Sequence[str]
) -> "tuple[Path, StudyDesign]":
    """Return the cohort's table and the design: of a preset, of a declared file, or of bags that are there."""
    from lamella.errors import SettingsError
    from lamella.studies.design import add_features, load_design
    from lamella.studies.presets import find_preset

    first = _need(what, "Name a cohort and --preset quick or --features, or a study's file and --cohort")
    if first.suffix.lower() in (".yaml", ".yml"):
        if preset is not None:
            raise SettingsError("a study's file and --preset are both given. Leave one out.")
        table = _need(cohort, f"Name the cohort of '{first.name}': --cohort TABLE")
        return table, add_features(load_design(first), features)
    if preset is None and not features:
        raise SettingsError(
            "it is not said what to compare. Pass --preset quick, --features NAME=DIR, or a study's file and --cohort."
        )
    return first, add_features(None if preset is None else find_preset(preset), features)


def _need(path: Path | None, remedy: str) -> Path:
    from lamella.errors import SettingsError

    if path is None:
        raise SettingsError(f"something is missing on the command line. {remedy}.")
    return path


def _judge_again(folder: Path, *, as_json: bool) -> None:
    from lamella.reports.page import write_page
    from lamella.studies.folder import StudyFolder
    from lamella.studies.judge import judge_again
    from lamella.studies.record import load_record

    verdict = judge_again(folder)
    page = write_page(folder)
    if as_json:
        print_json({"out": str(folder), "verdict": verdict["verdict"], "arms": verdict["arms"]})
    else:
        record = load_record(StudyFolder(folder).record)
        unit = None if record is None else record.cost_unit
        print_verdict(verdict, cost="seconds a slide" if unit is None else unit or None)
        echo(f"The page is '{page}'.")


def _tell_status(folder: Path, *, as_json: bool) -> None:
    from lamella.errors import SettingsError
    from lamella.studies.folder import StudyFolder
    from lamella.studies.record import load_record

    record = load_record(StudyFolder(folder).record)
    if record is None:
        raise SettingsError(f"'{folder}' holds no study (no study.json). Name the --out folder of a `lamella study`.")
    if as_json:
        work = [row.as_json() for row in record.work]
        print_json({"status": record.status, "arms": [row.as_json() for row in record.arms], "work": work})
        return
    rows = [{"arm": row.arm, "state": row.state, "what to do": row.command} for row in record.arms]
    print_table(["arm", "state", "what to do"], rows)
    if record.work:  # version 0.1.0 did not list it
        print_table(["work", "state"], [{"work": row.item, "state": row.state} for row in record.work])
    echo(f"status: {record.status}")
