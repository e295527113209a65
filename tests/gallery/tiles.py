"""Tissue is not found, tiles do not fit, regions are of something else."""

from pathlib import Path

from tests.gallery.case import CUT, Case, Step
from tests.gallery.scenes.slides import draw_slide
from tests.gallery.scenes.tables import write_region

STEP = Step(
    title="Tissue and tiles",
    cases=(
        Case(
            heading="The slide holds no tissue",
            command=f"tiles S-0412.tif {CUT} --out tiles",
            scene=lambda: draw_slide("S-0412.tif", blank=True),
            names="S-0412",
            why="Blank, fluorescent and washed-out slides look like glass. `lamella tissue` draws what was found.",
        ),
        Case(
            heading="No tile holds enough tissue",
            command=f"tiles S-0412.tif {CUT} --include lesion.geojson --out tiles",
            scene=lambda: (draw_slide("S-0412.tif"), write_region("lesion.geojson", corner=(100, 100))),
            names="S-0412",
            why="The tissue, or what of it the regions leave, is narrower than a tile everywhere.",
        ),
        Case(
            heading="A tile is larger than the slide",
            command="tiles S-0412.tif --tile-px 1024 --out tiles",
            scene=lambda: draw_slide("S-0412.tif"),
            names="1024",
            why="Often the resolution is wrong, and the slide is smaller than it should be.",
        ),
        Case(
            heading="A stride that cannot be",
            command="tiles S-0412.tif --stride 0 --out tiles",
            scene=lambda: None,
            names="stride",
            why="The stride is the way from one tile to the next, in pixels at `--mpp`.",
        ),
        Case(
            heading="An enlargement that cannot be",
            command="tiles S-0412.tif --max-upsample 40 --out tiles",
            scene=lambda: None,
            names="--max-upsample",
            why="It is a factor, not a magnification.",
        ),
        Case(
            heading="Regions that are no GeoJSON",
            command=f"tiles S-0412.tif {CUT} --include tumour.geojson --out tiles",
            scene=lambda: (
                draw_slide("S-0412.tif"),
                Path("tumour.geojson").write_text("tumour\n", encoding="utf-8"),
            ),
            names="tumour.geojson",
            why="In QuPath: File, Export objects as GeoJSON.",
        ),
        Case(
            heading="Regions without an area",
            command=f"tiles S-0412.tif {CUT} --include tumour.geojson --out tiles",
            scene=lambda: (
                draw_slide("S-0412.tif"),
                Path("tumour.geojson").write_text('{"type": "Point", "coordinates": [100, 80]}', encoding="utf-8"),
            ),
            names="tumour.geojson",
            why="Points and lines enclose nothing.",
        ),
        Case(
            heading="Regions of another slide",
            command=f"tiles S-0412.tif {CUT} --include tumour.geojson --out tiles",
            scene=lambda: (draw_slide("S-0412.tif"), write_region("tumour.geojson", corner=(9000, 7000))),
            names="S-0412",
            why="The outlines lie outside the slide: they are of another slide, or in um.",
        ),
        Case(
            heading="One file of regions for several slides",
            command=f"extract S-0412.tif S-0587.tif {CUT} --exclude pen.geojson --out bags",
            scene=lambda: write_region("pen.geojson", corner=(10, 10)),
            names="--exclude",
            why="Outlines are in the pixels of one slide.",
        ),
        Case(
            heading="Regions that are not there",
            command=f"extract S-0412.tif {CUT} --include outlines --out bags",
            scene=lambda: None,
            names="outlines",
            why="Look for a slip in the name.",
        ),
        Case(
            heading="No file of regions is called after a slide",
            command=f"tiles S-0412.tif {CUT} --include regions --out tiles",
            scene=lambda: write_region("regions/scan-7.geojson", corner=(10, 10)),
            names="S-0412.geojson",
            why="Files are called after slides: `S-0412.geojson`, or `S-0412.svs.geojson` as QuPath does. Slides "
            "without a file are used whole, so where no file fits at all the names are wrong.",
        ),
        Case(
            heading="Two files of regions for one slide",
            command=f"tiles S-0412.tif {CUT} --include regions --out tiles",
            scene=lambda: (
                write_region("regions/S-0412.geojson", corner=(10, 10)),
                write_region("regions/S-0412.tif.geojson", corner=(90, 10)),
            ),
            names="S-0412.tif.geojson",
            why="Both are of that slide, and they may differ.",
        ),
        Case(
            heading="Regions of several classes",
            command=f"tiles S-0412.tif {CUT} --include tumour.geojson --out tiles",
            scene=lambda: write_region("tumour.geojson", corner=(10, 10), classes=("Tumor", "Stroma")),
            names="Stroma",
            why="Say which class counts. QuPath's classes that end in `*`, such as `Ignore*`, never do.",
        ),
        Case(
            heading="No region is of that class",
            command=f"tiles S-0412.tif {CUT} --exclude pen.geojson --exclude-class Pen --out tiles",
            scene=lambda: write_region("pen.geojson", corner=(10, 10), classes=("Ink", "Fold")),
            names="Ink",
            why="Classes are written as in QuPath; upper and lower case do not matter.",
        ),
        Case(
            heading="JSON that is no GeoJSON",
            command=f"tiles S-0412.tif {CUT} --include tumour.geojson --out tiles",
            scene=lambda: (
                draw_slide("S-0412.tif"),
                Path("tumour.geojson").write_text('{"tumour": 1}', encoding="utf-8"),
            ),
            names="tumour.geojson",
            why="Projects and measurements of QuPath are JSON too; only exported objects have outlines.",
        ),
        Case(
            heading="XML of another program",
            command=f"tiles S-0412.tif {CUT} --include tumour.xml --out tiles",
            scene=lambda: (draw_slide("S-0412.tif"), Path("tumour.xml").write_text("<slides/>", encoding="utf-8")),
            names="tumour.xml",
            why="Outlines of ASAP and Aperio ImageScope are read as XML.",
        ),
        Case(
            heading="A class of regions is named, and no regions",
            command=f"tiles S-0412.tif {CUT} --include-class Tumor --out tiles",
            scene=lambda: draw_slide("S-0412.tif"),
            names="--include",
            why="The class selects among the outlines of a file or folder.",
        ),
        Case(
            heading="A tissue share that cannot be",
            command="tiles S-0412.tif --min-tissue 50 --out tiles",
            scene=lambda: None,
            names="--min-tissue",
            why="It is a fraction, not a percentage.",
        ),
    ),
)
