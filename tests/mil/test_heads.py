"""Heads: the laws of pooling, for every head and every bag."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lamella.mil.heads import HEADS, Head
from lamella.mil.settings import HEAD_NAMES

every_head = pytest.mark.parametrize("name", sorted(HEADS))


def make_head(name: str, dim: int = 7, n_classes: int = 3) -> Head:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return HEADS[name](dim, n_classes, 0.25).eval()


def test_the_settings_know_the_same_heads() -> None:
    assert set(HEAD_NAMES) == set(HEADS)


@every_head
@settings(max_examples=15, deadline=None)
@given(lengths=st.lists(st.integers(1, 9), min_size=1, max_size=4), extra=st.integers(0, 5), seed=st.integers(0, 2**16))
def test_padding_and_shuffling_a_bag_change_nothing(name: str, lengths: list[int], extra: int, seed: int) -> None:
    head = make_head(name)
    rng = np.random.default_rng(seed)
    bags = [rng.normal(size=(n, 7)).astype(np.float32) for n in lengths]
    orders = [rng.permutation(n) for n in lengths]
    longest = max(lengths) + extra
    padded = torch.full((len(bags), longest, 7), 1e6)  # a loud padding: any use of it shows
    real = torch.zeros(len(bags), longest, dtype=torch.bool)
    for i, (bag, order) in enumerate(zip(bags, orders, strict=True)):
        padded[i, : len(bag)] = torch.from_numpy(bag[order])
        real[i, : len(bag)] = True
    with torch.no_grad():
        together = head(padded, real)
        for i, (bag, order) in enumerate(zip(bags, orders, strict=True)):
            alone = head(torch.from_numpy(bag)[None], torch.ones(1, len(bag), dtype=torch.bool))
            torch.testing.assert_close(together.logits[i], alone.logits[0], rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(
                together.attention[i, : len(bag)], alone.attention[0, order], rtol=1e-4, atol=1e-6
            )
            assert float(together.attention[i, len(bag) :].abs().sum()) == 0


@every_head
def test_attention_sums_to_one_and_is_never_negative(name: str) -> None:
    real = torch.tensor([[True] * 6, [True] * 2 + [False] * 4])
    with torch.no_grad():
        attention = make_head(name)(torch.randn(2, 6, 7, generator=torch.Generator().manual_seed(2)), real).attention
    assert attention.shape == (2, 6)
    assert bool((attention >= 0).all())
    torch.testing.assert_close(attention.sum(dim=1), torch.ones(2))


def test_mean_pooling_attends_to_every_tile_alike() -> None:
    with torch.no_grad():
        attention = make_head("mean")(torch.randn(1, 5, 7), torch.ones(1, 5, dtype=torch.bool)).attention
    torch.testing.assert_close(attention, torch.full((1, 5), 0.2))


def test_max_pooling_shares_a_tie() -> None:
    twice = torch.ones(1, 2, 7)
    with torch.no_grad():
        attention = make_head("max")(twice, torch.ones(1, 2, dtype=torch.bool)).attention
    torch.testing.assert_close(attention, torch.full((1, 2), 0.5))


def test_the_default_head_has_the_sizes_of_the_paper() -> None:
    head = make_head("attention", dim=1280, n_classes=2)
    shapes = [tuple(p.shape) for p in head.parameters() if p.ndim == 2]
    assert shapes == [(256, 1280), (64, 256), (32, 64), (1, 32), (2, 64)]


def test_attention_pooling_equals_its_formula() -> None:
    head = make_head("attention")
    bag = torch.randn(1, 4, 7, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        out = head(bag, torch.ones(1, 4, dtype=torch.bool))
        tiles = head.embed(bag[0])
        scores = torch.tanh(tiles @ head.pool.value.weight.T + head.pool.value.bias) @ head.pool.score.weight[0]
        weights = torch.exp(scores) / torch.exp(scores).sum()
        slide = sum(weights[i] * tiles[i] for i in range(4))
        expected = head.classify.weight @ slide + head.classify.bias
    torch.testing.assert_close(out.logits[0], expected)
