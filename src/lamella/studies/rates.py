"""What encoders cost on this machine, measured once.

$LAMELLA_HOME/rates.json    arithmetic and seconds a tile of encoders on this machine
"""

import platform
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import RootModel

from lamella import __version__
from lamella.cores import count_threads
from lamella.encoders import EncoderSpec, RuntimeSettings
from lamella.encoders.names import N_BLOCKS
from lamella.encoders.profile import DepthProfile, profile_encoder
from lamella.encoders.runtime.opening import time_encoder
from lamella.encoders.store import find_store
from lamella.errors import EncoderError
from lamella.files import write_json
from lamella.studies.folder import load_if_whole


@dataclass(frozen=True, slots=True)
class DepthCost:
    """Arithmetic of an encoder at one depth.

    Attributes:
        gflops: Billions of operations a tile.
        dim: Width of its embedding.
    """

    gflops: float
    dim: int


class KeptRates(RootModel[dict[str, float | dict[str, tuple[float, int]]]]):
    """What `rates.json` holds: seconds for a billion operations, or by depth arithmetic and width."""


class Rates:
    """What encoders cost on this machine, measured when it is first asked for and kept in the user's store.

    Args:
        options: Where encoders run.
        path: The file; None is that of the store.
    """

    def __init__(self, options: RuntimeSettings, path: Path | None = None) -> None:
        self._options, self._path = options, path or find_store() / "rates.json"
        self._kept = self._load()

    def profile(self, encoder: str, tile_px: int) -> dict[int, DepthCost]:
        """Return the arithmetic of each depth of an encoder; of the whole alone where it cannot be cut."""
        if encoder.endswith((".py", ".safetensors")) or ".py:" in encoder:  # files change under one name
            return _number(_profile(encoder, tile_px))
        key = f"gflops {encoder} {tile_px} {__version__}"
        kept = self._kept.get(key)
        if not isinstance(kept, dict):
            depths = _number(_profile(encoder, tile_px))
            self._keep(key, {str(depth): (cost.gflops, cost.dim) for depth, cost in depths.items()})
            return depths
        return {int(depth): DepthCost(*cost) for depth, cost in kept.items()}

    def seconds_per_gflop(self, encoder: str, weights: str, tile_px: int) -> float:
        """Return the seconds an encoder takes for a billion operations; weights do not change it."""
        options = self._options
        machine = f"{platform.node()} {platform.machine()} {count_threads()}"
        where = f"{options.runtime} {options.device} {options.precision} {options.n_threads} {machine}"
        key = f"seconds {encoder} {tile_px} {where} {__version__}"
        kept = self._kept.get(key)
        if not isinstance(kept, float):
            rate = time_encoder(EncoderSpec(encoder, weights), options, tile_px=tile_px, seconds=1.0)
            whole = self.profile(encoder, tile_px)
            kept = 1 / rate / max(whole[max(whole)].gflops, 1e-9)
            self._keep(key, kept)
        return kept

    def _load(self) -> dict[str, float | dict[str, tuple[float, int]]]:
        rates = load_if_whole(self._path, KeptRates)
        return {} if rates is None else rates.root

    def _keep(self, key: str, value: float | dict[str, tuple[float, int]]) -> None:
        self._kept = {**self._load(), **self._kept, key: value}
        write_json(self._path, self._kept)


def _profile(encoder: str, tile_px: int) -> Sequence[DepthProfile]:
    try:
        return profile_encoder(encoder, tile_px=tile_px, seconds=0)
    except EncoderError:
        return profile_encoder(encoder, tile_px=tile_px, depths=(N_BLOCKS,), seconds=0)


def _number(profiles: Sequence[DepthProfile]) -> dict[int, DepthCost]:
    """Number profiles, which come the deepest first, by their depth."""
    return {N_BLOCKS - i: DepthCost(profile.gflops, profile.width) for i, profile in enumerate(profiles)}
