"""A map as a pyramidal OME-TIFF: one float32 channel that states its resolution, so that it registers.

The map covers the whole slide, so its extent in um is the slide's, and a viewer that places images by um lays it on the
slide without a hand. NaN is where no tile lies.
"""

from pathlib import Path
from xml.sax.saxutils import quoteattr

import numpy as np
import pyvips
from numpy.typing import NDArray

from lamella.errors import OutputError
from lamella.files import replacing

_TILE = 256


def save_map(raster: NDArray[np.float32] | Path, path: Path, *, slide_um: tuple[float, float], channel: str) -> None:
    """Write a map as a tiled, deflated, pyramidal OME-TIFF.

    Args:
        raster: `(h, w)` float32, or the `.npy` file of one, which is streamed.
        path: Where to write.
        slide_um: `(width, height)` of the slide, in um.
        channel: What is measured, in words.

    Raises:
        OutputError: If the file cannot be written.
    """
    if isinstance(raster, Path):
        on_disk = np.lib.format.open_memmap(raster, mode="r")
        height, width = on_disk.shape
        image = pyvips.Image.rawload(str(raster), width, height, 1, offset=on_disk.offset, format="float")
    else:
        height, width = raster.shape
        image = pyvips.Image.new_from_memory(np.ascontiguousarray(raster).tobytes(), width, height, 1, "float")
    image = image.copy(interpretation="b-w")
    mpp = slide_um[0] / width, slide_um[1] / height
    image.set_type(pyvips.GValue.gstr_type, "image-description", _describe((height, width), mpp, channel))
    with replacing(path) as temporary:
        image.tiffsave(
            str(temporary),
            tile=True,
            tile_width=_TILE,
            tile_height=_TILE,
            pyramid=True,
            subifd=True,
            # Nearest: a mean would spread the NaN of empty places over their neighbours, level by level.
            region_shrink="nearest",
            compression="deflate",
            predictor="none",
            xres=1000 / mpp[0],
            yres=1000 / mpp[1],
            resunit="cm",
        )


def load_map(path: Path, *, long_px: int | None = None) -> NDArray[np.float32]:
    """Return a map, averaged down where that is asked; empty places do not bear on their neighbours.

    Args:
        path: A TIFF of `save_map`.
        long_px: Pixels that the longer side has at most; None is all.

    Returns:
        `(h, w)` float32, NaN where no tile lies.

    Raises:
        OutputError: If the file is absent or damaged.
    """
    try:
        # libvips remembers files by name: this one may have been another before.
        image = pyvips.Image.new_from_file(str(path), access="sequential", revalidate=True)
        factor = 1 if long_px is None else max(1, -(-max(image.width, image.height) // long_px))
        if factor > 1:
            image = _shrink(image, factor)
        values: NDArray[np.float32] = image.numpy().reshape(image.height, image.width).astype(np.float32)
    except pyvips.Error as error:
        raise OutputError(f"map '{path.name}' is absent or damaged. Run the command that made it again.") from error
    return values


def _shrink(image: pyvips.Image, factor: int) -> pyvips.Image:
    """Average down by a whole factor, leaving NaN out."""
    real = image == image  # NaN is not equal to itself
    share = (real / 255.0).cast("float").shrink(factor, factor, ceil=True)
    total = real.ifthenelse(image, 0.0).shrink(factor, factor, ceil=True)
    return (share > 0).ifthenelse(total / share, float("nan")).cast("float")


def _describe(shape: tuple[int, int], mpp: tuple[float, float], channel: str) -> str:
    """Return the OME-XML of a map: size, resolution, and what its channel measures. It names no slide."""
    height, width = shape
    return (
        '<?xml version="1.0" encoding="UTF-8"?>'
        '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06">'
        '<Image ID="Image:0" Name="map">'
        '<Pixels ID="Pixels:0" DimensionOrder="XYCZT" Type="float" BigEndian="false" Interleaved="false" '
        f'SizeX="{width}" SizeY="{height}" SizeC="1" SizeZ="1" SizeT="1" '
        f'PhysicalSizeX="{mpp[0]:.9g}" PhysicalSizeXUnit="\u00b5m" '
        f'PhysicalSizeY="{mpp[1]:.9g}" PhysicalSizeYUnit="\u00b5m">'
        f'<Channel ID="Channel:0:0" Name={quoteattr(channel)} SamplesPerPixel="1"/>'
        '<TiffData IFD="0" PlaneCount="1"/>'
        "</Pixels></Image></OME>"
    )
