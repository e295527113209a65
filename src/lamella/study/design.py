"""The design of a study: a small declared file, checked before anything runs.

preset: mine
tiles: {default: {tile_px: 224, mpp: 0.25}}
arms:
  - {encoders: [efficientnet-lite0], depths: [4, 3, 2], finetuned: [frozen]}
comparisons:
  - {name: IV, title: Truncated, rule: depth against 4}
margin: 0.05
"""

import difflib
import itertools
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from lamella.encoders import find_encoder
from lamella.errors import LamellaError, SettingsError
from lamella.features.plan import CutSettings
from lamella.finetune.settings import FinetuneSettings
from lamella.mil.settings import TrainSettings
from lamella.study.arms import Arm
from lamella.study.settings import StageTwo
from lamella.tiles import TileSpec

Depth = Literal[1, 2, 3, 4]
Finetuned = Literal["frozen", "head", "tuned"]
Rule = Literal["each against the first", "histology against ImageNet", "tuned against frozen", "depth against 4"]


class _Part(BaseModel):
    """A frozen part of a design that knows no other keys than its own."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class TileDesign(_Part):
    """How slides are cut; the field names are those of the command line."""

    tile_px: int = Field(default=512, ge=16)
    mpp: float = Field(default=0.5, gt=0)
    stride_px: int | None = Field(default=None, ge=1)
    min_tissue: float = Field(default=0.5, ge=0, lt=1)
    tissue: Literal["glass", "otsu"] = "glass"
    max_upsample: float = Field(default=1.10, ge=1)

    def cut(self) -> CutSettings:
        """Return it as the pipeline takes it."""
        spec = TileSpec(tile_px=self.tile_px, mpp=self.mpp, stride_px=self.stride_px, min_tissue=self.min_tissue)
        return CutSettings(spec=spec, tissue=self.tissue, max_upsample=self.max_upsample)


class ArmBlock(_Part):
    """Arms that are the product of some lists."""

    encoders: tuple[str, ...] = Field(min_length=1)
    depths: tuple[Depth, ...] = (4,)
    weights: tuple[str, ...] = ("auto",)
    finetuned: tuple[Finetuned, ...] = ("frozen",)
    heads: tuple[Literal["attention", "ilse", "gated", "mean", "max"], ...] = ("attention",)
    tiles: tuple[str, ...] = ("default",)

    @field_validator("encoders")
    @classmethod
    def _known(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if "@" in name:
                raise ValueError(f"'{name}' names a depth. Write the encoder alone and its depths under depths.")
            try:
                find_encoder(name)
            except LamellaError as error:
                raise ValueError(str(error)) from error
        return names

    def expand(self) -> tuple[Arm, ...]:
        """Return the arms."""
        product = itertools.product(self.tiles, self.encoders, self.weights, self.heads, self.depths, self.finetuned)
        return tuple(
            Arm(encoder=encoder, depth=depth, weights=weights, finetuned=finetuned, head=head, tiles=tiles)
            for tiles, encoder, weights, head, depth, finetuned in product
        )


class TrainDesign(_Part):
    """How heads are trained."""

    epochs: int = Field(default=40, ge=1)
    patience: int = Field(default=10, ge=1)
    lr: float = Field(default=1e-3, gt=0)
    weight_decay: float = Field(default=1e-4, ge=0)

    def settings(self, head: str, seed: int) -> TrainSettings:
        """Return them for one head and the first seed."""
        return TrainSettings(
            head=head, epochs=self.epochs, patience=self.patience, lr=self.lr, weight_decay=self.weight_decay, seed=seed
        )


class FinetuneDesign(_Part):
    """How encoder and head are trained on, on each slide's most attended tiles."""

    k: int = Field(default=64, ge=1)
    epochs: int = Field(default=20, ge=1)
    patience: int = Field(default=5, ge=1)
    encoder_lr: float = Field(default=1e-5, gt=0)
    head_lr: float = Field(default=1e-4, gt=0)
    train_blocks: Depth | None = None
    flips: bool = False
    stain_jitter: float = Field(default=0.0, ge=0, le=0.5)
    precision: Literal["fp32", "bf16"] = "fp32"
    n_seeds: int = Field(default=1, ge=1)
    evaluate: Literal["all", "top-k"] = "all"

    def stage(self, arm: str) -> StageTwo:
        """Return them for one arm: `tuned` brings its control `head` along."""
        own = self.model_dump(exclude={"n_seeds", "evaluate"})
        return StageTwo(finetune=FinetuneSettings(arm=arm, **own), n_seeds=self.n_seeds, evaluate=self.evaluate)


class Comparison(_Part):
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
        own = [arm for arm in arms if self.encoders is None or arm.encoder in self.encoders]
        return [(arm.name, base.name) for arm in own if (base := self._find_base(arm, own)) is not None]

    def _find_base(self, arm: Arm, arms: Sequence[Arm]) -> Arm | None:
        """Return what an arm is compared with; None where it stands in no row of this table."""
        if self.rule == "each against the first":
            frozen = [a for a in arms if a.finetuned == "frozen" and a.depth == 4 and a.head == arms[0].head]
            return frozen[0] if arm in frozen[1:] else None
        if self.rule == "tuned against frozen":
            wanted = {**_fields(arm), "finetuned": "frozen"}
            return None if arm.finetuned == "frozen" else _find(arms, wanted)
        if self.rule == "depth against 4":
            return None if arm.depth == 4 else _find(arms, {**_fields(arm), "depth": 4})
        if arm.finetuned != "frozen" or _is_imagenet(arm):
            return None
        network = find_encoder(arm.encoder).network
        alike = [a for a in arms if a.finetuned == "frozen" and a.depth == arm.depth and _is_imagenet(a)]
        return next((a for a in alike if find_encoder(a.encoder).network == network), None)


class StudyDesign(_Part):
    """What a study compares, and how.

    Attributes:
        preset: Where the design came from; None for one's own.
        tiles: Tile specs by name; arms name theirs.
        arms: Blocks of arms.
        finetune_best: Whether the frozen arm that is best on validation is fine-tuned too, beside its control.
        seeds: Heads trained in each round; their logits are averaged.
        folds: Rounds, where the cohort brings neither folds nor splits.
        split: `folds`, `holdout` (65/15/20 by patient) or `given` (the cohort's own only).
        split_seed: Of the folds or splits.
        train: How heads are trained.
        finetune: How encoders are fine-tuned.
        comparisons: Declared tables.
        margin: How much AUC the recommended arm may lie below the best.
        permutations: Runs of the control with permuted labels.
        control_arm: The arm that is permuted; None takes the cheapest.
        cka: Whether fine-tuned encoders are compared with frozen ones, block by block.
        cam: Whether class activation maps are computed.
        localise: Folder of outlines.
        budget: Time that may be spent, such as `3h`.
    """

    preset: str | None = None
    tiles: dict[str, TileDesign] = Field(default_factory=lambda: {"default": TileDesign()})
    arms: tuple[ArmBlock, ...] = Field(min_length=1)
    finetune_best: bool = False
    seeds: int = Field(default=3, ge=1)
    folds: int = Field(default=5, ge=2)
    split: Literal["folds", "holdout", "given"] = "folds"
    split_seed: int = Field(default=0, ge=0)
    train: TrainDesign = TrainDesign()
    finetune: FinetuneDesign = Field(default_factory=lambda: FinetuneDesign.model_validate({}))
    comparisons: tuple[Comparison, ...] = ()
    margin: float = Field(default=0.05, gt=0, lt=0.5)
    permutations: int = Field(default=19, ge=0)
    control_arm: str | None = None
    cka: bool = False
    cam: bool = False
    localise: str | None = None
    budget: str | None = None

    @field_validator("budget")
    @classmethod
    def _is_time(cls, text: str | None) -> str | None:
        if text is not None:
            try:
                parse_time(text)
            except SettingsError as error:
                raise ValueError(str(error)) from error
        return text

    def list_arms(self) -> tuple[Arm, ...]:
        """Return the arms, each once, in the order of the file.

        Raises:
            SettingsError: If an arm names tiles that are not declared.
        """
        arms = tuple(dict.fromkeys(arm for block in self.arms for arm in block.expand()))
        for arm in arms:
            if arm.tiles not in self.tiles:
                raise SettingsError(
                    f"an arm's tiles are called '{arm.tiles}' and there are {', '.join(self.tiles)}. Correct the name."
                )
        return arms

    def list_tables(self, arms: Sequence[Arm]) -> list[dict[str, Any]]:
        """Return the declared tables over the arms that ran: `name`, `title`, `rows` of (arm, base)."""
        return [{"name": one.name, "title": one.title, "rows": one.list_rows(arms)} for one in self.comparisons]

    def as_plain(self) -> dict[str, Any]:
        """Return it as plain data, without folders."""
        plain = self.model_dump(mode="json")
        plain["localise"] = None if self.localise is None else Path(self.localise).name
        return plain

    def with_changes(self, **changes: Any) -> "StudyDesign":
        """Return it with what the command line changes; None leaves a value as it is.

        `tile_px`, `stride_px` and `mpp` change every tile spec.
        """
        given = {key: value for key, value in changes.items() if value is not None}
        cut = {key: given.pop(key) for key in ("tile_px", "stride_px", "mpp") if key in given}
        tiles = {name: one.model_dump() | cut for name, one in self.tiles.items()}
        return check_design(self.model_dump() | given | {"tiles": tiles}, "the command line")


def load_design(path: Path) -> StudyDesign:
    """Read a declared study.

    Raises:
        SettingsError: If it cannot be read, with the line and what to do.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"'{path}' cannot be read. Name a study's file (.yaml).") from error
    try:
        node, content = yaml.compose(text, Loader=yaml.SafeLoader), yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        raise SettingsError(f"'{Path(path).name}'{where} is not YAML. Look at quotes, brackets and indents.") from error
    if not isinstance(content, dict):
        raise SettingsError(f"'{Path(path).name}' declares nothing. Begin with: lamella study --print-preset quick")
    return check_design(content, f"'{Path(path).name}'", node)


def check_design(content: Mapping[str, Any], where: str, node: yaml.Node | None = None) -> StudyDesign:
    """Return a design from plain data.

    Raises:
        SettingsError: If a key or value is none that a design has.
    """
    try:
        design = StudyDesign.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        place = [part for part in first["loc"] if not str(part).startswith("function-")]
        line = _find_line(node, place)
        at = where if line is None else f"{where}, line {line}"
        name = ".".join(map(str, place))
        if first["type"] == "extra_forbidden":
            raise SettingsError(f"{at}: '{name}' is no key of a study. {_nearest(place)}") from error
        said = str(first["msg"]).rstrip(".")
        if first["type"] == "value_error":
            raise SettingsError(f"{at}: {said.removeprefix('Value error, ')}.") from error
        said = said.replace("Input should", "and should", 1)
        raise SettingsError(f"{at}: {name} is {first['input']!r} {said}. Leave it out for the default.") from error
    design.list_arms()
    return design


def dump_design(design: StudyDesign) -> str:
    """Return a design as YAML that `load_design` reads back to the same."""
    head = "# A study for `lamella study FILE --cohort TABLE`; every key is explained in docs/study.md.\n"
    return head + yaml.safe_dump(design.model_dump(mode="json"), sort_keys=False, width=100, default_flow_style=None)


def parse_time(text: str) -> float:
    """Return seconds.

    Raises:
        SettingsError: If it is no time.

    Example:
        >>> parse_time("90m"), parse_time("1.5h"), parse_time("1h30m")
        (5400.0, 5400.0, 5400.0)
    """
    found = re.fullmatch(r"(?:([\d.]+)\s*h)?\s*(?:([\d.]+)\s*m(?:in)?)?\s*(?:([\d.]+)\s*s)?", text.strip())
    seconds = 0.0
    if found is not None:
        try:
            seconds = sum(float(part or 0) * unit for part, unit in zip(found.groups(), (3600, 60, 1), strict=True))
        except ValueError:  # 1.2.3h
            seconds = 0.0
    if seconds <= 0:
        raise SettingsError(f"'{text}' is no time. Write it such as 3h, 90m or 1h30m.")
    return seconds


def _fields(arm: Arm) -> dict[str, Any]:
    return {name: getattr(arm, name) for name in ("encoder", "depth", "weights", "finetuned", "head", "tiles")}


def _find(arms: Sequence[Arm], wanted: Mapping[str, Any]) -> Arm | None:
    return next((arm for arm in arms if _fields(arm) == wanted), None)


def _is_imagenet(arm: Arm) -> bool:
    seen = find_encoder(arm.encoder).trained_on
    return bool(seen) and all("imagenet" in name.lower() for name in seen)


def _find_line(node: yaml.Node | None, place: Sequence[Any]) -> int | None:
    """Return the line, from 1, of the value that a place in the data names; of its nearest parent otherwise."""
    line = None
    for part in place:
        if isinstance(node, yaml.MappingNode):
            pair = next((pair for pair in node.value if pair[0].value == part), None)
            if pair is None:
                break
            line, node = pair[0].start_mark.line + 1, pair[1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            line = node.start_mark.line + 1
        else:
            break
    return line


def _nearest(place: Sequence[Any]) -> str:
    parts: list[type[BaseModel]] = [StudyDesign, TileDesign, ArmBlock, TrainDesign, FinetuneDesign, Comparison]
    known = sorted({name for part in parts for name in part.model_fields})
    nearest = difflib.get_close_matches(str(place[-1]), known, n=1, cutoff=0.0)[0]
    return f"The nearest is '{nearest}'."
