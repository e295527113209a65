"""Options that several verbs share: declared once, so that they are spelt and explained the same everywhere.

Options that travel together are one frozen dataclass, whose fields are the options. `takes_groups` spreads the fields
over a verb's command line and hands the verb the filled dataclass:

    @takes_groups
    def tissue(cohort: CohortArgument, columns: ColumnOptions, talk: TalkOptions, *, seed: SeedOption = 0) -> None: ...

`--help` shows the verb's own arguments first, then the groups in the order they are named.
"""

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

if TYPE_CHECKING:
    from lamella.cli.progress import RichProgress
    from lamella.cohort import Cohort, CohortColumns
    from lamella.encoders import EncoderSpec, RuntimeSettings
    from lamella.features.plan import CutSettings
    from lamella.study.settings import StageTwo, TrainingSettings
    from lamella.tiles import TileSpec


class TissueMethod(StrEnum):
    """How tissue is told from background."""

    GLASS = "glass"
    OTSU = "otsu"


class Device(StrEnum):
    """Where an encoder runs."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"
    MPS = "mps"


class Finetune(StrEnum):
    """What is trained in stage 2."""

    TUNED = "tuned"
    HEAD = "head"


class Precision(StrEnum):
    """What an encoder computes in."""

    AUTO = "auto"
    FP32 = "fp32"
    BF16 = "bf16"
    FP16 = "fp16"


CohortArgument = Annotated[
    Path,
    typer.Argument(
        metavar="COHORT",
        help="Cohort table, CSV or Parquet, one row a slide: the columns slide (a path, relative to the table) and "
        "label; if you like slide_id, patient_id, split, fold, slide_mpp, batch.",
        show_default=False,
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as JSON on standard output.")]
SeedOption = Annotated[int, typer.Option("--seed", min=0, help="Number that all that is drawn by chance depends on.")]

_COHORT, _TILES, _ENCODER, _TRAINING = "Columns of the cohort", "Tissue and tiles", "Encoder", "Training and testing"
_FINETUNE = "Fine-tuning"


def _column(option: str, help_text: str) -> Any:
    return typer.Option(option, metavar="NAME", help=help_text, rich_help_panel=_COHORT)


@dataclass(frozen=True, slots=True, kw_only=True)
class SlideColumnOptions:
    """Names of the columns that say which slides there are."""

    slide_col: Annotated[str, _column("--slide-col", "Column of the slides' paths.")] = "slide"
    id_col: Annotated[str, _column("--id-col", "Column of the slides' ids; without it, the file names.")] = "slide_id"
    mpp_col: Annotated[str, _column("--mpp-col", "Column of resolutions, um per pixel, that override the files'.")] = (
        "slide_mpp"
    )

    def names(self) -> "CohortColumns":
        """Return the names of the columns; those that a verb does not ask for keep their defaults."""
        from lamella.cohort import CohortColumns

        options = {"slide_id": "id_col", "patient_id": "patient_col", "slide_mpp": "mpp_col"}
        columns = {one.name: options.get(one.name, f"{one.name}_col") for one in fields(CohortColumns)}
        return CohortColumns(
            **{name: getattr(self, option) for name, option in columns.items() if hasattr(self, option)}
        )

    def gather(self, paths: list[Path], *, slide_mpp: float | None) -> "Cohort":
        """Return slides named one by one, or by one table, as a cohort that need not be labelled."""
        from lamella.cohort import gather_slides

        return gather_slides(paths, slide_mpp=slide_mpp, columns=self.names())


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelColumnOptions(SlideColumnOptions):
    """Names of the columns of new slides, which may have labels."""

    label_col: Annotated[str, _column("--label-col", "Column of the labels.")] = "label"
    patient_col: Annotated[str, _column("--patient-col", "Column of the patients; without it, each slide is one.")] = (
        "patient_id"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnOptions(LabelColumnOptions):
    """Names of a cohort table's columns, and the positive label."""

    split_col: Annotated[str, _column("--split-col", "Column that says train, val or test.")] = "split"
    fold_col: Annotated[str, _column("--fold-col", "Column of the round, from 0, in which a slide is tested.")] = "fold"
    batch_col: Annotated[str, _column("--batch-col", "Column of batches (laboratory, scanner, block).")] = "batch"
    positive: Annotated[
        str | None,
        typer.Option(
            "--positive",
            metavar="LABEL",
            help="The label whose probability is scored.",
            show_default="the last label sorted",
            rich_help_panel=_COHORT,
        ),
    ] = None

    def load(self, path: Path, progress: "RichProgress", *, labelled: bool = True) -> "Cohort":
        """Read a cohort table and say what was assumed."""
        from lamella.cohort import load_cohort

        cohort = load_cohort(path, columns=self.names(), positive=self.positive, labelled=labelled)
        for note in cohort.notes:
            progress.say(note)
        return cohort


@dataclass(frozen=True, slots=True, kw_only=True)
class TileOptions:
    """Where tiles are cut, and how large."""

    tile_px: Annotated[
        int, typer.Option("--tile-px", help="Side of a tile, in pixels at --mpp.", rich_help_panel=_TILES)
    ] = 512
    stride: Annotated[
        int | None,
        typer.Option(
            "--stride",
            help="Distance between neighbouring tiles, in pixels at --mpp.",
            show_default="the tile's side",
            rich_help_panel=_TILES,
        ),
    ] = None
    mpp: Annotated[
        float, typer.Option("--mpp", help="Resolution the encoder sees, um per pixel.", rich_help_panel=_TILES)
    ] = 0.5
    min_tissue: Annotated[
        float,
        typer.Option(
            "--min-tissue", help="A tile is kept when more than this share is tissue.", rich_help_panel=_TILES
        ),
    ] = 0.5
    max_upsample: Annotated[
        float,
        typer.Option(
            "--max-upsample",
            help="By how much a slide coarser than --mpp may be enlarged; beyond it is refused.",
            rich_help_panel=_TILES,
        ),
    ] = 1.10
    slide_mpp: Annotated[
        float | None,
        typer.Option(
            "--slide-mpp",
            help="Resolution of level 0, um per pixel, for slides whose row gives none, whatever their files state.",
            show_default="what the file states",
            rich_help_panel=_TILES,
        ),
    ] = None
    tissue: Annotated[
        TissueMethod,
        typer.Option(
            "--tissue",
            help="glass: what does not look like the scanner's empty glass. otsu: plain Otsu, which drops pale tissue.",
            rich_help_panel=_TILES,
        ),
    ] = TissueMethod.GLASS
    include: Annotated[
        Path | None,
        typer.Option(
            "--include",
            metavar="PATH",
            help="Keep only these regions: GeoJSON from QuPath, one file or a folder of <slide_id>.geojson.",
            show_default=False,
            rich_help_panel=_TILES,
        ),
    ] = None
    exclude: Annotated[
        Path | None,
        typer.Option(
            "--exclude",
            metavar="PATH",
            help="Leave these regions out: GeoJSON from QuPath, one file or a folder of <slide_id>.geojson.",
            show_default=False,
            rich_help_panel=_TILES,
        ),
    ] = None

    def spec(self) -> "TileSpec":
        """Return size, resolution, stride and tissue threshold."""
        from lamella.tiles import TileSpec

        return TileSpec(tile_px=self.tile_px, mpp=self.mpp, stride_px=self.stride, min_tissue=self.min_tissue)

    def cut(self) -> "CutSettings":
        """Return how slides are cut into tiles."""
        from lamella.features.plan import CutSettings

        return CutSettings(
            spec=self.spec(),
            tissue=self.tissue.value,
            max_upsample=self.max_upsample,
            include=self.include,
            exclude=self.exclude,
        )


WeightsOption = Annotated[
    str,
    typer.Option(
        "--weights",
        metavar="PATH",
        help="Weights: auto (those of the encoder's card), a file, or random (seeded by the encoder's name).",
        rich_help_panel=_ENCODER,
    ),
]
DeviceOption = Annotated[Device, typer.Option("--device", help="Where the encoder runs.", rich_help_panel=_ENCODER)]
PrecisionOption = Annotated[
    Precision,
    typer.Option(
        "--precision",
        help="What the encoder computes in; auto takes the fastest that agrees with fp32 on the slides' own tiles.",
        rich_help_panel=_ENCODER,
    ),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderOptions:
    """What turns tiles into embeddings, and where it runs."""

    encoder: Annotated[
        str,
        typer.Option(
            "--encoder",
            metavar="NAME",
            help="Encoder: a name of `lamella encoders`, timm:NAME, hf-hub:OWNER/NAME or FILE.py:build; NAME@3 keeps "
            "its first 3 blocks of 4.",
            rich_help_panel=_ENCODER,
        ),
    ] = "efficientnet-lite0"
    weights: WeightsOption = "auto"
    device: DeviceOption = Device.AUTO
    precision: PrecisionOption = Precision.AUTO

    def spec(self) -> "EncoderSpec":
        """Return which encoder with which weights."""
        from lamella.encoders import EncoderSpec

        return EncoderSpec(name=self.encoder, weights=self.weights)

    def settings(self) -> "RuntimeSettings":
        """Return where and in what precision it runs."""
        from lamella.encoders import RuntimeSettings

        return RuntimeSettings(device=self.device.value, precision=self.precision.value)


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodersOptions:
    """What turns tiles into embeddings, several encoders at once, and where they run."""

    encoder: Annotated[
        list[str] | None,
        typer.Option(
            "--encoder",
            metavar="NAME",
            help="Encoder: a name of `lamella encoders`, timm:NAME, hf-hub:OWNER/NAME or FILE.py:build; NAME@3 keeps "
            "its first 3 blocks of 4, NAME@1,2,3,4 writes a bag for each. May be given again.",
            show_default="efficientnet-lite0",
            rich_help_panel=_ENCODER,
        ),
    ] = None
    weights: WeightsOption = "auto"
    device: DeviceOption = Device.AUTO
    precision: PrecisionOption = Precision.AUTO

    def specs(self) -> "tuple[EncoderSpec, ...]":
        """Return which encoders with which weights."""
        from lamella.encoders import DEFAULT_ENCODER, EncoderSpec
        from lamella.encoders.names import expand_names, split_name
        from lamella.errors import SettingsError

        names = expand_names(self.encoder or [DEFAULT_ENCODER])
        if self.weights not in ("auto", "random") and len({split_name(name)[0] for name in names}) > 1:
            raise SettingsError(
                f"--weights names one file but there are several encoders ({', '.join(names)}). Extract each with its "
                "own, in runs of its own."
            )
        return tuple(EncoderSpec(name=name, weights=self.weights) for name in names)

    def settings(self) -> "RuntimeSettings":
        """Return where and in what precision they run."""
        from lamella.encoders import RuntimeSettings

        return RuntimeSettings(device=self.device.value, precision=self.precision.value)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainOptions:
    """How heads are trained and tested."""

    head: Annotated[
        str,
        typer.Option(
            "--head",
            help="How tiles are pooled: attention (the paper's), ilse, gated, mean or max.",
            rich_help_panel=_TRAINING,
        ),
    ] = "attention"
    folds: Annotated[
        int,
        typer.Option(
            "--folds",
            help="Number of folds, where the table brings neither folds nor splits.",
            rich_help_panel=_TRAINING,
        ),
    ] = 5
    seeds: Annotated[
        int,
        typer.Option(
            "--seeds", help="Heads trained in each round; their logits are averaged.", rich_help_panel=_TRAINING
        ),
    ] = 3
    epochs: Annotated[int, typer.Option("--epochs", help="Most epochs.", rich_help_panel=_TRAINING)] = 40
    patience: Annotated[
        int,
        typer.Option(
            "--patience",
            help="Epochs without a better validation log-loss before training stops.",
            rich_help_panel=_TRAINING,
        ),
    ] = 10
    lr: Annotated[float, typer.Option("--lr", help="Learning rate.", rich_help_panel=_TRAINING)] = 1e-3
    sensitivity: Annotated[
        float | None,
        typer.Option(
            "--sensitivity",
            help="Least sensitivity that the threshold must reach on validation.",
            show_default="Youden's threshold",
            rich_help_panel=_TRAINING,
        ),
    ] = None

    def settings(self, *, seed: int = 0) -> "TrainingSettings":
        """Return how bags become models, predictions and metrics."""
        from lamella.mil.settings import TrainSettings
        from lamella.study.settings import TrainingSettings

        train = TrainSettings(head=self.head, epochs=self.epochs, patience=self.patience, lr=self.lr, seed=seed)
        return TrainingSettings(
            train=train,
            n_seeds=self.seeds,
            n_folds=self.folds,
            split_seed=seed,
            sensitivity=self.sensitivity,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class FinetuneOptions:
    """Whether and how the encoder is trained on, on each slide's most attended tiles."""

    finetune: Annotated[
        Finetune | None,
        typer.Option(
            "--finetune",
            help="Train on after stage 1: tuned (encoder and head, with the control) or head (the control alone).",
            show_default="no",
            rich_help_panel=_FINETUNE,
        ),
    ] = None
    top_k: Annotated[
        int,
        typer.Option("--top-k", help="Most attended tiles of each slide that are used.", rich_help_panel=_FINETUNE),
    ] = 64
    finetune_epochs: Annotated[
        int, typer.Option("--finetune-epochs", help="Most epochs.", rich_help_panel=_FINETUNE)
    ] = 20
    finetune_seeds: Annotated[
        int, typer.Option("--finetune-seeds", help="Seeds of stage 1 that are trained on.", rich_help_panel=_FINETUNE)
    ] = 1
    encoder_lr: Annotated[
        float, typer.Option("--encoder-lr", help="Learning rate of the encoder.", rich_help_panel=_FINETUNE)
    ] = 1e-5
    head_lr: Annotated[
        float, typer.Option("--head-lr", help="Learning rate of the head.", rich_help_panel=_FINETUNE)
    ] = 1e-4
    train_blocks: Annotated[
        int | None,
        typer.Option(
            "--train-blocks",
            min=1,
            max=4,
            help="Train only so many of the encoder's last blocks; the maps that enter them are computed once.",
            show_default="all",
            rich_help_panel=_FINETUNE,
        ),
    ] = None
    flips: Annotated[
        bool,
        typer.Option("--flips", help="Turn and mirror tiles at random while training.", rich_help_panel=_FINETUNE),
    ] = False
    stain_jitter: Annotated[
        float,
        typer.Option(
            "--stain-jitter",
            help="SD of a random factor on the amount of each stain while training.",
            rich_help_panel=_FINETUNE,
        ),
    ] = 0.0
    choose_again: Annotated[
        int | None,
        typer.Option(
            "--choose-again",
            min=1,
            help="Choose the tiles again, by the network as it is, after each so many epochs.",
            show_default="never",
            rich_help_panel=_FINETUNE,
        ),
    ] = None
    train_precision: Annotated[
        str,
        typer.Option("--train-precision", help="Arithmetic while training: fp32 or bf16.", rich_help_panel=_FINETUNE),
    ] = "fp32"
    evaluate: Annotated[
        str,
        typer.Option(
            "--evaluate",
            help="Test the tuned encoder on all tiles, encoded anew, or on the top-k that stage 1 attends most.",
            rich_help_panel=_FINETUNE,
        ),
    ] = "all"

    def settings(self, *, seed: int = 0) -> "StageTwo | None":
        """Return how a run goes on to stage 2; None where it does not."""
        if self.finetune is None:
            return None
        from lamella.finetune.settings import FinetuneSettings
        from lamella.study.settings import StageTwo

        finetune = FinetuneSettings(
            arm=self.finetune.value,
            k=self.top_k,
            epochs=self.finetune_epochs,
            encoder_lr=self.encoder_lr,
            head_lr=self.head_lr,
            train_blocks=self.train_blocks,
            flips=self.flips,
            stain_jitter=self.stain_jitter,
            choose_again=self.choose_again,
            precision=self.train_precision,
            seed=seed,
        )
        return StageTwo(finetune=finetune, n_seeds=self.finetune_seeds, evaluate=self.evaluate)


@dataclass(frozen=True, slots=True, kw_only=True)
class TalkOptions:
    """How much is said."""

    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Say on standard error what is done, step by step.")
    ] = False
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Show no progress and say nothing but results and errors.")
    ] = False

    def open(self) -> "RichProgress":
        """Return what the library reports to."""
        from lamella.cli.progress import RichProgress

        return RichProgress(verbose=self.verbose, quiet=self.quiet)


def takes_groups(verb: Callable[..., None]) -> Callable[..., None]:
    """Return `verb` as typer wants it: each field of its dataclass parameters an option of its own.

    Example:
        >>> @takes_groups
        ... def shout(word: str, talk: TalkOptions, n: int = 2) -> None:
        ...     print(word * n, talk.quiet)
        >>> list(inspect.signature(shout).parameters)
        ['word', 'n', 'verbose', 'quiet']
        >>> shout(word="ha", verbose=False, quiet=True, n=2)
        haha True
    """
    hints = get_type_hints(verb, include_extras=True)
    groups: dict[str, type[Any]] = {}
    own: list[inspect.Parameter] = []
    shared: list[inspect.Parameter] = []
    for parameter in inspect.signature(verb).parameters.values():
        kind = hints[parameter.name]
        if is_dataclass(kind) and isinstance(kind, type):
            groups[parameter.name] = kind
            options = get_type_hints(kind, include_extras=True)
            shared.extend(
                inspect.Parameter(
                    field.name, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=options[field.name]
                )
                for field in fields(kind)
            )
        else:
            own.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY, annotation=kind))

    @functools.wraps(verb)
    def command(**given: Any) -> None:
        filled = {
            name: kind(**{field.name: given.pop(field.name) for field in fields(kind)}) for name, kind in groups.items()
        }
        verb(**given, **filled)

    flat = own + shared
    del command.__wrapped__  # typer would look through it, at the dataclasses
    command.__signature__ = inspect.Signature(flat)  # type: ignore[attr-defined]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in flat}
    return command
