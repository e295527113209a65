"""Slides and options whose micrometres per pixel cannot be."""

from tests.gallery.case import CUT, Case, Step
from tests.gallery.scenes.slides import draw_slide
from tests.gallery.scenes.tables import write_table

STEP = Step(
    title="Resolution",
    introduction="Lamella never guesses how large a pixel is.",
    cases=(
        Case(
            heading="The slide does not state its resolution",
            command=f"tiles S-0412.tif {CUT} --out tiles",
            scene=lambda: draw_slide("S-0412.tif", mpp=None),
            names="S-0412.tif",
            why="The scanner's log or a file of the same batch may tell. In a table it goes into the column "
            "`slide_mpp`.",
        ),
        Case(
            heading="The slide states an absurd resolution",
            command=f"tiles S-0412.tif {CUT} --out tiles",
            scene=lambda: draw_slide("S-0412.tif", mpp=1000),
            names="S-0412.tif",
            why="Programs that write TIFF fill in the dots per inch of a screen. Such a number is not used.",
        ),
        *(
            Case(
                heading=f"A resolution of {value} is given",
                command=f"tiles S-0412.tif {CUT} --slide-mpp {value} --out tiles",
                scene=lambda: draw_slide("S-0412.tif"),
                names="S-0412.tif",
                why=why,
            )
            for value, why in (
                ("0", "The resolution is um per pixel, about 0.25 for a scan at 40x and 0.5 at 20x."),
                ("-0.25", "Look for a slip of the pen."),
                ("nan", "A program that found no value may have written nan."),
                ("1000", "Nanometres are not micrometres."),
            )
        ),
        Case(
            heading="The table holds an absurd resolution",
            command=f"tiles slides.csv {CUT} --out tiles",
            scene=lambda: write_table("slides.csv", "slide,slide_mpp", "S-0412.tif,0.25", "S-0587.tif,250"),
            names="slide_mpp",
            why="The column overrides what the files state, so it is checked before any slide is opened.",
        ),
        Case(
            heading="Pixels are not square",
            command=f"tiles S-0412.tif {CUT} --out tiles",
            scene=lambda: draw_slide("S-0412.tif", mpp=(0.5, 0.7)),
            names="S-0412.tif",
            why="A few per mille are ordinary and are corrected; this much is a wrong entry.",
        ),
        Case(
            heading="Tiles are asked for finer than the slide",
            command=f"tiles S-0412.tif {CUT} --mpp 0.25 --out tiles",
            scene=lambda: draw_slide("S-0412.tif"),
            names="S-0412.tif",
            why="Enlarging adds no detail. Up to a tenth is allowed, since files state 0.2525 for 0.25; "
            "`--max-upsample` allows more.",
        ),
        Case(
            heading="A resolution of tiles that cannot be",
            command="tiles S-0412.tif --mpp 0 --out tiles",
            scene=lambda: None,
            names="um/px",
            why="Above 0, in um per pixel; 0.5 is about 20x.",
        ),
    ),
)
