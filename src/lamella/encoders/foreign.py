"""Encoders from elsewhere: any network of timm, a model of the hub, one's own function.

Their cards are read off the thing itself, so torch and timm are imported for them, except for what was already added
to the store of weights: its card lies beside it. Imports inside functions spare all others torch's weight.
"""

import dataclasses
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lamella.encoders.cards import EncoderCard
from lamella.encoders.catalogue import find_by_hub_id
from lamella.encoders.hub_config import HUB_CONFIG, OWN_FILE, load_hub_config
from lamella.encoders.names import N_BLOCKS, no_encoder_called
from lamella.encoders.own import read_own_card
from lamella.encoders.own_declaration import read_triple
from lamella.encoders.store import load_stored_card, stored_folder
from lamella.encoders.timm_trunk import create_trunk, import_timm, measure_width
from lamella.errors import EncoderError, WeightsError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic import JsonValue

_PROBE_PX = 224
_BLOCK_DIMS: dict[tuple[str, str, int | None], tuple[int, ...]] = {}


def find_foreign_encoder(name: str) -> EncoderCard:
    """Find the card of a `timm:`, `hf-hub:` or `FILE.py:build` encoder.

    Raises:
        EncoderError: If there is none, or one's own does not keep the rules.
        WeightsError: If a hub model was not fetched yet.
    """
    if name.endswith(":") or name == "hf-hub:":
        raise EncoderError(f"encoder '{name}' lacks the name after the colon. `lamella encoders` shows how to ask.")
    if name.startswith("timm:"):
        return load_stored_card(name) or read_timm_card(name)
    if name.startswith("hf-hub:"):
        stored = load_stored_card(name)
        if stored is None:
            raise WeightsError(
                f"the card of '{name}' comes with its weights, which are not on this machine ({stored_folder(name)} "
                f"holds none). Run: lamella weights fetch {shlex.quote(name)}"
            )
        return stored
    return read_own_card(name)


def find_block_dims(card: EncoderCard) -> tuple[int, ...]:
    """Find the width of the embedding after each block, by running a blank tile through the network.

    Raises:
        EncoderError: If the network cannot be cut.
    """
    from lamella.encoders.blocks import measure_blocks

    if card.is_own:
        raise EncoderError(
            f"encoder '{card.name}' is your own, and where its blocks end is not known. Give its network an attribute "
            f"'blocks', the names of {N_BLOCKS} modules, or ask for it whole."
        )
    key = card.network, repr(card.model_args), card.layers
    if key not in _BLOCK_DIMS:  # names are looked up often, and a large network takes a second to build
        trunk = create_trunk(card.network, card.model_args, device="meta")
        depths = range(1, N_BLOCKS + 1)
        shapes = measure_blocks(trunk, card.name, card.input_px or _PROBE_PX, depths, layers=card.layers)
        _BLOCK_DIMS[key] = tuple(shape.width for shape in shapes)
    return _BLOCK_DIMS[key]


def read_timm_card(name: str) -> EncoderCard:
    """Read the card of `timm:NETWORK` or `timm:NETWORK.TAG` off timm's own declaration.

    Raises:
        EncoderError: If timm has no such network or tag.
    """
    timm = import_timm()
    asked = name.removeprefix("timm:")
    network, _, tag = asked.partition(".")
    if not timm.is_model(network):
        raise EncoderError(
            no_encoder_called(
                name, [f"timm:{n}" for n in timm.list_models()], "`timm.list_models()` lists all of timm's"
            )
        )
    tags = [tagged.partition(".")[2] for tagged in timm.list_pretrained(f"{network}.*")]
    if tag and tag not in tags:
        known = ", ".join(tags) or "none"
        raise EncoderError(f"timm's '{network}' has no weights tagged '{tag}' (known: {known}). Pass one of those.")
    config = timm.get_pretrained_cfg(asked)
    declared = config.to_dict() if config else {}
    side = int((declared.get("input_size") or (_PROBE_PX,))[-1])
    return _card_of_config(name, network, declared, {}, side=side)


def read_hub_card(name: str, config_path: Path) -> EncoderCard:
    """Read the card of a hub model from its `config.json`, in timm's form; of a known model it is the catalogue's.

    Raises:
        EncoderError: If the file is not in timm's form, leaves pooling to the user, or names a network or an
            argument that this timm lacks.
    """
    known = find_by_hub_id(name.removeprefix("hf-hub:"))
    if known is not None:
        return dataclasses.replace(known, name=name)
    config = load_hub_config(name, config_path)
    timm = import_timm()
    if not timm.is_model(config.network):
        raise EncoderError(
            f"'{name}' needs the network '{config.network}', which this timm lacks. Run: pip install -U timm"
        )
    declared, arguments = dict(config.declared), dict(config.arguments)
    published = timm.get_pretrained_cfg(config.network, allow_unregistered=True)
    is_fixed = declared.get("fixed_input_size")
    if is_fixed is None:
        is_fixed = published and published.fixed_input_size
    is_fixed = bool(is_fixed) and not config.is_dynamic  # timm's rule
    # The architecture's own weights may be of another size (DINOv2's 518): what counts is what the hub's were made at.
    if config.input_px is not None and (is_fixed or (published and published.fixed_input_size)):
        arguments.setdefault("img_size", config.input_px)
    hub_id = name.removeprefix("hf-hub:")
    declared |= {"hf_hub_id": hub_id, "fixed_input_size": is_fixed}
    return _card_of_config(
        name,
        config.network,
        declared,
        arguments,
        side=config.input_px or _PROBE_PX,
        n_features=config.n_features,
    )


def _card_of_config(
    name: str,
    network: str,
    config: "Mapping[str, JsonValue]",
    arguments: "dict[str, JsonValue]",
    *,
    side: int,
    n_features: int | None = None,
) -> EncoderCard:
    """Turn timm's `pretrained_cfg` into a card; what it does not declare is timm's own default."""
    trunk = _create_described(name, network, arguments)
    if n_features not in (None, trunk.num_features):
        raise EncoderError(
            f"'{name}': 'num_features' of its {HUB_CONFIG} is {n_features} and the '{network}' that it describes has "
            f"{trunk.num_features}, so that would be another network. {OWN_FILE}."
        )
    width = measure_width(trunk, name, side)
    return EncoderCard(
        name=name,
        network=network,
        source=f"timm {import_timm().__version__}" if name.startswith("timm:") else "the model hub",
        weights_tag=str(config.get("tag") or "none"),
        mean=_declared_triple(name, config, "mean", (0.485, 0.456, 0.406)),
        std=_declared_triple(name, config, "std", (0.229, 0.224, 0.225)),
        embedding_dim=width,
        licence=str(config.get("license") or "not stated"),
        trained_on=("not stated",),
        input_px=side,
        fixed_input=bool(config.get("fixed_input_size", False)),
        hub_id=str(config.get("hf_hub_id") or "") or None,
        url=str(config.get("url") or "") or None,
        model_args=arguments,
    )


def _create_described(name: str, network: str, arguments: "dict[str, JsonValue]") -> Any:
    """Build a network as its publisher describes it; whatever timm raises says that it cannot."""
    try:
        return create_trunk(network, arguments, device="meta")
    except Exception as error:  # timm passes arguments on unseen: any of its layers may raise anything
        reason = " ".join(str(error).split()) or type(error).__name__
        if isinstance(error, KeyError):
            reason = f"{reason} is not known to it"
        layers = [f"{key} {value!r}" for key, value in arguments.items() if key.endswith("_layer")]
        by_name = f", among them a layer by name ({', '.join(layers)})" if layers else ""
        raise EncoderError(
            f"'{name}' is a '{network}' with arguments that timm {import_timm().__version__} cannot build it from"
            f"{by_name}: {reason}. {OWN_FILE}, or run: pip install -U timm"
        ) from error


def _declared_triple(
    name: str, config: "Mapping[str, JsonValue]", key: str, default: tuple[float, float, float]
) -> tuple[float, float, float]:
    values = config.get(key) or default
    try:
        triple = read_triple(values)
    except (TypeError, ValueError) as error:
        raise EncoderError(
            f"'{name}': '{key}' of its {HUB_CONFIG} is {values!r}, not three numbers. {OWN_FILE}."
        ) from error
    if key == "std" and min(triple) <= 0:
        raise EncoderError(f"'{name}': 'std' of its {HUB_CONFIG} is {values!r} and must be above 0. {OWN_FILE}.")
    return triple
