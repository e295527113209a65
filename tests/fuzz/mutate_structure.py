"""Mutations that leave a file well formed: a value, a tag, a cell or an object of it is changed, and nothing else."""

import csv
import io
import json
import re
import struct
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import yaml

ODD_VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 0.5, 1e308, -1e308, float("nan"), float("inf"), 10**30, "", "x", "x" * 5000, "\0"),
    *([], {}, [None], {"a": {"b": []}}, [[[[1]]]], "1", "nan", "\ud800", "../../outside", "/dev/zero", ["x"] * 3),
    *(2**31, 2**53 + 1, "a\nb", "=1+1", "\u202e", 1e-320),
)
ODD_CELLS = (
    *(
        "",
        " ",
        "nan",
        "NA",
        "-1",
        "1e308",
        "1e-320",
        "inf",
        "9" * 400,
        "0x10",
        "1,5",
        '"',
        "a\nb",
        "=cmd|' /C calc'!A0",
    ),
    *(
        "../../outside",
        "/dev/zero",
        "\ud800",
        "\u202e",
        "\0",
        "x" * 200_000,
        "true",
        "S-1.tif",
        "P-1",
        "malignant",
        "1_0",
    ),
)
ODD_NUMBERS = (0, 1, 2, 3, 7, 255, 256, 65535, 65536, 1 << 20, 0x7FFFFFFF, 0xFFFFFFFF, 1 << 40, (1 << 63) - 1)
Structured = tuple[str, bytes]


def find_structure(path: Path, content: bytes) -> str | None:
    """Tell which of `STRUCTURES` a file has; None where it has none."""
    if content[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return "TIFF"
    if content[:8] == b"\x89HDF\r\n\x1a\n":
        return "HDF5"
    if content[:4] == b"PK\3\4":
        return "archive"
    if path.suffix == ".safetensors":
        return "safetensors"
    by_suffix = {".csv": "table", ".tsv": "table", ".xml": "XML", ".yaml": "YAML", ".json": "JSON", ".geojson": "JSON"}
    if path.name in (".zattrs", ".zarray", ".zgroup"):
        return "JSON"
    return by_suffix.get(path.suffix)


def _pick(rng: np.random.Generator, choices: Any) -> Any:
    return choices[int(rng.integers(len(choices)))]


def _change_tree(tree: Any, rng: np.random.Generator) -> tuple[str, Any]:
    """Replace one value, however deep, by an odd one, or drop or move it."""
    holder: Any = {"": tree}
    places: list[tuple[Any, Any]] = []
    waiting: list[tuple[Any, Any]] = [(holder, "")]
    while waiting:
        holder_, key_ = waiting.pop()
        places.append((holder_, key_))
        value = holder_[key_]
        if isinstance(value, dict):
            waiting += [(value, name) for name in value]
        elif isinstance(value, list):
            waiting += [(value, i) for i in range(min(len(value), 40))]
    (holder_, key_), (other, other_key) = _pick(rng, places), _pick(rng, places)
    how = rng.random()
    if how < 0.2 and isinstance(holder_, dict) and key_ != "":
        del holder_[key_]
        return "value dropped", holder[""]
    if how < 0.3:
        holder_[key_] = json.loads(json.dumps(other[other_key], default=str))
        return "value of elsewhere", holder[""]
    if how < 0.36 and isinstance(holder_, list):
        holder_ += holder_ * int(rng.integers(1, 4))
        return "list repeated", holder[""]
    holder_[key_] = _pick(rng, ODD_VALUES)
    return "odd value", holder[""]


def _change_json(content: bytes, rng: np.random.Generator) -> Structured:
    """Change a value of JSON, or repeat a key with another value."""
    name, tree = _change_tree(json.loads(content), rng)
    text = json.dumps(tree)
    if rng.random() < 0.1:
        keys = list(re.finditer(r'[{,] ?("[^"\\]*"):', text))
        if keys:
            key = _pick(rng, keys)
            text = f"{text[: key.start() + 1]}{key[1]}: {json.dumps(_pick(rng, ODD_VALUES))},{text[key.start() + 1 :]}"
            name = "key repeated"
    return name, text.encode("utf-8", "surrogatepass")


def _change_yaml(content: bytes, rng: np.random.Generator) -> Structured:
    name, tree = _change_tree(yaml.safe_load(content), rng)
    return name, yaml.safe_dump(tree, allow_unicode=False).encode("utf-8", "surrogatepass")


def _change_table(content: bytes, rng: np.random.Generator) -> Structured:
    """Change one cell, column or row of a table."""
    text = content.decode("utf-8", "replace")
    separator = "\t" if "\t" in text.partition("\n")[0] else ","
    rows = list(csv.reader(io.StringIO(text), delimiter=separator)) or [[""]]
    row, column = int(rng.integers(len(rows))), int(rng.integers(max(1, len(rows[0]))))
    name = str(
        rng.choice(["cell", "cell", "cell", "head", "column dropped", "column repeated", "rows repeated", "long"])
    )
    if name in ("cell", "head"):
        line = rows[0 if name == "head" else row]
        if line:
            line[min(column, len(line) - 1)] = _pick(rng, ODD_CELLS)
    elif name == "column dropped":
        rows = [line[:column] + line[column + 1 :] for line in rows]
    elif name == "column repeated":
        rows = [line + line[column : column + 1] for line in rows]
    elif name == "rows repeated":
        rows = rows + rows[1:] * int(rng.choice([1, 3, 300]))
    else:
        rows[row] += ["1"] * int(rng.choice([1, 50, 20_000]))
    out = io.StringIO()
    csv.writer(out, delimiter=separator, lineterminator="\n").writerows(rows)
    return f"table: {name}", out.getvalue().encode("utf-8", "surrogatepass")


_ENTITIES = '<!DOCTYPE a [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;"><!ENTITY c SYSTEM "file:///dev/zero">]>'


def _change_xml(content: bytes, rng: np.random.Generator) -> Structured:
    """Change an attribute or an element of XML."""
    text = content.decode("utf-8", "replace")
    attributes, elements = list(re.finditer(r'"[^"]*"', text)), list(re.finditer(r"<\w[^>]*>", text))
    name = str(rng.choice(["attribute", "attribute", "element repeated", "element renamed", "entities", "coding"]))
    if name == "attribute" and attributes:
        found = _pick(rng, attributes)
        odd = str(_pick(rng, ODD_CELLS)).replace('"', "").replace("<", "")
        text = f'{text[: found.start()]}"{odd}"{text[found.end() :]}'
    elif name == "element repeated" and elements:
        found = _pick(rng, elements)
        text = text[: found.end()] + found[0] * int(rng.choice([1, 2000])) + text[found.end() :]
    elif name == "element renamed" and elements:
        word = re.match(r"<(\w+)", _pick(rng, elements)[0])
        text = text.replace(word[1] if word else "x", "Other")
    elif name == "entities":
        text = re.sub(r"(<\?xml[^>]*\?>)?", lambda found: found[0] + _ENTITIES, text, count=1).replace(
            "tumor", "&c;&b;"
        )
    else:
        coding = str(rng.choice(["utf-16", "latin-1", "utf-7", "no-such"]))
        text = re.sub(r"<\?xml[^>]*\?>", f'<?xml version="1.0" encoding="{coding}"?>', text)
    return f"XML: {name}", text.encode("utf-8", "surrogatepass")


_TAGS = (254, 256, 257, 259, 262, 274, 277, 284, 317, 320, 322, 324, 330, 338, 347, 65000)
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}


@dataclass(frozen=True, slots=True)
class _Tiff:
    """Where the directories of a TIFF lie, and their entries."""

    content: bytes
    order: str
    word: str  # of offsets and counts
    entries: list[int]
    links: list[int]
    directories: list[int]

    def get(self, kind: str, at: int) -> int:
        return int(struct.unpack_from(self.order + kind, self.content, at)[0])

    def put(self, kind: str, at: int, number: int) -> bytes:
        changed, n_bytes = bytearray(self.content), struct.calcsize(kind)
        if 0 <= at <= len(changed) - n_bytes:
            struct.pack_into(self.order + kind, changed, at, number & ((1 << 8 * n_bytes) - 1))
        return bytes(changed)


def _walk_tiff(content: bytes) -> _Tiff:
    is_big = 43 in content[2:4]
    size, many, word, head = (20, "Q", "Q", 8) if is_big else (12, "H", "I", 4)
    tiff = _Tiff(content, "<" if content[:2] == b"II" else ">", word, [], [head], [])
    at = tiff.get(word, head)
    while at and at not in tiff.directories:
        tiff.directories.append(at)
        first, count = at + struct.calcsize(many), tiff.get(many, at)
        tiff.entries.extend(first + size * i for i in range(count))
        tiff.links.append(first + size * count)
        at = tiff.get(word, tiff.links[-1])
    return tiff


def _change_tiff(content: bytes, rng: np.random.Generator) -> Structured:
    """Change a tag's number, type, count or value, or where the next directory lies."""
    tiff = _walk_tiff(content)
    word, end = tiff.word, len(content)
    if rng.random() < 0.15:
        target = int(_pick(rng, [0, 1, 8, *tiff.directories, end - 2, end + 10, 1 << 31]))
        return "TIFF: link", tiff.put(word, _pick(rng, tiff.links), target)
    entry = _pick(rng, tiff.entries)
    what = str(rng.choice(["tag", "type", "count", "value", "value", "value"]))
    if what == "tag":
        return "TIFF: tag", tiff.put("H", entry, int(_pick(rng, _TAGS)))
    if what == "type":
        return "TIFF: type", tiff.put("H", entry + 2, int(rng.integers(0, 20)))
    if what == "count":
        return "TIFF: count", tiff.put(word, entry + 4, int(_pick(rng, ODD_NUMBERS)))
    size, count = _SIZES.get(tiff.get("H", entry + 2), 1), tiff.get(word, entry + 4)
    place = entry + 4 + struct.calcsize(word)
    if size * count > struct.calcsize(word) and rng.random() < 0.7:
        place = tiff.get(word, place) + size * int(rng.integers(min(count, 1 << 20)))
    number = int(_pick(rng, [*ODD_NUMBERS, *tiff.directories, end - 1]))
    return "TIFF: value", tiff.put({1: "B", 2: "H", 4: "I", 8: "Q"}[size], place, number)


def _change_archive(content: bytes, rng: np.random.Generator) -> Structured:
    """Change one member of a ZIP archive, whose checksum is made anew, or drop, repeat or rename it."""
    from tests.fuzz.mutate import BYTE_CHANGES

    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = [(info, archive.read(info)) for info in archive.infolist()]
    at = int(rng.integers(len(members)))
    name = str(rng.choice(["changed", "changed", "changed", "dropped", "repeated", "renamed", "large"]))
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for place, (info, inner) in enumerate(members):
            file, kept = info.filename, inner
            if place == at and name == "dropped":
                continue
            if place == at and name == "changed":
                kept = BYTE_CHANGES[str(rng.choice(list(BYTE_CHANGES)))](inner, rng)
            if place == at and name == "renamed":
                file = str(_pick(rng, ["../x", "/x", "x", file + "\0", members[0][0].filename]))
            packing = zipfile.ZIP_STORED
            if place == at and name == "large":
                kept, packing = inner + bytes(1 << 26), zipfile.ZIP_DEFLATED
            for _ in range(2 if place == at and name == "repeated" else 1):
                archive.writestr(zipfile.ZipInfo(file), kept, packing)
    return f"archive: member {name}", out.getvalue()


def _change_safetensors(content: bytes, rng: np.random.Generator) -> Structured:
    """Change a value of the header, whose length is made to fit."""
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    own = header.get("__metadata__", {}).get("lamella")
    if own is not None and rng.random() < 0.6:
        name, inner = _change_tree(json.loads(own), rng)
        header["__metadata__"]["lamella"] = json.dumps(inner)
    else:
        name, header = _change_tree(header, rng)
    text = json.dumps(header).encode("utf-8", "surrogatepass")
    return f"safetensors: {name}", struct.pack("<Q", len(text)) + text + content[8 + length :]


def _change_h5(content: bytes, rng: np.random.Generator) -> Structured:
    """Change one attribute or dataset of an HDF5 file, leaving its structure whole."""
    copy = io.BytesIO(content)
    with h5py.File(copy, "r+") as file:
        datasets = [name for name in file if isinstance(file[name], h5py.Dataset)]
        things = [(thing, name) for thing in (file, *(file[name] for name in file)) for name in thing.attrs]
        if things and (not datasets or rng.random() < 0.5):
            thing, name = _pick(rng, things)
            odd = (
                *("", "None", "x", -1, 0, 1e308, float("nan"), np.zeros(3), np.zeros(0), h5py.Empty("f8")),
                *(
                    b"\xff",
                    2**62,
                    [1, 2],
                    True,
                    "{",
                    "[" * 3000,
                    np.array(["a", "b"], dtype="S1"),
                    file.ref,
                    "x" * 60_000,
                ),
            )
            del thing.attrs[name]
            if rng.random() < 0.8:
                thing.attrs[name] = _pick(rng, odd)
            what = "attribute"
        elif datasets:
            what = _change_dataset(file, _pick(rng, datasets), rng)
        else:
            file["new"] = 1.0
            what = "new object"
    return f"HDF5: {what}", copy.getvalue()


def _change_dataset(file: h5py.File, name: str, rng: np.random.Generator) -> str:
    values = np.asarray(file[name][()])
    attributes = dict(file[name].attrs)
    del file[name]
    what = str(rng.choice(["values", "values", "values", "link", "claim", "group", "one value"]))
    if what == "link":
        links = [h5py.SoftLink(f"/{name}"), h5py.SoftLink("/absent"), h5py.ExternalLink("/dev/zero", "/x")]
        file[name] = _pick(rng, links)
        return what
    if what == "claim":
        shape = _pick(rng, [(1 << 40, 12), (1 << 20, 1 << 20), (200_000_000, 2), (3,) * 20])
        file.create_dataset(name, shape=shape, dtype=values.dtype, chunks=(1,) * len(shape), compression="gzip")
    elif what == "group":
        file.create_group(name).create_group("inner")
    elif what == "one value" and values.size:
        values = values.copy()
        values.reshape(-1)[int(rng.integers(values.size))] = _pick(rng, [0, 1, 127, 3])
        file[name] = values
    else:
        values = values if values.dtype.kind in "biufc" else np.arange(max(1, values.size))  # of texts there is no sum
        compound = np.zeros(3, dtype=[("x", "i4"), ("y", "f8")])
        odd: tuple[Any, ...] = (
            *(values[:1], values[:0], values[..., None], values[::-1].copy(), values.astype("S8"), compound),
            *(np.full(3, np.nan), values.astype(np.complex64), "text", -np.abs(values.astype(float)), np.float32(3)),
            *(values.astype(float) * 1e300, values.astype(">f8"), values.astype(bool), h5py.Empty("f4")),
        )
        file[name] = _pick(rng, odd)
    if isinstance(file[name], h5py.Dataset):
        file[name].attrs.update(attributes)
    return what


STRUCTURES: dict[str, Callable[[bytes, np.random.Generator], Structured]] = {
    "JSON": _change_json,
    "YAML": _change_yaml,
    "table": _change_table,
    "XML": _change_xml,
    "TIFF": _change_tiff,
    "archive": _change_archive,
    "safetensors": _change_safetensors,
    "HDF5": _change_h5,
}
