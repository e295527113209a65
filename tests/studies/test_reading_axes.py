"""Axes of how bags are read: heads side by side, and embeddings brought to one width, on planted bags."""

from pathlib import Path

import numpy as np
import pytest

from lamella.cohort import load_cohort
from lamella.errors import SettingsError
from lamella.features.layouts import load_bag
from lamella.mil import load_model
from lamella.mil.width import fit_projection
from lamella.pipeline.study import compare_arms
from lamella.studies.arms import Arm
from lamella.studies.design import check_design
from tests.studies.test_bags_study import OPTIONS, write_clam

N = 18
QUICK = {"seeds": 1, "folds": 3, "permutations": 0}


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a cohort whose slides are nowhere, with wide and narrow bags; odd slides have planted tiles."""
    folder = tmp_path_factory.mktemp("desk")
    rows = [f"nowhere/S{i:02d}.svs,S{i:02d},P{i:02d},{('benign', 'tumour')[i % 2]}" for i in range(N)]
    (folder / "cohort.csv").write_text("\n".join(["slide,slide_id,patient_id,label", *rows]) + "\n")
    for name, dim in (("wide", 24), ("narrow", 6)):
        (folder / name).mkdir()
        rng = np.random.default_rng(dim)
        for i in range(N):
            n = int(rng.integers(36, 44))
            features = rng.normal(size=(n, dim)).astype(np.float32)
            features[:12, :4] += 4.0 * (i % 2)
            write_clam(folder / name / f"S{i:02d}", features, np.stack([np.arange(n) * 512, np.zeros(n, int)], axis=1))
    return folder


def test_four_heads_stand_side_by_side_as_arms(desk: Path, tmp_path: Path) -> None:
    heads = ["attention", "clam-sb", "transmil", "additive"]
    block = {"features": {"uni2": str(desk / "wide")}, "heads": heads}
    design = check_design({"arms": [block], **QUICK, "train": {"epochs": 8, "lr": 0.001}}, "here")
    study = compare_arms(load_cohort(desk / "cohort.csv"), design, tmp_path / "out", options=OPTIONS)
    assert study.verdict is not None
    aucs = {arm.arm: arm.auc for arm in study.verdict.arms}
    assert list(aucs) == ["uni2", "uni2, clam-sb", "uni2, transmil", "uni2, additive"]
    assert min(aucs.values()) > 0.9, aucs
    assert {row.arm: row.state for row in study.record.arms} == dict.fromkeys(aucs, "done")
    page = (tmp_path / "out" / "report.html").read_text()
    assert "attention pooling, CLAM with one attention branch (Lu 2021), TransMIL (Shao 2021)" in page
    for head in heads:
        model = load_model(tmp_path / "out" / "arms" / Arm(encoder="uni2", head=head, features="x").folder
                           / "models" / "fold0" / "seed0")  # fmt: skip
        assert model.settings.head == head


def test_wider_embeddings_are_narrowed_by_components_of_each_folds_training_tiles(desk: Path, tmp_path: Path) -> None:
    block = {"features": {name: str(desk / name) for name in ("wide", "narrow")}, "width": ["full", 6]}
    design = check_design({"arms": [block], **QUICK, "train": {"epochs": 4}}, "here")
    study = compare_arms(load_cohort(desk / "cohort.csv"), design, tmp_path / "out", options=OPTIONS)
    predictions = {outcome.arm.name: outcome.predictions for outcome in study.outcomes}
    assert list(predictions) == ["wide", "wide, width 6", "narrow", "narrow, width 6"]
    assert predictions["narrow"].equals(predictions["narrow, width 6"])  # no wider: left as it is
    logits = {name: predictions[name]["logit_tumour"].to_numpy() for name in ("wide", "wide, width 6")}
    assert not np.allclose(logits["wide"], logits["wide, width 6"], atol=1e-3)
    for fold in range(3):
        model = load_model(tmp_path / "out" / "arms" / "wide-w6" / "models" / f"fold{fold}" / "seed0")
        bags = {i: load_bag(desk / "wide" / f"{i}.h5").features for i in model.training.train}
        projection = fit_projection(bags.values(), 6)
        assert projection is not None
        assert (model.width, model.embedding_dim) == (6, 24)
        np.testing.assert_allclose(model.standardisation.mean, projection.mean, atol=1e-5)
        layer = model.head.embed[0].weight.numpy()  # type: ignore[index,union-attr,operator]
        directions = layer / np.linalg.norm(layer, axis=1, keepdims=True)
        np.testing.assert_allclose(directions, projection.axes.T, atol=1e-4)
        row = predictions["wide, width 6"].query(f"fold == {fold} and side == 'test'").iloc[0]
        said = model.predict(load_bag(desk / "wide" / f"{row['slide_id']}.h5").features)
        assert said.logits[1] == pytest.approx(row["logit_tumour"], abs=1e-6)
    assert "For arms of width 6" in (tmp_path / "out" / "report.html").read_text()


def test_a_width_of_what_is_fine_tuned_is_refused() -> None:
    block = {"encoders": ["resnet18"], "finetuned": ["frozen", "tuned"], "width": 64}
    with pytest.raises(SettingsError, match="a width is of frozen arms"):
        check_design({"arms": [block]}, "here")
