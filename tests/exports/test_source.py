"""What is exported: the arm that a study recommends, or why nothing can be."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest

from lamella.cohort import Cohort
from lamella.errors import LeakageError, ModelError
from lamella.exports import source
from lamella.exports.card import load_card
from lamella.exports.open import open_export
from lamella.exports.write import ExportSettings, export_model
from lamella.files import parse_json_file
from lamella.pipeline.predict import predict_slides
from lamella.runs.folder import hash_tables
from lamella.runs.record import RunRecord
from lamella.runs.reference import load_reference
from lamella.studies.execute import Study
from lamella.studies.record import StudyRecord
from tests.exports.conftest import unlabelled


def test_what_cannot_be_exported_says_why(
    run: Path, study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ModelError, match="holds no arm 'tuned'"):
        export_model(run, tmp_path / "model", ExportSettings(arm="tuned"))
    with pytest.raises(ModelError, match="frozen, head and tuned"):
        export_model(run, tmp_path / "model", ExportSettings(arm="resnet18"))
    with pytest.raises(ModelError, match="holds no finished run"):
        export_model(tmp_path, tmp_path / "model")
    with pytest.raises(ModelError, match="the study has no arm 'resnet18'"):
        export_model(study.folder.path, tmp_path / "model", ExportSettings(arm="resnet18"))
    with pytest.raises(ModelError, match="waiting for weights"):
        export_model(study.folder.path, tmp_path / "model", ExportSettings(arm="resnet18-ciga@4"))
    bare = shutil.copytree(run, tmp_path / "bare", ignore=shutil.ignore_patterns("features"))
    with pytest.raises(ModelError, match=r"bag of slide 'S-00' is not in .* features folder"):
        export_model(bare, tmp_path / "model")
    monkeypatch.setattr(source, "fingerprint_encoder", lambda spec: "another")
    with pytest.raises(ModelError, match="not those that the models were trained with"):
        export_model(run, tmp_path / "model")


def test_the_recommended_arm_of_a_study_is_exported_and_none_where_it_cannot_tell(study: Study, tmp_path: Path) -> None:
    copy = shutil.copytree(study.folder.path, tmp_path / "study")
    verdict = parse_json_file(copy / "verdict.json")
    best = "resnet18@1, random weights"
    verdict["verdict"] |= {"kind": "inconclusive", "arm": None, "best_arm": best}
    verdict["verdict"].pop("best_guess", None)
    (copy / "verdict.json").write_text(json.dumps(verdict))
    with pytest.raises(ModelError, match=r"recommends no arm \(inconclusive\).* --arm 'resnet18@1, random weights'"):
        export_model(copy, tmp_path / "model")
    verdict["verdict"] |= {"kind": "non-inferior", "arm": best}
    (copy / "verdict.json").write_text(json.dumps(verdict))
    card = load_card(export_model(copy, tmp_path / "model"))
    assert card.arm == best
    assert card.encoders["encoder"].depth == 1
    assert card.encoders["encoder"].licence == "not stated"
    assert any("weights are random" in limit for limit in card.limits)
    assert card.figures.among_arms is not None
    assert card.figures.among_arms.auc is not None
    assert any("chosen among several" in note for note in card.notes)


def test_a_tuned_arm_brings_an_encoder_a_fold_and_averages_over_them(
    study: Study, new: Cohort, cohort: Cohort, tmp_path: Path
) -> None:
    arm = "resnet18@1, random weights, tuned"
    model = export_model(study.folder.path, tmp_path / "model", ExportSettings(arm=arm))
    card = load_card(model)
    names = [f"encoders/fold{fold}-seed0" for fold in range(3)]
    assert list(card.encoders) == names
    assert [head.encoder for head in card.members] == names
    reference = load_reference(model / "reference.npz")
    assert sorted(reference.embeddings) == [f"fold{fold}-seed0" for fold in range(3)]
    # Of each fold the 4 test slides and those of validation, which were encoded for the threshold.
    assert all(len(likeness.distances) > 4 for likeness in reference.embeddings.values())
    assert card.threshold is not None
    assert card.threshold.n_positive + card.threshold.n_negative == sum(
        len(member.model.training.val) for member in open_export(model).members
    )
    predictions, failures = predict_slides(model, dataclasses.replace(new, slides=new.slides[:2]), tmp_path / "out")
    assert failures == ()
    assert predictions[0].spread is not None
    features = tmp_path / "out" / "features" / "64px_0.5mpp_64px"
    assert sorted(path.name for path in features.glob("features_*")) == [f"features_fold{f}-seed0" for f in range(3)]
    leaky = dataclasses.replace(new.slides[0], path=cohort.slides[3].path)
    with pytest.raises(LeakageError):
        predict_slides(model, dataclasses.replace(new, slides=(leaky, new.slides[1])), tmp_path / "again")


def test_the_head_only_arm_shares_the_frozen_encoder(study: Study, new: Cohort, tmp_path: Path) -> None:
    arm = "resnet18@1, random weights, head only"
    model = export_model(study.folder.path, tmp_path / "model", ExportSettings(arm=arm))
    assert list(load_card(model).encoders) == ["encoder"]
    assert load_card(model).threshold is not None
    predictions, _ = predict_slides(
        model, unlabelled(dataclasses.replace(new, slides=new.slides[:1])), tmp_path / "out"
    )
    assert predictions[0].unlike is not None


def test_every_record_holds_the_hashes_of_its_tables_as_they_are_in_the_end(
    run: Path, model: Path, new: Cohort, study: Study, tmp_path: Path
) -> None:
    """Of a run, a study, and a prediction by each kind of model: a table that is written later has another hash."""
    predict_slides(run, new, tmp_path / "by-run")
    predict_slides(model, new, tmp_path / "by-export")
    for folder in (run, tmp_path / "by-run", tmp_path / "by-export"):
        record = RunRecord.load(folder / "run.json")
        assert record.files == hash_tables(folder)
        assert record.files
    assert StudyRecord.load(study.folder.record).files == hash_tables(study.folder.path)
