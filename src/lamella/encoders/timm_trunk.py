"""timm's networks, bare: without classifier and weights, and how wide their embeddings are.

Who reads a card off timm's declaration passes here and may never build a network, so torch and timm are imported
inside functions, for their weight alone.
"""

import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from lamella.errors import EncoderError

if TYPE_CHECKING:
    from pydantic import JsonValue
    from torch import nn

# Arguments of `timm.create_model` that open files or addresses; cards come with weights that anyone may have made.
_REFUSED_ARGUMENTS = frozenset(
    ("checkpoint_path", "pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "pretrained_strict", "cache_dir")
)

# What a card's arguments may say beyond timm's own: a learned query that pools, a projection behind the pooling, the
# epsilon of all layer norms; the ways of pooling that timm lacks, with the one that timm is asked for instead.
_OWN_ARGUMENTS = frozenset(("query_pool", "projection", "layernorm_eps"))
_OWN_POOLINGS = {"token+mean": "token", "attention": ""}
_MLP_LAYERS = ("Mlp", "GluMlp", "SwiGLU", "SwiGLUPacked")


def import_timm() -> Any:
    """Import timm, or say in one line how to have it.

    Raises:
        EncoderError: If it is not installed.
    """
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")  # read when timm imports the hub's package
    try:
        import timm
    except ModuleNotFoundError as error:
        raise EncoderError(
            f"encoders need the package '{error.name}', which is not installed. Run: pip install 'lamella[all]'"
        ) from error
    return timm


def create_trunk(network: str, arguments: "dict[str, JsonValue]", *, device: str = "cpu") -> "nn.Module":
    """Create a network of timm without classifier and without weights; on device `meta` it takes no memory.

    Args:
        network: timm's name of the architecture.
        arguments: Of the architecture, as JSON has them. Layers are given by name (`mlp_layer: SwiGLUPacked`,
            `embed_layer: ConvStem`); `layernorm_eps`, `global_pool: token+mean`, `global_pool: attention` with
            `query_pool` (width, heads, bias) and `projection` (a width) are ours.
        device: Where its tensors lie.

    Raises:
        EncoderError: If timm is not installed, or an argument may load files, or names a layer that is not known.
    """
    timm = import_timm()
    refused = next((key for key in arguments if key in _REFUSED_ARGUMENTS), None)
    if refused is not None or not re.fullmatch(r"\w+(\.\w+)*", network):  # timm would take hub addresses and folders
        what = f"network '{network}'" if refused is None else f"argument '{refused}'"
        raise EncoderError(f"a card asks timm for the {what}, which may load files or use the network. Use another.")
    import torch

    with torch.device(device):
        trunk: nn.Module = timm.create_model(network, pretrained=False, num_classes=0, **_read_arguments(arguments))
        _add_head(trunk, arguments)
    return trunk.eval()


def _read_arguments(arguments: "dict[str, JsonValue]") -> dict[str, Any]:
    """Return timm's arguments: layers that a card names become classes, and what `_add_head` reads is left out."""
    named: dict[str, Any] = {key: value for key, value in arguments.items() if key not in _OWN_ARGUMENTS}
    if named.get("global_pool") in _OWN_POOLINGS:
        named["global_pool"] = _OWN_POOLINGS[named["global_pool"]]
    if named.get("embed_layer") == "ConvStem":
        from lamella.encoders.parts import ConvStem

        named["embed_layer"] = ConvStem
    if isinstance(named.get("mlp_layer"), str):
        named["mlp_layer"] = _find_layer(named["mlp_layer"])
    if "layernorm_eps" in arguments:
        named["norm_layer"] = partial(import_timm().layers.LayerNorm, eps=arguments["layernorm_eps"])
    return named


def _find_layer(name: str) -> Any:
    layers = import_timm().layers
    if name not in _MLP_LAYERS or not hasattr(layers, name):
        raise EncoderError(
            f"a card names the MLP layer '{name}' and known are {', '.join(_MLP_LAYERS)}. Use one of those, or run: "
            "pip install -U timm"
        )
    return getattr(layers, name)


def _add_head(trunk: Any, arguments: "dict[str, JsonValue]") -> None:
    """Put in how the embedding is made of the tokens, where timm has no such way."""
    pooling, pooler, width = (arguments.get(key) for key in ("global_pool", "query_pool", "projection"))
    if pooling not in _OWN_POOLINGS and width is None:
        return
    from torch import nn

    from lamella.encoders.parts import QueryPool, TokenAndMean

    dim = trunk.num_features
    if pooling == "token+mean":
        trunk.attn_pool = TokenAndMean(trunk.num_prefix_tokens)
    elif pooling == "attention" and isinstance(pooler, dict):
        sizes: dict[str, Any] = dict(pooler)
        trunk.attn_pool = QueryPool(dim, **sizes)
        trunk.fc_norm = nn.LayerNorm(sizes["width"])
    if pooling in _OWN_POOLINGS:
        trunk.pool_include_prefix = True
    if isinstance(width, int):
        trunk.fc_norm = nn.Linear(dim, width, bias=False)


def measure_width(trunk: "nn.Module", name: str, tile_px: int) -> int:
    """Measure the width of a network's embedding by encoding two blank tiles.

    Raises:
        EncoderError: If it does not turn `(2, 3, tile_px, tile_px)` into `(2, D)` or `(2, D, h, w)`.
    """
    import torch

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
    if not isinstance(output, torch.Tensor) or output.ndim not in (2, 4) or output.shape[0] != 2:
        shape = tuple(output.shape) if isinstance(output, torch.Tensor) else type(output).__name__
        raise EncoderError(
            f"encoder '{name}' gives {shape} for two tiles and must give (2, D), or a feature map (2, D, h, w). "
            "Pool its output inside the network."
        )
    return int(output.shape[1])


@contextmanager
def seeded(name: str) -> Iterator[None]:
    """Draw random numbers from a seed made of `name`, and give torch's generator back as it was."""
    import torch

    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:7], "little")
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield
