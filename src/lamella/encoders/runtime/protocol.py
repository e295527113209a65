"""What every runtime offers, and how one is asked for."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol, get_args

import numpy as np
from numpy.typing import NDArray

from lamella.defaults import DEVICE, PRECISION, DeviceName, PrecisionName
from lamella.errors import EncoderError, SettingsError

Tiles = NDArray[np.uint8]
Embeddings = NDArray[np.float32]

DEVICES: tuple[str, ...] = get_args(DeviceName)
PRECISIONS: tuple[str, ...] = get_args(PrecisionName)
IN_FLIGHT = 3  # batches on a graphics card: one is copied in, one computed, one copied out
# Cosines to fp32, the mean over tiles subtracted: of the mean and of the least. docs/precision.md says what they were
# taken from.
_NEAR, _SAME = (0.98, 0.9), (0.9999, 0.999)
RUNTIMES = ("auto", "openvino", "torch")


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeSettings:
    """Where and how precisely to compute.

    Attributes:
        device: `auto` (a graphics card if there is one), `cpu`, `cuda` or `mps`; several cards are `cuda:0,cuda:1`.
        precision: `auto` (bf16 where the device has it, checked, else fp32), `fp32`, `bf16`, `fp16` or `int8` (by
            OpenVINO, quantised on tiles of the cohort).
        runtime: `auto` (OpenVINO on the CPU, torch elsewhere), `openvino` or `torch`.
        n_threads: Processor cores to compute on; None is every core this process may use.
        batch_size: Tiles a batch; None is what suits the tile size and device.

    Raises:
        SettingsError: If a value is none of these.
    """

    device: str = DEVICE
    precision: str = PRECISION
    runtime: str = "auto"
    n_threads: int | None = None
    batch_size: int | None = None

    def __post_init__(self) -> None:
        """Refuse what no runtime knows."""
        for name, value, known, remedy in (
            ("device", self._kind_of_device, DEVICES, "Pass --device auto, or cuda:0,cuda:1 for several cards."),
            ("precision", self.precision, PRECISIONS, "Pass --precision auto."),
            ("runtime", self.runtime, RUNTIMES, "Set runtime to 'auto'."),
        ):
            if value not in known:
                raise SettingsError(f"{name} is '{value}' and must be one of {', '.join(known)}. {remedy}")
        for name, number in (("n_threads", self.n_threads), ("batch_size", self.batch_size)):
            if number is not None and number < 1:
                raise SettingsError(f"{name} is {number} and must be at least 1. Leave it out to have it chosen.")

    @property
    def devices(self) -> tuple[str, ...]:
        """The device, or each of several graphics cards."""
        return tuple(self.device.split(","))

    @property
    def _kind_of_device(self) -> str:
        """`cuda` for numbered cards, each named once; else what was given."""
        cards = self.devices
        numbered = all(re.fullmatch(r"cuda:\d+", card) for card in cards) and len(set(cards)) == len(cards)
        return "cuda" if numbered else self.device


def needed_cosines(precision: str) -> tuple[float, float]:
    """Return the mean cosine to fp32 that a precision must reach, and the least of a tile.

    fp32 itself is compared with another program's fp32, where nothing but rounding may differ.
    """
    return _SAME if precision == "fp32" else _NEAR


@dataclass(frozen=True, slots=True, kw_only=True)
class PrecisionCheck:
    """How near a runtime comes to torch in fp32, on real tiles.

    Attributes:
        cosine_min: Least cosine over the tiles, both embeddings less the tiles' mean embedding.
        cosine_mean: Mean of those cosines.
        n_tiles: Tiles compared.
        precision_used: Precision that was checked.
    """

    cosine_min: float
    cosine_mean: float
    n_tiles: int
    precision_used: str

    @property
    def passed(self) -> bool:
        """Whether the mean and the least are high enough for what was checked."""
        mean, least = needed_cosines(self.precision_used)
        return self.cosine_mean >= mean and self.cosine_min >= least


@dataclass(frozen=True, slots=True, kw_only=True)
class SettledPrecision:
    """How finished embeddings of an encoder were computed, for more of them to be computed alike.

    Attributes:
        runtime: What computed, with its version.
        precision: In which precision.
        notes: What was said then.
    """

    runtime: str
    precision: str
    notes: tuple[str, ...]


class Runtime(Protocol):
    """A network made ready for one tile size, read at one depth or several.

    `encode` may be called again and again, from one thread at a time.

    Attributes:
        name: What computes, with its version: `openvino 2026.4.1`.
        encoder: The encoder's name; `resnet18@2,4` where it is read at several depths.
        device: `cpu`, `cuda` or `mps`.
        precision: `fp32`, `bf16`, `fp16` or `int8`.
        widths: Width of the embedding at each depth, ascending.
        batch_size: Most tiles a batch may have; full batches are fastest.
        checks: How near it comes to torch in fp32 at each depth; empty where it is torch in fp32, or was settled.
        notes: What the user must be told.
        is_settled: Whether finished embeddings settled how it computes, and nothing was checked.
    """

    name: str
    encoder: str
    device: str
    precision: str
    widths: tuple[int, ...]
    batch_size: int
    checks: tuple[PrecisionCheck, ...]
    notes: tuple[str, ...]
    is_settled: bool

    def encode(self, batches: Iterable[Tiles]) -> Iterator[Embeddings]:
        """Encode batches in order, several at once inside, a bounded number in flight.

        Args:
            batches: Each `(b, H, W, 3)` uint8 RGB with b from 1 to `batch_size`, H and W the tile size in pixels.

        Yields:
            `(b, D)` float32 for each batch, the depths side by side.

        Raises:
            EncoderError: If a batch has another shape, or an embedding holds NaN or infinity.
        """
        ...

    def close(self) -> None:
        """Let go of what the runtime holds."""
        ...


def check_batch(tiles: Tiles, *, encoder: str, batch_size: int, tile_px: int) -> None:
    """Refuse a batch that the runtime was not made for.

    Raises:
        EncoderError: If its shape or type is another.
    """
    fits = tiles.ndim == 4 and tiles.shape[1:] == (tile_px, tile_px, 3) and tiles.dtype == np.uint8
    if not fits or not 1 <= len(tiles) <= batch_size:
        raise EncoderError(
            f"encoder '{encoder}' is given {tiles.dtype} {tiles.shape} and takes uint8 (1 to {batch_size}, {tile_px}, "
            f"{tile_px}, 3). Cut tiles and batches to that."
        )


def check_finite(embeddings: Embeddings, *, encoder: str, precision: str) -> None:
    """Refuse embeddings that are no numbers.

    Raises:
        EncoderError: If any is NaN or infinite.
    """
    if np.isfinite(embeddings).all():
        return
    n_bad = int((~np.isfinite(embeddings)).any(axis=1).sum())
    remedy = "Pass --precision fp32." if precision != "fp32" else "Check its weights."
    raise EncoderError(
        f"encoder '{encoder}' in {precision} gives NaN or infinity for {n_bad} of {len(embeddings)} tiles. {remedy}"
    )
