"""Blocks: a network as four numbered pieces, and the cut after any of them.

    ResNets         layer1 (with the stem), layer2, layer3, layer4
    DenseNets       denseblock1 (with the stem) ... denseblock4, each with the norm and ReLU that read it
    EfficientNets   all up to stride 4, 8, 16, 32; the last with the head convolution
    transformers    quarters of their own blocks, the final norm and the pooling of the whole at each depth
    others of timm  what timm calls the features of stride 4, 8, 16, 32; the last is the whole network

A DenseNet is cut after the norm and ReLU that read a dense block, because the whole network ends so too (norm5, ReLU).
The transition that follows halves the width and the resolution; a cut after it would lose both and is not offered.

What lies behind a cut is not part of the module: it is neither exported nor run.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lamella.encoders.block_plans import find_plan, find_pyramid, is_transformer, refuse_layers
from lamella.encoders.names import N_BLOCKS
from lamella.errors import EncoderError


class Blocks(nn.Module, ABC):
    """The first blocks of a network.

    Attributes:
        depth: How many are kept.
        is_numbered: Whether it is known where the four blocks end; if not, the network can only be run whole.
    """

    depth: int
    is_numbered = True

    @abstractmethod
    def forward(self, images: Tensor, depths: Sequence[int]) -> list[Tensor]:
        """Run the network once and read it at some depths.

        Args:
            images: `(B, 3, H, W)` float32, normalised.
            depths: Numbers of blocks, ascending, none above `depth`.

        Returns:
            For each depth the feature map `(B, D, h, w)`, or the embedding `(B, D)` where there is no map whose mean
            it is.
        """

    def read_last_map(self, images: Tensor, depth: int) -> tuple[Tensor, Tensor]:
        """Run the network once, and be ready to differentiate the embedding by the last map that still says where.

        Args:
            images: `(B, 3, H, W)` float32, normalised.
            depth: Number of blocks.

        Returns:
            The map, which requires a gradient, as the network holds it (`lay_out` makes it `(B, C, h, w)`), and the
            embedding `(B, D)` made of it.

        Raises:
            EncoderError: If the network has no such map, or none that is known.
        """
        raise EncoderError(
            f"a {type(self).__name__} has no map of where things are, so no class activation map can be drawn. Use a "
            "network of timm."
        )

    def lay_out(self, maps: Tensor) -> Tensor:
        """Return what `read_last_map` gave as `(B, C, h, w)`."""
        return maps

    @abstractmethod
    def named_state(self) -> dict[str, Tensor]:
        """Return the weights that are kept, under the names that the whole network gives them."""

    @abstractmethod
    def named_block(self, number: int) -> dict[str, Tensor]:
        """Return the parameters of one block, under the names that the whole network gives them."""


class ChainBlocks(Blocks):
    """A network that is a chain of modules: each block is a piece of the chain, and a feature map leaves it."""

    def __init__(self, trunk: nn.Module, plan: Sequence[Sequence[str]]) -> None:
        super().__init__()
        self.depth = len(plan)
        self.paths = tuple(tuple(paths) for paths in plan)
        self.pieces = nn.ModuleList(nn.Sequential(*map(trunk.get_submodule, paths)) for paths in plan)

    def forward(self, images: Tensor, depths: Sequence[int]) -> list[Tensor]:
        """See `Blocks.forward`."""
        return self.forward_from(0, images, depths)

    def forward_from(self, start: int, maps: Tensor, depths: Sequence[int]) -> list[Tensor]:
        """Run the blocks behind block `start` (0 is the image) on the maps that leave it."""
        kept = []
        for number, piece in enumerate(self.pieces, 1):
            if start < number <= max(depths):
                maps = piece(maps)
                if number in depths:
                    kept.append(maps)
        return kept

    def named_state(self) -> dict[str, Tensor]:
        """See `Blocks.named_state`."""
        return {
            f"{path}.{key}": tensor
            for paths, piece in zip(self.paths, self.pieces, strict=True)
            for path, module in zip(paths, piece, strict=True)  # type: ignore[call-overload]
            for key, tensor in module.state_dict().items()
        }

    def named_block(self, number: int) -> dict[str, Tensor]:
        """See `Blocks.named_block`."""
        paths, piece = self.paths[number - 1], self.pieces[number - 1]
        return {
            f"{path}.{key}": parameter
            for path, module in zip(paths, piece, strict=True)  # type: ignore[call-overload]
            for key, parameter in module.named_parameters()
        }


class TransformerBlocks(Blocks):
    """A transformer of timm, cut after quarters of its blocks; the final norm and the pooling read each of them.

    Args:
        trunk: The whole transformer.
        depth: How many of the four quarters are kept.
        layers: How many of its own blocks there are to be, of which the four are quarters; None is all.
    """

    def __init__(self, trunk: Any, depth: int, layers: int | None = None) -> None:
        super().__init__()
        if layers is not None:
            trunk.prune_intermediate_layers([layers - 1], prune_norm=False, prune_head=False)
        n_layers = len(trunk.blocks)
        self.depth = depth
        self.ends = tuple(-(-n_layers * number // N_BLOCKS) for number in range(1, depth + 1))
        if depth < N_BLOCKS:
            trunk.prune_intermediate_layers([self.ends[-1] - 1], prune_norm=False, prune_head=False)
        self.trunk = trunk

    def forward(self, images: Tensor, depths: Sequence[int]) -> list[Tensor]:
        """See `Blocks.forward`."""
        indices = [self.ends[number - 1] - 1 for number in depths]
        layers = self.trunk.forward_intermediates(
            images,
            indices=indices,
            return_prefix_tokens=True,
            norm=True,
            output_fmt="NLC",
            intermediates_only=True,
        )
        # timm gives (patch tokens, prefix tokens) where there are prefix tokens, which come first in the network.
        tokens = [layer if isinstance(layer, Tensor) else torch.cat(layer[::-1], dim=1) for layer in layers]
        return [self.trunk.forward_head(layer, pre_logits=True) for layer in tokens]

    def read_last_map(self, images: Tensor, depth: int) -> tuple[Tensor, Tensor]:
        """See `Blocks.read_last_map`; the map is what enters the last layer, where a class token still asks all."""
        held: list[Tensor] = []

        def hold(module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
            held.append(inputs[0].detach().requires_grad_())
            return (held[0], *inputs[1:])

        hook = self.trunk.blocks[self.ends[depth - 1] - 1].register_forward_pre_hook(hold)
        try:
            (embedding,) = self(images, (depth,))
        finally:
            hook.remove()
        return held[0], embedding

    def lay_out(self, tokens: Tensor) -> Tensor:
        """Return the patch tokens of `(B, N, C)` as a map `(B, C, h, w)`.

        Raises:
            EncoderError: If they make no square.
        """
        patches = tokens[:, self.trunk.num_prefix_tokens :]
        side = round(patches.shape[1] ** 0.5)
        if side * side != patches.shape[1]:
            raise EncoderError(f"{patches.shape[1]} tokens make no square map. Use square tiles.")
        return patches.transpose(1, 2).reshape(len(patches), -1, side, side)

    def named_state(self) -> dict[str, Tensor]:
        """See `Blocks.named_state`."""
        return dict(self.trunk.state_dict())

    def named_block(self, number: int) -> dict[str, Tensor]:
        """See `Blocks.named_block`; what lies before the first layer belongs to the first block."""
        start, end = 0 if number == 1 else self.ends[number - 2], self.ends[number - 1]
        layers = tuple(f"blocks.{layer}." for layer in range(start, end))
        return {
            key: parameter
            for key, parameter in self.trunk.named_parameters()
            if key.startswith(layers)
            or (number == 1 and not key.startswith(("blocks.", "norm.", "fc_norm.")))
            or (number == N_BLOCKS and key.startswith(("norm.", "fc_norm.")))
        }


@contextmanager
def settle_positions(network: nn.Module, tile_px: int) -> Iterator[None]:
    """Resample the position embeddings of transformers within a network to tiles of one side, until the block ends.

    A transformer that takes several sizes does so itself with each batch. What is traced meanwhile holds the outcome
    instead: OpenVINO's antialiased interpolation is not torch's.

    Args:
        network: Any that holds `TransformerBlocks`, or none.
        tile_px: Side of a tile, in pixels.
    """
    kept: list[tuple[Any, Any, Any]] = []
    for module in network.modules():
        trunk: Any = module.trunk if isinstance(module, TransformerBlocks) else None
        positions = getattr(trunk, "pos_embed", None)
        if positions is not None and getattr(trunk, "dynamic_img_size", False):
            patches = trunk.patch_embed
            kept.append((trunk, positions, (patches.img_size, patches.grid_size, patches.num_patches)))
            trunk.set_input_size(img_size=tile_px)
    try:
        yield
    finally:
        for trunk, positions, sizes in kept:
            trunk.pos_embed, patches = positions, trunk.patch_embed
            patches.img_size, patches.grid_size, patches.num_patches = sizes


class PyramidBlocks(Blocks):
    """Another network of timm, read where timm reads features of stride 4, 8, 16 and 32; the last is the whole."""

    def __init__(self, trunk: Any, indices: Sequence[int], depth: int) -> None:
        super().__init__()
        self.depth = depth
        self.indices = tuple(indices)
        if depth < N_BLOCKS:
            trunk.prune_intermediate_layers([indices[depth - 1]], prune_norm=True, prune_head=True)
        self.trunk = trunk

    def forward(self, images: Tensor, depths: Sequence[int]) -> list[Tensor]:
        """See `Blocks.forward`."""
        if list(depths) == [N_BLOCKS]:
            return [self.trunk(images)]
        indices = [self.indices[number - 1] for number in depths if number < N_BLOCKS]
        if N_BLOCKS not in depths:
            return list(
                self.trunk.forward_intermediates(images, indices=indices, stop_early=True, intermediates_only=True)
            )
        final, maps = self.trunk.forward_intermediates(images, indices=indices)
        return [*maps, self.trunk.forward_head(final)]

    def read_last_map(self, images: Tensor, depth: int) -> tuple[Tensor, Tensor]:
        """See `Blocks.read_last_map`; only the whole network's embedding is anything but the mean of a map."""
        final = self.trunk.forward_features(images).detach().requires_grad_()
        return final, self.trunk.forward_head(final)

    def lay_out(self, maps: Tensor) -> Tensor:
        """Return what `read_last_map` gave as `(B, C, h, w)`; some networks keep channels last."""
        return maps.movedim(-1, 1) if getattr(self.trunk, "output_fmt", "NCHW") == "NHWC" else maps

    def named_state(self) -> dict[str, Tensor]:
        """See `Blocks.named_state`."""
        return dict(self.trunk.state_dict())

    def named_block(self, number: int) -> dict[str, Tensor]:
        """See `Blocks.named_block`; what belongs to no stage is the first block's or, behind the stages, the last's."""
        paths = [stage["module"] for stage in self.trunk.feature_info]
        block = {key: self._find_block(key, paths) for key, _ in self.trunk.named_parameters()}
        return {key: parameter for key, parameter in self.trunk.named_parameters() if block[key] == number}

    def _find_block(self, key: str, paths: Sequence[str]) -> int:
        """Return the number of the block that a parameter belongs to, from the stages that timm reads.

        Raises:
            EncoderError: If timm reads stages that are none of the network's modules.
        """
        places = [place for place, path in enumerate(paths) if key.startswith(f"{path}.")]
        if places:
            return next((n for n, index in enumerate(self.indices, 1) if places[0] <= index), N_BLOCKS)
        names = list(dict(self.trunk.named_parameters()))
        staged = [name for name in names if name.startswith(tuple(f"{path}." for path in paths))]
        if not staged or len({path.partition(".")[0] for path in paths}) != 1:
            raise EncoderError(
                f"the parameters of the blocks of a {type(self.trunk).__name__} cannot be told apart. Use a ResNet, "
                "DenseNet, EfficientNet, Swin, ConvNeXt or vision transformer."
            )
        return 1 if names.index(key) < names.index(staged[0]) else N_BLOCKS


class WholeBlocks(Blocks):
    """A network whose blocks are not known: it can only be run whole."""

    depth = N_BLOCKS
    is_numbered = False

    def __init__(self, trunk: nn.Module) -> None:
        super().__init__()
        self.trunk = trunk

    def forward(self, images: Tensor, depths: Sequence[int]) -> list[Tensor]:
        """See `Blocks.forward`."""
        return [self.trunk(images)]

    def named_state(self) -> dict[str, Tensor]:
        """See `Blocks.named_state`."""
        return dict(self.trunk.state_dict())

    def named_block(self, number: int) -> dict[str, Tensor]:
        """Refuse: the network has no numbered blocks."""
        raise EncoderError(f"the network has no numbered blocks, so none is block {number}. Train it whole.")


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockShape:
    """What leaves a block.

    Attributes:
        width: Of the embedding.
        stride: Tile pixels from one cell of the feature map to the next; 0 where there is no map.
        cells: Cells along each side of the feature map; 0 where there is none.
    """

    width: int
    stride: int
    cells: int


def cut_network(trunk: nn.Module, name: str, depth: int = N_BLOCKS, *, layers: int | None = None) -> Blocks:
    """Return the first `depth` blocks of a network of timm; `trunk` must not be used afterwards.

    Args:
        trunk: As timm makes it, without classifier.
        name: Of the encoder, for the errors.
        depth: How many blocks are kept.
        layers: How many of a transformer's own blocks are kept, of which the four are quarters; None is all.

    Raises:
        EncoderError: If the network has no four blocks to cut between, or no so many of its own.
    """
    if layers is not None:
        refuse_layers(trunk, name, layers)
        return TransformerBlocks(trunk, depth, layers)
    plan = find_plan(trunk)
    if plan is not None:
        return ChainBlocks(trunk, plan[:depth])
    if is_transformer(trunk):
        return TransformerBlocks(trunk, depth)
    indices = find_pyramid(trunk)
    if indices is not None:
        return PyramidBlocks(trunk, indices, depth)
    if depth == N_BLOCKS:
        return WholeBlocks(trunk)
    raise EncoderError(_refusal(trunk, name))


def _refusal(trunk: nn.Module, name: str) -> str:
    return (
        f"encoder '{name}' cannot be cut: its network ({type(trunk).__name__}) has no features of stride 4, 8, 16 and "
        f"32 and no row of transformer blocks. Ask for it whole: '{name.rpartition('@')[0] or name}'."
    )


def measure_blocks(
    trunk: nn.Module, name: str, tile_px: int, depths: Sequence[int], *, layers: int | None = None
) -> list[BlockShape]:
    """Measure what leaves the blocks of a network by running one blank tile; `trunk` must not be used afterwards.

    Args:
        trunk: As timm makes it, without classifier.
        name: Of the encoder, for the errors.
        tile_px: Side of the tile, in pixels.
        depths: Where it is read, ascending.
        layers: As for `cut_network`.

    Raises:
        EncoderError: If the network cannot be cut, or takes no such tile.
    """
    parameter = next(trunk.parameters(), None)
    tile = torch.zeros(1, 3, tile_px, tile_px, device="cpu" if parameter is None else parameter.device)
    blocks = cut_network(trunk, name, max(depths), layers=layers).eval()
    if isinstance(blocks, WholeBlocks) and list(depths) != [N_BLOCKS]:
        raise EncoderError(_refusal(trunk, name))
    with torch.inference_mode():
        outputs = blocks(tile, depths)
    return [
        BlockShape(
            width=int(output.shape[1]),
            stride=round(tile_px / output.shape[-1]) if output.ndim == 4 else 0,
            cells=int(output.shape[-1]) if output.ndim == 4 else 0,
        )
        for output in outputs
    ]
