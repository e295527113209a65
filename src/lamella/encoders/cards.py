"""Cards: what is known about an encoder without building it.

An encoder is asked for by name: one of the catalogue (`resnet18`), any network of timm (`timm:NAME`), a model of the
hub (`hf-hub:OWNER/NAME`), or one's own function (`FILE.py:build`). A name may end in `@4`, the whole network's four
blocks.
"""

import difflib
import re
from dataclasses import dataclass, field
from typing import Any

from lamella.errors import EncoderError

N_BLOCKS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderCard:
    """What an encoder is, where its weights come from, and how pixels must be normalised for it.

    Attributes:
        name: What one asks for.
        network: timm's name of the architecture, or `FILE.py:build`.
        source: Where the weights come from, in words.
        weights_tag: Which weights of that architecture.
        mean: `(red, green, blue)` subtracted from pixel values in 0 to 1.
        std: `(red, green, blue)` that the difference is divided by.
        embedding_dim: Width of the embedding.
        licence: Licence of the weights as shipped.
        trained_on: Data sets the weights are known to have seen.
        input_px: Side of the image the weights were trained at, in pixels; None where it is not known.
        fixed_input: True where the network takes no other size: tiles are resized to `input_px` inside. Others see
            the tile as it was cut.
        package: The Python package that carries the weights, as pip takes it.
        package_file: The weights' path below the folder that packages are installed in.
        package_pulls_more: True where the package asks for others that are not needed here.
        sha256: SHA-256 of the weights file, where one is known.
        hub_id: `OWNER/NAME` of the weights on the model hub.
        url: Address of the weights where the hub has none.
        batchnorm_eps: Epsilon of every batch normalisation, where it is not the network's own.
        model_args: Further arguments of the architecture.
    """

    name: str
    network: str
    source: str
    weights_tag: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    embedding_dim: int
    licence: str
    trained_on: tuple[str, ...]
    input_px: int | None
    fixed_input: bool = False
    package: str | None = None
    package_file: str | None = None
    package_pulls_more: bool = False
    sha256: str | None = None
    hub_id: str | None = None
    url: str | None = None
    batchnorm_eps: float | None = None
    model_args: dict[str, Any] = field(default_factory=dict, hash=False)

    @property
    def is_own(self) -> bool:
        """True where the network is built by the user's own `FILE.py:build`."""
        return is_own(self.network)


@dataclass(frozen=True, slots=True)
class EncoderSpec:
    """Which encoder, with which weights.

    Attributes:
        name: As `find_encoder` takes it.
        weights: `auto` (the card's, if they are on this machine), `random` (seeded by the encoder's name), or the
            path of a weights file.
    """

    name: str
    weights: str = "auto"


def list_encoders() -> tuple[EncoderCard, ...]:
    """List the encoders that go by a plain name, the default first.

    Example:
        >>> [card.name for card in list_encoders()][:4]
        ['efficientnet-lite0', 'efficientnet-lite1', 'efficientnet-lite2', 'resnet18']
    """
    from lamella.encoders.catalogue import CATALOGUE

    return CATALOGUE


def find_encoder(name: str) -> EncoderCard:
    """Find the card of an encoder by any of the four kinds of name.

    Plain names need no torch; `timm:` names import timm, `FILE.py:build` runs that file.

    Raises:
        EncoderError: If no encoder has that name, or one's own does not keep the rules of `FILE.py:build`.
        WeightsError: If a `hf-hub:` model was not fetched yet (its card comes with its weights).

    Example:
        >>> find_encoder("resnet50").embedding_dim
        2048
        >>> find_encoder("resnet51")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        lamella.errors.EncoderError: no encoder is called 'resnet51'. The nearest is 'resnet50'; ...
    """
    whole = strip_depth(name)
    if whole.startswith(("timm:", "hf-hub:")) or is_own(whole):
        from lamella.encoders.foreign import find_foreign_encoder

        return find_foreign_encoder(whole)
    cards = {card.name: card for card in list_encoders()}
    if whole in cards:
        return cards[whole]
    raise EncoderError(no_encoder_called(whole, list(cards), "`lamella encoders` lists all"))


def strip_depth(name: str) -> str:
    """Return `name` without its `@DEPTH`.

    Raises:
        EncoderError: If the depth is another than the whole network.

    Example:
        >>> strip_depth("resnet18@4")
        'resnet18'
    """
    whole, at, depth = name.rpartition("@")
    if not at or is_own(name):
        return name
    if depth == str(N_BLOCKS):
        return whole
    raise EncoderError(
        f"encoder '{name}' asks for depth '{depth}' and this version has whole networks only (depth {N_BLOCKS}): "
        f"truncated encoders are not in it. Ask for '{whole}'."
    )


def is_own(name: str) -> bool:
    """True for names of the form `FILE.py:build`."""
    return re.search(r"\.py:\w+$", name) is not None


def no_encoder_called(name: str, names: list[str], where: str) -> str:
    """Compose the error for a name that nothing has, with the nearest that something has."""
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    nearest = f"The nearest is '{near[0]}'; {where}." if near else f"{where[0].upper()}{where[1:]}."
    return f"no encoder is called '{name}'. {nearest}"
