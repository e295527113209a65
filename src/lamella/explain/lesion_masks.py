"""Lesions drawn as an image of the whole slide: which of its values are lesion, and where they lie.

A value is a grey level, the number of a palette's entry, or a colour. An image that holds more than a background and
one value does not say which of them is lesion, so it has to be chosen.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import imagecodecs
import numpy as np
import pyvips
import tifffile
from numpy.typing import NDArray
from PIL.BmpImagePlugin import BmpImageFile
from PIL.Jpeg2KImagePlugin import Jpeg2KImageFile
from PIL.PngImagePlugin import PngImageFile

from lamella.errors import LamellaError, SettingsError, TissueError
from lamella.memory import refuse_beyond_memory
from lamella.regular import refuse_irregular
from lamella.slide.claims import MOST_PLAIN_PX, can_hold
from lamella.slide.frame import Bounds, find_scan_part

MASK_SUFFIXES = (".png", ".tif", ".tiff", ".jp2", ".j2k", ".bmp")
Rasteriser = Callable[[tuple[int, int]], NDArray[np.bool_]]
Block = tuple[int, int, NDArray[Any]]  # row and column of its corner, `(h, w)` or `(h, w, bands)`

_LONG_PX = 8192
_STRIP_PX = 512
_MANY = 64  # values of which no more are told apart: then it is no mask, or one that was compressed with loss
_COLOUR = 1 << 32  # colours as values lie above, grey levels and entries below
_TRANSPARENT = -(1 << 40)


def load_mask(
    path: Path, slide_size: tuple[int, int], values: Sequence[str] = (), bounds_l0: Bounds | None = None
) -> tuple[Rasteriser, str]:
    """Load lesions from an image of the whole slide, or of its scan.

    Args:
        path: PNG, TIFF, JPEG 2000 or BMP; grey, palette or colour, with or without transparency, of any depth.
        slide_size: `(width, height)` of level 0, in pixels.
        values: What is lesion, each a number or `#rrggbb`; empty takes the only value besides the background, which is
            0, black or transparent.
        bounds_l0: `Slide.bounds_l0`; None is the whole slide.

    Returns:
        A function from a shape `(h, w)` to `(h, w)` bool over the scan, whether most of each pixel is lesion; and the
        value that was taken.

    Raises:
        TissueError: If it cannot be read, is not of the slide's shape, or does not say what is lesion.
        SettingsError: If a value is neither a number nor a colour.
    """
    chosen = [parse_value(value) for value in values]
    refuse_irregular(path, f"mask '{path.name}'", TissueError)
    try:
        picture = _open_tiff(path) if path.suffix.lower() in (".tif", ".tiff") else _open_picture(path)
        width, height = picture.size
        left_px, top_px, part_width, part_height = find_scan_part(
            picture.size, slide_size, bounds_l0 or (0, 0, *slide_size), name=path.name
        )
        count = _Count(picture, chosen)
        for top, left, block in picture.blocks:
            count.add(top, left, picture.number(block, path.name))
    except LamellaError:
        raise
    except Exception as error:  # a decoder may raise anything on a damaged file
        reason = " ".join(str(error).split())[:120]
        raise TissueError(f"mask '{path.name}' cannot be read ({reason}). Save it again as PNG or TIFF.") from error
    share, taken = count.finish(path.name)
    rows, columns = share.shape[0] / height, share.shape[1] / width  # of `share` for a pixel of the image
    share = share[
        round(top_px * rows) : round((top_px + part_height) * rows),
        round(left_px * columns) : round((left_px + part_width) * columns),
    ]

    def rasterise(shape: tuple[int, int]) -> NDArray[np.bool_]:
        shrinks = shape[1] < share.shape[1]
        kind = cv2.INTER_AREA if shrinks else cv2.INTER_NEAREST
        resized: NDArray[np.bool_] = cv2.resize(share, (shape[1], shape[0]), interpolation=kind) > 0.5
        return resized

    return rasterise, taken


def parse_value(text: str) -> int:
    """Return a value of a mask as it is counted; a grey colour is its grey level.

    Raises:
        SettingsError: If it is neither a whole number nor a colour.

    Example:
        >>> parse_value("2"), parse_value("#020202")
        (2, 2)
    """
    word = text.strip().lower()
    if word.isascii() and word.isdigit():
        return int(word)
    try:
        if len(word) == 7 and word.startswith("#"):
            red, green, blue = bytes.fromhex(word[1:])
            return red if red == green == blue else _COLOUR + (red << 16 | green << 8 | blue)
    except ValueError:
        pass
    raise SettingsError(f"--lesion-value is '{text}' and must be a whole number or a colour. Pass 2 or #00ff00.")


def say_value(value: int) -> str:
    """Return a value as `parse_value` takes it."""
    if value == _TRANSPARENT:
        return "transparent"
    return str(value) if value < _COLOUR else f"#{value - _COLOUR:06x}"


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class _Picture:
    """An image that is read block by block.

    Attributes:
        size: `(width, height)`, in pixels.
        blocks: Its pixels, each once.
        is_transparent: Whether the last band is opacity.
        colours: `(n, 3)` uint8 of a palette's entries; None where values are grey or colours.
        clear: Entries of the palette that are transparent.
    """

    size: tuple[int, int]
    blocks: Iterator[Block]
    is_transparent: bool = False
    colours: NDArray[np.uint8] | None = None
    clear: tuple[int, ...] = ()

    @property
    def background(self) -> list[int]:
        """What is no lesion where nothing is chosen: 0, or the black entries of a palette that has other colours."""
        if self.colours is None or (self.colours == self.colours[0]).all():
            return [0, _TRANSPARENT]
        return [*np.flatnonzero((self.colours == 0).all(axis=1)).tolist(), _TRANSPARENT]

    def number(self, block: NDArray[Any], name: str) -> NDArray[Any]:
        """Return the value of each pixel, `(h, w)` of whole numbers."""
        if block.dtype.kind == "f":
            whole = np.nan_to_num(block, posinf=0, neginf=0)
            if (whole != np.rint(whole)).any():
                raise TissueError(f"mask '{name}' holds fractions and needs whole numbers. Save it with a threshold.")
            block = whole.astype(np.int64)
        if block.ndim == 2:
            return np.where(np.isin(block, self.clear), _TRANSPARENT, block.astype(np.int64)) if self.clear else block
        opacity = block[..., -1] if self.is_transparent else None
        bands = block[..., :-1] if opacity is not None else block
        values = bands[..., 0].astype(np.int64)
        if bands.shape[2] >= 3:
            # Grey pixels are their grey level, so that a grey mask saved in colours means the same.
            eight = bands[..., :3].astype(np.int64) >> (8 * (block.dtype.itemsize - 1))
            packed = _COLOUR + (eight[..., 0] << 16 | eight[..., 1] << 8 | eight[..., 2])
            values = np.where((bands[..., :3] == bands[..., :1]).all(axis=2), values, packed)
        if opacity is not None:
            values[opacity < np.iinfo(opacity.dtype).max / 2] = _TRANSPARENT
        return values


class _Count:
    """How much of each cell of a coarser raster is lesion, gathered block by block."""

    def __init__(self, picture: _Picture, chosen: list[int]) -> None:
        self._size, self._chosen, self._background = picture.size, chosen, picture.background
        self._step = -(-max(picture.size) // _LONG_PX)
        shape = (-(-picture.size[1] // self._step), -(-picture.size[0] // self._step))
        self._marked = np.zeros(shape, dtype=np.float32)
        # A lesion drawn in black on a transparent ground has the value of a background: only the end tells.
        self._opaque = np.zeros_like(self._marked) if picture.is_transparent or picture.clear else None
        self._values: set[int] = set()

    def add(self, top: int, left: int, values: NDArray[Any]) -> None:
        """Count a block of values, `(h, w)` of whole numbers."""
        values = values[: self._size[1] - top, : self._size[0] - left]
        if not values.size:
            return
        if len(self._values) <= _MANY:
            self._values.update(_list_values(values))
        marked = np.isin(values, self._chosen or self._background, invert=not self._chosen)
        self._sum(self._marked, top, left, marked)
        if self._opaque is not None:
            self._sum(self._opaque, top, left, values != _TRANSPARENT)

    def _sum(self, cells: NDArray[np.float32], top: int, left: int, marked: NDArray[np.bool_]) -> None:
        step = self._step
        y, x = top % step, left % step
        rows, columns = -(-(y + marked.shape[0]) // step), -(-(x + marked.shape[1]) // step)
        padded = np.zeros((rows * step, columns * step), dtype=bool)
        padded[y : y + marked.shape[0], x : x + marked.shape[1]] = marked
        sums = padded.reshape(rows, step, columns, step).sum(axis=(1, 3))
        cells[top // step : top // step + rows, left // step : left // step + columns] += sums

    def finish(self, name: str) -> tuple[NDArray[np.float32], str]:
        """Return the share of lesion in each cell, `(h, w)` float32, and what was taken for lesion."""
        background = self._values & set(self._background)
        others = sorted(self._values - background)
        marked, taken = self._marked, ", ".join(say_value(value) for value in self._chosen or others)
        if self._chosen:
            if not self._values & set(self._chosen):
                raise TissueError(
                    f"mask '{name}' holds {_say_values(self._values)} and no {taken}. Leave the file out where "
                    "there is no lesion, or pass another --lesion-value."
                )
        elif not others and self._opaque is not None and len(background) > 1:
            marked, taken = self._opaque, "0"
        elif not others:
            raise TissueError(
                f"mask '{name}' marks no lesion: it holds {_say_values(self._values)} only. Leave the file out where "
                "there is no lesion."
            )
        elif len(others) > 1:
            raise TissueError(
                f"mask '{name}' holds {_say_values(self._values)}, so it is not clear which is lesion. Pass "
                f"--lesion-value {taken.split(', ')[-1]} (repeatable), or save it without lossy compression."
            )
        step = self._step
        height, width = (np.minimum(step, size - np.arange(0, size, step)) for size in self._size[::-1])
        share = (marked / np.outer(height, width)).astype(np.float32)
        if share.min() >= 1:
            raise TissueError(
                f"mask '{name}' marks the whole slide as lesion: it holds {_say_values(self._values)}. Save lesions "
                "not 0 on a background of 0, or pass --lesion-value."
            )
        return share, taken


def _list_values(values: NDArray[Any]) -> list[int]:
    """Return the different values; most blocks of a mask hold one."""
    first = values.flat[0]
    if (values == first).all():
        return [int(first)]
    if values.dtype.kind == "u" and values.dtype.itemsize <= 2:
        present: list[int] = np.flatnonzero(np.bincount(values.ravel())).tolist()
        return present
    return [int(value) for value in np.unique(values)]


def _say_values(values: set[int]) -> str:
    ordered = sorted(values)
    if len(ordered) > _MANY:
        return f"more than {_MANY} values"
    shown = ", ".join(say_value(value) for value in ordered[:8])
    return f"the value{'s' if len(ordered) > 1 else ''} {shown}{' and more' if len(ordered) > 8 else ''}"


def _open_picture(path: Path) -> _Picture:
    """Open a PNG, JPEG 2000 or BMP."""
    if path.suffix.lower() in (".jp2", ".j2k"):
        with Jpeg2KImageFile(path) as head:
            _refuse_size(path, math.prod(head.size) * len(head.getbands()) * 2, size=head.size)
            _refuse_claims(head.size)
        return _hold(imagecodecs.jpeg2k_decode(path.read_bytes()))
    if path.suffix.lower() == ".bmp" or _is_palette_png(path):
        # Entries, not colours: label images are kept as palettes. `Image.open` would refuse large ones.
        with (BmpImageFile if path.suffix.lower() == ".bmp" else PngImageFile)(path) as image:
            given = image.info.get("transparency", ())
            clear = (given,) if isinstance(given, int) else tuple(i for i, alpha in enumerate(given) if alpha < 128)
            _refuse_size(path, math.prod(image.size) * 2, size=image.size)
            _refuse_claims(image.size)
            _refuse_claim(path, image.size)
            entries = image.getpalette("RGB") if image.mode == "P" else None
            colours = None if entries is None else np.array(entries, dtype=np.uint8).reshape(-1, 3)
            return _hold(np.asarray(image), colours=colours, clear=clear if colours is not None else ())
    picture = pyvips.Image.new_from_file(str(path), access="sequential", revalidate=True, fail_on="truncated")
    held_rows = min(picture.height, picture.height if picture.get_typeof("interlaced") else _STRIP_PX)
    _refuse_size(path, picture.width * held_rows * picture.bands * 8, size=(picture.width, picture.height))
    is_transparent = bool(picture.hasalpha())
    return _Picture(size=(picture.width, picture.height), blocks=_read_strips(picture), is_transparent=is_transparent)


def _refuse_claims(size: tuple[int, int]) -> None:
    if size[0] * size[1] > MOST_PLAIN_PX:
        raise ValueError(f"its header claims {size[0]} x {size[1]} pixels; {MOST_PLAIN_PX:,} are read of this kind")


def _refuse_size(path: Path, n_bytes: int, *, size: tuple[int, int]) -> None:
    """Refuse a picture whose header claims more than can be held at once."""
    refuse_beyond_memory(
        n_bytes,
        f"mask '{path.name}', {size[0]:,} x {size[1]:,} px,",
        "Save it at a coarser level of the slide.",
        error=TissueError,
    )


def _refuse_claim(path: Path, size: tuple[int, int]) -> None:
    """Refuse a picture that claims more pixels than its bytes can hold: room would be made for all of them."""
    n_px, n_bytes = size[0] * size[1], path.stat().st_size
    if not can_hold(n_bytes, n_px):
        raise TissueError(
            f"mask '{path.name}' claims {size[0]:,} x {size[1]:,} pixels in {n_bytes:,} bytes: the file is damaged. "
            "Save it again as PNG or TIFF."
        )


def _is_palette_png(path: Path) -> bool:
    with path.open("rb") as stream:
        head = stream.read(26)
    return head[:8] == b"\x89PNG\r\n\x1a\n" and head[25:] == b"\x03"


def _read_strips(picture: Any) -> Iterator[Block]:
    region = pyvips.Region.new(picture)
    dtype = {"uchar": np.uint8, "ushort": np.uint16}[picture.format]
    for top in range(0, picture.height, _STRIP_PX):
        rows = min(_STRIP_PX, picture.height - top)
        pixels = np.frombuffer(region.fetch(0, top, picture.width, rows), dtype=dtype)
        yield top, 0, _drop_band(pixels.reshape(rows, picture.width, picture.bands))


def _hold(pixels: NDArray[Any], *, colours: NDArray[np.uint8] | None = None, clear: tuple[int, ...] = ()) -> _Picture:
    """Return a picture that is in memory."""
    pixels = _drop_band(pixels)
    tops = range(0, pixels.shape[0], _STRIP_PX)
    return _Picture(
        size=(pixels.shape[1], pixels.shape[0]),
        blocks=((top, 0, pixels[top : top + _STRIP_PX]) for top in tops),  # what is counted of them takes more room
        is_transparent=pixels.ndim == 3 and pixels.shape[2] in (2, 4),
        colours=colours,
        clear=clear,
    )


def _drop_band(pixels: NDArray[Any]) -> NDArray[Any]:
    return pixels[..., 0] if pixels.ndim == 3 and pixels.shape[2] == 1 else pixels


def _open_tiff(path: Path) -> _Picture:
    """Open the finest level of a TIFF; values are as stored, also where 0 is shown white."""
    with tifffile.TiffFile(path) as file:
        series = max(file.series, key=lambda image: int(np.prod(image.shape)))
        level = series.levels[0]
        page = level.keyframe
        colormap = page.colormap if page.photometric == tifffile.PHOTOMETRIC.PALETTE else None
        colours = None if colormap is None else (colormap.T >> 8).astype(np.uint8)
        sizes = dict(zip(level.axes, level.shape, strict=True))
        bands = {axis: n for axis, n in sizes.items() if axis not in "YX" and n > 1}
        if len(bands) > 1 or any(n > 4 for n in bands.values()) or not {"Y", "X"} <= sizes.keys():
            held = " x ".join(f"{n} {axis}" for axis, n in sizes.items())
            raise TissueError(f"mask '{path.name}' is no flat picture ({held}). Save one plane, grey or in colours.")
        is_streamed = not bands or level.axes.endswith("YXS")
        n_held = math.prod(page.chunks) if is_streamed else math.prod(level.shape)
        _refuse_size(path, n_held * page.bitspersample // 4, size=(sizes["X"], sizes["Y"]))
        if is_streamed:
            n_bands = next(iter(bands.values()), 1)
            return _Picture(
                size=(sizes["X"], sizes["Y"]),
                blocks=_read_segments(path, page.index, n_bands),
                is_transparent=n_bands in (2, 4),
                colours=colours,
            )
        _refuse_claims((sizes["X"], sizes["Y"]))
        pixels = level.asarray()
        for axis in reversed(range(pixels.ndim)):
            if level.axes[axis] not in "YX" and pixels.shape[axis] == 1:
                pixels = pixels.squeeze(axis)
        return _hold(np.moveaxis(pixels, 0, 2) if level.axes[-1] == "X" else pixels)


def _read_segments(path: Path, number: int, n_bands: int) -> Iterator[Block]:
    """Yield tiles or strips of a page of a TIFF; those that are not stored are 0."""
    with tifffile.TiffFile(path) as file:
        page = file.pages[number].aspage()
        _refuse_claims((math.prod(page.chunks), 1))
        for pixels, (_, _, top, left, _), shape in page.segments():
            block: NDArray[Any] = np.full((*shape[1:3], n_bands), page.nodata, dtype=page.dtype)
            if pixels is not None:  # a sparse file stores no tiles of background
                block = pixels[0]
            yield top, left, _drop_band(block)
