"""Cells of tables that a spreadsheet would run as a formula: told, escaped when written, read back as they were.

A cell that begins with `=`, `+`, `-`, `@`, a tab or a carriage return is a formula to Excel and LibreOffice, and a
formula may start programs. Numbers, and the signs that stand for a result (`+`, `-`, `3+`, `+ve`), are none.
"""

import re

Cell = str | int | float | None
_FORMULA = re.compile(r"[=@\t\r]|[+-](?![+-]{0,3}$|ve$)", re.IGNORECASE)
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?%?|[+-]?(?:nan|inf|infinity)", re.IGNORECASE)


def is_formula(cell: str) -> bool:
    r"""True where a spreadsheet would run a cell.

    Example:
        >>> [is_formula(cell) for cell in ("=1+1", "@SUM(A1)", "-2+3", "\tx", "-neg")]
        [True, True, True, True, True]
        >>> [is_formula(cell) for cell in ("-1", "+", "-", "3+", "--", "+ve", "-1e-3", "S-1", "")]
        [False, False, False, False, False, False, False, False, False]
    """
    return _FORMULA.match(cell) is not None and _NUMBER.fullmatch(cell) is None


def escape_cell(cell: str) -> str:
    """Return a cell as it is written: what would be a formula gets an apostrophe in front, which makes it text.

    Example:
        >>> escape_cell("=1+1"), escape_cell("'=1+1"), escape_cell("-1"), escape_cell("'tis")
        ("'=1+1", "''=1+1", '-1', "'tis")
    """
    return f"'{cell}" if is_formula(cell.lstrip("'")) else cell


def unescape_cell(cell: str) -> str:
    """Return a cell as it was before `escape_cell`.

    Example:
        >>> unescape_cell("'=1+1"), unescape_cell("''=1+1"), unescape_cell("-1"), unescape_cell("'tis")
        ('=1+1', "'=1+1", '-1', "'tis")
    """
    return cell[1:] if cell.startswith("'") and is_formula(cell.lstrip("'")) else cell
