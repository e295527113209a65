"""Settings of fine-tuning, in one frozen piece that is saved with the model."""

import math
from dataclasses import asdict, dataclass
from typing import get_args

from lamella import defaults
from lamella.encoders.names import N_BLOCKS
from lamella.errors import SettingsError

FINETUNED: tuple[str, ...] = get_args(defaults.FinetunedName)


@dataclass(frozen=True, slots=True, kw_only=True)
class FinetuneSettings:
    """How encoder and head are trained on.

    Attributes:
        finetuned: `tuned` (encoder and head) or `head` (the control: the same tiles, epochs and seeds, the encoder
            frozen).
        k: Most attended tiles of each slide that are used; fewer where the slide has fewer.
        epochs: Most passes over the training slides.
        patience: Training stops when the validation log-loss has not improved for this many epochs.
        encoder_lr: Learning rate of Adam for the encoder.
        head_lr: Learning rate of Adam for the head.
        train_blocks: How many of the encoder's last blocks are trained; None is all that it has. With fewer, and no
            augmentation, the maps that enter them are computed once and kept on disk.
        flips: Whether tiles are turned and mirrored at random while training.
        stain_jitter: SD of a random factor on the amount of each stain while training; 0 leaves colours alone.
        choose_again: The tiles are chosen again by the tuned network's own attention after each so many epochs; None
            keeps those of stage 1.
        memory_mib: Memory for what the encoder keeps for its gradient, MiB; more tiles go through it at once. It
            changes the time, not the result.
        precision: `fp32`, or `bf16` for the encoder's arithmetic while training.
        seed: Of the order of slides and of augmentation.
        n_threads: CPU threads; None is every core this process may use.

    Raises:
        SettingsError: If a value cannot be used.
    """

    finetuned: str = "tuned"
    k: int = defaults.TOP_K
    epochs: int = defaults.FINETUNE_EPOCHS
    patience: int = defaults.FINETUNE_PATIENCE
    encoder_lr: float = defaults.ENCODER_LR
    head_lr: float = defaults.HEAD_LR
    train_blocks: int | None = None
    flips: bool = False
    stain_jitter: float = defaults.STAIN_JITTER
    choose_again: int | None = None
    memory_mib: int = 1024
    precision: str = defaults.TRAIN_PRECISION
    seed: int = 0
    n_threads: int | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot train."""
        if self.finetuned not in FINETUNED:
            raise SettingsError(f"--finetune is '{self.finetuned}' and must be tuned or head. Pass --finetune tuned.")
        for name in ("k", "epochs", "patience", "memory_mib", "choose_again", "n_threads"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise SettingsError(f"{name} is {value} and must be at least 1. Leave it out for the default.")
        if self.train_blocks is not None and not 1 <= self.train_blocks <= N_BLOCKS:
            raise SettingsError(
                f"{self.train_blocks} blocks are to be trained and an encoder has {N_BLOCKS}. Pass --train-blocks 1."
            )
        for name in ("encoder_lr", "head_lr"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise SettingsError(f"{name} is {value} and must be above 0. Leave it out for the default.")
        if not 0 <= self.stain_jitter <= 0.5:
            raise SettingsError(f"stain jitter is {self.stain_jitter} and must be from 0 to 0.5. Pass 0.05.")
        if self.precision not in get_args(defaults.TrainPrecision):
            raise SettingsError(f"training precision is '{self.precision}' and must be fp32 or bf16. Pass fp32.")

    @property
    def augments(self) -> bool:
        """True where the network sees other pixels in each epoch."""
        return self.flips or self.stain_jitter > 0

    def as_json(self) -> dict[str, str | int | float | bool | None]:
        """Return them as files hold them, where what is trained is the `arm`."""
        fields = asdict(self)
        return {"arm": fields.pop("finetuned"), **fields}
