"""4. Encoders: tile -> embedding.

`registry` finds the card of a name, `weights` its numbers, `network` builds it, `runtime` computes with it. Torch, timm
and OpenVINO are imported by what needs them, when it is called: for their weight alone.
"""

from lamella.encoders.cards import EncoderCard, EncoderSpec
from lamella.encoders.catalogue import DEFAULT_ENCODER
from lamella.encoders.fetching import add_weights, fetch_weights
from lamella.encoders.fingerprint import fingerprint_encoder
from lamella.encoders.hub import HubAccess, check_access
from lamella.encoders.registry import Trunk, find_encoder, group_by_trunk, list_encoders, select_encoders
from lamella.encoders.runtime import (
    PrecisionCheck,
    Runtime,
    RuntimeDescription,
    RuntimeSettings,
    SettledPrecision,
    describe_runtimes,
    open_runtime,
)
from lamella.encoders.weights import WeightsEntry, find_weights, list_weights

__all__ = [
    "DEFAULT_ENCODER",
    "EncoderCard",
    "EncoderSpec",
    "HubAccess",
    "PrecisionCheck",
    "Runtime",
    "RuntimeDescription",
    "RuntimeSettings",
    "SettledPrecision",
    "Trunk",
    "WeightsEntry",
    "add_weights",
    "check_access",
    "describe_runtimes",
    "fetch_weights",
    "find_encoder",
    "find_weights",
    "fingerprint_encoder",
    "group_by_trunk",
    "list_encoders",
    "list_weights",
    "open_runtime",
    "select_encoders",
]
