"""Encoders of one's own making: fine-tuned ones, with what they were made from and which slides they have seen.

One safetensors file: the weights under the names of the whole network, and in its header a card and the slides and
patients that training has seen, ids as salted hashes. Who evaluates on one of those fools himself, so the file carries
them wherever it goes, and so do the bags that it makes.
"""

import dataclasses
import hashlib
import json
import secrets
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lamella.cohort.spelling import find_look
from lamella.encoders.cards import EncoderCard, EncoderSpec, cut_card, find_encoder, read_card
from lamella.encoders.names import drop_folders, is_own, split_name
from lamella.errors import EncoderError, WeightsError
from lamella.files import parse_json, replacing
from lamella.machine import refuse_passing

if TYPE_CHECKING:
    from torch import Tensor

    from lamella.encoders.network import TileNetwork

FORMAT = "lamella-encoder"
FORMAT_VERSION = 1
_MAX_HEADER = 64 * 2**20


@dataclass(frozen=True, slots=True)
class SeenSlide:
    """A slide that an encoder has learned from, or that decided when its training stopped.

    Attributes:
        slide: Salted hash of the slide's id.
        patient: Salted hash of the patient's id.
        quickhash: Of the file.
        signature: What the slide looks like from afar.
    """

    slide: str
    patient: str
    quickhash: str
    signature: str


@dataclass(frozen=True, slots=True)
class SeenSlides:
    """All slides that an encoder has seen.

    Attributes:
        salt: Of the hashes.
        slides: The slides; empty for an encoder that nobody has fine-tuned here.
    """

    salt: str = ""
    slides: tuple[SeenSlide, ...] = ()

    def hash_id(self, name: str) -> str:
        """Return the salted hash of an id."""
        return hash_id(name, self.salt)

    def knows(self, name: str, hashes: Iterable[str]) -> bool:
        """Whether an id, or one that a person would take for it, is among hashes under this salt."""
        return not list_hashes(name, self.salt).isdisjoint(hashes)


def hash_id(name: str, salt: str) -> str:
    """Return the salted hash of a slide's or patient's id, 16 hex digits: the same for ids that look the same."""
    return _hash_text(find_look(name), salt)


def list_hashes(name: str, salt: str) -> frozenset[str]:
    """Return the hashes that an id may have been stored under: by its look, or by version 0.1 as it was spelt."""
    return frozenset((hash_id(name, salt), _hash_text(name, salt)))


def _hash_text(text: str, salt: str) -> str:
    return hashlib.sha256(f"{salt}:{text}".encode()).hexdigest()[:16]


def make_seen(slides: Iterable[tuple[str, str, str, str]]) -> SeenSlides:
    """Return the record of slides that an encoder has seen, under a new salt.

    Args:
        slides: `(slide_id, patient_id, quickhash, signature)` each.
    """
    salt = secrets.token_hex(16)
    seen = (SeenSlide(hash_id(s, salt), hash_id(p, salt), quick, sign) for s, p, quick, sign in slides)
    return SeenSlides(salt, tuple(seen))


def save_tuned_encoder(
    network: "TileNetwork", base: EncoderCard, seen: SeenSlides, folder: Path, *, trained: dict[str, Any]
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
    own = f"@{base.depth}" if base.depth < 4 else ""
    path = folder / f"{stem}{own}-tuned-{digest.hexdigest()[:8]}.safetensors".replace("@", "_")
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
    trained: dict[str, Any] = {}
    if card.is_tuned:
        content = _read_header(Path(card.whole_name))
        own = read_card(content["card"])
        if card.depth < own.depth:
            own = cut_card(own, card.depth)
        card, trained = dataclasses.replace(own, name=drop_folders(own.name)), dict(content["trained"])
    elif spec.weights != "auto":
        tag = "random" if spec.weights == "random" else "given by the user"
        card = dataclasses.replace(card, weights_tag=tag, source=f"weights {tag}", licence="not stated")
        card = dataclasses.replace(card, trained_on=(), imagenet_top1=None)
    seen = load_seen(spec.name)
    if not with_ids:
        seen = SeenSlides("", tuple(dataclasses.replace(one, slide="", patient="") for one in seen.slides))
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


def save_encoder_file(
    state: "dict[str, Tensor]", card: EncoderCard, path: Path, *, seen: SeenSlides, trained: dict[str, Any]
) -> None:
    """Write weights with their card and what they have seen, whole or not at all.

    Args:
        state: Tensors under the names of the whole network.
        card: Of the encoder, without folders.
        path: The file.
        seen: The slides that training has seen.
        trained: How it was fine-tuned, as JSON; empty where it was not.

    Raises:
        OutputError: If the folder cannot be written.
    """
    from safetensors.torch import save_file

    content = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "card": dataclasses.asdict(card),
        "trained": trained,
        "seen": dataclasses.asdict(seen),
    }
    with replacing(path) as temporary:
        save_file(state, temporary, metadata={"lamella": json.dumps(content, sort_keys=True)})


def find_tuned_card(name: str) -> EncoderCard:
    """Find the card of a fine-tuned encoder's file.

    Raises:
        EncoderError: If the file is not there or not one of ours.
    """
    content = _read_header(Path(name))
    try:
        base = read_card(content["card"])
    except (KeyError, TypeError) as error:
        raise EncoderError(f"encoder '{name}' has no card this version can read ({error}). Train it again.") from error
    nowhere_else: dict[str, Any] = {"package": None, "package_file": None, "sha256": None, "hub_id": None, "url": None}
    if not content["trained"]:  # carried here as it was, by `carry_encoder`
        return dataclasses.replace(base, name=name, **nowhere_else)
    return dataclasses.replace(
        base,
        name=name,
        source=f"fine-tuned from {base.name} ({base.weights_tag})",
        weights_tag="fine-tuned",
        trained_on=(*base.trained_on, f"{len(content['seen']['slides'])} slides of its own cohort"),
        imagenet_top1=None,
        **nowhere_else,
    )


def load_seen(name: str) -> SeenSlides:
    """Load which slides a fine-tuned encoder has seen; none for any other encoder.

    Raises:
        EncoderError: If the file is not there or not one of ours.
    """
    whole, _ = split_name(name)
    if not whole.endswith(".safetensors"):
        return SeenSlides()
    seen = _read_header(Path(whole))["seen"]
    return SeenSlides(seen["salt"], tuple(SeenSlide(**one) for one in seen["slides"]))


def _read_header(path: Path) -> dict[str, Any]:
    """Read the header of a safetensors file, which holds the card; the weights are not touched."""
    try:
        with path.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            header = parse_json(stream.read(length)) if length <= _MAX_HEADER else {}
        content = parse_json(header["__metadata__"]["lamella"])
        if content["format"] != FORMAT or content["format_version"] != FORMAT_VERSION:
            raise KeyError("format")
    except FileNotFoundError as error:
        raise EncoderError(f"encoder '{path}' is not there. Mend the path.") from error
    except OSError as error:
        refuse_passing(error, str(path))
        raise WeightsError(f"encoder '{path}' cannot be read ({error.strerror}).") from error
    except (struct.error, ValueError, KeyError, TypeError) as error:
        raise EncoderError(
            f"encoder '{path}' is no encoder that `lamella run --finetune` wrote: it carries no card. Name the "
            f"network, and pass this file as --weights '{path}'."
        ) from error
    return dict(content)
