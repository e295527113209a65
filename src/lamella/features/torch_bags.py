"""Bags that are torch files: a tensor as CLAM writes it, or a dictionary that holds one."""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lamella.errors import BagError
from lamella.machine import refuse_passing
from lamella.memory import refuse_beyond_memory
from lamella.regular import refuse_irregular, refuse_zip_bomb

if TYPE_CHECKING:
    import torch

FEATURE_NAMES = ("features", "feats", "feature", "embeddings", "embedding", "x")
COORD_NAMES = ("coords", "coordinates")
_MOST_EXPANDED, _ALWAYS_READ = 200, 1 << 26


class TensorBag(NamedTuple):
    """What a torch file holds.

    Attributes:
        features: `(N, D)` float32.
        coords_l0: `(N, 2)` int64 corners, where it holds them.
        is_vector: Whether it is one embedding of a whole slide, `(D,)`, and N is 1.
    """

    features: NDArray[np.float32]
    coords_l0: NDArray[np.int64] | None
    is_vector: bool


def load_tensor_bag(path: Path) -> TensorBag:
    """Return the features of a torch file and, where it holds them, the corners of its tiles.

    Gradients, sparse storage, half precision and a leading axis of one are taken off. Corners are level-0 pixels, as
    the field's tools write them.

    Raises:
        BagError: If the file is absent or damaged, holds Python objects besides tensors, or no `(N, D)` or `(D,)`
            tensor.
    """
    refuse_irregular(path, f"'{path.name}'", BagError)
    if not path.exists():
        raise BagError(f"there is no file '{path}'. Check the name.")
    try:
        import torch  # only this layout needs it
    except ImportError as error:
        raise BagError(
            f"'{path.name}' is a torch file and torch is not installed. Run: pip install 'lamella[torch]', or open the "
            ".h5 beside it."
        ) from error
    refuse_zip_bomb(path, f"'{path.name}'", BagError)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of an unusual pickle: what comes of it is checked here
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # an unpickler raises whatever the damage makes of its code
        refuse_passing(error, str(path))
        raise BagError(
            f"'{path.name}' is not a torch file of plain tensors that can be read: it is damaged, or holds Python "
            "objects, which are never run. Save the tensor alone, or open the .h5 beside it."
        ) from error
    stored, corners = content, None
    if isinstance(content, Mapping):
        stored = _choose(path, content, FEATURE_NAMES)
        corners = next((content[name] for name in COORD_NAMES if name in content), None)
    tensor = _as_tensor(path, stored)
    is_vector = tensor.ndim == 1
    features = (tensor[None] if is_vector else tensor).float().contiguous().numpy()
    return TensorBag(features, None if corners is None or is_vector else _as_corners(path, corners), is_vector)


def _refuse_size(path: Path, n_bytes: int) -> None:
    refuse_beyond_memory(n_bytes, f"'{path.name}'", "Save the (tiles, width) tensor alone.", error=BagError)


def _choose(path: Path, content: Mapping[Any, Any], names: tuple[str, ...]) -> Any:
    """Return the one entry of a dictionary that is the features."""
    there = [name for name in names if name in content]
    if len(there) != 1:
        held = ", ".join(f"'{key}'" for key in list(content)[:6]) or "nothing"
        which = "none of which" if not there else f"{len(there)} of which"
        raise BagError(
            f"'{path.name}' is a dictionary of {held}, {which} can be told to be the features. Save the (tiles, width) "
            "tensor under the name 'features'."
        )
    return content[there[0]]


def _as_tensor(path: Path, stored: Any) -> "torch.Tensor":
    """Return a stored tensor, or a list of a slide's embeddings, as `(N, D)`; `(D,)` where it is of a whole slide."""
    import torch

    if isinstance(stored, (list, tuple)) and stored and all(isinstance(part, torch.Tensor) for part in stored):
        same = {tuple(part.shape) for part in stored}
        if len(stored) == 1:
            stored = stored[0]
        elif len(same) == 1 and stored[0].ndim == 1:
            stored = torch.stack([_dense(path, part) for part in stored])
    if not isinstance(stored, torch.Tensor):
        raise BagError(
            f"'{path.name}' holds {type(stored).__name__}, not a (tiles, width) tensor as CLAM writes it. Save that "
            "tensor."
        )
    tensor = _dense(path, stored)
    if tensor.ndim == 3 and tensor.shape[0] == 1:
        tensor = tensor[0]
    if tensor.ndim not in (1, 2):
        raise BagError(
            f"'{path.name}' holds a tensor of shape {tuple(tensor.shape)}, and a bag is (tiles, width). Save the "
            "embeddings of the tiles."
        )
    return tensor


def _dense(path: Path, tensor: "torch.Tensor") -> "torch.Tensor":
    """Return a tensor without gradient, sparseness or quantisation.

    A sparse tensor, and one that repeats its rows, claims more than its file holds.
    """
    _refuse_size(path, tensor.numel() * 4)
    tensor = tensor.detach()
    if tensor.numel() > max(_ALWAYS_READ, _MOST_EXPANDED * path.stat().st_size):
        raise BagError(
            f"'{path.name}' claims {tensor.numel():,} numbers in a file of {path.stat().st_size:,} bytes: it repeats "
            "some without storing them. Save the (tiles, width) tensor itself."
        )
    if tensor.is_complex():
        raise BagError(f"'{path.name}' holds complex numbers, and features are real. Save the (tiles, width) tensor.")
    if tensor.is_quantized:
        tensor = tensor.dequantize()
    return tensor.to_dense() if tensor.layout != _strided() else tensor


def _strided() -> "torch.layout":
    import torch

    return torch.strided


def _as_corners(path: Path, stored: Any) -> NDArray[np.int64]:
    """Return stored corners as `(N, 2)` int64."""
    import torch

    tensor = _dense(path, torch.as_tensor(stored))
    if tensor.ndim == 3 and tensor.shape[0] == 1:
        tensor = tensor[0]
    values = tensor.double().numpy()
    if values.ndim != 2 or values.shape[1] != 2 or not np.isfinite(values).all():
        raise BagError(
            f"the coordinates in '{path.name}' have shape {tuple(tensor.shape)} and must be (tiles, 2) numbers, the "
            "corner (x, y) of each tile. Save them so, or leave them out."
        )
    return values.astype(np.int64)
