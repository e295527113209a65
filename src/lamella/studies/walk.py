"""Walking a work list: one item after the other, each marked when it is finished."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from lamella.errors import LamellaError, LeakageError, OutputError
from lamella.studies.marks import save_mark
from lamella.studies.work import COST, EXTRACT, FINETUNE, Engine, WorkItem


@dataclass(frozen=True, slots=True, kw_only=True)
class Unfinished:
    """Why an item of a walk was not done.

    Attributes:
        reason: In words.
        is_failure: Whether it was tried.
    """

    reason: str
    is_failure: bool


def walk(
    items: Iterable[WorkItem], engine: Engine, folder: Path, *, is_over: Callable[[], bool], tell: Callable[[], object]
) -> dict[str, Unfinished]:
    """Do items in their order; those whose forerunners were not finished are left.

    Args:
        items: In an order in which each comes after those that it takes up.
        engine: What does them.
        folder: Where marks are kept.
        is_over: Says whether the budget is spent; then nothing begins any more but what all arms share.
        tell: Called when an item is finished.

    Returns:
        Why what was not done was not, by key.

    Raises:
        LamellaError: What any item raises, but for fine-tuning that cannot be done: its arm is left.
    """
    unfinished: dict[str, Unfinished] = {}
    for item in items:
        earlier = next((unfinished[key] for key in item.after if key in unfinished), None)
        if earlier is not None:
            unfinished[item.key] = earlier
            continue
        if item.kind not in (EXTRACT, COST) and is_over():
            unfinished[item.key] = Unfinished(reason="the budget was spent before it began", is_failure=False)
            continue
        began = time.monotonic()
        try:
            failures = item.run(engine)
        except (OutputError, LeakageError):
            raise
        except LamellaError as error:
            if item.kind != FINETUNE:
                raise
            unfinished[item.key] = Unfinished(reason=str(error), is_failure=True)
            continue
        for mark in item.makes:
            save_mark(folder, mark, seconds=(time.monotonic() - began) / len(item.makes), failures=failures)
        tell()
    return unfinished
