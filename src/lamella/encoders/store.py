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
    if entry is None or not is_inner_name(entry[1]):
        return None
    path = stored_folder(name) / entry[1]
    return path if path.is_file() else None


def load_stored_card(name: str) -> EncoderCard | None:
    """Load the card that lies beside added weights; None where there is none."""
    entry = _read_entry(stored_folder(name))
    return entry and entry[0]


def list_stored() -> tuple[tuple[str, Path], ...]:
    """List the encoders whose weights were added, as `(name, file)`, in the order of their folders."""
    entries = [_read_entry(folder) for folder in sorted((find_store() / "weights").glob("*/"))]
    names = [entry[0].name for entry in entries if entry is not None]
    return tuple((name, path) for name in names if (path := find_stored_weights(name)) is not None)


def save_entry(card: EncoderCard, file: str, sha256: str) -> None:
    """Write the card beside weights already copied into the store; from then on they count as present."""
    write_json(stored_folder(card.name) / CARD_FILE, {"file": file, "sha256": sha256, "card": dataclasses.asdict(card)})


def _read_entry(folder: Path) -> tuple[EncoderCard, str] | None:
    """Return the card of added weights and the name of their file; None where there are none, or no such card."""
    try:
        entry = parse_json_file(folder / CARD_FILE)
        return read_card(entry["card"]), str(entry.get("file"))
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return None
