"""The machine refuses to write, or the command is stopped."""

from pathlib import Path

from tests.gallery.case import CUT, Case, Step
from tests.gallery.faults import ctrl_c, disk_full, no_processes
from tests.gallery.scenes.slides import draw_slide

STEP = Step(
    title="Writing, and being stopped",
    introduction="Files get their name only when they are whole, so what is there can be trusted.",
    cases=(
        Case(
            heading="A file is in the way of the folder",
            command=f"tiles S-0412.tif {CUT} --out tiles/new",
            scene=lambda: (draw_slide("S-0412.tif"), Path("tiles").touch()),
            names="tiles",
            why="The same is said of folders that you may not write to, and of disks mounted read-only.",
        ),
        Case(
            heading="The disk is full",
            command=f"tiles S-0412.tif {CUT} --out tiles",
            scene=lambda: draw_slide("S-0412.tif"),
            during=disk_full,
            names="tiles",
            why="`lamella audit` estimates the space beforehand.",
        ),
        Case(
            heading="The machine allows no more processes",
            command=f"tiles S-0412.tif {CUT} --out tiles",
            scene=lambda: draw_slide("S-0412.tif"),
            during=no_processes,
            names="ulimit -a",
            why="Nothing is wrong with the slide: what the machine refuses is said as such.",
        ),
        Case(
            heading="Ctrl-C",
            command=f"tiles S-0412.tif {CUT} --out tiles",
            scene=lambda: draw_slide("S-0412.tif"),
            during=ctrl_c,
            names="run the same command again",
            why="The exit code is 130. The same holds when the machine is switched off: finished files are used again.",
            exit_code=130,
        ),
    ),
)
