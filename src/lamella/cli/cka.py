"""lamella cka."""

from pathlib import Path
from typing import Annotated

import typer

from lamella.cli.groups import takes_groups
from lamella.cli.options import JsonOption, SeedOption, SlideColumnOptions, TalkOptions
from lamella.cli.tables import print_json, print_table, tell_failures
from lamella.cli.tile_options import TileOptions
from lamella.defaults import CKA_TILES, WEIGHTS


@takes_groups
def cka(
    first: Annotated[str, typer.Argument(metavar="FIRST", help="Encoder to compare with.", show_default=False)],
    second: Annotated[
        str,
        typer.Argument(
            metavar="SECOND", help="Encoder to compare: a name, or a fine-tuned one's file.", show_default=False
        ),
    ],
    slides: Annotated[
        list[Path],
        typer.Argument(metavar="SLIDE...|COHORT", help="At least 8 held-out slides, or one table.", show_default=False),
    ],
    columns: SlideColumnOptions,
    tiles: TileOptions,
    talk: TalkOptions,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the comparison.", show_default=False)],
    control: Annotated[
        list[str] | None,
        typer.Option(
            "--control",
            metavar="NAME",
            help="Another encoder to hold against FIRST, such as one of another seed. May be given again.",
            show_default=False,
        ),
    ] = None,
    first_weights: Annotated[str, typer.Option("--first-weights", help="Weights of FIRST.")] = WEIGHTS,
    second_weights: Annotated[str, typer.Option("--second-weights", help="Weights of SECOND.")] = WEIGHTS,
    n_tiles: Annotated[int, typer.Option("--tiles", min=1, help="Tiles of each slide.")] = CKA_TILES,
    allow_seen: Annotated[
        bool, typer.Option("--allow-seen", help="Compare over slides that a fine-tuned encoder was trained on.")
    ] = False,
    seed: SeedOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Compare two encoders block by block: linear CKA over the same tiles.

    The diagonal is the paper's figure 2. Beside it: how much each block's weights changed, CKA with that block alone
    taken from SECOND, and controls. Intervals leave out one slide at a time.
    """
    progress = talk.open()

    from lamella.encoders import EncoderSpec
    from lamella.encoders.trust import trust
    from lamella.explain.cka import CkaSettings, compare_encoders
    from lamella.reports.charts.cka import save_cka_figures

    trust(first, second, *control or ())  # they were typed
    settings = CkaSettings(
        first=EncoderSpec(first, first_weights),
        second=EncoderSpec(second, second_weights),
        controls=tuple(EncoderSpec(name) for name in control or ()),
        cut=tiles.cut([EncoderSpec(first, first_weights)]),
        n_tiles=n_tiles,
        seed=seed,
        allow_seen=allow_seen,
    )
    cohort = columns.gather(slides, slide_mpp=tiles.slide_mpp, image=tiles.image)
    result = compare_encoders(cohort.slides, settings, out, progress=progress)
    figures = save_cka_figures(out)
    rows = [
        {
            "against": name,
            "block": block + 1,
            "CKA": round(float(alignment.values[block, block]), 3),
            "95% interval": f"{alignment.low[block, block]:.3f} to {alignment.high[block, block]:.3f}",
            "that block alone": _round(result.one_block.values[0, block]) if number == 0 and result.one_block else None,
            "weight change": _round(result.weight_change[block])
            if number == 0 and result.weight_change is not None
            else None,
        }
        for number, (name, alignment) in enumerate(result.alignments.items())
        for block in range(min(alignment.values.shape))
    ]
    if as_json:
        print_json({"out": str(out), "blocks": rows, "failures": len(result.failures)})
    else:
        print_table(["against", "block", "CKA", "95% interval", "that block alone", "weight change"], rows)
        progress.say(f"The figures are '{figures[0]}' and '{figures[1]}'.")
    tell_failures(result.failures, out / "failures.csv")


def _round(value: float) -> float:
    return float(f"{value:.3g}")
