"""What an encoder costs at each depth: weights, arithmetic, and tiles a second on this machine."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lamella.defaults import TILE_PX
from lamella.encoders.cards import EncoderCard, EncoderSpec
from lamella.encoders.names import N_BLOCKS, drop_folders, join_name
from lamella.encoders.registry import find_encoder
from lamella.encoders.runtime import RuntimeSettings
from lamella.encoders.runtime.opening import time_encoder
from lamella.encoders.timm_trunk import create_trunk
from lamella.encoders.weights import find_weights
from lamella.errors import EncoderError, WeightsError

if TYPE_CHECKING:
    from lamella.encoders.blocks import Blocks, BlockShape


@dataclass(frozen=True, slots=True, kw_only=True)
class DepthProfile:
    """One depth of an encoder, and what it costs.

    Attributes:
        name: The encoder: `resnet18@3`.
        n_parameters: Weights that are learned.
        gflops: Billions of operations a tile; a multiplication and its addition are two.
        width: Of the embedding.
        stride: Tile pixels from one cell of the feature map to the next; 0 where there is no map.
        cells: Cells along each side of a tile's feature map; 0 where there is none.
        tiles_per_second: Measured here, nothing else running; None where it was not asked for.
    """

    name: str
    n_parameters: int
    gflops: float
    width: int
    stride: int
    cells: int
    tiles_per_second: float | None


def profile_encoder(
    name: str,
    *,
    tile_px: int = TILE_PX,
    depths: Sequence[int] = tuple(range(1, N_BLOCKS + 1)),
    settings: RuntimeSettings | None = None,
    seconds: float = 2.0,
) -> list[DepthProfile]:
    """Profile an encoder at each of its depths, the deepest first.

    Weights that are not on this machine are replaced by random ones: the cost does not depend on their values.

    Args:
        name: The whole encoder, as `find_encoder` takes it.
        tile_px: Side of a tile, in pixels.
        depths: Which depths.
        settings: Where it runs; None is the fastest here.
        seconds: How long each depth is timed; 0 leaves it out.

    Raises:
        EncoderError: If no encoder has that name, or it cannot be cut.
    """
    import torch  # inside, for its weight alone
    from torch.utils.flop_counter import FlopCounterMode

    from lamella.encoders.blocks import cut_network, measure_blocks

    profiles = []
    for depth in sorted(depths, reverse=True):
        card = find_encoder(join_name(name, depth))
        side = card.find_seen_px(tile_px)
        if card.is_own:
            blocks, shape, device = *_open_own(card, side), "cpu"
        else:
            trunk, device = create_trunk(card.network, card.model_args, device="meta"), "meta"
            twin = create_trunk(card.network, card.model_args, device="meta")
            (shape,) = measure_blocks(twin, card.name, side, (depth,), layers=card.layers)
            blocks = cut_network(trunk, card.name, depth, layers=card.layers).eval()
        counter = FlopCounterMode(display=False)
        with counter, torch.no_grad():
            blocks(torch.zeros(1, 3, side, side, device=device), (depth,))
        spec = EncoderSpec(card.name, "auto" if _is_here(card.name) else "random")
        rate = time_encoder(spec, settings or RuntimeSettings(), tile_px=tile_px, seconds=seconds) if seconds else None
        profiles.append(
            DepthProfile(
                name=card.name,
                n_parameters=_count_parameters(blocks, depth, is_own=card.is_own),
                gflops=counter.get_total_flops() / 1e9,
                width=shape.width,
                stride=shape.stride,
                cells=shape.cells,
                tiles_per_second=rate,
            )
        )
    return profiles


def _open_own(card: EncoderCard, side: int) -> "tuple[Blocks, BlockShape]":
    """Open a network of the user's own, which is no timm network and cannot be built without memory."""
    import torch

    from lamella.encoders.blocks import BlockShape
    from lamella.encoders.network import build_network

    if card.block_dims is None:
        raise EncoderError(
            f"encoder '{drop_folders(card.name)}' is your own, and where its blocks end is not known, so its cost at "
            "each depth cannot be listed. Give its network an attribute 'blocks', or time it with `lamella extract`."
        )
    network = build_network(EncoderSpec(card.name))
    with torch.inference_mode():
        (output,) = network.blocks(torch.zeros(1, 3, side, side), (card.depth,))
    cells = int(output.shape[-1]) if output.ndim == 4 else 0
    shape = BlockShape(width=int(output.shape[1]), stride=round(side / cells) if cells else 0, cells=cells)
    return network.blocks, shape


def _count_parameters(blocks: "Blocks", depth: int, *, is_own: bool) -> int:
    """Count the weights of the first blocks; a network of the user's own keeps those behind a cut too."""
    if is_own:
        return sum(weight.numel() for number in range(1, depth + 1) for weight in blocks.named_block(number).values())
    return sum(parameter.numel() for parameter in blocks.parameters())


def _is_here(name: str) -> bool:
    try:
        find_weights(find_encoder(name))
    except WeightsError:
        return False
    return True
