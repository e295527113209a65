"""Whose weights a file holds, where several publishers have some of the same network.

Their tensors have the same shapes, so that any of them would load; but each was trained with its own normalisation, and
a result would be reported under the wrong name. Files differ by layout; of one layout, by the digits of their SHA-256
that publishers put into file names.
"""

import re
from collections.abc import Iterable
from pathlib import Path

from lamella.encoders.cards import EncoderCard
from lamella.encoders.catalogue import CATALOGUE
from lamella.encoders.timm_trunk import import_timm
from lamella.errors import WeightsError
from lamella.files import find_sha256

_HASHED = re.compile(r"-([0-9a-f]{8})\.(?:pth|pt|bin|safetensors)$")
_PLAIN = "timm's or torchvision's"
# Card suffix or name, and the layout in which its publisher saved it; every other card of the catalogue is plain.
_LAYOUTS = {
    "-ciga": "Ciga et al.'s",
    "-mormont": "Mormont et al.'s",
    "-pytorch": "EfficientNet-PyTorch's",
    "-torchvision": "torchvision's EfficientNet",
}


def refuse_other_publisher(keys: Iterable[str], card: EncoderCard, path: Path) -> None:
    """Refuse a file that another card of the catalogue with the same architecture is for.

    Args:
        keys: Names of the tensors, as the file gives them.
        card: The encoder that was asked for.
        path: The file.

    Raises:
        WeightsError: Naming the encoder to ask for.
    """
    catalogue = {known.name: known for known in CATALOGUE}
    if card.weights_name not in catalogue or card.package is not None:
        return
    wanted, layout = _layout_of(card.weights_name), _find_layout(set(keys))
    if layout is None or layout == wanted:
        if layout == _PLAIN:
            _refuse_other_tag(card, path)
        return
    family = re.sub("|".join(map(re.escape, _LAYOUTS)), "", card.weights_name)
    right = [name for name in catalogue if name.startswith(family) and _layout_of(name) == layout]
    right = [name for name in right if re.sub("|".join(map(re.escape, _LAYOUTS)), "", name) == family]
    if right:
        raise WeightsError(
            f"weights '{path.name}' are {layout} file and encoder '{card.whole_name}' needs {wanted} weights of "
            f"'{card.network}'. Pass --encoder {right[0]}, or get the weights of '{card.whole_name}'."
        )


def _layout_of(name: str) -> str:
    return next((layout for suffix, layout in _LAYOUTS.items() if name.endswith(suffix)), _PLAIN)


def _find_layout(keys: set[str]) -> str | None:
    """Recognise whose layout the keys are; None where they are nobody's that is known."""
    bare = {key.removeprefix("module.") for key in keys}
    if any(key.startswith("model.resnet.") for key in keys):
        return _LAYOUTS["-ciga"]
    if "features.conv1.weight" in bare or "features.features.conv0.weight" in bare:
        return _LAYOUTS["-mormont"]
    if any(key.startswith("_blocks.") for key in bare):
        return _LAYOUTS["-pytorch"]
    if "features.0.0.weight" in bare and "features.1.0.block.0.0.weight" in bare:
        return _LAYOUTS["-torchvision"]
    if bare & {"conv1.weight", "features.conv0.weight", "conv_stem.weight"}:
        return _PLAIN
    return None


def _refuse_other_tag(card: EncoderCard, path: Path) -> None:
    """Refuse a file whose SHA-256 is that of other weights which timm knows of the same network."""
    timm = import_timm()
    network = card.network.partition(".")[0]
    tag = (card.hub_id or "").rpartition("/")[2].partition(".")[2] or card.weights_tag
    known: dict[str, list[str]] = {}
    for name in timm.list_pretrained(f"{network}.*"):
        config = timm.get_pretrained_cfg(name)
        hashed = _HASHED.search((config.url if config else None) or "")
        if hashed:
            known.setdefault(hashed[1], []).append(name)
    sha256 = find_sha256(path) if known and path.is_file() else ""
    names = known.get(sha256[:8], [])
    if names and f"{network}.{tag}" not in names:
        raise WeightsError(
            f"weights '{path.name}' are timm's '{names[0]}' by their SHA-256 and encoder '{card.whole_name}' needs "
            f"'{network}.{tag}'. Pass --encoder timm:{names[0]}, or get the weights of '{card.whole_name}'."
        )
