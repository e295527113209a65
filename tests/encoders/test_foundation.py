"""The foundation models do what ResNet-18 does: cut, trained, exported, compared, opened from a snapshot of the hub."""

import dataclasses
import io
import logging
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor

from lamella.analysis.cka import BlockAligner
from lamella.encoders import EncoderSpec, catalogue, find_encoder, fingerprint_encoder, registry
from lamella.encoders.blocks import TransformerBlocks
from lamella.encoders.cards import EncoderCard
from lamella.encoders.fetching import add_weights
from lamella.encoders.foreign import read_hub_card
from lamella.encoders.formats import load_state
from lamella.encoders.network import build_network
from lamella.encoders.packing import carry_encoder
from lamella.encoders.runtime.compiled import convert
from lamella.encoders.runtime.openvino_runtime import OpenVINORuntime
from lamella.encoders.timm_trunk import create_trunk
from lamella.errors import EncoderError, WeightsError
from tests.encoders.reduced import CARDS, DIM, LAYERS, PUBLISHED, publish, random_state, save_snapshot, shrink

DEPTHS = (1, 2, 3, 4)
SMALL = {name: shrink(card) for name, card in CARDS.items()}
# One of each form of network: packed MLP and registers, class token and mean, projection, query, rotary, Swin, CNN.
FORMS = (
    "uni2-h",
    "virchow2",
    "phikon",
    "hibou-b",
    "kaiko-l14",
    "plip",
    "conch",
    "dinov3-s",
    "ctranspath",
    "convnext-tiny",
)
OTHERS = tuple(name for name in CARDS if name not in FORMS)
EACH = [*FORMS, *(pytest.param(name, marks=pytest.mark.slow) for name in OTHERS)]


def each_but(*quick: str) -> list[Any]:
    """Return all models, of which those that are not named are slow: converting takes seconds."""
    return [*quick, *(pytest.param(name, marks=pytest.mark.slow) for name in CARDS if name not in quick)]


@pytest.fixture(autouse=True)
def small_catalogue(monkeypatch: pytest.MonkeyPatch) -> None:
    """The catalogue at reduced width and depth."""
    monkeypatch.setattr(registry, "CATALOGUE", tuple(SMALL.values()))
    monkeypatch.setattr(catalogue, "CATALOGUE", tuple(SMALL.values()))


def add(name: str, folder: Path) -> EncoderCard:
    """Add random weights of an encoder to the store, from a snapshot of the hub in its authors' form."""
    card = SMALL[name]
    add_weights(name, save_snapshot(publish(random_state(card), card), card, folder / "snapshot"))
    return card


def draw_tiles(card: EncoderCard, n: int = 2) -> Tensor:
    side = card.input_px or 224
    return torch.randint(0, 256, (n, 3, side, side), generator=torch.Generator().manual_seed(n)).float()


@pytest.mark.parametrize("name", EACH)
def test_every_quarter_is_the_whole_network_stopped_there(name: str, tmp_path: Path) -> None:
    card = add(name, tmp_path)
    tiles = draw_tiles(card)
    together = build_network(EncoderSpec(name), DEPTHS)
    with torch.inference_mode():
        read = together.read_maps(tiles)
        for depth, output in zip(DEPTHS, read, strict=True):
            alone = build_network(EncoderSpec(f"{name}@{depth}"))
            assert alone(tiles).shape == (2, find_encoder(f"{name}@{depth}").embedding_dim)
            assert torch.equal(alone.read_maps(tiles)[0], output)
        if isinstance(together.blocks, TransformerBlocks):
            assert together.blocks.ends == (2, 3, 4, 5)
            for layers, output in zip((2, 3, 4), read, strict=False):
                arguments = {**card.model_args, "depth": layers}
                stopped = create_trunk(card.network, arguments)
                state = together.blocks.named_state()
                stopped.load_state_dict({key: state[key] for key in stopped.state_dict()})
                assert torch.equal(stopped(together.normalise(tiles)), output)


_SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ("uni", "conch-v1.5", "dinov3-l")]


@pytest.mark.parametrize("name", ["virchow2", *_SLOW])
def test_any_block_of_a_transformer_is_an_encoder_and_has_quarters(name: str, tmp_path: Path) -> None:
    card = add(name, tmp_path)
    tiles = draw_tiles(card)
    kept = f"{name}@block03"
    network = build_network(EncoderSpec(kept))
    whole = build_network(EncoderSpec(name))
    stopped = create_trunk(card.network, {**card.model_args, "depth": 3})
    state = whole.blocks.named_state()
    stopped.load_state_dict({key: state[key] for key in stopped.state_dict()})
    with torch.inference_mode():
        assert torch.equal(network(tiles), stopped(network.normalise(tiles)))
        assert torch.equal(
            build_network(EncoderSpec(f"{kept}@2"))(tiles), build_network(EncoderSpec(f"{name}@block02"))(tiles)
        )
        # random weights are those of the whole network too
        pair = (build_network(EncoderSpec(n, "random")) for n in (kept, name))
        short, long = (each.blocks.named_state() for each in pair)
    assert all(torch.equal(short[key], long[key]) for key in short)
    assert len(short) < len(long)
    prints = {fingerprint_encoder(EncoderSpec(n)) for n in (name, kept, f"{name}@block04", f"{kept}@2", f"{name}@2")}
    assert len(prints) == 5
    carried = tmp_path / "carried.safetensors"
    carry_encoder(EncoderSpec(kept), carried)
    with torch.inference_mode():
        assert torch.equal(build_network(EncoderSpec(str(carried)))(tiles), network(tiles))


def test_a_block_that_is_none_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(EncoderError, match=rf"network has {LAYERS} transformer blocks. Pass 'uni@block05' or less"):
        find_encoder("uni@block18")
    with pytest.raises(EncoderError, match="is no row of transformer blocks: its numbered blocks are 1 to 4"):
        find_encoder("ctranspath@block07")


@pytest.mark.parametrize("name", EACH)
def test_one_step_of_training_moves_every_block(name: str) -> None:
    card = SMALL[name]
    network = build_network(EncoderSpec(name, "random"), DEPTHS).requires_grad_(requires_grad=True)
    blocks = network.blocks
    before = [{key: p.detach().clone() for key, p in blocks.named_block(depth).items()} for depth in DEPTHS]
    assert sum(map(len, before)) == len(dict(network.named_parameters()))
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-3)
    network(draw_tiles(card)).square().sum().backward()
    optimiser.step()
    for depth, old in zip(DEPTHS, before, strict=True):
        moved = {key: p for key, p in blocks.named_block(depth).items() if not torch.equal(p, old[key])}
        assert len(moved) > len(old) / 2, (name, depth)


@pytest.mark.parametrize("name", each_but("virchow2", "kaiko-l14", "ctranspath"))
def test_openvino_reads_it_as_torch_does(name: str, tmp_path: Path) -> None:
    card = add(name, tmp_path)
    network = build_network(EncoderSpec(name), (2, 4))
    side, widths = card.input_px or 224, [card.block_dims[1], card.block_dims[3]]
    model = convert(network, tile_px=side, batch_size=1)
    runtime = OpenVINORuntime(model, encoder=name, widths=widths, precision="fp32", n_threads=1)
    pixels = draw_tiles(card).permute(0, 2, 3, 1).to(torch.uint8).numpy()
    ours = np.concatenate(list(runtime.encode(pixels[i : i + 1] for i in range(2))))
    with torch.inference_mode():
        wanted = network(torch.from_numpy(pixels).permute(0, 3, 1, 2).float()).numpy()
    np.testing.assert_allclose(ours, wanted, atol=2e-3)
    assert np.abs(wanted[0] - wanted[1]).max() > 0.01


@pytest.mark.parametrize("name", each_but("virchow2"))
def test_onnx_reads_it_as_torch_does(name: str, tmp_path: Path) -> None:
    card = add(name, tmp_path)
    network, tiles = build_network(EncoderSpec(name)), draw_tiles(card)
    stream = io.BytesIO()
    for logger in ("torch.onnx", "onnxscript", "onnx_ir"):
        logging.getLogger(logger).setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(network, (tiles,), dynamo=True, verbose=False)
    program.save(stream)
    session = onnxruntime.InferenceSession(stream.getvalue())
    (ours,) = session.run(None, {session.get_inputs()[0].name: tiles.numpy()})
    with torch.inference_mode():
        np.testing.assert_allclose(ours, network(tiles).numpy(), atol=2e-4)


@pytest.mark.parametrize("name", FORMS)
def test_cka_of_its_blocks_is_one_with_itself_and_less_with_others(name: str, tmp_path: Path) -> None:
    card = add(name, tmp_path)
    tiles = draw_tiles(card, 8)
    aligner = BlockAligner(4, 4)
    with torch.inference_mode():
        first, second = (
            [o.mean((2, 3)) if o.ndim == 4 else o for o in build_network(spec, DEPTHS).read_maps(tiles)]
            for spec in (EncoderSpec(name), EncoderSpec(name, "random"))
        )
    aligner.add([o.numpy().astype(np.float64) for o in first], [o.numpy().astype(np.float64) for o in second])
    itself = BlockAligner(4, 4)
    itself.add(*([o.numpy().astype(np.float64) for o in first] for _ in range(2)))
    np.testing.assert_allclose(np.diagonal(itself.align().values), 1, atol=1e-9)
    assert (np.diagonal(aligner.align().values) < 0.999).any()


@pytest.mark.parametrize("name", ["phikon", "uni2-h", "conch", "plip", "gpfm"])
def test_a_file_that_lacks_a_tensor_or_is_another_models_is_refused(name: str, tmp_path: Path) -> None:
    card = SMALL[name]
    state = publish(random_state(card), card)
    lost = next(key for key in state if ".1." in key and "weight" in key)
    path = save_snapshot({key: tensor for key, tensor in state.items() if key != lost}, card, tmp_path)
    with pytest.raises(WeightsError, match=r"(is|are) missing|left over"):
        add_weights(name, path)
    other = "uni" if name != "uni" else "phikon"
    with pytest.raises(WeightsError, match=f"are not of encoder '{other}'"):
        add_weights(other, save_snapshot(state, card, tmp_path / "whole"))


def test_positions_of_another_grid_are_resampled_as_the_authors_code_does(tmp_path: Path) -> None:
    """Phikon-v2's would be, without antialiasing; a file of timm's is left to timm."""
    card = SMALL["phikon-v2"]
    state = publish(random_state(card), card)
    wide = torch.randn(1, 1 + 20 * 20, DIM, generator=torch.Generator().manual_seed(1))
    path = save_snapshot({**state, "embeddings.position_embeddings": wide}, card, tmp_path)
    add_weights("phikon-v2", path)
    ours = build_network(EncoderSpec("phikon-v2")).blocks.named_state()["pos_embed"]
    grid = wide[:, 1:].transpose(1, 2).unflatten(2, (20, 20))
    wanted = torch.nn.functional.interpolate(grid, size=(14, 14), mode="bicubic", align_corners=False)
    torch.testing.assert_close(ours[:, 1:], wanted.flatten(2).transpose(1, 2))
    assert torch.equal(ours[:, :1], wide[:, :1])


def test_a_model_of_the_hub_that_has_a_card_is_built_by_it(tmp_path: Path) -> None:
    """Its own configuration would give another network, or another pooling."""
    card = SMALL["virchow2"]
    path = save_snapshot(random_state(card), card, tmp_path)
    known = read_hub_card("hf-hub:paige-ai/Virchow2", path.parent / "config.json")
    assert known == dataclasses.replace(card, name="hf-hub:paige-ai/Virchow2")
    add_weights("hf-hub:paige-ai/Virchow2", path)
    add_weights("virchow2", path)
    tiles = draw_tiles(card)
    with torch.inference_mode():
        pair = [build_network(EncoderSpec(name))(tiles) for name in ("hf-hub:paige-ai/Virchow2", "virchow2")]
    assert torch.equal(*pair)
    assert pair[0].shape == (2, 2 * DIM)


def test_ctranspath_opens_the_file_of_its_authors_too(tmp_path: Path) -> None:
    """There the patches are merged at the end of a stage, and shifted windows carry their masks."""
    card = SMALL["ctranspath"]
    state = random_state(card)
    old = {}
    for key, tensor in state.items():
        parts = key.split(".")
        if parts[2:3] == ["downsample"]:
            parts[1] = str(int(parts[1]) - 1)
        old[".".join(parts)] = tensor
    old["layers.1.blocks.1.attn_mask"] = torch.zeros(16, 49, 49)
    torch.save({"model": old}, tmp_path / "ctranspath.pth")
    add_weights("ctranspath", tmp_path / "ctranspath.pth")
    ours = build_network(EncoderSpec("ctranspath")).blocks.named_state()
    assert all(torch.equal(ours[key], tensor) for key, tensor in state.items())


@pytest.mark.parametrize("name", [name for name, layout in PUBLISHED.items() if layout.startswith("transformers'")])
def test_the_published_names_in_these_tests_are_those_that_transformers_writes(name: str, tmp_path: Path) -> None:
    pytest.importorskip("transformers", reason="transformers, the oracle, is not installed")
    from tests.encoders.oracles import make_oracle

    card = SMALL[name]
    theirs = {key for key in make_oracle(card, tmp_path).weights if not key.startswith("text_model.")}
    ours = {key for key in publish(random_state(card), card) if not key.startswith("text_model.")}
    assert ours - {"vision_model.embeddings.position_ids"} == theirs
    assert load_state(tmp_path / "published" / "model.safetensors").keys() >= theirs
