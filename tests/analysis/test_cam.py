"""Class activation maps add up to what the model said, whatever the head."""

import numpy as np
import pytest

from lamella.analysis.cam import find_gradient, split_contrast
from lamella.errors import ModelError
from lamella.mil import fit_model
from lamella.mil.settings import TrainSettings
from tests.mil.heads import ADDING_UP


@pytest.fixture(scope="module")
def slides():
    rng = np.random.default_rng(3)
    maps = {f"S{i}": rng.normal(size=(5 + i, 6, 3, 4)).astype(np.float32) + (i % 3) for i in range(9)}
    labels = {name: "abc"[i % 3] for i, name in enumerate(maps)}
    return maps, labels


@pytest.mark.parametrize("head", ADDING_UP)
def test_cells_tile_biases_and_constant_sum_to_the_contrast(slides, head):
    maps, labels = slides
    bags = {name: one.mean(axis=(2, 3)) for name, one in maps.items()}
    names = list(maps)
    models = [
        fit_model(
            bags,
            labels,
            train=names[:6],
            val=names[6:],
            classes=("a", "b", "c"),
            settings=TrainSettings(head=head, epochs=3, seed=seed),
        )
        for seed in (0, 1)
    ]
    for name in names:
        logits = np.mean([model.predict(bags[name]).logits for model in models], axis=0)
        for target in range(3):
            split = split_contrast(models, bags[name], target=target)
            wanted = logits[target] - np.delete(logits, target).mean()
            assert split.contrast == pytest.approx(wanted, rel=1e-4, abs=1e-5)
            by_cell = np.einsum("nd,ndhw->nhw", split.gradient, maps[name])
            cells = (by_cell - (split.gradient @ split.centre)[:, None, None]) / by_cell[0].size
            total = cells.sum(dtype=np.float64) + split.tile_bias.sum() + split.constant
            scale = max(abs(split.contrast), np.abs(cells).sum(), np.abs(split.tile_bias).sum())
            assert abs(total - split.contrast) <= 1e-4 * scale


def test_a_head_whose_tiles_act_on_each_other_has_a_gradient_and_no_exact_map(slides):
    maps, labels = slides
    bags = {name: tiles.mean(axis=(2, 3)) for name, tiles in maps.items()}
    names = list(maps)
    train = TrainSettings(head="transmil", epochs=1, lr=1e-4)
    model = fit_model(bags, labels, train=names[:6], val=names[6:], classes=("a", "b", "c"), settings=train)
    with pytest.raises(ModelError, match=r"head 'transmil' lets tiles act on each other.*--method grad"):
        split_contrast([model], bags["S0"], target=1)
    gradient, contrast = find_gradient([model], bags["S0"], target=1)
    logits = model.predict(bags["S0"]).logits
    assert contrast == pytest.approx(logits[1] - np.delete(logits, 1).mean(), abs=1e-5)
    assert np.abs(gradient).max() > 0


def test_the_tile_that_matters_gets_the_contrast(slides):
    rng = np.random.default_rng(0)
    labels = {f"S{i}": "ab"[i % 2] for i in range(24)}
    bags = {}
    for i, name in enumerate(labels):
        bags[name] = rng.normal(size=(6, 5)).astype(np.float32)
        if i % 2:
            bags[name][2] += 6
    names = list(labels)
    model = fit_model(
        bags, labels, train=names[:18], val=names[18:], classes=("a", "b"), settings=TrainSettings(lr=1e-2)
    )
    split = split_contrast([model], bags["S21"], target=1)
    own = (split.gradient * (bags["S21"] - split.centre)).sum(axis=1) + split.tile_bias
    assert own.argmax() == 2
