"""Cards: what is known about an encoder without building it. Data alone; `registry` finds the card of a name."""

import dataclasses
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from lamella.defaults import WEIGHTS
from lamella.encoders.names import N_BLOCKS, is_own, is_tuned, join_name, split_name

if TYPE_CHECKING:
    from pydantic import JsonValue


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
        embedding_dim: Width of the embedding, at this card's depth.
        licence: Licence of the weights as shipped.
        trained_on: Data sets the weights are known to have seen.
        input_px: Side of the image the weights were trained at, in pixels; None where it is not known.
        fixed_input: True where the network takes no other size: tiles are resized to `input_px` inside. Others see
            the tile as it was cut.
        package: The Python package that carries the weights, as pip takes it.
        package_file: The weights' path below the folder that packages are installed in.
        package_pulls_more: True where the package asks for others that are not needed here.
        sha256: SHA-256 of the weights file, or the digits it begins with, where they are known.
        hub_id: `OWNER/NAME` of the weights on the model hub.
        url: Address of the weights where the hub has none.
        batchnorm_eps: Epsilon of every batch normalisation, where it is not the network's own.
        model_args: Further arguments of the architecture.
        imagenet_top1: Share of ImageNet's validation images classified right by these weights with their own
            classifier, in per cent, as their source states it; None where it states none.
        block_dims: Width of the embedding after each of the four blocks; None where the network has no such blocks,
            or where they were not looked for.
        depth: How many of the four blocks are kept.
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
    model_args: "dict[str, JsonValue]" = field(default_factory=dict, hash=False)
    imagenet_top1: float | None = None
    block_dims: tuple[int, ...] | None = None
    depth: int = N_BLOCKS

    @property
    def whole_name(self) -> str:
        """The name of the whole encoder: `resnet18` for `resnet18@3`."""
        return split_name(self.name)[0]

    @property
    def is_tuned(self) -> bool:
        """True where the encoder is a file of weights that carries its own card."""
        return is_tuned(self.name)

    @property
    def is_own(self) -> bool:
        """True where the network is built by the user's own `FILE.py:build`."""
        return is_own(self.network)


def read_card(content: "JsonValue") -> EncoderCard:
    """Return a card from what JSON made of it; what this version does not know is left out.

    Raises:
        ValueError: If a value is missing or of another kind.
    """
    from pydantic import JsonValue, TypeAdapter, ValidationError  # inside: `--help` is to be instant

    assert JsonValue is not None  # pydantic looks it up by name, here
    try:
        return TypeAdapter(EncoderCard).validate_python(content)
    except ValidationError as error:
        fault = error.errors()[0]
        raise ValueError(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}") from error


@dataclass(frozen=True, slots=True)
class EncoderSpec:
    """Which encoder, with which weights.

    Attributes:
        name: As `find_encoder` takes it.
        weights: `auto` (the card's, if they are on this machine), `random` (seeded by the encoder's name), or the
            path of a weights file.
    """

    name: str
    weights: str = WEIGHTS


def cut_card(card: EncoderCard, depth: int) -> EncoderCard:
    """Return the card of an encoder's first `depth` blocks; its `block_dims` must be known.

    Example:
        >>> from lamella.encoders import find_encoder
        >>> cut_card(find_encoder("resnet50"), 3).embedding_dim
        1024
    """
    assert card.block_dims is not None
    name, width = join_name(card.whole_name, depth), card.block_dims[depth - 1]
    return dataclasses.replace(card, name=name, depth=depth, embedding_dim=width)
