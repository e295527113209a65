"""Slides that are mutated: one at least for each reader, codec, depth and container that is read."""

import shutil
from pathlib import Path

import cv2
import numpy as np
import tifffile
import zarr
from numpy.typing import NDArray
from PIL import Image

from tests.fuzz.originals import Original
from tests.slide.dicom_files import write_series
from tests.slide.drawn import draw, shrink, write_scn
from tests.slide.mirax import write_mirax
from tests.tiny import draw_tissue, save_labelled_slide, save_slide

_RARE = 0.05  # of large files
_SHARED = {
    "DICOM": ("slides/openslide-boxes_0.dcm", 1.0),
    "small SVS": ("slides/openslide-small.svs", 1.0),
    "boxes": ("slides/openslide-boxes.tiff", 0.5),
    "scanned SVS": ("slides/CMU-1-Small-Region.svs", _RARE),
    "NDPI": ("slides/test3-DAPI-2-387.ndpi", _RARE),
}


def make_slides(folder: Path, shared: Path | None) -> list[Original]:
    """Make the slides, and copy the scanned ones where they are at hand."""
    folder.mkdir()
    pixels = draw_tissue(3, width=331, height=262)
    paths = {
        "JPEG pyramid": save_slide(folder / "jpeg.tif", pixels),
        "deflate pyramid": save_slide(folder / "deflate.tif", pixels, compression="deflate"),
        "SVS": save_labelled_slide(folder / "aperio.svs", pixels, said="x"),
        **_make_tiffs(folder, pixels),
        **_make_plain(folder, pixels),
    }
    shares = dict.fromkeys(paths, 1.0)
    for name, (source, share) in _SHARED.items() if shared is not None else ():
        target = folder / f"{name.replace(' ', '-')}{Path(source).suffix}"
        paths[name] = Path(shutil.copyfile(shared / source, target)) if shared else target
        shares[name] = share
    singles = [Original(f"slide: {name}", "slide", path, share=shares[name]) for name, path in paths.items()]
    return [*singles, *_make_folders(folder)]


def _make_tiffs(folder: Path, pixels: NDArray[np.uint8]) -> dict[str, Path]:
    """Write TIFF of each codec, depth, colour and layout that is read."""
    grey = np.ascontiguousarray(pixels[..., 1])
    tiled = {"metadata": None, "tile": (64, 96), "resolution": (20000, 20000), "resolutionunit": 3}
    strips = {"metadata": None, "rowsperstrip": 32}
    rgb = {"photometric": "rgb"}
    palette = np.random.default_rng(2).integers(0, 1 << 16, (3, 256)).astype(np.uint16)
    alpha = np.dstack([pixels, np.full_like(grey, 200)])
    planes = np.moveaxis(pixels, 2, 0).copy()
    ycbcr = np.asarray(Image.fromarray(pixels).convert("YCbCr"))
    kinds = {
        "LZW strips": (pixels, rgb | strips | {"compression": "lzw"}),
        "JPEG 2000": (pixels, rgb | tiled | {"compression": "jpeg2000"}),
        "zstd BigTIFF": (pixels, rgb | tiled | {"compression": "zstd", "bigtiff": True}),
        "uncompressed": (pixels, rgb | tiled),
        "PackBits": (pixels, rgb | strips | {"compression": "packbits"}),
        "LZMA": (pixels, rgb | tiled | {"compression": "lzma"}),
        "WebP": (pixels, rgb | tiled | {"compression": "webp"}),
        "JPEG XL": (pixels, rgb | tiled | {"compression": "jpegxl"}),
        "JPEG XR": (pixels, rgb | tiled | {"compression": "jpegxr"}),
        "LERC": (pixels, rgb | tiled | {"compression": "lerc"}),
        "PNG tiles": (pixels, rgb | tiled | {"compression": "png"}),
        "Aperio JPEG 2000": (pixels, rgb | tiled | {"compression": "aperio_jp2000_rgb"}),
        "JPEG 4:2:0": (pixels, rgb | tiled | {"compression": "jpeg", "subsampling": (2, 2)}),
        "JPEG strips": (pixels, rgb | {"compression": "jpeg", "metadata": None, "rowsperstrip": 48}),
        "16-bit": (pixels.astype(np.uint16) * 257, rgb | tiled | {"compression": "zlib", "predictor": True}),
        "12 bits in 16": (grey.astype(np.uint16) * 16, tiled | {"photometric": "minisblack", "compression": "lzw"}),
        "4-bit grey": (grey // 16, strips | {"photometric": "miniswhite", "bitspersample": 4}),
        "palette": (grey, tiled | {"photometric": "palette", "colormap": palette, "compression": "zlib"}),
        "alpha": (alpha, rgb | tiled | {"extrasamples": ["unassalpha"], "compression": "zlib"}),
        "planes": (planes, rgb | tiled | {"planarconfig": "separate", "compression": "zlib"}),
        "YCbCr": (ycbcr, tiled | {"photometric": "ycbcr", "subsampling": (1, 1), "compression": "lzw"}),
        "big-endian": (pixels, rgb | tiled | {"byteorder": ">", "compression": "zlib"}),
    }
    paths = {}
    for number, (name, (values, options)) in enumerate(kinds.items()):
        paths[name] = folder / f"tiff-{number}.tif"
        tifffile.imwrite(paths[name], values, **options)
    for name, photometric in (("OME-TIFF", "rgb"), ("OME-TIFF, planes", "minisblack")):
        paths[name] = folder / f"{photometric}.ome.tif"
        is_planes = name.endswith("planes")
        options = {"photometric": photometric, "tile": (64, 96), "compression": "deflate"}
        about = {"axes": "CYX" if is_planes else "YXS", "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5}
        about |= {"Channel": {"Name": ["Red", "Green", "Blue"]}} if is_planes else {}
        with tifffile.TiffWriter(paths[name], ome=True) as file:
            file.write(planes if is_planes else pixels, subifds=1, metadata=about, **options)
            half = planes[:, ::2, ::2] if is_planes else pixels[::2, ::2]
            file.write(half.copy(), subfiletype=1, **options)
    return paths


def _make_plain(folder: Path, pixels: NDArray[np.uint8]) -> dict[str, Path]:
    """Write PNG and JPEG."""
    picture = Image.fromarray(pixels)
    paths = {"PNG": folder / "field.png", "PNG, palette": folder / "few.png", "PNG, 16-bit": folder / "deep.png"}
    paths |= {"JPEG": folder / "field.jpg", "JPEG, progressive": folder / "progressive.jpg"}
    cv2.imwrite(str(paths["PNG"]), pixels[..., ::-1])
    picture.quantize(16).save(paths["PNG, palette"])
    cv2.imwrite(str(paths["PNG, 16-bit"]), pixels[..., 0].astype(np.uint16) * 257)
    cv2.imwrite(str(paths["JPEG"]), pixels[..., ::-1])
    picture.save(paths["JPEG, progressive"], progressive=True, dpi=(25400, 25400))
    return paths


def _make_folders(folder: Path) -> list[Original]:
    """Write slides that are several files: DICOM, MIRAX, OME-Zarr; and Leica's, whose scan lies on a canvas."""
    pixels, _ = draw(520, 400, blobs=((200, 190, 150, 140),))
    levels = [pixels, shrink(pixels, 2)]
    write_series(folder / "dicom", levels, (0.0005, 0.001))
    write_series(folder / "sparse", levels, (0.0005, 0.001), sparse=True)
    write_mirax(folder / "mirax" / "s.mrxs", pixels[:384, :512], (4, 4), (16, 12))
    write_scn(folder / "s.scn", pixels, (100, 60), (800, 600), factors=(1, 2))
    for name, version in (("zarr2", "0.4"), ("zarr3", "0.5")):
        _write_zarr(folder / name / "s.zarr", levels, version)
    kinds = {
        "slide: DICOM series": ("dicom", ""),
        "slide: DICOM series, sparse": ("sparse", "i0.dcm"),
        "slide: MIRAX": ("mirax", "s.mrxs"),
        "slide: OME-Zarr 0.4": ("zarr2", "s.zarr"),
        "slide: OME-Zarr 0.5": ("zarr3", "s.zarr"),
    }
    made = []
    for name, (inner, opened) in kinds.items():
        files = (path for path in sorted((folder / inner).rglob("*")) if path.is_file())
        listed = tuple(path.relative_to(folder / inner).as_posix() for path in files)
        made.append(Original(name, "slide", folder / inner, listed, share=1.5, opened=opened))
    return [*made, Original("slide: Leica SCN", "slide", folder / "s.scn")]


def _write_zarr(path: Path, levels: list[NDArray[np.uint8]], version: str) -> None:
    """Write an OME-Zarr image of channels first."""
    path.parent.mkdir()
    group = zarr.create_group(str(path), zarr_format=3 if version == "0.5" else 2)
    datasets = []
    for k, level in enumerate(levels):
        stored = group.create_array(str(k), shape=(3, *level.shape[:2]), chunks=(3, 256, 256), dtype="uint8")
        stored[:] = np.moveaxis(level, 2, 0)
        scale = {"type": "scale", "scale": [1.0, 0.5 * 2**k, 0.5 * 2**k]}
        datasets.append({"path": str(k), "coordinateTransformations": [scale]})
    axes = [{"name": "c", "type": "channel"}]
    axes += [{"name": axis, "type": "space", "unit": "micrometer"} for axis in "yx"]
    ome = {"multiscales": [{"version": version, "axes": axes, "datasets": datasets}]}
    group.attrs.update({"ome": {"version": "0.5", **ome}} if version == "0.5" else ome)
