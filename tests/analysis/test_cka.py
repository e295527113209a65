"""CKA: exact against a slow reference, blind to rotation and scale, honest about its noise, never NaN."""

import tracemalloc

import numpy as np
import pytest

from lamella.analysis.cka import BlockAligner
from lamella.errors import SettingsError


def hsic_slowly(first: np.ndarray, second: np.ndarray) -> float:
    """Sum the U-statistic over all ordered quadruples of distinct rows (Song et al. 2012, eq. 4): no closed form."""
    k, m, n = first @ first.T, second @ second.T, len(first)
    total, count = 0.0, 0
    for i in range(n):
        for j in range(n):
            for q in range(n):
                for r in range(n):
                    if len({i, j, q, r}) == 4:
                        total += k[i, j] * (m[i, j] + m[q, r] - 2 * m[i, q])
                        count += 1
    return total / count


def align(batches, drop=None):
    """CKA of two encoders' single blocks, by the slow reference, without one slide."""
    keep = [i for i in range(len(batches[0][0])) if i != drop]
    cross, first, second = (
        np.mean([hsic_slowly(x[keep], y[keep]) for x, y in pairs])
        for pairs in (batches, [(x, x) for x, _ in batches], [(y, y) for _, y in batches])
    )
    return cross / np.sqrt(first * second)


@pytest.fixture(scope="module")
def batches():
    rng = np.random.default_rng(4)
    found = []
    for _ in range(4):
        x = rng.normal(size=(9, 6)) * [3, 1, 1, 1, 2, 1] + 20
        found.append((x, x[:, :4] @ rng.normal(size=(4, 5)) + rng.normal(size=(9, 5))))
    return found


def test_it_agrees_with_the_exact_reference_and_so_does_every_value_without_a_slide(batches):
    aligner = BlockAligner(1, 1)
    for x, y in batches:
        aligner.add([x], [y])
    found = aligner.align()
    assert found.values[0, 0] == pytest.approx(align(batches), abs=1e-9)
    without = np.array([align(batches, drop) for drop in range(9)])
    pseudo = 9 * align(batches) - 8 * without
    reach = 2.306004 * pseudo.std(ddof=1) / 3
    assert found.low[0, 0] == pytest.approx(max(-1, align(batches) - reach), abs=1e-6)
    assert found.high[0, 0] == pytest.approx(min(1, align(batches) + reach), abs=1e-6)


def test_an_encoder_aligns_with_itself_whatever_rotates_or_scales_it(batches):
    rng = np.random.default_rng(1)
    turn = np.linalg.qr(rng.normal(size=(6, 6)))[0]
    aligner = BlockAligner(1, 3)
    for x, _ in batches:
        aligner.add([x], [x, x @ turn, 7 * x + 3])
    np.testing.assert_allclose(aligner.align().values, 1, atol=1e-9)
    np.testing.assert_allclose(aligner.align().low, 1, atol=1e-9)


def test_two_that_have_nothing_in_common_align_at_zero_and_their_interval_says_so():
    rng = np.random.default_rng(8)
    covered, found = 0, []
    for _ in range(60):
        aligner = BlockAligner(1, 1)
        for _ in range(6):
            aligner.add([rng.normal(size=(12, 30))], [rng.normal(size=(12, 30))])
        one = aligner.align()
        found.append(one.values[0, 0])
        covered += one.low[0, 0] <= 0 <= one.high[0, 0]
    assert abs(np.mean(found)) < 0.05  # the biased estimate would be near 0.7 here
    assert covered >= 50


def test_minibatches_are_blocks_against_blocks_in_their_places(batches):
    aligner = BlockAligner(2, 2)
    for x, y in batches:
        aligner.add([x, y], [y, x])
    values = aligner.align().values
    assert values[0, 1] == pytest.approx(1)
    assert values[1, 0] == pytest.approx(1)
    assert values[0, 0] == pytest.approx(values[1, 1])
    assert values[0, 0] < 0.99


def test_a_block_that_tells_no_slides_apart_is_undefined_and_no_nan():
    aligner = BlockAligner(2, 1)
    rng = np.random.default_rng(0)
    for _ in range(3):
        tiles = rng.normal(size=(8, 4))
        aligner.add([np.ones((8, 5)), tiles], [tiles])
    found = aligner.align()
    assert found.undefined.tolist() == [[True], [False]]
    assert found.values[0, 0] == 0
    assert np.isfinite([found.values, found.low, found.high]).all()


def test_a_negative_hsic_gives_a_negative_value_and_no_nan():
    rng = np.random.default_rng(0)
    found = []
    for _ in range(20):
        aligner = BlockAligner(1, 1)
        aligner.add([rng.normal(size=(8, 40))], [rng.normal(size=(8, 40))])
        one = aligner.align()
        assert np.isfinite([one.values, one.low, one.high]).all()
        found.append(one.values[0, 0])
    assert min(found) < 0 < max(found)


def test_memory_does_not_grow_with_the_number_of_tiles():
    rng = np.random.default_rng(0)
    tiles = rng.normal(size=(10, 64))

    def peak(n: int) -> int:
        tracemalloc.start()
        aligner = BlockAligner(1, 1)
        for _ in range(n):
            aligner.add([tiles], [tiles])
        size = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return size

    peak(5)
    assert peak(400) < 1.2 * peak(20)


def test_fewer_than_eight_slides_are_refused():
    with pytest.raises(SettingsError, match="over 7 slides and needs at least 8"):
        BlockAligner(1, 1).add([np.zeros((7, 3))], [np.zeros((7, 3))])
