"""The verbs that are struck, the drawn cohorts they run on, and what of their results may differ."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import yaml

from tests.machine.server import Ended
from tests.tiny import draw_cohort, draw_tissue, save_slide

TILES = ("--tile-px", "64", "--mpp", "0.5")
ENCODER = ("--encoder", "efficientnet-lite0@2", *TILES)
TRAINING = ("--folds", "3", "--seeds", "1", "--epochs", "2", "--quiet")


@dataclass(frozen=True, slots=True)
class Verb:
    """A command that is struck.

    Attributes:
        name: What it is called in the record.
        arguments: After `lamella`; `OUT` stands for its folder, `IN` for that of the slides.
        prepared: Folder of the scene that is copied to `OUT` first.
        out: What it writes, inside `OUT`: `.` or a file's name.
    """

    name: str
    arguments: tuple[str, ...]
    prepared: str = ""

    def fill(self, out: str, slides: str = "slides") -> list[str]:
        """Return the arguments with the folders in place."""
        return [word.replace("OUT", out).replace("IN", slides) for word in self.arguments]


VERBS = (
    Verb("split", ("split", "IN/cohort.csv", "--out", "OUT/split.csv", "--folds", "3")),
    Verb("audit", ("audit", "IN/cohort.csv", "--out", "OUT/audit.csv", *TILES)),
    Verb("tissue", ("tissue", "IN/cohort.csv", "--out", "OUT")),
    Verb("tiles", ("tiles", "IN/cohort.csv", "--out", "OUT", *TILES)),
    Verb("extract", ("extract", "IN/cohort.csv", "--out", "OUT", *ENCODER, "--quiet")),
    Verb(
        "train",
        ("train", "IN/cohort.csv", "--features", "bags", "--out", "OUT", *TRAINING),
    ),
    Verb(
        "cka",
        ("cka", "efficientnet-lite0", "efficientnet-lite0", "IN/cohort.csv", "--out", "OUT", "--tiles", "4", *TILES),
    ),
    Verb(
        "run",
        ("run", "IN/cohort.csv", "--out", "OUT", *TRAINING, *ENCODER, "--heatmaps", "2"),
    ),
    Verb(
        "finetune",
        (
            *("run", "IN/cohort.csv", "--out", "OUT", *TRAINING, *ENCODER, "--heatmaps", "2"),
            *("--finetune", "tuned", "--top-k", "4", "--finetune-epochs", "1"),
        ),
        prepared="finished",
    ),
    Verb("predict", ("predict", "finished", "new", "--out", "OUT", "--quiet")),
    Verb("export", ("export", "finished", "--out", "OUT", "--quiet")),
    Verb("heatmap", ("heatmap", "IN/S-00.tif", "finished/attention/S-00.h5", "--out", "OUT")),
    Verb("cam", ("cam", "OUT", "--slide-id", "S-01", "--quiet"), prepared="finished"),
    Verb("localise", ("localise", "OUT", "--lesions", "lesions", "--no-cam", "--quiet"), prepared="finished"),
    Verb("study", ("study", "study.yaml", "--cohort", "IN/cohort.csv", "--out", "OUT", "--quiet"), prepared="costs"),
    Verb("sample", ("sample", "--out", "OUT", "--slides", "2")),
)
READING = (
    Verb("encoders", ("encoders",)),
    Verb("weights list", ("weights", "list")),
    Verb("inspect", ("inspect", "bags/S-00.h5")),
    Verb("measure", ("measure", "finished/predictions.csv")),
    Verb("doctor", ("doctor",)),
    Verb("help", ("--help",)),
    Verb("weights fetch", ("weights", "fetch", "efficientnet-lite0")),
)


def draw_scene(folder: Path, run: Callable[[list[str]], Ended] | None, *, n_slides: int = 9) -> None:
    """Draw the cohorts, and run once what later verbs start from, unless there is nothing to run it."""
    draw_cohort(folder / "slides", n_slides)
    for i in range(2):
        save_slide(folder / "new" / f"N-{i}.tif", draw_tissue(100 + i, malignant=i % 2 == 1))
    (folder / "lesions").mkdir()
    for i in range(1, n_slides, 2):
        corners = [[150, 200], [330, 200], [330, 380], [150, 380], [150, 200]]
        outline = {"type": "Feature", "properties": {}, "geometry": {"type": "Polygon", "coordinates": [corners]}}
        content = {"type": "FeatureCollection", "features": [outline]}
        (folder / "lesions" / f"S-{i:02d}.geojson").write_text(json.dumps(content))
    design = {
        "tiles": {"default": {"tile_px": 64, "mpp": 0.5}},
        "arms": [{"encoders": ["efficientnet-lite0"], "depths": [2, 1]}],
        "seeds": 1,
        "folds": 3,
        "train": {"epochs": 2},
        "permutations": 0,
    }
    (folder / "study.yaml").write_text(yaml.safe_dump(design))
    if run is None:
        return
    run_verb = next(verb for verb in VERBS if verb.name == "run")
    extract = next(verb for verb in VERBS if verb.name == "extract")
    for arguments in (run_verb.fill("finished"), extract.fill("extracted")):
        ended = run(arguments)
        assert ended.code == 0, ended.stderr
    study = next(verb for verb in VERBS if verb.name == "study")
    ended = run(study.fill("measured"))  # what arms cost is measured once, and kept: it is another cost each time
    assert ended.code == 0, ended.stderr
    (folder / "costs").mkdir()
    shutil.copy(folder / "measured" / "costs.json", folder / "costs")
    bags = next(path.parent for path in sorted((folder / "extracted").rglob("S-00.h5")))
    shutil.copytree(bags, folder / "bags")
