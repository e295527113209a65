"""lamella run."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lamella.cli.encoder_options import EncoderOptions
from lamella.cli.groups import takes_groups
from lamella.cli.options import CohortArgument, ColumnOptions, JsonOption, SeedOption, TalkOptions
from lamella.cli.tables import print_json, print_table, tell_failures
from lamella.cli.tile_options import TileOptions
from lamella.cli.training_options import FinetuneOptions, TrainOptions

if TYPE_CHECKING:
    from lamella.cli.progress import RichProgress
    from lamella.runs.execute import Run


@takes_groups
def run(
    cohort: CohortArgument,
    columns: ColumnOptions,
    tiles: TileOptions,
    encoder: EncoderOptions,
    training: TrainOptions,
    finetune: FinetuneOptions,
    talk: TalkOptions,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for everything.", show_default=False)],
    features: Annotated[
        Path | None,
        typer.Option(
            "--features",
            metavar="DIR",
            help="Bags that are there, of any tool that `lamella inspect` knows: nothing is encoded.",
            show_default=False,
        ),
    ] = None,
    heatmaps: Annotated[
        int | None, typer.Option("--heatmaps", min=0, help="How many slides get heatmaps.", show_default="all")
    ] = None,
    cam: Annotated[
        bool, typer.Option("--cam", help="Draw class activation maps beside the heatmaps; `lamella cam` does it later.")
    ] = False,
    cka: Annotated[
        bool,
        typer.Option("--cka", help="With --finetune tuned: compare frozen and fine-tuned encoders block by block."),
    ] = False,
    pseudonyms: Annotated[
        bool,
        typer.Option("--pseudonyms", help="Call patients and slides by salted hashes; the key stays in OUT/local."),
    ] = False,
    seed: SeedOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Do it all, from slides and labels to a page.

    Tissue, tiles, features, training, prediction, statistics, heatmaps and a page.

    Run again, it does only what is missing or changed. The page is OUT/report.html; predictions.csv, metrics.json, the
    models and the heatmaps lie beside it. OUT/local and OUT/features stay in the house: they hold paths and ids.
    """
    progress = talk.open()
    given = columns.load(cohort, progress)

    from lamella.cohort import fill_in
    from lamella.errors import SettingsError
    from lamella.features.settings import ExtractSettings
    from lamella.pipeline.run import run_bags, run_cohort
    from lamella.runs.settings import CamSettings, join_settings

    if features is not None:
        asked = {"--finetune": finetune.settings(seed=seed), "--cam": cam, "--cka": cka, "--pseudonyms": pseudonyms}
        unfit = next((name for name, value in asked.items() if value), None)
        if unfit is not None:
            raise SettingsError(
                f"{unfit} needs the encoder, and --features names bags that are there. Leave one of the two out."
            )
        given = fill_in(given, slide_mpp=tiles.slide_mpp, image=tiles.image)
        result = run_bags(given, features, training.settings(seed=seed), out, n_heatmaps=heatmaps, progress=progress)
        for note in result.notes:
            progress.say(note)
        _tell(result, out, progress, as_json=as_json)
        return
    spec = encoder.spec()
    extract = ExtractSettings(
        cut=tiles.cut([spec]), encoders=(spec,), runtime=encoder.settings(), off_spec=encoder.off_spec
    )
    stage_two = finetune.settings(seed=seed)
    settings = join_settings(
        training.settings(seed=seed),
        extract,
        n_heatmaps=heatmaps,
        stage_two=stage_two,
        cam=CamSettings() if cam else None,
        cka=cka,
    )
    result = run_cohort(
        fill_in(given, slide_mpp=tiles.slide_mpp, image=tiles.image),
        settings,
        out,
        pseudonyms=pseudonyms,
        progress=progress,
    )
    _tell(result, out, progress, as_json=as_json)


def _tell(result: "Run", out: Path, progress: "RichProgress", *, as_json: bool) -> None:
    """Print what a run is worth, and where its page lies."""
    from lamella.reports.summary import list_remarks, summarise_run

    if as_json:
        print_json({"out": str(out), "metrics": result.metrics.as_json(), "failures": len(result.failures)})
    else:
        print_table(["what", "AUC", "95% interval", "pooled AUC"], summarise_run(result.metrics))
        for remark in list_remarks(result.metrics):
            progress.say(remark)
        progress.say(f"The page is '{result.folder.page}'.")
    tell_failures(result.failures, result.folder.failures)
