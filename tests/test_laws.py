"""What must hold for every input: the house's laws, each in one place, each for inputs nobody chose."""

import itertools
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from lamella.analysis.auc import estimate_auc
from lamella.cohort import Cohort, CohortSlide, list_rounds, split_folds
from lamella.features.bag import BagWriter
from lamella.features.layouts import load_bag
from lamella.maps import stitch_tiles
from lamella.mil.heads import HEADS
from lamella.mil.standardise import find_standardisation
from lamella.tiles import TileSpec, place_tiles
from tests.features.test_bag import PROVENANCE
from tests.mil.heads import ANY_ORDER

masks = hnp.arrays(bool, st.tuples(st.integers(1, 9), st.integers(1, 7)))
quick = settings(max_examples=25, deadline=None)


def place(mask, *, tile_px=4, stride_px=3, min_tissue=0.5):
    """Place tiles on a slide of 3 x 2 level-0 pixels a mask pixel, with pixels wider than high."""
    height, width = mask.shape
    spec = TileSpec(tile_px=tile_px, mpp=0.5, stride_px=stride_px, min_tissue=min_tissue)
    size, mpp = (width * 3 + 6, height * 2 + 6), (0.5, 0.5)
    return place_tiles(mask, spec, slide_size=size, slide_mpp=mpp), size


@pytest.mark.parametrize("name", sorted(HEADS))
@given(n=st.integers(1, 12), padding=st.integers(0, 5), seed=st.integers(0, 999))
@settings(max_examples=10, deadline=None)
def test_padding_and_shuffling_a_bag_change_nothing(name, n, padding, seed):
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        head = HEADS[name](6, 3, 0.0).eval()
    bag = torch.randn(1, n, 6, generator=generator)
    order = torch.randperm(n, generator=generator) if name in ANY_ORDER else torch.arange(n)
    padded = torch.cat([bag[:, order], torch.full((1, padding, 6), 7.0)], dim=1)
    real = torch.arange(n + padding)[None] < n
    with torch.inference_mode():
        alone, shuffled = head(bag, torch.ones(1, n, dtype=torch.bool)), head(padded, real)
    torch.testing.assert_close(shuffled.logits, alone.logits)
    torch.testing.assert_close(shuffled.attention[:, :n], alone.attention[:, order])
    assert shuffled.attention[:, n:].eq(0).all()


@pytest.mark.parametrize("name", sorted(HEADS))
@given(sizes=st.lists(st.integers(1, 9), min_size=1, max_size=4), seed=st.integers(0, 999))
@settings(max_examples=10, deadline=None)
def test_attention_sums_to_one_over_each_bag(name, sizes, seed):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        head = HEADS[name](5, 2, 0.0).eval()
        bags = 10 * torch.randn(len(sizes), max(sizes), 5)
    real = torch.arange(max(sizes))[None] < torch.tensor(sizes)[:, None]
    with torch.inference_mode():
        attention = head(bags, real).attention
    torch.testing.assert_close(attention.sum(dim=1), torch.ones(len(sizes)))
    assert attention[~real].eq(0).all()


@given(
    features=hnp.arrays(
        np.float32, st.tuples(st.integers(1, 30), st.integers(1, 6)), elements=st.floats(-1e3, 1e3, width=32)
    )
)
@quick
def test_a_bag_written_and_read_is_the_same_bag(tmp_path_factory, features):
    path = tmp_path_factory.mktemp("bag") / "S-7.h5"
    coords = np.arange(2 * len(features)).reshape(-1, 2)
    writer = BagWriter(path, coords, dim=features.shape[1], dtype="float32")
    writer.append(features)
    writer.finish(PROVENANCE | {"dtype": "float32"})
    bag = load_bag(path)
    np.testing.assert_array_equal(bag.features, features)
    np.testing.assert_array_equal(bag.coords_l0, coords)


@given(mask=masks, loose=st.floats(0, 0.95), strict=st.floats(0, 0.95))
@quick
def test_stricter_tissue_only_removes_tiles(mask, loose, strict):
    loose, strict = sorted((loose, strict))
    kept = {tuple(corner) for corner in place(mask, min_tissue=strict)[0]}
    assert kept <= {tuple(corner) for corner in place(mask, min_tissue=loose)[0]}


@given(mask=masks, more=masks)
@quick
def test_more_tissue_only_adds_tiles(mask, more):
    both = mask.copy()
    height, width = (min(a, b) for a, b in zip(mask.shape, more.shape, strict=True))
    both[:height, :width] |= more[:height, :width]
    assert {tuple(c) for c in place(mask)[0]} <= {tuple(c) for c in place(both)[0]}


@given(mask=masks)
@quick
def test_every_tile_lies_whole_on_the_slide(mask):
    corners, size = place(mask, min_tissue=0.0)
    assert (corners >= 0).all()
    assert (corners + 4 <= np.array(size)).all()


@given(
    patients=st.lists(st.integers(1, 3), min_size=10, max_size=30), n_folds=st.integers(3, 5), seed=st.integers(0, 99)
)
@quick
def test_no_patient_is_in_two_splits(patients, n_folds, seed):
    slides = tuple(
        CohortSlide(slide_id=f"S-{p}-{i}", path=Path(f"{p}-{i}.svs"), patient_id=f"P-{p}", label="ab"[p % 2])
        for p, n in enumerate(patients)
        for i in range(n)
    )
    cohort = split_folds(Cohort(slides=slides, classes=("a", "b"), positive="b"), n_folds=n_folds, seed=seed)
    patient = {slide.slide_id: slide.patient_id for slide in slides}
    tested = []
    for one in list_rounds(cohort):
        sides = [{patient[i] for i in ids} for ids in (one.train, one.val, one.test)]
        assert all(not a & b for a, b in itertools.combinations(sides, 2))
        tested += one.test
    assert sorted(tested) == sorted(patient)


@given(
    scores=hnp.arrays(np.float64, st.integers(4, 20), elements=st.floats(-5, 5)),
    shift=st.floats(-50, 50),
    seed=st.integers(0, 99),
)
@quick
def test_what_a_fold_adds_to_all_its_scores_does_not_change_the_auc(scores, shift, seed):
    rng = np.random.default_rng(seed)
    targets, folds = rng.integers(0, 2, len(scores)), rng.integers(0, 2, len(scores))
    logits = np.stack([np.zeros_like(scores), np.round(scores, 3)], axis=1)
    moved = logits + np.stack([np.zeros_like(scores), np.where(folds == 1, round(shift, 3), 0)], axis=1)
    before, after = (estimate_auc(x, targets, folds=folds) for x in (logits, moved))
    assert (before is None) == (after is None)
    if before is not None:
        np.testing.assert_allclose(after.auc, before.auc, atol=1e-9)


@given(
    bags=st.lists(
        hnp.arrays(np.float32, st.tuples(st.integers(2, 9), st.just(4)), elements=st.floats(-9, 9, width=32)),
        min_size=1,
        max_size=4,
    )
)
@quick
def test_no_dimension_is_blown_up_by_standardising(bags):
    found = find_standardisation(bags)
    varied = found.sd[found.sd > 0]
    assert len(varied) == 4
    # The floor is a tenth of the median before it: of an even number, half of what it lifts enters the median after.
    assert found.sd.min() >= 0.095 * np.median(found.sd)


@given(value=st.floats(0.01, 5), n=st.integers(1, 6), seed=st.integers(0, 99))
@quick
def test_averaging_overlapping_tiles_keeps_an_even_map_even(value, n, seed):
    corners = np.random.default_rng(seed).integers(0, 40, (n, 2))
    stitched = stitch_tiles(np.full(n, value), corners, (13.0, 7.5), (60, 50), (25, 30))
    np.testing.assert_allclose(stitched[np.isfinite(stitched)], value, rtol=1e-5)


def test_a_killed_extraction_leaves_no_half_bag(tmp_path):
    """A process that dies while it writes leaves no file of the final name."""
    code = (
        "import sys, time, numpy as np; from pathlib import Path; from lamella.features.bag import BagWriter\n"
        "writer = BagWriter(Path(sys.argv[1]), np.zeros((1000, 2), np.int64), dim=64, dtype='float16')\n"
        "writer.append(np.ones((500, 64), np.float32)); print('half', flush=True); time.sleep(60)\n"
    )
    path = tmp_path / "S-7.h5"
    with subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "half\n"
        process.kill()
    time.sleep(0.1)
    assert not path.exists()
