"""Lamella: from whole-slide images and slide labels to predictions, heatmaps and honest statistics.

All of it at once, and then new slides:

    result = lamella.run("cohort.csv", "run", encoder="efficientnet-lite0", tile_px=512, mpp=0.5)
    lamella.predict("run", ["new.svs"], "predicted")

The pipeline, a part at a time:

    cohort = lamella.split_folds(lamella.load_cohort("cohort.csv"))  # slides, patients, labels, folds
    spec = lamella.TileSpec(tile_px=512, mpp=0.5)
    with lamella.open_slide(cohort.slides[0].path) as slide:  # 1 levels, um per pixel, pixels
        tissue = lamella.find_tissue(slide.read_thumbnail(8.0), slide_size=slide.size, slide_mpp=slide.mpp)  # 2
        corners_l0 = lamella.place_tiles(tissue.mask, spec, slide_size=slide.size, slide_mpp=slide.mpp)  # 3
    cut, encoder = lamella.CutSettings(spec=spec), lamella.EncoderSpec("efficientnet-lite0")  # 4 tile -> embedding
    settings = lamella.ExtractSettings(cut=cut, encoders=(encoder,))
    bags = lamella.extract_cohort(cohort.slides, settings, Path("features")).folder  # 5 slide -> bag
    result = lamella.train_on_bags(cohort, bags.features, lamella.TrainingSettings(), Path("trained"))  # 6, 8, 9
    page = lamella.write_page(Path("run"))  # 10 what came out, for people

The names are loaded when they are first used: `import lamella` alone takes no time and needs no torch.
"""

import importlib
from typing import Any

__version__ = "0.1.0"

# In the order of the pipeline; `__init__.pyi` tells type checkers and editors the same, and a test compares the two.
_HOME = {
    "LamellaError": "errors",
    "Cohort": "cohort",
    "CohortSlide": "cohort",
    "load_cohort": "cohort",
    "save_cohort": "cohort",
    "gather_slides": "cohort",
    "split_folds": "cohort",
    "split_holdout": "cohort",
    "split_by_batch": "cohort",
    "list_rounds": "cohort",
    "Slide": "slide",
    "open_slide": "slide",
    "TissueMask": "tissue",
    "find_tissue": "tissue",
    "find_tissue_otsu": "tissue",
    "restrict_tissue": "tissue",
    "load_regions": "tissue",
    "draw_tissue": "tissue",
    "TileSpec": "tiles",
    "place_tiles": "tiles",
    "EncoderCard": "encoders",
    "EncoderSpec": "encoders",
    "RuntimeSettings": "encoders",
    "list_encoders": "encoders",
    "find_encoder": "encoders",
    "trusting": "encoders.trust",
    "add_weights": "encoders",
    "open_runtime": "encoders",
    "profile_encoder": "encoders.profile",
    "FeatureBag": "features.bag",
    "load_bag": "features.layouts",
    "CutSettings": "features.plan",
    "ExtractSettings": "features.settings",
    "extract_cohort": "features.extract",
    "TrainSettings": "mil.settings",
    "SlideModel": "mil",
    "SlidePrediction": "mil",
    "fit_model": "mil",
    "load_model": "mil",
    "save_model": "mil",
    "FinetuneSettings": "finetune.settings",
    "PredictionTable": "analysis.predictions",
    "measure": "analysis.metrics",
    "TrainingSettings": "runs.settings",
    "RunSettings": "runs.settings",
    "StageTwo": "runs.settings",
    "Run": "runs.execute",
    "train_on_bags": "runs.execute",
    "open_run": "runs.predict",
    "ExportSettings": "exports.write",
    "export_model": "exports.write",
    "open_predictor": "exports.open",
    "CkaSettings": "explain.cka",
    "compare_encoders": "explain.cka",
    "CamSettings": "runs.settings",
    "map_classes": "pipeline.run",
    "LocaliseSettings": "explain.localise",
    "localise_run": "explain.localise",
    "StudyDesign": "studies.design",
    "load_design": "studies.design",
    "find_preset": "studies.presets",
    "StudyOptions": "studies.options",
    "Study": "studies.execute",
    "judge_arms": "analysis.frames",
    "judge_again": "studies.judge",
    "compare_arms": "pipeline.study",
    "CompareSettings": "studies.compare",
    "compare_tables": "pipeline.compare",
    "write_page": "reports.page",
    "write_report": "reports.page",
    "run": "pipeline.run",
    "run_bags": "pipeline.run",
    "run_cohort": "pipeline.run",
    "predict": "pipeline.predict",
    "predict_bags": "pipeline.predict",
    "predict_slides": "pipeline.predict",
}

__all__ = ["__version__", *_HOME]


def __getattr__(name: str) -> Any:
    """Load a public name from the module it lives in, the first time it is asked for (PEP 562)."""
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module 'lamella' has no attribute '{name}'")
    value = getattr(importlib.import_module(f"lamella.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names, loaded or not."""
    return sorted({*globals(), *_HOME})
