"""Draw: a recipe becomes a pyramidal TIFF and the truth about it."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyvips
from numpy.typing import NDArray

from lamella.errors import OutputError
from lamella.files import replacing
from lamella.samples.marks import Marks
from lamella.samples.painter import paint
from lamella.samples.plan import Plan, plan_slide
from lamella.samples.recipe import SampleSlide, SlideRecipe
from lamella.samples.stain import StainStyle
from lamella.temporaries import temporary_folder

_BLOCK_PX = 1024
_IN_MEMORY_BYTES = 1 << 27


def draw_slide(path: Path, recipe: SlideRecipe) -> SampleSlide:
    """Draw a slide as a pyramidal TIFF with JPEG tiles that says its resolution; return the truth about it.

    The same recipe gives the same bytes. Slides over 128 MiB of pixels are drawn by way of a temporary file
    beside `path`, so memory does not grow with them.

    Args:
        path: File to write, `.tiff`; it appears whole or not at all.
        recipe: What to draw.

    Raises:
        OutputError: If the file cannot be written.
    """
    path = Path(path)
    plan = plan_slide(recipe)
    _save_pyramid(path, recipe, _paint_strips(plan, recipe))
    lesions = plan.structures.lesions
    outlines = tuple(lesions.outline(which, recipe.mpp) for which in range(len(lesions)))
    return SampleSlide(path=path, recipe=recipe, lesions=outlines, tissue_px=plan.tissue_um2 / recipe.mpp**2)


def _find_look(recipe: SlideRecipe) -> tuple[StainStyle, Marks]:
    """Return stain, scanner and marks of a slide."""
    rng = np.random.default_rng([107, recipe.seed])
    style = StainStyle.draw(recipe.batch, rng)
    size_um = (recipe.size[0] * recipe.mpp, recipe.size[1] * recipe.mpp)
    return style, Marks.draw(rng, size_um, pen=recipe.pen)


def _paint_strips(plan: Plan, recipe: SlideRecipe) -> Iterator[NDArray[np.uint8]]:
    """Yield the slide from top to bottom, as strips over its whole width."""
    width, height = recipe.size
    style, marks = _find_look(recipe)
    for top in range(0, height, _BLOCK_PX):
        n_rows = min(_BLOCK_PX, height - top)
        blocks = [
            paint(plan, style, marks, (left, top), (min(_BLOCK_PX, width - left), n_rows), recipe.mpp)
            for left in range(0, width, _BLOCK_PX)
        ]
        yield np.concatenate(blocks, axis=1)


def _save_pyramid(path: Path, recipe: SlideRecipe, strips: Iterator[NDArray[np.uint8]]) -> None:
    """Write strips as a pyramid, whole or not at all."""
    width, height = recipe.size
    with replacing(path) as temporary:
        if width * height * 3 <= _IN_MEMORY_BYTES:
            pixels = np.concatenate(list(strips))
            temporary.write_bytes(_compress(path, recipe, pyvips.Image.new_from_array(pixels)))
            return
        with temporary_folder(path) as folder:
            with (folder / "pixels").open("wb") as raw:
                for strip in strips:
                    raw.write(strip.tobytes())
            image = pyvips.Image.rawload(str(folder / "pixels"), width, height, 3, access="sequential")
            temporary.write_bytes(_compress(path, recipe, image.copy(interpretation="srgb")))


def _compress(path: Path, recipe: SlideRecipe, image: pyvips.Image) -> bytes:
    """Return a pyramidal TIFF of `image`; it is written by us, so that a full disk is noticed and named."""
    per_mm = 1000 / recipe.mpp
    try:
        content: bytes = image.copy(xres=per_mm, yres=per_mm).tiffsave_buffer(
            compression="jpeg",
            Q=85,
            tile=True,
            tile_width=256,
            tile_height=256,
            pyramid=True,
            resunit="cm",
            bigtiff=recipe.size[0] * recipe.size[1] > 1 << 30,
        )
    except pyvips.Error as error:
        reason = str(error).strip().splitlines()[-1]
        raise OutputError(f"'{path}' cannot be compressed ({reason}). Draw a smaller slide.") from error
    return content
