"""The `config.json` of a hub model, read as timm reads it, and refused where it would become another network."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lamella.errors import EncoderError
from lamella.files import parse_json_file

if TYPE_CHECKING:
    from pydantic import JsonValue

HUB_CONFIG = "config.json"
OWN_FILE = "Build it in a file of your own and pass --encoder FILE.py:build"
# Arguments of timm's `create_model` itself: they would load files or change what comes back, not describe a network.
_NOT_OF_A_NETWORK = (
    "pretrained",
    "pretrained_cfg",
    "pretrained_cfg_overlay",
    "checkpoint_path",
    "cache_dir",
    "features_only",
    "model_name",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class HubConfig:
    """What a hub model says of itself.

    Attributes:
        network: timm's name of the architecture.
        declared: timm's `pretrained_cfg`: mean, std, input size, licence.
        input_px: Side of the image that the weights were trained at, in pixels; None where it is not stated.
        is_dynamic: Whether the network is told to take images of other sizes, by interpolated position embeddings.
        n_features: Width of the network that the file states; None where it states none.
        arguments: Further arguments of the architecture; without the classifier's, with the pooling where it is stated.
    """

    network: str
    declared: "dict[str, JsonValue]"
    input_px: int | None
    is_dynamic: bool
    n_features: int | None
    arguments: "dict[str, JsonValue]"


def load_hub_config(name: str, path: Path) -> HubConfig:
    """Load the configuration of a hub model.

    Pooling is what `model_args` says, else what the file's own `global_pool` says, else the `pretrained_cfg`'s.
    The size of the image is `img_size` of `model_args`, else the `pretrained_cfg`'s.

    Args:
        name: The encoder, for the errors.
        path: Its `config.json`.

    Raises:
        EncoderError: If the file is not in timm's form, or leaves pooling to whoever loads the model.
    """
    try:
        content = parse_json_file(path)
    except (OSError, ValueError) as error:
        raise EncoderError(
            f"'{name}': its {HUB_CONFIG} cannot be read as JSON. Get the model's {HUB_CONFIG} again."
        ) from error
    if not isinstance(content, dict) or not isinstance(content.get("architecture"), str):
        raise EncoderError(f"'{name}' is no model for timm: its {HUB_CONFIG} names no 'architecture'. {OWN_FILE}.")
    declared = _read_table(name, content, "pretrained_cfg") or dict(content)
    arguments = _read_table(name, content, "model_args")
    arguments.pop("num_classes", None)
    wrong = [key for key in arguments if key in _NOT_OF_A_NETWORK]
    if wrong:
        raise EncoderError(
            f"'{name}': 'model_args' of its {HUB_CONFIG} holds '{wrong[0]}', which does not describe a network. "
            f"{OWN_FILE}."
        )
    pooling = [table.get("global_pool") for table in (arguments, content, declared)]
    arguments.pop("global_pool", None)
    stated = next((value for value in pooling if value is not None), None)
    if stated is not None:
        arguments["global_pool"] = _check_pooling(name, stated)
    return HubConfig(
        network=content["architecture"],
        declared=declared,
        input_px=_read_image_size(name, arguments) or _read_side(name, declared.get("input_size")),
        is_dynamic=bool(arguments.get("dynamic_img_size")),
        n_features=n_features if isinstance(n_features := content.get("num_features"), int) else None,
        arguments=arguments,
    )


def _read_table(name: str, content: "dict[str, JsonValue]", key: str) -> "dict[str, JsonValue]":
    table = content.get(key)
    if table is None:
        return {}
    if not isinstance(table, dict):
        raise EncoderError(
            f"'{name}': '{key}' of its {HUB_CONFIG} is a {type(table).__name__} and must be an object of names and "
            f"values. {OWN_FILE}."
        )
    return dict(table)


def _check_pooling(name: str, pooling: "JsonValue") -> str:
    if not isinstance(pooling, str) or not pooling:
        raise EncoderError(
            f"'{name}' does not pool its tokens (global_pool is {pooling!r} in its {HUB_CONFIG}): its publisher builds "
            "the embedding from them, for example the class token and the mean of the others side by side. Do so in a "
            "file of your own and pass --encoder FILE.py:build."
        )
    return pooling


def _read_image_size(name: str, arguments: "dict[str, JsonValue]") -> int | None:
    """Return the side that the network is built for; what the rest of the file says of the size counts less."""
    size = arguments.get("img_size")
    if size is None:
        return None
    sides = size if isinstance(size, list) else [size, size]
    if len(sides) != 2 or type(sides[0]) is not int or sides[0] != sides[1] or sides[0] <= 0:
        raise EncoderError(
            f"'{name}': 'img_size' among the 'model_args' of its {HUB_CONFIG} is {size!r} and must be the side of a "
            f"square image. {OWN_FILE}."
        )
    arguments["img_size"] = sides[0]
    return sides[0]


def _read_side(name: str, size: "JsonValue") -> int | None:
    """Return the side of a square RGB input from timm's `(3, height, width)`."""
    if size is None:
        return None
    sides = [n for n in size if type(n) is int and n > 0] if isinstance(size, list) and len(size) == 3 else []
    if len(sides) != 3 or sides[0] != 3 or sides[1] != sides[2]:
        raise EncoderError(
            f"'{name}': 'input_size' of its {HUB_CONFIG} is {size!r} and must be [3, side, side], a square RGB image. "
            f"{OWN_FILE}."
        )
    return sides[1]
