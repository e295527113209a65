"""The network itself: pixels in, embeddings out, as a torch module.

Normalisation is part of the module, so every runtime takes raw pixels and none can normalise another way.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from lamella.encoders.blocks import Blocks, cut_network
from lamella.encoders.cards import EncoderCard, EncoderSpec
from lamella.encoders.formats import fit_state, load_state
from lamella.encoders.names import N_BLOCKS, drop_folders
from lamella.encoders.own import PROBE_PX, build_own
from lamella.encoders.own_blocks import OwnBlocks
from lamella.encoders.own_declaration import read_declaration
from lamella.encoders.registry import find_encoder
from lamella.encoders.timm_trunk import create_trunk, seeded
from lamella.encoders.trust import find_trusted
from lamella.encoders.weights import find_weights
from lamella.errors import EncoderError
from lamella.machine import refuse_passing


class TileNetwork(nn.Module):
    """Turn tiles into embeddings: normalise, resize where the network takes one size only, encode, pool.

    Attributes:
        blocks: The network's first blocks.
        depths: Where it is read, ascending.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, blocks: Blocks, card: EncoderCard, depths: Sequence[int]) -> None:
        super().__init__()
        self.blocks = blocks
        self.depths = tuple(depths)
        self._find_seen_px = card.find_seen_px
        self.register_buffer("mean", torch.tensor(card.mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(card.std).view(1, 3, 1, 1), persistent=False)

    def normalise(self, tiles: Tensor) -> Tensor:
        """Return what the network takes, from `(B, 3, H, W)` float32 RGB, pixel values 0 to 255."""
        images = (tiles / 255 - self.mean) / self.std
        size = (self._find_seen_px(int(images.shape[-2])), self._find_seen_px(int(images.shape[-1])))
        if tuple(images.shape[-2:]) != size:
            images = functional.interpolate(images, size, mode="bilinear", align_corners=False, antialias=True)
        return images

    def read_maps(self, tiles: Tensor) -> list[Tensor]:
        """Return for each depth the feature map `(B, D, h, w)`, or `(B, D)` where the network has none."""
        return self.blocks(self.normalise(tiles), self.depths)  # type: ignore[no-any-return]

    def forward(self, tiles: Tensor) -> Tensor:
        """Encode tiles.

        Args:
            tiles: `(B, 3, H, W)` float32 RGB, pixel values 0 to 255.

        Returns:
            `(B, D)` float32, the depths side by side.
        """
        return torch.cat([pool(output).float() for output in self.read_maps(tiles)], dim=1)


def pool(output: Tensor) -> Tensor:
    """Return `(B, D)` from `(B, D)` as it is, or from a feature map `(B, D, h, w)` by its mean."""
    return output.mean(dim=(2, 3)) if output.ndim == 4 else output


def build_network(spec: EncoderSpec, depths: Sequence[int] | None = None) -> TileNetwork:
    """Build an encoder with its weights, in eval mode and without gradients.

    Args:
        spec: The encoder and its weights.
        depths: Where it is read, ascending; None is at its own depth only.

    Raises:
        EncoderError: If no encoder has that name, it cannot be cut there, or one's own does not keep the rules.
        WeightsError: If the weights are not on this machine, or are of another network.
    """
    card = find_encoder(spec.name)
    path = find_weights(card, spec.weights)
    depths = (card.depth,) if depths is None else tuple(depths)
    if card.is_own:
        trunk = build_own(find_trusted(card.network) if card.is_tuned else card.network)
    else:
        with seeded(card.weights_name):
            trunk = create_trunk(card.network, card.model_args)
    if spec.weights == "random":
        _wake_normalisation(trunk)
    if card.batchnorm_eps is not None:
        _set_batchnorm_eps(trunk, card.batchnorm_eps)
    if path is not None:
        is_whole = card.is_own or (max(depths) == N_BLOCKS and card.layers is None)
        kept = None if is_whole else _kept_names(card, max(depths))
        trunk.load_state_dict(fit_state(load_state(path), trunk, card, path, kept=kept), strict=kept is None)
    blocks: Blocks
    if card.is_own:
        blocks = OwnBlocks(trunk, read_declaration(card.network, trunk), card.name, max(depths))
    else:
        blocks = cut_network(trunk, card.name, max(depths), layers=card.layers)
    return TileNetwork(blocks, card, depths).eval().requires_grad_(requires_grad=False)


def refuse_tile_size(network: TileNetwork, card: EncoderCard, tile_px: int) -> None:
    """Refuse tiles of a size that a network cannot take, found by encoding a blank one.

    Raises:
        EncoderError: With the size that it takes.
    """
    if card.fixed_input:  # it resizes
        return
    try:
        with torch.inference_mode():
            network(torch.zeros(1, 3, tile_px, tile_px))
    except Exception as error:  # a network may raise anything: timm's assert, torch's fail in a product of matrices
        refuse_passing(error, card.name)
        reason = str(error).splitlines()[0].rstrip(".") if str(error) else type(error).__name__
        tried = PROBE_PX if card.is_own else None  # the card was read off it at that size
        sides = [side for side in (card.input_px, tried) if side and side != tile_px]
        hint = f"Pass --tile-px {sides[0]}" if sides else "Pass another --tile-px"
        own = ", or give your network an attribute 'input_px' (tiles are then resized to it)" if card.is_own else ""
        raise EncoderError(
            f"encoder '{drop_folders(card.name)}' takes no tiles of {tile_px} px: {reason[:140]}. {hint}{own}."
        ) from error


_KEPT: dict[tuple[str, str, int, int | None], frozenset[str]] = {}


def _kept_names(card: EncoderCard, depth: int) -> frozenset[str]:
    """Name the weights of an encoder's first blocks; found once for each network and depth."""
    key = card.network, repr(card.model_args), depth, card.layers
    if key not in _KEPT:
        trunk = create_trunk(card.network, card.model_args, device="meta")
        _KEPT[key] = frozenset(cut_network(trunk, card.name, depth, layers=card.layers).named_state())
    return _KEPT[key]


def check_weights(card: EncoderCard, path: Path) -> None:
    """See that a weights file fits an encoder, without building it in memory.

    Raises:
        WeightsError: If the file holds no weights, or those of another network.
    """
    trunk = create_trunk(card.network, card.model_args, device="meta")
    fit_state(load_state(path), trunk, card, path)


def _wake_normalisation(trunk: nn.Module) -> None:
    """Raise the scales that start at 0 for training's sake: else a random ResNet would skip most of its layers.

    To a quarter, not 1: residuals added at full strength make all tiles' embeddings alike.
    """
    for module in trunk.modules():
        if isinstance(module, nn.BatchNorm2d) and module.affine and not module.weight.any():
            nn.init.constant_(module.weight, 0.25)


def _set_batchnorm_eps(trunk: nn.Module, eps: float) -> None:
    for module in trunk.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = eps
