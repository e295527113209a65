"""The images of a TIFF file: which pages are levels of one slide, which are other images, and which one is meant."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from lamella.errors import SlideError
from lamella.slide.samples import RGB, YCBCR
from lamella.slide.stated import OmeImage, find_tiff_mpp, load_ome_images
from lamella.slide.tiff import TiffPage

_MAX_PADDING_PX = 1024  # of writers that fill levels up to whole tiles or blocks of them
_ASSOCIATED = ("label", "macro", "thumbnail", "overview")


@dataclass(frozen=True, slots=True, kw_only=True)
class TiffImage:
    """One image of a TIFF file, with its smaller levels.

    Attributes:
        name: Its name, empty where the file gives none.
        levels: For each level, finest first, its pages: one, or red, green and blue.
        mpp: `(x, y)` um per pixel of level 0 as the file states it, None where it does not.
        significant_bits: Bits that its values use, None where not stated.
        notes: What is taken for granted of it.
    """

    name: str
    levels: tuple[tuple[TiffPage, ...], ...]
    mpp: tuple[float, float] | None
    significant_bits: int | None = None
    notes: tuple[str, ...] = ()

    @property
    def size(self) -> tuple[int, int]:
        """`(width, height)` of level 0, in pixels."""
        return self.levels[0][0].size

    @property
    def level_dimensions(self) -> tuple[tuple[int, int], ...]:
        """`(width, height)` of each level."""
        return tuple(level[0].size for level in self.levels)

    @property
    def is_colour(self) -> bool:
        """Whether it is stored in colour, as brightfield is."""
        page = self.levels[0][0]
        return len(self.levels[0]) == 3 or page.photometric in (RGB, YCBCR) or page.n_samples == 3

    @property
    def associated(self) -> str:
        """Which associated image it says it is: "label", "macro", "thumbnail", "overview"; empty for a slide."""
        words = re.findall("[a-z]+", self.name.lower())
        return next((word for word in _ASSOCIATED if word in words), "")


def list_tiff_images(pages: Sequence[TiffPage]) -> tuple[TiffImage, ...]:
    """List the images of a TIFF, in the file's order; label, macro and thumbnail among them where they are named."""
    ome = load_ome_images(pages[0].description) if "<OME" in pages[0].description else ()
    images = [gathered for image in ome if (gathered := _gather_ome(image, pages)) is not None]
    return tuple(images) or _gather_pages(pages)


def choose_image(name: str, images: Sequence[TiffImage], image: str | None) -> tuple[TiffImage, tuple[str, ...]]:
    """Choose the image that is read, and say in notes which one it is where there are several.

    Args:
        name: The slide's file name, for messages.
        images: All images of the file.
        image: A number from 1 or a name; None takes the largest in colour.

    Raises:
        SlideError: If there is no such image, or it is a label or macro, which are never read.
    """
    slides = [image_ for image_ in images if not image_.associated]
    said = say_images(slides)
    if image is not None:
        chosen = [image_ for number, image_ in enumerate(slides, 1) if image in (str(number), image_.name)]
        if len(chosen) != 1:
            problem = "two images of that name" if chosen else "no such image"
            raise SlideError(
                f"slide '{name}' is asked for image '{image}' and has {problem}: it holds {'; '.join(said) or 'none'}. "
                "Pass one of these numbers."
            )
        return chosen[0], ()
    if not slides:
        raise SlideError(
            f"slide '{name}' holds no image but {', '.join(image_.associated for image_ in images)}, and a scan is "
            "needed. Use the file that holds the scan."
        )
    largest = max(slides, key=lambda image_: (image_.is_colour, image_.size[0] * image_.size[1]))
    if len(slides) == 1:
        return largest, ()
    number = slides.index(largest) + 1
    return largest, (
        f"image {number} of {len(slides)} is read, the largest{' in colour' if largest.is_colour else ''}; the file "
        f"holds {'; '.join(said)} (--image chooses another)",
    )


def say_images(images: Sequence[TiffImage]) -> list[str]:
    """Describe images in a few words each: number, name and size; the first ten."""
    said = [
        f"{number}{f' {image.name!r}' if image.name else ''} ({image.size[0]} x {image.size[1]}"
        f"{'' if image.is_colour else ', grey'})"
        for number, image in enumerate(images, 1)
    ]
    return said if len(said) <= 10 else [*said[:10], f"and {len(said) - 10} more"]


def _gather_ome(image: OmeImage, pages: Sequence[TiffPage]) -> TiffImage | None:
    """Gather the pages of an OME image; None where they are not in this file."""
    main = {page.directory: page for page in pages if page.sub < 0}
    subs: dict[int, list[TiffPage]] = {}
    for page in pages:
        if page.sub >= 0:
            subs.setdefault(page.directory, []).append(page)
    planes = [main.get(directory) for directory in image.planes]
    if planes[0] is None:
        return None
    notes = []
    taken = [planes[0]]
    if len(planes) > 1:
        order = _order_colours(image, planes)
        if order:
            taken = [plane for number in order if (plane := planes[number]) is not None]
            notes.append(
                "three grey channels are read as red, green and blue"
                + ("" if all(image.colours) else ": the file does not name them")
            )
        else:
            name = image.channels[0] if image.channels and image.channels[0] else ""
            notes.append(
                f"channel 1{f' ({name!r})' if name else ''} of {len(planes)} is read as grey; the others are not read"
            )
    if image.n_depths > 1:
        notes.append(f"the first of {image.n_depths} planes in depth or time is read")
    levels = [tuple(taken)]
    for sub in range(min(len(subs.get(page.directory, ())) for page in taken)):
        level = tuple(subs[page.directory][sub] for page in taken)
        if is_scaled(levels[0][0], level[0]) and len({page.size for page in level}) == 1:
            levels.append(level)
    if len(levels) == 1 and len(taken) == 1:
        levels += [(page,) for page in pages if page.sub < 0 and _follows(page, taken[0], pages)]
    return TiffImage(
        name=image.name,
        levels=tuple(sorted(levels, key=lambda level: -level[0].size[0])),
        mpp=image.mpp,
        significant_bits=image.significant_bits,
        notes=tuple(notes),
    )


def _order_colours(image: OmeImage, planes: Sequence[TiffPage | None]) -> tuple[int, ...] | None:
    """Find which planes are red, green and blue; None where they are channels of something else."""
    alike = len(planes) == 3 and len({plane and (plane.size, plane.bits, plane.n_samples) for plane in planes}) == 1
    if not alike or planes[0] is None or planes[0].n_samples != 1:
        return None
    colours = list(image.colours)
    if sorted(colours) == ["blue", "green", "red"] and (any(image.channels) or planes[0].bits == (8,)):
        return tuple(colours.index(colour) for colour in ("red", "green", "blue"))
    unnamed = not any(image.channels) and not any(colours)
    return (0, 1, 2) if unnamed and planes[0].bits == (8,) else None


def _gather_pages(pages: Sequence[TiffPage]) -> tuple[TiffImage, ...]:
    """Gather the pages of a TIFF that is no OME-TIFF: smaller ones that are marked as such are levels."""
    main = [page for page in pages if page.sub < 0]
    is_aperio = any(page.description.startswith("Aperio") for page in main)
    bases: list[TiffPage] = []
    levels: dict[int, list[TiffPage]] = {}
    for page in sorted(main, key=lambda page: (page.is_reduced, -page.size[0] * page.size[1], page.directory)):
        is_level = page.is_reduced or (is_aperio and page.tiled)
        parents = [base for base in bases if is_level and is_scaled(base, page)]
        if parents:
            # The one it follows most closely in the file, where several have its shape.
            before = [base for base in parents if base.directory < page.directory] or parents
            levels[max(before, key=lambda base: base.directory).at].append(page)
        elif not page.is_reduced:
            bases.append(page)
            levels[page.at] = [page]
    if not bases:
        bases, levels = [main[0]], {main[0].at: [main[0]]}
    for base in bases:
        subs = [page for page in pages if page.sub >= 0 and page.directory == base.directory]
        levels[base.at] += [page for page in subs if is_scaled(base, page)]
    images = [
        TiffImage(
            name=_name_page(base, is_aperio=is_aperio, is_first=base is bases[0]),
            levels=tuple((page,) for page in sorted(levels[base.at], key=lambda page: -page.size[0])),
            mpp=find_tiff_mpp(base),
        )
        for base in bases
    ]
    return tuple(sorted(images, key=lambda image: image.levels[0][0].directory))


def _name_page(page: TiffPage, *, is_aperio: bool, is_first: bool) -> str:
    """Name a page: Aperio's other images are label, macro or thumbnail, which the second line of their text says."""
    if is_aperio and not is_first:
        text = page.description.partition("\n")[2].strip().lower()
        return next((word for word in _ASSOCIATED if text.startswith(word)), "thumbnail")
    words = page.description.strip()
    return words.lower() if words.lower() in _ASSOCIATED else ""


def is_scaled(base: TiffPage, page: TiffPage) -> bool:
    """Tell whether a page has the shape of a smaller level of another, and samples of the same kind.

    A page in tiles of the same size may be filled up with padding, whose extent its pixels tell at opening
    (`lamella.slide.levels`).
    """
    if (page.n_samples, page.bits) != (base.n_samples, base.bits):
        return False
    if page.tiled and base.tiled and page.tile_size == base.tile_size:
        return page.size[0] <= base.size[0] + _MAX_PADDING_PX and page.size[1] <= base.size[1] + _MAX_PADDING_PX
    if page.size[0] >= base.size[0]:
        return False
    scale = base.size[0] / page.size[0], base.size[1] / page.size[1]
    # A pyramid drops or pads up to a pixel at each halving, and some writers pad levels to whole tiles.
    slack = [1 + 2 * min(page.tile_size[axis] if page.tiled else 1, 2) / page.size[axis] for axis in range(2)]
    return max(scale) / min(scale) <= 1.02 * max(slack)


def _follows(page: TiffPage, base: TiffPage, pages: Sequence[TiffPage]) -> bool:
    """Tell whether a page is a marked smaller version that comes after a base page and before the next one."""
    if page.directory <= base.directory or not page.is_reduced or not is_scaled(base, page):
        return False
    between = [other for other in pages if other.sub < 0 and base.directory < other.directory < page.directory]
    return all(other.is_reduced for other in between)
