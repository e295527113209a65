"""A model: what it says, what it refuses, and that its folder gives it back."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from lamella.errors import BagError, ModelError
from lamella.files import parse_json_file
from lamella.mil import (
    SlideModel,
    TrainSettings,
    check_bag_fits,
    fit_model,
    load_model,
    predict_ensemble,
    save_model,
)
from lamella.mil import model as model_module
from tests.mil.conftest import SmallCohort

KNOWN = {"encoder": "resnet18", "fingerprint": "ab12" * 16, "mpp": 0.5, "tile_px": 256}


def test_a_prediction_has_probabilities_and_attention_that_sum_to_one(
    small_model: SlideModel, small_cohort: SmallCohort
) -> None:
    bag = small_cohort.bags[small_cohort.test[1]]
    prediction = small_model.predict(bag)
    assert prediction.logits.shape == (2,)
    assert prediction.logits.dtype == np.float64
    assert prediction.attention.shape == (len(bag),)
    assert prediction.attention.sum() == pytest.approx(1, abs=1e-6)
    odds = np.exp(prediction.logits)
    np.testing.assert_allclose(prediction.probabilities, odds / odds.sum())


def test_a_huge_bag_is_predicted_in_pieces_with_the_same_result(
    small_model: SlideModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    bag = np.random.default_rng(2).normal(size=(1000, 11)).astype(np.float32)
    whole = small_model.predict(bag)
    monkeypatch.setattr(model_module, "_ROWS", 37)
    pieces = small_model.predict(bag)
    np.testing.assert_allclose(pieces.logits, whole.logits, rtol=1e-5)
    np.testing.assert_allclose(pieces.attention, whole.attention, rtol=1e-4)


@pytest.mark.parametrize("head", ["attention", "clam-sb", "additive", "max"])
def test_what_tiles_add_sums_to_what_the_model_says(head: str, small_cohort: SmallCohort, tmp_path: Path) -> None:
    """Whatever the encoder, and after saving and loading."""
    names = [name for number, name in enumerate(small_cohort.bags) if number % 4]  # two classes, one rarer
    model = fit_model(
        small_cohort.bags,
        small_cohort.labels,
        train=names[:20],
        val=names[20:],
        classes=("a", "b"),
        settings=TrainSettings(head=head, epochs=2),
    )
    assert model.training.class_weights[0] != model.training.class_weights[1]
    save_model(model, tmp_path)
    loaded, bag = load_model(tmp_path), small_cohort.bags["slide-00"]
    parts, prediction = loaded.split_logits(bag), model.predict(bag)
    assert parts.shape == (len(bag), 2)
    np.testing.assert_allclose(parts.sum(axis=0), prediction.logits, atol=1e-5)


def test_transmil_is_saved_and_loaded_and_does_not_split(small_cohort: SmallCohort, tmp_path: Path) -> None:
    settings = TrainSettings(head="transmil", epochs=1, lr=1e-4)
    names = list(small_cohort.bags)
    model = fit_model(
        small_cohort.bags, small_cohort.labels, train=names[:4], val=names[4:6], classes=("a", "b"), settings=settings
    )
    save_model(model, tmp_path)
    loaded, bag = load_model(tmp_path), small_cohort.bags["slide-07"]
    np.testing.assert_array_equal(loaded.predict(bag).logits, model.predict(bag).logits)
    with pytest.raises(ModelError, match="no sum over tiles"):
        loaded.split_logits(bag)


def test_save_then_load_is_identity(small_model: SlideModel, small_cohort: SmallCohort, tmp_path: Path) -> None:
    model = replace(small_model, positive="b", threshold={"value": 0.4, "rule": "youden"}, provenance=KNOWN)
    save_model(model, tmp_path / "fold0")
    state = torch.get_rng_state()
    loaded = load_model(tmp_path / "fold0")
    assert torch.equal(state, torch.get_rng_state())
    for name in ("classes", "positive", "settings", "training", "threshold", "provenance"):
        assert getattr(loaded, name) == getattr(model, name)
    for slide_id in small_cohort.test:
        before, after = (m.predict(small_cohort.bags[slide_id]) for m in (model, loaded))
        assert np.array_equal(before.logits, after.logits)
        assert np.array_equal(before.attention, after.attention)
    assert sorted(p.name for p in (tmp_path / "fold0").iterdir()) == ["model.json", "model.safetensors"]
    save_model(loaded, tmp_path / "again")
    for name in ("model.json", "model.safetensors"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "fold0" / name).read_bytes()


def test_a_damaged_or_foreign_folder_is_refused(small_model: SlideModel, tmp_path: Path) -> None:
    def saved(name: str) -> Path:
        save_model(small_model, tmp_path / name)
        return tmp_path / name

    def edit(folder: Path, **changes: object) -> Path:
        content = parse_json_file(folder / "model.json")
        (folder / "model.json").write_text(json.dumps(content | changes))
        return folder

    with pytest.raises(ModelError, match="no model in"):
        load_model(tmp_path / "nowhere")
    folder = saved("truncated")
    tensors = folder / "model.safetensors"
    tensors.write_bytes(tensors.read_bytes()[:-100])
    with pytest.raises(ModelError, match="SHA-256 differs"):
        load_model(folder)
    folder = saved("halved")
    (folder / "model.json").write_text((folder / "model.json").read_text()[:300])
    with pytest.raises(ModelError, match="is damaged"):
        load_model(folder)
    folder = saved("lost")
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="cannot be read"):
        load_model(folder)
    with pytest.raises(ModelError, match="not a model of this package"):
        load_model(edit(saved("foreign"), format="other"))
    with pytest.raises(ModelError, match="format version 2 and this version of lamella reads 1"):
        load_model(edit(saved("newer"), format_version=2))
    with pytest.raises(ModelError, match="does not describe a model"):
        load_model(edit(saved("classes"), classes=["a", "b", "c"]))
    with pytest.raises(ModelError, match="does not describe a model"):
        load_model(edit(saved("settings"), settings={"head": "unheard"}))
    (tmp_path / "list").mkdir()
    (tmp_path / "list" / "model.json").write_text("[]")
    with pytest.raises(ModelError, match="not a model of this package"):
        load_model(tmp_path / "list")


def test_an_ensemble_is_the_mean_of_its_logits(small_model: SlideModel, small_cohort: SmallCohort) -> None:
    weights = replace(small_model.training, class_weights=(0.5, 2.0))
    other = replace(small_model, training=weights)
    bag = small_cohort.bags[small_cohort.test[0]]
    together = predict_ensemble([small_model, other], bag)
    np.testing.assert_allclose(together.logits, (small_model.predict(bag).logits + other.predict(bag).logits) / 2)
    assert together.probabilities.sum() == pytest.approx(1)
    np.testing.assert_allclose(together.attention, small_model.predict(bag).attention, rtol=1e-5)
    with pytest.raises(ModelError, match="at least 1"):
        predict_ensemble([], bag)
    with pytest.raises(ModelError, match="one model has classes a, b and another b, a"):
        predict_ensemble([small_model, replace(small_model, classes=("b", "a"))], bag)


def test_bad_features_are_refused(small_model: SlideModel) -> None:
    with pytest.raises(BagError, match="at least one tile"):
        small_model.predict(np.zeros((0, 11), np.float32))
    with pytest.raises(BagError, match="NaN"):
        small_model.predict(np.full((2, 11), np.nan, np.float32))
    with pytest.raises(ModelError, match="embeddings of 11 features but the bag has 12"):
        small_model.predict(np.zeros((2, 12), np.float32))


def test_bags_made_the_same_way_fit(small_model: SlideModel) -> None:
    model = replace(small_model, provenance=KNOWN)
    check_bag_fits(model, fingerprint="ab12" * 16, mpp=0.5001, tile_px=256, embedding_dim=11)
    foreign = replace(small_model, provenance={"encoder": "uni", "fingerprint": None})
    check_bag_fits(foreign, fingerprint=None, mpp=None, tile_px=None, embedding_dim=11, encoder="uni")


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (
            {"fingerprint": "cd34" * 16},
            "'resnet18' \\(fingerprint ab12ab12ab12\\).*'resnet34' \\(fingerprint cd34cd34cd34",
        ),
        ({"fingerprint": None}, "fingerprint not stated"),
        ({"mpp": 0.25}, "mpp 0.5 um/px but the bag has 0.25"),
        ({"mpp": None}, "mpp 0.5 um/px but the bag does not state its own"),
        ({"tile_px": 224}, "tile size 256 px but the bag has 224 px"),
        ({"embedding_dim": 512}, "of 11 features but the bag has 512"),
    ],
)
def test_bags_made_another_way_are_refused(small_model: SlideModel, change: dict[str, object], match: str) -> None:
    given: dict[str, object] = {"fingerprint": "ab12" * 16, "mpp": 0.5, "tile_px": 256, "embedding_dim": 11}
    with pytest.raises(ModelError, match=match):
        check_bag_fits(replace(small_model, provenance=KNOWN), **(given | change), encoder="resnet34")  # type: ignore[arg-type]


def test_without_fingerprints_the_names_of_the_encoders_are_compared(small_model: SlideModel) -> None:
    model = replace(small_model, provenance={"encoder": "uni"})
    with pytest.raises(ModelError, match="encoder 'uni' but the bag is of encoder 'conch'"):
        check_bag_fits(model, fingerprint=None, mpp=None, tile_px=None, embedding_dim=11, encoder="conch")
