"""The configuration of a hub model: built as its publisher says, or refused in one line."""

import json
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file

from lamella.encoders import EncoderSpec, add_weights
from lamella.encoders.blocks import cut_network
from lamella.encoders.cards import EncoderCard
from lamella.encoders.foreign import read_hub_card
from lamella.encoders.network import TileNetwork, build_network
from lamella.encoders.timm_trunk import create_trunk
from lamella.errors import EncoderError, WeightsError

TINY = "vit_tiny_patch16_224"
DECLARED = {"input_size": [3, 224, 224], "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}


def read(tmp_path: Path, content: Any) -> EncoderCard:
    path = tmp_path / "config.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return read_hub_card("hf-hub:owner/name", path)


def describe(arguments: Any = None, network: str = TINY, **declared: Any) -> dict[str, Any]:
    return {"architecture": network, "model_args": arguments, "pretrained_cfg": {**DECLARED, **declared}}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"frobnicate": 1}, "unexpected keyword argument 'frobnicate'"),
        ({"mlp_layer": "MlpOfTomorrow"}, r"a layer by name \(mlp_layer 'MlpOfTomorrow'\)"),
        ({"act_layer": "torch.nn.SiLU"}, r"a layer by name \(act_layer 'torch.nn.SiLU'\)"),
        ({"norm_layer": "RMSNormOfTomorrow"}, r"a layer by name \(norm_layer 'RMSNormOfTomorrow'\)"),
        ({"depth": "twelve"}, "cannot build it from"),
        ({"embed_dim": [192]}, "cannot build it from"),
        ({"num_heads": 7}, "cannot build it from"),
        (["depth", 3], "'model_args' of its config.json is a list and must be an object"),
        ("depth=3", "'model_args' of its config.json is a str and must be an object"),
        ({"checkpoint_path": "weights.pth"}, "holds 'checkpoint_path', which does not describe a network"),
        ({"pretrained": True}, "holds 'pretrained', which does not describe a network"),
        ({"global_pool": ""}, r"does not pool its tokens \(global_pool is ''"),
    ],
)
def test_arguments_that_timm_cannot_build_from_are_said_in_one_line(tmp_path: Path, arguments: Any, said: str) -> None:
    with pytest.raises(EncoderError, match=said) as caught:
        read(tmp_path, describe(arguments))
    assert "\n" not in str(caught.value)
    assert "hf-hub:owner/name" in str(caught.value)
    assert "FILE.py:build" in str(caught.value)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("[1, 2]", "names no 'architecture'"),
        ('"vit"', "names no 'architecture'"),
        ("null", "names no 'architecture'"),
        ("{", "cannot be read as JSON"),
        ({"timm": {"architecture": TINY}}, "names no 'architecture'"),
        ({"architecture": [TINY]}, "names no 'architecture'"),
        (describe(network="vit_of_tomorrow"), "needs the network 'vit_of_tomorrow', which this timm lacks"),
        ({"architecture": TINY, "pretrained_cfg": "default"}, "'pretrained_cfg' of its config.json is a str"),
        (describe(input_size=224), r"'input_size' of its config.json is 224 and must be \[3, side, side\]"),
        (describe(input_size=[3, 224, 448]), "square RGB image"),
        (describe(mean=[0.5, 0.5]), "'mean' of its config.json is .* not three numbers"),
        (describe(mean=[0.5, 10**400, 0.5]), "'mean' of its config.json is .* not three numbers"),
        (describe(std=[0.5, "a", 0.5]), "'std' of its config.json is .* not three numbers"),
        (describe(std=[0.5, 0.0, 0.5]), "'std' of its config.json is .* must be above 0"),
        (describe({"img_size": [224, 448]}), r"'img_size' among the 'model_args' .* is \[224, 448\]"),
        (describe({"img_size": "224"}), "must be the side of a square image"),
        ({**describe(), "num_features": 1280}, "is 1280 and the 'vit_tiny_patch16_224' that it describes has 192"),
        ({**describe(), "global_pool": ""}, "does not pool its tokens"),
        (describe(global_pool=""), "does not pool its tokens"),
    ],
)
def test_a_file_that_is_not_in_timms_form_is_said_in_one_line(tmp_path: Path, content: Any, said: str) -> None:
    with pytest.raises(EncoderError, match=said) as caught:
        read(tmp_path, content)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("where", ["model_args", "file", "pretrained_cfg"])
def test_pooling_is_the_publishers_wherever_the_file_states_it(tmp_path: Path, where: str) -> None:
    content = describe({"global_pool": "avg"} if where == "model_args" else {})
    if where == "file":
        content["global_pool"] = "avg"
    elif where == "pretrained_cfg":
        content["pretrained_cfg"]["global_pool"] = "avg"
    assert read(tmp_path, content).model_args["global_pool"] == "avg"
    assert "global_pool" not in read(tmp_path, describe()).model_args


def test_arguments_count_before_the_rest_of_the_file(tmp_path: Path) -> None:
    card = read(tmp_path, {**describe({"global_pool": "avg"}), "global_pool": "token"})
    assert card.model_args["global_pool"] == "avg"


def test_a_model_of_another_size_than_its_architecture_sees_tiles_at_its_size(tmp_path: Path) -> None:
    network = "vit_small_patch14_dinov2"  # of 518 px; H-optimus-0's is too, and its weights are of 224 px
    assert timm.get_pretrained_cfg(network, allow_unregistered=True).input_size[-1] == 518
    card = read(tmp_path, describe({"init_values": 1e-5, "depth": 2}, network=network))
    assert (card.input_px, card.fixed_input, card.model_args["img_size"]) == (224, True, 224)
    trunk = create_trunk(card.network, card.model_args)
    assert trunk.pos_embed.shape == (1, 1 + 16 * 16, 384)
    tiles = torch.zeros(1, 3, 512, 512)
    assert TileNetwork(cut_network(trunk, card.name, 4), card, (4,))(tiles).shape == (1, 384)


def test_a_size_among_the_arguments_stays(tmp_path: Path) -> None:
    arguments = {"img_size": 392, "depth": 2}
    card = read(tmp_path, describe(arguments, network="vit_small_patch14_dinov2", input_size=[3, 392, 392]))
    assert (card.input_px, card.model_args["img_size"]) == (392, 392)


def test_the_form_of_h_optimus_0_loads_at_its_own_size(tmp_path: Path) -> None:
    """DINOv2's architecture of 518 px, declared at 224: what it is built at, as timm's own loader builds it."""
    network, arguments = (
        "vit_giant_patch14_reg4_dinov2",
        {"init_values": 1e-5, "depth": 4, "embed_dim": 96, "num_heads": 4},
    )
    content = describe(arguments, network=network, fixed_input_size=True) | {"num_features": 96, "global_pool": "token"}
    card = read(tmp_path, content)
    assert (card.input_px, card.fixed_input, card.embedding_dim) == (224, True, 96)
    theirs = timm.create_model(
        network, pretrained_cfg_overlay={"input_size": (3, 224, 224)}, num_classes=0, global_pool="token", **arguments
    ).eval()
    save_file(theirs.state_dict(), tmp_path / "model.safetensors")
    add_weights("hf-hub:owner/name", tmp_path)
    tiles = torch.rand(2, 3, 224, 224) * 255
    network_ = build_network(EncoderSpec("hf-hub:owner/name"))
    with torch.inference_mode():
        expected = theirs((tiles / 255 - 0.5) / 0.5)
        assert torch.allclose(network_(tiles), expected, atol=1e-5)
    assert network_.blocks.named_state()["pos_embed"].shape[1] == 16 * 16  # registers and class token have none


@pytest.mark.parametrize(
    ("arguments", "declared", "size"),
    [
        ({"img_size": 392}, {"input_size": [3, 518, 518], "fixed_input_size": True}, (392, True)),
        ({"img_size": [392, 392]}, {}, (392, True)),
        ({"dynamic_img_size": True}, {"fixed_input_size": True}, (224, False)),
        ({"dynamic_img_size": True, "img_size": 392}, {}, (392, False)),
    ],
)
def test_sizes_are_those_that_timms_own_loader_takes(
    tmp_path: Path, arguments: dict[str, Any], declared: dict[str, Any], size: tuple[int, bool]
) -> None:
    card = read(tmp_path, describe({"depth": 2, **arguments}, network="vit_small_patch14_dinov2", **declared))
    assert (card.input_px, card.fixed_input) == size
    trunk = create_trunk(card.network, card.model_args)
    assert trunk.pos_embed.shape[1] == 1 + (card.input_px // 14) ** 2


def test_position_embeddings_of_another_size_are_interpolated_as_timm_does(tmp_path: Path) -> None:
    """A publisher may declare 224 px and keep weights of 518: timm's loader interpolates them, ours alike."""
    network, arguments = "vit_small_patch14_dinov2", {"init_values": 1e-5, "depth": 4, "embed_dim": 96, "num_heads": 4}
    torch.save(timm.create_model(network, num_classes=0, **arguments).state_dict(), tmp_path / "pytorch_model.bin")
    (tmp_path / "config.json").write_text(json.dumps(describe(arguments, network=network)))
    add_weights("hf-hub:owner/name", tmp_path)
    theirs = timm.create_model(
        network,
        pretrained=True,
        pretrained_cfg_overlay={"file": str(tmp_path / "pytorch_model.bin"), "input_size": (3, 224, 224)},
        num_classes=0,
        **arguments,
    )
    ours = build_network(EncoderSpec("hf-hub:owner/name")).blocks.named_state()
    assert torch.allclose(ours["pos_embed"], theirs.pos_embed, atol=1e-6)


def test_layers_that_are_scaled_unsaid_are_named(tmp_path: Path) -> None:
    """UNI's config lacks 'init_values', which its authors pass in code."""
    scaled = timm.create_model(TINY, num_classes=0, init_values=1e-5, depth=4)
    save_file(scaled.state_dict(), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(describe({"depth": 4})))
    with pytest.raises(WeightsError, match=r'\(blocks.0.ls1.gamma, .*add "init_values": 1e-5 to .model_args.'):
        add_weights("hf-hub:owner/name", tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(describe({"depth": 4, "init_values": 1e-5})))
    assert add_weights("hf-hub:owner/name", tmp_path).is_file()


def test_a_convolutional_network_pools_as_its_publisher_says(tmp_path: Path) -> None:
    card = read(tmp_path, describe({"global_pool": "max"}, network="resnet18"))
    trunk = create_trunk(card.network, card.model_args)
    tiles = torch.rand(2, 3, 64, 64) * 255
    network = TileNetwork(cut_network(trunk, card.name, 4), card, (4,)).eval()
    with torch.inference_mode():
        maps = trunk.forward_features(network.normalise(tiles))
        assert torch.allclose(network(tiles), maps.amax(dim=(2, 3)), atol=1e-5)
