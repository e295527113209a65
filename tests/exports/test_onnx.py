"""Heads as ONNX: those that can be are computed as torch does, the others say so before anything is written."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from lamella.errors import SettingsError
from lamella.exports.onnx import _save_heads, save_onnx
from lamella.mil import SlideModel, TrainSettings, fit_model
from lamella.progress import SilentProgress
from tests.mil.conftest import make_cohort


def fit(head: str) -> SlideModel:
    cohort = make_cohort(12)
    settings = TrainSettings(head=head, epochs=1, lr=1e-4)
    names = list(cohort.bags)
    return fit_model(cohort.bags, cohort.labels, train=names[:8], val=names[8:], classes=("a", "b"), settings=settings)


@pytest.mark.parametrize("head", ["clam-sb", "additive"])
def test_heads_of_other_papers_are_written_and_checked(head: str, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    onnxruntime = pytest.importorskip("onnxruntime")
    model = fit(head)
    _save_heads([model], tmp_path / "heads.onnx", shared=True, check=True)
    bag = make_cohort(1, seed=9).bags["slide-00"]
    session = onnxruntime.InferenceSession(tmp_path / "heads.onnx", providers=["CPUExecutionProvider"])
    logits, _, attention, _ = session.run(None, {"embeddings": bag})
    prediction = model.predict(bag)
    np.testing.assert_allclose(logits, prediction.logits, atol=1e-4)
    np.testing.assert_allclose(attention, prediction.attention, atol=1e-5)


def test_a_head_whose_tiles_act_on_each_other_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    source = SimpleNamespace(members=[SimpleNamespace(model=fit("transmil"))])
    with pytest.raises(SettingsError, match=r"head 'transmil' cannot be written as ONNX.*--onnx out"):
        save_onnx(source, {}, tmp_path, progress=SilentProgress())  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())
