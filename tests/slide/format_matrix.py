"""Small files of every kind of TIFF and plain image, each with the pixels that it must be read as, or its refusal.

`list_cases` draws nothing; `try_case` writes one file and opens it. The table in docs/formats.md is `format_table`.
Run this file to write the table anew.
"""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyvips
import tifffile
from PIL import Image

WIDTH, HEIGHT = 211, 133
LOSSY = 6.0  # mean grey levels
Write = Callable[[Path], None]


def draw_scene() -> np.ndarray:
    """`(133, 211, 3)` uint8: smooth colours, red top left, blue bottom right."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    scene = np.stack([150 + 70 * np.sin(x / 23), 130 + 60 * np.cos(y / 19), 140 + 50 * np.sin((x + 2 * y) / 31)], 2)
    scene[:30, :40], scene[-24:, -50:] = (220, 20, 30), (20, 30, 220)
    scene[60:70, 80:90] = 255
    return scene.round().astype(np.uint8)


SCENE = draw_scene()
GREY = np.ascontiguousarray(SCENE[:, :, 1])


@dataclass(frozen=True)
class Case:
    """One file: the row of the table it belongs to, what it is called, how it is written, what must come out.

    `expected` is `(h, w, 3)` uint8, or None where the file must be refused; `tolerance` is in mean grey levels.
    """

    row: str
    name: str
    write: Write
    expected: np.ndarray | None
    tolerance: float = 0.0


def _grey(values: np.ndarray) -> np.ndarray:
    return np.repeat(np.asarray(values)[:, :, None], 3, axis=2).astype(np.uint8)


def _scaled(values: np.ndarray, most: int) -> np.ndarray:
    return ((values.astype(np.int64) * 255 + most // 2) // most).astype(np.uint8)


def _tiff(pixels: np.ndarray, **options: object) -> Write:
    return lambda path: tifffile.imwrite(path, pixels, metadata=None, **options)


def _vips(**options: object) -> Write:
    def write(path: Path) -> None:
        pyvips.Image.new_from_array(SCENE).tiffsave(str(path), **options)

    return write


_LAYOUTS = {"tiles": {"tile": (64, 48)}, "strips": {"rowsperstrip": 40}}
_CODECS = ("none", "lzw", "adobe_deflate", "deflate", "packbits", "lzma", "zstd")
_IMAGE_CODECS = ("png", "jpeg2000", "aperio_jp2000_rgb", "aperio_jp2000_ycbc", "webp", "jpegxl", "jpegxr", "lerc")


def list_cases() -> Iterator[Case]:
    """List every file that is tried."""
    yield from _list_codecs()
    yield from _list_depths()
    yield from _list_colours()
    yield from _list_orientations()
    yield from _list_pyramids()
    yield from _list_plain()


def _list_codecs() -> Iterator[Case]:
    for codec, (layout, where), predictor in itertools.product(_CODECS, _LAYOUTS.items(), (False, True)):
        if predictor and codec in ("none", "packbits"):
            continue
        options = {"photometric": "rgb", "compression": codec, "predictor": predictor, **where}
        yield Case(f"RGB 8-bit, {codec}", f"{layout}-p{predictor:d}", _tiff(SCENE, **options), SCENE)
        if not predictor:
            grey = _tiff(GREY, **{**options, "photometric": "minisblack"})
            yield Case(f"grey 8-bit, {codec}", layout, grey, _grey(GREY))
            planes = _tiff(np.moveaxis(SCENE, 2, 0).copy(), **{**options, "planarconfig": "separate"})
            yield Case(f"RGB 8-bit in planes, {codec}", layout, planes, SCENE)
    for codec, (layout, where) in itertools.product(_IMAGE_CODECS, _LAYOUTS.items()):
        options = {"photometric": "rgb", "compression": codec, **where}
        yield Case(f"RGB 8-bit, {codec}", layout, _tiff(SCENE, **options), SCENE, 1.5)
    for (layout, where), sampling in itertools.product(_LAYOUTS.items(), ((1, 1), (2, 1), (2, 2))):
        options = {"compression": "jpeg", "compressionargs": {"level": 95}, "subsampling": sampling}
        where = where if layout == "tiles" else {"rowsperstrip": 48}
        yield Case(
            "RGB 8-bit, jpeg", f"{layout}-{sampling}", _tiff(SCENE, **options, photometric="rgb", **where), SCENE, LOSSY
        )
    jpeg = {"compression": "jpeg", "compressionargs": {"level": 95}}
    for layout, where in (("tiles", {"tile": (64, 48)}), ("strips", {"rowsperstrip": 48})):
        yield Case(
            "grey 8-bit, jpeg", layout, _tiff(GREY, photometric="minisblack", **jpeg, **where), _grey(GREY), LOSSY
        )
    for order, big, layout in itertools.product("<>", (False, True), _LAYOUTS):
        options = {"byteorder": order, "bigtiff": big, "photometric": "rgb", "compression": "zlib", **_LAYOUTS[layout]}
        yield Case("byte orders and BigTIFF", f"{order}-{big}-{layout}", _tiff(SCENE, **options), SCENE)


def _list_depths() -> Iterator[Case]:
    deep = SCENE.astype(np.uint16) * 257
    for codec, (layout, where), order in itertools.product(("none", "lzw", "zlib", "zstd"), _LAYOUTS.items(), "<>"):
        options = {"compression": codec, "byteorder": order, **where}
        yield Case("RGB 16-bit", f"{codec}-{layout}-{order}", _tiff(deep, photometric="rgb", **options), SCENE)
        grey = _tiff(deep[:, :, 1].copy(), photometric="minisblack", **options)
        yield Case("grey 16-bit", f"{codec}-{layout}-{order}", grey, _grey(GREY))
    for bits, how in itertools.product((10, 12, 14), ("tag", "largest value")):
        most = (1 << bits) - 1
        values = ((SCENE.astype(np.uint32) * most + 127) // 255).astype(np.uint16)
        tags = [(341, "H", 3, (most,) * 3, True)] if how == "tag" else []
        for layout, where in _LAYOUTS.items():
            write = _tiff(values, photometric="rgb", compression="zlib", extratags=tags, **where)
            yield Case("10, 12 or 14 bits in 16", f"{bits}-{how}-{layout}", write, _scaled(values, most))
    for bits in (1, 2, 4, 10, 12):
        most = (1 << bits) - 1
        values = (GREY.astype(np.uint32) * most // 255).astype(np.uint16 if bits > 8 else np.uint8)
        values = values.astype(bool) if bits == 1 else values
        for (layout, where), meaning in itertools.product(_LAYOUTS.items(), ("minisblack", "miniswhite")):
            options = {} if bits == 1 else {"bitspersample": bits}
            shown = _scaled(values, most)
            expected = _grey(shown if meaning == "minisblack" else 255 - shown)
            if layout == "tiles" and bits not in (1,):
                continue  # tifffile packs strips alone
            write = _tiff(values, photometric=meaning, **options, **({} if layout == "strips" else where))
            yield Case(f"grey {bits}-bit, packed", f"{layout}-{meaning}", write, expected)
    for dtype in ("int8", "int16", "uint32", "float16", "float32", "float64"):
        for layout, where in _LAYOUTS.items():
            yield Case(
                "signed, float, 32 bits",
                f"{dtype}-{layout}",
                _tiff(GREY.astype(dtype), photometric="minisblack", **where),
                None,
            )


def _list_colours() -> Iterator[Case]:
    for codec, (layout, where) in itertools.product(("none", "lzw", "zlib"), _LAYOUTS.items()):
        options = {"compression": codec, **where}
        yield Case(
            "white is 0", f"{codec}-{layout}", _tiff(GREY, photometric="miniswhite", **options), _grey(255 - GREY)
        )
        colours = np.random.default_rng(2).integers(0, 256, (3, 256)).astype(np.uint16) * 257
        palette = _tiff(GREY, photometric="palette", colormap=colours, **options)
        yield Case("palette", f"{codec}-{layout}", palette, (colours // 257).astype(np.uint8).T[GREY])
        half = np.dstack([SCENE, np.where(np.arange(WIDTH) < 100, 255, 128)[None, :].repeat(HEIGHT, 0)]).astype(
            np.uint8
        )
        weight = half[:, :, 3:].astype(np.int64)
        laid = ((SCENE * weight + 255 * (255 - weight) + 127) // 255).astype(np.uint8)
        yield Case(
            "alpha, unassociated",
            f"{codec}-{layout}",
            _tiff(half, photometric="rgb", extrasamples=["unassalpha"], **options),
            laid,
        )
        multiplied = half.copy()
        multiplied[:, :, :3] = (SCENE * weight + 127) // 255
        yield Case(
            "alpha, associated",
            f"{codec}-{layout}",
            _tiff(multiplied, photometric="rgb", extrasamples=["assocalpha"], **options),
            laid,
            0.6,
        )
        clear = half.copy()
        clear[:, :, 3] = 0
        for kind in ("unassalpha", "assocalpha"):
            yield Case(
                "alpha 0 everywhere: ignored",
                f"{codec}-{layout}-{kind}",
                _tiff(clear, photometric="rgb", extrasamples=[kind], **options),
                SCENE,
            )
        yield Case(
            "a fourth sample without meaning",
            f"{codec}-{layout}",
            _tiff(clear, photometric="rgb", extrasamples=["unspecified"], **options),
            SCENE,
        )
        inks = np.dstack([255 - SCENE, np.zeros_like(GREY)])
        yield Case("CMYK, CIELAB", f"cmyk-{codec}-{layout}", _tiff(inks, photometric="separated", **options), None)
        yield Case("CMYK, CIELAB", f"cielab-{codec}-{layout}", _tiff(SCENE, photometric="cielab", **options), None)
    ycbcr = np.asarray(Image.fromarray(SCENE).convert("YCbCr"))
    for codec, (layout, where) in itertools.product(("lzw", "zlib"), _LAYOUTS.items()):
        yield Case(
            "YCbCr without JPEG",
            f"{codec}-{layout}",
            _tiff(ycbcr, photometric="ycbcr", subsampling=(1, 1), compression=codec, **where),
            SCENE,
            2.0,
        )


def _list_orientations() -> Iterator[Case]:
    for turn, (layout, where), codec in itertools.product(range(2, 9), _LAYOUTS.items(), ("lzw", "zlib", "jpeg")):
        options = {"compressionargs": {"level": 95}} if codec == "jpeg" else {}
        where = {"rowsperstrip": 48} if codec == "jpeg" and layout == "strips" else where
        tags = [(274, "H", 1, turn, True)]
        write = _tiff(SCENE, photometric="rgb", compression=codec, extratags=tags, **options, **where)
        yield Case(
            "orientation 2 to 8: as stored", f"{turn}-{layout}-{codec}", write, SCENE, LOSSY if codec == "jpeg" else 0
        )


def _list_pyramids() -> Iterator[Case]:
    for codec, subifd, depth in itertools.product(("none", "lzw", "deflate", "jpeg"), (False, True), ("rgb", "grey")):
        if depth == "grey" and codec == "jpeg":
            continue
        source = SCENE if depth == "rgb" else GREY

        def write(path: Path, codec=codec, subifd=subifd, source=source) -> None:
            image = pyvips.Image.new_from_array(source)
            image.tiffsave(
                str(path),
                compression=codec,
                tile=True,
                tile_width=64,
                tile_height=64,
                pyramid=True,
                subifd=subifd,
                Q=95,
            )

        kind = "SubIFDs" if subifd else "reduced pages"
        yield Case(
            f"pyramid, {kind}",
            f"{codec}-{depth}",
            write,
            SCENE if depth == "rgb" else _grey(GREY),
            LOSSY if codec == "jpeg" else 0,
        )
    for codec, kind in itertools.product(("zlib", "lzw", "jpeg2000", "zstd", "jpegxl"), ("rgb", "planes", "deep")):
        yield Case(
            f"OME-TIFF pyramid, {'R, G, B as grey planes' if kind == 'planes' else kind}",
            codec,
            _ome(codec, kind),
            SCENE,
            1.5 if codec.startswith("jpeg") else 0,
        )
    for codec in ("jpeg", "aperio_jp2000_rgb", "lzw", "zlib"):
        yield Case(
            "Aperio-like, thumbnail and macro",
            codec,
            _aperio(codec),
            SCENE,
            LOSSY if codec == "jpeg" else 1.5 if "2000" in codec else 0,
        )
    for first in ("macro", "grey", "small"):
        yield Case("another image before the scan", first, _several(first), SCENE)


def _ome(codec: str, kind: str) -> Write:
    def write(path: Path) -> None:
        data = {"rgb": SCENE, "planes": np.moveaxis(SCENE, 2, 0).copy(), "deep": SCENE.astype(np.uint16) * 257}[kind]
        options = {"tile": (64, 48), "compression": codec, "photometric": "minisblack" if kind == "planes" else "rgb"}
        names = {"Channel": {"Name": ["Red", "Green", "Blue"]}} if kind == "planes" else {}
        with tifffile.TiffWriter(path, ome=True) as tiff:
            tiff.write(data, subifds=1, metadata={"axes": "CYX" if kind == "planes" else "YXS", **names}, **options)
            tiff.write((data[:, ::2, ::2] if kind == "planes" else data[::2, ::2]).copy(), subfiletype=1, **options)

    return write


def _aperio(codec: str) -> Write:
    def write(path: Path) -> None:
        tiles = {"photometric": "rgb", "tile": (64, 48), "compression": codec, "metadata": None}
        if codec == "jpeg":
            tiles["compressionargs"] = {"level": 95}
        with tifffile.TiffWriter(path) as tiff:
            text = "Aperio Image Library v11\n211x133 [0,0 211x133] (64x48)|AppMag = 20|MPP = 0.5"
            tiff.write(SCENE, description=text, **tiles)
            tiff.write(
                SCENE[::4, ::4].copy(), photometric="rgb", description="Aperio Image Library\nthumb", metadata=None
            )
            tiff.write(SCENE[::2, ::2].copy(), description=text, **tiles)
            tiff.write(
                SCENE[:40, :100].copy(),
                photometric="rgb",
                subfiletype=9,
                description="Aperio\nmacro 100x40",
                metadata=None,
            )

    return write


def _several(first: str) -> Write:
    def write(path: Path) -> None:
        other = {
            "macro": SCENE[:50, :90].copy(),
            "grey": np.full((300, 400), 99, np.uint8),
            "small": SCENE[:60, :70].copy(),
        }[first]
        options = {"tile": (64, 48), "compression": "zlib", "metadata": None}
        with tifffile.TiffWriter(path) as tiff:
            tiff.write(
                other,
                photometric="rgb" if other.ndim == 3 else "minisblack",
                description="macro" if first == "macro" else None,
                **options,
            )
            tiff.write(SCENE, photometric="rgb", **options)

    return write


def _list_plain() -> Iterator[Case]:
    scene, grey = Image.fromarray(SCENE), Image.fromarray(GREY)
    clear = scene.copy()
    clear.putalpha(0)
    few = scene.quantize(16)
    png = {"RGB": (scene, SCENE), "grey": (grey, _grey(GREY)), "palette": (few, np.asarray(few.convert("RGB")))}
    png |= {"1-bit": (grey.convert("1"), np.asarray(grey.convert("1").convert("RGB"))), "alpha 0": (clear, SCENE)}
    png["16-bit"] = (Image.fromarray(GREY.astype(np.uint16) * 257), _grey(GREY))
    for name, (picture, expected) in png.items():
        yield Case("PNG", f"{name}.png", lambda path, picture=picture: picture.save(path), expected)
    jpeg = {"RGB": {}, "progressive": {"progressive": True}, "4:4:4": {"subsampling": 0}}
    for name, options in jpeg.items():
        yield Case(
            "JPEG",
            f"{name}.jpg".replace(":", ""),
            lambda path, options=options: scene.save(path, quality=95, **options),
            SCENE,
            LOSSY,
        )
    yield Case("JPEG", "grey.jpg", lambda path: grey.save(path, quality=95), _grey(GREY), LOSSY)
    yield Case("JPEG, CMYK", "cmyk.jpg", lambda path: scene.convert("CMYK").save(path), None)
    for suffix in ("bmp", "gif", "webp", "jp2"):
        yield Case("BMP, GIF, WebP, JPEG 2000 files", f"x.{suffix}", lambda path: scene.save(path), None)
