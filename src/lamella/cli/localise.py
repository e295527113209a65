"""lamella localise."""

from pathlib import Path
from typing import Annotated

import typer

from lamella.cli.encoder_options import TrustOptions
from lamella.cli.groups import takes_groups
from lamella.cli.options import ArmOption, JsonOption, LesionClassOption, LesionValueOption, RunArgument, TalkOptions
from lamella.cli.tables import print_json, print_table, tell_failures
from lamella.defaults import CAM_ARM, LOCALISED_TILES, SMALLEST_UM


@takes_groups
def localise(
    run: RunArgument,
    trusted: TrustOptions,
    talk: TalkOptions,
    lesions: Annotated[
        Path,
        typer.Option(
            "--lesions",
            metavar="DIR",
            help="Outlines, <slide_id>.geojson (QuPath), .xml (ASAP, ImageScope) or a mask image .png, .tiff, .jp2.",
            show_default=False,
        ),
    ],
    lesion_class: LesionClassOption = None,
    lesion_value: LesionValueOption = None,
    cam: Annotated[bool, typer.Option("--cam/--no-cam", help="Measure class activation maps beside attention.")] = True,
    arm: ArmOption = CAM_ARM,
    controls: Annotated[
        bool, typer.Option("--controls", help="Train and measure random weights and permuted labels beside.")
    ] = False,
    top_k: Annotated[int, typer.Option("--top-k", min=1, help="Tiles whose precision is measured.")] = LOCALISED_TILES,
    radius_um: Annotated[
        float | None,
        typer.Option("--radius-um", help="Least distance of two detections, um.", show_default="1.5 sides of a tile"),
    ] = None,
    smallest_um: Annotated[
        float, typer.Option("--smallest-um", help="Lesions shorter than this are neither hit nor false.")
    ] = SMALLEST_UM,
    as_json: JsonOption = False,
) -> None:
    """Score attention and class activation maps against lesion outlines.

    On slides that no model learned from, beside what darkness alone reaches. By tile and by pixel, averaged over
    patients; free-response scores by the rules of CAMELYON16. RUN/localisation.json and the page hold the result.
    """
    progress = talk.open()
    trusted.apply()

    from lamella.explain.localise import LocaliseSettings, localise_run
    from lamella.features.failures import save_failures
    from lamella.reports.page import rewrite_page
    from lamella.runs.predict import open_run
    from lamella.runs.settings import CamSettings

    settings = LocaliseSettings(
        lesions=lesions,
        classes=tuple(lesion_class or ()),
        values=tuple(lesion_value or ()),
        cam=CamSettings() if cam else None,
        arm=arm,
        k=top_k,
        radius_um=radius_um,
        smallest_um=smallest_um,
        controls=controls,
    )
    content, failures = localise_run(open_run(run), settings, progress=progress)
    save_failures(failures, run / "localisation-failures.csv")
    rewrite_page(run)
    if as_json:
        print_json(content.as_json() | {"failures": len(failures)})
    else:
        rows = [
            {"map": name}
            | {key: None if (mean := getattr(map_, key)) is None else round(mean.value, 3) for key in _SHOWN}
            | {"FROC": None if map_.froc is None else round(map_.froc.score, 3)}
            | {"tile_ap by chance": None if map_.tile_share is None else round(map_.tile_share.value, 3)}
            for name, map_ in content.maps.items()
        ]
        print_table(["map", *_SHOWN, "FROC", "tile_ap by chance"], rows)
        for note in content.notes:
            progress.say(note)
    tell_failures(failures, run / "localisation-failures.csv")


_SHOWN = ("tile_auc", "tile_ap", "pixel_auc", "pixel_ap", "pointing", "top_k")
