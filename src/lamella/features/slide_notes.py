"""What must be said of how slides are read: each note once, with the slides it is true of."""

from collections.abc import Iterable, Sequence


def join_slide_notes(notes: Iterable[tuple[str, Sequence[str]]]) -> list[str]:
    """Return a sentence for each note that slides have.

    Args:
        notes: `(slide_id, its notes)`.

    Example:
        >>> join_slide_notes([("S-1", ["alpha is ignored"]), ("S-2", ["alpha is ignored"]), ("S-3", [])])
        ["slide 'S-1' (and 1 more): alpha is ignored"]
    """
    slides: dict[str, list[str]] = {}
    for slide_id, said in notes:
        for note in said:
            slides.setdefault(note, []).append(slide_id)
    return [
        f"slide '{ids[0]}'{f' (and {len(ids) - 1} more)' if len(ids) > 1 else ''}: {note}"
        for note, ids in slides.items()
    ]
