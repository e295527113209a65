"""Parts of a declared study: tile specs, blocks of arms, how training goes, tables."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from lamella import defaults
from lamella.encoders import find_encoder
from lamella.encoders.names import split_layers
from lamella.errors import LamellaError
from lamella.features.plan import CutSettings
from lamella.finetune.settings import FinetuneSettings
from lamella.mil.settings import TrainSettings
from lamella.runs.settings import StageTwo
from lamella.studies.arms import CHOSEN, Arm, Finetuned
from lamella.tiles import TileSpec

Depth = Literal[1, 2, 3, 4]
Rule = Literal[
    "each against the first",
    "histology against ImageNet",
    "tuned against frozen",
    "depth against 4",
    "fewer tiles against most",
]

RULES: tuple[Rule, ...] = get_args(Rule)


class Part(BaseModel):
    """A frozen part of a design that knows no other keys than its own."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class TileDesign(Part):
    """How slides are cut; the field names are those of the command line."""

    tile_px: int = Field(default=defaults.TILE_PX, ge=16)
    mpp: float = Field(default=defaults.MPP, gt=0)
    stride_px: int | None = Field(default=None, ge=1)
    min_tissue: float = Field(default=defaults.MIN_TISSUE, ge=0, lt=1)
    tissue: defaults.TissueName = defaults.TISSUE
    max_upsample: float = Field(default=defaults.MAX_UPSAMPLE, ge=1)

    def cut(self, tiles_per_slide: int = 0) -> CutSettings:
        """Return it as the pipeline takes it, with at most so many tiles a slide; 0 is all."""
        spec = TileSpec(
            tile_px=self.tile_px,
            mpp=self.mpp,
            stride_px=self.stride_px,
            min_tissue=self.min_tissue,
            tiles_per_slide=tiles_per_slide or None,
        )
        return CutSettings(spec=spec, tissue=self.tissue, max_upsample=self.max_upsample)


class ArmBlock(Part):
    """Arms that are the product of some lists: of encoders, or of folders of bags by name."""

    encoders: tuple[str, ...] = ()
    features: dict[str, str] = Field(default_factory=dict)
    depths: tuple[Depth, ...] = (4,)
    weights: tuple[str, ...] = ("auto",)
    finetuned: tuple[Finetuned, ...] = ("frozen",)
    heads: tuple[defaults.HeadName, ...] = (defaults.HEAD,)
    tiles: tuple[str, ...] = ("default",)
    tiles_per_slide: tuple[int | Literal["all"], ...] = ("all",)
    width: tuple[int | Literal["full"], ...] = ("full",)

    @field_validator("tiles_per_slide", mode="before")
    @classmethod
    def _are_tiles(cls, value: object) -> list[object]:
        return _list_counts(value, "tiles_per_slide", "all", "[64, 256, all]")

    @field_validator("width", mode="before")
    @classmethod
    def _are_widths(cls, value: object) -> list[object]:
        return _list_counts(value, "width", "full", "[full, 256, 64]")

    @field_validator("encoders")
    @classmethod
    def _known(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if "@" in split_layers(name)[0]:  # `uni@block18` is an encoder of its own, with depths
                raise ValueError(f"'{name}' names a depth. Write the encoder alone and its depths under depths.")
            try:
                find_encoder(name)
            except LamellaError as error:
                raise ValueError(str(error)) from error
        return names

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if not self.encoders and not self.features:
            raise ValueError("a block of arms names no encoders and no features. Add encoders: [resnet18]")
        if self.encoders and self.features:
            raise ValueError("a block of arms names both encoders and features. Write a block for each.")
        whole = (self.depths, self.weights, self.finetuned, self.tiles) == ((4,), ("auto",), ("frozen",), ("default",))
        if self.features and not whole:
            raise ValueError("features are bags that are there: they have heads, and no depths, weights or tiles.")
        if self.width != ("full",) and self.finetuned != ("frozen",):
            raise ValueError("a width is of frozen arms: write a block without width for what is fine-tuned.")
        for name in self.features:
            if not name.strip() or name == CHOSEN or any(mark in name for mark in "@/\\"):
                raise ValueError(f"features cannot be called '{name}'. Write a name without @ or slashes.")
        return self

    def expand(self) -> tuple[Arm, ...]:
        """Return the arms."""
        budgets = tuple(0 if n == "all" else n for n in self.tiles_per_slide)
        widths = tuple(0 if n == "full" else n for n in self.width)
        if self.features:
            named = itertools.product(self.features.items(), self.heads, budgets, widths)
            return tuple(
                Arm(encoder=name, head=head, features=folder, tiles_per_slide=n, width=width)
                for (name, folder), head, n, width in named
            )
        product = itertools.product(
            self.tiles, self.encoders, self.weights, self.heads, budgets, widths, self.depths, self.finetuned
        )
        return tuple(
            Arm(
                encoder=encoder,
                depth=depth,
                weights=weights,
                finetuned=finetuned,
                head=head,
                tiles=tiles,
                tiles_per_slide=n,
                width=width,
            )
            for tiles, encoder, weights, head, n, width, depth, finetuned in product
        )


class TrainDesign(Part):
    """How heads are trained."""

    epochs: int = Field(default=defaults.EPOCHS, ge=1)
    patience: int = Field(default=defaults.PATIENCE, ge=1)
    lr: float = Field(default=defaults.LR, gt=0)
    weight_decay: float = Field(default=defaults.WEIGHT_DECAY, ge=0)

    def settings(self, head: str, seed: int) -> TrainSettings:
        """Return them for one head and the first seed."""
        return TrainSettings(
            head=head, epochs=self.epochs, patience=self.patience, lr=self.lr, weight_decay=self.weight_decay, seed=seed
        )


class FinetuneDesign(Part):
    """How encoder and head are trained on, on each slide's most attended tiles."""

    k: int = Field(default=defaults.TOP_K, ge=1)
    epochs: int = Field(default=defaults.FINETUNE_EPOCHS, ge=1)
    patience: int = Field(default=defaults.FINETUNE_PATIENCE, ge=1)
    encoder_lr: float = Field(default=defaults.ENCODER_LR, gt=0)
    head_lr: float = Field(default=defaults.HEAD_LR, gt=0)
    train_blocks: Depth | None = None
    flips: bool = False
    stain_jitter: float = Field(default=defaults.STAIN_JITTER, ge=0, le=0.5)
    precision: defaults.TrainPrecision = defaults.TRAIN_PRECISION
    n_seeds: int = Field(default=defaults.FINETUNE_SEEDS, ge=1)
    evaluate: defaults.Evaluation = defaults.EVALUATE

    def stage(self, finetuned: str) -> StageTwo:
        """Return them for what is to be trained: `tuned` brings its control `head` along."""
        settings = FinetuneSettings(finetuned=finetuned, **self.model_dump(exclude={"n_seeds", "evaluate"}))
        return StageTwo(finetune=settings, n_seeds=self.n_seeds, evaluate=self.evaluate)


class Comparison(Part):
    """A declared table: arms beside what they are compared with, by a rule or as listed."""

    name: str
    title: str
    rule: Rule | None = None
    encoders: tuple[str, ...] | None = None
    pairs: tuple[tuple[str, str], ...] = ()

    def list_rows(self, arms: Sequence[Arm]) -> list[tuple[str, str]]:
        """Return the (arm, base) rows whose arms are both among `arms`."""
        names = {arm.name for arm in arms}
        if self.rule is None:
            return [pair for pair in self.pairs if set(pair) <= names]
        listed = [arm for arm in arms if self.encoders is None or arm.encoder in self.encoders]
        if self.rule != "tuned against frozen":  # what is chosen in each fold has no encoder or depth to go by
            listed = [arm for arm in listed if not arm.is_chosen]
        return [(arm.name, base.name) for arm in listed if (base := self._find_base(arm, listed)) is not None]

    def _find_base(self, arm: Arm, arms: Sequence[Arm]) -> Arm | None:
        """Return what an arm is compared with; None where it stands in no row of this table."""
        if self.rule == "each against the first":
            frozen = [a for a in arms if a.finetuned == "frozen" and a.depth == 4 and _reads_alike(a, arms[0])]
            return frozen[0] if arm in frozen[1:] else None
        if self.rule == "tuned against frozen":
            return None if arm.finetuned == "frozen" else _find(arms, replace(arm, finetuned="frozen"))
        if self.rule == "depth against 4":
            return None if arm.depth == 4 else _find(arms, replace(arm, depth=4))
        if self.rule == "fewer tiles against most":
            same = [a for a in arms if replace(a, tiles_per_slide=0) == replace(arm, tiles_per_slide=0)]
            most = max(same, key=lambda a: a.tiles_per_slide or math.inf)
            return None if arm == most else most
        if arm.finetuned != "frozen" or _is_imagenet(arm):
            return None
        if arm.features:
            return None
        network = find_encoder(arm.encoder).network
        alike = [a for a in arms if _is_imagenet(a) and a == replace(arm, encoder=a.encoder)]
        return next((a for a in alike if find_encoder(a.encoder).network == network), None)


def _list_counts(value: object, key: str, word: str, example: str) -> list[object]:
    """Return a number or a list of some as a list.

    Raises:
        ValueError: If one is no whole number above 0 and not the word, or one stands twice.
    """
    counts = list(value) if isinstance(value, list | tuple) else [value]
    if not counts:
        raise ValueError(f"{key} is empty. Write whole numbers of at least 1, or {word}: {example}")
    for count in counts:
        if count != word and (not isinstance(count, int) or isinstance(count, bool) or count < 1):
            raise ValueError(f"{key} holds {count!r} and takes whole numbers of at least 1, or {word}. Write {example}")
        if counts.count(count) > 1:
            raise ValueError(f"{key} holds {count} twice. Keep one.")
    return counts


def _find(arms: Sequence[Arm], wanted: Arm) -> Arm | None:
    return wanted if wanted in arms else None


def _reads_alike(arm: Arm, other: Arm) -> bool:
    """Say whether two arms have the same head, tiles a slide and width."""
    return (arm.head, arm.tiles_per_slide, arm.width) == (other.head, other.tiles_per_slide, other.width)


def _is_imagenet(arm: Arm) -> bool:
    if arm.features:
        return False
    seen = find_encoder(arm.encoder).trained_on
    return bool(seen) and all("imagenet" in name.lower() for name in seen)
