"""Cells lie where their receptive fields are centred: held against the gradient of one cell."""

import numpy as np
import pytest
import torch

from lamella.encoders import EncoderSpec
from lamella.encoders.geometry import find_cell_grid
from lamella.encoders.network import build_network
from lamella.errors import EncoderError

NAMES = [f"{name}@{depth}" for name in ("resnet18", "densenet121", "efficientnet-lite0") for depth in (1, 2, 3, 4)]


@pytest.mark.parametrize("name", NAMES)
def test_a_cell_is_centred_where_its_gradient_is(name):
    network = build_network(EncoderSpec(name, "random"))
    # Every filter a plain mean: then a cell's gradient is symmetric about the centre of its receptive field.
    for module in list(network.modules()):
        if isinstance(module, torch.nn.Conv2d):
            module.weight.data = torch.full_like(module.weight, 1 / module.weight[0].numel())
        for child_name, child in list(module.named_children()):
            if isinstance(child, torch.nn.MaxPool2d):  # of equal pixels it takes the first
                mean = torch.nn.AvgPool2d(child.kernel_size, child.stride, child.padding)
                setattr(module, child_name, mean)
    side = 512
    grid = find_cell_grid(network, side)
    assert grid.cells == side // {"1": 4, "2": 8, "3": 16, "4": 32}[name[-1]]
    row, column = grid.cells // 2, grid.cells // 2 - 1
    # A little above the mean: shortcuts double the value block by block, and ReLU6 must not cut it.
    tiles = ((network.mean + 0.004 * network.std) * 255).expand(1, 3, side, side).clone().requires_grad_()
    (output,) = network.read_maps(tiles)
    output[0, :, row, column].sum().backward()
    weight = tiles.grad.abs().sum(dim=(0, 1)).double().numpy()
    places = np.arange(side) + 0.5
    x, y = (weight.sum(axis=0) @ places) / weight.sum(), (weight.sum(axis=1) @ places) / weight.sum()
    assert x == pytest.approx(grid.first + column * grid.stride, abs=0.02 * grid.stride)
    assert y == pytest.approx(grid.first + row * grid.stride, abs=0.02 * grid.stride)


@pytest.mark.parametrize(("name", "offset"), [("resnet18", 0.5), ("densenet121", 14.5), ("efficientnet-lite0", 31.5)])
def test_families_differ_in_where_their_first_cell_lies(name, offset):
    grid = find_cell_grid(build_network(EncoderSpec(name, "random")), 512)
    assert (grid.stride, grid.first) == (32, offset)


def test_a_token_has_no_cells():
    with pytest.raises(EncoderError, match="does not split into cells"):
        find_cell_grid(build_network(EncoderSpec("timm:vit_tiny_patch16_224", "random")), 224)
