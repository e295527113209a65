"""Cards: what is known about an encoder without building it. Data alone; `registry` finds the card of a name."""

import dataclasses
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from lamella.defaults import WEIGHTS
from lamella.encoders.names import N_BLOCKS, is_own, is_tuned, join_name, split_layers, split_name

if TYPE_CHECKING:
    from pydantic import JsonValue

Access = Literal["open", "gated", "unknown"]
Pooling = Literal["", "token", "mean", "token+mean", "attention"]

# Licences that allow any use and ask for no more than naming the authors, as they are spelt on cards.
PERMISSIVE = frozenset(("apache-2.0", "bsd-3-clause", "mit", "cc-by-4.0"))


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
        commercial_use: Whether the licence allows it; None where that is not known.
        access: Whether the hub gives the weights to anyone (`open`), or to who has accepted terms (`gated`).
        citation: The paper to cite: authors, year, where; empty where none is known.
        declared_by: Where this card's statements were read, in words, if not off the weights' own configuration.
        trained_on: Data sets the weights are known to have seen, public cohorts by their names.
        n_parameters: Of the whole network, in millions; None where it is not stated.
        gflops: Billions of operations a tile of `input_px`, a multiplication and its addition being two; None where it
            is not stated.
        input_px: Side of the image the weights were trained at, in pixels; None where it is not known.
        fixed_input: True where the network takes no other size: tiles are resized to `input_px` inside. Others see
            the tile as it was cut.
        size_step: Where it takes other sizes, the side must be a multiple of this many pixels: the patch of a
            transformer, whose position embeddings are interpolated; 1 is any size.
        trained_mpp: Resolutions of the tiles that its authors trained on, in um/px; empty where they state none.
        tile_px: Side of the tiles that its authors cut, in pixels at `trained_mpp`, before their resizing and cropping;
            None where they state none.
        resizing: What its authors do to such a tile before the network sees it, in words; empty where nothing is known.
        pooling: How the embedding is made of a transformer's tokens: the class token, the mean of the patch tokens,
            both side by side, or by learned queries; registers are left out of all. Empty is the network's own way.
        package: The Python package that carries the weights, as pip takes it.
        package_file: The weights' path below the folder that packages are installed in.
        package_pulls_more: True where the package asks for others that are not needed here.
        sha256: SHA-256 of the weights file, or the digits it begins with, where they are known.
        hub_id: `OWNER/NAME` of the weights on the model hub.
        hub_revision: Commit of that repository, 40 hex digits; None is the newest.
        hub_file: The weights' file there, where it has none of the usual names.
        url: Address of the weights where the hub has none.
        batchnorm_eps: Epsilon of every batch normalisation, where it is not the network's own.
        model_args: Further arguments of the architecture.
        imagenet_top1: Share of ImageNet's validation images classified right by these weights with their own
            classifier, in per cent, as their source states it; None where it states none.
        block_dims: Width of the embedding after each of the four blocks; None where the network has no such blocks,
            or where they were not looked for.
        depth: How many of the four blocks are kept.
        layers: How many of its own blocks a transformer keeps, of which the four are quarters; None is all.
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
    size_step: int = 1
    trained_mpp: tuple[float, ...] = ()
    tile_px: int | None = None
    resizing: str = ""
    pooling: Pooling = ""
    commercial_use: bool | None = None
    access: Access = "unknown"
    citation: str = ""
    declared_by: str = ""
    n_parameters: float | None = None
    gflops: float | None = None
    package: str | None = None
    package_file: str | None = None
    package_pulls_more: bool = False
    sha256: str | None = None
    hub_id: str | None = None
    hub_revision: str | None = None
    hub_file: str | None = None
    url: str | None = None
    batchnorm_eps: float | None = None
    model_args: "dict[str, JsonValue]" = field(default_factory=dict, hash=False)
    imagenet_top1: float | None = None
    block_dims: tuple[int, ...] | None = None
    depth: int = N_BLOCKS
    layers: int | None = None

    @property
    def whole_name(self) -> str:
        """The name of the whole encoder: `resnet18` for `resnet18@3`, `uni@block18` for `uni@block18@3`."""
        return split_name(self.name)[0]

    @property
    def weights_name(self) -> str:
        """The name of the encoder whose weights it has: `uni` for `uni@block18@3`."""
        return split_layers(self.whole_name)[0]

    @property
    def is_tuned(self) -> bool:
        """True where the encoder is a file of weights that carries its own card."""
        return is_tuned(self.name)

    @property
    def is_own(self) -> bool:
        """True where the network is built by the user's own `FILE.py:build`."""
        return is_own(self.network)

    @property
    def is_permissive(self) -> bool:
        """True where the licence allows any use and asks for no more than naming the authors."""
        return self.licence.lower() in PERMISSIVE

    def find_seen_px(self, tile_px: int) -> int:
        """Return the side at which the network sees a tile: its own, or the nearest that it takes."""
        if self.fixed_input and self.input_px:
            return self.input_px
        return max(self.size_step, round(tile_px / self.size_step) * self.size_step)

    @property
    def sizes(self) -> str:
        """Which sides of tiles the network takes, in words: `224 px`, `multiples of 14 px` or `any`."""
        if self.fixed_input:
            return f"{self.input_px} px"
        return "any" if self.size_step == 1 else f"multiples of {self.size_step} px"


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
    return dataclasses.replace(card, name=name, depth=depth, embedding_dim=width, n_parameters=None, gflops=None)


def keep_layers(card: EncoderCard, layers: int) -> EncoderCard:
    """Return the card of a transformer's first `layers` blocks; how wide their embedding is must be looked for."""
    name = f"{card.name}@block{layers:02d}"
    return dataclasses.replace(card, name=name, layers=layers, n_parameters=None, gflops=None)
