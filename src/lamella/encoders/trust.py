"""Whose code may run: an encoder `FILE.py:build` is built only where the user named that very file.

A run folder, a study file or a model may have been passed on by anyone, and each may name an encoder. So a record never
makes code run. Trusted is what stands on the command line (`--encoder FILE.py:build`, `--trust FILE.py`), or in Python
what `trusting` was given. `lamella.encoders.foreign` asks here before it imports anything, so no caller can forget to.
"""

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from lamella.encoders.names import is_own, join_name, split_name
from lamella.errors import EncoderError

_TRUSTED: ContextVar[frozenset[Path]] = ContextVar("lamella_trusted", default=frozenset())


@contextmanager
def trusting(*files: Path | str) -> Iterator[None]:
    """Let one's own encoders from these files be built within the block, besides those that are trusted already.

    Args:
        files: Python files, or encoders' names `FILE.py:build`; a name of another kind adds nothing.

    Raises:
        EncoderError: If a file is no Python file.

    Example:
        >>> from lamella.encoders import find_encoder
        >>> with trusting("mine.py"):  # doctest: +SKIP
        ...     card = find_encoder("mine.py:build")
    """
    token = _TRUSTED.set(_TRUSTED.get())
    try:
        trust(*files)
        yield
    finally:
        _TRUSTED.reset(token)


def trust(*files: Path | str) -> None:
    """Trust files until the surrounding `trusting` block ends; the command line calls it with what the user typed.

    Args:
        files: As for `trusting`.

    Raises:
        EncoderError: If a file is no Python file.
    """
    named = set()
    for file in files:
        path = Path(_file_of(str(file))) if is_own(split_name(str(file))[0]) else Path(file)
        if isinstance(file, str) and path.suffix != ".py":
            continue  # an encoder of another kind runs no code of the user's
        if path.suffix != ".py":
            raise EncoderError(f"'{path}' is not a Python file. Name the file of your encoder, such as mine.py.")
        named.add(_resolve(path))
    _TRUSTED.set(_TRUSTED.get() | named)


def refuse_untrusted(name: str) -> None:
    """Refuse to run the code of an encoder that the user did not name.

    Raises:
        EncoderError: If its file is not trusted.
    """
    path = Path(_file_of(name))
    if _resolve(path) not in _TRUSTED.get():
        raise _refusal(path.name)


def find_trusted(name: str) -> str:
    """Return an encoder that a record names, built from the trusted file of that name; others as they are.

    Where the record says that the file lies is not looked at: that may be a folder that was passed on.

    Raises:
        EncoderError: If the user trusts no file of that name.
    """
    whole, depth = split_name(name)
    if not is_own(whole):
        return name
    file, _, function = whole.rpartition(":")
    base = file.replace("\\", "/").rpartition("/")[2]
    same = sorted(path for path in _TRUSTED.get() if path.name == base)
    if not same:
        raise _refusal(base)
    if len(same) > 1:
        raise EncoderError(
            f"two trusted files are called '{base}' ('{same[0]}', '{same[1]}'). Pass --trust for one of them."
        )
    return join_name(f"{same[0]}:{function}", depth)


def _refusal(base: str) -> EncoderError:
    return EncoderError(
        f"encoder '{base}' is Python code, and code that a record names is never run by itself. If you trust your copy "
        f"of that file, pass --trust {shlex.quote('PATH/' + base)} (in Python: lamella.trusting)."
    )


def _file_of(name: str) -> str:
    return split_name(name)[0].rpartition(":")[0]


def _resolve(path: Path) -> Path:
    return path.expanduser().resolve()
