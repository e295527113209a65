"""Fingerprints: what must be the same for two embeddings to be comparable."""

import hashlib
import json

from lamella.encoders.cards import EncoderCard, EncoderSpec
from lamella.encoders.names import N_BLOCKS
from lamella.encoders.own import hash_own_source
from lamella.encoders.registry import find_encoder
from lamella.encoders.trust import find_trusted
from lamella.encoders.weights import hash_weights


def fingerprint_encoder(spec: EncoderSpec) -> str:
    """Return the SHA-256 over an encoder's weights, normalisation, network and depth, as 64 hex digits.

    Files and the card are hashed, nothing is built: torch is not imported for the encoders of the catalogue, nor for
    `timm:` and `hf-hub:` ones in the store. The same tensors in another file give another fingerprint.

    Raises:
        EncoderError: If no encoder has that name.
        WeightsError: If the weights are not on this machine.

    Example:
        >>> fingerprint_encoder(EncoderSpec("resnet18", weights="random"))[:16]
        '821cf01f6c0303c2'
    """
    card = find_encoder(spec.name)
    parts = {
        "network": _hash_own(card) if card.is_own else card.network,
        "model_args": card.model_args,
        "batchnorm_eps": card.batchnorm_eps,
        "mean": card.mean,
        "std": card.std,
        "resized_to_px": card.input_px if card.fixed_input else None,
        "weights": hash_weights(card, spec.weights),
    }
    if card.depth < N_BLOCKS:  # whole networks keep the fingerprint they had before there were others
        parts["depth"] = card.depth
    if card.layers is not None:
        parts["layers"] = card.layers
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _hash_own(card: EncoderCard) -> str:
    return hash_own_source(find_trusted(card.network) if card.is_tuned else card.network)
