"""Files: written to a temporary name and renamed, so that a file that exists is whole."""

import contextlib
import csv
import errno
import hashlib
import io
import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lamella.cells import escape_cell
from lamella.errors import LamellaError, OutputError
from lamella.machine import PASSING, find_errno, refuse_passing
from lamella.regular import say_irregular
from lamella.temporaries import drop_temporary, make_temporary
from lamella.watching import forget_folder, refuse_removed, remember_folders, say_removed

MAX_JSON_BYTES = 1 << 29
_MAX_YAML_BYTES = 1 << 20
_MAX_DEPTH = 64
_SEAL = "record_sha256"
_KINDS = {list: "a list", str: "a text", int: "a number", float: "a number", bool: "a truth value", type(None): "null"}
_REFUSALS = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.EISDIR)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it to `path` when the block ends well, remove it otherwise.

    The temporary name keeps the suffix of `path` (writers that choose a format by suffix still work) and begins
    with a dot. Folders above `path` are made.

    Raises:
        OutputError: If the folder cannot be written or the disk is full.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> with replacing(folder / "deep" / "note.txt") as temporary:
        ...     _ = temporary.write_text("whole")
        >>> [p.name for p in (folder / "deep").iterdir()]
        ['note.txt']
    """
    path = Path(path)
    with _output_errors(path):
        refuse_removed(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = make_temporary(path)
    try:
        with _output_errors(path, only_refusals=True):
            yield temporary
            temporary.chmod(0o666 & ~_umask())
            temporary.replace(path)
        remember_folders(path)
    except FileNotFoundError as error:
        if path.parent.is_dir():
            raise
        raise OutputError(say_removed(path.parent)) from error
    finally:
        with contextlib.suppress(OSError):  # a disk that fails says so above
            drop_temporary(temporary)


def remove(path: Path) -> None:
    """Remove a file, or a folder with all in it; it need not be there.

    Raises:
        OutputError: If it may not be removed, or a file stands where its folder should.
    """
    with _output_errors(Path(path)):
        forget_folder(Path(path))
        if Path(path).is_dir() and not Path(path).is_symlink():
            shutil.rmtree(path)
        else:
            Path(path).unlink(missing_ok=True)


def refuse_links(folder: Path) -> None:
    """Refuse a folder with a link in it that leads out of it: through one, files elsewhere would be read or written.

    The folder itself may be reached by a link, and links between its own files do no harm. Pipes and devices in it are
    refused too: opening one never ends.

    Raises:
        OutputError: Naming the link, pipe or device.
    """
    home = Path(folder).resolve()
    for at, folders, files in os.walk(folder, followlinks=False):
        for name in (*folders, *files):
            path = Path(at) / name
            kind = None if path.is_symlink() or name in folders else say_irregular(path)
            if kind is not None:
                raise OutputError(
                    f"'{path.relative_to(folder).as_posix()}' in '{folder}' is {kind} and a file is needed. Take it "
                    "out, or name another folder."
                )
            if path.is_symlink() and not path.resolve().is_relative_to(home):
                inner = path.relative_to(folder).as_posix()
                raise OutputError(
                    f"'{inner}' in '{folder}' is a link to somewhere else, and a folder that is opened or written must "
                    "hold its own files. Put the files there in place of the link, or name another folder."
                )


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_bytes(path: Path, content: bytes) -> None:
    """Write `content`, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def write_json(path: Path, content: Any) -> None:
    """Write `content` as indented JSON, whole or not at all; NaN is refused (JSON has none)."""
    write_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


def write_record(path: Path, content: Mapping[str, Any]) -> None:
    """Write a record as `write_json` does, with a hash of its content, by which `parse_json_file` knows it again."""
    write_json(path, {**content, _SEAL: _hash_content(json.loads(json.dumps(content)))})


def write_table(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, object]]) -> None:
    """Write `rows` as CSV with a header of `columns`; a key that a row lacks becomes an empty cell.

    Texts that a spreadsheet would run as a formula are escaped (`lamella.cells`).
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(columns), restval="", lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({key: escape_cell(value) if isinstance(value, str) else value for key, value in row.items()})
    write_text(path, text.getvalue())


def read_json(
    path: Path, *, made_by: str, error: type[LamellaError] = OutputError, max_bytes: int = MAX_JSON_BYTES
) -> dict[str, Any]:
    """Read a JSON file that holds one object; whatever else it holds is refused in one line.

    Args:
        path: The file.
        made_by: What writes it, to be run again: a command, or words such as `QuPath's export`.
        error: What is raised.
        max_bytes: Largest file that is read.

    Raises:
        LamellaError: Of the class `error`: where it cannot be read, is not JSON in UTF-8, is nested too deep, or holds
            no object.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "run.json"
        >>> write_json(path, {"classes": ["a", "b"]})
        >>> read_json(path, made_by="lamella run")
        {'classes': ['a', 'b']}
    """
    try:
        content = parse_json_file(path, max_bytes=max_bytes)
    except OSError as cause:
        raise error(f"'{path}' cannot be read ({cause.strerror or cause}). {_remedy(made_by)}") from cause
    except ValueError as cause:
        raise error(f"'{path}' is damaged: {_say_cause(cause)}. {_remedy(made_by)}") from cause
    if not isinstance(content, dict):
        kind = _KINDS.get(type(content), "a value")
        raise error(f"'{path}' is damaged: it holds {kind} and must hold an object. {_remedy(made_by)}")
    return content


def parse_json_file(path: Path, *, max_bytes: int = MAX_JSON_BYTES) -> Any:
    """Return what a JSON file holds, for readers that say themselves what is amiss.

    Raises:
        OSError: If it cannot be read.
        ValueError: If it is not JSON in UTF-8, larger than `max_bytes`, nested more than 64 deep, or a record that was
            changed after `write_record` wrote it.
    """
    content = parse_json(read_bounded(path, max_bytes))
    if isinstance(content, dict) and _SEAL in content and content.pop(_SEAL) != _hash_content(content):
        raise ValueError("it was changed after it was written (its own SHA-256 differs)")
    return content


def _hash_content(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def parse_json(content: bytes | str) -> Any:
    """Return what JSON text holds.

    Raises:
        ValueError: If it is not JSON in UTF-8, or nested more than 64 deep.

    Example:
        >>> parse_json("[" * 100_000)
        Traceback (most recent call last):
        ValueError: nested more than 64 deep
    """
    try:
        value = json.loads(content)  # bytes in any of JSON's encodings
        _check_depth(value)
    except RecursionError as error:
        raise ValueError(f"nested more than {_MAX_DEPTH} deep") from error
    return value


def read_yaml(path: Path, *, error: type[LamellaError] = OutputError) -> tuple[dict[Any, Any], Any]:
    """Read a YAML file that holds one mapping; return it and its tree of nodes, which know their lines.

    Aliases are refused: a few lines of them unfold into more than memory holds.

    Args:
        path: The file.
        error: What is raised.

    Raises:
        LamellaError: Of the class `error`: where it cannot be read, is not YAML in UTF-8, is nested too deep, uses
            aliases, or holds no mapping.
    """
    import yaml

    name = Path(path).name
    try:
        text = read_bounded(path, _MAX_YAML_BYTES).decode("utf-8-sig")
    except (OSError, ValueError) as cause:
        raise error(f"'{path}' cannot be read ({_say_cause(cause)}). Name a text file (.yaml).") from cause
    try:
        depth = 0
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            line = event.start_mark.line + 1 if event.start_mark else 0
            if isinstance(event, yaml.AliasEvent):
                raise error(f"'{name}', line {line}: '*{event.anchor}' repeats another part. Write it out instead.")
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > _MAX_DEPTH:
                raise error(f"'{name}', line {line}: nested more than {_MAX_DEPTH} deep. Look at the brackets.")
        node, content = yaml.compose(text, Loader=yaml.SafeLoader), yaml.safe_load(text)
    except yaml.YAMLError as cause:
        mark = getattr(cause, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        raise error(f"'{name}'{where} is not YAML. Look at quotes, brackets and indents.") from cause
    except (ValueError, TypeError, RecursionError) as cause:  # a date that is none, a number of 5000 digits
        raise error(f"'{name}' holds a value that cannot be ({_say_cause(cause)}). Put it in quotes.") from cause
    return (content if isinstance(content, dict) else {}), node


def read_bounded(path: Path, max_bytes: int = MAX_JSON_BYTES) -> bytes:
    """Read a file of at most so many bytes, for readers that say themselves what is amiss; a pipe is no file.

    Raises:
        OSError: If it cannot be read.
        MachineError: If the machine or its disk refuses.
        ValueError: If it is larger.
    """
    path = Path(path)
    if (kind := say_irregular(path)) is not None:
        raise OSError(errno.EINVAL, f"it is {kind}, not a file")
    if path.stat().st_size > max_bytes:
        raise ValueError(f"it is larger than {max_bytes / 1e6:.0f} MB")
    try:
        return path.read_bytes()
    except OSError as error:
        refuse_passing(error, str(path))
        raise


def _check_depth(content: Any) -> None:
    level = [content]
    for _ in range(_MAX_DEPTH + 1):
        level = [
            inner
            for outer in level
            if isinstance(outer, list | dict)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, list | dict)
        ]
        if not level:
            return
    raise RecursionError


def _say_cause(cause: Exception) -> str:
    if isinstance(cause, UnicodeDecodeError):
        return f"not UTF-8 text (byte {cause.start})"
    if isinstance(cause, RecursionError):
        return f"nested more than {_MAX_DEPTH} deep"
    if isinstance(cause, json.JSONDecodeError):
        return f"not JSON, line {cause.lineno}"
    if isinstance(cause, OSError):
        return str(cause.strerror or cause)
    return str(cause).splitlines()[0][:200] if str(cause) else type(cause).__name__


def _remedy(made_by: str) -> str:
    return f"Run `{made_by}` again." if made_by.startswith("lamella") else f"Write it again with {made_by}."


def find_inside(folder: Path, name: str) -> Path | None:
    """Find a file that a record names inside its folder; None where it is not there, or lies anywhere else.

    A record may have been written by anyone: a name that leads out of the folder, and a link, name nothing.

    Args:
        folder: The folder; it may itself be reached by a link, for the user named it.
        name: Relative to the folder, with `/` between its parts.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> write_text(folder / "heads" / "model.json", "{}")
        >>> find_inside(folder, "heads/model.json") is not None, find_inside(folder, "../model.json")
        (True, None)
    """
    if not is_inner_name(name):
        return None
    path = folder = Path(folder)
    for part in name.split("/"):
        path = path / part
        if path.is_symlink():
            return None
    return path if path.is_file() else None


def is_inner_name(name: str) -> bool:
    """True for a relative path without `.`, `..`, empty parts, backslashes, colons and control characters.

    Example:
        >>> is_inner_name("heads/fold0-seed1/model.json"), is_inner_name("/etc/passwd"), is_inner_name("a/../b")
        (True, False, False)
    """
    return all(part not in ("", ".", "..") and not re.search(r"[\\:\x00-\x1f]", part) for part in name.split("/"))


def find_sha256(path: Path) -> str:
    """Return the SHA-256 of a whole file, as 64 hex digits."""
    try:
        with Path(path).open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        refuse_passing(error, str(path))
        raise


@contextmanager
def _output_errors(path: Path, *, only_refusals: bool = False) -> Iterator[None]:
    """Turn the operating system's errors into one line that says what to do.

    Args:
        path: What is written.
        only_refusals: Whether errors that may come from elsewhere (a caller's block may read too) pass as they are.
    """
    try:
        yield
    except LamellaError:
        raise
    except Exception as error:  # safetensors, HDF5 and libvips have errors of their own for what the system refuses
        number = find_errno(error)
        if number == errno.ENOENT:
            refuse_removed(path)
        if number in (errno.ENOSPC, errno.EDQUOT):
            raise OutputError(
                f"'{path}' cannot be written: the disk is full. Free some space and run the same "
                "command again; what is finished is kept."
            ) from error
        if number is not None and number in PASSING:
            raise OutputError(
                f"'{path}' cannot be written ({os.strerror(number)}). Look at the disk or network folder it lies on "
                "and at the limits of this machine, then run the same command again; what is finished is kept."
            ) from error
        if not isinstance(error, OSError) or (only_refusals and error.errno not in _REFUSALS):
            raise
        raise OutputError(
            f"'{path}' cannot be written ({error.strerror or error}). Choose another --out, or make that folder "
            "writable."
        ) from error


def _umask() -> int:
    """Read the process's umask (there is no call that only reads it)."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
