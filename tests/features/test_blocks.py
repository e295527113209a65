"""Tiles cut from blocks are the tiles that reading one by one gives."""

import numpy as np
import pytest
import pyvips

from lamella.features.blocks import list_blocks, order_by_block, read_block
from lamella.slide import open_slide
from lamella.tiles import TileSpec, place_tiles


@pytest.fixture(scope="module")
def pyramid(tmp_path_factory):
    """A smooth, asymmetric slide of 1300 x 900 px with a pyramid, losslessly compressed."""
    rng = np.random.default_rng(5)
    small = rng.integers(0, 256, (90, 130, 3), dtype=np.uint8)
    image = pyvips.Image.new_from_array(small).resize(10, kernel="cubic").copy(xres=1000 / 0.25, yres=1000 / 0.25)
    path = tmp_path_factory.mktemp("slides") / "smooth.tiff"
    image.tiffsave(
        str(path), compression="deflate", tile=True, tile_width=128, tile_height=128, pyramid=True, resunit="cm"
    )
    return path


@pytest.mark.parametrize(
    ("mpp", "tile_px", "stride"),
    [(0.25, 100, 100), (0.25, 96, 48), (0.5, 64, 32), (0.5, 64, 64), (0.53, 60, 30), (1.0, 50, 20), (0.24, 70, 35)],
)
def test_a_tile_of_a_block_is_the_tile_read_alone(pyramid, mpp, tile_px, stride):
    spec = TileSpec(tile_px=tile_px, mpp=mpp, stride_px=stride)
    with open_slide(pyramid) as slide:
        level = slide.find_read_level(mpp)
        corners = place_tiles(np.ones((2, 3), bool), spec, slide_size=slide.size, slide_mpp=slide.mpp)
        ordered, sizes = order_by_block(corners, spec, slide.mpp, level)
        assert sorted(map(tuple, ordered)) == sorted(map(tuple, corners))
        assert sum(sizes) == len(corners)
        tiles = np.concatenate([read_block(slide, one, spec, level) for one in list_blocks(ordered, sizes)])
        for (x, y), tile in list(zip(ordered.tolist(), tiles, strict=True))[:: max(1, len(tiles) // 25)]:
            alone = slide.read_box((x, y), (tile_px, tile_px), mpp)
            assert np.abs(tile.astype(int) - alone).max() <= 1


def test_overlapping_tiles_decode_shared_pixels_once(pyramid, monkeypatch):
    spec = TileSpec(tile_px=64, mpp=0.25, stride_px=16)
    with open_slide(pyramid) as slide:
        level = slide.find_read_level(spec.mpp)
        corners = place_tiles(np.ones((2, 3), bool), spec, slide_size=slide.size, slide_mpp=slide.mpp)
        ordered, sizes = order_by_block(corners, spec, slide.mpp, level)
        read, decoded = slide.read_region, []
        monkeypatch.setattr(
            type(slide), "read_region", lambda _, c, lv, size: decoded.append(size[0] * size[1]) or read(c, lv, size)
        )
        n_tiles = sum(len(read_block(slide, one, spec, level)) for one in list_blocks(ordered, sizes))
    assert n_tiles == len(corners)
    assert sum(decoded) < 1.3 * slide.size[0] * slide.size[1]  # sixteen times as much, tile by tile


def test_blocks_follow_the_grid_and_not_the_tissue():
    """The order of a tile does not depend on which other tiles are there."""
    spec = TileSpec(tile_px=8, mpp=0.5, stride_px=8)
    rng = np.random.default_rng(1)
    grid = place_tiles(np.ones((1, 1), bool), spec, slide_size=(3000, 1700), slide_mpp=(0.5, 0.5))

    class Level:
        factor_x = factor_y = 1.0

    ordered, _ = order_by_block(grid, spec, (0.5, 0.5), Level())
    some = grid[rng.random(len(grid)) < 0.3]
    ordered_some, _ = order_by_block(some, spec, (0.5, 0.5), Level())
    kept = set(map(tuple, some))
    assert [c for c in map(tuple, ordered) if c in kept] == list(map(tuple, ordered_some))
