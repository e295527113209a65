"""What is taken where nothing is said is the same from the command line, a study file and Python."""

import inspect

import pytest

from lamella.cli.cam import cam
from lamella.cli.cka import cka
from lamella.cli.extract import extract
from lamella.cli.heatmap import heatmap
from lamella.cli.localise import localise
from lamella.cli.options import ColumnOptions
from lamella.cli.tile_options import TileOptions
from lamella.cli.training_options import FinetuneOptions, TrainOptions
from lamella.cohort import CohortColumns
from lamella.encoders import EncoderSpec
from lamella.explain.cka import CkaSettings
from lamella.explain.localise import LocaliseSettings
from lamella.features.plan import CutSettings
from lamella.features.settings import ExtractSettings
from lamella.mil.settings import TrainSettings
from lamella.reports.draw.overlay import OverlayStyle
from lamella.runs.settings import CamSettings, StageTwo, TrainingSettings
from lamella.studies.design import StudyDesign
from lamella.studies.design_parts import ArmBlock, FinetuneDesign, TileDesign, TrainDesign

RESNET = EncoderSpec("resnet18")


def test_options_left_out_are_the_settings_own() -> None:
    assert TileOptions().cut() == CutSettings()
    assert TrainOptions().settings() == TrainingSettings()
    assert FinetuneOptions(finetune="tuned").settings() == StageTwo()


def test_columns_left_out_are_called_as_a_cohort_calls_them() -> None:
    assert ColumnOptions().names() == CohortColumns()
    assert ColumnOptions(id_col="case", mpp_col="um").names() == CohortColumns(slide_id="case", slide_mpp="um")


def test_a_study_file_that_says_nothing_asks_for_the_settings_own() -> None:
    assert TileDesign().cut() == CutSettings()
    assert TrainDesign().settings(ArmBlock(encoders=("resnet18",)).heads[0], 0) == TrainSettings()
    assert FinetuneDesign().stage("tuned") == StageTwo()
    design = StudyDesign(arms=(ArmBlock(encoders=("resnet18",)),))
    assert (design.seeds, design.folds) == (TrainingSettings().n_seeds, TrainingSettings().n_folds)


@pytest.mark.parametrize(
    ("verb", "settings", "options"),
    [
        (cam, CamSettings(), {"method": "method", "arm": "finetuned"}),
        (cka, CkaSettings(first=RESNET, second=RESNET), {"n_tiles": "n_tiles"}),
        (cka, RESNET, {"first_weights": "weights", "second_weights": "weights"}),
        (extract, ExtractSettings(encoders=(RESNET,)), {"dtype": "dtype"}),
        (heatmap, OverlayStyle(), {name: name for name in ("colours", "opacity", "measure", "panel_px")}),
        (
            localise,
            LocaliseSettings(lesions="x"),  # type: ignore[arg-type]
            {"arm": "arm", "top_k": "k", "smallest_um": "smallest_um", "controls": "controls"},
        ),
    ],
)
def test_a_verb_s_own_options_left_out_are_the_settings_own(verb, settings, options):
    stated = inspect.signature(verb).parameters
    assert {option: stated[option].default for option in options} == {
        option: getattr(settings, field) for option, field in options.items()
    }
