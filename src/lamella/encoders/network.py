"""The network itself: pixels in, embeddings out, as a torch module.

Normalisation is part of the module, so every runtime takes raw pixels and none can normalise another way.
"""

import hashlib
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from lamella.encoders.blocks import Blocks, WholeBlocks, cut_network
from lamella.encoders.cards import EncoderCard, EncoderSpec, find_encoder
from lamella.encoders.foreign import build_own, import_timm
from lamella.encoders.formats import fit_state, load_state
from lamella.encoders.names import N_BLOCKS
from lamella.encoders.trust import find_trusted
from lamella.encoders.weights import find_weights
from lamella.errors import EncoderError

# Arguments of `timm.create_model` that open files or addresses; cards come with weights that anyone may have made.
_REFUSED_ARGUMENTS = frozenset(
    ("checkpoint_path", "pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "pretrained_strict", "cache_dir")
)


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
        self.input_px = card.input_px if card.fixed_input else None
        self.register_buffer("mean", torch.tensor(card.mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(card.std).view(1, 3, 1, 1), persistent=False)

    def normalise(self, tiles: Tensor) -> Tensor:
        """Return what the network takes, from `(B, 3, H, W)` float32 RGB, pixel values 0 to 255."""
        images = (tiles / 255 - self.mean) / self.std
        if self.input_px is not None and tuple(images.shape[-2:]) != (self.input_px, self.input_px):
            size = (self.input_px, self.input_px)
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
        with seeded(card.whole_name):
            trunk = create_trunk(card.network, card.model_args)
    if spec.weights == "random":
        _wake_normalisation(trunk)
    if card.batchnorm_eps is not None:
        _set_batchnorm_eps(trunk, card.batchnorm_eps)
    if path is not None:
        kept = None if max(depths) == N_BLOCKS else _kept_names(card, max(depths))
        trunk.load_state_dict(fit_state(load_state(path), trunk, card, path, kept=kept), strict=kept is None)
    blocks = WholeBlocks(trunk) if card.is_own else cut_network(trunk, card.name, max(depths))
    return TileNetwork(blocks, card, depths).eval().requires_grad_(requires_grad=False)


_KEPT: dict[tuple[str, str, int], frozenset[str]] = {}


def _kept_names(card: EncoderCard, depth: int) -> frozenset[str]:
    """Name the weights of an encoder's first blocks; found once for each network and depth."""
    key = card.network, repr(card.model_args), depth
    if key not in _KEPT:
        trunk = create_trunk(card.network, card.model_args, device="meta")
        _KEPT[key] = frozenset(cut_network(trunk, card.name, depth).named_state())
    return _KEPT[key]


def check_weights(card: EncoderCard, path: Path) -> None:
    """See that a weights file fits an encoder, without building it in memory.

    Raises:
        WeightsError: If the file holds no weights, or those of another network.
    """
    trunk = create_trunk(card.network, card.model_args, device="meta")
    fit_state(load_state(path), trunk, card, path)


def create_trunk(network: str, arguments: dict[str, Any], *, device: str = "cpu") -> nn.Module:
    """Create a network of timm without classifier and without weights; on device `meta` it takes no memory."""
    timm = import_timm()
    refused = next((key for key in arguments if key in _REFUSED_ARGUMENTS), None)
    if refused is not None or not re.fullmatch(r"\w+(\.\w+)*", network):  # timm would take hub addresses and folders
        what = f"network '{network}'" if refused is None else f"argument '{refused}'"
        raise EncoderError(f"a card asks timm for the {what}, which may load files or use the network. Use another.")
    with torch.device(device):
        trunk: nn.Module = timm.create_model(network, pretrained=False, num_classes=0, **arguments)
    return trunk.eval()


def measure_width(trunk: nn.Module, name: str, tile_px: int) -> int:
    """Measure the width of a network's embedding by encoding two blank tiles.

    Raises:
        EncoderError: If it does not turn `(2, 3, tile_px, tile_px)` into `(2, D)` or `(2, D, h, w)`.
    """
    parameter = next(trunk.parameters(), None)
    tiles = torch.zeros(2, 3, tile_px, tile_px, device="cpu" if parameter is None else parameter.device)
    try:
        with torch.inference_mode():
            output = trunk(tiles)
    except (RuntimeError, TypeError, ValueError, AssertionError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise EncoderError(
            f"encoder '{name}' does not take tiles of shape (2, 3, {tile_px}, {tile_px}): {reason}. "
            "It must take (B, 3, H, W); if it needs one size, give it an attribute 'input_px'."
        ) from error
    if not isinstance(output, Tensor) or output.ndim not in (2, 4) or output.shape[0] != 2:
        shape = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise EncoderError(
            f"encoder '{name}' gives {shape} for two tiles and must give (2, D), or a feature map (2, D, h, w). "
            "Pool its output inside the network."
        )
    return int(output.shape[1])


@contextmanager
def seeded(name: str) -> Iterator[None]:
    """Draw random numbers from a seed made of `name`, and give torch's generator back as it was."""
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:7], "little")
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


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
