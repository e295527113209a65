"""An arm: one cell of a study. Seeds and folds are repeats inside it, never arms."""

import hashlib
import json
import re
from dataclasses import asdict, dataclass
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

    Raises:
        SettingsError: If there is no such depth or way of fine-tuning.

    Example:
        >>> arm = Arm(encoder="resnet18", depth=3, finetuned="tuned")
        >>> arm.name, arm.trunk
        ('resnet18@3, tuned', 'resnet18@3')
        >>> Arm(encoder="resnet18", depth=4, weights="random", head="mean", tiles="20x").name
        'resnet18@4, random weights, mean, 20x'
    """

    encoder: str
    depth: int = 4
    weights: str = "auto"
    finetuned: Finetuned = "frozen"
    head: str = HEAD
    tiles: str = "default"
    features: str = ""

    def __post_init__(self) -> None:
        """Refuse what no study can run."""
        if self.depth not in (1, 2, 3, 4):
            raise SettingsError(f"'{self.encoder}' is to be cut after block {self.depth} and has blocks 1 to 4.")
        if self.finetuned not in FINETUNED:
            raise SettingsError(f"an arm is {', '.join(FINETUNED)}, not '{self.finetuned}'.")

    @property
    def trunk(self) -> str:
        """The encoder with its depth, as `lamella extract --encoder` takes it; bags that are there by their name."""
        return self.encoder if self.features else f"{self.encoder}@{self.depth}"

    @property
    def is_chosen(self) -> bool:
        """Whether it is another arm in each fold, chosen on the fold's own validation patients."""
        return self.encoder == CHOSEN

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
        return f"{self.trunk}{weights}{_SAID[self.finetuned]}{head}{tiles}"

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
        parts = [trunk, weights, self.finetuned, self.head, self.tiles]
        left_out = ("", "auto", "frozen", "attention", "default")
        said = "-".join(part for part, usual in zip(parts, left_out, strict=True) if part != usual)
        letters = r"[a-z0-9._]*" if self.features else r"[a-z0-9._-]*"  # a head's name follows after a dash
        is_plain = re.fullmatch(rf"[a-z0-9]{letters}", encoder) and all(
            re.fullmatch(r"[a-z0-9_]+(\.[a-z0-9_]+)*", part) and part not in _WORDS for part in free
        )
        if is_plain and encoder == self.encoder and len(said) <= _LONGEST:
            return said
        digits = hashlib.sha256(self.name.encode()).hexdigest()[:6]
        return f"{re.sub(r'[^a-z0-9@._]+', '-', said.lower())[:_LONGEST].strip('.-')}-{digits}"

    @property
    def key(self) -> str:
        """12 hex digits by which version 0.1.0 named folders."""
        content = asdict(self)
        if not self.features:
            del content["features"]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]


def _strip(path: str) -> str:
    """Return a path's last part, whichever system wrote it."""
    return path.replace("\\", "/").rsplit("/", 1)[-1]


CHOSEN_ARMS = tuple(Arm(encoder=CHOSEN, finetuned=kind) for kind in FINETUNED)
"""The frozen arm that is best in each fold, its control, and what is fine-tuned from it."""
