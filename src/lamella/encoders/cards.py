"""Cards: what is known about an encoder without building it.

An encoder is asked for by name: one of the catalogue (`resnet18`), any network of timm (`timm:NAME`), a model of the
hub (`hf-hub:OWNER/NAME`), one's own function (`FILE.py:build`), or the file of a fine-tuned one. A name may end in
`@DEPTH`, which keeps the first blocks of four: `resnet18@3`.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lamella.encoders.names import N_BLOCKS, is_own, is_tuned, join_name, no_encoder_called, split_name
from lamella.errors import EncoderError


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
    model_args: dict[str, Any] = field(default_factory=dict, hash=False)
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


def read_card(values: Mapping[str, Any]) -> EncoderCard:
    """Return a card from what JSON made of it; what this version does not know is left out."""
    known = {field.name for field in dataclasses.fields(EncoderCard)}
    given: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in values.items() if key in known}
    return EncoderCard(**given)


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


@dataclass(frozen=True, slots=True)
class Trunk:
    """Encoders that are one network with the same weights, read at different depths: it runs once for all of them.

    Attributes:
        specs: The encoders, by depth.
    """

    specs: tuple[EncoderSpec, ...]

    @property
    def name(self) -> str:
        """Their common name: `resnet18@1,2,4`."""
        if len(self.specs) == 1:
            return join_name(*split_name(self.specs[0].name))
        return f"{split_name(self.specs[0].name)[0]}@{','.join(map(str, self.depths))}"

    @property
    def depths(self) -> tuple[int, ...]:
        """Where the network is read, ascending."""
        # Only the file of a fine-tuned encoder knows how many blocks it holds.
        return tuple(
            find_encoder(spec.name).depth if is_tuned(spec.name) else split_name(spec.name)[1] for spec in self.specs
        )

    @property
    def deepest(self) -> EncoderSpec:
        """The encoder whose network holds all the others."""
        return self.specs[-1]


def group_by_trunk(specs: Sequence[EncoderSpec]) -> tuple[Trunk, ...]:
    """Group encoders by the network that they are blocks of, so that each network runs once.

    Example:
        >>> wanted = [EncoderSpec(name) for name in ("resnet18", "densenet121@3", "resnet18@2")]
        >>> [trunk.name for trunk in group_by_trunk(wanted)]
        ['resnet18@2,4', 'densenet121@3']
    """
    groups: dict[tuple[str, str], dict[int, EncoderSpec]] = {}
    for spec in specs:
        whole, depth = split_name(spec.name)
        groups.setdefault((whole, spec.weights), {})[depth] = spec
    return tuple(Trunk(tuple(group[depth] for depth in sorted(group))) for group in groups.values())


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
        EncoderError: If no encoder has that name, it cannot be cut there, or one's own does not keep the rules of
            `FILE.py:build`.
        WeightsError: If a `hf-hub:` model was not fetched yet (its card comes with its weights).

    Example:
        >>> find_encoder("resnet50").embedding_dim
        2048
        >>> find_encoder("resnet50@3").embedding_dim  # what CLAM and TRIDENT call ResNet-50
        1024
        >>> find_encoder("resnet51")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        lamella.errors.EncoderError: no encoder is called 'resnet51'. The nearest is 'resnet50'; ...
    """
    whole, depth = split_name(name)
    card = _find_whole(whole)
    if depth == N_BLOCKS:
        return card
    if depth > card.depth:
        raise EncoderError(
            f"encoder '{name}' asks for depth {depth} and its file holds {card.depth} blocks. Ask for those."
        )
    if card.block_dims is None:
        from lamella.encoders.foreign import find_block_dims

        card = dataclasses.replace(card, block_dims=find_block_dims(card))
    return cut_card(card, depth)


def cut_card(card: EncoderCard, depth: int) -> EncoderCard:
    """Return the card of an encoder's first `depth` blocks; its `block_dims` must be known.

    Example:
        >>> cut_card(find_encoder("resnet50"), 3).embedding_dim
        1024
    """
    assert card.block_dims is not None
    name, width = join_name(card.whole_name, depth), card.block_dims[depth - 1]
    return dataclasses.replace(card, name=name, depth=depth, embedding_dim=width)


def _find_whole(name: str) -> EncoderCard:
    """Find the card of a whole encoder."""
    if is_tuned(name):
        from lamella.encoders.tuned import find_tuned_card

        return find_tuned_card(name)
    if name.startswith(("timm:", "hf-hub:")) or is_own(name):
        from lamella.encoders.foreign import find_foreign_encoder

        return find_foreign_encoder(name)
    cards = {card.name: card for card in list_encoders()}
    if name in cards:
        return cards[name]
    if name.endswith(".py"):
        raise EncoderError(f"encoder '{name}' names a file and no function in it. Pass {name}:build")
    raise EncoderError(no_encoder_called(name, list(cards), "`lamella encoders` lists all"))
