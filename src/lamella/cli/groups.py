"""Options that travel together are one frozen dataclass, whose fields are the options.

`takes_groups` spreads the fields over a verb's command line and hands the verb the filled dataclass:

    @takes_groups
    def tissue(cohort: CohortArgument, columns: ColumnOptions, talk: TalkOptions, *, seed: SeedOption = 0) -> None: ...

`--help` shows the verb's own arguments first, then the groups in the order they are named.
"""

import functools
import inspect
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from typing import Any, get_type_hints


def takes_groups(verb: Callable[..., None]) -> Callable[..., None]:
    """Return `verb` as typer wants it: each field of its dataclass parameters an option of its own.

    Example:
        >>> from lamella.cli.options import TalkOptions
        >>> @takes_groups
        ... def shout(word: str, talk: TalkOptions, n: int = 2) -> None:
        ...     print(word * n, talk.quiet)
        >>> list(inspect.signature(shout).parameters)
        ['word', 'n', 'verbose', 'quiet']
        >>> shout(word="ha", verbose=False, quiet=True, n=2)
        haha True
    """
    hints = get_type_hints(verb, include_extras=True)
    groups: dict[str, type[Any]] = {}
    of_verb: list[inspect.Parameter] = []
    shared: list[inspect.Parameter] = []
    for parameter in inspect.signature(verb).parameters.values():
        kind = hints[parameter.name]
        if is_dataclass(kind) and isinstance(kind, type):
            groups[parameter.name] = kind
            options = get_type_hints(kind, include_extras=True)
            shared.extend(
                inspect.Parameter(
                    field.name, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=options[field.name]
                )
                for field in fields(kind)
            )
        else:
            of_verb.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY, annotation=kind))

    @functools.wraps(verb)
    def command(**given: Any) -> None:
        filled = {
            name: kind(**{field.name: given.pop(field.name) for field in fields(kind)}) for name, kind in groups.items()
        }
        verb(**given, **filled)

    flat = of_verb + shared
    del command.__wrapped__  # typer would look through it, at the dataclasses
    command.__signature__ = inspect.Signature(flat)  # type: ignore[attr-defined]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in flat}
    return command
