"""Width: principal components of the training tiles, for embeddings that are wider."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from lamella.defaults import HeadName
from lamella.errors import SettingsError
from lamella.mil import fit_model, load_model, save_model
from lamella.mil.settings import TrainSettings
from lamella.mil.width import fit_projection, read_whole


def make_bags(sizes: tuple[int, ...] = (30, 30, 30), dim: int = 9) -> list[NDArray[np.float16]]:
    rng = np.random.default_rng(2)
    mixing = rng.normal(size=(dim, dim)) * np.linspace(3, 0.2, dim)[:, None]
    return [(rng.normal(size=(size, dim)) @ mixing + 2).astype(np.float16) for size in sizes]


def test_components_are_those_of_all_tiles_where_slides_have_as_many() -> None:
    bags = make_bags()
    rows = np.concatenate(bags).astype(np.float64)
    projection = fit_projection(bags, 4)
    assert projection is not None
    _, _, wanted = np.linalg.svd(rows - rows.mean(axis=0), full_matrices=False)
    np.testing.assert_allclose(np.abs(projection.axes.T @ wanted[:4].T), np.eye(4), atol=1e-4)
    projected = np.concatenate([projection.apply(bag) for bag in bags])
    np.testing.assert_allclose(projected.mean(axis=0), 0, atol=1e-3)
    assert (np.diff(projected.var(axis=0)) < 0).all()


def test_each_slide_weighs_the_same() -> None:
    small, large = make_bags((20, 20))
    once, often = fit_projection([small, large], 3), fit_projection([small, np.tile(large, (5, 1))], 3)
    assert once is not None
    assert often is not None
    np.testing.assert_allclose(often.axes, once.axes, atol=1e-5)
    np.testing.assert_allclose(often.mean, once.mean, atol=1e-5)


@pytest.mark.parametrize("width", [9, 64])
def test_embeddings_that_are_no_wider_are_left_alone(width: int) -> None:
    assert fit_projection(make_bags(), width) is None


def test_no_width_and_no_slides_are_refused() -> None:
    with pytest.raises(SettingsError, match="at least 1"):
        fit_projection(make_bags(), 0)
    with pytest.raises(SettingsError, match="no training slides"):
        fit_projection([], 4)


@pytest.mark.parametrize("head", ["attention", "max", "transmil"])
def test_a_model_of_narrowed_embeddings_reads_whole_ones_to_the_same_numbers(head: HeadName, tmp_path: Path) -> None:
    bags = {f"S{i}": bag for i, bag in enumerate(make_bags((12, 9, 15, 11)))}
    projection = fit_projection([bags["S0"], bags["S1"]], 4)
    assert projection is not None
    narrowed = {slide_id: projection.apply(bag) for slide_id, bag in bags.items()}
    labels = {f"S{i}": "ab"[i % 2] for i in range(4)}
    settings = TrainSettings(head=head, epochs=2)
    model = fit_model(narrowed, labels, train=["S0", "S1"], val=["S2"], classes="ab", settings=settings)
    whole = read_whole(model, projection)
    assert (whole.embedding_dim, whole.width) == (9, 4)
    save_model(whole, tmp_path)
    loaded = load_model(tmp_path)
    for slide_id, bag in bags.items():
        wanted = model.predict(narrowed[slide_id])
        np.testing.assert_allclose(whole.predict(bag).logits, wanted.logits, atol=1e-5)
        np.testing.assert_allclose(whole.predict(bag).attention, wanted.attention, atol=1e-5)
        assert np.array_equal(loaded.predict(bag).logits, whole.predict(bag).logits)
    assert loaded.width == 4
