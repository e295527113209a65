"""Records save and load themselves: the same keys, other versions' kept, damage refused."""

import json
from pathlib import Path

import numpy as np
import pytest

from lamella.analysis.metrics import measure
from lamella.analysis.predictions import PredictionTable
from lamella.analysis.scores import Score
from lamella.errors import ModelError
from lamella.files import parse_json_file, write_record
from lamella.runs.metrics import Metrics, StageTwoScores
from lamella.runs.record import RunRecord

SETTINGS = {
    "encoder": "mine", "tile_px": 64, "mpp": 0.5, "stride_px": 64, "min_tissue": 0.5, "tissue": "glass",
    "max_upsample": 1.1, "dtype": "float16", "precision": "auto", "of_tomorrow": 3,
}  # fmt: skip
STAGE_TWO = {
    "arms": [
        {"arm": "stage 1", "reading": "all", "auc": 0.75, "interval": [0.5, 0.9], "less_stage_1": None},
        {
            "arm": "tuned",
            "reading": "all",
            "auc": 0.8,
            "interval": [0.6, 0.9],
            "less_stage_1": {"difference": 0.05, "interval": [-0.1, 0.2]},
            "auc_by_seed": [0.8, 0.7],
        },
    ],
    "n_patients": 11,
    "n_seeds": 2,
    "settings": {"finetune": {"arm": "tuned", "k": 4}, "n_seeds": 2, "evaluate": "all"},
    "best_epochs": [{"fold": 0, "seed": 1, "arm": "tuned", "best_epoch": 0}],
    "notes": ["said aloud"],
}


def measured(n_classes: int = 2) -> dict:
    rng = np.random.default_rng(0)
    classes = tuple("abc"[:n_classes])
    labels = tuple(classes[i % n_classes] for i in range(30))
    table = PredictionTable(
        classes=classes,
        slide_ids=tuple(f"S{i}" for i in range(30)),
        patient_ids=tuple(f"P{i // 2}" if n_classes == 2 else f"P{i}" for i in range(30)),
        labels=labels,
        folds=np.arange(30) // 2 % 3,
        logits=rng.normal(size=(30, n_classes)),
        batches=tuple("xy"[i // 2 % 2] for i in range(30)),
    )
    return measure(table, n_draws=20).as_json()


def metrics_of(model: dict) -> dict:
    return {
        "format": 1,
        "classes": model["classes"],
        "positive": model["positive"],
        "arms": {"model": model, "baselines": {"colour": {"reason": "the bags do not state it"}}},
        "thresholds": model["thresholds"],
        "frozen_threshold": None,
        "notes": model["notes"],
    }


@pytest.mark.parametrize("n_classes", [2, 3])
def test_metrics_come_back_as_they_were_written(tmp_path: Path, n_classes: int) -> None:
    content = metrics_of(measured(n_classes)) | {"stage_two": STAGE_TWO}
    write_record(tmp_path / "metrics.json", content)
    metrics = Metrics.load(tmp_path / "metrics.json")
    assert json.dumps(metrics.as_json(), sort_keys=True) == json.dumps(content, sort_keys=True)
    metrics.save(tmp_path / "again.json")
    assert parse_json_file(tmp_path / "again.json") == content


def test_scores_are_asked_for_by_name() -> None:
    model = measured()
    metrics = Metrics.model_validate(metrics_of(model))
    units = metrics.scores.model.headline_units
    assert units is not None
    assert model["headline"] == "slides"  # a patient's slides differ in label
    assert (units.auc.value, units.auc.interval) == (model["slides"]["auc"]["value"], tuple(units.auc.interval or ()))
    assert metrics.scores.baselines["colour"].headline_units is None
    assert metrics.scores.baselines["colour"].as_json() == {"reason": "the bags do not state it"}


def test_what_was_fine_tuned_is_an_arm_in_the_file_and_not_in_python() -> None:
    scores = StageTwoScores.model_validate(STAGE_TWO)
    assert [score.finetuned for score in scores.scores] == ["stage 1", "tuned"]
    assert scores.best_epochs[0].finetuned == "tuned"
    assert scores.as_json() == STAGE_TWO
    named = StageTwoScores(
        **{"scores": scores.scores, "best_epochs": scores.best_epochs},
        **{name: STAGE_TWO[name] for name in ("n_patients", "n_seeds", "settings", "notes")},
    )
    assert named.as_json() == STAGE_TWO


def test_a_record_of_another_version_keeps_its_keys_and_may_lack_ours(tmp_path: Path) -> None:
    old = {"classes": ["a", "b"], "positive": "b", "settings": SETTINGS, "of_tomorrow": {"x": [1]}}
    write_record(tmp_path / "run.json", old)
    record = RunRecord.load(tmp_path / "run.json")
    assert (record.notes, record.external, record.extraction) == ((), False, None)
    assert record.as_json() == old


@pytest.mark.parametrize("content", ["", "[]", '{"classes": 3}', '{"classes": ["a"], "positive": null}'])
def test_a_record_that_is_damaged_is_refused_in_one_line(tmp_path: Path, content: str) -> None:
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(ModelError, match=r"run.json' is damaged \(.+\). Run `lamella run` again: .*\.$") as caught:
        RunRecord.load(tmp_path / "run.json")
    assert "\n" not in str(caught.value)


def test_a_record_that_is_not_there_is_said_to_be_absent(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"^there is no '.*run.json'. Run `lamella study` again"):
        RunRecord.load(tmp_path / "run.json", made_by="lamella study")


def test_a_score_needs_whole_figures() -> None:
    model = measured()
    del model["slides"]["auc"]["value"]
    with pytest.raises(ValueError, match="value"):
        Score.model_validate(model)
