"""OpenVINO: about twice torch's speed on a processor, and no torch in memory once a network is converted."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from lamella.encoders.runtime.protocol import Embeddings, PrecisionCheck, Tiles, check_batch, check_finite
from lamella.encoders.runtime.silent import import_openvino
from lamella.stopping import keeping_signal_stack

openvino = import_openvino()  # heavy, and optional: whoever imports this module does so inside a function

_HINTS = {"fp32": "f32", "bf16": "bf16", "fp16": "f16", "int8": "f32"}  # of int8, what is not quantised
_MAX_STREAMS = 16
Batch = TypeVar("Batch")


def choose_streams(n_threads: int) -> int:
    """Return how many batches are computed at once on so many cores: one a core, 16 at most."""
    return min(n_threads, _MAX_STREAMS)


def compile_on_cpu(model: Any, *, precision: str, n_threads: int, n_streams: int) -> Any:
    """Compile OpenVINO's network, or the file of one, for the processor.

    Args:
        model: The network or its path.
        precision: `fp32`, `bf16`, `fp16`, or `int8` of a network that is quantised.
        n_threads: Cores to compute on.
        n_streams: Requests computed at once.
    """
    with keeping_signal_stack():
        return openvino.Core().compile_model(
            model,
            "CPU",
            {
                "INFERENCE_PRECISION_HINT": _HINTS[precision],
                "NUM_STREAMS": n_streams,
                "INFERENCE_NUM_THREADS": n_threads,
                # Pinned streams cannot move when a decoding thread takes their core.
                "ENABLE_CPU_PINNING": False,
            },
        )


def run_requests(
    requests: Sequence[Any], batches: Iterable[Batch], fill: Callable[[Any, Batch], int]
) -> Iterator[NDArray[np.float32]]:
    """Compute batches in order, as many at once as there are requests; yield the first output of each.

    `fill` writes a batch into the inputs of a request, and returns how many rows of the output count.
    """
    free, waiting = list(requests), deque[tuple[Any, int]]()

    def collect() -> NDArray[np.float32]:
        request, n_rows = waiting.popleft()
        request.wait()
        free.append(request)
        rows: NDArray[np.float32] = request.output_tensors[0].data[:n_rows].copy()
        return rows

    try:
        for batch in batches:
            if not free:
                yield collect()
            n_rows = fill(free[-1], batch)
            request = free.pop()
            request.start_async()
            waiting.append((request, n_rows))
        while waiting:
            yield collect()
    finally:
        for request, _ in waiting:  # nobody wants them any more, but their buffers are still written to
            request.wait()


class OpenVINORuntime:
    """An encoder in OpenVINO, one stream a core: a core that is taken for decoding holds up its own stream only.

    Batches are padded to full size, so no tile's embedding depends on its batch's.
    """

    checks: tuple[PrecisionCheck, ...] = ()
    notes: tuple[str, ...] = ()
    is_settled = False

    def __init__(
        self,
        model: Any,
        *,
        encoder: str,
        widths: tuple[int, ...],
        precision: str,
        n_threads: int,
        n_streams: int | None = None,
    ) -> None:
        """Compile a model.

        Args:
            model: OpenVINO's network, or the path of one; static, `(batch, H, W, 3)` uint8 -> `(batch, D)` float32.
            encoder: The encoder's name.
            widths: Width of the embedding at each depth; they sum to D.
            precision: `fp32`, `bf16`, `fp16`, or `int8` of a network that is quantised.
            n_threads: Cores to compute on.
            n_streams: Batches computed at once; None is as `choose_streams` has it.
        """
        self.name = f"openvino {openvino.__version__.partition('-')[0]}"
        self.encoder = encoder
        self.widths = widths
        self.device = "cpu"
        self.precision = precision
        n_streams = n_streams or choose_streams(n_threads)
        compiled = compile_on_cpu(model, precision=precision, n_threads=n_threads, n_streams=n_streams)
        self.batch_size, self._tile_px = (int(extent) for extent in tuple(compiled.input(0).shape)[:2])
        # Four requests a stream: one is computed while others wait, so a slow reader or writer does not idle a core.
        self._requests = [compiled.create_infer_request() for _ in range(4 * n_streams)]

    def encode(self, batches: Iterable[Tiles]) -> Iterator[Embeddings]:
        """Encode batches in order; see `Runtime.encode`."""
        for embeddings in run_requests(self._requests, batches, self._fill):
            check_finite(embeddings, encoder=self.encoder, precision=self.precision)
            yield embeddings

    def close(self) -> None:
        """Let go of the compiled network."""
        self._requests.clear()

    def _fill(self, request: Any, tiles: Tiles) -> int:
        check_batch(tiles, encoder=self.encoder, batch_size=self.batch_size, tile_px=self._tile_px)
        pixels = request.input_tensors[0].data
        pixels[: len(tiles)] = tiles
        pixels[len(tiles) :] = 0
        return len(tiles)
