"""Where the networks of timm can be cut: which of their modules make the four blocks."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from lamella.encoders.names import N_BLOCKS
from lamella.errors import EncoderError

STRIDES = (4, 8, 16, 32)
_PROBE_PX = 64


def find_plan(trunk: nn.Module) -> list[list[str]] | None:
    """Return the modules of each block, where the network is a chain whose last map's mean is the embedding."""
    find = _PLANS.get(type(trunk).__name__)
    return find(trunk) if find is not None and _pools_by_mean(trunk) else None


def _plan_resnet(trunk: nn.Module) -> list[list[str]] | None:
    stem = ["conv1", "bn1", "act1", "maxpool"]
    return [[*stem, "layer1"], ["layer2"], ["layer3"], ["layer4"]]


def _plan_densenet(trunk: nn.Module) -> list[list[str]] | None:
    """Each block ends with the norm (and its ReLU) that reads its dense block; the next begins with the convolution."""
    children = dict(trunk.get_submodule("features").named_children())
    stem = [name for name in children if name.startswith(("conv", "norm", "pool")) and name != "norm5"]
    if [f"denseblock{number}" in children for number in range(1, 6)] != [True] * 4 + [False]:
        return None
    plan = []
    for number in range(1, N_BLOCKS + 1):
        head = stem if number == 1 else [f"transition{number - 1}.conv", f"transition{number - 1}.pool"]
        read_by = "norm5" if number == N_BLOCKS else f"transition{number}.norm"
        plan.append([f"features.{part}" for part in (*head, f"denseblock{number}", read_by)])
    return plan


def _plan_efficientnet(trunk: nn.Module) -> list[list[str]] | None:
    """Measure the stride after each stage; a block takes all stages up to its stride."""
    stages = [f"blocks.{number}" for number, _ in trunk.get_submodule("blocks").named_children()]
    chain = ["conv_stem", "bn1", *stages]
    device = next(trunk.parameters()).device
    x = torch.zeros(1, 3, _PROBE_PX, _PROBE_PX, device=device)
    plan: list[list[str]] = [[] for _ in STRIDES]
    was_training = trunk.training
    trunk.eval()
    with torch.no_grad():
        for path in chain:
            x = trunk.get_submodule(path)(x)
            stride = max(STRIDES[0], _PROBE_PX // x.shape[-1])
            if stride not in STRIDES:
                return None
            plan[STRIDES.index(stride)].append(path)
    trunk.train(was_training)
    plan[-1] += ["conv_head", "bn2"]
    return plan if all(plan) else None


_PLANS: dict[str, Callable[[nn.Module], list[list[str]] | None]] = {
    "ResNet": _plan_resnet,
    "DenseNet": _plan_densenet,
    "EfficientNet": _plan_efficientnet,
}


def _pools_by_mean(trunk: nn.Module) -> bool:
    """Say whether the embedding of the whole is the mean of its last feature map."""
    return getattr(getattr(trunk, "global_pool", None), "pool_type", None) == "avg"


def is_transformer(trunk: Any) -> bool:
    """Say whether a network is a row of transformer blocks of one width that can be read after any of them."""
    layers = getattr(trunk, "blocks", None)
    return (
        isinstance(layers, (nn.Sequential, nn.ModuleList))
        and len(layers) >= N_BLOCKS
        and all(
            hasattr(trunk, part) for part in ("patch_embed", "num_prefix_tokens", "norm", "prune_intermediate_layers")
        )
    )


def find_pyramid(trunk: Any) -> list[int] | None:
    """Find timm's features of stride 4, 8, 16, 32, the last of each; None where one of them is missing."""
    info = getattr(trunk, "feature_info", None)
    if info is None or not hasattr(trunk, "forward_intermediates") or not hasattr(trunk, "prune_intermediate_layers"):
        return None
    reductions = [stage["reduction"] for stage in info]
    if any(stride not in reductions for stride in STRIDES):
        return None
    return [len(reductions) - 1 - reductions[::-1].index(stride) for stride in STRIDES]


def refuse_layers(trunk: Any, name: str, layers: int) -> None:
    """Refuse a number of transformer blocks that a network does not have.

    Raises:
        EncoderError: Naming a depth that it has.
    """
    base = name.partition("@")[0]
    if not is_transformer(trunk):
        raise EncoderError(
            f"encoder '{name}' asks for block {layers} and its network ({type(trunk).__name__}) is no row of "
            f"transformer blocks: its numbered blocks are 1 to {N_BLOCKS}. Pass '{base}@{N_BLOCKS - 1}'."
        )
    if not 1 <= layers <= len(trunk.blocks):
        raise EncoderError(
            f"encoder '{name}' asks for block {layers} and its network has {len(trunk.blocks)} transformer blocks. "
            f"Pass '{base}@block{len(trunk.blocks):02d}' or less."
        )
