"""Encoders of one's own: a function in a file that returns a network, and the card read off that network.

Torch is imported inside functions, for its weight alone: whoever asks for another encoder passes here too.
"""

import hashlib
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lamella.encoders.cards import EncoderCard
from lamella.encoders.names import N_BLOCKS
from lamella.encoders.own_declaration import OwnDeclaration, read_declaration
from lamella.encoders.timm_trunk import seeded
from lamella.encoders.trust import refuse_untrusted
from lamella.errors import EncoderError
from lamella.files import find_sha256

if TYPE_CHECKING:
    from torch import Tensor, nn

PROBE_PX = 224


def read_own_card(name: str) -> EncoderCard:
    """Build one's own encoder once, try it on blank tiles, and read its card off it.

    Raises:
        EncoderError: If the file or function is not there, what the network declares cannot be, or it does not turn
            `(B, 3, H, W)` into `(B, D)` or `(B, D, h, w)`, for one tile as for two.
    """
    module = build_own(name)
    declared = read_declaration(name, module)
    widths = _measure_widths(name, module, declared)
    return EncoderCard(
        name=name,
        network=name,
        source=f"your own file {Path(name.rpartition(':')[0]).name}",
        weights_tag="as built",
        mean=declared.mean,
        std=declared.std,
        embedding_dim=widths[-1],
        block_dims=widths if declared.blocks else None,
        licence="your own",
        trained_on=declared.trained_on,
        input_px=declared.input_px,
        fixed_input=declared.fixed_input,
        size_step=declared.size_step or 1,
        trained_mpp=declared.mpp,
        tile_px=declared.tile_px,
        pooling=declared.pooling,
    )


def build_own(name: str) -> Any:
    """Return the `torch.nn.Module` that one's own function builds, always from the same random state.

    Raises:
        EncoderError: If the user did not name the file, the file or function is not there, or it returns something
            else.
    """
    refuse_untrusted(name)  # before anything is read; `_load_function` has no other caller
    import torch

    with seeded(f"{_own_path(name).name}:{name.rpartition(':')[2]}"):  # the same wherever the file lies
        module = _load_function(name)()
    if not isinstance(module, torch.nn.Module):
        raise EncoderError(
            f"encoder '{name}' returns a {type(module).__name__} and must return a torch.nn.Module that takes "
            "(B, 3, H, W) and gives (B, D). Return the network itself."
        )
    return module.eval()


def hash_own_source(name: str) -> str:
    """Return the SHA-256 of one's own source file."""
    return find_sha256(_own_path(name))


def hash_own_state(name: str) -> str:
    """Return the SHA-256 of the state of the network that one's own function builds."""
    import torch

    digest = hashlib.sha256()
    for key, tensor in sorted(build_own(name).state_dict().items()):
        digest.update(f"{key} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def run_own(module: "nn.Module", declared: OwnDeclaration, name: str, images: "Tensor") -> "list[Tensor]":
    """Return what leaves each block of a network of one's own; of one that names no blocks, what the whole gives.

    Raises:
        EncoderError: If it does not take such images, or does not give `(B, D)` or `(B, D, h, w)`; with its reason.
    """
    import torch

    from lamella.encoders.own_blocks import OwnBlocks

    depths = tuple(range(1, N_BLOCKS + 1)) if declared.blocks else (N_BLOCKS,)
    try:
        with torch.inference_mode():
            outputs: list[Tensor] = OwnBlocks(module, declared, name)(images, depths)
    except EncoderError:
        raise
    except Exception as error:  # it is the user's code: whatever it raises is said in one line
        reason = str(error).splitlines()[0] if str(error) else "no reason given"
        raise EncoderError(
            f"encoder '{name}' does not take tiles of shape {tuple(images.shape)}: {type(error).__name__}: {reason}. "
            "If it needs one size, give it an attribute 'input_px'; if multiples of a patch, 'size_step'."
        ) from error
    for output in outputs:
        _refuse_output(name, output, declared, n_tiles=len(images))
    return outputs


def _measure_widths(name: str, module: Any, declared: OwnDeclaration) -> tuple[int, ...]:
    """Return the width of the embedding after each block, from two blank tiles, and see that one gives the same."""
    import torch

    parameter = next(module.parameters(), None)
    side, device = declared.input_px or PROBE_PX, "cpu" if parameter is None else parameter.device
    pair = run_own(module, declared, name, torch.zeros(2, 3, side, side, device=device))
    run_own(module, declared, name, torch.zeros(1, 3, side, side, device=device))
    return tuple(int(output.shape[1]) for output in pair)


def _refuse_output(name: str, output: Any, declared: OwnDeclaration, *, n_tiles: int) -> None:
    """Refuse what is no embedding and no map."""
    shape = tuple(getattr(output, "shape", ()))
    said = f"encoder '{name}' gives {shape if shape else type(output).__name__} for {_count(n_tiles)}"
    if len(shape) == 3 and shape[0] == n_tiles:
        raise EncoderError(
            f"{said}: tokens, and how they make an embedding is not said. Give it an attribute 'pooling': 'token', "
            "'mean' or 'token+mean'."
        )
    if len(shape) not in (2, 4) or shape[0] != n_tiles:
        hint = "Leave out its squeeze()." if n_tiles == 1 else "Pool its output inside the network."
        raise EncoderError(f"{said} and must give ({n_tiles}, D), or a feature map ({n_tiles}, D, h, w). {hint}")
    if len(shape) == 4 and shape[2] != shape[3]:
        way = "Leave out its attribute 'channels_last'" if declared.channels_last else "Give it 'channels_last = True'"
        raise EncoderError(
            f"{said}, which is no map (B, D, h, w) of a square tile: h and w differ. {way}, or permute the output."
        )


def _count(n_tiles: int) -> str:
    return "one tile" if n_tiles == 1 else "two tiles" if n_tiles == 2 else f"{n_tiles} tiles"


def _load_function(name: str) -> Callable[[], Any]:
    path, function = _own_path(name), name.rpartition(":")[2]
    if not path.is_file():
        raise EncoderError(f"encoder '{name}' is to be built by '{path}', which is not there. Check the path.")
    spec = importlib.util.spec_from_file_location(f"lamella_own_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise EncoderError(f"encoder '{name}': '{path}' cannot be read as Python. Pass a file that ends in .py.")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except (ImportError, SyntaxError) as error:
        raise EncoderError(f"encoder '{name}': '{path}' does not run ({error}). Correct the file.") from error
    build = getattr(module, function, None)
    if not callable(build):
        raise EncoderError(
            f"encoder '{name}': '{path}' has no function '{function}'. Define `def {function}():` there."
        )
    return build  # type: ignore[no-any-return]


def _own_path(name: str) -> Path:
    return Path(name.rpartition(":")[0]).expanduser()
