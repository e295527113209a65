"""Weights of the same network by another publisher are refused, with the encoder to ask for."""

from pathlib import Path

import pytest

from lamella.encoders import find_encoder
from lamella.encoders.publishers import refuse_other_publisher
from lamella.errors import WeightsError

KEYS = {
    "plain resnet": ["conv1.weight", "bn1.weight", "layer1.0.conv1.weight", "fc.weight"],
    "ciga": ["model.resnet.conv1.weight", "model.resnet.layer1.0.conv1.weight", "model.fc.weight"],
    "mormont resnet": ["features.conv1.weight", "features.layer1.0.conv1.weight", "heads.0.weight"],
    "plain densenet": ["features.conv0.weight", "features.norm0.weight", "classifier.weight"],
    "mormont densenet": ["features.features.conv0.weight", "heads.0.weight"],
    "plain efficientnet": ["conv_stem.weight", "blocks.0.0.conv_dw.weight"],
    "port": ["_conv_stem.weight", "_blocks.0._depthwise_conv.weight"],
    "torchvision efficientnet": ["features.0.0.weight", "features.1.0.block.0.0.weight"],
}


@pytest.mark.parametrize(
    ("name", "form", "right"),
    [
        ("resnet18", "ciga", "resnet18-ciga"),
        ("resnet18-ciga", "plain resnet", "resnet18"),
        ("resnet50", "mormont resnet", "resnet50-mormont"),
        ("resnet50-mormont", "plain resnet", "resnet50"),
        ("densenet121", "mormont densenet", "densenet121-mormont"),
        ("densenet121-mormont", "plain densenet", "densenet121"),
        ("efficientnet-b0", "port", "efficientnet-b0-pytorch"),
        ("efficientnet-b0-pytorch", "plain efficientnet", "efficientnet-b0"),
        ("efficientnet-b1-pytorch", "torchvision efficientnet", "efficientnet-b1-torchvision"),
        ("efficientnet-b2-torchvision", "port", "efficientnet-b2-pytorch"),
    ],
)
def test_another_publishers_layout_names_the_encoder_to_ask_for(name: str, form: str, right: str) -> None:
    with pytest.raises(WeightsError, match=rf"Pass --encoder {right}, or get the weights of '{name}'"):
        refuse_other_publisher(KEYS[form], find_encoder(name), Path("weights.pth"))


@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("resnet18", "plain resnet"),
        ("resnet18-ciga", "ciga"),
        ("resnet50-mormont", "mormont resnet"),
        ("densenet121", "plain densenet"),
        ("densenet121-mormont", "mormont densenet"),
        ("efficientnet-b0", "plain efficientnet"),
        ("efficientnet-b0-pytorch", "port"),
        ("efficientnet-b0-torchvision", "torchvision efficientnet"),
    ],
)
def test_the_publishers_own_layout_is_taken(name: str, form: str) -> None:
    refuse_other_publisher(KEYS[form], find_encoder(name), Path("weights.pth"))


def test_other_weights_of_timm_are_known_by_their_sha256(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "resnet50.pth"
    path.write_bytes(b"weights")
    monkeypatch.setattr("lamella.encoders.publishers.find_sha256", lambda _: "11ad3fa6" + "0" * 56)  # tv2_in1k's
    with pytest.raises(WeightsError, match=r"are timm's 'resnet50\.tv2_in1k' by their SHA-256"):
        refuse_other_publisher(KEYS["plain resnet"], find_encoder("resnet50"), path)
    monkeypatch.setattr("lamella.encoders.publishers.find_sha256", lambda _: "0676ba61" + "0" * 56)  # tv_in1k's
    refuse_other_publisher(KEYS["plain resnet"], find_encoder("resnet50"), path)
