"""Cells: what each cell of a tile's feature map weighs, for weights that differ from tile to tile.

For class activation maps: `cell (p) = sum_d weight_d f_dp`. Where the embedding is the mean of a feature map this is
part of the network, so that only cells leave it. Where it is not (a class token, a norm after pooling), the map is the
last that still says where, and its weights are the mean gradient of `weight . embedding` (Grad-CAM, Selvaraju et al.
2017), in torch.
"""

import hashlib
from collections.abc import Iterable, Iterator
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lamella.cores import count_cores
from lamella.encoders.cards import EncoderSpec
from lamella.encoders.fingerprint import fingerprint_encoder
from lamella.encoders.geometry import CellGrid, find_cell_grid
from lamella.encoders.network import TileNetwork, build_network
from lamella.encoders.registry import find_encoder
from lamella.encoders.runtime import machine
from lamella.encoders.runtime.compiled import CompiledEntry, load_or_convert
from lamella.encoders.runtime.protocol import RuntimeSettings, Tiles, check_batch
from lamella.encoders.runtime.silent import import_openvino
from lamella.errors import EncoderError

Weighted = tuple[Tiles, NDArray[np.float32]]


class CellReader(Protocol):
    """Reads the weighted cells of tiles.

    Attributes:
        grid: Where the cells lie on a tile.
        batch_size: Most tiles a batch may have.
        name: What computes.
        by_gradient: Whether the map is weighed by its gradients; False where the embedding is the mean of the map.
    """

    grid: CellGrid
    batch_size: int
    name: str
    by_gradient: bool

    def read(self, batches: Iterable[Weighted]) -> Iterator[NDArray[np.float32]]:
        """Yield `(b, h, w)` float32 cells for each batch of tiles `(b, H, W, 3)` uint8 and weights `(b, D)` float32."""
        ...


def open_cell_reader(
    encoder: EncoderSpec, settings: RuntimeSettings, *, tile_px: int, by_gradient: bool = False
) -> CellReader:
    """Open the fastest reader of an encoder's cells.

    Args:
        encoder: The encoder and its weights, read at its own depth.
        settings: Device and precision; `auto` is fp32 here, so that cells sum to what the model said.
        tile_px: Side of a tile, in pixels.
        by_gradient: Whether an encoder whose embedding is no mean of a map is read by gradients (Grad-CAM); the cells
            of others are the same either way.

    Raises:
        EncoderError: If the encoder's embedding is no mean of a map and `by_gradient` is not asked for.
        WeightsError: If its weights are not here.
    """
    network = build_network(encoder)
    device = machine.choose_device(settings.device)
    try:
        grid = find_cell_grid(network, tile_px)
    except EncoderError:
        if not by_gradient:
            raise
        return _GradientReader(network.to(device), device, tile_px, encoder.name)
    precision = "fp32" if settings.precision in ("auto", "int8") else settings.precision
    core = machine.find_openvino_core() if device == "cpu" and settings.runtime != "torch" else None
    if core is not None and precision in machine.cpu_precisions(core):
        try:
            fingerprint = hashlib.sha256(f"{fingerprint_encoder(encoder)}:cells".encode()).hexdigest()
            entry = CompiledEntry(
                fingerprint=fingerprint, tile_px=tile_px, batch_size=1, processor=machine.describe_processor(core)
            )
            width = find_encoder(encoder.name).embedding_dim
            model = load_or_convert(entry, lambda: _WeightedCells(network).eval(), n_weights=width)
            n_threads = settings.n_threads or count_cores()
            return _OpenVINOReader(model, grid, precision, n_threads, encoder.name)
        except RuntimeError:  # a network with a part that OpenVINO cannot convert or compile
            pass
    return _TorchReader(network.to(device), grid, device, tile_px, encoder.name)


class _WeightedCells(nn.Module):
    """The network, ending in cells."""

    def __init__(self, network: TileNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, tiles: Tensor, weights: Tensor) -> Tensor:
        """Return `(B, h, w)` from tiles `(B, 3, H, W)` and weights `(B, D)`."""
        (maps,) = self.network.read_maps(tiles)
        weighted = torch.bmm(weights.unsqueeze(1), maps.float().flatten(2))  # (B, 1, h * w)
        return weighted.reshape(-1, maps.shape[2], maps.shape[3])


class _OpenVINOReader:
    """Cells by OpenVINO, a tile a request, several at once."""

    batch_size = 1
    by_gradient = False

    def __init__(self, model: Any, grid: CellGrid, precision: str, n_threads: int, encoder: str) -> None:
        from lamella.encoders.runtime.openvino_runtime import choose_streams, compile_on_cpu, run_requests

        openvino = import_openvino()
        self.grid, self._encoder, self._run = grid, encoder, run_requests
        self.name = f"openvino {openvino.__version__.partition('-')[0]}, {precision}"
        n_streams = choose_streams(n_threads)
        compiled = compile_on_cpu(model, precision=precision, n_threads=n_threads, n_streams=n_streams)
        self._tile_px = int(tuple(compiled.input(0).shape)[1])
        self._requests = [compiled.create_infer_request() for _ in range(2 * n_streams)]

    def read(self, batches: Iterable[Weighted]) -> Iterator[NDArray[np.float32]]:
        """See `CellReader.read`."""
        return self._run(self._requests, batches, self._fill)

    def _fill(self, request: Any, batch: Weighted) -> int:
        tiles, weights = batch
        check_batch(tiles, encoder=self._encoder, batch_size=1, tile_px=self._tile_px)
        request.input_tensors[0].data[:] = tiles
        request.input_tensors[1].data[:] = weights
        return 1


class _TorchReader:
    """Cells by torch in fp32."""

    batch_size = 8
    by_gradient = False

    def __init__(self, network: TileNetwork, grid: CellGrid, device: str, tile_px: int, encoder: str) -> None:
        self.grid, self._device, self._tile_px, self._encoder = grid, device, tile_px, encoder
        self.name = f"torch {torch.__version__}, fp32"
        self._cells = _WeightedCells(network).eval()

    def read(self, batches: Iterable[Weighted]) -> Iterator[NDArray[np.float32]]:
        """See `CellReader.read`."""
        for tiles, weights in batches:
            check_batch(tiles, encoder=self._encoder, batch_size=self.batch_size, tile_px=self._tile_px)
            with torch.inference_mode():
                pixels = torch.from_numpy(tiles).to(self._device).permute(0, 3, 1, 2).float()
                cells = self._cells(pixels, torch.from_numpy(weights).to(self._device)).cpu().numpy()
            yield cells  # outside: a generator that waits inside would leave its reader without gradients


class _GradientReader:
    """Cells of a network whose embedding is no mean of a map: the map weighed by its mean gradient."""

    batch_size = 4
    by_gradient = True

    def __init__(self, network: TileNetwork, device: str, tile_px: int, encoder: str) -> None:
        self._network, self._device, self._tile_px, self._encoder = network, device, tile_px, encoder
        self.name = f"torch {torch.__version__}, fp32, by gradients"
        cells = self._weigh(np.zeros((1, tile_px, tile_px, 3), np.uint8), None).shape[-1]
        self.grid = CellGrid(cells=cells, stride=tile_px / cells, first=tile_px / cells / 2)

    def read(self, batches: Iterable[Weighted]) -> Iterator[NDArray[np.float32]]:
        """See `CellReader.read`."""
        for tiles, weights in batches:
            check_batch(tiles, encoder=self._encoder, batch_size=self.batch_size, tile_px=self._tile_px)
            yield self._weigh(tiles, weights)

    def _weigh(self, tiles: Tiles, weights: NDArray[np.float32] | None) -> NDArray[np.float32]:
        network = self._network
        with torch.enable_grad():
            pixels = torch.from_numpy(tiles).to(self._device).permute(0, 3, 1, 2).float()
            held, embedding = network.blocks.read_last_map(network.normalise(pixels), network.depths[0])
            wanted = torch.ones_like(embedding) if weights is None else torch.from_numpy(weights).to(self._device)
            (slope,) = torch.autograd.grad((embedding * wanted).sum(), held)
        maps, slopes = (network.blocks.lay_out(map_.detach().float()) for map_ in (held, slope))
        cells: NDArray[np.float32] = (maps * slopes.mean(dim=(2, 3), keepdim=True)).sum(dim=1).cpu().numpy()
        return cells
