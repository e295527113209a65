"""Encoders that are not known, and weights that are not here or do not fit."""

from pathlib import Path

from tests.gallery.case import CUT, Case, Step
from tests.gallery.scenes.encoders import lay_out_cache, save_pickled, save_weights, serve_model, write_encoder
from tests.gallery.scenes.slides import draw_slide
from tests.gallery.scenes.tables import cut_short

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
            heading="A transformer has no so many blocks",
            command="extract S-0412.tif --encoder uni@block30 --out bags",
            scene=lambda: None,
            names="uni@block30",
            why="UNI has 24 blocks of its own; `@1` to `@4` are quarters of them.",
        ),
        Case(
            heading="The weights are not on this machine",
            command="extract S-0412.tif --encoder resnet50 --out bags",
            scene=lambda: None,
            names="resnet50",
            why="`lamella weights fetch` downloads them. Offline, carry the file over and add "
            "it. Random weights are for trying things out.",
        ),
        Case(
            heading="A model of the hub is not on this machine",
            command="extract S-0412.tif --encoder hf-hub:OWNER/NAME --out bags",
            scene=lambda: None,
            names="hf-hub:OWNER/NAME",
            why="Some models ask you to agree to their terms on the hub's site first.",
        ),
        Case(
            heading="A model of the hub is gated",
            command="weights fetch hf-hub:owner/tissue",
            scene=lambda: None,
            during=lambda: serve_model(gated=True),
            names="hf-hub:owner/tissue",
            why="Its publisher gives it to those who accept terms. `hf auth login` tells this machine who you are.",
        ),
        Case(
            heading="Access to a gated model was not granted yet",
            command="weights fetch hf-hub:owner/tissue",
            scene=lambda: None,
            during=lambda: serve_model(gated=True, token="mine"),
            names="hf-hub:owner/tissue",
            why="Some publishers look at each request. `lamella doctor --check-access` tells which you may have.",
        ),
        Case(
            heading="The hub has no such model",
            command="weights fetch hf-hub:owner/tisue",
            scene=lambda: None,
            during=serve_model,
            names="owner/tisue",
            why="The hub does not show private models to strangers.",
        ),
        Case(
            heading="A folder of the hub's cache is damaged",
            command="weights add hf-hub:owner/tissue models--owner--tissue",
            scene=lay_out_cache,
            names="model.safetensors",
            why="The hub keeps files under their checksum, so damage shows.",
        ),
        Case(
            heading="A folder of the hub's cache was not downloaded to the end",
            command="weights add hf-hub:owner/tissue models--owner--tissue",
            scene=lambda: lay_out_cache(with_weights=False),
            names="models--owner--tissue",
            why="The download that made it was stopped. Run it again where there is a network.",
        ),
        Case(
            heading="The folder holds another model",
            command="weights add hf-hub:owner/other models--owner--tissue",
            scene=lay_out_cache,
            names="owner/tissue",
            why="The hub's cache names each folder after its model.",
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
        Case(
            heading="An encoder has no such depth",
            command="extract S-0412.tif --encoder resnet18@7 --out bags",
            scene=lambda: None,
            names="resnet18@3",
            why="The number after `@` is how many of the four blocks are kept.",
        ),
        Case(
            heading="timm has no model of that name",
            command="extract S-0412.tif --encoder timm:resnet81 --out bags",
            scene=lambda: None,
            names="resnet",
            why="Names change between timm versions; `pip install -U timm` brings new ones.",
        ),
        Case(
            heading="The file of your encoder is not there",
            command="extract S-0412.tif --encoder mine.py:build --out bags",
            scene=lambda: None,
            names="mine.py",
            why="Paths are relative to the current folder.",
        ),
        Case(
            heading="The file of your encoder does not run",
            command=f"extract S-0412.tif {CUT} --encoder mine.py:build --out bags",
            scene=lambda: (draw_slide("S-0412.tif"), Path("mine.py").write_text("import torhc\n", encoding="utf-8")),
            names="torhc",
            why="The error of Python is quoted.",
        ),
        Case(
            heading="Your function returns something else",
            command=f"extract S-0412.tif {CUT} --encoder mine.py:build --out bags",
            scene=lambda: (
                draw_slide("S-0412.tif"),
                Path("mine.py").write_text("def build():\n    return [1]\n", encoding="utf-8"),
            ),
            names="torch.nn.Module",
            why="The network takes uint8 tiles as floats in 0 to 1 and returns one embedding per tile.",
        ),
        Case(
            heading="No function is named",
            command="extract S-0412.tif --encoder mine.py --out bags",
            scene=lambda: write_encoder("mine.py"),
            names="mine.py:build",
            why="A file may hold several networks.",
        ),
        Case(
            heading="The weights file is cut short",
            command="weights add resnet18 resnet18.pth",
            scene=lambda: (save_weights("resnet18.pth", "resnet18"), cut_short("resnet18.pth", 100_000)),
            names="resnet18.pth",
            why="An interrupted download. Compare the size with the original.",
        ),
        Case(
            heading="The checkpoint holds Python objects",
            command="weights add resnet18 resnet18.pth",
            scene=lambda: save_pickled("resnet18.pth"),
            names="resnet18.pth",
            why="Unpickling objects runs code of whoever made the file, so it is never done.",
        ),
        Case(
            heading="A trusted file is no Python",
            command="predict run S-0412.tif --trust notes.txt --out new",
            scene=lambda: (Path("run").mkdir(), Path("notes.txt").touch()),
            names="notes.txt",
            why="`--trust` names the file that defines the encoder of the run.",
        ),
    ),
)
