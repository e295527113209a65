"""lamella cam."""

from pathlib import Path
from typing import Annotated

import typer

from lamella.cli.encoder_options import DeviceOption, TrustOptions
from lamella.cli.groups import takes_groups
from lamella.cli.options import ArmOption, JsonOption, RunArgument, TalkOptions
from lamella.cli.tables import print_json, print_table, tell_failures
from lamella.defaults import CAM_ARM, CAM_METHOD, DEVICE, PRECISION, CamMethod, PrecisionName


@takes_groups
def cam(
    run: RunArgument,
    trusted: TrustOptions,
    talk: TalkOptions,
    slide_id: Annotated[
        list[str] | None,
        typer.Option("--slide-id", metavar="ID", help="A slide. May be given again.", show_default="all tested slides"),
    ] = None,
    predicted: Annotated[
        Path | None,
        typer.Option(
            "--predicted",
            metavar="DIR",
            help="Map the slides of this --out folder of `lamella predict` instead.",
            show_default=False,
        ),
    ] = None,
    target: Annotated[
        str | None, typer.Option("--class", metavar="LABEL", help="Class to map.", show_default="the positive label")
    ] = None,
    method: Annotated[
        CamMethod,
        typer.Option(help="exact: cells sum to what the model said. grad: Grad-CAM, which lets attention vary."),
    ] = CAM_METHOD,
    arm: ArmOption = CAM_ARM,
    device: DeviceOption = DEVICE,
    precision: Annotated[
        PrecisionName, typer.Option(help="What the encoder computes in; auto is fp32, in which cells sum exactly.")
    ] = PRECISION,
    as_json: JsonOption = False,
) -> None:
    """Map where on a slide a class comes from, cell by cell of the encoder's feature maps.

    Each slide is mapped by the models that did not learn from it. RUN/cam/<slide_id> gets a signed overlay, a
    pyramidal TIFF in register with the slide, contours for QuPath, and the sums.
    """
    progress = talk.open()
    trusted.apply()

    from lamella.encoders import RuntimeSettings
    from lamella.features.failures import save_failures
    from lamella.pipeline.run import map_classes
    from lamella.reports.page import rewrite_page
    from lamella.runs.folder import RunFolder
    from lamella.runs.settings import CamSettings

    settings = CamSettings(
        method=method,
        target=target,
        finetuned=arm,
        runtime=RuntimeSettings(device=device, precision=precision),
    )
    records, failures = map_classes(run, settings, slide_ids=slide_id, predicted=predicted, progress=progress)
    home = predicted or run
    folder = RunFolder(home).cam_of(arm)
    save_failures(failures, home / "cam" / "failures.csv")
    rewrite_page(home)
    rows = [
        {
            "slide": record.slide_id,
            "contrast": round(record.contrast, 4),
            "cells": round(record.cells, 4),
            "tiles": round(record.tile_bias, 4),
            "constant": round(record.constant, 4),
            "missing": None if record.residual is None else float(f"{record.residual:.1e}"),
        }
        for record in records
    ]
    if as_json:
        print_json({"out": str(folder), "maps": rows, "failures": len(failures)})
    else:
        print_table(["slide", "contrast", "cells", "tiles", "constant", "missing"], rows)
        progress.say(f"Maps are in '{folder}'.")
    tell_failures(failures, home / "cam" / "failures.csv")
