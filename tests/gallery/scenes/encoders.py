"""Encoders of a user, and files of weights."""

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


def save_pickled(path: str) -> None:
    """Save a Python object where tensors are wanted."""
    import torch

    torch.save({"model": Path("notes.txt")}, path)
