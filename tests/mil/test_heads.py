"""Heads: the laws of pooling, for every head and every bag."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lamella.errors import ModelError
from lamella.mil.heads import HEADS, Head
from lamella.mil.settings import HEAD_NAMES
from tests.mil.heads import ADDING_UP, ANY_ORDER

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
    orders = [rng.permutation(n) if name in ANY_ORDER else np.arange(n) for n in lengths]
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


def test_only_the_head_that_says_so_heeds_the_order_of_tiles() -> None:
    assert set(HEADS) - set(ANY_ORDER) == {"transmil"}
    bag = torch.randn(1, 7, 7, generator=torch.Generator().manual_seed(8))
    head, real = make_head("transmil"), torch.ones(1, 7, dtype=torch.bool)
    with torch.no_grad():
        first, second = head(bag, real), head(bag.flip(1), real)
    assert float((first.logits - second.logits).abs().max()) > 1e-4


@pytest.mark.parametrize("name", ADDING_UP)
def test_what_tiles_add_sums_to_the_logits(name: str) -> None:
    real = torch.tensor([[True] * 9, [True] * 4 + [False] * 5])
    bag = torch.randn(2, 9, 7, generator=torch.Generator().manual_seed(4))
    head = make_head(name)
    with torch.no_grad():
        tiles = head.embed_bag(bag, real)
        parts = head.split_logits(tiles, real)
        logits = head(bag, real).logits
    assert parts.shape == (2, 9, 3)
    assert parts[~real].eq(0).all()
    torch.testing.assert_close(parts.sum(dim=1), logits, rtol=1e-5, atol=1e-5)


def test_a_head_whose_tiles_act_on_each_other_refuses_to_split() -> None:
    with pytest.raises(ModelError, match="--head additive"):
        make_head("transmil").split_logits(torch.randn(1, 4, 512), torch.ones(1, 4, dtype=torch.bool))


def test_an_additive_tile_says_by_attention_what_it_says_alone() -> None:
    """A tile's part of the logit is its attention times the logit of a slide that holds nothing else."""
    head, real = make_head("additive"), torch.ones(1, 6, dtype=torch.bool)
    bag = torch.randn(1, 6, 7, generator=torch.Generator().manual_seed(6))
    with torch.no_grad():
        parts = head.split_logits(head.embed_bag(bag, real), real)[0]
        attention = head(bag, real).attention[0]
        alone = head(bag[0, :, None], torch.ones(6, 1, dtype=torch.bool)).logits
    torch.testing.assert_close(parts, attention[:, None] * alone)


def test_the_additive_head_equals_its_formula() -> None:
    """The sum over tiles of `psi(a_i h_i, a_i)`, tile by tile."""
    head, bag = make_head("additive"), torch.randn(1, 6, 7, generator=torch.Generator().manual_seed(6))
    weights = {name: weight.detach().double().numpy() for name, weight in head.named_parameters()}

    def layer(name: str, rows: np.ndarray, bias: float | np.ndarray = 1.0) -> np.ndarray:
        return rows @ weights[f"{name}.weight"].T + bias * weights[f"{name}.bias"]

    tiles = np.maximum(layer("embed.3", np.maximum(layer("embed.0", bag[0].double().numpy()), 0)), 0)  # (6, 64)
    scores = layer("pool.score", np.tanh(layer("pool.value", tiles)))[:, 0]
    attention = np.exp(scores) / np.exp(scores).sum()
    wanted = np.zeros(3)
    for tile, share in zip(tiles, attention, strict=True):
        attended = share * tile
        wanted += layer("classify", np.maximum(layer("pool.read.0", attended, share), 0), share)
    with torch.no_grad():
        logits = head(bag, torch.ones(1, 6, dtype=torch.bool)).logits[0]
    np.testing.assert_allclose(logits.numpy(), wanted, atol=1e-6)


def test_a_slide_of_each_tile_twice_says_the_same() -> None:
    head, bag = make_head("additive"), torch.randn(1, 6, 7, generator=torch.Generator().manual_seed(6))
    with torch.no_grad():
        once, twice = (
            head(tiles, torch.ones(tiles.shape[:2], dtype=torch.bool)).logits for tiles in (bag, bag.repeat(1, 2, 1))
        )
    torch.testing.assert_close(once, twice)


@pytest.mark.parametrize("name", ["attention", "ilse", "gated"])
def test_attention_heads_are_torchmils_abmil_with_the_same_weights(name: str) -> None:
    models = pytest.importorskip("torchmil.models")
    ours = make_head(name, n_classes=2)
    gated = name == "gated"
    hidden = ours.pool.value.out_features
    theirs = models.ABMIL(in_shape=(7,), att_dim=hidden, gated=gated, feat_ext=ours.embed).eval()
    theirs.pool.fc1.module.load_state_dict(ours.pool.value.state_dict())
    theirs.pool.fc2.load_state_dict({"weight": ours.pool.score.weight})
    if gated:
        theirs.pool.fc_gated.module.load_state_dict(ours.pool.gate.state_dict())
    theirs.classifier.module.load_state_dict({name: w[1:] - w[:1] for name, w in ours.classify.state_dict().items()})
    bag = torch.randn(1, 33, 7, generator=torch.Generator().manual_seed(9))
    with torch.no_grad():
        logits, attention = ours(bag, torch.ones(1, 33, dtype=torch.bool))
        logit, scores = theirs(bag, return_att=True)
    assert float(logits[0, 1] - logits[0, 0]) == pytest.approx(float(logit), abs=1e-5)
    torch.testing.assert_close(attention, scores.softmax(dim=1), rtol=0, atol=1e-5)
