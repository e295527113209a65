"""Packing: an encoder with its weights becomes one file, which `tuned` reads.

`lamella.encoders.network` is imported inside a function, for torch's weight alone.
"""

import dataclasses
import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from lamella.encoders.cards import EncoderCard, EncoderSpec, cut_card
from lamella.encoders.names import drop_folders, is_own, split_name
from lamella.encoders.registry import find_encoder
from lamella.encoders.tuned import SeenSlides, load_header, load_seen, save_encoder_file
from lamella.errors import EncoderError

if TYPE_CHECKING:
    from pydantic import JsonValue

    from lamella.encoders.network import TileNetwork


def save_tuned_encoder(
    network: "TileNetwork", base: EncoderCard, seen: SeenSlides, folder: Path, *, trained: "dict[str, JsonValue]"
) -> Path:
    """Save a fine-tuned encoder under a name that says what it is; return the file.

    Args:
        network: The encoder with its new weights.
        base: Card of the encoder it was made from, at its depth.
        seen: The slides that training has seen.
        folder: Where the file goes: `<base>-tuned-<8 digits of its weights>.safetensors`.
        trained: How it was trained, as JSON.

    Raises:
        OutputError: If the folder cannot be written.
    """
    state = {key: tensor.detach().contiguous() for key, tensor in network.blocks.named_state().items()}
    digest = hashlib.sha256()
    for key in sorted(state):
        digest.update(key.encode() + state[key].reshape(-1).numpy().tobytes())
    stem = split_name(Path(base.name).name)[0].removesuffix(".safetensors").replace(":", "_")
    cut = f"@{base.depth}" if base.depth < 4 else ""
    path = folder / f"{stem}{cut}-tuned-{digest.hexdigest()[:8]}.safetensors".replace("@", "_")
    card = dataclasses.replace(base, name=drop_folders(base.name if base.depth < 4 else base.whole_name))
    card = dataclasses.replace(card, network=drop_folders(base.network))  # of one's own code: where it lies is private
    save_encoder_file(state, card, path, seen=seen, trained=trained)
    return path


def carry_encoder(spec: EncoderSpec, path: Path, *, with_ids: bool = True) -> "TileNetwork":
    """Save any encoder as one file that needs no weights from elsewhere; return its network.

    The file is asked for by its path, as a fine-tuned encoder is. What a fine-tuned encoder has seen comes along.

    Args:
        spec: Which encoder with which weights.
        path: The file, `NAME.safetensors`.
        with_ids: Whether the salted hashes of slides and patients come along; without them, slides are known again by
            their bytes and looks.

    Raises:
        EncoderError: If the network is built by the user's own code, which no file of weights can carry.
        WeightsError: If the weights are not on this machine.
        OutputError: If the folder cannot be written.
    """
    from lamella.encoders.network import build_network

    card = find_encoder(spec.name)
    refuse_own_code(card)
    network = build_network(spec)
    state = {key: tensor.detach().contiguous() for key, tensor in network.blocks.named_state().items()}
    trained: dict[str, JsonValue] = {}
    if card.is_tuned:
        header = load_header(Path(card.whole_name))
        whole, trained = header.card, header.trained
        kept = cut_card(whole, card.depth) if card.depth < whole.depth else whole
        card = dataclasses.replace(kept, name=drop_folders(kept.name))
    elif spec.weights != "auto":
        tag = "random" if spec.weights == "random" else "given by the user"
        card = dataclasses.replace(card, weights_tag=tag, source=f"weights {tag}", licence="not stated")
        card = dataclasses.replace(card, trained_on=(), imagenet_top1=None)
    seen = load_seen(spec.name)
    if not with_ids:
        seen = SeenSlides("", tuple(dataclasses.replace(slide, slide="", patient="") for slide in seen.slides))
    save_encoder_file(state, card, path, seen=seen, trained=trained)
    return network


def refuse_own_code(card: EncoderCard) -> None:
    """Refuse an encoder that no file of weights can carry.

    Raises:
        EncoderError: If its network is built by the user's own code.
    """
    if card.is_own:
        refuse_own_name(card.network)


def refuse_own_name(name: str) -> None:
    """Refuse an encoder that no file of weights can carry, by its name; nothing of it is run.

    Raises:
        EncoderError: If its network is built by the user's own code.
    """
    if is_own(split_name(name)[0]):
        raise EncoderError(
            f"encoder '{drop_folders(name)}' is built by your own code, which a file of weights cannot carry. Use "
            "an encoder of `lamella encoders`, timm:NAME or hf-hub:OWNER/NAME, or pass on the whole run."
        )
