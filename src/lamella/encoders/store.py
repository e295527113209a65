"""The user's store: where added and fetched weights, and compiled networks, are kept on this machine.

$LAMELLA_HOME (default ~/.cache/lamella)/
  weights/<encoder>/   the file as it came, and card.json
  compiled/<key>/      networks ready to run, safe to delete
  downloads/           what is being fetched
"""

import dataclasses
import os
import re
from pathlib import Path
from typing import Any

from lamella.encoders.cards import EncoderCard, read_card
from lamella.files import is_inner_name, parse_json_file, write_json

CARD_FILE = "card.json"


def find_store() -> Path:
    """Return the folder of the store; it need not exist yet."""
    home = os.environ.get("LAMELLA_HOME")
    return Path(home).expanduser() if home else Path.home() / ".cache" / "lamella"


def stored_folder(name: str) -> Path:
    """Return the folder that holds an encoder's weights, were they added.

    Example:
        >>> stored_folder("hf-hub:OWNER/NAME").name
        'hf-hub_OWNER_NAME'
    """
    return find_store() / "weights" / re.sub(r"[^\w.+-]", "_", name)


def compiled_folder() -> Path:
    """Return the folder that holds compiled networks."""
    return find_store() / "compiled"


def find_stored_weights(name: str) -> Path | None:
    """Find the weights file that was added for an encoder; None where there is none."""
    entry = _read_entry(stored_folder(name))
    if entry is None:
        return None
    file = str(entry.get("file"))
    path = stored_folder(name) / file
    return path if is_inner_name(file) and path.is_file() else None


def load_stored_card(name: str) -> EncoderCard | None:
    """Load the card that lies beside added weights; None where there is none."""
    return _card_of(_read_entry(stored_folder(name)))


def list_stored() -> tuple[tuple[str, Path], ...]:
    """List the encoders whose weights were added, as `(name, file)`, in the order of their folders."""
    found = []
    for folder in sorted((find_store() / "weights").glob("*/")):
        card = _card_of(_read_entry(folder))
        if card is not None and (path := find_stored_weights(card.name)) is not None:
            found.append((card.name, path))
    return tuple(found)


def save_entry(card: EncoderCard, file: str, sha256: str) -> None:
    """Write the card beside weights already copied into the store; from then on they count as present."""
    write_json(stored_folder(card.name) / CARD_FILE, {"file": file, "sha256": sha256, "card": dataclasses.asdict(card)})


def _card_of(entry: dict[str, Any] | None) -> EncoderCard | None:
    if entry is None or not isinstance(entry.get("card"), dict):
        return None
    return read_card(entry["card"])


def _read_entry(folder: Path) -> dict[str, Any] | None:
    try:
        entry = parse_json_file(folder / CARD_FILE)
    except (OSError, ValueError):
        return None
    return entry if isinstance(entry, dict) else None
