"""Attention that does not belong to the slide."""

from tests.gallery.case import Case, Step
from tests.gallery.scenes.bags import save_bags
from tests.gallery.scenes.runs import save_attention_file
from tests.gallery.scenes.slides import draw_slide

STEP = Step(
    title="Heatmaps",
    cases=(
        Case(
            heading="The attention is of another slide",
            command="heatmap S-0412.tif run/attention/S-0587.h5 --out pictures",
            scene=lambda: (
                draw_slide("S-0412.tif"),
                save_attention_file("run/attention/S-0587.h5", slide_size=(900, 640)),
            ),
            names="S-0587.h5",
            why="Attention on another slide's pixels would look as good, and mean nothing.",
        ),
        Case(
            heading="The attention is of another slide of the same size",
            command="heatmap S-0412.tif run/attention/S-0587.h5 --out pictures",
            scene=lambda: (
                draw_slide("S-0412.tif"),
                save_attention_file("run/attention/S-0587.h5", slide_size=(620, 500), image="of another file"),
            ),
            names="S-0587.h5",
            why="Slides of one scan format are often of one size; the attention knows which file it was made from.",
        ),
        Case(
            heading="A bag is given for the attention",
            command="heatmap S-0412.tif bags/S-0412.h5 --out pictures",
            scene=lambda: (draw_slide("S-0412.tif"), save_bags("bags", ["S-0412"])),
            names="S-0412.h5",
            why="A bag holds embeddings. The attention over them lies in the run's folder `attention`.",
        ),
        Case(
            heading="No colour map has that name",
            command="heatmap S-0412.tif run/attention/S-0412.h5 --colours infernal --out pictures",
            scene=lambda: (
                draw_slide("S-0412.tif"),
                save_attention_file("run/attention/S-0412.h5", slide_size=(620, 500)),
            ),
            names="infernal",
            why="All of matplotlib's are known; viridis, inferno and cividis are read by the colour-blind too.",
        ),
        Case(
            heading="There is no attention of the slide",
            command="heatmap S-0412.tif run/attention/S-0412.h5 --out pictures",
            scene=lambda: draw_slide("S-0412.tif"),
            names="S-0412.h5",
            why="`lamella run` and `lamella predict` write attention for every predicted slide.",
        ),
    ),
)
