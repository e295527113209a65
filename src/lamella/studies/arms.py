"""An arm: one cell of a study. Seeds and folds are repeats inside it, never arms."""

import hashlib
import json
import re
from dataclasses import asdict, dataclass, replace
from typing import Literal, get_args

from lamella.defaults import HEAD, HeadName
from lamella.errors import SettingsError

Finetuned = Literal["frozen", "head", "tuned"]
FINETUNED: tuple[Finetuned, ...] = get_args(Finetuned)
CHOSEN = "best of each fold"
"""In place of an encoder: the arm is whichever frozen one did best on each fold's own validation patients."""
_SAID = {"frozen": "", "head": ", head only", "tuned": ", tuned"}
_WORDS = {*FINETUNED, "random", "clam", *get_args(HeadName)}  # say something else in a folder's name
_LONGEST = 80  # characters of a folder's name, before digits


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Arm:
    """One cell of a study: encoder x depth x weights x frozen or fine-tuned x head x tiles.

    Attributes:
        encoder: Name of the encoder, without its depth.
        depth: How many of its four blocks are kept, 1 to 4.
        weights: `auto` (those its card names), `random`, or a path.
        finetuned: `frozen` (stage 1), `head` (stage 2 with the encoder frozen: the control) or `tuned`.
        head: How tiles are pooled, as `lamella train --head` takes it.
        tiles: Name of the tile spec in the study's design; `default` where there is one.
        features: Folder of bags that are there already, whoever made them; empty where slides are encoded. `encoder` is
            then what the design calls them, and they are not cut.
        tiles_per_slide: Most tiles of a slide that are encoded and read, spread over its tissue; 0 is all.
        width: Most numbers of an embedding that the head reads, by principal components of each fold's training tiles;
            0 leaves embeddings as they are.

    Raises:
        SettingsError: If there is no such depth or way of fine-tuning.

    Example:
        >>> arm = Arm(encoder="resnet18", depth=3, finetuned="tuned")
        >>> arm.name, arm.trunk
        ('resnet18@3, tuned', 'resnet18@3')
        >>> Arm(encoder="resnet18", depth=4, weights="random", head="mean", tiles="20x").name
        'resnet18@4, random weights, mean, 20x'
        >>> Arm(encoder="resnet18", depth=3, tiles_per_slide=64, width=128).name
        'resnet18@3, 64 tiles, width 128'
    """

    encoder: str
    depth: int = 4
    weights: str = "auto"
    finetuned: Finetuned = "frozen"
    head: str = HEAD
    tiles: str = "default"
    features: str = ""
    tiles_per_slide: int = 0
    width: int = 0

    def __post_init__(self) -> None:
        """Refuse what no study can run."""
        if self.depth not in (1, 2, 3, 4):
            raise SettingsError(f"'{self.encoder}' is to be cut after block {self.depth} and has blocks 1 to 4.")
        if self.finetuned not in FINETUNED:
            raise SettingsError(f"an arm is {', '.join(FINETUNED)}, not '{self.finetuned}'.")
        if self.tiles_per_slide < 0 or self.width < 0:
            raise SettingsError(
                f"an arm has {self.tiles_per_slide} tiles a slide and width {self.width}; 0 is all of them."
            )

    @property
    def trunk(self) -> str:
        """The encoder with its depth, as `lamella extract --encoder` takes it; bags that are there by their name."""
        return self.encoder if self.features else f"{self.encoder}@{self.depth}"

    @property
    def is_chosen(self) -> bool:
        """Whether it is another arm in each fold, chosen on the fold's own validation patients."""
        return self.encoder == CHOSEN

    @property
    def whole(self) -> "Arm":
        """The arm that reads all tiles of a slide, and embeddings as they are; itself where it does."""
        return replace(self, tiles_per_slide=0, width=0)

    @property
    def name(self) -> str:
        """What people call it; no two arms of a study share it."""
        if self.is_chosen:
            return f"{CHOSEN}{_SAID[self.finetuned]}"
        weights = {"auto": "", "random": ", random weights"}.get(self.weights)
        if weights is None:
            weights = f", {_strip(self.weights)}"
        head = "" if self.head == "attention" else f", {self.head}"
        tiles = "" if self.tiles == "default" else f", {self.tiles}"
        most = f", {self.tiles_per_slide} tiles" if self.tiles_per_slide else ""
        width = f", width {self.width}" if self.width else ""
        return f"{self.trunk}{weights}{_SAID[self.finetuned]}{head}{tiles}{most}{width}"

    @property
    def folder(self) -> str:
        """What its folder is called; it ends in six hex digits of the name where plain words could mean another arm.

        Example:
            >>> Arm(encoder="efficientnet-lite0", depth=3, finetuned="tuned").folder
            'efficientnet-lite0@3-tuned'
            >>> Arm(encoder="nets/Own.py:build", weights="random", head="mean").folder
            'own.py-build@4-random-mean-57b591'
        """
        encoder, weights = (_strip(part) for part in (self.encoder, self.weights))
        free = [
            part for part, usual in ((weights, ("auto", "random")), (self.tiles, ("default",))) if part not in usual
        ]
        trunk = encoder if self.features else f"{encoder}@{self.depth}"
        most, width = f"{self.tiles_per_slide}tiles", f"w{self.width}"
        parts = [trunk, weights, self.finetuned, self.head, self.tiles, most, width]
        left_out = ("", "auto", "frozen", "attention", "default", "0tiles", "w0")
        said = "-".join(part for part, usual in zip(parts, left_out, strict=True) if part != usual)
        letters = r"[a-z0-9._]*" if self.features else r"[a-z0-9._-]*"  # a head's name follows after a dash
        is_plain = re.fullmatch(rf"[a-z0-9]{letters}", encoder) and all(
            re.fullmatch(r"[a-z0-9_]+(\.[a-z0-9_]+)*", part)
            and part not in _WORDS
            and not re.fullmatch(r"\d+tiles|w\d+", part)
            for part in free
        )
        if is_plain and encoder == self.encoder and len(said) <= _LONGEST:
            return said
        digits = hashlib.sha256(self.name.encode()).hexdigest()[:6]
        return f"{re.sub(r'[^a-z0-9@._]+', '-', said.lower())[:_LONGEST].strip('.-')}-{digits}"

    @property
    def key(self) -> str:
        """12 hex digits by which version 0.1.0 named folders."""
        content = asdict(self)
        for name in ("features", "tiles_per_slide", "width"):
            if not content[name]:
                del content[name]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]


def _strip(path: str) -> str:
    """Return a path's last part, whichever system wrote it."""
    return path.replace("\\", "/").rsplit("/", 1)[-1]


CHOSEN_ARMS = tuple(Arm(encoder=CHOSEN, finetuned=kind) for kind in FINETUNED)
"""The frozen arm that is best in each fold, its control, and what is fine-tuned from it."""
