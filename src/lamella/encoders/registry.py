"""The registry: from an encoder's name to its card, and from names to the networks that carry them.

An encoder is asked for by name: one of the catalogue (`resnet18`), any network of timm (`timm:NAME`), a model of the
hub (`hf-hub:OWNER/NAME`), one's own function (`FILE.py:build`), or the file of a fine-tuned one. A name may end in
`@DEPTH`, which keeps the first blocks of four: `resnet18@3`; or in `@block18`, which keeps so many of a transformer's.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from lamella.encoders.cards import EncoderCard, EncoderSpec, cut_card, keep_layers
from lamella.encoders.catalogue import CATALOGUE, find_group
from lamella.encoders.foreign import find_block_dims, find_foreign_encoder
from lamella.encoders.names import N_BLOCKS, is_own, is_tuned, join_name, no_encoder_called, split_layers, split_name
from lamella.encoders.tuned import find_tuned_card
from lamella.errors import EncoderError


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
    return CATALOGUE


def select_encoders(
    *, like: str | None = None, licence: str | None = None, max_gflops: float | None = None
) -> tuple[EncoderCard, ...]:
    """Select the encoders that go by a plain name.

    Args:
        like: Part of the name, network, group or training data, in any case.
        licence: `permissive` (any use, with no more than the authors named), `commercial`, or part of the licence.
        max_gflops: Most billions of operations a tile at the encoder's own size.

    Example:
        >>> [card.name for card in select_encoders(like="vit", licence="permissive", max_gflops=20)]
        ['dinov2-s', 'dinov2-s-reg']
        >>> [card.name for card in select_encoders(like="pathology", licence="permissive")]
        ['virchow', 'h-optimus-0', 'hibou-b', 'hibou-l', 'midnight-12k']
    """
    return tuple(
        card
        for card in list_encoders()
        if (like is None or like.lower() in _describe(card))
        and (licence is None or _has_licence(card, licence.lower()))
        and (max_gflops is None or (card.gflops is not None and card.gflops <= max_gflops))
    )


def _describe(card: EncoderCard) -> str:
    return " ".join((card.name, card.network, find_group(card.name), *card.trained_on)).lower()


def _has_licence(card: EncoderCard, licence: str) -> bool:
    if licence == "permissive":
        return card.is_permissive
    if licence == "commercial":
        return card.commercial_use is True
    return licence in card.licence.lower()


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
    base, layers = split_layers(whole)
    card = _find_whole(base)
    if layers is not None:
        card = _keep_layers(card, layers)
    if depth == N_BLOCKS:
        return card
    if depth > card.depth:
        raise EncoderError(
            f"encoder '{name}' asks for depth {depth} and its file holds {card.depth} blocks. Ask for those."
        )
    if card.block_dims is None:
        card = dataclasses.replace(card, block_dims=find_block_dims(card))
    return cut_card(card, depth)


def _keep_layers(card: EncoderCard, layers: int) -> EncoderCard:
    """Return the card of a transformer's first blocks, once it was seen to have so many."""
    if card.is_tuned or card.is_own:
        raise EncoderError(
            f"encoder '{card.name}' cannot be cut after block {layers} of its own: it is a file or function of yours. "
            f"Pass a depth of 1 to {N_BLOCKS}."
        )
    kept = keep_layers(card, layers)
    return dataclasses.replace(kept, block_dims=find_block_dims(kept))


def _find_whole(name: str) -> EncoderCard:
    """Find the card of a whole encoder."""
    if is_tuned(name):
        return find_tuned_card(name)
    if name.startswith(("timm:", "hf-hub:")) or is_own(name):
        return find_foreign_encoder(name)
    cards = {card.name: card for card in list_encoders()}
    if name in cards:
        return cards[name]
    if name.endswith(".py"):
        raise EncoderError(f"encoder '{name}' names a file and no function in it. Pass {name}:build")
    raise EncoderError(no_encoder_called(name, list(cards), "`lamella encoders` lists all"))
