"""Mutations of files, by kind of content; the same seed makes the same mutant."""

import io
import json
import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import yaml

INTEGERS = (0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 1 << 40, (1 << 63) - 1)
ODD_VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 0.5, 1e308, -1e308, float("nan"), float("inf"), 10**30, "", "x", "x" * 5000, "\0"),
    *([], {}, [None], {"a": {"b": []}}, [[[[1]]]], "1", "nan", "\ud800", "../../outside", "/dev/zero", ["x"] * 3),
)
NUMBER = re.compile(rb"-?\d+(?:\.\d+)?")
STRUCTURED = {".json", ".geojson", ".yaml"}
H5 = {".h5"}
TEXT = {*STRUCTURED, ".csv", ".tsv", ".xml"}

Change = Callable[[bytes, np.random.Generator], bytes]


def mutate_file(path: Path, seed: int) -> str:
    """Replace a file by its mutant of this seed; return the name of the mutation."""
    rng = np.random.default_rng(seed)
    content = path.read_bytes()
    if path.suffix in STRUCTURED and rng.random() < 0.5:
        path.write_bytes(_change_value(content, rng, path.suffix))
        return "value"
    if path.suffix in H5 and rng.random() < 0.25:
        path.write_bytes(_change_h5(content, rng))
        return "HDF5 object"
    changes = TEXT_CHANGES if path.suffix in TEXT and rng.random() < 0.6 else BYTE_CHANGES
    name = str(rng.choice(list(changes)))
    path.write_bytes(changes[name](content, rng))
    return name


def _at(content: bytes, rng: np.random.Generator) -> int:
    """Choose a place: every other time near the beginning or the end, where formats keep their structure."""
    where, n = rng.random(), max(len(content), 1)
    if where < 0.3:
        return int(rng.integers(min(n, 2048)))
    if where < 0.5:
        return n - 1 - int(rng.integers(min(n, 2048)))
    return int(rng.integers(n))


def _flip(content: bytes, rng: np.random.Generator) -> bytes:
    changed = bytearray(content or b"\0")
    for _ in range(int(rng.integers(1, 6))):
        changed[_at(content, rng)] ^= 1 << int(rng.integers(8))
    return bytes(changed)


def _put_integer(content: bytes, rng: np.random.Generator) -> bytes:
    size = int(rng.choice([1, 2, 4, 8]))
    number = INTEGERS[int(rng.integers(len(INTEGERS)))] & ((1 << (8 * size)) - 1)
    packed = struct.pack(("<" if rng.random() < 0.5 else ">") + {1: "B", 2: "H", 4: "I", 8: "Q"}[size], number)
    at = _at(content, rng)
    return content[:at] + packed + content[at + size :]


def _truncate(content: bytes, rng: np.random.Generator) -> bytes:
    return content[: _at(content, rng)]


def _zero(content: bytes, rng: np.random.Generator) -> bytes:
    at, n = _at(content, rng), int(rng.integers(1, 600))
    return content[:at] + bytes(min(n, len(content) - at)) + content[at + n :]


def _cut_out(content: bytes, rng: np.random.Generator) -> bytes:
    at = _at(content, rng)
    return content[:at] + content[at + int(rng.integers(1, 200)) :]


def _insert(content: bytes, rng: np.random.Generator) -> bytes:
    at = _at(content, rng)
    return content[:at] + rng.bytes(int(rng.integers(1, 200))) + content[at:]


def _copy_block(content: bytes, rng: np.random.Generator) -> bytes:
    source, target, n = _at(content, rng), _at(content, rng), int(rng.integers(1, 400))
    return content[:target] + content[source : source + n] + content[target + n :]


def _append(content: bytes, rng: np.random.Generator) -> bytes:
    return content + rng.bytes(int(rng.integers(1, 2000)))


def _drop_line(content: bytes, rng: np.random.Generator) -> bytes:
    lines = content.splitlines(keepends=True) or [b""]
    dropped = int(rng.integers(len(lines)))
    return b"".join(line for i, line in enumerate(lines) if i != dropped)


def _repeat_line(content: bytes, rng: np.random.Generator) -> bytes:
    lines = content.splitlines(keepends=True) or [b""]
    at = int(rng.integers(len(lines)))
    return b"".join([*lines[: at + 1], lines[at], *lines[at + 1 :]])


def _change_number(content: bytes, rng: np.random.Generator) -> bytes:
    numbers = list(NUMBER.finditer(content))
    if not numbers:
        return content + b"7"
    number = numbers[int(rng.integers(len(numbers)))]
    odd = (b"NaN", b"Infinity", b"-1", b"1e400", b"1" * 400, b"", b"null", b"0x10", b"1,5", b"1e-320", b'"', b"1_000")
    return content[: number.start()] + odd[int(rng.integers(len(odd)))] + content[number.end() :]


def _drop_mark(content: bytes, rng: np.random.Generator) -> bytes:
    marks = [i for i, byte in enumerate(content) if byte in b"\"'{}[]<>,;:&=\n"]
    if not marks:
        return content
    at = marks[int(rng.integers(len(marks)))]
    return content[:at] + content[at + 1 :]


def _nest(content: bytes, rng: np.random.Generator) -> bytes:
    opening = (b"[", b'{"a":', b"<a>", b"- ", b"[{")[int(rng.integers(5))]
    at = _at(content, rng)
    return content[:at] + opening * int(rng.choice([20, 3000, 60_000])) + content[at:]


def _encode(content: bytes, rng: np.random.Generator) -> bytes:
    text = content.decode("utf-8", "replace")
    coding = str(rng.choice(["utf-8-sig", "utf-16", "utf-16-le", "utf-32", "cp500"]))
    return text.encode(coding, "replace")


def _put_bytes(content: bytes, rng: np.random.Generator) -> bytes:
    odd = (
        *(b"\0", b"\xff\xfe", b"\xc3", b"\r", b"\xed\xa0\x80", b"\\ud800"),
        *(b"&lol;", b"*a", b"&a", b"!!python/name:os.system "),
    )
    at = _at(content, rng)
    return content[:at] + odd[int(rng.integers(len(odd)))] + content[at:]


BYTE_CHANGES: dict[str, Change] = {
    "flip": _flip,
    "integer": _put_integer,
    "truncate": _truncate,
    "zero": _zero,
    "cut out": _cut_out,
    "insert": _insert,
    "copy block": _copy_block,
    "append": _append,
}
TEXT_CHANGES: dict[str, Change] = {
    "drop line": _drop_line,
    "repeat line": _repeat_line,
    "number": _change_number,
    "drop mark": _drop_mark,
    "nest": _nest,
    "encode": _encode,
    "bytes": _put_bytes,
}


def _change_value(content: bytes, rng: np.random.Generator, suffix: str) -> bytes:
    """Replace one value of JSON or YAML, however deep, by an odd one, or drop it."""
    tree = yaml.safe_load(content) if suffix == ".yaml" else json.loads(content)
    holder, key = {"": tree}, ""
    places: list[tuple[Any, Any]] = []
    waiting: list[tuple[Any, Any]] = [(holder, key)]
    while waiting:
        holder_, key_ = waiting.pop()
        places.append((holder_, key_))
        value = holder_[key_]
        if isinstance(value, dict):
            waiting += [(value, name) for name in value]
        elif isinstance(value, list):
            waiting += [(value, i) for i in range(min(len(value), 40))]
    holder_, key_ = places[int(rng.integers(len(places)))]
    if rng.random() < 0.25 and isinstance(holder_, dict) and key_ != "":
        del holder_[key_]
    else:
        holder_[key_] = ODD_VALUES[int(rng.integers(len(ODD_VALUES)))]
    tree = holder[""]
    text = yaml.safe_dump(tree, allow_unicode=False) if suffix == ".yaml" else json.dumps(tree)
    return text.encode("utf-8", "surrogatepass")


def _change_h5(content: bytes, rng: np.random.Generator) -> bytes:
    """Change one attribute or dataset of an HDF5 file, leaving its structure whole."""
    copy = io.BytesIO(content)
    with h5py.File(copy, "r+") as file:
        objects = [file, *(file[name] for name in file)]
        datasets = [name for name in file if isinstance(file[name], h5py.Dataset)]
        attributes = [(thing, name) for thing in objects for name in thing.attrs]
        if attributes and (not datasets or rng.random() < 0.6):
            thing, name = attributes[int(rng.integers(len(attributes)))]
            odd = (
                *("", "None", "x", -1, 0, 1e308, float("nan"), np.zeros(3)),
                *(b"\xff", 2**62, [1, 2], True, "{", "[" * 3000),
            )
            del thing.attrs[name]
            if rng.random() < 0.8:
                thing.attrs[name] = odd[int(rng.integers(len(odd)))]
        elif datasets:
            name = datasets[int(rng.integers(len(datasets)))]
            values = np.asarray(file[name][()])
            del file[name]
            odd_data: tuple[Any, ...] = (
                *(None, values[:1], values[:0], values[..., None], values[::-1].copy(), values.astype("S8")),
                *(np.full(3, np.nan), values.astype(np.complex64), "text", -np.abs(values.astype(float))),
            )
            replacement = odd_data[int(rng.integers(len(odd_data)))]
            if replacement is None:
                file.create_group(name)
            else:
                file[name] = replacement
    return copy.getvalue()
