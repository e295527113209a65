"""Run as a child: opens slides and reads their first tiles before anyone else does.

A slide that ends the process that reads it, takes all its memory or never comes to an end is then a slide that cannot
be read, and the others go on.
"""

from pathlib import Path

from lamella.children import EXTRA_BYTES, SECONDS, Child, serve
from lamella.errors import LamellaError, SlideError
from lamella.slide.slide import Slide, open_slide

CHILD = Child("lamella.slide.child")
_TILE_PX = 256
_MOST_DECODED_PX = 10**8  # of an image that is decoded whole at its first read


def try_slide(path: Path, *, slide_mpp: float | None = None, image: str | None = None) -> None:
    """Have a child open a slide and read a tile in the middle of each level.

    What the child can say in words is left to whoever opens the slide next.

    Raises:
        SlideError: If that ended the child, took it over 60 s, or more than 2 GiB of memory.
    """
    if not path.exists():
        return
    raised = CHILD.ask(path=str(path.absolute()), slide_mpp=slide_mpp, image=image)
    if raised is None:
        raise SlideError(
            f"slide '{path.name}' cannot be read: opening it crashes its decoder or takes over {SECONDS:.0f} s. Check "
            "that it opens in QuPath, and copy it again from its source if it does not."
        )
    if raised == "MemoryError":
        raise SlideError(
            f"slide '{path.name}' cannot be read: opening it takes more than {EXTRA_BYTES >> 30} GiB of memory. "
            "Convert it to a tiled TIFF: vips tiffsave IN OUT.tif --tile --pyramid --compression jpeg."
        )


def _try(path: str, slide_mpp: float | None, image: str | None = None) -> str:
    """Return the name of what was raised and is not ours; empty where all went well."""
    try:
        with open_slide(path, slide_mpp=slide_mpp, image=image) as slide:
            _read_tiles(slide)
    except LamellaError:
        return ""
    except Exception as error:  # noqa: BLE001 - the parent meets the same, or says that memory was short
        return type(error).__name__
    return ""


def _read_tiles(slide: Slide) -> None:
    for level, (width, height) in enumerate(slide.level_dimensions):
        if slide.format in ("png", "jpeg") and width * height > _MOST_DECODED_PX:
            continue
        size = min(_TILE_PX, width), min(_TILE_PX, height)
        slide.read_region(((width - size[0]) // 2, (height - size[1]) // 2), level, size)


if __name__ == "__main__":
    serve(_try)
