"""A truncated encoder is the untouched network, stopped: the same numbers, fewer weights, fewer operations."""

import numpy as np
import pytest
import timm
import torch
import torchvision
from timm.models import create_feature_extractor as create_timm_extractor
from torchvision.models.feature_extraction import create_feature_extractor

from lamella.encoders import EncoderSpec, find_encoder, fingerprint_encoder, list_encoders
from lamella.encoders.block_plans import STRIDES
from lamella.encoders.blocks import cut_network, measure_blocks
from lamella.encoders.cards import cut_card
from lamella.encoders.network import build_network
from lamella.encoders.runtime.checking import compare_depths
from lamella.encoders.runtime.compiled import convert
from lamella.encoders.runtime.openvino_runtime import OpenVINORuntime
from lamella.encoders.timm_trunk import create_trunk
from lamella.encoders.trust import trusting
from lamella.errors import EncoderError, WeightsError

FAMILIES_CUT = ("resnet", "densenet", "efficientnet", "tf_efficientnet")
CONVOLUTIONAL = [card for card in list_encoders() if card.network.startswith(FAMILIES_CUT)]
CARDS = tuple({card.network: card for card in CONVOLUTIONAL[::-1]}.values())[::-1]  # one a network
DEPTHS = (1, 2, 3, 4)
# Where the untouched network is read: torchvision's ResNets and DenseNets, timm's EfficientNets.
NODES = {
    "resnet": ("layer1", "layer2", "layer3", "layer4"),
    "densenet": (*(f"features.transition{number}.relu" for number in (1, 2, 3)), "relu"),
    "efficientnet": ("blocks.1", "blocks.2", "blocks.4", "bn2"),
}


def read_untouched(name: str, tiles: torch.Tensor) -> list[torch.Tensor]:
    """Return the four maps of the network as its own library builds it, with the encoder's weights."""
    card = find_encoder(name)
    state = build_network(EncoderSpec(name, "random")).blocks.named_state()
    if "efficientnet" in card.network:
        family, network = "efficientnet", timm.create_model(card.network, num_classes=0)
        network.load_state_dict(state)
    else:
        family = card.network.rstrip("0123456789")
        network = getattr(torchvision.models, card.network)(weights=None)
        found = network.load_state_dict(state, strict=False)
        assert not found.unexpected_keys
        assert all(key.startswith(("fc.", "classifier.")) for key in found.missing_keys)
    nodes = NODES[family]
    # timm's function is torchvision's, told which of timm's layers not to look into.
    extract = create_timm_extractor if family == "efficientnet" else create_feature_extractor
    read = extract(network.eval(), {node: node for node in nodes})
    images = (tiles / 255 - torch.tensor(card.mean).view(3, 1, 1)) / torch.tensor(card.std).view(3, 1, 1)
    with torch.inference_mode():
        return [read(images)[node] for node in nodes]


@pytest.fixture(scope="module")
def tiles() -> torch.Tensor:
    return torch.randint(0, 256, (2, 3, 64, 64), generator=torch.Generator().manual_seed(5)).float()


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.name)
def test_every_depth_equals_the_untouched_network_read_there_bit_for_bit(card, tiles):
    wanted = read_untouched(card.name, tiles)
    together = build_network(EncoderSpec(card.name, "random"), DEPTHS)
    with torch.inference_mode():
        maps = together.read_maps(tiles)
        for depth, untouched, ours in zip(DEPTHS, wanted, maps, strict=True):
            assert torch.equal(ours, untouched)
            alone = build_network(EncoderSpec(f"{card.name}@{depth}", "random"))
            assert torch.equal(alone.read_maps(tiles)[0], untouched)
            assert torch.equal(alone(tiles), untouched.mean(dim=(2, 3)))


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.name)
def test_widths_and_strides_are_those_of_the_card_and_of_the_paper(card):
    shapes = measure_blocks(create_trunk(card.network, {}, device="meta"), card.name, 512, DEPTHS)
    assert tuple(shape.width for shape in shapes) == card.block_dims
    assert tuple(shape.stride for shape in shapes) == STRIDES
    assert [shape.cells for shape in shapes] == [128, 64, 32, 16]
    assert [cut_card(card, depth).embedding_dim for depth in DEPTHS] == list(card.block_dims)


def test_resnet18_loses_three_quarters_of_its_weights_with_each_block():
    counts = [
        sum(p.numel() for p in build_network(EncoderSpec(f"resnet18@{depth}", "random")).blocks.parameters())
        for depth in DEPTHS
    ]
    assert [round(count / 1e6, 2) for count in counts] == [0.16, 0.68, 2.78, 11.18]


@pytest.mark.parametrize(
    "name", ["resnet18", *(pytest.param(n, marks=pytest.mark.slow) for n in ("densenet121", "efficientnet-lite0"))]
)
def test_what_is_cut_off_is_not_exported(name):
    networks = [build_network(EncoderSpec(f"{name}@{depth}", "random")) for depth in DEPTHS]
    weights = [sum(p.numel() for p in network.parameters()) for network in networks]
    operations = [len(convert(network, tile_px=64, batch_size=1).get_ops()) for network in networks]
    assert weights == sorted(set(weights))
    assert operations == sorted(set(operations))


def test_a_vision_transformer_is_cut_after_quarters_and_read_through_its_final_norm(tiles):
    whole = timm.create_model("vit_tiny_patch16_224", img_size=64, num_classes=0).eval()
    state = whole.state_dict()
    cut = cut_network(whole, "vit", 4)
    with torch.inference_mode():
        found = cut(tiles / 255, DEPTHS)
    for depth, embedding in zip(DEPTHS, found, strict=True):
        stopped = timm.create_model("vit_tiny_patch16_224", img_size=64, num_classes=0, depth=3 * depth).eval()
        stopped.load_state_dict({key: tensor for key, tensor in state.items() if key in stopped.state_dict()})
        with torch.inference_mode():
            assert torch.equal(embedding, stopped(tiles / 255))


@pytest.mark.parametrize("network", ["convnext_atto", "regnetx_002", "mobilenetv3_small_050"])
def test_other_networks_are_cut_where_timm_reads_their_features(network, tiles):
    trunk = timm.create_model(network, num_classes=0).eval()
    with torch.inference_mode():
        untouched = trunk.forward_intermediates(tiles / 255, intermediates_only=True)
        wanted = [next(m for m in untouched[::-1] if 64 // m.shape[-1] == stride) for stride in STRIDES]
        final = trunk(tiles / 255)
        blocks = cut_network(trunk, network, 4)
        *maps, whole = blocks(tiles / 255, DEPTHS)
        shallow = cut_network(trunk, network, 2)
        (alone,) = shallow(tiles / 255, (2,))
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(maps, wanted, strict=False))
    assert torch.equal(whole, final)
    assert torch.equal(alone, wanted[1])
    assert len(shallow.named_state()) < len(blocks.named_state()) or shallow.trunk is blocks.trunk


def test_a_foreign_encoder_can_be_asked_for_by_depth():
    assert find_encoder("timm:resnet10t@2").embedding_dim == 128
    assert find_encoder("timm:vit_tiny_patch16_224@1").embedding_dim == 192
    with pytest.raises(EncoderError, match="cannot be cut: its network"):
        find_encoder("timm:mixer_s32_224@3")
    with trusting(__file__), pytest.raises(EncoderError, match="is your own"):
        find_encoder(f"{__file__}:build_plain@3")


def build_plain() -> torch.nn.Module:
    """Be an encoder of one's own."""
    return torch.nn.Conv2d(3, 4, 3)


def test_a_file_of_a_cut_network_serves_that_depth_and_no_deeper_one(tmp_path, tiles):
    cut = build_network(EncoderSpec("resnet18@2", "random"))
    path = tmp_path / "cut.pth"
    torch.save(cut.blocks.named_state(), path)
    again = build_network(EncoderSpec("resnet18@2", str(path)))
    with torch.inference_mode():
        assert torch.equal(again(tiles), cut(tiles))
    assert build_network(EncoderSpec("resnet18@1", str(path))).blocks.depth == 1
    with pytest.raises(WeightsError, match="missing"):
        build_network(EncoderSpec("resnet18@3", str(path)))


def test_the_parameters_of_the_blocks_are_those_of_the_network_each_once():
    swin = {"embed_layer": "ConvStem", "embed_dim": 16, "num_heads": [1, 2, 2, 4], "depths": [1, 2, 1, 1]}
    for trunk in (
        create_trunk("convnext_atto", {}),
        create_trunk("swin_tiny_patch4_window7_224", swin),
        create_trunk("resnet18", {}),
        create_trunk("densenet121", {}),
        create_trunk("tf_efficientnet_lite0", {}),
        create_trunk("vit_tiny_patch16_224", {}),
    ):
        names = [name for name, _ in trunk.named_parameters()]
        blocks = cut_network(trunk, "any", 4)
        assert sorted(name for depth in DEPTHS for name in blocks.named_block(depth)) == sorted(names)
        assert all(blocks.named_block(depth) for depth in DEPTHS)


def test_each_depth_has_a_fingerprint_of_its_own_and_the_whole_keeps_its_old_one():
    prints = [fingerprint_encoder(EncoderSpec(f"resnet18@{depth}", "random")) for depth in DEPTHS]
    assert len(set(prints)) == 4
    assert prints[3] == fingerprint_encoder(EncoderSpec("resnet18", "random"))
    assert prints[3].startswith("821cf01f6c0303c2")


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("resnet18@5", "asks for depth '5' and depths are 1 to 4"),
        ("resnet18@0", "asks for depth '0'"),
        ("resnet18@minus4", "asks for depth 'minus4'"),
        ("resnet18@last", "asks for depth 'last'"),
        ("resnet18@1,2", "asks for several depths and one is needed here. Pass 'resnet18@1'"),
    ],
)
def test_a_depth_that_is_none_is_refused_with_one_that_is(name, says):
    with pytest.raises(EncoderError) as raised:
        find_encoder(name)
    assert says in str(raised.value)


FAMILIES = ("resnet18", "densenet121", "efficientnet-lite0")
OTHERS = tuple(card.name for card in CARDS if card.name not in FAMILIES)


@pytest.mark.parametrize("name", [*FAMILIES, *(pytest.param(name, marks=pytest.mark.slow) for name in OTHERS)])
def test_openvino_reads_every_depth_as_torch_does(name, tiles):
    network = build_network(EncoderSpec(name, "random"), DEPTHS)
    widths = find_encoder(name).block_dims
    model = convert(network, tile_px=64, batch_size=1)
    runtime = OpenVINORuntime(model, encoder=name, widths=widths, precision="fp32", n_threads=1)
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (8, 64, 64, 3), dtype=np.uint8)
    pixels[::2] = pixels[::2] // 3 + 80
    found = np.concatenate(list(runtime.encode(pixels[i : i + 1] for i in range(len(pixels)))))
    with torch.inference_mode():
        wanted = network(torch.from_numpy(pixels).permute(0, 3, 1, 2).float()).numpy()
    checks = compare_depths(found, wanted, widths, precision="fp32")
    assert min(check.cosine_min for check in checks) >= 0.9999
