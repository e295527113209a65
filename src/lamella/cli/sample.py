"""lamella sample."""

from pathlib import Path
from typing import Annotated

import typer

from lamella.cli.groups import takes_groups
from lamella.cli.options import SeedOption, TalkOptions
from lamella.defaults import DEMO_SLIDES


@takes_groups
def sample(
    talk: TalkOptions,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the slides.", show_default=False)],
    slides: Annotated[int, typer.Option("--slides", min=2, help="How many slides.")] = DEMO_SLIDES,
    seed: SeedOption = 0,
) -> None:
    """Draw a cohort of slides with known lesions.

    They look like H&E and are there to try things on.

    Writes pyramidal TIFFs, a GeoJSON with the lesion's outline beside each slide that has one, and cohort.csv.
    """
    progress = talk.open()

    from lamella.samples import draw_cohort

    table = draw_cohort(out, n_slides=slides, seed=seed, progress=progress)
    progress.say(f"Wrote '{table}'.")
