"""Gradients of a head on one slide, written out.

A slide's step is a few matrix products and many small operations, each of which costs more to record and replay than to
compute. Here the products are called as they are, in fp32 or bf16, and nothing is recorded. The weights stay those of a
`Head`: what is computed here and what the head computes agree up to rounding, for every pool of `_make_pool`.

Shapes: N tiles of a slide; P rows, N of them real and zeros after; D embedding width, E width inside the head, V of the
attention branch, C classes.
"""

import math
from collections.abc import Sequence
from functools import cache
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from lamella.mil.heads import Head
from lamella.mil.pools import AttentionPool, GatedAttentionPool, MaxPool, MeanPool

_SMALL = 2**14
_STEPS = 16


class Pool(Protocol):
    """How tiles become one vector, and how a gradient goes back."""

    def forward(self, tiles: Tensor) -> tuple[Tensor, Any]:
        """Return the pooled `(E,)` of tiles `(N, E)`, and what `backward` needs."""

    def backward(self, tiles: Tensor, saved: Any, gradient: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return the gradient `(N, E)` of the tiles, and those of the pool's parameters in their order."""


class HeadGradients:
    """A head that trains on one slide at a time; call it under `torch.no_grad`.

    Args:
        head: Whose weights are used, and changed by whoever steps with the gradients.
        dtype: Of the products of the embedding, float32 or bfloat16; weights, pooling and sums are float32 always.
    """

    def __init__(self, head: Head, dtype: torch.dtype) -> None:
        self.parameters = list(head.parameters())
        self._dtype = dtype
        layers = [layer for layer in head.embed.children() if isinstance(layer, nn.Linear)]
        self._layers = [(layer.weight.detach(), layer.bias.detach()) for layer in layers]
        self._low: list[tuple[Tensor, Tensor]] = []
        self._pool = _make_pool(head.pool)
        self._classify = head.classify.weight.detach(), head.classify.bias.detach()
        self.refresh()

    def refresh(self) -> None:
        """Take over weights that have changed."""
        self._low = [(weight.to(self._dtype), bias.to(self._dtype)) for weight, bias in self._layers]

    def find_logits(self, rows: Tensor, n_tiles: int) -> list[float]:
        """Return the logits, C of them, of a slide's `(P, D)` standardised rows, the first `n_tiles` of them real."""
        pooled, _ = self._pool.forward(self._embed(rows)[-1][:n_tiles].float())
        return self._find_logits(pooled)

    def find_gradients(self, rows: Tensor, n_tiles: int, target: int, weight: float) -> tuple[float, list[Tensor]]:
        """Return the loss of one slide, and its gradient for each of `parameters`.

        Args:
            rows: `(P, D)` standardised, in the type of the products, zero after the first `n_tiles`.
            n_tiles: N.
            target: Class of the slide.
            weight: Of that class; the loss is the cross-entropy times it.
        """
        steps = self._embed(rows)
        tiles = steps[-1][:n_tiles].float()  # (N, E)
        pooled, saved = self._pool.forward(tiles)
        probabilities, loss = find_loss(self._find_logits(pooled), target)
        shift = [weight * (p - (place == target)) for place, p in enumerate(probabilities)]
        on_logits = torch.tensor(shift, dtype=torch.float32)  # (C,)
        on_pooled = self._classify[0].T @ on_logits  # (E,)
        on_tiles, of_pool = self._pool.backward(tiles, saved, on_pooled)
        gradient = on_tiles.new_zeros(steps[-1].shape, dtype=self._dtype)  # (P, E)
        gradient[:n_tiles] = on_tiles
        of_layers: list[Tensor] = []
        for place in reversed(range(len(self._low))):
            gradient = torch.ops.aten.threshold_backward(gradient, steps[place + 1], 0)
            of_weight = multiply(gradient.T, steps[place]).float()  # (E, D)
            of_layers = [of_weight, gradient.sum(dim=0, dtype=torch.float32), *of_layers]
            if place:
                gradient = multiply(gradient, self._low[place][0])
        return weight * loss, [*of_layers, *of_pool, torch.outer(on_logits, pooled), on_logits]

    def _embed(self, rows: Tensor) -> list[Tensor]:
        """Return the rows, and what each layer makes of them, `(P, E)`."""
        steps = [rows]
        for weight, bias in self._low:
            steps.append(_embed(steps[-1], weight, bias))
        return steps

    def _find_logits(self, pooled: Tensor) -> list[float]:
        weight, bias = self._classify
        logits: list[float] = torch.addmv(bias, weight, pooled).tolist()
        return logits


def count_rows(n_tiles: int) -> int:
    """Return how many rows a slide is given: a few per cent more than it has tiles.

    The kernel of a product is made for its shape, which takes longer than the product itself. Slides of all lengths are
    to share few shapes: sixteen between a length and its double, none less than 32 apart.

    Example:
        >>> [count_rows(n) for n in (1, 500, 1025, 20_000)]
        [32, 512, 1088, 20480]
    """
    step = max(32, (1 << (n_tiles.bit_length() - 1)) // _STEPS)
    return -(-n_tiles // step) * step


def multiply(left: Tensor, right: Tensor) -> Tensor:
    """Return `left @ right` of two matrices, by the faster library."""
    if left.dtype == torch.float32 and _has_onednn() and right.numel() >= _SMALL:
        product: Tensor = torch.ops.mkldnn._linear_pointwise(left, right.T, None, "none", [], "")
        return product
    return left @ right


def _embed(rows: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Return a layer's ReLU, `(P, E)`."""
    if _has_onednn():
        embedded: Tensor = torch.ops.mkldnn._linear_pointwise(rows, weight, bias, "relu", [], "")
        return embedded
    return torch.addmm(bias, rows, weight.T).relu_()


@cache
def _has_onednn() -> bool:
    """Say whether oneDNN's own product is there: in fp32 twice as fast as torch's on some processors, never slower."""
    ones = torch.ones(2, 2)
    try:
        found = torch.ops.mkldnn._linear_pointwise(ones, ones, ones[0], "relu", [], "")
    except (AttributeError, NotImplementedError, RuntimeError):
        return False
    return torch.equal(found, torch.full((2, 2), 3.0))


def find_loss(logits: Sequence[float], target: int) -> tuple[list[float], float]:
    """Return the softmax and the cross-entropy."""
    highest = max(logits)
    powers = [math.exp(logit - highest) for logit in logits]
    total = sum(powers)
    return [power / total for power in powers], math.log(total) - (logits[target] - highest)


class _Mean:
    def forward(self, tiles: Tensor) -> tuple[Tensor, None]:
        return tiles.mean(dim=0), None

    def backward(self, tiles: Tensor, saved: None, gradient: Tensor) -> tuple[Tensor, list[Tensor]]:
        return (gradient / len(tiles)).expand_as(tiles), []


class _Max:
    def forward(self, tiles: Tensor) -> tuple[Tensor, Tensor]:
        pooled = tiles.amax(dim=0)
        return pooled, pooled

    def backward(self, tiles: Tensor, saved: Tensor, gradient: Tensor) -> tuple[Tensor, list[Tensor]]:
        largest = (tiles == saved).float()  # (N, E): tiles that tie share the gradient
        return largest * (gradient / largest.sum(dim=0)), []


class _Attention:
    """tanh, or tanh times sigmoid where there is a gate; one score a tile, softmax over the slide."""

    def __init__(self, value: nn.Linear, gate: nn.Linear | None, score: nn.Linear) -> None:
        self._value = value.weight.detach(), value.bias.detach()
        self._gate = None if gate is None else (gate.weight.detach(), gate.bias.detach())
        self._score = score.weight.detach()[0], score.bias.detach()  # (V,), (1,)

    def forward(self, tiles: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor | None, Tensor]]:
        value = _branch(tiles, self._value).tanh_()  # (N, V)
        gate = None if self._gate is None else _branch(tiles, self._gate).sigmoid_()
        weight, bias = self._score
        scores = torch.mv(value if gate is None else value * gate, weight).add_(bias)  # (N,)
        attention = scores.softmax(dim=0)
        return torch.mv(tiles.T, attention), (value, gate, attention)

    def backward(
        self, tiles: Tensor, saved: tuple[Tensor, Tensor | None, Tensor], gradient: Tensor
    ) -> tuple[Tensor, list[Tensor]]:
        value, gate, attention = saved
        on_attention = torch.mv(tiles, gradient)  # (N,)
        on_scores = attention * (on_attention - torch.dot(attention, on_attention))
        branch = value if gate is None else value * gate  # (N, V)
        of_score = [torch.mv(branch.T, on_scores).unsqueeze(0), on_scores.sum().reshape(1)]
        on_branch = torch.outer(on_scores, self._score[0])  # (N, V)
        on_value = on_branch if gate is None else on_branch * gate
        on_value = torch.ops.aten.tanh_backward(on_value, value)
        on_tiles = multiply(on_value, self._value[0]).addr_(attention, gradient)  # (N, E)
        found = [multiply(on_value.T, tiles), on_value.sum(dim=0)]
        if gate is not None and self._gate is not None:
            on_gate = torch.ops.aten.sigmoid_backward(on_branch * value, gate)
            on_tiles += multiply(on_gate, self._gate[0])
            found += [multiply(on_gate.T, tiles), on_gate.sum(dim=0)]
        return on_tiles, found + of_score


def _branch(tiles: Tensor, layer: tuple[Tensor, Tensor]) -> Tensor:
    """Return a linear layer of the attention, `(N, V)`."""
    return multiply(tiles, layer[0].T).add_(layer[1])


def _make_pool(pool: nn.Module) -> Pool:
    """Return the written-out form of a head's pool."""
    if isinstance(pool, AttentionPool):
        return _Attention(pool.value, None, pool.score)
    if isinstance(pool, GatedAttentionPool):
        return _Attention(pool.value, pool.gate, pool.score)
    if isinstance(pool, MaxPool):
        return _Max()
    assert isinstance(pool, MeanPool)
    return _Mean()
