"""Encoders of one's own: what they declare, where they are cut, and the checks that anyone can run."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from lamella.cli import build_app
from lamella.encoders import EncoderSpec, RuntimeSettings, find_encoder, fingerprint_encoder, open_runtime
from lamella.encoders.conformance import Check, check_encoder
from lamella.encoders.geometry import find_cell_grid
from lamella.encoders.network import build_network
from lamella.encoders.profile import profile_encoder
from lamella.encoders.runtime.compiled import convert
from lamella.encoders.runtime.openvino_runtime import OpenVINORuntime
from lamella.encoders.trust import trusting
from lamella.errors import EncoderError

SOURCE = """
import timm, torch
from torch import nn


def build():
    "A residual network that says where it may be cut."
    net = timm.create_model("test_resnet", num_classes=0)
    net.mean, net.std = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
    net.blocks = ("layer1", "layer2", "layer3", "layer4")
    net.mpp, net.tile_px, net.trained_on = 0.5, 256, ("nothing",)
    return net


class Tokens(nn.Module):
    "A transformer that gives its tokens."

    def __init__(self, **said):
        super().__init__()
        self.body = timm.create_model("test_vit", num_classes=0, dynamic_img_size=True, img_size=64)
        self.final = self.body.norm
        self.body.norm = nn.Identity()
        for key, value in said.items():
            setattr(self, key, value)

    def forward(self, images):
        return self.final(self.body.forward_features(images))


def build_tokens():
    return Tokens(input_px=64, size_step=16, pooling="token+mean", norm="final",
                  blocks=tuple(f"body.blocks.{i}" for i in (0, 1, 2, 5)))


def build_fixed():
    "A transformer that takes 224 px and does not say so."
    return timm.create_model("vit_tiny_patch16_224", num_classes=0, embed_dim=48, num_heads=2, depth=2)


def build_other_way():
    net = build()
    net.forward = lambda x: timm.models.resnet.ResNet.forward_features(net, x).movedim(1, -1)
    return net


def build_last():
    net = build_other_way()
    net.channels_last, net.blocks = True, ()
    return net


def build_0_to_255():
    net = build()
    net.mean, net.std = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
    return net


class Squeezed(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)

    def forward(self, x):
        return self.conv(x).mean((2, 3)).squeeze()


def build_squeezed():
    return Squeezed()


def build_pair():
    net = build()
    net.input_px = (64, 64)
    return net


def build_oblong():
    net = build()
    net.input_px = (64, 96)
    return net


def build_three():
    net = build()
    net.blocks = ("layer1", "layer2", "layer3")
    return net


def build_misspelt():
    net = build()
    net.blocks = ("layer1", "layer2", "layer3", "layer5")
    return net


def build_odd_pooling():
    net = build()
    net.pooling = "median"
    return net


def build_odd_mpp():
    net = build()
    net.mpp = (0.5, "fine")
    return net


class Bad(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)

    def forward(self, x):
        maps = self.conv(x)
        with torch.no_grad():
            maps = maps / maps.std((2, 3), keepdim=True, correction=0)
        return (maps + x.mean() + torch.rand(1) / 100).detach()


def build_bad():
    return Bad()
"""


@pytest.fixture
def own(tmp_path: Path) -> Iterator[str]:
    path = tmp_path / "mine.py"
    path.write_text(SOURCE)
    with trusting(path):
        yield f"{path}:build"


def test_what_a_network_declares_stands_on_its_card(own: str) -> None:
    card = find_encoder(own)
    assert (card.trained_mpp, card.tile_px, card.trained_on) == ((0.5,), 256, ("nothing",))
    assert (card.block_dims, card.fixed_input, card.sizes) == ((32, 48, 192, 96), False, "any")
    tokens = find_encoder(f"{own}_tokens")
    assert (tokens.pooling, tokens.block_dims, tokens.embedding_dim) == ("token+mean", (128,) * 4, 128)
    assert (tokens.input_px, tokens.fixed_input, tokens.sizes) == (64, False, "multiples of 16 px")
    assert (find_encoder(f"{own}_pair").input_px, find_encoder(f"{own}_pair").fixed_input) == (64, True)


@pytest.mark.parametrize(
    ("function", "said"),
    [
        ("other_way", r"gives \(2, 7, 7, 96\) for two tiles, which is no map .* 'channels_last = True'"),
        (
            "0_to_255",
            r"has mean \(123.675, .*, which are not of pixel values in 0 to 1. If they are of 0",
        ),
        ("squeezed", r"gives \(8,\) for one tile and must give \(1, D\), .* Leave out its squeeze\(\)"),
        ("oblong", r"has input_px \(64, 96\) and needs one whole number of pixels"),
        ("three", r"has blocks \('layer1', 'layer2', 'layer3'\) and needs 4 names"),
        ("misspelt", r"names the module 'layer5' .* The nearest is 'layer4'"),
        ("odd_pooling", "has pooling 'median' and known are 'token', 'mean', 'token\\+mean'"),
        ("odd_mpp", r"has mpp \(0.5, 'fine'\) and needs um/px"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(own: str, function: str, said: str) -> None:
    with pytest.raises(EncoderError, match=said) as caught:
        find_encoder(f"{own}_{function}")
    assert "\n" not in str(caught.value)


def list_run(network: torch.nn.Module, tiles: torch.Tensor) -> list[str]:
    """Name the parts of an own network that run."""
    ran: list[str] = []
    for name, module in network.blocks.trunk.named_children():
        module.register_forward_hook(lambda *_, name=name: ran.append(name))
    network(tiles)
    return ran


def test_a_cut_network_is_the_whole_one_stopped_there(own: str) -> None:
    tiles = torch.rand(2, 3, 96, 96) * 255
    whole = build_network(EncoderSpec(own))
    trunk = whole.blocks.trunk
    images = (tiles / 255 - 0.5) / 0.25
    for depth, end in ((1, "layer1"), (2, "layer2"), (3, "layer3")):
        cut = build_network(EncoderSpec(f"{own}@{depth}"))
        assert find_encoder(f"{own}@{depth}").embedding_dim == cut(tiles).shape[1]
        maps = trunk.maxpool(trunk.act1(trunk.bn1(trunk.conv1(images))))
        for name in ("layer1", "layer2", "layer3")[:depth]:
            maps = getattr(trunk, name)(maps)
        assert torch.allclose(cut(tiles), maps.mean((2, 3)), atol=1e-5)
        assert list_run(cut, tiles)[-1] == end
    assert torch.allclose(whole(tiles), trunk(images), atol=1e-5)
    prints = {fingerprint_encoder(EncoderSpec(name)) for name in (own, f"{own}@3", f"{own}@2")}
    assert len(prints) == 3


def test_tokens_are_normed_and_pooled_at_each_depth(own: str) -> None:
    network = build_network(EncoderSpec(f"{own}_tokens"), (2, 4))
    trunk, images = network.blocks.trunk, torch.rand(2, 3, 80, 80)
    with torch.no_grad():
        (tokens,) = (
            t
            for t in trunk.body.forward_intermediates(
                images, indices=[1], return_prefix_tokens=True, output_fmt="NLC", intermediates_only=True
            )
        )
        normed = trunk.final(torch.cat((tokens[1], tokens[0]), dim=1))
        expected = torch.cat((normed[:, 0], normed[:, 1:].mean(1)), dim=1)
        second, whole = network.blocks(images, (2, 4))
        assert torch.allclose(second, expected, atol=1e-5)
        last = trunk(images)
        assert torch.allclose(whole, torch.cat((last[:, 0], last[:, 1:].mean(1)), dim=1), atol=1e-5)


@pytest.mark.parametrize("function", ["build", "build_tokens"])
def test_all_depths_are_exported_to_openvino(own: str, function: str) -> None:
    name = own.replace(":build", f":{function}")
    network = build_network(EncoderSpec(name), (1, 2, 3, 4))
    tiles = np.random.default_rng(1).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    widths = find_encoder(name).block_dims
    assert widths is not None
    model = convert(network, tile_px=64, batch_size=2)
    rows = next(OpenVINORuntime(model, encoder=name, widths=widths, precision="fp32", n_threads=1).encode([tiles]))
    with torch.inference_mode():
        expected = network(torch.from_numpy(tiles).permute(0, 3, 1, 2).float())
    assert np.allclose(rows, expected.numpy(), atol=1e-4)


def test_blocks_have_the_parameters_that_first_run_in_them(own: str) -> None:
    network = build_network(EncoderSpec(own), (1, 2, 3, 4))
    parts = [set(network.blocks.named_block(number)) for number in (1, 2, 3, 4)]
    assert set.union(*parts) == {key for key, _ in network.blocks.trunk.named_parameters()}
    assert sum(map(len, parts)) == len(set.union(*parts))
    assert {key.partition(".")[0] for key in parts[0]} == {"conv1", "bn1", "layer1"}
    assert {key.partition(".")[0] for key in parts[2]} == {"layer3"}


def test_maps_of_a_cut_network_have_cells_and_gradients(own: str) -> None:
    network = build_network(EncoderSpec(f"{own}@3"))
    assert find_cell_grid(network, 96).cells == 6
    tiles = torch.rand(1, 3, 96, 96)
    held, embedding = network.blocks.read_last_map(tiles, 3)
    (gradient,) = torch.autograd.grad(embedding[0, 5], held)
    assert torch.allclose(gradient[0, 5], torch.full((6, 6), 1 / 36))
    vit = build_network(EncoderSpec(f"{own}_tokens"))
    held, embedding = vit.blocks.read_last_map(torch.rand(1, 3, 64, 64), 4)
    assert vit.blocks.lay_out(held).shape == (1, 64, 4, 4)
    assert torch.autograd.grad(embedding.sum(), held)[0].shape == held.shape


def test_maps_with_channels_last_are_turned(own: str) -> None:
    network, tiles = build_network(EncoderSpec(f"{own}_last")), torch.rand(2, 3, 96, 64) * 255
    assert find_encoder(f"{own}_last").embedding_dim == 96
    maps = network.blocks.trunk.forward_features((tiles / 255 - 0.5) / 0.25)
    assert torch.allclose(network(tiles), maps.mean((2, 3)), atol=1e-5)
    with pytest.raises(EncoderError, match="Give its network an attribute 'blocks'"):
        find_encoder(f"{own}_last@2")
    assert not network.blocks.is_numbered


def test_a_transformer_at_another_tile_size_is_one_line(own: str) -> None:
    spec, check_tiles = EncoderSpec(f"{own}_fixed"), partial(np.zeros, (64, 96, 96, 3), np.uint8)
    said = "takes no tiles of 96 px: .* Pass --tile-px 224, or give your network an attribute 'input_px'"
    with pytest.raises(EncoderError, match=said) as caught:
        open_runtime(spec, RuntimeSettings(device="cpu"), tile_px=96, check_tiles=check_tiles)
    assert "\n" not in str(caught.value)
    network = build_network(EncoderSpec(f"{own}_tokens"))
    assert network.normalise(torch.zeros(1, 3, 100, 100)).shape[-1] == 96  # the nearest that it takes


def test_an_own_encoder_that_names_its_blocks_is_profiled(own: str) -> None:
    profiles = profile_encoder(own, tile_px=96, seconds=0)
    assert [(profile.width, profile.stride) for profile in profiles] == [(96, 0), (192, 16), (48, 8), (32, 4)]
    assert profiles[0].gflops > profiles[3].gflops > 0


def outcome(checks: tuple[Check, ...]) -> dict[str, bool | None]:
    return {check.name: check.passed for check in checks}


def test_encoders_that_keep_the_rules_pass_all_checks(own: str) -> None:
    checks = check_encoder(f"{own}_tokens")
    assert not [check for check in checks if check.passed is False], checks
    assert outcome(checks)["blocks"] is True
    assert outcome(checks)["OpenVINO"] is not False


def test_checks_find_what_is_wrong(own: str) -> None:
    checks = {check.name: check for check in check_encoder(f"{own}_bad")}
    failed = {name for name, check in checks.items() if check.passed is False}
    assert failed == {"batches", "determinism", "numbers", "fine-tuning"}
    assert "depends on the other tiles" in checks["batches"].said
    assert "a black tile gives NaN" in checks["numbers"].said
    assert "no weight has a gradient" in checks["fine-tuning"].said
    assert "names no 'blocks'" in checks["blocks"].said
    squeezed = outcome(check_encoder(f"{own}_squeezed"))
    assert (squeezed["output"], squeezed["batch of one"], squeezed["sizes"]) == (True, False, None)
    sizes = next(check for check in check_encoder(f"{own}_fixed") if check.name == "sizes")
    assert sizes.passed is False
    assert "Give it 'input_px = 224'" in sizes.said
    with pytest.raises(EncoderError, match="is not your own"):
        check_encoder("resnet18")


def test_the_command_prints_checks_and_fails_where_one_does(own: str) -> None:
    good = CliRunner().invoke(build_app(), ["encoders", "--check", own])
    assert good.exit_code == 0
    assert "four blocks of width 32, 48, 192, 96" in " ".join(good.stdout.split())
    bad = CliRunner().invoke(build_app(), ["encoders", "--check", f"{own}_bad", "--json"])
    assert bad.exit_code != 0
    assert '"fails"' in bad.stdout
