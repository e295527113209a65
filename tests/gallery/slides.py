"""Slides that cannot be opened."""

from pathlib import Path

from tests.gallery.case import CUT, Case, Step
from tests.gallery.scenes.encoders import write_encoder
from tests.gallery.scenes.slides import (
    draw_other_level,
    draw_slide,
    draw_truncated,
    draw_zeroed,
    write_png_header,
    write_zarr,
)

STEP = Step(
    title="Opening slides",
    introduction="These name the slide. With several slides the others are finished first; each that could not be "
    "done stands in `failures.csv` too, with the step it stopped in.",
    cases=(
        Case(
            heading="The slide is not there",
            command="tiles S-0412.svs --out tiles",
            scene=lambda: None,
            names="S-0412.svs",
            why="In a table, paths are taken from the table's own folder.",
        ),
        Case(
            heading="The slide is empty",
            command="tiles S-0412.svs --out tiles",
            scene=lambda: Path("S-0412.svs").touch(),
            names="S-0412.svs",
            why="A copy that was broken off at once leaves a file of 0 bytes.",
        ),
        Case(
            heading="The slide is cut short",
            command=f"tiles S-0412.tif {CUT} --out tiles",
            scene=draw_truncated,
            names="S-0412.tif",
            why="It would open, and its lower part would be white. Compare its size with the original.",
        ),
        Case(
            heading="The slide is something else",
            command="tiles S-0412.svs --out tiles",
            scene=lambda: Path("S-0412.svs").write_text("see the other folder\n", encoding="utf-8"),
            names="S-0412.svs",
            why="The suffix says nothing; the content is looked at.",
        ),
        Case(
            heading="The folder holds no slide",
            command="tiles S-0412 --out tiles",
            scene=lambda: Path("S-0412").mkdir(),
            names="S-0412",
            why="A folder stands for the slides in it; one of a DICOM slide's files, or of OME-Zarr, is itself a "
            "slide.",
        ),
        Case(
            heading="A level of the slide shows another image",
            command="tiles S-0412.tif --out tiles",
            scene=lambda: draw_other_level("S-0412.tif"),
            names="S-0412.tif",
            why="A thumbnail stored among the levels, or a level that is shifted: tissue would be detected in the "
            "wrong place. Levels that are merely padded to whole tiles are read as they should be.",
        ),
        Case(
            heading="OME-Zarr that is not brightfield",
            command="tiles S-0412.zarr --out tiles",
            scene=lambda: write_zarr("S-0412.zarr", dtype="<u2", channels=4),
            names="S-0412.zarr",
            why="Red, green and blue of 8 bits each are read; fluorescence has no stain to look for tissue by.",
        ),
        Case(
            heading="A MIRAX slide without its folder",
            command="tiles S-0412.mrxs --out tiles",
            scene=lambda: Path("S-0412.mrxs").write_bytes(b"\xff\xd8\xff\xe0 a preview"),
            names="S-0412.mrxs",
            why="A .mrxs file is only the index; the pixels lie in a folder of the same name.",
        ),
        Case(
            heading="Two slides have one name",
            command="tiles a/S-0412.svs b/S-0412.svs --out tiles",
            scene=lambda: None,
            names="S-0412",
            why="Slides named one by one go by their file's name; a table can give them ids.",
        ),
        Case(
            heading="A picture claims more pixels than can be decoded",
            command="tiles S-0412.png --out tiles",
            scene=lambda: write_png_header("S-0412.png", 60_000, 50_000),
            names="S-0412.png",
            why="PNG and JPEG are decoded whole; tiled formats are not.",
        ),
        Case(
            heading="The slide is a PDF or another kind of picture",
            command="tiles S-0412.bmp --out tiles",
            scene=lambda: Path("S-0412.bmp").write_bytes(b"BM" + bytes(200)),
            names="S-0412.bmp",
            why="Slide formats of the scanners are listed in docs/formats.md.",
        ),
        Case(
            heading="The slide does not hold that many images",
            command="tiles S-0412.tif --image 3 --out tiles",
            scene=lambda: draw_slide("S-0412.tif"),
            names="image '3'",
            why="Numbers count from 1. In a table the image stands in the column `image`.",
        ),
        Case(
            heading="The slide was damaged in the middle",
            command=f"extract S-0412.tif {CUT} --encoder mine.py:build --out bags",
            scene=lambda: (draw_zeroed("S-0412.tif"), write_encoder("mine.py")),
            names="S-0412.tif",
            why="A broken-off copy may have its full size and zeros in place of pixels.",
        ),
        Case(
            heading="OME-Zarr without metadata",
            command="tiles S-0412.zarr --out tiles",
            scene=lambda: (
                write_zarr("S-0412.zarr", dtype="|u1", channels=3),
                Path("S-0412.zarr/.zattrs").write_text("{}", encoding="utf-8"),
            ),
            names="S-0412.zarr",
            why="Often the inner folder of a level was copied instead of the whole.",
        ),
    ),
)
