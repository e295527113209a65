"""Encoders of a user, and files of weights."""

from contextlib import AbstractContextManager
from pathlib import Path

_ENCODER = """\
import torch


class Colours(torch.nn.Module):
    def forward(self, tiles):
        mean, sd = tiles.mean((2, 3)), tiles.std((2, 3))
        return torch.cat([mean, sd, mean * sd], 1) * {factor}


def {function}():
    return Colours()
"""


def save_weights(path: str, network: str) -> None:
    """Save the weights of a network of timm's, as made."""
    import timm
    import torch

    torch.save(timm.create_model(network, pretrained=False).state_dict(), path)


def write_encoder(path: str, *, function: str = "build", factor: str = "1") -> None:
    """Write an encoder that sees mean and SD of the colours."""
    Path(path).write_text(_ENCODER.format(function=function, factor=factor), encoding="utf-8")


_NETWORK = """\
import torch


class Network(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 8, 3, stride=2)
        {said}

    def forward(self, tiles):
        maps = self.conv(tiles)
        return {output}


def build():
    return Network()
"""


def write_network(path: str, *, said: str = "", output: str = "maps") -> None:
    """Write an encoder of one convolution: what it says of itself, and what it returns of its maps."""
    Path(path).write_text(_NETWORK.format(said=said or "pass", output=output), encoding="utf-8")


def write_transformer(path: str) -> None:
    """Write a transformer that takes 224 px and does not say so."""
    source = (
        'import timm\n\n\ndef build():\n    return timm.create_model("vit_tiny_patch16_224", num_classes=0, depth=1)\n'
    )
    Path(path).write_text(source, encoding="utf-8")


def save_pickled(path: str) -> None:
    """Save a Python object where tensors are wanted."""
    import torch

    torch.save({"model": Path("notes.txt")}, path)


def serve_model(*, gated: bool = False, token: str | None = None) -> AbstractContextManager[object]:
    """Serve a hub that has one model, `owner/tissue`, and knows the token `mine`."""
    from tests.fake_hub import FakeHub, serve_hub

    hub_id = "owner/tissue"
    hub = FakeHub(files={hub_id: {"config.json": b"{}"}}, gated={hub_id} if gated else set(), tokens={"mine"})
    return serve_hub(hub, Path("hub-cache"), token)


def lay_out_cache(*, with_weights: bool = True) -> None:
    """Make a folder of the hub's cache, as its package lays it out."""
    commit = "4b1f" * 10
    snapshot = Path("models--owner--tissue") / "snapshots" / commit
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text('{"architecture": "resnet18"}', encoding="utf-8")
    if with_weights:
        blob = snapshot.parents[1] / "blobs" / ("a1" * 32)
        blob.parent.mkdir()
        blob.write_bytes(b"not what has this SHA-256")
        (snapshot / "model.safetensors").symlink_to(f"../../blobs/{blob.name}")
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs" / "main").write_text(commit, encoding="utf-8")
