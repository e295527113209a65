"""OME-Zarr: a slide as a folder of chunks (NGFF 0.4 in Zarr 2, NGFF 0.5 in Zarr 3), read a box at a time.

Only brightfield is taken: three channels of 8 bits, red, green and blue. The folder's metadata choose how chunks are
decoded, and one of the codecs in use elsewhere runs what it decodes, so metadata may name none but those listed here.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import JsonValue

from lamella.errors import SlideError
from lamella.files import parse_json_file
from lamella.slide.readers import Reader, refuse_damaged

_CODECS_2 = {"blosc", "zlib", "gzip", "zstd", "lz4", "bz2", "lzma", "shuffle", "delta"}
_CODECS_3 = {"bytes", "gzip", "zstd", "blosc", "crc32c", "transpose", "sharding_indexed"}
_UM = {
    "meter": 1e6,
    "centimeter": 1e4,
    "millimeter": 1e3,
    "micrometer": 1.0,
    "micron": 1.0,
    "nanometer": 1e-3,
    "angstrom": 1e-4,
    "picometer": 1e-6,
}
_MOST_CHUNK_BYTES = 1 << 29
_TRANSFORMS = "coordinateTransformations"
_RGB = ("FF0000", "00FF00", "0000FF")


def is_zarr(path: Path) -> bool:
    """Tell whether a folder is a Zarr group or array."""
    return path.is_dir() and any((path / name).is_file() for name in ("zarr.json", ".zgroup", ".zarray"))


def find_zarr_version() -> str | None:
    """Return the version of zarr-python, None where it is not installed; nothing is imported."""
    try:
        return version("zarr")
    except PackageNotFoundError:
        return None


class ZarrReader(Reader):
    """zarr-python: OME-Zarr folders; each read decodes the chunks under its box and nothing else.

    Args:
        path: The folder of an image, or what bioformats2raw writes, of which image 0 is taken.
    """

    def __init__(self, path: Path) -> None:
        try:
            import zarr
        except ImportError as error:
            raise SlideError(
                f"slide '{path.name}' is OME-Zarr and needs zarr, which is not installed. Run: pip install "
                "'lamella[zarr]'"
            ) from error
        self.name = f"zarr {zarr.__version__}"
        self._file = path.name
        image, described = _find_image(path)
        self._axes = described.axes
        self._arrays: list[Any] = []
        for level in described.paths:
            folder = image / level
            if not folder.resolve().is_relative_to(path.resolve()):
                raise SlideError(f"slide '{path.name}' names a level outside its folder. Leave that slide out.")
            _refuse_codecs(folder, path.name)
            try:
                self._arrays.append(zarr.open_array(store=str(folder), mode="r"))
            except (OSError, ValueError, TypeError, KeyError) as error:
                raise refuse_damaged(path.name, error) from error
        for array in self._arrays:
            _check_array(array, self._axes, path.name)
        _refuse_fluorescence(described.channels, path.name)
        self.format = f"ome-zarr {described.version}".strip()
        y, x = self._axes.index("y"), self._axes.index("x")
        self.level_dimensions = tuple((int(array.shape[x]), int(array.shape[y])) for array in self._arrays)
        steps = [_find_step(scales, (x, y)) for scales in described.scales]
        self.stated_mpp = _find_mpp([described.units[x], described.units[y]], steps[0])
        self.stated_scales = tuple(
            None if step is None or steps[0] is None else math.sqrt(step[0] / steps[0][0] * step[1] / steps[0][1])
            for step in steps
        )

    def read(self, corner: tuple[int, int], level: int, size: tuple[int, int]) -> NDArray[np.uint8]:
        """Read `(h, w, 3)` uint8 RGB."""
        spans = {"x": slice(corner[0], corner[0] + size[0]), "y": slice(corner[1], corner[1] + size[1])}
        picked = tuple(spans.get(axis, slice(None) if axis == "c" else 0) for axis in self._axes)
        try:
            pixels = np.asarray(self._arrays[level][picked])
        except (OSError, ValueError, RuntimeError, KeyError) as error:
            raise refuse_damaged(self._file, error) from error
        left = [axis for axis in self._axes if axis in "cyx"]
        return np.ascontiguousarray(pixels.transpose([left.index(axis) for axis in "yxc"]))

    def close(self) -> None:
        """Release the arrays."""
        self._arrays = []


@dataclass(frozen=True, slots=True, kw_only=True)
class OmeMetadata:
    """What the OME metadata of a group say of its first image.

    Attributes:
        version: Of NGFF; empty where it is not stated.
        axes: Names, in the order of the arrays, lower case.
        units: Unit of each axis, empty where it has none.
        paths: Folder of each level's array, finest first.
        scales: For each level, the `scale` of each transform that applies to it, an entry an axis.
        channels: `(label, colour)` of each channel that is described.
    """

    version: str
    axes: tuple[str, ...]
    units: tuple[str, ...]
    paths: tuple[str, ...]
    scales: tuple[tuple[JsonValue, ...], ...]
    channels: tuple[tuple[str, str], ...]


def _find_image(path: Path) -> tuple[Path, OmeMetadata]:
    """Find the folder of the image, and its OME metadata.

    Raises:
        SlideError: If there is none.
    """
    metadata = _load_attributes(path)
    if "plate" in metadata or "well" in metadata:
        raise SlideError(
            f"slide '{path.name}' is a plate of wells, and a single image is needed. Name one image in it."
        )
    if "multiscales" in metadata:
        return path, _read_metadata(metadata, path.name)
    first = path / "0"
    if is_zarr(first) and "multiscales" in (inner := _load_attributes(first)):
        return first, _read_metadata(inner, path.name)
    raise SlideError(
        f"slide '{path.name}' is Zarr without OME metadata (multiscales), which say which array is which level. "
        "Convert the slide again with bioformats2raw, or give the original."
    )


def _load_attributes(folder: Path) -> Mapping[str, JsonValue]:
    """Load a group's OME metadata: `attributes.ome` of Zarr 3, `.zattrs` of Zarr 2."""
    content = None
    try:
        if (folder / "zarr.json").is_file():
            attributes = parse_json_file(folder / "zarr.json").get("attributes", {})
            content = attributes.get("ome", attributes)
        elif (folder / ".zattrs").is_file():
            content = parse_json_file(folder / ".zattrs")
    except (OSError, ValueError, AttributeError) as error:
        raise refuse_damaged(folder.name, error) from error
    return _object(content)


def _read_metadata(metadata: Mapping[str, JsonValue], name: str) -> OmeMetadata:
    """Read the metadata of the first image; what is not as NGFF has it is passed over, or refused where needed."""
    images = _array(metadata["multiscales"])
    image = _object(images[0] if images else None)
    levels = [_object(level) for level in _array(image.get("datasets"))]
    if not levels or not all("path" in level for level in levels):
        raise refuse_damaged(name, "its OME metadata list no level")
    axes = image.get("axes")
    if not isinstance(axes, list):
        raise SlideError(
            f"slide '{name}' is OME-Zarr {image.get('version', 'of an old version')} without named axes. Convert it "
            "to version 0.4 or 0.5."
        )
    channels = [_object(channel) for channel in _array(_object(metadata.get("omero")).get("channels"))]
    return OmeMetadata(
        version=str(image.get("version") or metadata.get("version") or ""),
        axes=tuple(str(axis.get("name") if isinstance(axis, dict) else axis).lower() for axis in axes),
        units=tuple(str(_object(axis).get("unit", "")).lower() for axis in axes),
        paths=tuple(str(level["path"]) for level in levels),
        scales=tuple(
            tuple(
                _object(transform).get("scale")
                for transform in (*_array(level.get(_TRANSFORMS)), *_array(image.get(_TRANSFORMS)))
                if _object(transform).get("type") == "scale"
            )
            for level in levels
        ),
        channels=tuple(
            (str(channel.get("label") or channel.get("color")), str(channel.get("color", ""))) for channel in channels
        ),
    )


def _object(content: JsonValue) -> Mapping[str, JsonValue]:
    """Return a JSON object; an empty one where something else stands."""
    return content if isinstance(content, dict) else {}


def _array(content: JsonValue) -> Sequence[JsonValue]:
    """Return a JSON array; an empty one where something else stands."""
    return content if isinstance(content, list) else ()


def _check_array(array: Any, axes: tuple[str, ...], name: str) -> None:
    """Refuse what is no 8-bit RGB image of one plane and one moment."""
    extent = dict(zip(axes, array.shape, strict=False))
    others = {axis: n for axis, n in extent.items() if axis not in ("c", "y", "x") and n != 1}
    if len(axes) != len(array.shape) or not {"c", "y", "x"} <= set(axes):
        raise SlideError(
            f"slide '{name}' has the axes {', '.join(axes)} for arrays of {len(array.shape)} dimensions, and c, y and "
            "x are needed. Convert the slide again."
        )
    if others:
        said = ", ".join(f"{n} along {axis}" for axis, n in others.items())
        raise SlideError(f"slide '{name}' is a stack ({said}), and a single plane is needed. Save one plane of it.")
    n_bytes = math.prod(getattr(array, "shards", None) or array.chunks)
    if n_bytes > _MOST_CHUNK_BYTES:
        raise SlideError(
            f"slide '{name}' stores its pixels in chunks of {n_bytes / 1e9:.1f} GB, and a chunk must fit into "
            f"{_MOST_CHUNK_BYTES / 1e9:.1f} GB. Write it again in chunks of 1024 x 1024."
        )
    if extent["c"] != 3 or array.dtype != np.dtype("uint8"):
        raise SlideError(
            f"slide '{name}' has {extent['c']} channels of {array.dtype}, and brightfield has 3 of uint8. Convert it "
            "to 8-bit RGB, or leave it out if it is fluorescence."
        )


def _refuse_fluorescence(channels: Sequence[tuple[str, str]], name: str) -> None:
    """Refuse three channels that the file itself shows in colours other than red, green and blue."""
    colours = [colour.upper().lstrip("#")[:6] for _, colour in channels]
    if channels and all(colours) and tuple(colours) != _RGB:
        labels = ", ".join(label for label, _ in channels)
        raise SlideError(
            f"slide '{name}' shows its channels ({labels}) in the colours {', '.join(colours)}, not in red, green and "
            "blue: it is not brightfield. Leave it out."
        )


def _refuse_codecs(folder: Path, name: str) -> None:
    """Refuse an array whose metadata name a codec that is not known to be mere compression."""
    try:
        if (folder / "zarr.json").is_file():
            content = parse_json_file(folder / "zarr.json")
            named = _list_codecs(content.get("codecs", []))
            unknown = named - _CODECS_3
        else:
            content = parse_json_file(folder / ".zarray")
            used = [content.get("compressor"), *(content.get("filters") or [])]
            unknown = {str(codec["id"]) for codec in used if codec is not None} - _CODECS_2
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise refuse_damaged(name, error) from error
    if unknown:
        raise SlideError(
            f"slide '{name}' is compressed by '{sorted(unknown)[0]}', which is not taken. Write it again with blosc, "
            "zstd or gzip."
        )


def _list_codecs(codecs: list[Any]) -> set[str]:
    """List the names of codecs, those inside shards too."""
    names: set[str] = set()
    for codec in codecs:
        names.add(str(codec["name"]))
        inner = codec.get("configuration") or {}
        names |= _list_codecs([*inner.get("codecs", []), *inner.get("index_codecs", [])])
    return names


def _find_step(scales: Sequence[JsonValue], places: tuple[int, int]) -> tuple[float, float] | None:
    """Find the step from one pixel of a level to the next along x and y, in the axes' units; None if not stated."""
    step = [1.0, 1.0]
    for scale in scales:
        try:
            values = [float(str(_array(scale)[axis])) for axis in places]
        except (IndexError, ValueError):
            return None
        step = [a * b for a, b in zip(step, values, strict=True)]
    return (step[0], step[1]) if scales and min(step) > 0 and math.isfinite(sum(step)) else None


def _find_mpp(units: Sequence[str], step: tuple[float, float] | None) -> tuple[float, float] | None:
    """Turn the step of level 0 into um; None without a unit, which NGFF leaves open."""
    x, y = (_UM.get(unit) for unit in units)
    return None if step is None or x is None or y is None else (step[0] * x, step[1] * y)
