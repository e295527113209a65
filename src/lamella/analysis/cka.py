"""Centered Kernel Alignment: how alike two encoders see the same tiles, block by block.

Linear CKA (Kornblith et al. 2019, eq. 4), its HSIC debiased (Song et al. 2012, eq. 5) and averaged over minibatches
before dividing (Nguyen et al. 2021, eq. 3). A minibatch takes one tile from each slide: tiles of one slide are alike,
and several of them would bias even the debiased estimate.

Only sums over minibatches are kept, so memory does not grow with the number of tiles. Intervals leave one slide out at
a time (a jackknife); a bootstrap draws slides twice, and two equal rows look like agreement.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student

from lamella.errors import SettingsError

Floats = NDArray[np.float64]

MIN_SLIDES = 8


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class BlockAlignment:
    """CKA between every block of one encoder and every block of another.

    Attributes:
        values: `(A, B)` float64, in -1 to 1: row a is block a of the first encoder, column b is block b of the second.
        low: `(A, B)` float64, lower end of the 95% interval.
        high: `(A, B)` float64, upper end.
        n_slides: Slides in each minibatch.
        n_batches: Minibatches.
        undefined: `(A, B)` bool, True where a block does not tell the slides apart (its HSIC with itself is not above
            0): there is nothing to align, and `values` is 0. The HSIC of two blocks may be negative; so is CKA then.
    """

    values: Floats
    low: Floats
    high: Floats
    n_slides: int
    n_batches: int
    undefined: NDArray[np.bool_]


class BlockAligner:
    """Gathers minibatches and says how the blocks align.

    Args:
        n_first: Blocks of the first encoder.
        n_second: Blocks of the second.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> aligner = BlockAligner(1, 2)
        >>> for _ in range(20):  # a minibatch: 9 slides, a tile of each
        ...     tiles = rng.normal(size=(9, 5))
        ...     aligner.add([tiles], [3 * tiles[:, ::-1], rng.normal(size=(9, 5))])
        >>> aligner.align().values.round(2)[0, 0]
        np.float64(1.0)
    """

    def __init__(self, n_first: int, n_second: int) -> None:
        self._sums: _Sums | None = None
        self._n_first, self._n_second = n_first, n_second
        self.n_batches = 0

    def add(self, first: Sequence[NDArray[np.floating]], second: Sequence[NDArray[np.floating]]) -> None:
        """Take one minibatch.

        Args:
            first: Per block of the first encoder `(n, D)`, a tile of each slide, the slides always in the same order.
            second: Per block of the second encoder `(n, D')`, the same tiles.

        Raises:
            SettingsError: If there are fewer than 8 slides, or another number than before.
        """
        if len(first) != self._n_first or len(second) != self._n_second:
            raise SettingsError(
                f"a minibatch has {len(first)} and {len(second)} blocks and must have {self._n_first} and "
                f"{self._n_second}. Give every block of both encoders."
            )
        n = len(first[0])
        if n < MIN_SLIDES:
            raise SettingsError(
                f"CKA is asked for over {n} slides and needs at least {MIN_SLIDES}: with fewer its estimate is noise. "
                "Add slides."
            )
        if self._sums is None:
            self._sums = _Sums.of(n, self._n_first, self._n_second)
        if n != len(self._sums.cross_without):
            raise SettingsError(f"a minibatch has {n} slides and the others {len(self._sums.cross_without)}.")
        left, right = [_center(block) for block in first], [_center(block) for block in second]
        for a, gram in enumerate(left):
            whole, without = find_hsic(gram, gram)
            self._sums.first[a] += whole
            self._sums.first_without[:, a] += without
            for b, other in enumerate(right):
                whole, without = find_hsic(gram, other)
                self._sums.cross[a, b] += whole
                self._sums.cross_without[:, a, b] += without
        for b, gram in enumerate(right):
            whole, without = find_hsic(gram, gram)
            self._sums.second[b] += whole
            self._sums.second_without[:, b] += without
        self.n_batches += 1

    def align(self) -> BlockAlignment:
        """Return the alignment over all minibatches so far, with intervals.

        Raises:
            SettingsError: If there was no minibatch.
        """
        sums = self._sums
        if sums is None:
            raise SettingsError("CKA is asked for over no tiles. Give at least one minibatch.")
        values, undefined = _divide(sums.cross, sums.first, sums.second)
        n = len(sums.cross_without)
        parts = [_divide(sums.cross_without[i], sums.first_without[i], sums.second_without[i])[0] for i in range(n)]
        without = np.stack(parts)  # (n, A, B)
        pseudo = n * values - (n - 1) * without
        error = pseudo.std(axis=0, ddof=1) / np.sqrt(n)
        reach = float(student.ppf(0.975, n - 1)) * error
        return BlockAlignment(
            values=values,
            low=np.clip(values - reach, -1, 1),
            high=np.clip(values + reach, -1, 1),
            n_slides=n,
            n_batches=self.n_batches,
            undefined=undefined,
        )


def find_hsic(first: Floats, second: Floats) -> tuple[float, Floats]:
    """Return the debiased HSIC of two Gram matrices (Song et al. 2012, eq. 5), and its values without each row.

    Args:
        first: `(n, n)` float64 Gram matrix with zeros on its diagonal.
        second: `(n, n)` float64, the same.

    Returns:
        HSIC over all n rows, and `(n,)` with row i left out. It may be negative.
    """
    n = len(first)
    rows, other = first.sum(axis=1), second.sum(axis=1)  # (n,)
    trace = float((first * second).sum())
    product = float(rows @ other)
    whole = _unbias(n, np.array([trace]), rows.sum()[None], other.sum()[None], np.array([product]))[0]
    # Row j left out: its row and column leave every sum; what it gave to the other rows' sums leaves them too.
    traces = trace - 2 * (first * second).sum(axis=1)
    reduced = (rows[:, None] - first) * (other[:, None] - second)  # (i, j): rows of i without j
    products = reduced.sum(axis=0) - np.diagonal(reduced)
    without = _unbias(n - 1, traces, rows.sum() - 2 * rows, other.sum() - 2 * other, products)
    return float(whole), without


def _unbias(n: int, trace: Floats, first: Floats, second: Floats, product: Floats) -> Floats:
    """Put the sums of eq. 5 together: tr(KL), 1'K1, 1'L1 and 1'KL1."""
    hsic: Floats = (trace + first * second / ((n - 1) * (n - 2)) - 2 * product / (n - 2)) / (n * (n - 3))
    return hsic


def _center(block: NDArray[np.floating]) -> Floats:
    """Return the linear Gram matrix with zeros on its diagonal.

    The columns' means are taken off first. It changes nothing in exact arithmetic, and saves digits: after ReLU the
    means are far larger than what differs.
    """
    rows = block.astype(np.float64)
    rows -= rows.mean(axis=0)
    gram: Floats = rows @ rows.T
    np.fill_diagonal(gram, 0)
    return gram


def _divide(cross: Floats, first: Floats, second: Floats) -> tuple[Floats, NDArray[np.bool_]]:
    """Return CKA `(A, B)`, and where it is undefined because a block's own HSIC is not above 0."""
    product = first[:, None] * second[None, :]
    undefined = (first[:, None] <= 0) | (second[None, :] <= 0)
    cka = np.divide(cross, np.sqrt(np.where(undefined, 1.0, product)), out=np.zeros_like(cross), where=~undefined)
    return np.clip(cka, -1, 1), undefined


@dataclass(slots=True, eq=False)
class _Sums:
    """Sums over minibatches: of all rows, and with each row left out."""

    cross: Floats  # (A, B)
    first: Floats  # (A,)
    second: Floats  # (B,)
    cross_without: Floats  # (n, A, B)
    first_without: Floats  # (n, A)
    second_without: Floats  # (n, B)

    @classmethod
    def of(cls, n: int, n_first: int, n_second: int) -> "_Sums":
        """Return sums of nothing yet."""
        return cls(
            cross=np.zeros((n_first, n_second)),
            first=np.zeros(n_first),
            second=np.zeros(n_second),
            cross_without=np.zeros((n, n_first, n_second)),
            first_without=np.zeros((n, n_first)),
            second_without=np.zeros((n, n_second)),
        )
