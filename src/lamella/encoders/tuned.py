"""Encoders of one's own making: fine-tuned ones, with what they were made from and which slides they have seen.

One safetensors file: the weights under the names of the whole network, and in its header a card and the slides and
patients that training has seen, ids as salted hashes. Who evaluates on one of those fools himself, so the file carries
them wherever it goes, and so do the bags that it makes.
"""

import dataclasses
import hashlib
import json
import secrets
import shlex
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lamella.cohort.spelling import find_look
from lamella.encoders.cards import EncoderCard, read_card
from lamella.encoders.names import split_name
from lamella.errors import EncoderError, WeightsError
from lamella.files import parse_json, replacing
from lamella.machine import refuse_passing

if TYPE_CHECKING:
    from pydantic import JsonValue
    from torch import Tensor

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


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderHeader:
    """What the file of an encoder says of itself.

    Attributes:
        card: Of the encoder, without folders.
        trained: How it was fine-tuned; empty where it was not.
        seen: The slides that training has seen.
    """

    card: EncoderCard
    trained: "dict[str, JsonValue]"
    seen: SeenSlides


def save_encoder_file(
    state: "dict[str, Tensor]", card: EncoderCard, path: Path, *, seen: SeenSlides, trained: "dict[str, JsonValue]"
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

    content: dict[str, JsonValue] = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "card": dataclasses.asdict(card),
        "trained": trained,
        "seen": dataclasses.asdict(seen),
        "tensors_sha256": hash_tensors(state),
    }
    content["content_sha256"] = _hash_content(content)
    with replacing(path) as temporary:
        save_file(state, temporary, metadata={"lamella": json.dumps(content, sort_keys=True)})


def find_tuned_card(name: str) -> EncoderCard:
    """Find the card of a fine-tuned encoder's file.

    Raises:
        EncoderError: If the file is not there or not one of ours.
    """
    header = load_header(Path(name))
    base = header.card
    here = dataclasses.replace(base, name=name, package=None, package_file=None, sha256=None, hub_id=None, url=None)
    here = dataclasses.replace(here, hub_revision=None, hub_file=None, access="open")  # the file itself is here
    if not header.trained:  # carried here as it was, by `carry_encoder`
        return here
    return dataclasses.replace(
        here,
        source=f"fine-tuned from {base.name} ({base.weights_tag})",
        weights_tag="fine-tuned",
        trained_on=(*base.trained_on, f"{len(header.seen.slides)} slides of its own cohort"),
        imagenet_top1=None,
    )


def load_seen(name: str) -> SeenSlides:
    """Load which slides a fine-tuned encoder has seen; none for any other encoder.

    Raises:
        EncoderError: If the file is not there or not one of ours.
    """
    whole, _ = split_name(name)
    if not whole.endswith(".safetensors"):
        return SeenSlides()
    return load_header(Path(whole)).seen


def hash_tensors(state: "dict[str, Tensor]") -> str:
    """Return the SHA-256 of tensors by their names, kinds, shapes and bytes, 64 hex digits."""
    import torch

    sha = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        sha.update(repr((name, str(tensor.dtype), tuple(tensor.shape))).encode())
        sha.update(tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return sha.hexdigest()


def _hash_content(content: "JsonValue") -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def load_header(path: Path) -> EncoderHeader:
    """Load what the file of a fine-tuned encoder says of itself: card, training, slides seen; no weights are read.

    Raises:
        EncoderError: If the file is not there or not one of ours.
        WeightsError: If it cannot be read.
    """
    try:
        with path.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            header = parse_json(stream.read(length)) if length <= _MAX_HEADER else {}
        content = parse_json(header["__metadata__"]["lamella"])
        if content["format"] != FORMAT or content["format_version"] != FORMAT_VERSION:
            raise KeyError("format")
        if content.pop("content_sha256", None) not in (None, _hash_content(content)):
            raise EncoderError(
                f"encoder '{path}' has a card that is not as it was written (its own SHA-256 differs). Get the file "
                "again from where it came."
            )
    except FileNotFoundError as error:
        raise EncoderError(f"encoder '{path}' is not there. Mend the path.") from error
    except OSError as error:
        refuse_passing(error, str(path))
        raise WeightsError(f"encoder '{path}' cannot be read ({error.strerror}).") from error
    except (struct.error, ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, EncoderError):
            raise
        raise EncoderError(
            f"encoder '{path}' is no encoder that `lamella run --finetune` wrote: it carries no card. Name the "
            f"network, and pass this file as --weights {shlex.quote(str(path))}."
        ) from error
    try:
        card, trained, seen = read_card(content["card"]), dict(content["trained"]), content["seen"]
        slides = tuple(SeenSlide(**slide) for slide in seen["slides"])
        return EncoderHeader(card=card, trained=trained, seen=SeenSlides(seen["salt"], slides))
    except (KeyError, TypeError, ValueError) as error:
        raise EncoderError(f"encoder '{path}' has no card this version can read ({error}). Train it again.") from error
