"""An exported model as ONNX, for programs that are not ours: encoder and heads, checked against torch.

MODEL/encoder.onnx      tiles (n, tile_px, tile_px, 3) uint8 RGB -> embeddings (n, D) float32
MODEL/heads.onnx        embeddings (n, D) float32 of one slide -> logits (C,), probabilities (C,), attention (n,), and
                        logits_by_model (M, C)
MODEL/encoders/*.onnx   of a tuned arm, an encoder each; heads.onnx then takes (M, n, D), in the order of the card
"""

import logging
import warnings
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lamella.encoders import EncoderSpec
from lamella.encoders.network import TileNetwork, build_network
from lamella.errors import EncoderError, SettingsError
from lamella.exports.card import OnnxFiles
from lamella.exports.source import ExportSource
from lamella.files import replacing
from lamella.mil import SlideModel, average_predictions
from lamella.progress import Progress

OPSET = 20
_LEAST_COSINE = 0.9999
_MOST_DIFFERENCE = 1e-3  # of a logit


class _PixelEncoder(nn.Module):
    """An encoder that takes pixels as programs hold them."""

    def __init__(self, network: TileNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, tiles: Tensor) -> Tensor:
        """Return `(n, D)` float32 from `(n, H, W, 3)` uint8 RGB."""
        return self.network(tiles.permute(0, 3, 1, 2).float())  # type: ignore[no-any-return]


class _Ensemble(nn.Module):
    """All heads, on one slide: standardise, pool, classify, take class weights off, average."""

    def __init__(self, models: Sequence[SlideModel], *, shared: bool) -> None:
        super().__init__()
        self.heads = nn.ModuleList(model.head for model in models)
        self.shared = shared
        self.register_buffer("mean", torch.from_numpy(np.stack([m.standardisation.mean for m in models])))
        self.register_buffer("sd", torch.from_numpy(np.stack([m.standardisation.sd for m in models])))
        weights = np.log(np.array([m.training.class_weights for m in models], dtype=np.float64))
        self.register_buffer("log_weights", torch.from_numpy(weights.astype(np.float32)))

    def forward(self, embeddings: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return logits, probabilities, attention and each model's logits from `(n, D)`, or `(M, n, D)`."""
        logits, attention = [], []
        mean, sd, log_weights = self.mean, self.sd, self.log_weights
        for index, head in enumerate(self.heads):
            own_embeddings = embeddings if self.shared else embeddings[index]
            tiles = head.embed((own_embeddings - mean[index]) / sd[index]).unsqueeze(0)  # type: ignore[operator, index]
            real = torch.ones_like(tiles[:, :, 0], dtype=torch.bool)
            head_logits, looked = head.pool_and_classify(tiles, real)  # type: ignore[operator]
            logits.append(head_logits[0] - log_weights[index])  # type: ignore[index]
            attention.append(looked[0])
        by_model = torch.stack(logits)
        averaged = by_model.mean(dim=0)
        return averaged, averaged.softmax(dim=0), torch.stack(attention).mean(dim=0), by_model


def save_onnx(source: ExportSource, names: Mapping[EncoderSpec, str], out: Path, *, progress: Progress) -> OnnxFiles:
    """Write encoders and heads as ONNX, and check them where ONNX Runtime is installed; return what the card says.

    Args:
        source: What is exported.
        names: Where each encoder goes, relative to `out`, without a suffix; empty where heads go alone.
        out: The export.
        progress: Where to report to.

    Raises:
        SettingsError: If ONNX is not installed.
        EncoderError: If a network cannot be written as ONNX, or computes something else there.
    """
    if find_spec("onnx") is None or find_spec("onnxscript") is None:
        raise SettingsError("--onnx needs packages that are not installed. Run: pip install 'lamella[onnx]'")
    kinds = {member.model.settings.head for member in source.members if not member.model.head.pool.any_order}
    if kinds:
        raise SettingsError(
            f"head '{min(kinds)}' cannot be written as ONNX: its computation depends on the number of tiles. Leave "
            "--onnx out."
        )
    check = find_spec("onnxruntime") is not None
    with progress.stage("write ONNX", len(names) + 1, "files") as stage:
        for encoder, name in names.items():
            _save_encoder(build_network(encoder), out / f"{name}.onnx", source.tile_px, check=check)
            stage.advance()
        models, shared = [member.model for member in source.members], len(names) <= 1
        _save_heads(models, out / "heads.onnx", shared=shared, check=check)
        stage.advance()
    files, bag = ("`encoder.onnx` takes", "(n, D)") if shared else ("`encoders/*.onnx` take", "(M, n, D)")
    order = "" if shared else ", one layer a member of model.json, in its order"
    said = f"`heads.onnx` takes a slide's embeddings {bag}{order}."
    if names:
        said = f"{files} tiles (n, {source.tile_px}, {source.tile_px}, 3) uint8 RGB; {said}"
    return OnnxFiles(opset=OPSET, checked=check, said=said)


def _save_encoder(network: TileNetwork, path: Path, tile_px: int, *, check: bool) -> None:
    tiles = np.random.default_rng(0).integers(0, 256, (3, tile_px, tile_px, 3), dtype=np.uint8)
    module, example = _PixelEncoder(network).eval(), torch.from_numpy(tiles)
    _save(module, example, path, inputs=("tiles",), outputs=("embeddings",), axis=0)
    if not check:
        return
    with torch.inference_mode():
        wanted = module(example).numpy()
    outputs = _run(path, {"tiles": tiles})[0]
    lengths = np.linalg.norm(outputs, axis=1) * np.linalg.norm(wanted, axis=1)
    least = float(((outputs * wanted).sum(axis=1) / np.maximum(lengths, 1e-30)).min())
    if least < _LEAST_COSINE:
        raise EncoderError(
            f"'{path.name}' strays from torch (cosine {least:.5f}, and {_LEAST_COSINE} is needed). Leave --onnx out."
        )


def _save_heads(models: Sequence[SlideModel], path: Path, *, shared: bool, check: bool) -> None:
    rng = np.random.default_rng(0)
    bags = np.stack(
        [
            rng.normal(size=(37, model.embedding_dim)) * model.standardisation.sd + model.standardisation.mean
            for model in models
        ]
    ).astype(np.float32)
    given = bags[0] if shared else bags
    outputs = ("logits", "probabilities", "attention", "logits_by_model")
    module = _Ensemble(models, shared=shared).eval()
    example = torch.from_numpy(given)
    _save(module, example, path, inputs=("embeddings",), outputs=outputs, axis=0 if shared else 1)
    if not check:
        return
    parts = [model.predict(given if shared else given[index]) for index, model in enumerate(models)]
    worst = float(np.abs(_run(path, {"embeddings": given})[0] - average_predictions(parts).logits).max())
    if worst > _MOST_DIFFERENCE:
        raise EncoderError(
            f"'{path.name}' gives logits {worst:.2g} off those of torch, and {_MOST_DIFFERENCE:g} is allowed. Leave "
            "--onnx out."
        )


def _save(
    module: nn.Module, example: Tensor, path: Path, *, inputs: tuple[str, ...], outputs: tuple[str, ...], axis: int
) -> None:
    """Write a module that takes any length along `axis`, weights inside, whole or not at all."""
    levels = {name: logging.getLogger(name).level for name in ("torch.onnx", "onnxscript", "onnx_ir")}
    with warnings.catch_warnings(), replacing(path) as temporary:
        warnings.simplefilter("ignore")  # the exporter warns of its own parts
        for name in levels:
            logging.getLogger(name).setLevel(logging.ERROR)
        try:
            torch.onnx.export(
                module,
                (example,),
                temporary,
                input_names=list(inputs),
                output_names=list(outputs),
                dynamic_shapes=({axis: torch.export.Dim("n", min=1, max=10_000_000)},),
                opset_version=OPSET,
                dynamo=True,
                external_data=False,
                verbose=False,
            )
        except (RuntimeError, torch.onnx.errors.OnnxExporterError) as error:
            reason = (str(error).strip().splitlines() or ["no reason given"])[0]
            raise EncoderError(
                f"'{path.name}' cannot be written as ONNX ({reason[:160]}). Leave --onnx out."
            ) from error
        finally:
            for name, level in levels.items():
                logging.getLogger(name).setLevel(level)
        _strip(temporary)


def _strip(path: Path) -> None:
    """Take out what the exporter notes of this machine: the lines of source, with their paths, that made each node."""
    import onnx

    model = onnx.load(path)
    graphs = [model.graph, *model.functions]
    for part in (model, *graphs, *(node for graph in graphs for node in graph.node)):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info, *model.graph.initializer):
        value.ClearField("metadata_props")
        value.ClearField("doc_string")
    onnx.save(model, path)


def _run(path: Path, inputs: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return list(session.run(None, dict(inputs)))
