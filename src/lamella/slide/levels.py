"""How many level-0 pixels a pixel of each level spans, and how much of a level is slide.

Sizes alone say it for most pyramids: each level is the one before, halved or quartered, rounded. Some writers fill
small levels up to whole tiles (Philips in TIFF and DICOM), so that size by size gives 3.4 where a pixel spans 4, and
tissue and tiles shift by hundreds of pixels. Such a level is in doubt. Its scale is then looked for among those that
the file states and the whole numbers near, and the one is taken at which the level's pixels are those of a finer
level. What lies beyond the slide's edge in a filled-up level is not slide and is cut off.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lamella.errors import SlideError
from lamella.slide.readers import Reader

Scale = tuple[float, float]

_STATED_APART = 0.01  # a stated scale this share from the one by sizes puts the level in doubt
_WINDOW_PX, _LEAST_WINDOW_PX, _FINER_PX = 128, 16, 1024
_N_WINDOWS, _AGREEING_SHARE = 5, 0.8
_LEAST_CONTRAST = 4.0  # SD in grey levels below which a window is empty glass
_WHOLE_PX = 4_000_000  # levels up to this size are looked at whole for windows with tissue
_GRID = 8
# Levels made by leaving pixels out lie up to half a level pixel beside the mean of what they stand for.
_CLOSE_PX, _LEAST_CORRELATION = 0.6, 0.3
_SHIFTED_PX = 2.0


@dataclass(frozen=True, slots=True)
class Level:
    """A level as it lies on the slide.

    Attributes:
        size: `(width, height)` of what is slide, in level pixels: without the writer's padding.
        scale: Level-0 pixels per level pixel, along x and y.
        stored_size: `(width, height)` as stored.
    """

    size: tuple[int, int]
    scale: Scale
    stored_size: tuple[int, int]

    @property
    def is_padded(self) -> bool:
        """Whether more is stored than is slide."""
        return self.size != self.stored_size


def fit_levels(reader: Reader, *, name: str) -> tuple[Level, ...]:
    """Find the scale and the real size of each level.

    Pixels are read only where sizes leave a doubt.

    Args:
        reader: Of the open slide.
        name: The slide's file name, for the message.

    Raises:
        SlideError: If the pixels of a level are those of a finer one at no scale.
    """
    sizes = reader.level_dimensions
    stated = reader.stated_scales or (None,) * len(sizes)
    levels = [Level(sizes[0], (1.0, 1.0), sizes[0])]
    for number in range(1, len(sizes)):
        by_size = _find_whole_scale(sizes[0], sizes[number])
        if not _is_in_doubt(sizes, number, by_size, stated[number]):
            assert by_size is not None
            levels.append(Level(sizes[number], (by_size, by_size), sizes[number]))
            continue
        scale = _find_scale(reader, levels, number, stated[number])
        if scale is None:
            raise SlideError(
                f"levels of slide '{name}' do not fit each other: level {number} ({sizes[number][0]} x "
                f"{sizes[number][1]} px) does not match level 0 ({sizes[0][0]} x {sizes[0][1]} px) at any scale. "
                f"Rebuild its levels with libvips: vips tiffsave '{name}' rebuilt.tif --tile --pyramid --compression "
                "jpeg --Q 90 --bigtiff"
            )
        levels.append(_cut_padding(sizes[0], sizes[number], scale))
    return tuple(levels)


def describe_padding(levels: Sequence[Level]) -> tuple[str, ...]:
    """Say which levels hold more than slide."""
    return tuple(
        f"level {number} is padded: {level.size[0]} x {level.size[1]} of its {level.stored_size[0]} x "
        f"{level.stored_size[1]} px are slide, at a scale of {level.scale[0]:g}"
        for number, level in enumerate(levels)
        if level.is_padded
    )


def list_misfits(reader: Reader, levels: Sequence[Level]) -> tuple[int, ...]:
    """List the levels whose pixels lie over 2 level pixels from those of a finer level, or are of another picture.

    Looks at five windows with tissue of each level, whether its size leaves a doubt or not.
    """
    misfits = []
    for number in range(1, len(levels)):
        windows = _list_windows(reader, number, levels[number].size)
        if _measure_fit(reader, levels[:number], number, levels[number].scale, windows).fits(_SHIFTED_PX) is False:
            misfits.append(number)
    return tuple(misfits)


def list_candidates(
    size: tuple[int, int], level_size: tuple[int, int], stated: float | None, *, finer: float = 1.0
) -> list[Scale]:
    """List the scales that a level in doubt may have, the likeliest first.

    Args:
        size: `(width, height)` of level 0.
        level_size: `(width, height)` of the level, padding included.
        stated: Level-0 pixels per level pixel as the file states it, or None.
        finer: Scale of the level before, of which this one may be a half, a third or a quarter.

    Example:
        A level of 500 x 375 pixels filled up to 512 x 512, of a slide of 2000 x 1500:

        >>> list_candidates((2000, 1500), (512, 512), None)[:3]
        [(4.0, 4.0), (8.0, 8.0), (2.0, 2.0)]
        >>> list_candidates((2000, 1500), (512, 512), 3.91)[0]
        (3.91, 3.91)
    """
    ratio = size[0] / level_size[0], size[1] / level_size[1]
    exact = _find_whole_scale(size, level_size)
    alike = _find_shared_ratio(size, level_size)
    power = 2.0 ** math.ceil(math.log2(max(ratio)) - 1e-9)
    whole = math.ceil(max(ratio) - 1e-9)
    powers = [power * 2**n for n in (0, 1, -1, 2, 3, 4, 5)]  # far down a pyramid most of a level may be padding
    wholes = [whole + n for n in range(4)]
    scales = [
        *((stated,) if stated is not None and _is_possible(size, level_size, stated) else ()),
        *((exact,) if exact is not None else ()),
    ]
    likely = [(float(scale), float(scale)) for scale in scales]
    steps = [finer * n for n in (2, 3, 4) if finer * n >= max(ratio) * (1 - 1e-9)]
    padded = [(float(scale), float(scale)) for scale in (*powers, *wholes, *steps) if scale >= 1]
    # Sides that agree speak for themselves first, sides that do not only at the last.
    pairs = [*likely, *([ratio, *padded] if alike is not None else [*padded, ratio])]
    return [pair for pair in dict.fromkeys(pairs) if min(pair) >= 1]


def _find_scale(reader: Reader, levels: Sequence[Level], number: int, stated: float | None) -> Scale | None:
    """Find the scale at which a level shows what finer levels show; the likeliest where it shows nothing at all."""
    size, level_size = levels[0].size, reader.level_dimensions[number]
    windows = _list_windows(reader, number, level_size)
    empty = None
    by_size = size[0] / level_size[0], size[1] / level_size[1]
    is_near = False
    for scale in list_candidates(size, level_size, stated, finer=max(levels[-1].scale)):
        if _lacks_tissue(reader, levels, level_size, scale):
            continue
        fit = _measure_fit(reader, levels, number, scale, windows)
        if fit.fits(_CLOSE_PX):
            return scale
        empty = scale if fit.fits(_CLOSE_PX) is None and empty is None else empty
        # Some scanners place levels a pixel off: taken by size, where both sides tell the same and nothing fits better.
        is_near |= scale == by_size and fit.fits(_SHIFTED_PX) is True
    is_alike = _find_shared_ratio(size, level_size) is not None
    return by_size if is_alike and is_near else empty


def _is_in_doubt(sizes: Sequence[tuple[int, int]], number: int, by_size: float | None, stated: float | None) -> bool:
    """Tell whether sizes do not settle a level's scale: the usual pyramid is of powers of two, a size a level."""
    if by_size is None or by_size <= 1 or not math.log2(by_size).is_integer():
        return True
    if (
        stated is not None
        and _is_possible(sizes[0], sizes[number], stated)
        and abs(stated / by_size - 1) > _STATED_APART
    ):
        return True
    return sizes[number] in sizes[:number]


def _is_possible(size: tuple[int, int], level_size: tuple[int, int], stated: float) -> bool:
    """Tell whether a level can have a stated scale: it holds the slide, and not 64 times as much."""
    ratio = max(axis / n for axis, n in zip(size, level_size, strict=True))
    return stated >= 1 and 0.9 * ratio <= stated <= 64 * ratio


def _find_whole_scale(size: tuple[int, int], level_size: tuple[int, int]) -> float | None:
    """Find the whole number that explains both sides of a level; None where there is none.

    Pyramids are made by averaging whole blocks and dropping what does not fill one, or by rounding up, so a level of
    37 x 31 pixels of a slide of 300 x 250 has a scale of exactly 8, not 8.11 and 8.06.
    """
    whole = round(math.sqrt(size[0] / level_size[0] * size[1] / level_size[1]))
    powers = (2 ** math.floor(math.log2(whole or 1)), 2 ** math.ceil(math.log2(whole or 1)))
    for scale in dict.fromkeys((whole, *powers)):
        if scale and all(n in (axis // scale, -(-axis // scale)) for axis, n in zip(size, level_size, strict=True)):
            return float(scale)
    return None


def _find_shared_ratio(size: tuple[int, int], level_size: tuple[int, int]) -> float | None:
    """Find the scale of a level whose sides are reduced alike, to within the rounding of a pixel; else None."""
    low = max(axis / (n + 1) for axis, n in zip(size, level_size, strict=True))
    high = min(axis / max(n - 1, 0.5) for axis, n in zip(size, level_size, strict=True))
    return math.sqrt(low * high) if low <= high else None


def _cut_padding(size: tuple[int, int], level_size: tuple[int, int], scale: Scale) -> Level:
    """Return a level without what lies beyond the slide's edge."""
    real = [min(n, math.ceil(axis / s - 1e-6)) for axis, n, s in zip(size, level_size, scale, strict=True)]
    return Level((real[0], real[1]), scale, level_size)


@dataclass(frozen=True, slots=True)
class _Fit:
    """How the windows of a level meet a finer level: shift in level pixels and correlation of each."""

    shifts_px: tuple[float, ...]
    correlations: tuple[float, ...]

    def fits(self, most_px: float) -> bool | None:
        """Whether four of five windows lie in place; None where there is nothing to go by."""
        agree = [
            shift <= most_px and correlation >= _LEAST_CORRELATION
            for shift, correlation in zip(self.shifts_px, self.correlations, strict=True)
        ]
        return sum(agree) >= _AGREEING_SHARE * len(agree) if agree else None


@dataclass(frozen=True, slots=True, eq=False)
class _Window:
    """A square of a level that shows something: its corner in level pixels and its grey levels, `(h, w)` float32."""

    corner: tuple[int, int]
    grey: NDArray[np.float32]


def _list_windows(reader: Reader, number: int, size: tuple[int, int]) -> list[_Window]:
    """List the windows of a level of `size` `(width, height)` that show something."""
    side = min(max(min(size) // 4, 32), _WINDOW_PX, *size)
    if side < _LEAST_WINDOW_PX:
        return []
    return [window for window in _cut_windows(reader, number, size, side) if window.grey.std() >= _LEAST_CONTRAST]


def _choose(windows: Sequence[_Window]) -> list[_Window]:
    """Choose up to five windows far from each other: a wrong scale shows the more, the further apart they lie."""
    chosen = [max(windows, key=lambda window: float(window.grey.std()))] if windows else []
    while len(chosen) < min(_N_WINDOWS, len(windows)):
        chosen.append(max(windows, key=lambda window: min(math.dist(window.corner, taken.corner) for taken in chosen)))
    return chosen


def _cut_windows(reader: Reader, number: int, size: tuple[int, int], side: int) -> Iterator[_Window]:
    """Cut a level into windows side by side, or read a grid of them where it is large."""
    starts = [
        np.unique(np.linspace(0, extent - side, max(1, round(extent / side))).astype(int)).tolist() for extent in size
    ]
    if size[0] * size[1] <= _WHOLE_PX:
        whole = _to_grey(reader.read((0, 0), number, size))
        for y in starts[1]:
            for x in starts[0]:
                yield _Window((x, y), whole[y : y + side, x : x + side])
        return
    columns, rows = (axis[:: max(1, len(axis) // _GRID)] for axis in starts)
    for y in rows:
        for x in columns:
            yield _Window((x, y), _to_grey(reader.read((x, y), number, (side, side))))


def _measure_fit(
    reader: Reader, levels: Sequence[Level], number: int, scale: Scale, windows: Sequence[_Window]
) -> _Fit:
    """Measure how far the windows of a level lie from where a finer level shows the same, at a scale."""
    real = _cut_padding(levels[0].size, reader.level_dimensions[number], scale).size
    finer = max((n for n in range(len(levels)) if max(levels[n].scale) <= min(scale)), key=lambda n: levels[n].scale)
    factor = scale[0] / levels[finer].scale[0], scale[1] / levels[finer].scale[1]
    if any(_shows_beyond(window, real) for window in windows):
        return _Fit((math.inf,), (0.0,))  # tissue where, at this scale, no slide is
    most = max(_LEAST_WINDOW_PX, round(_FINER_PX / max(factor)))
    inner = [_clip(window, real, most) for window in windows]
    shown = [
        window
        for window in inner
        if min(window.grey.shape) >= _LEAST_WINDOW_PX and window.grey.std() >= _LEAST_CONTRAST
    ]
    fits = [
        _compare(window.grey, _read_same(reader, finer, levels[finer].size, window, factor))
        for window in _choose(shown)
    ]
    return _Fit(tuple(shift for shift, _ in fits), tuple(correlation for _, correlation in fits))


def _lacks_tissue(reader: Reader, levels: Sequence[Level], level_size: tuple[int, int], scale: Scale) -> bool:
    """Tell whether a level would, at a scale, end before the slide does and leave out something that is shown there."""
    size = levels[0].size
    ends = [round(n * s) for n, s in zip(level_size, scale, strict=True)]
    for axis in (0, 1):
        if ends[axis] >= size[axis] - scale[axis] - 1:
            continue
        side = min(_WINDOW_PX, size[axis] - ends[axis], size[1 - axis])
        for along in np.unique(np.linspace(0, size[1 - axis] - side, 4 * _GRID).astype(int)).tolist():
            corner = (ends[0], along) if axis == 0 else (along, ends[1])
            if _to_grey(reader.read(corner, 0, (side, side))).std() >= _LEAST_CONTRAST:
                return True
    return False


def _shows_beyond(window: _Window, real: tuple[int, int]) -> bool:
    """Tell whether a window shows something beyond a level's real extent, `(width, height)`.

    Padding is of one colour, or repeats the last pixel: it does not change from the edge outwards, as tissue does.
    """
    right, bottom = (max(0, extent + 1 - at) for extent, at in zip(real, window.corner, strict=True))
    strips = window.grey[:, right:], window.grey[bottom:].T
    return any(strip.size and strip.std(axis=1).mean() >= _LEAST_CONTRAST for strip in strips)


def _clip(window: _Window, real: tuple[int, int], most: int) -> _Window:
    """Return the part of a window inside a level's real extent, and of that the middle, `most` pixels a side.

    The last pixel along the edge stays out: it may be slide in part.
    """
    width, height = (
        max(0, min(n, extent - 1 - at))
        for n, extent, at in zip(window.grey.shape[::-1], real, window.corner, strict=True)
    )
    left, top = max(0, (width - most) // 2), max(0, (height - most) // 2)
    grey = window.grey[top : max(top, min(height, top + most)), left : max(left, min(width, left + most))]
    return _Window((window.corner[0] + left, window.corner[1] + top), grey)


def _read_same(
    reader: Reader, finer: int, size: tuple[int, int], window: _Window, factor: Scale
) -> NDArray[np.float32]:
    """Read what a finer level of `size` shows in the place of a window, reduced to the window's shape."""
    shape = window.grey.shape[1], window.grey.shape[0]
    start = [at * f for at, f in zip(window.corner, factor, strict=True)]
    stop = [min(at + n * f, extent) for at, n, f, extent in zip(start, shape, factor, size, strict=True)]
    left, top = math.floor(start[0]), math.floor(start[1])
    right, bottom = math.ceil(stop[0]), math.ceil(stop[1])
    pixels = Image.fromarray(reader.read((left, top), finer, (right - left, bottom - top)))
    box = (start[0] - left, start[1] - top, stop[0] - left, stop[1] - top)
    return _to_grey(np.asarray(pixels.resize(shape, Image.Resampling.BOX, box=box)))


def _compare(first: NDArray[np.float32], second: NDArray[np.float32]) -> tuple[float, float]:
    """Return the shift between two pictures of one size, in pixels, by phase correlation, and their correlation."""
    a, b = first - first.mean(), second - second.mean()
    if b.std() < _LEAST_CONTRAST / 2:
        return math.inf, 0.0
    window = cv2.createHanningWindow((a.shape[1], a.shape[0]), cv2.CV_32F)
    (x, y), _ = cv2.phaseCorrelate(np.ascontiguousarray(a), np.ascontiguousarray(b), window)
    correlation = float((a * b).mean() / (a.std() * b.std() + 1e-9))
    return math.hypot(x, y), correlation


def _to_grey(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    grey: NDArray[np.float32] = pixels.astype(np.float32).mean(axis=2)
    return grey
