# What `lamella` offers, for type checkers and editors: `__init__.py` loads the same names when they are first used.

from lamella.analysis.frames import judge_arms
from lamella.analysis.metrics import measure
from lamella.analysis.predictions import PredictionTable
from lamella.cohort import (
    Cohort,
    CohortSlide,
    gather_slides,
    list_rounds,
    load_cohort,
    save_cohort,
    split_by_batch,
    split_folds,
    split_holdout,
)
from lamella.encoders import (
    EncoderCard,
    EncoderSpec,
    RuntimeSettings,
    add_weights,
    find_encoder,
    list_encoders,
    open_runtime,
)
from lamella.encoders.profile import profile_encoder
from lamella.encoders.trust import trusting
from lamella.errors import LamellaError
from lamella.explain.cka import CkaSettings, compare_encoders
from lamella.explain.localise import LocaliseSettings, localise_run
from lamella.exports.open import open_predictor
from lamella.exports.write import ExportSettings, export_model
from lamella.features.bag import FeatureBag
from lamella.features.extract import extract_cohort
from lamella.features.layouts import load_bag
from lamella.features.plan import CutSettings
from lamella.features.settings import ExtractSettings
from lamella.finetune.settings import FinetuneSettings
from lamella.mil import SlideModel, SlidePrediction, fit_model, load_model, save_model
from lamella.mil.settings import TrainSettings
from lamella.pipeline.compare import compare_tables
from lamella.pipeline.predict import predict, predict_bags, predict_slides
from lamella.pipeline.run import map_classes, run, run_bags, run_cohort
from lamella.pipeline.study import compare_arms
from lamella.reports.page import write_page, write_report
from lamella.runs.execute import Run, train_on_bags
from lamella.runs.predict import open_run
from lamella.runs.settings import CamSettings, RunSettings, StageTwo, TrainingSettings
from lamella.slide import Slide, open_slide
from lamella.studies.compare import CompareSettings
from lamella.studies.design import StudyDesign, load_design
from lamella.studies.execute import Study
from lamella.studies.judge import judge_again
from lamella.studies.options import StudyOptions
from lamella.studies.presets import find_preset
from lamella.tiles import TileSpec, place_tiles
from lamella.tissue import TissueMask, draw_tissue, find_tissue, find_tissue_otsu, load_regions, restrict_tissue

__all__ = [
    "CamSettings",
    "CkaSettings",
    "Cohort",
    "CohortSlide",
    "CompareSettings",
    "CutSettings",
    "EncoderCard",
    "EncoderSpec",
    "ExportSettings",
    "ExtractSettings",
    "FeatureBag",
    "FinetuneSettings",
    "LamellaError",
    "LocaliseSettings",
    "PredictionTable",
    "Run",
    "RunSettings",
    "RuntimeSettings",
    "Slide",
    "SlideModel",
    "SlidePrediction",
    "StageTwo",
    "Study",
    "StudyDesign",
    "StudyOptions",
    "TileSpec",
    "TissueMask",
    "TrainSettings",
    "TrainingSettings",
    "__version__",
    "add_weights",
    "compare_arms",
    "compare_encoders",
    "compare_tables",
    "draw_tissue",
    "export_model",
    "extract_cohort",
    "find_encoder",
    "find_preset",
    "find_tissue",
    "find_tissue_otsu",
    "fit_model",
    "gather_slides",
    "judge_again",
    "judge_arms",
    "list_encoders",
    "list_rounds",
    "load_bag",
    "load_cohort",
    "load_design",
    "load_model",
    "load_regions",
    "localise_run",
    "map_classes",
    "measure",
    "open_predictor",
    "open_run",
    "open_runtime",
    "open_slide",
    "place_tiles",
    "predict",
    "predict_bags",
    "predict_slides",
    "profile_encoder",
    "restrict_tissue",
    "run",
    "run_bags",
    "run_cohort",
    "save_cohort",
    "save_model",
    "split_by_batch",
    "split_folds",
    "split_holdout",
    "train_on_bags",
    "trusting",
    "write_page",
    "write_report",
]

__version__: str
