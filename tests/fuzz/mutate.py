"""Mutations of files, by kind of content; the same seed makes the same mutant."""

import re
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tests.fuzz.mutate_structure import STRUCTURES, find_structure

INTEGERS = (0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 1 << 40, (1 << 63) - 1)
NUMBER = re.compile(rb"-?\d+(?:\.\d+)?")
TEXT = {".json", ".geojson", ".yaml", ".csv", ".tsv", ".xml", ".ini", ".txt", ".zattrs", ".zgroup", ".zarray"}

Change = Callable[[bytes, np.random.Generator], bytes]


def mutate_file(path: Path, seed: int) -> str:
    """Replace a file by its mutant of this seed; return the name of the mutation."""
    rng = np.random.default_rng(seed)
    content = path.read_bytes()
    is_text = (path.suffix or path.name) in TEXT
    structure = find_structure(path, content)
    if structure is not None and rng.random() < 0.5:
        name, changed = STRUCTURES[structure](content, rng)
    else:
        changes = TEXT_CHANGES if is_text and rng.random() < 0.6 else BYTE_CHANGES
        name = str(rng.choice(list(changes)))
        changed = changes[name](content, rng)
    path.unlink()
    path.write_bytes(changed)
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
