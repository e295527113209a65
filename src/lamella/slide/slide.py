"""1. A slide: levels, resolution, pixels at any resolution.

One way to open every format. Which library decodes the file is decided at opening (`lamella.slide.opening`) and said
in `Slide.reader`. Reads are safe from several threads and release the interpreter lock.

Coordinate frames, as suffixes:
    _l0     pixels of level 0, the finest level
    _level  pixels of the level that is read
    _px     pixels of the output, at the asked resolution
"""

import math
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lamella.errors import LamellaError, ResolutionError, SlideError
from lamella.machine import refuse_passing
from lamella.slide.claims import refuse_slide_claims
from lamella.slide.frame import clip_bounds
from lamella.slide.levels import describe_padding, fit_levels, list_misfits
from lamella.slide.opening import open_reader
from lamella.slide.readers import Reader
from lamella.slide.resampling import ReadLevel, SourceBlock, find_halo
from lamella.slide.resolution import Resolution, check_given_mpp, check_stated_mpp, is_plausible

MAX_UPSAMPLE = 1.10
_MAX_SOURCE_PX = 1 << 24  # pixels decoded at a time for one output: 48 MiB
_MIN_REDUCED_FACTOR = 8.0  # level pixels per output pixel from which blocks are averaged before the filter
_FINE_ENOUGH = 1e-3  # a level this much coarser than asked is not worth a level four times as large


def open_slide(
    path: Path | str, *, slide_mpp: float | None = None, reader: str = "auto", image: str | int | None = None
) -> "Slide":
    """Open a slide; close it when done, or use it in a `with` block.

    Args:
        path: Aperio SVS, Hamamatsu NDPI or VMS, MIRAX, Philips, generic or OME-TIFF, DICOM WSI, PNG or JPEG.
        slide_mpp: The scanner's resolution in um per level-0 pixel; overrides what the file states.
        reader: "auto" chooses; "fastslide", "openslide", "libvips" or "tifffile" insists.
        image: Which image of a file that holds several: its number from 1, or its name. None takes the largest in
            colour and says so in `Slide.notes`.

    Raises:
        SlideError: If the file is absent, damaged, or of a format no reader knows.
        ResolutionError: If `slide_mpp` is implausible. A file that states none opens; asking for its resolution raises.
    """
    path = Path(path)
    given = None if slide_mpp is None else check_given_mpp(slide_mpp, name=path.name)
    opened: Reader | None = None
    try:
        opened = open_reader(path, reader, None if image is None else str(image))
        return Slide(path, opened, given)
    except Exception as error:
        if opened is not None:
            opened.close()
        if isinstance(error, LamellaError):
            raise
        refuse_passing(error, path.name)
        raise _say_unforeseen(path, error) from error


def _say_unforeseen(path: Path, error: Exception) -> SlideError:
    """Make one slide's error of whatever a decoder raises on a damaged file, memory included: the others go on."""
    if isinstance(error, UnicodeEncodeError):
        return SlideError(
            f"slide '{path.name}' lies in a folder whose name is not UTF-8, and its decoder opens UTF-8 names only. "
            "Rename that folder."
        )
    said = " ".join(str(error).split())[:160]
    return SlideError(
        f"slide '{path.name}' cannot be read ({type(error).__name__}: {said}). Copy it again from its source, or "
        "leave it out."
    )


class Slide:
    """An open slide.

    Attributes:
        path: The file it was opened from.
        format: What the reader takes it for.
        reader: Library and version that decode it, such as "libvips 8.18.7".
        size: `(width, height)` of level 0, in pixels: of the canvas, which some formats make larger than the scan.
        bounds_l0: `(x, y, width, height)` of the scan on the canvas, level-0 pixels; the whole canvas where the file
            states none. Coordinates count from the canvas's corner, QuPath's from the scan's (`lamella.slide.frame`).
        level_dimensions: `(width, height)` of each level, finest first, without padding that the writer added.
        level_downsamples: Level-0 pixels per level pixel, the mean of both axes.
        magnification: The objective's nominal magnification as the file states it, or None.
        stated_mpp: `(x, y)` resolution the file states, in um per level-0 pixel, unchecked; None where it states none.
        associated: Names of label, macro and other associated images. Their pixels are never read: a label shows a
            patient's name.
        notes: What a user should know about how this file is read, such as an EXIF orientation that is not applied.
    """

    def __init__(self, path: Path, reader: Reader, given: Resolution | None = None) -> None:
        self.path = path
        self._reader, self._given = reader, given
        self.format, self.reader = reader.format, reader.name
        refuse_slide_claims(path, reader.level_dimensions[0])
        self._levels = fit_levels(reader, name=path.name)
        self.level_dimensions = tuple(level.size for level in self._levels)
        self.size = self.level_dimensions[0]
        self.bounds_l0 = clip_bounds(reader.bounds, self.size)
        self._scales = tuple(level.scale for level in self._levels)
        self.level_downsamples = tuple((x + y) / 2 for x, y in self._scales)
        self.magnification, self.stated_mpp, self.associated = (
            reader.magnification,
            reader.stated_mpp,
            reader.associated,
        )
        self.notes = (*reader.notes, *describe_padding(self._levels))
        self._closed = False

    def __enter__(self) -> Self:
        """Return the slide itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the slide."""
        self.close()

    def __repr__(self) -> str:
        """Say which slide this is."""
        return f"<Slide {self.path.name!r}, {self.size[0]} x {self.size[1]}, {self.format}, {self.reader}>"

    @property
    def resolution(self) -> Resolution:
        """The size of a level-0 pixel and who said so.

        Raises:
            ResolutionError: If the file states none, an implausible one, or x and y over 2% apart, and none was given.
        """
        return self._given or check_stated_mpp(self.stated_mpp, name=self.path.name)

    @property
    def overruled_mpp(self) -> tuple[float, float] | None:
        """`(x, y)` believable resolution the file states, where one over 5% from it was given and is used."""
        if self._given is None or self.stated_mpp is None or not all(map(is_plausible, self.stated_mpp)):
            return None
        given = (self._given.x, self._given.y)
        differs = max(abs(g / stated - 1) for g, stated in zip(given, self.stated_mpp, strict=True)) > 0.05
        return self.stated_mpp if differs else None

    @property
    def mpp(self) -> tuple[float, float]:
        """`(x, y)` um per level-0 pixel.

        Raises:
            ResolutionError: As for `resolution`.
        """
        resolution = self.resolution
        return resolution.x, resolution.y

    def find_misfits(self) -> tuple[int, ...]:
        """List the levels whose pixels do not lie where those of finer levels do; reads windows of each level.

        Raises:
            SlideError: If the slide is damaged there.
        """
        return list_misfits(self._reader, self._levels)

    def close(self) -> None:
        """Release the file; closing twice does nothing."""
        if not self._closed:
            self._closed = True
            self._reader.close()

    def read_region(self, corner_level: tuple[int, int], level: int, size: tuple[int, int]) -> NDArray[np.uint8]:
        """Read pixels of one level as they are stored.

        Args:
            corner_level: `(x, y)` of the top-left corner in pixels of *that level*, not of level 0.
            level: Pyramid level, 0 finest.
            size: `(width, height)` in pixels of that level.

        Returns:
            `(height, width, 3)` uint8 RGB. What lies outside the slide, or was never scanned, is white.

        Raises:
            SlideError: If the slide is damaged there, or closed.
        """
        if self._closed:
            raise SlideError(f"slide '{self.path.name}' is closed. Open it again to read from it.")
        if not 0 <= level < len(self.level_dimensions):
            raise ValueError(
                f"level {level} is asked for and slide '{self.path.name}' has levels 0 to "
                f"{len(self.level_dimensions) - 1}."
            )
        width, height = self.level_dimensions[level]
        left, top = max(0, int(corner_level[0])), max(0, int(corner_level[1]))  # NumPy's integers are not readers'
        right, bottom = (int(min(width, corner_level[0] + size[0])), int(min(height, corner_level[1] + size[1])))
        if right > left and bottom > top:
            try:
                pixels = self._reader.read((left, top), level, (right - left, bottom - top))
            except LamellaError:
                raise
            except Exception as error:
                raise _say_unforeseen(self.path, error) from error
            if (right - left, bottom - top) == tuple(size):
                return pixels
        region = np.full((size[1], size[0], 3), 255, dtype=np.uint8)
        if right > left and bottom > top:
            x, y = left - corner_level[0], top - corner_level[1]
            region[y : y + bottom - top, x : x + right - left] = pixels
        return region

    def find_read_level(self, mpp: float, max_upsample: float = MAX_UPSAMPLE) -> ReadLevel:
        """Find the coarsest level that is still as fine as `mpp` (to a thousandth), or level 0 a little enlarged.

        Args:
            mpp: Asked resolution, um per pixel.
            max_upsample: How much level 0 may be enlarged; 1 refuses any enlargement.

        Raises:
            ResolutionError: If the slide would have to be enlarged by more, or its own resolution is not known.
        """
        slide_mpp = self.mpp
        if not (math.isfinite(mpp) and mpp > 0):
            raise ResolutionError(f"a resolution of {mpp} um/px is asked for and must be above 0. Pass --mpp 0.5.")
        read = self._find_level((mpp / slide_mpp[0], mpp / slide_mpp[1]))
        if read.upsample > max(1.0, max_upsample) + 1e-9:
            finest = _say(max(slide_mpp))
            raise ResolutionError(
                f"tiles are asked for at {_say(mpp)} um/px but slide '{self.path.name}' stops at {finest} um/px. "
                f"Ask for {finest} or coarser, or leave that slide out."
            )
        return read

    def read_box(
        self,
        corner_l0: tuple[float, float],
        size_px: tuple[int, int],
        mpp: float,
        *,
        max_upsample: float = MAX_UPSAMPLE,
    ) -> NDArray[np.uint8]:
        """Read a box at exactly `mpp`, whatever levels the slide has.

        Reads the next finer level with a halo and resamples it with a Lanczos filter, each axis by its own factor;
        where a level has exactly the asked resolution and the corner falls on one of its pixels, pixels are copied.

        Args:
            corner_l0: `(x, y)` of the top-left corner, level-0 pixels, fractions allowed.
            size_px: `(width, height)` of the output, in pixels at `mpp`.
            mpp: Asked resolution, um per pixel.
            max_upsample: How much level 0 may be enlarged.

        Returns:
            `(height, width, 3)` uint8 RGB; white outside the slide.

        Raises:
            ResolutionError: If the slide is coarser than `mpp` by more than `max_upsample`, or states no resolution.
            SlideError: If the slide is damaged there.
        """
        return self._read_exactly(corner_l0, size_px, self.find_read_level(mpp, max_upsample))

    def read_block(
        self, corner_l0: tuple[float, float], size_px: tuple[int, int], read_level: ReadLevel
    ) -> SourceBlock:
        """Decode the pixels under a box once, to cut any number of overlapping tiles from them by `SourceBlock.cut`.

        Args:
            corner_l0: `(x, y)` of the box's top-left corner, level-0 pixels, fractions allowed.
            size_px: `(width, height)` of the box, in pixels at the resolution `read_level` was found for.
            read_level: From `find_read_level`.

        Returns:
            The pixels of one level under the box and a halo around it. Memory grows with the box.
        """
        level_size = self.level_dimensions[read_level.level]
        x, y = read_level.find_spans(corner_l0, size_px, level_size, self.size)
        pixels = self.read_region((x.start, y.start), read_level.level, (x.stop - x.start, y.stop - y.start))
        return SourceBlock(pixels, (x.start, y.start), read_level, level_size, self.size)

    def read_thumbnail(self, mpp: float) -> NDArray[np.uint8]:
        """Read the whole slide small, each pixel about `mpp` um.

        The picture covers the slide exactly: level-0 pixels per thumbnail pixel are `size / (width, height)` of it.
        Memory stays bounded where the slide has no small level.

        Returns:
            `(h, w, 3)` uint8 RGB.

        Raises:
            ResolutionError: If the slide states no resolution, or is coarser than `mpp` by more than 10%.
        """
        self.find_read_level(mpp)
        x, y = self.mpp
        return self.read_overview((round(self.size[0] * x / mpp), round(self.size[1] * y / mpp)))

    def read_scan(self, mpp: float) -> NDArray[np.uint8]:
        """Read the scan small, as `read_thumbnail` reads the whole canvas: what viewers that crop to it show.

        The picture covers `bounds_l0` exactly.

        Returns:
            `(h, w, 3)` uint8 RGB.

        Raises:
            ResolutionError: As for `read_thumbnail`.
        """
        self.find_read_level(mpp)
        left, top, width, height = self.bounds_l0
        size_px = max(1, round(width * self.mpp[0] / mpp)), max(1, round(height * self.mpp[1] / mpp))
        return self._read_exactly((left, top), size_px, self._find_level((width / size_px[0], height / size_px[1])))

    def read_overview(self, size_px: tuple[int, int]) -> NDArray[np.uint8]:
        """Read the whole slide at `size_px`; needs no resolution.

        Args:
            size_px: `(width, height)` of the picture, at least 1 each is taken.

        Returns:
            `(height, width, 3)` uint8 RGB.
        """
        width, height = max(1, size_px[0]), max(1, size_px[1])
        return self._read_exactly(
            (0.0, 0.0), (width, height), self._find_level((self.size[0] / width, self.size[1] / height))
        )

    def _find_level(self, l0_per_px: tuple[float, float]) -> ReadLevel:
        """Find the coarsest level at least as fine as `l0_per_px`, level-0 pixels per output pixel on each axis."""
        best = None
        for level, scale in enumerate(self._scales):
            factors = l0_per_px[0] / scale[0], l0_per_px[1] / scale[1]
            if best is None or (min(factors) >= 1 - _FINE_ENOUGH and max(scale) >= best.scale_x):
                best = ReadLevel(level, *scale, *factors)
        assert best is not None  # a reader has at least one level
        return best

    def _read_exactly(
        self, corner_l0: tuple[float, float], size_px: tuple[int, int], read: ReadLevel
    ) -> NDArray[np.uint8]:
        """Read a box in pieces small enough to be decoded one at a time; the pieces join without a seam."""
        if min(size_px) < 1:
            raise ValueError(f"a box of {size_px[0]} x {size_px[1]} pixels is asked for and needs at least 1 x 1.")
        if min(read.factor_x, read.factor_y) >= _MIN_REDUCED_FACTOR:
            return self._read_reduced(corner_l0, size_px, read)
        halo = 2 * find_halo(read.factor_x), 2 * find_halo(read.factor_y)
        # Pieces are as wide as the box where a strip of it fits, since scanners and PNGs store rows of tiles.
        step_x = min(size_px[0], max(1, int((_MAX_SOURCE_PX**0.5 * 8 - halo[0]) / read.factor_x)))
        rows = _MAX_SOURCE_PX / (step_x * read.factor_x + halo[0])
        step_y = min(size_px[1], max(1, int((rows - halo[1]) / read.factor_y)))
        if (step_x, step_y) == tuple(size_px):
            return self.read_block(corner_l0, size_px, read).cut(corner_l0, size_px)
        box = np.empty((size_px[1], size_px[0], 3), dtype=np.uint8)
        l0_per_px = read.factor_x * read.scale_x, read.factor_y * read.scale_y
        for top in range(0, size_px[1], step_y):
            for left in range(0, size_px[0], step_x):
                piece = min(step_x, size_px[0] - left), min(step_y, size_px[1] - top)
                corner = corner_l0[0] + left * l0_per_px[0], corner_l0[1] + top * l0_per_px[1]
                box[top : top + piece[1], left : left + piece[0]] = self.read_block(corner, piece, read).cut(
                    corner, piece
                )
        return box

    def _read_reduced(
        self, corner_l0: tuple[float, float], size_px: tuple[int, int], read: ReadLevel
    ) -> NDArray[np.uint8]:
        """Read a box of a level much finer than asked: blocks of pixels are averaged first, strip by strip.

        A Lanczos filter of the whole factor would need a halo larger than the strips, and many times their work.
        """
        n = int(min(read.factor_x, read.factor_y) // 2)
        reduced = ReadLevel(read.level, read.scale_x * n, read.scale_y * n, read.factor_x / n, read.factor_y / n)
        level_size = self.level_dimensions[read.level]
        reduced_size = -(-level_size[0] // n), -(-level_size[1] // n)
        spans = reduced.find_spans(corner_l0, size_px, reduced_size, self.size)
        # The last block of a row may be cut by the slide's edge; it is the mean of the pixels there are.
        right, bottom = (
            span.stop * n if span.stop > whole else min(span.stop * n, extent)
            for span, whole, extent in zip(spans, reduced_size, level_size, strict=True)
        )
        left, top = spans[0].start * n, spans[1].start * n
        step = max(1, _MAX_SOURCE_PX // ((right - left) * n)) * n
        strips = []
        for row in range(top, bottom, step):
            strip = self.read_region((left, row), read.level, (right - left, min(step, bottom - row)))
            strips.append(np.asarray(Image.fromarray(strip).reduce(n)))
        block = SourceBlock(np.concatenate(strips), (spans[0].start, spans[1].start), reduced, reduced_size, self.size)
        return block.cut(corner_l0, size_px)


def _say(mpp: float) -> str:
    """Write a resolution with two decimals where those say it all."""
    return f"{mpp:.2f}" if math.isclose(mpp, round(mpp, 2), rel_tol=1e-9) else f"{mpp:.4g}"
