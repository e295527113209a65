"""Encoders that are not known, and weights that are not here or do not fit."""

from pathlib import Path

from tests.gallery.case import CUT, Case, Step
from tests.gallery.scenes.encoders import save_weights, write_encoder
from tests.gallery.scenes.slides import draw_slide

STEP = Step(
    title="Encoders and weights",
    introduction="Nothing is downloaded unasked, and no encoder runs with weights that do not fit.",
    cases=(
        Case(
            heading="No encoder has that name",
            command="extract S-0412.tif --encoder resnet51 --out bags",
            scene=lambda: None,
            names="resnet51",
            why="`lamella encoders` lists those by name; all of timm's are `timm:NAME`.",
        ),
        Case(
            heading="The weights are not on this machine",
            command="extract S-0412.tif --encoder resnet50 --out bags",
            scene=lambda: None,
            names="resnet50",
            why="`lamella weights fetch` is the only command that uses the network. Offline, carry the file over and "
            "add it. Random weights are for trying things out.",
        ),
        Case(
            heading="A model of the hub is not on this machine",
            command="extract S-0412.tif --encoder hf-hub:OWNER/NAME --out bags",
            scene=lambda: None,
            names="hf-hub:OWNER/NAME",
            why="Some models ask you to agree to their terms on the hub's site first.",
        ),
        Case(
            heading="The weights file is not there",
            command="extract S-0412.tif --encoder resnet18 --weights resnet18.pth --out bags",
            scene=lambda: None,
            names="resnet18.pth",
            why="Paths are taken from the folder you are in.",
        ),
        Case(
            heading="The weights are of another network",
            command="weights add resnet34 resnet18.pth",
            scene=lambda: save_weights("resnet18.pth", "resnet18"),
            names="resnet34",
            why="They are compared tensor by tensor before anything runs.",
        ),
        Case(
            heading="The file holds no weights",
            command="weights add resnet18 resnet18.pth",
            scene=lambda: Path("resnet18.pth").write_text("<html>moved</html>", encoding="utf-8"),
            names="resnet18.pth",
            why="A download may bring a web page instead of the file.",
        ),
        Case(
            heading="An encoder of one's own that lacks the function",
            command=f"extract S-0412.tif {CUT} --encoder mine.py:build --out bags",
            scene=lambda: (draw_slide("S-0412.tif"), write_encoder("mine.py", function="make")),
            names="mine.py",
            why="After the colon stands the function that builds the network.",
        ),
        Case(
            heading="An encoder of one's own that gives NaN",
            command=f"extract S-0412.tif {CUT} --encoder mine.py:build --out bags --precision fp32",
            scene=lambda: (draw_slide("S-0412.tif"), write_encoder("mine.py", factor="float('nan')")),
            names="mine.py",
            why="No bag is written with holes in it.",
        ),
    ),
)
