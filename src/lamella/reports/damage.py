"""Records that a page is made from may have been written by anyone: what does not hang together is refused."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import jinja2

from lamella.errors import LamellaError, ModelError

_ODD = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError, jinja2.TemplateError)


@contextmanager
def refusing_damage(folder: Path, remedy: str) -> Iterator[None]:
    """Refuse a folder whose records hold values that no run or study writes.

    Args:
        folder: The folder, for the error.
        remedy: What writes the records again.

    Raises:
        ModelError: Naming the folder.
    """
    try:
        yield
    except LamellaError:
        raise
    except _ODD as error:
        said = " ".join(str(error).split())[:120]
        raise ModelError(
            f"a record in '{folder}' holds a value that cannot be ({type(error).__name__}: {said}). {remedy}"
        ) from error
