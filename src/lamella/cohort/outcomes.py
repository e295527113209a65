"""What labels are: classes, and not measurements, survival times or steps of a scale."""

import re
from collections.abc import Sequence

from lamella.cohort.spelling import find_look
from lamella.errors import CohortError

_MOST_NUMBERS = 10
_LEAST_UNIQUE = 6  # fewer distinct numbers than this may well be classes of a small cohort
_TIMES = ("time", "days", "months", "years", "survival", "os", "pfs", "dfs", "rfs", "efs", "dss", "followup", "follow")
_EVENTS = ("event", "status", "censor", "censored", "dead", "death", "vital")
_NUMBER = re.compile(r"[+-]?(\d+([.,]\d*)?|[.,]\d+)([eE][+-]?\d+)?")
_STEPS = re.compile(r"(?P<stem>(?:[a-z]+?[ _-]?)??)(?P<step>\d|i{1,3}|iv|v)(?P<end>[+abc]?)", re.IGNORECASE)
_SCALES = (
    ("negative", "low", "intermediate", "medium", "moderate", "high", "very high"),
    ("none", "no", "absent", "normal", "minimal", "mild", "moderate", "severe"),
    ("well", "moderate", "moderately", "poor", "poorly", "undifferentiated"),
)


def refuse_measurements(labels: Sequence[str], *, whose: str, column: str, columns: Sequence[str]) -> None:
    """Refuse numbers of many values, which are an amount to be predicted and not classes.

    Args:
        labels: One a slide.
        whose: The table, as in "cohort 'slides.csv'".
        column: Name of the labels' column.
        columns: Names of all columns: an event beside a time is survival.

    Raises:
        CohortError: If there are more than 10 different numbers, or more than 5 of which most occur once.
    """
    distinct = sorted(set(labels))
    if not distinct or not all(_NUMBER.fullmatch(label) for label in distinct):
        return
    n_once = sum(labels.count(label) == 1 for label in distinct)
    if len(distinct) <= _MOST_NUMBERS and not (len(distinct) >= _LEAST_UNIQUE and 2 * n_once > len(distinct)):
        return
    words = set(re.split(r"[^a-z]+", find_look(column)))
    events = [name for name in columns if set(re.split(r"[^a-z]+", find_look(name))) & set(_EVENTS)]
    survival = bool(words & set(_TIMES)) or (bool(events) and column not in events)
    kind = "survival times" if survival else "measurements"
    example = "alive or dead after 5 years" if survival else "low and high, cut at a value fixed beforehand"
    more = " Leave out patients who were followed for less than that." if survival else ""
    raise CohortError(
        f"{whose}: column '{column}' has {len(distinct)} different numbers in {len(labels)} slides, so it holds {kind} "
        f"and not classes; regression and survival are not supported yet. Write classes into a column of their own, "
        f"such as {example}, and name it with --label-col.{more}"
    )


def list_label_notes(classes: Sequence[str]) -> list[str]:
    """List what must be said of the classes: that an order is not used.

    Example:
        >>> list_label_notes(["benign", "malignant"]), list_label_notes(["a", "b", "c"])
        ([], [])
        >>> list_label_notes(["0", "1+", "2+", "3+"])[0][:48]
        "The labels '0', '1+', '2+', '3+' look ordered; t"
    """
    if len(classes) < 3 or not is_ordered(classes):
        return []
    named = ", ".join(f"'{name}'" for name in classes)
    return [
        f"The labels {named} look ordered; their order is not used: they are treated as {len(classes)} classes without "
        "an order, and a near miss counts as much as a far one."
    ]


def is_ordered(classes: Sequence[str]) -> bool:
    """Whether three or more classes are steps of a scale, as far as their names tell.

    Example:
        >>> is_ordered(["G1", "G2", "G3"]), is_ordered(["stage I", "stage II", "stage IV"])
        (True, True)
        >>> is_ordered(["high", "low", "medium"]), is_ordered(["lung", "colon", "breast"])
        (True, False)
    """
    looks = [find_look(name) for name in classes]
    steps = [_STEPS.fullmatch(look) for look in looks]
    if all(steps) and len({step["stem"] for step in steps if step and step["stem"]}) <= 1:
        return True
    cleaned = [re.sub(r"[ _-]?(grade|risk|differentiated|stage)$|^(grade|risk)[ _-]?", "", look) for look in looks]
    return any(set(cleaned) <= set(scale) for scale in _SCALES)
