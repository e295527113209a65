"""Runs, studies and exported models that are mutated, made on a tiny cohort."""

import json
import shutil
from pathlib import Path

from tests.fuzz.originals import Original, list_files
from tests.tiny import draw_cohort, draw_tissue, save_slide

_ENCODER = "efficientnet-lite0@1"
RING = [[90, 120], [420, 120], [420, 400], [90, 400], [90, 120]]


def make_folders(folder: Path) -> list[Original]:
    """Make a run with maps and localisation, a prediction by it, its export, and a study."""
    import lamella.pipeline.predict
    import lamella.pipeline.run
    from lamella.cohort import gather_slides, load_cohort
    from lamella.encoders import EncoderSpec, RuntimeSettings
    from lamella.explain.localise import LocaliseSettings, localise_run
    from lamella.exports.write import export_model
    from lamella.features.plan import CutSettings
    from lamella.features.settings import ExtractSettings
    from lamella.mil.settings import TrainSettings
    from lamella.pipeline.study import compare_arms
    from lamella.runs.predict import open_run
    from lamella.runs.settings import CamSettings, RunSettings
    from lamella.studies.design import check_design
    from lamella.studies.options import StudyOptions
    from lamella.tiles import TileSpec

    runtime = RuntimeSettings(runtime="torch", precision="fp32", n_threads=1)
    cut = CutSettings(spec=TileSpec(tile_px=64, mpp=0.5))
    extract = ExtractSettings(cut=cut, encoders=(EncoderSpec(_ENCODER),), runtime=runtime)
    home = folder / "home"
    cohort = load_cohort(draw_cohort(home / "cohort", 9))
    cam = CamSettings(runtime=runtime)
    train = TrainSettings(epochs=2)
    settings = RunSettings(extract=extract, train=train, n_seeds=1, n_folds=3, n_heatmaps=2, cam=cam)
    lamella.pipeline.run.run_cohort(cohort, settings, home / "run")
    _draw_lesions(home / "lesions")
    localise_run(open_run(home / "run"), LocaliseSettings(lesions=home / "lesions", cam=cam))
    save_slide(home / "new.tif", draw_tissue(40, malignant=True))
    lamella.pipeline.predict.predict_slides(home / "run", gather_slides([home / "new.tif"]), home / "predicted")
    export_model(home / "run", home / "export")
    design = {
        "tiles": {"default": {"tile_px": 64, "mpp": 0.5}},
        "arms": [{"encoders": ["resnet18"], "depths": [2, 1], "weights": ["random"]}, {"encoders": ["resnet18-ciga"]}],
        "seeds": 1,
        "folds": 3,
        "train": {"epochs": 2},
        "permutations": 1,
    }
    options = StudyOptions(runtime=runtime)
    compare_arms(cohort, check_design(design, "here"), folder / "study", options=options)
    shutil.rmtree(folder / "study" / "features", ignore_errors=True)
    for name in ("run", "predicted", "export"):
        shutil.copytree(home / name, folder / name, ignore=shutil.ignore_patterns("features"))
    whole = [
        Original("run folder", "run", folder / "run", list_files(folder / "run")),
        Original("prediction folder", "page", folder / "predicted", list_files(folder / "predicted")),
        Original("study folder", "study", folder / "study", list_files(folder / "study", "*")),
        Original("exported model", "export", folder / "export", list_files(folder / "export")),
    ]
    of_run = list_files(home, "run/**/*", without=("run/heatmaps", "run/local/failures"))
    verbs = {"map": "run mapped again", "localise": "run localised again", "predict": "run that predicts"}
    verbs |= {"resume": "run that is resumed", "pass on": "run that is exported"}
    share = {"map": 0.3, "localise": 0.3, "predict": 0.3, "resume": 0.2, "pass on": 0.3}
    return [*whole, *(Original(said, verb, home, of_run, share=share[verb]) for verb, said in verbs.items())]


def _draw_lesions(folder: Path) -> None:
    """Outline a lesion on each malignant slide."""
    folder.mkdir()
    for i in range(1, 9, 2):
        feature = {"type": "Feature", "geometry": {"type": "Polygon", "coordinates": [RING]}, "properties": {}}
        content = {"type": "FeatureCollection", "features": [feature]}
        (folder / f"S-{i:02d}.geojson").write_text(json.dumps(content))
