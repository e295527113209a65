"""Models of the hub as they lie on a disk: which file holds the weights, which says what network they are for.

    models--OWNER--NAME/       a folder of the hub's cache: refs/main names a commit, snapshots/COMMIT/ holds links into
                               blobs/, where files lie under their SHA-256 (large ones) or git's SHA-1
    snapshots/COMMIT/          one of its revisions
    any other folder           as `hf download --local-dir` or git makes it

Weights may be one file, or several with an index that says which tensor is where. Nothing outside the folder is read
but the blobs of the cache that it belongs to.
"""

import hashlib
import os
import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from lamella.encoders.hub_config import HUB_CONFIG
from lamella.errors import WeightsError
from lamella.files import find_sha256, is_inner_name, parse_json_file
from lamella.regular import refuse_irregular

INDEX_SUFFIX = ".index.json"
HUB_FILES = (
    "model.safetensors",
    f"model.safetensors{INDEX_SUFFIX}",
    "pytorch_model.bin",
    f"pytorch_model.bin{INDEX_SUFFIX}",
)
_SUFFIXES = (".safetensors", ".bin", ".pth", ".pt", ".ckpt")
_NO_WEIGHTS = re.compile(r"optimizer|scheduler|training_args|rng_state|random_states|scaler", re.IGNORECASE)
_SHARED_MARKER = ".huggingface-shared-blobs"
_FEW = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """One revision of a model on this disk.

    Attributes:
        folder: Where its files, or links to them, lie.
        weights: The file of weights, or the index of several.
    """

    folder: Path
    weights: Path

    @property
    def config(self) -> Path:
        """Where its `config.json` is; it need not be there."""
        return self.folder / HUB_CONFIG


def find_snapshot(
    name: str, path: Path, *, hub_id: str | None = None, revision: str | None = None, file: str | None = None
) -> Snapshot:
    """Find the weights of an encoder in a folder, a folder of the hub's cache, or where a file lies.

    Args:
        name: The encoder, for the errors.
        path: The folder, or the file itself.
        hub_id: `OWNER/NAME` that the encoder has on the hub; None where it has none.
        revision: The commit that the encoder's card is written for; None where any will do.
        file: The name that the encoder's weights have on the hub, where it is an unusual one.

    Raises:
        WeightsError: If the folder is another model's or revision's, was not downloaded to the end, holds no weights or
            several, is damaged, or has links that lead out of it.
    """
    if not path.is_dir():
        refuse_irregular(path, f"weights file '{path}'", WeightsError)
        if not path.is_file():
            raise WeightsError(f"weights '{path}' are not there. Check the path.")
        if path.name.endswith(".incomplete"):
            raise _half_downloaded(name, path.parent, f"'{path.name}' is a part of a file")
        return Snapshot(folder=path.parent, weights=path)
    folder = _find_revision(name, path, hub_id, revision)
    weights = _find_weights_file(name, folder, file)
    if (folder / HUB_CONFIG).is_symlink():
        open_inside(name, folder, HUB_CONFIG)
    return Snapshot(folder=folder, weights=open_inside(name, folder, weights))


def read_index(name: str, index: Path) -> tuple[str, ...]:
    """Return the names of the files that an index of weights lists; all lie beside it.

    Raises:
        WeightsError: If it is no index, or names files elsewhere.
    """
    try:
        table = parse_json_file(index)["weight_map"]
        files = sorted({str(file) for file in table.values()})
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise WeightsError(
            f"'{index.name}' of '{name}' is no index of weights: it has no 'weight_map'. Get it again."
        ) from error
    outside = next((file for file in files if not is_inner_name(file) or "/" in file), None)
    if outside is not None or not files:
        raise WeightsError(
            f"'{index.name}' of '{name}' names the file '{outside}', which is not beside it. Get the model again."
        )
    return tuple(files)


def open_inside(name: str, folder: Path, file: str) -> Path:
    """Return the path of a file of a snapshot, seen to be there, not to lead elsewhere, and to be whole.

    Raises:
        WeightsError: Where it is not so.
    """
    path = folder / file
    if not path.is_symlink():
        if not path.exists():
            raise _half_downloaded(name, folder, f"'{file}' is missing")
        refuse_irregular(path, f"'{file}' of '{name}'", WeightsError)
        return path
    target = path.resolve()
    if not any(target.is_relative_to(home) for home in _list_homes(folder)):
        raise WeightsError(
            f"'{file}' in '{folder}' is a link to somewhere else than the hub's cache. Put the file itself there, or "
            f"name it: lamella weights add {shlex.quote(name)} FILE"
        )
    if not path.exists():
        raise _half_downloaded(name, folder, f"'{file}' is a link to a file that did not come")
    refuse_irregular(path, f"'{file}' of '{name}'", WeightsError)
    refuse_damaged_blob(name, path, f"Remove '{find_blob(path)}', and get it again: {_fetch(name)}")
    return path


def find_blob(path: Path) -> Path:
    """Return the file of the hub's cache that a link names: its name is its checksum.

    One link is followed, not all: the file behind may lie in a store that several models share, under another name.
    """
    return Path(os.path.normpath(path.parent / path.readlink())) if path.is_symlink() else path


def refuse_damaged_blob(name: str, path: Path, remedy: str) -> None:
    """Refuse a link of the hub's cache whose file has not the checksum that it is called by.

    Raises:
        WeightsError: Then.
    """
    stated = find_blob(path).name
    if not path.is_symlink() or not re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", stated):
        return
    actual = find_sha256(path) if len(stated) == 64 else _find_git_sha1(path)
    if actual != stated:
        raise WeightsError(
            f"'{path.name}' of '{name}' is damaged: its checksum begins {actual[:8]} and must begin {stated[:8]}. "
            f"{remedy}"
        )


def _find_git_sha1(path: Path) -> str:
    """Return the SHA-1 by which git calls a file, as 40 hex digits."""
    content = path.read_bytes()  # a small file: large ones go by SHA-256
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def _find_revision(name: str, path: Path, hub_id: str | None, revision: str | None) -> Path:
    """Return the folder of one revision: the path itself, or in a cache folder the one that is meant."""
    cache = path if (path / "snapshots").is_dir() else path.parent.parent if path.parent.name == "snapshots" else None
    if cache is None:
        return path
    held = re.fullmatch(r"models--(.+?)--(.+)", cache.name)
    if hub_id is not None and held is not None and f"{held[1]}/{held[2]}".casefold() != hub_id.casefold():
        raise WeightsError(
            f"'{path}' holds the hub's '{held[1]}/{held[2]}' and '{name}' is '{hub_id}'. Name the folder of that one."
        )
    revisions = {folder.name: folder for folder in sorted((cache / "snapshots").iterdir()) if folder.is_dir()}
    ref = _read_ref(cache)
    asked = path.name if cache is not path else ref if ref is not None else None
    if cache is path and revision in revisions:
        return revisions[str(revision)]
    if revision is not None and asked is not None and asked != revision:
        raise WeightsError(
            f"'{path}' is revision {asked[:12]} of '{hub_id or name}' and the card of '{name}' is written for "
            f"{revision[:12]}. Run: {_fetch(name)}"
        )
    if asked is None and len(revisions) == 1:
        return next(iter(revisions.values()))
    if asked is None and revisions:
        first = next(iter(revisions))
        raise WeightsError(
            f"'{path}' holds {len(revisions)} revisions and none is its main one. Name one: '{path}/snapshots/{first}'."
        )
    if asked not in revisions:
        raise _half_downloaded(name, path, f"its revision {str(asked)[:12]} is not there")
    return revisions[asked]


def _read_ref(cache: Path) -> str | None:
    """Return the commit that a cache folder calls main."""
    try:
        stated = (cache / "refs" / "main").read_bytes()[:100].decode("ascii").strip()
    except (OSError, ValueError):
        return None
    return stated if re.fullmatch(r"[\w.-]+", stated) else None


def _find_weights_file(name: str, folder: Path, file: str | None) -> str:
    """Return the name of the file of weights, or of the index of several."""
    names = sorted(path.name for path in folder.iterdir())
    usual = next((known for known in (file, *HUB_FILES) if known in names), None)
    if usual is not None:
        return usual
    if file is not None:
        raise _half_downloaded(name, folder, f"'{file}', its weights, is missing")
    others = [one for one in names if one.endswith(_SUFFIXES) and not _NO_WEIGHTS.search(one)]
    if len(others) == 1:
        return others[0]
    if others:
        more = ", ..." if len(others) > _FEW else ""
        raise WeightsError(
            f"'{folder}' holds {len(others)} files that may be the weights of '{name}' ({', '.join(others[:_FEW])}"
            f"{more}). Name one: lamella weights add {shlex.quote(name)} {shlex.quote(str(folder / others[0]))}"
        )
    if HUB_CONFIG in names or _list_homes(folder)[1:]:
        raise _half_downloaded(name, folder, "no file of weights came")
    raise WeightsError(f"'{folder}' holds no weights ({', '.join(_SUFFIXES)}). Name the folder or file that does.")


def _list_homes(folder: Path) -> tuple[Path, ...]:
    """Return where the files of a snapshot may lie: its folder, and the blobs of the cache that it is in."""
    homes = [folder.resolve()]
    cache = folder.resolve().parent.parent
    if folder.resolve().parent.name == "snapshots" and cache.name.startswith("models--"):
        homes.append(cache / "blobs")
        if (cache.parent / "blobs" / _SHARED_MARKER).is_file():
            homes.append(cache.parent / "blobs")
    return tuple(homes)


def _half_downloaded(name: str, folder: Path, what: str) -> WeightsError:
    return WeightsError(f"'{folder}' was not downloaded to the end: {what}. Run: {_fetch(name)}")


def _fetch(name: str) -> str:
    return f"lamella weights fetch {shlex.quote(name)}"
