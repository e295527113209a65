"""The machine refuses to write, or the command is stopped."""

from pathlib import Path

from tests.gallery.case import CUT, Case, Step
from tests.gallery.faults import ctrl_c, disk_fails, disk_full, folder_removed, no_memory, no_processes, too_many_files
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
        Case(
            heading="The output folder was removed meanwhile",
            command=f"tiles S-0412.tif S-0587.tif {CUT} --out tiles",
            scene=lambda: (draw_slide("S-0412.tif"), draw_slide("S-0587.tif")),
            names="tiles",
            why="Half of the results would be missing, so the command stops.",
            during=folder_removed,
        ),
        Case(
            heading="The disk fails",
            command=f"tiles S-0412.tif {CUT} --out tiles",
            scene=lambda: draw_slide("S-0412.tif"),
            names="Input/output error",
            why="A network folder that was disconnected says the same.",
            during=disk_fails,
        ),
        Case(
            heading="Too many files are open",
            command=f"tiles S-0412.tif {CUT} --out tiles",
            scene=lambda: draw_slide("S-0412.tif"),
            names="Too many open files",
            why="`ulimit -n` shows the limit.",
            during=too_many_files,
        ),
        Case(
            heading="Memory ran out",
            command=f"tiles S-0412.tif {CUT} --out tiles",
            scene=lambda: draw_slide("S-0412.tif"),
            names="memory",
            why="Large cohorts need `--stride` no smaller than the tile, or fewer workers elsewhere on the machine.",
            during=no_memory,
        ),
    ),
)
