"""Where on a tile the cells of a feature map lie: the centres of their receptive fields.

An even grid is wrong by up to half a cell: convolutions with even kernels, or padded on one side only (TF "SAME"),
move the centres. They are computed from strides, kernels and padding along the network, in tile pixels.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lamella.encoders.network import TileNetwork
from lamella.errors import EncoderError


@dataclass(frozen=True, slots=True, kw_only=True)
class CellGrid:
    """The grid of cells of a tile's feature map, in tile pixels; pixel i spans i to i + 1.

    Attributes:
        cells: Along each side.
        stride: From one cell to the next.
        first: Centre of the first cell; cell j is centred at `first + j * stride`.
    """

    cells: int
    stride: float
    first: float


def find_cell_grid(network: TileNetwork, tile_px: int) -> CellGrid:
    """Find where the cells of a network's feature map lie on a tile, for the one depth that it is read at.

    Args:
        network: Read at one depth, of a chain of convolutions.
        tile_px: Side of a tile, in pixels.

    Raises:
        EncoderError: If the embedding is not the mean of a feature map, so that there are no cells.
    """
    walk = _Walk()
    hooks = [
        module.register_forward_hook(walk.step)
        for module in network.blocks.modules()
        if isinstance(module, (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d))
    ]
    try:
        with torch.inference_mode():
            images = network.normalise(torch.zeros(1, 3, tile_px, tile_px))
            walk.begin(images.shape[-1])
            (output,) = network.blocks(images, network.depths)
    finally:
        for hook in hooks:
            hook.remove()
    if output.ndim != 4:
        raise EncoderError(
            "the embedding is not the mean of a feature map (it is a token, or normalised after pooling), so the "
            "contrast does not split into cells. Use Grad-CAM: --method grad."
        )
    if abs(walk.stride * output.shape[-1] - images.shape[-1]) >= walk.stride:
        raise EncoderError(
            f"where the {output.shape[-1]} cells of this network lie on a tile cannot be told from its layers. Use a "
            "ResNet, DenseNet or EfficientNet."
        )
    scale = tile_px / images.shape[-1]  # a network of one input size sees the tile resized
    return CellGrid(cells=int(output.shape[-1]), stride=walk.stride * scale, first=(walk.centre + 0.5) * scale)


class _Walk:
    """Follows the layers that change the resolution, in the order in which they run."""

    def begin(self, size: int) -> None:
        """Start at the image."""
        self.size, self.stride, self.centre = size, 1.0, 0.0  # centre of the first cell, in pixels; 0 is pixel 0's

    def step(self, module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
        """Take one layer into account; one that runs beside the last (a shortcut) sees another size and is not."""
        before, after = int(inputs[0].shape[-1]), int(output.shape[-1])
        if before != self.size:
            return
        kernel, stride, dilation = (_first(getattr(module, name, 1)) for name in ("kernel_size", "stride", "dilation"))
        reach = (kernel - 1) * dilation
        padding = _find_padding(module, before, after, stride, reach)
        shift = reach / 2 - padding
        if stride == 1 and (shift != 0 or after != before):
            raise EncoderError(f"a {type(module).__name__} shifts the map by {shift} cells without a stride")
        if stride > 1:
            self.centre += shift * self.stride
            self.stride *= stride
            self.size = after


def _first(value: Any) -> int:
    return int(value[0] if isinstance(value, (tuple, list)) else value)


def _find_padding(module: nn.Module, before: int, after: int, stride: int, reach: int) -> float:
    """Return the padding before the first pixel; TF "SAME" pads the smaller half there, by the size of the input."""
    if type(module).__name__ in ("Conv2dSame", "MaxPool2dSame", "AvgPool2dSame"):
        return max((after - 1) * stride + reach + 1 - before, 0) // 2
    padding = getattr(module, "padding", 0)
    if isinstance(padding, str):
        return reach / 2 if padding == "same" else 0
    return _first(padding)
