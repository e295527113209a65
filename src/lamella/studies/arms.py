"""An arm: one cell of a study. Seeds and folds are repeats inside it, never arms."""

import hashlib
import json
from dataclasses import asdict, dataclass

from lamella.defaults import HEAD
from lamella.errors import SettingsError

FINETUNED = ("frozen", "head", "tuned")
CHOSEN = "best of each fold"
"""In place of an encoder: the arm is whichever frozen one did best on each fold's own validation patients."""
_SAID = {"frozen": "", "head": ", head only", "tuned": ", tuned"}


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Arm:
    """One cell of a study: encoder x depth x weights x frozen or fine-tuned x head x tiles.

    Attributes:
        encoder: Name of the encoder, without its depth.
        depth: How many of its four blocks are kept, 1 to 4.
        weights: `auto` (those its card names), `random`, or a path.
        finetuned: `frozen` (stage 1), `head` (stage 2 with the encoder frozen: the control) or `tuned`.
        head: How tiles are pooled: `attention`, `ilse`, `gated`, `mean` or `max`.
        tiles: Name of the tile spec in the study's design; `default` where there is one.

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
    finetuned: str = "frozen"
    head: str = HEAD
    tiles: str = "default"

    def __post_init__(self) -> None:
        """Refuse what no study can run."""
        if self.depth not in (1, 2, 3, 4):
            raise SettingsError(f"'{self.encoder}' is to be cut after block {self.depth} and has blocks 1 to 4.")
        if self.finetuned not in FINETUNED:
            raise SettingsError(f"an arm is {', '.join(FINETUNED)}, not '{self.finetuned}'.")

    @property
    def trunk(self) -> str:
        """The encoder with its depth, as `lamella extract --encoder` takes it."""
        return f"{self.encoder}@{self.depth}"

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
            weights = f", {self.weights.replace(chr(92), '/').rsplit('/', 1)[-1]}"
        head = "" if self.head == "attention" else f", {self.head}"
        tiles = "" if self.tiles == "default" else f", {self.tiles}"
        return f"{self.trunk}{weights}{_SAID[self.finetuned]}{head}{tiles}"

    @property
    def key(self) -> str:
        """12 hex digits by which folders are named."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:12]


CHOSEN_ARMS = tuple(Arm(encoder=CHOSEN, finetuned=kind) for kind in FINETUNED)
"""The frozen arm that is best in each fold, its control, and what is fine-tuned from it."""
