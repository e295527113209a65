"""A precision is checked on real tiles: what a mean or a common offset hides is seen."""

import numpy as np
import pytest
from numpy.typing import NDArray

from lamella.encoders.runtime.checking import compare_embeddings, take_check_tiles
from lamella.errors import EncoderError


def test_the_check_is_not_fooled_by_a_common_offset() -> None:
    rng = np.random.default_rng(0)
    reference = (100 + rng.normal(size=(64, 32))).astype(np.float32)
    noise = (100 + rng.normal(size=(64, 32))).astype(np.float32)
    assert not compare_embeddings(noise, reference, precision="bf16").passed


def test_one_tile_gone_astray_does_not_pass_by_a_good_mean() -> None:
    reference = np.random.default_rng(0).normal(size=(2000, 32)).astype(np.float32)
    strayed = reference.copy()
    strayed[3] = -strayed[3]
    check = compare_embeddings(strayed, reference, precision="bf16")
    assert check.cosine_mean > 0.998
    assert not check.passed


def test_tiles_that_are_all_the_same_are_compared_as_they_are() -> None:
    same = np.full((64, 8), 3, dtype=np.float32)
    assert compare_embeddings(same, same, precision="bf16").passed
    assert not compare_embeddings(np.zeros_like(same), same, precision="bf16").passed


def test_a_tile_on_the_mean_does_not_count_by_its_rounding() -> None:
    reference = np.random.default_rng(0).normal(size=(63, 8)).astype(np.float32)
    reference = np.vstack([reference, reference.mean(axis=0, dtype=np.float64)]).astype(np.float32)
    noise = np.random.default_rng(1).normal(scale=1e-4, size=reference.shape).astype(np.float32)
    assert compare_embeddings(reference + noise, reference, precision="bf16").passed


def test_few_check_tiles_are_turned_and_mirrored_until_they_are_enough(tiles: NDArray[np.uint8]) -> None:
    taken = take_check_tiles(lambda: tiles[:9], encoder="x", tile_px=64)
    assert len(taken) == 36
    assert len(np.unique(taken.reshape(36, -1), axis=0)) == 36
    assert len(take_check_tiles(lambda: np.repeat(tiles, 3, axis=0), encoder="x", tile_px=64)) == 96
    with pytest.raises(EncoderError, match="Give it real tiles"):
        take_check_tiles(lambda: tiles[:0], encoder="x", tile_px=64)
