"""The configuration of a hub model: built as its publisher says, or refused in one line."""

import json
from pathlib import Path
from typing import Any

import pytest
import timm
import torch

from lamella.encoders.blocks import cut_network
from lamella.encoders.cards import EncoderCard
from lamella.encoders.foreign import read_hub_card
from lamella.encoders.network import TileNetwork
from lamella.encoders.timm_trunk import create_trunk
from lamella.errors import EncoderError

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


def test_a_convolutional_network_pools_as_its_publisher_says(tmp_path: Path) -> None:
    card = read(tmp_path, describe({"global_pool": "max"}, network="resnet18"))
    trunk = create_trunk(card.network, card.model_args)
    tiles = torch.rand(2, 3, 64, 64) * 255
    network = TileNetwork(cut_network(trunk, card.name, 4), card, (4,)).eval()
    with torch.inference_mode():
        maps = trunk.forward_features(network.normalise(tiles))
        assert torch.allclose(network(tiles), maps.amax(dim=(2, 3)), atol=1e-5)
