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

from lamella.encoders.cards import EncoderCard, read_card
from lamella.encoders.names import split_name
from lamella.errors import EncoderError, WeightsError
from lamella.files import replacing

if TYPE_CHECKING:
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


def hash_id(name: str, salt: str) -> str:
    """Return the salted hash of a slide's or patient's id, 16 hex digits."""
    return hashlib.sha256(f"{salt}:{name}".encode()).hexdigest()[:16]


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
    from safetensors.torch import save_file

    state = {key: tensor.detach().contiguous() for key, tensor in network.blocks.named_state().items()}
    digest = hashlib.sha256()
    for key in sorted(state):
        digest.update(key.encode() + state[key].reshape(-1).numpy().tobytes())
    stem = split_name(Path(base.name).name)[0].removesuffix(".safetensors").replace(":", "_")
    own = f"@{base.depth}" if base.depth < 4 else ""
    path = folder / f"{stem}{own}-tuned-{digest.hexdigest()[:8]}.safetensors".replace("@", "_")
    card = dataclasses.asdict(base) | {"name": base.name if base.depth < 4 else base.whole_name}
    content = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "card": card,
        "trained": trained,
        "seen": dataclasses.asdict(seen),
    }
    with replacing(path) as temporary:
        save_file(state, temporary, metadata={"lamella": json.dumps(content, sort_keys=True)})
    return path


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
    return dataclasses.replace(
        base,
        name=name,
        source=f"fine-tuned from {base.name} ({base.weights_tag})",
        weights_tag="fine-tuned",
        trained_on=(*base.trained_on, f"{len(content['seen']['slides'])} slides of its own cohort"),
        package=None,
        package_file=None,
        sha256=None,
        hub_id=None,
        url=None,
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
    seen = _read_header(Path(whole))["seen"]
    return SeenSlides(seen["salt"], tuple(SeenSlide(**one) for one in seen["slides"]))


def _read_header(path: Path) -> dict[str, Any]:
    """Read the header of a safetensors file, which holds the card; the weights are not touched."""
    try:
        with path.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            header = json.loads(stream.read(length)) if length <= _MAX_HEADER else {}
        content = json.loads(header["__metadata__"]["lamella"])
        if content["format"] != FORMAT or content["format_version"] != FORMAT_VERSION:
            raise KeyError("format")
    except FileNotFoundError as error:
        raise EncoderError(f"encoder '{path}' is not there. Mend the path.") from error
    except OSError as error:
        raise WeightsError(f"encoder '{path}' cannot be read ({error.strerror}).") from error
    except (struct.error, ValueError, KeyError, TypeError) as error:
        raise EncoderError(
            f"encoder '{path}' is no encoder that `lamella run --finetune` wrote: it carries no card. Name the "
            f"network, and pass this file as --weights '{path}'."
        ) from error
    return dict(content)
