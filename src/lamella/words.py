"""Names and times in words, as messages say them."""


def name_some(names: list[str] | tuple[str, ...], most: int = 5) -> str:
    """Return names for a message: quoted, the first few of them, with the number left out.

    Example:
        >>> name_some(["b", "a", "c"], most=2)
        "'b', 'a' and 1 more"
    """
    quoted = ", ".join(f"'{name}'" for name in names[:most])
    return quoted if len(names) <= most else f"{quoted} and {len(names) - most} more"


def say_time(seconds: float) -> str:
    """Return a time for people.

    Example:
        >>> say_time(4.2), say_time(300), say_time(9000)
        ('4 s', '5.0 min', '2.5 h')
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
