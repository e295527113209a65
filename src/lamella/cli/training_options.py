"""Options of training: heads in stage 1, encoders in stage 2."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from lamella import defaults

if TYPE_CHECKING:
    from lamella.runs.settings import StageTwo, TrainingSettings

_TRAINING, _FINETUNE = "Training and testing", "Fine-tuning"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainOptions:
    """How heads are trained and tested."""

    head: Annotated[
        defaults.HeadName,
        typer.Option("--head", help="How tiles are pooled; attention is the paper's.", rich_help_panel=_TRAINING),
    ] = defaults.HEAD
    folds: Annotated[
        int,
        typer.Option(
            "--folds",
            help="Number of folds, where the table brings neither folds nor splits.",
            rich_help_panel=_TRAINING,
        ),
    ] = defaults.N_FOLDS
    seeds: Annotated[
        int,
        typer.Option(
            "--seeds", help="Heads trained in each round; their logits are averaged.", rich_help_panel=_TRAINING
        ),
    ] = defaults.N_SEEDS
    epochs: Annotated[int, typer.Option("--epochs", help="Most epochs.", rich_help_panel=_TRAINING)] = defaults.EPOCHS
    patience: Annotated[
        int,
        typer.Option(
            "--patience",
            help="Epochs without a better validation log-loss before training stops.",
            rich_help_panel=_TRAINING,
        ),
    ] = defaults.PATIENCE
    lr: Annotated[float, typer.Option("--lr", help="Learning rate.", rich_help_panel=_TRAINING)] = defaults.LR
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
        from lamella.runs.settings import TrainingSettings

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
        defaults.FinetunedName | None,
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
    ] = defaults.TOP_K
    finetune_epochs: Annotated[
        int, typer.Option("--finetune-epochs", help="Most epochs.", rich_help_panel=_FINETUNE)
    ] = defaults.FINETUNE_EPOCHS
    finetune_seeds: Annotated[
        int, typer.Option("--finetune-seeds", help="Seeds of stage 1 that are trained on.", rich_help_panel=_FINETUNE)
    ] = defaults.FINETUNE_SEEDS
    encoder_lr: Annotated[
        float, typer.Option("--encoder-lr", help="Learning rate of the encoder.", rich_help_panel=_FINETUNE)
    ] = defaults.ENCODER_LR
    head_lr: Annotated[
        float, typer.Option("--head-lr", help="Learning rate of the head.", rich_help_panel=_FINETUNE)
    ] = defaults.HEAD_LR
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
    ] = defaults.STAIN_JITTER
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
        defaults.TrainPrecision,
        typer.Option("--train-precision", help="Arithmetic while training.", rich_help_panel=_FINETUNE),
    ] = defaults.TRAIN_PRECISION
    evaluate: Annotated[
        defaults.Evaluation,
        typer.Option(
            "--evaluate",
            help="Test the tuned encoder on all tiles, encoded anew, or on the top-k that stage 1 attends most.",
            rich_help_panel=_FINETUNE,
        ),
    ] = defaults.EVALUATE

    def settings(self, *, seed: int = 0) -> "StageTwo | None":
        """Return how a run goes on to stage 2; None where it does not."""
        if self.finetune is None:
            return None
        from lamella.finetune.settings import FinetuneSettings
        from lamella.runs.settings import StageTwo

        finetune = FinetuneSettings(
            finetuned=self.finetune,
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
