"""The verbs that are killed, and what they start from."""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import yaml

from tests.kills.process import run_verb
from tests.tiny import draw_cohort, draw_tissue, save_slide

TILES = ("--tile-px", "64", "--mpp", "0.5", "--quiet")
ENCODER = ("--encoder", "efficientnet-lite0@2", *TILES)
HEADS = ("--folds", "3", "--seeds", "1", "--epochs", "3", "--heatmaps", "3")
ROOMS = ("finished", "stage-one")
_LESION = (
    '{{"type": "FeatureCollection", "features": [{{"type": "Feature", "properties": {{}}, "geometry": {{"type": '
    '"Polygon", "coordinates": [[[{x}, 200], [{x}, 330], [330, 330], [330, 200], [{x}, 200]]]}}}}]}}'
)


@dataclass(frozen=True, slots=True)
class Verb:
    """A command that is killed.

    Attributes:
        name: What it is called in the record.
        arguments: After `lamella`; `OUT` stands for its folder, `FILE` for a table in it.
        prepared: Folder, beside, that is copied to `OUT` first.
        cold: Whether the store of compiled networks is emptied before each time.
        timed: Pattern of files that hold what this machine took, so that two undisturbed runs differ in them.
    """

    name: str
    arguments: tuple[str, ...]
    prepared: str = ""
    cold: bool = False
    timed: str = r"^$"


VERBS = (
    Verb("extract, cold store", ("extract", "cohort.csv", "--out", "OUT", *ENCODER), cold=True),
    Verb("extract, warm store", ("extract", "cohort.csv", "--out", "OUT", *ENCODER)),
    Verb("extract, few tiles, cold store", ("extract", "few.csv", "--out", "OUT", *ENCODER), cold=True),
    Verb("run", ("run", "cohort.csv", "--out", "OUT", *HEADS, *ENCODER)),
    Verb("run, strays from fp32, cold store", ("run", "few.csv", "--out", "OUT", *HEADS, *ENCODER), cold=True),
    Verb("study", ("study", "study.yaml", "--cohort", "cohort.csv", "--out", "OUT", "--quiet"), prepared="costs"),
    Verb(
        "study, tuned arm, costs measured",
        ("study", "tuned.yaml", "--cohort", "cohort.csv", "--out", "OUT", "--quiet"),
        timed=r"^(results\.csv|verdict\.json|report\.html|report\.parquet)$",
    ),
    Verb(
        "stage two",
        (
            *("run", "cohort.csv", "--out", "OUT", *HEADS, "--finetune", "tuned", "--top-k", "2"),
            *("--finetune-epochs", "1", *ENCODER),
        ),
        prepared="stage-one",
    ),
    Verb("cam", ("cam", "OUT", "--quiet"), prepared="finished"),
    Verb("predict", ("predict", "finished", "new", "--out", "OUT", "--quiet")),
    Verb("export", ("export", "finished", "--out", "OUT", "--quiet")),
    Verb("tissue", ("tissue", "cohort.csv", "--out", "OUT", *TILES)),
    Verb("tiles", ("tiles", "cohort.csv", "--out", "OUT", *TILES)),
    Verb("audit", ("audit", "cohort.csv", "--out", "FILE", *TILES)),
    Verb(
        "train",
        (
            *("train", "cohort.csv", "--features", "finished/features/64px_0.5mpp_64px/features_efficientnet-lite0_2"),
            *("--out", "OUT", "--folds", "3", "--seeds", "2", "--epochs", "3", "--quiet"),
        ),
    ),
    Verb("localise", ("localise", "OUT", "--lesions", "lesions", "--no-cam", "--quiet"), prepared="finished"),
)


def list_arguments(verb: Verb) -> list[str]:
    """List a verb's arguments, run in the folder of the campaign."""
    places = {"OUT": "out", "FILE": "out/table.csv"}
    return [places.get(word, word) for word in verb.arguments]


def prepare(folder: Path, verbs: list[Verb]) -> None:
    """Draw the cohorts, and run once what these verbs start from."""
    pid = os.fork()
    if pid == 0:  # the threads of what draws must not stand in this process when others are forked from it
        _draw(folder)
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    for name in ROOMS:
        if any(name == verb.prepared or any(name in word for word in verb.arguments) for verb in verbs):
            ended = run_verb(["run", "cohort.csv", "--out", name, *HEADS, *ENCODER], folder)
            assert ended.code == 0, ended.said
    if any(verb.prepared == "costs" for verb in verbs):  # what arms cost is measured once, and kept
        ended = run_verb(["study", "study.yaml", "--cohort", "cohort.csv", "--out", "measured", "--quiet"], folder)
        assert ended.code == 0, ended.said
        (folder / "costs").mkdir()
        shutil.copy(folder / "measured" / "costs.json", folder / "costs" / "costs.json")


def _draw(folder: Path) -> None:
    draw_cohort(folder, 12)
    rows = (folder / "cohort.csv").read_text().splitlines()
    # Slides of few tiles: all of them are fewer than a check of precision takes.
    (folder / "small").mkdir()
    table = ["slide,patient_id,label"]
    for i in range(6):
        size = {"width": 190 + 10 * i, "height": 150}
        save_slide(folder / "small" / f"F-{i}.tif", draw_tissue(50 + i, malignant=i % 2 == 1, **size))
        table.append(f"small/F-{i}.tif,F-{i},{'malignant' if i % 2 else 'benign'}")
    (folder / "few.csv").write_text("\n".join(table) + "\n")
    (folder / "new").mkdir()
    for i in range(4):
        save_slide(folder / "new" / f"N-{i}.tif", draw_tissue(100 + i, malignant=i % 2 == 1))
    (folder / "lesions").mkdir()
    for row in rows[1:]:
        slide = row.split(",")[0].removesuffix(".tif")
        if row.endswith("malignant"):
            (folder / "lesions" / f"{slide}.geojson").write_text(_LESION.format(x=180))
    design = {
        "tiles": {"default": {"tile_px": 64, "mpp": 0.5}},
        "arms": [{"encoders": ["efficientnet-lite0"], "depths": [2, 1]}],
        "seeds": 1,
        "folds": 3,
        "train": {"epochs": 3},
        "permutations": 1,
    }
    (folder / "study.yaml").write_text(yaml.safe_dump(design))
    tuned = {
        "arms": [{"encoders": ["efficientnet-lite0"], "depths": [1], "finetuned": ["frozen", "tuned"]}],
        "finetune": {"epochs": 1, "k": 2},
        "permutations": 0,
    }
    (folder / "tuned.yaml").write_text(yaml.safe_dump(design | tuned))
