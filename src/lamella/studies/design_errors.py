"""Mistakes in a declared file: on which line they are, what is wrong there, and what to write instead."""

import difflib
import textwrap
import typing
from collections.abc import Mapping, Sequence
from typing import Any, get_args

import yaml
from pydantic import BaseModel

Place = Sequence[str | int]

_PLAIN = {
    "a valid integer": "a whole number",
    "a valid number": "a number",
    "a valid string": "text",
    "a valid boolean": "true or false",
    "a valid tuple": "a list",
    "a valid dictionary or instance of": "keys with values, as of",
    "a valid dictionary": "keys with values",
}


def find_line(node: yaml.Node | None, place: Place) -> int | None:
    """Return the line, from 1, of what a place in the data names; of its nearest parent where it is not there."""
    line = None
    for part in place:
        if isinstance(node, yaml.MappingNode):
            pair = next((pair for pair in node.value if pair[0].value == str(part)), None)
            if pair is None:
                break
            line, node = pair[0].start_mark.line + 1, pair[1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            line = node.start_mark.line + 1
        else:
            break
    return line


def find_twice(node: yaml.Node | None) -> tuple[str, int] | None:
    """Return a key that a mapping holds twice, and the line of the second: YAML would take it without a word."""
    if isinstance(node, yaml.MappingNode):
        seen = set()
        for key, value in node.value:
            if key.value in seen:
                return str(key.value), key.start_mark.line + 1
            seen.add(key.value)
            found = find_twice(value)
            if found is not None:
                return found
    if isinstance(node, yaml.SequenceNode):
        return next((found for one in node.value if (found := find_twice(one)) is not None), None)
    return None


def say_mistake(model: type[BaseModel], error: Mapping[str, Any]) -> tuple[list[str | int], str]:
    """Return the place of one of pydantic's errors, and what to say of it.

    Args:
        model: What the whole file is.
        error: As `ValidationError.errors` lists it.
    """
    place = [part for part in error["loc"] if not str(part).startswith("function-") and part != "[key]"]
    name = ".".join(map(str, place))
    if error["type"] == "extra_forbidden":
        nearest = difflib.get_close_matches(str(place[-1]), _keys_at(model, place[:-1]), n=1, cutoff=0.0)
        return place, f"'{name}' is no key of a study. The nearest is '{nearest[0]}'."
    if error["type"] == "missing":
        return place, f"'{name}' is missing. Add it."
    said, given = str(error["msg"]), textwrap.shorten(repr(error["input"]), 60)
    if said.startswith("Value error, "):
        return place, f"{said.removeprefix('Value error, ').rstrip('.')}."
    if error["type"] == "literal_error":
        known = [one.strip(" '") for one in str(error["ctx"]["expected"]).replace(" or ", ", ").split(", ")]
        return place, f"{name} is {given}. {say_nearest(str(error['input']), known)}"
    must = said.replace("Input should", "and should").split(", unable")[0]
    for theirs, ours in _PLAIN.items():
        must = must.replace(theirs, ours)
    return place, f"{name} is {given} {must.rstrip('.')}. Leave it out for the default."


def say_nearest(name: str, known: Sequence[str]) -> str:
    """Return a sentence with the nearest of the names there are, and all of them where they are few."""
    nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.0)
    listed = f"; there are {', '.join(known)}" if 1 < len(known) <= 8 else ""
    return f"The nearest is '{nearest[0]}'{listed}." if nearest else "There are none."


def _keys_at(model: type[BaseModel], place: Place) -> list[str]:
    """Return the keys that the part of a design at a place knows."""
    kind: Any = model
    for part in place:
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            kind = kind.model_fields[str(part)].annotation
        else:
            kind = get_args(kind)[-1] if typing.get_origin(kind) is dict else get_args(kind)[0]
    return sorted(kind.model_fields) if isinstance(kind, type) and issubclass(kind, BaseModel) else []
