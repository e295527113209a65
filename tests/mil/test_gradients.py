"""Written-out gradients are those of the heads."""

import numpy as np
import pytest
import torch
from torch import Tensor

from lamella.mil import gradients as module
from lamella.mil.gradients import HeadGradients, count_rows, find_loss, multiply
from lamella.mil.heads import HEADS, Head
from tests.mil.heads import WRITTEN_OUT


def make_head(name: str, dim: int) -> Head:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return HEADS[name](dim, 3, 0.0)


def make_rows(n_tiles: int, dim: int, n_rows: int) -> Tensor:
    rows = torch.zeros(n_rows, dim)
    rows[:n_tiles] = torch.randn(n_tiles, dim, generator=torch.Generator().manual_seed(n_tiles))
    return rows


@pytest.mark.parametrize("onednn", [True, False])
@pytest.mark.parametrize("n_tiles", [1, 7, 33])
@pytest.mark.parametrize("name", WRITTEN_OUT)
def test_they_are_what_autograd_finds(name: str, n_tiles: int, onednn: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not onednn:
        monkeypatch.setattr(module, "_has_onednn", lambda: False)
    head = make_head(name, 70)
    rows = make_rows(n_tiles, 70, count_rows(n_tiles))
    logits = head(rows[None, :n_tiles], torch.ones(1, n_tiles, dtype=torch.bool)).logits
    loss = torch.nn.functional.cross_entropy(logits, torch.tensor([2])) * 1.7
    loss.backward()
    with torch.no_grad():
        own = HeadGradients(head, torch.float32)
        found_loss, found = own.find_gradients(rows, n_tiles, 2, 1.7)
        assert own.find_logits(rows, n_tiles) == pytest.approx(logits[0].tolist(), abs=1e-5)
    assert found_loss == pytest.approx(loss.item(), rel=1e-5)
    for (label, parameter), gradient in zip(head.named_parameters(), found, strict=True):
        torch.testing.assert_close(gradient, parameter.grad, rtol=1e-4, atol=1e-6, msg=label)


@pytest.mark.parametrize("name", WRITTEN_OUT)
def test_rows_after_the_tiles_change_nothing(name: str) -> None:
    head = make_head(name, 9)
    with torch.no_grad():
        own = HeadGradients(head, torch.float32)
        loss, found = own.find_gradients(make_rows(20, 9, 20), 20, 0, 1.0)
        more_loss, more = own.find_gradients(make_rows(20, 9, 64), 20, 0, 1.0)
    assert more_loss == pytest.approx(loss, rel=1e-6)
    for one, other in zip(found, more, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-7)


def test_tiles_that_tie_share_the_gradient_of_the_largest() -> None:
    head = make_head("max", 5)
    tile = make_rows(1, 5, 1)
    with torch.no_grad():
        own = HeadGradients(head, torch.float32)
        _, once = own.find_gradients(tile, 1, 1, 1.0)
        _, twice = own.find_gradients(tile.repeat(2, 1), 2, 1, 1.0)
    for one, other in zip(once, twice, strict=True):
        torch.testing.assert_close(one, other)


def test_bf16_products_come_near() -> None:
    head = make_head("attention", 300)
    rows = make_rows(100, 300, 128)
    with torch.no_grad():
        _, exact = HeadGradients(head, torch.float32).find_gradients(rows, 100, 1, 1.0)
        _, near = HeadGradients(head, torch.bfloat16).find_gradients(rows.bfloat16(), 100, 1, 1.0)
    assert all(gradient.dtype == torch.float32 for gradient in near)
    assert float((near[0] - exact[0]).norm() / exact[0].norm()) < 0.15


def test_products_of_matrices_seen_from_the_side_are_right() -> None:
    left, right = make_rows(300, 200, 300), make_rows(301, 130, 301)[:300]
    np.testing.assert_allclose(multiply(left.T, right), left.numpy().T @ right.numpy(), atol=1e-3)


def test_few_shapes_hold_all_lengths_with_little_in_vain() -> None:
    lengths = range(1, 9000)
    given = [count_rows(n) for n in lengths]
    assert all(n <= rows < n + max(32, n / 15) for n, rows in zip(lengths, given, strict=True))
    assert len(set(given)) < 110


def test_the_loss_of_a_sure_head_is_a_number() -> None:
    probabilities, loss = find_loss([900.0, -900.0], 1)
    assert probabilities == [1.0, 0.0]
    assert loss == 1800
