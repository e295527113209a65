"""An exported model predicts as the run did, with nothing else at hand, and refuses what is not as it was written."""

import csv
import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from scipy.special import softmax
from typer.testing import CliRunner

from lamella.cli import build_app
from lamella.cohort import Cohort
from lamella.encoders import EncoderSpec, find_encoder, fingerprint_encoder, weights
from lamella.encoders.trust import trusting
from lamella.errors import EncoderError, LeakageError, ModelError, OutputError, WeightsError
from lamella.exports import write
from lamella.exports.card import hash_card, load_card
from lamella.exports.open import open_export, open_predictor
from lamella.exports.write import ExportSettings, export_model
from lamella.features.layouts import open_own_bag
from lamella.files import find_sha256, parse_json_file
from lamella.pipeline.predict import predict_bags, predict_slides
from lamella.runs.execute import execute_run
from lamella.runs.metrics import Metrics
from lamella.runs.predict import open_run
from lamella.runs.record import RunRecord
from tests.exports.conftest import EXTRACT, SETTINGS, unlabelled


class Listener:
    """A progress that keeps what is said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)

    def stage(self, *args: object) -> "Listener":
        return self

    def advance(self, n: int = 1) -> None: ...

    def expect(self, n: int) -> None: ...

    def __enter__(self) -> "Listener":
        return self

    def __exit__(self, *args: object) -> None: ...


def read_rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def test_an_export_predicts_as_the_run_did_without_the_weights(
    run: Path, model: Path, new: Cohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    by_run, _ = predict_slides(run, new, tmp_path / "by-run")
    moved = shutil.copytree(model, tmp_path / "elsewhere" / "model")
    monkeypatch.setenv("LAMELLA_HOME", str(tmp_path / "empty"))
    monkeypatch.setattr(weights, "_find_package_file", lambda card: None)
    with pytest.raises(WeightsError):
        weights.find_weights(find_encoder("efficientnet-lite0"))
    by_model, failures = predict_slides(moved, new, tmp_path / "by-model")
    assert failures == ()
    for theirs, ours in zip(by_run, by_model, strict=True):
        np.testing.assert_allclose(ours.logits, theirs.logits, atol=1e-5)
        np.testing.assert_allclose(ours.attention, theirs.attention, atol=1e-6)
    ours, theirs = (parse_json_file(tmp_path / folder / "metrics.json") for folder in ("by-model", "by-run"))
    assert ours == theirs
    bags = next((tmp_path / "by-run" / "features").glob("*/features_*"))
    for source in (run, moved):  # the bags of slides that were encoded here are known to be of the same weights
        from_bags, failures = predict_bags(source, bags, tmp_path / "from-bags", cohort=new)
        assert failures == ()
        assert not any("not compared" in note for note in RunRecord.load(tmp_path / "from-bags" / "run.json").notes)
        for by_slide, by_bag in zip(by_run, from_bags, strict=True):
            np.testing.assert_allclose(by_bag.logits, by_slide.logits, atol=1e-6)
    assert ours["frozen_threshold"] is not None
    assert (tmp_path / "by-model" / "heatmaps" / "N-0" / "attention.png").exists()
    assert (tmp_path / "by-model" / "report.html").exists()


def test_a_compiled_network_of_an_export_is_never_used(
    model: Path, new: Cohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    monkeypatch.setenv("LAMELLA_HOME", str(home))
    alone = dataclasses.replace(new, slides=new.slides[:1])
    poisoned = shutil.copytree(model, tmp_path / "poisoned")
    (poisoned / "encoder.xml").write_bytes(b"<net/>")
    card = parse_json_file(model / "model.json")
    victim = fingerprint_encoder(EncoderSpec("resnet18", "random"))
    card["encoders"]["encoder"]["fingerprint"] = victim  # as if it were another encoder's
    card["files"]["encoder.xml"] = find_sha256(poisoned / "encoder.xml")
    (poisoned / "model.json").write_text(json.dumps(card | {"card_sha256": hash_card(card)}))
    (ours,), _ = predict_slides(poisoned, alone, tmp_path / "out")
    (theirs,), _ = predict_slides(model, alone, tmp_path / "again")
    np.testing.assert_array_equal(ours.logits, theirs.logits)
    [entry] = (home / "compiled").iterdir()
    assert entry.name.startswith(fingerprint_encoder(EncoderSpec(str(model / "encoder.safetensors")))[:24])
    assert not entry.name.startswith(victim[:24])
    assert (entry / "network.xml").read_bytes() != b"<net/>"
    assert str(model.parent) not in (tmp_path / "out" / "run.json").read_text()


def test_the_spread_is_that_of_the_folds(model: Path, new: Cohort, tmp_path: Path) -> None:
    predictor = open_export(model)
    assert sorted({member.fold for member in predictor.members}) == [0, 1, 2]
    predictions, _ = predict_slides(predictor, unlabelled(new), tmp_path / "out")
    bag = next((tmp_path / "out" / "features").rglob("features_encoder/N-0.h5"))
    features = open_own_bag(bag).read_stored()
    folds = []
    for fold in range(3):
        logits = [m.model.predict(features).logits for m in predictor.members if m.fold == fold]
        assert len(logits) == 2
        folds.append(softmax(np.mean(logits, axis=0)))
    assert predictions[0].spread is not None
    np.testing.assert_allclose(predictions[0].spread.sd, np.std(folds, axis=0, ddof=1))
    np.testing.assert_allclose(predictions[0].spread.low, np.min(folds, axis=0))
    np.testing.assert_allclose(predictions[0].spread.high, np.max(folds, axis=0))
    row = read_rows(tmp_path / "out" / "predictions.csv")[0]
    assert float(row["sd_malignant"]) == pytest.approx(float(predictions[0].spread.sd[1]), abs=1e-6)
    assert float(row["min_malignant"]) <= float(row["prob_malignant"]) <= float(row["max_malignant"])


def test_slides_unlike_those_of_training_are_flagged_with_reasons(model: Path, new: Cohort, tmp_path: Path) -> None:
    listener = Listener()
    predict_slides(model, unlabelled(new), tmp_path / "out", progress=listener)
    rows = {row["slide_id"]: row for row in read_rows(tmp_path / "out" / "predictions.csv")}
    for name in ("N-0", "N-1", "N-2", "N-3"):
        assert (rows[name]["unlike_mpp"], rows[name]["unlike_colour"], rows[name]["unlike"]) == ("0", "0", ""), name
    assert rows["N-4"]["unlike_mpp"] == "1"
    assert "scanned at 0.25 um/px, those of training at 0.5" in rows["N-4"]["unlike"]
    assert (rows["N-5"]["unlike_colour"], rows["N-5"]["unlike_embedding"]) == ("1", "1")
    assert "colour of tissue lies" in rows["N-5"]["unlike"]
    notes = parse_json_file(tmp_path / "out" / "run.json")["notes"]
    assert any("'N-5' is unlike" in note for note in notes)
    assert any("'N-5' is unlike" in said for said in listener.said)
    assert not any("'N-0' is unlike" in said for said in listener.said)


def test_measuring_on_what_was_learned_from_is_refused(
    model: Path, cohort: Cohort, new: Cohort, tmp_path: Path
) -> None:
    same_file = dataclasses.replace(new.slides[0], path=cohort.slides[3].path)
    same_patient = dataclasses.replace(new.slides[0], patient_id=cohort.slides[3].patient_id)
    for slide, what in ((same_file, "the image"), (same_patient, "the patient")):
        leaky = dataclasses.replace(new, slides=(slide, *new.slides[1:4]))
        with pytest.raises(LeakageError, match=f"{what} of slide 'N-0' was learned from by this model"):
            predict_slides(model, leaky, tmp_path / "out")
    listener = Listener()
    leaky = dataclasses.replace(new, slides=(dataclasses.replace(same_patient, label=None),))
    predict_slides(model, leaky, tmp_path / "out", progress=listener)
    assert any("they know the answer" in said for said in listener.said)


def test_under_pseudonyms_files_are_known_again_and_ids_cannot_be_tried(
    run: Path, cohort: Cohort, new: Cohort, tmp_path: Path
) -> None:
    model = export_model(run, tmp_path / "model", ExportSettings(pseudonyms=True))
    seen = json.loads((model / "seen.json").read_text())
    assert (seen["salt"], seen["patients"]) == (None, [])
    salt = (run / "local" / "salt.txt").read_text().strip()
    assert all(salt.encode() not in path.read_bytes() for path in model.rglob("*") if path.is_file())
    leaky = dataclasses.replace(new.slides[0], path=cohort.slides[3].path)
    with pytest.raises(LeakageError, match="the image"):
        predict_slides(model, dataclasses.replace(new, slides=(leaky, *new.slides[1:4])), tmp_path / "out")
    listener = Listener()
    predict_slides(model, dataclasses.replace(new, slides=new.slides[:2]), tmp_path / "out", progress=listener)
    assert any("ids of the patients of training did not come along" in said for said in listener.said)


def test_the_card_says_what_it_was_trained_on_its_figures_and_limits(model: Path, run: Path) -> None:
    card = load_card(model)
    assert card.trained_on.n_slides_by_class == {"benign": 6, "malignant": 6}
    assert (card.trained_on.n_slides, card.trained_on.n_patients) == (12, 12)
    assert card.trained_on.slide_mpp == (0.5, 0.5)
    assert list(card.trained_on.formats.values()) == [12]
    metrics = Metrics.load(run / "metrics.json")
    assert metrics.scores.model.patients is not None
    assert card.figures.auc == metrics.scores.model.patients.auc
    assert card.threshold == metrics.frozen_threshold
    assert card.settings == RunRecord.load(run / "run.json").settings
    encoder = card.encoders["encoder"]
    assert (encoder.network, encoder.depth, encoder.width) == ("tf_efficientnet_lite0", 2, 40)
    assert encoder.as_json() == json.loads((model / "encoder.json").read_text())
    assert any("not a medical device" in limit for limit in card.limits)
    page = (model / "README.md").read_text(encoding="utf-8")
    for text in ("12 slides of 12 patients", "AUC within folds", "apache-2.0", "Tiles of 64 px at 0.5 um/px"):
        assert text in page


def test_replacing_an_export_removes_nothing_outside_it(run: Path, tmp_path: Path) -> None:
    (tmp_path / "precious.txt").write_text("kept")
    (tmp_path / "model").mkdir()
    card = {"format": "lamella-export", "files": {"../precious.txt": ""}}
    (tmp_path / "model" / "model.json").write_text(json.dumps(card))
    export_model(run, tmp_path / "model")
    assert (tmp_path / "precious.txt").read_text() == "kept"


def test_a_network_that_only_your_code_can_build_is_refused(tmp_path: Path, cohort: Cohort) -> None:
    builder = tmp_path / "mine.py"
    builder.write_text(
        "import torch\n\n\nclass Colours(torch.nn.Module):\n    def forward(self, tiles):\n"
        "        return tiles.mean((2, 3))\n\n\ndef build():\n    return Colours()\n"
    )
    extract = dataclasses.replace(EXTRACT, encoders=(EncoderSpec(f"{builder}:build"),))
    with trusting(builder):
        execute_run(cohort, dataclasses.replace(SETTINGS, extract=extract, n_seeds=1), tmp_path / "run")
    with pytest.raises(EncoderError, match="built by your own code"):
        export_model(tmp_path / "run", tmp_path / "model")
    assert not (tmp_path / "model" / "model.json").exists()


def test_an_earlier_export_is_replaced_and_other_folders_are_left_alone(run: Path, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "precious.txt").write_text("kept")
    with pytest.raises(OutputError, match="not empty"):
        export_model(run, tmp_path / "full")
    model = export_model(run, tmp_path / "model")
    card = parse_json_file(model / "model.json")
    (model / "encoder.onnx").write_text("of an earlier one")
    card["files"]["encoder.onnx"] = ""
    (model / "model.json").write_text(json.dumps(card))
    export_model(run, model)
    assert not (model / "encoder.onnx").exists()
    open_export(model)


@pytest.mark.parametrize("step", ["_save_encoder", "save_model", "save_reference", "write_readme", "find_sha256"])
def test_an_export_that_was_killed_goes_on_by_the_same_command(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    out = tmp_path / "model"
    with monkeypatch.context() as patch:
        patch.setattr(write, step, lambda *_args, **_named: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            export_model(run, out)
    assert (out / "unfinished.json").is_file()
    with pytest.raises(ModelError):
        open_predictor(out)
    (out / "README.md").write_text("half")
    (out / f".encoder.{'0' * 8}-1.x.tmp.safetensors").write_text("of another machine")
    export_model(run, out)
    assert not (out / "unfinished.json").exists()
    written = [path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()]
    assert set(load_card(out).files) == {name for name in written if name != "model.json" and name[0] != "."}
    open_export(out)


def test_an_export_whose_folder_is_taken_away_says_so(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "model"
    real = write.build_reference
    for removed in (lambda: shutil.rmtree(out), lambda: [p.unlink() for p in out.glob("*.json")]):
        with monkeypatch.context() as patch:
            patch.setattr(write, "build_reference", lambda *args, do=removed: (do(), real(*args))[1])
            with pytest.raises(OutputError, match="was removed or emptied while the model was written"):
                export_model(run, out)
        assert not (out / "model.json").exists()
        shutil.rmtree(out, ignore_errors=True)
    open_export(export_model(run, out))


def test_onnx_computes_the_same_and_says_nothing_of_this_machine(run: Path, new: Cohort, tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    onnxruntime = pytest.importorskip("onnxruntime")
    model = export_model(run, tmp_path / "model", ExportSettings(onnx=True))
    card = load_card(model)
    assert card.onnx is not None
    assert card.onnx.checked
    assert {"encoder.onnx", "heads.onnx"} <= {*card.files}
    predictor = open_run(run).predictor()
    features = np.random.default_rng(0).normal(size=(29, 40)).astype(np.float32)
    session = onnxruntime.InferenceSession(model / "heads.onnx", providers=["CPUExecutionProvider"])
    logits, probabilities, attention, by_model = session.run(None, {"embeddings": features})
    wanted = [member.model.predict(features) for member in predictor.members]
    np.testing.assert_allclose(by_model, [prediction.logits for prediction in wanted], atol=1e-4)
    np.testing.assert_allclose(logits, np.mean([prediction.logits for prediction in wanted], axis=0), atol=1e-4)
    np.testing.assert_allclose(attention, np.mean([prediction.attention for prediction in wanted], axis=0), atol=1e-5)
    assert float(probabilities.sum()) == pytest.approx(1, abs=1e-5)
    for name in ("encoder.onnx", "heads.onnx"):
        content = (model / name).read_bytes()
        assert b".py" not in content
        assert b"/lamella" not in content


def test_the_command_exports_and_predict_takes_the_folder(run: Path, new: Cohort, tmp_path: Path) -> None:
    done = CliRunner().invoke(build_app(), ["export", str(run), "--out", str(tmp_path / "model"), "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["arm"] == "efficientnet-lite0@2"
    command = ["predict", str(tmp_path / "model"), str(new.slides[0].path), "--out", str(tmp_path / "out"), "--json"]
    done = CliRunner().invoke(build_app(), command)
    assert done.exit_code == 0, done.output
    (row,) = json.loads(done.stdout)["predictions"]
    assert (row["slide_id"], row["unlike"]) == ("N-0", "")
    assert 0 <= row["sd"] <= 1
