"""lamella demo."""

from pathlib import Path
from typing import Annotated

import typer

from lamella.cli.groups import takes_groups
from lamella.cli.options import SeedOption, TalkOptions
from lamella.cli.tables import print_verdict, tell_failures


@takes_groups
def demo(
    talk: TalkOptions,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the slides and the study.")] = Path("demo"),
    slides: Annotated[int | None, typer.Option("--slides", min=20, help="How many slides.", show_default="44")] = None,
    seed: SeedOption = 0,
) -> None:
    """Run the quick study on a drawn cohort.

    The slides have lesions of known outline; it ends with a page.

    Nothing is downloaded: the slides are drawn here, and EfficientNet-Lite0's ImageNet weights come with a package.
    """
    progress = talk.open()

    from lamella.demo import run_demo
    from lamella.samples import DEMO_SLIDES

    result = run_demo(out, seed=seed, n_slides=slides or DEMO_SLIDES, progress=progress)
    print_verdict(result.verdict)
    progress.say(f"Open '{result.folder.page}' in a browser: the lesions light up under Slides.")
    tell_failures(result.failures, result.folder.path / "failures.csv")
