"""Torch: graphics cards, and processors where OpenVINO cannot go; in fp32 on the CPU it is the reference."""

from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lamella.cores import using_threads
from lamella.encoders.network import TileNetwork
from lamella.encoders.runtime.protocol import (
    IN_FLIGHT,
    Embeddings,
    PrecisionCheck,
    Tiles,
    check_batch,
    check_finite,
)

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(slots=True)
class _Slot:
    """The buffers of one batch in flight; on CUDA both are page-locked, so that copies run beside the computing."""

    pixels: Tensor  # (batch_size, H, W, 3) uint8
    embeddings: Tensor  # (batch_size, D) float32
    done: Any = None  # torch.cuda.Event
    n_tiles: int = 0


class TorchRuntime:
    """An encoder in torch. Batches are padded to full size, so no tile's embedding depends on its batch's."""

    checks: tuple[PrecisionCheck, ...] = ()
    notes: tuple[str, ...] = ()
    is_settled = False
    n_threads: int | None = None

    def __init__(
        self,
        network: TileNetwork,
        *,
        encoder: str,
        widths: tuple[int, ...],
        device: str,
        precision: str,
        tile_px: int,
        batch_size: int,
    ) -> None:
        self.name = f"torch {torch.__version__}"
        self.encoder = encoder
        self.widths = widths
        self.device = device
        self.precision = precision
        self.batch_size = batch_size
        self._tile_px = tile_px
        self._kind = torch.device(device).type
        self._network = network.to(device).to(memory_format=torch.channels_last)

    def encode(self, batches: Iterable[Tiles]) -> Iterator[Embeddings]:
        """Encode batches in order; see `Runtime.encode`."""
        encode = self._encode_on_cuda if self._kind == "cuda" else self._encode_one_by_one
        for embeddings in encode(batches):
            check_finite(embeddings, encoder=self.encoder, precision=self.precision)
            yield embeddings

    def close(self) -> None:
        """Give the device's memory back."""
        self._network = self._network.to("cpu")
        if self._kind == "cuda":
            torch.cuda.empty_cache()

    def _encode_one_by_one(self, batches: Iterable[Tiles]) -> Iterator[Embeddings]:
        slot = self._make_slot(pinned=False)
        for tiles in batches:
            self._fill(slot, tiles)
            embeddings = self._forward(slot.pixels.to(self.device))
            yield embeddings[: slot.n_tiles].cpu().numpy().copy()

    def _encode_on_cuda(self, batches: Iterable[Tiles]) -> Iterator[Embeddings]:
        """Keep up to three batches in flight: one copied in, one computed, one copied out."""
        copying, computing = (torch.cuda.Stream(self.device) for _ in range(2))  # type: ignore[no-untyped-call]
        free = [self._make_slot(pinned=True) for _ in range(IN_FLIGHT)]
        waiting: deque[_Slot] = deque()
        try:
            for tiles in batches:
                if not free:
                    slot = waiting.popleft()
                    yield _collect(slot)
                    free.append(slot)
                slot = free.pop()
                self._fill(slot, tiles)
                with torch.cuda.stream(copying):
                    pixels = slot.pixels.to(self.device, non_blocking=True)
                computing.wait_stream(copying)
                with torch.cuda.stream(computing):
                    pixels.record_stream(computing)
                    slot.embeddings.copy_(self._forward(pixels), non_blocking=True)
                    slot.done = torch.cuda.Event()  # type: ignore[no-untyped-call]
                    slot.done.record(computing)
                waiting.append(slot)
            while waiting:
                yield _collect(waiting.popleft())
        finally:
            computing.synchronize()

    def _make_slot(self, *, pinned: bool) -> _Slot:
        side = self._tile_px
        return _Slot(
            pixels=torch.zeros(self.batch_size, side, side, 3, dtype=torch.uint8, pin_memory=pinned),
            embeddings=torch.zeros(self.batch_size, sum(self.widths), pin_memory=pinned),
        )

    def _fill(self, slot: _Slot, tiles: Tiles) -> None:
        check_batch(tiles, encoder=self.encoder, batch_size=self.batch_size, tile_px=self._tile_px)
        slot.n_tiles = len(tiles)
        buffer = slot.pixels.numpy()
        buffer[: len(tiles)] = tiles
        buffer[len(tiles) :] = 0

    def _forward(self, pixels: Tensor) -> Tensor:
        """Encode `(B, H, W, 3)` uint8 on the device -> `(B, D)` float32 there."""
        with torch.inference_mode(), ExitStack() as precision:
            if self.n_threads is not None and self._kind == "cpu":
                precision.enter_context(using_threads(self.n_threads))
            if self.precision != "fp32":
                precision.enter_context(torch.autocast(self._kind, _DTYPES[self.precision]))
            elif self._kind == "cuda":
                precision.enter_context(_without_tf32())
            return self._network(pixels.permute(0, 3, 1, 2).float()).float()  # type: ignore[no-any-return]


def _collect(slot: _Slot) -> Embeddings:
    slot.done.synchronize()
    embeddings: Embeddings = slot.embeddings[: slot.n_tiles].numpy().copy()
    return embeddings


@contextmanager
def _without_tf32() -> Iterator[None]:
    """Compute fp32 in fp32: cuDNN would round its convolutions' inputs to 10 bits of mantissa."""
    with torch.backends.cudnn.flags(allow_tf32=False):
        yield


def embed_in_fp32(
    network: TileNetwork, tiles: Tiles, *, encoder: str, widths: tuple[int, ...], device: str, batch_size: int
) -> Embeddings:
    """Return the embeddings that faster ways are held against: torch in fp32 on `device`, `(n, D)` float32."""
    reference = TorchRuntime(
        network,
        encoder=encoder,
        widths=widths,
        device=device,
        precision="fp32",
        tile_px=tiles.shape[1],
        batch_size=batch_size,
    )
    parts = reference.encode(tiles[start : start + batch_size] for start in range(0, len(tiles), batch_size))
    return np.concatenate(list(parts))
