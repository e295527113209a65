"""An exported model predicts as the run did, with nothing else at hand, and refuses what is not as it was written."""

import csv
import dataclasses
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.special import softmax
from typer.testing import CliRunner

from lamella.cli import build_app
from lamella.cohort import Cohort, CohortSlide, load_cohort
from lamella.encoders import EncoderSpec, RuntimeSettings, find_encoder, fingerprint_encoder, weights
from lamella.encoders.trust import trusting
from lamella.encoders.tuned import SeenSlides, save_encoder_file
from lamella.errors import EncoderError, LeakageError, ModelError, OutputError, WeightsError
from lamella.exports import source, write
from lamella.exports.open import load_card, open_export, open_predictor
from lamella.exports.write import ExportSettings, export_model, hash_card
from lamella.features.bag import read_own_bag
from lamella.features.extract import ExtractSettings
from lamella.features.plan import CutSettings
from lamella.files import find_sha256, parse_json_file
from lamella.mil.settings import TrainSettings
from lamella.pipeline.predict import predict_slides
from lamella.runs.execute import execute_run
from lamella.runs.predict import open_run
from lamella.runs.reference import load_reference
from lamella.runs.settings import RunSettings
from lamella.studies.design import check_design
from lamella.studies.execute import Study, execute_study
from lamella.studies.options import StudyOptions
from lamella.tiles import TileSpec
from tests.tiny import draw_cohort, draw_tissue, save_slide

EXTRACT = ExtractSettings(
    cut=CutSettings(spec=TileSpec(tile_px=64, mpp=0.5)),
    encoders=(EncoderSpec("efficientnet-lite0@2"),),
    runtime=RuntimeSettings(precision="fp32", n_threads=1),
)
SETTINGS = RunSettings(extract=EXTRACT, train=TrainSettings(epochs=3), n_seeds=2, n_folds=3)
DESIGN = {
    "tiles": {"default": {"tile_px": 64, "mpp": 0.5}},
    "arms": [
        {"encoders": ["resnet18"], "depths": [1, 2], "weights": ["random"]},
        {"encoders": ["resnet18"], "depths": [1], "weights": ["random"], "finetuned": ["head", "tuned"]},
        {"encoders": ["resnet18-ciga"]},
    ],
    "seeds": 2,
    "folds": 3,
    "train": {"epochs": 2},
    "finetune": {"k": 4, "epochs": 1, "train_blocks": 1, "n_seeds": 1},
    "permutations": 0,
}


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


@pytest.fixture(scope="module", autouse=True)
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A store of one's own, in which nothing is yet."""
    with pytest.MonkeyPatch.context() as patch:
        home = tmp_path_factory.mktemp("home")
        patch.setenv("LAMELLA_HOME", str(home))
        yield home


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    return load_cohort(draw_cohort(tmp_path_factory.mktemp("cohort"), 12))


@pytest.fixture(scope="module")
def run(cohort: Cohort, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run") / "out"
    execute_run(cohort, SETTINGS, out)
    return out


@pytest.fixture(scope="module")
def model(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_model(run, tmp_path_factory.mktemp("export") / "model")


@pytest.fixture(scope="module")
def study(cohort: Cohort, tmp_path_factory: pytest.TempPathFactory) -> Study:
    options = StudyOptions(runtime=RuntimeSettings(runtime="torch", n_threads=1))
    return execute_study(
        cohort, check_design(DESIGN, "test"), tmp_path_factory.mktemp("study") / "out", options=options
    )


@pytest.fixture(scope="module")
def new(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    """Four slides like those of training, and one each that differs in resolution and in colour."""
    folder = tmp_path_factory.mktemp("new")
    slides = []
    for i in range(6):
        pixels, mpp = draw_tissue(50 + i, malignant=i % 2 == 1), 0.5
        if i == 4:
            pixels, mpp = draw_tissue(54, width=1240, height=1000), 0.25
        if i == 5:
            pixels = (pixels * [0.75, 0.95, 0.6]).astype(np.uint8)
        path = save_slide(folder / f"N-{i}.tif", pixels, mpp=mpp)
        label = "malignant" if i % 2 else "benign"
        slides.append(CohortSlide(slide_id=f"N-{i}", patient_id=f"Q-{i}", path=path, label=label))
    return Cohort(slides=tuple(slides), classes=("benign", "malignant"), positive="malignant", notes=())


def unlabelled(cohort: Cohort) -> Cohort:
    return dataclasses.replace(cohort, slides=tuple(dataclasses.replace(s, label=None) for s in cohort.slides))


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
    ours, theirs = (parse_json_file(tmp_path / place / "metrics.json") for place in ("by-model", "by-run"))
    assert ours == theirs
    assert ours["frozen_threshold"] is not None
    assert (tmp_path / "by-model" / "heatmaps" / "N-0" / "attention.png").exists()
    assert (tmp_path / "by-model" / "index.html").exists()


def test_a_compiled_network_of_an_export_is_never_used(
    model: Path, new: Cohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    monkeypatch.setenv("LAMELLA_HOME", str(home))
    one = dataclasses.replace(new, slides=new.slides[:1])
    poisoned = shutil.copytree(model, tmp_path / "poisoned")
    (poisoned / "encoder.xml").write_bytes(b"<net/>")
    card = load_card(model)
    victim = fingerprint_encoder(EncoderSpec("resnet18", "random"))
    card["encoders"]["encoder"]["fingerprint"] = victim  # as if it were another encoder's
    card["files"]["encoder.xml"] = find_sha256(poisoned / "encoder.xml")
    (poisoned / "model.json").write_text(json.dumps(card | {"card_sha256": hash_card(card)}))
    (ours,), _ = predict_slides(poisoned, one, tmp_path / "out")
    (theirs,), _ = predict_slides(model, one, tmp_path / "again")
    np.testing.assert_array_equal(ours.logits, theirs.logits)
    [entry] = (home / "compiled").iterdir()
    assert entry.name.startswith(fingerprint_encoder(EncoderSpec(str(model / "encoder.safetensors")))[:24])
    assert not entry.name.startswith(victim[:24])
    assert (entry / "network.xml").read_bytes() != b"<net/>"
    assert str(model.parent) not in (tmp_path / "out" / "run.json").read_text()


def test_the_spread_is_that_of_the_folds(model: Path, new: Cohort, tmp_path: Path) -> None:
    predictor = open_export(model)
    assert sorted({member.fold for member in predictor.members}) == [0, 1, 2]
    found, _ = predict_slides(predictor, unlabelled(new), tmp_path / "out")
    bag = next((tmp_path / "out" / "features").rglob("features_encoder/N-0.h5"))
    features = read_own_bag(bag)[0]
    folds = []
    for fold in range(3):
        logits = [m.model.predict(features).logits for m in predictor.members if m.fold == fold]
        assert len(logits) == 2
        folds.append(softmax(np.mean(logits, axis=0)))
    assert found[0].spread is not None
    np.testing.assert_allclose(found[0].spread.sd, np.std(folds, axis=0, ddof=1))
    np.testing.assert_allclose(found[0].spread.low, np.min(folds, axis=0))
    np.testing.assert_allclose(found[0].spread.high, np.max(folds, axis=0))
    row = read_rows(tmp_path / "out" / "predictions.csv")[0]
    assert float(row["sd_malignant"]) == pytest.approx(float(found[0].spread.sd[1]), abs=1e-6)
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


def test_a_file_that_differs_or_is_gone_is_refused(model: Path, tmp_path: Path) -> None:
    names = load_card(model)["files"]
    assert {"encoder.safetensors", "encoder.xml", "encoder.bin", "encoder.json", "reference.npz", "seen.json"} <= {
        *names
    }
    assert len([name for name in names if name.startswith("heads/")]) == 12
    for name in names:
        copy = shutil.copytree(model, tmp_path / "copy")
        content = bytearray((copy / name).read_bytes())
        content[len(content) // 2] ^= 1
        (copy / name).write_bytes(content)
        with pytest.raises(ModelError, match=f"'{name}' of .* is not the file that was exported"):
            open_export(copy)
        (copy / name).unlink()
        with pytest.raises(ModelError, match=f"lacks '{name}'"):
            open_export(copy)
        shutil.rmtree(copy)


def test_a_card_that_was_changed_is_refused(model: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(model, tmp_path / "copy")
    card = parse_json_file(copy / "model.json")
    card["threshold"]["value"] = 0.01
    (copy / "model.json").write_text(json.dumps(card))
    with pytest.raises(ModelError, match="is not as it was written"):
        open_predictor(copy)
    card["format_version"] = 2
    (copy / "model.json").write_text(json.dumps(card))
    with pytest.raises(ModelError, match="format version 2"):
        open_predictor(copy)


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
    assert card["trained_on"]["n_slides_by_class"] == {"benign": 6, "malignant": 6}
    assert (card["trained_on"]["n_slides"], card["trained_on"]["n_patients"]) == (12, 12)
    assert card["trained_on"]["slide_mpp"] == [0.5, 0.5]
    assert list(card["trained_on"]["formats"].values()) == [12]
    metrics = parse_json_file(run / "metrics.json")
    assert card["figures"]["auc"] == metrics["arms"]["model"]["patients"]["auc"]
    assert card["threshold"] == metrics["frozen_threshold"]
    assert card["settings"]["tile_px"] == 64
    encoder = card["encoders"]["encoder"]
    assert (encoder["network"], encoder["depth"], encoder["width"]) == ("tf_efficientnet_lite0", 2, 40)
    assert encoder == json.loads((model / "encoder.json").read_text())
    assert any("not a medical device" in limit for limit in card["limits"])
    page = (model / "README.md").read_text(encoding="utf-8")
    for text in ("12 slides of 12 patients", "AUC within folds", "apache-2.0", "Tiles of 64 px at 0.5 um/px"):
        assert text in page


def test_a_folder_of_others_runs_no_code_and_fetches_nothing(model: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(model, tmp_path / "copy")
    card = parse_json_file(copy / "model.json")
    for network in ("evil.py:build", "hf-hub:owner/name"):
        evil = dataclasses.replace(find_encoder(str(model / "encoder.safetensors")), network=network)
        save_encoder_file({"a": torch.zeros(1)}, evil, copy / "encoder.safetensors", seen=SeenSlides(), trained={})
        card["files"]["encoder.safetensors"] = find_sha256(copy / "encoder.safetensors")
        (copy / "model.json").write_text(json.dumps(card | {"card_sha256": hash_card(card)}))
        with pytest.raises(ModelError, match="none of timm's"):
            open_export(copy)


def test_replacing_an_export_removes_nothing_outside_it(run: Path, tmp_path: Path) -> None:
    (tmp_path / "precious.txt").write_text("kept")
    (tmp_path / "model").mkdir()
    card = {"format": "lamella-export", "files": {"../precious.txt": ""}}
    (tmp_path / "model" / "model.json").write_text(json.dumps(card))
    export_model(run, tmp_path / "model")
    assert (tmp_path / "precious.txt").read_text() == "kept"


def test_a_network_that_only_your_code_can_build_is_refused(tmp_path: Path, cohort: Cohort) -> None:
    own = tmp_path / "mine.py"
    own.write_text(
        "import torch\n\n\nclass Colours(torch.nn.Module):\n    def forward(self, tiles):\n"
        "        return tiles.mean((2, 3))\n\n\ndef build():\n    return Colours()\n"
    )
    extract = dataclasses.replace(EXTRACT, encoders=(EncoderSpec(f"{own}:build"),))
    with trusting(own):
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
    card = load_card(model)
    (model / "encoder.onnx").write_text("of an earlier one")
    card["files"]["encoder.onnx"] = ""
    (model / "model.json").write_text(json.dumps(card))
    export_model(run, model)
    assert not (model / "encoder.onnx").exists()
    open_export(model)


@pytest.mark.parametrize("step", ["_save_encoder", "save_model", "save_reference", "write_readme", "hash_card"])
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
    assert set(load_card(out)["files"]) == {name for name in written if name != "model.json" and name[0] != "."}
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
    assert card["arm"] == best
    assert card["encoders"]["encoder"]["depth"] == 1
    assert card["encoders"]["encoder"]["licence"] == "not stated"
    assert any("weights are random" in limit for limit in card["limits"])
    assert card["figures"]["among_arms"]["auc"] is not None
    assert any("chosen among several" in note for note in card["notes"])


def test_a_tuned_arm_brings_an_encoder_a_fold_and_averages_over_them(
    study: Study, new: Cohort, cohort: Cohort, tmp_path: Path
) -> None:
    arm = "resnet18@1, random weights, tuned"
    model = export_model(study.folder.path, tmp_path / "model", ExportSettings(arm=arm))
    card = load_card(model)
    names = [f"encoders/fold{fold}-seed0" for fold in range(3)]
    assert list(card["encoders"]) == names
    assert [member["encoder"] for member in card["members"]] == names
    reference = load_reference(model / "reference.npz")
    assert sorted(reference.embeddings) == [f"fold{fold}-seed0" for fold in range(3)]
    # Of each fold the 4 test slides and those of validation, which were encoded for the threshold.
    assert all(len(likeness.distances) > 4 for likeness in reference.embeddings.values())
    assert card["threshold"]["n_positive"] + card["threshold"]["n_negative"] == sum(
        len(member.model.training.val) for member in open_export(model).members
    )
    found, failures = predict_slides(model, dataclasses.replace(new, slides=new.slides[:2]), tmp_path / "out")
    assert failures == ()
    assert found[0].spread is not None
    features = tmp_path / "out" / "features" / "64px_0.5mpp_64px"
    assert sorted(path.name for path in features.glob("features_*")) == [f"features_fold{f}-seed0" for f in range(3)]
    leaky = dataclasses.replace(new.slides[0], path=cohort.slides[3].path)
    with pytest.raises(LeakageError):
        predict_slides(model, dataclasses.replace(new, slides=(leaky, new.slides[1])), tmp_path / "again")


def test_the_head_only_arm_shares_the_frozen_encoder(study: Study, new: Cohort, tmp_path: Path) -> None:
    arm = "resnet18@1, random weights, head only"
    model = export_model(study.folder.path, tmp_path / "model", ExportSettings(arm=arm))
    assert list(load_card(model)["encoders"]) == ["encoder"]
    assert load_card(model)["threshold"] is not None
    found, _ = predict_slides(model, unlabelled(dataclasses.replace(new, slides=new.slides[:1])), tmp_path / "out")
    assert found[0].unlike is not None


def test_onnx_computes_the_same_and_says_nothing_of_this_machine(run: Path, new: Cohort, tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    onnxruntime = pytest.importorskip("onnxruntime")
    model = export_model(run, tmp_path / "model", ExportSettings(onnx=True))
    card = load_card(model)
    assert card["onnx"]["checked"]
    assert {"encoder.onnx", "heads.onnx"} <= {*card["files"]}
    predictor = open_run(run).predictor()
    features = np.random.default_rng(0).normal(size=(29, 40)).astype(np.float32)
    session = onnxruntime.InferenceSession(model / "heads.onnx", providers=["CPUExecutionProvider"])
    logits, probabilities, attention, by_model = session.run(None, {"embeddings": features})
    wanted = [member.model.predict(features) for member in predictor.members]
    np.testing.assert_allclose(by_model, [one.logits for one in wanted], atol=1e-4)
    np.testing.assert_allclose(logits, np.mean([one.logits for one in wanted], axis=0), atol=1e-4)
    np.testing.assert_allclose(attention, np.mean([one.attention for one in wanted], axis=0), atol=1e-5)
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
