"""Options of training: heads in stage 1, encoders in stage 2."""

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from lamella import defaults

if TYPE_CHECKING:
    from lamella.runs.settings import StageTwo, TrainingSettings

_train = partial(typer.Option, rich_help_panel="Training and testing")
_finetune = partial(typer.Option, rich_help_panel="Fine-tuning")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainOptions:
    """How heads are trained and tested."""

    head: Annotated[defaults.HeadName, _train("--head", help="How tiles are pooled; attention is the paper's.")] = (
        defaults.HEAD
    )
    folds: Annotated[
        int, _train("--folds", help="Number of folds, where the table brings neither folds nor splits.")
    ] = defaults.N_FOLDS
    seeds: Annotated[int, _train("--seeds", help="Heads trained in each round; their logits are averaged.")] = (
        defaults.N_SEEDS
    )
    epochs: Annotated[int, _train("--epochs", help="Most epochs.")] = defaults.EPOCHS
    patience: Annotated[
        int, _train("--patience", help="Epochs without a better validation log-loss before training stops.")
    ] = defaults.PATIENCE
    lr: Annotated[float, _train("--lr", help="Learning rate.")] = defaults.LR
    unit: Annotated[
        defaults.UnitName,
        _train("--unit", help="What is predicted: each slide, or each patient, whose slides are then one bag."),
    ] = defaults.UNIT
    sensitivity: Annotated[
        float | None,
        _train(
            "--sensitivity",
            help="Least sensitivity that the threshold must reach on validation.",
            show_default="Youden's threshold",
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
            unit=self.unit,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class FinetuneOptions:
    """Whether and how the encoder is trained on, on each slide's most attended tiles."""

    finetune: Annotated[
        defaults.FinetunedName | None,
        _finetune(
            "--finetune",
            help="Train on after stage 1: tuned (encoder and head, with the control) or head (the control alone).",
            show_default="no",
        ),
    ] = None
    top_k: Annotated[int, _finetune("--top-k", help="Most attended tiles of each slide that are used.")] = (
        defaults.TOP_K
    )
    finetune_epochs: Annotated[int, _finetune("--finetune-epochs", help="Most epochs.")] = defaults.FINETUNE_EPOCHS
    finetune_seeds: Annotated[int, _finetune("--finetune-seeds", help="Seeds of stage 1 that are trained on.")] = (
        defaults.FINETUNE_SEEDS
    )
    encoder_lr: Annotated[float, _finetune("--encoder-lr", help="Learning rate of the encoder.")] = defaults.ENCODER_LR
    head_lr: Annotated[float, _finetune("--head-lr", help="Learning rate of the head.")] = defaults.HEAD_LR
    train_blocks: Annotated[
        int | None,
        _finetune(
            "--train-blocks",
            min=1,
            max=4,
            help="Train only so many of the encoder's last blocks; the maps that enter them are computed once.",
            show_default="all",
        ),
    ] = None
    flips: Annotated[bool, _finetune("--flips", help="Turn and mirror tiles at random while training.")] = False
    stain_jitter: Annotated[
        float, _finetune("--stain-jitter", help="SD of a random factor on the amount of each stain while training.")
    ] = defaults.STAIN_JITTER
    choose_again: Annotated[
        int | None,
        _finetune(
            "--choose-again",
            min=1,
            help="Choose the tiles again, by the network as it is, after each so many epochs.",
            show_default="never",
        ),
    ] = None
    train_precision: Annotated[
        defaults.TrainPrecision, _finetune("--train-precision", help="Arithmetic while training.")
    ] = defaults.TRAIN_PRECISION
    evaluate: Annotated[
        defaults.Evaluation,
        _finetune(
            "--evaluate",
            help="Test the tuned encoder on all tiles, encoded anew, or on the top-k that stage 1 attends most.",
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
