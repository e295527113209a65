"""Cells lie where they belong, overlaps are averaged by area, and only a band of the raster is held."""

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from lamella.errors import OutputError, TileError
from lamella.maps import CellStitcher, MapGrid, fit_map, load_map, plan_map_grid, save_map


def stitch_slowly(grid: MapGrid, corners, cells):
    """Average cell by cell and pixel by pixel."""
    height, width = grid.shape
    total, cover = np.zeros(grid.shape), np.zeros(grid.shape)
    per_x, per_y = width / grid.slide_size[0], height / grid.slide_size[1]
    edges = np.array(grid.edges)
    for (x, y), values in zip(corners, cells, strict=True):
        xs = (x + edges * grid.tile_l0[0]) * per_x
        ys = (y + edges * grid.tile_l0[1]) * per_y
        for i in range(len(edges) - 1):
            for j in range(len(edges) - 1):
                for row in range(height):
                    for column in range(width):
                        across = min(xs[j + 1], column + 1) - max(xs[j], column)
                        down = min(ys[i + 1], row + 1) - max(ys[i], row)
                        if across > 0 and down > 0:
                            total[row, column] += values[i, j] * across * down
                            cover[row, column] += across * down
    return np.where(cover > 1e-6, total / np.maximum(cover, 1e-12), np.nan)


def stitch(grid: MapGrid, corners, cells, path):
    with CellStitcher(grid, path) as stitcher:
        for corner, values in zip(corners, cells, strict=True):
            stitcher.begin_row(corner[1])
            stitcher.add(corner, values)
    return np.load(path)


@settings(max_examples=25, deadline=None)
@given(
    corners=st.lists(st.tuples(st.integers(0, 70), st.integers(0, 30)), min_size=1, max_size=5),
    shape=st.tuples(st.integers(1, 11), st.integers(1, 17)),
    first=st.floats(0.3, 7.0),
)
def test_it_equals_the_slow_way(tmp_path_factory, corners, shape, first):
    corners = sorted(corners, key=lambda corner: corner[1])
    edges = (0.0, *(min(0.99, (first + 4 * (j - 0.5)) / 12) for j in (1, 2)), 1.0)
    grid = MapGrid(shape=shape, slide_size=(100, 50), tile_l0=(23.7, 17.2), edges=edges)
    cells = np.random.default_rng(0).normal(size=(len(corners), 3, 3))
    path = tmp_path_factory.mktemp("map") / "map.npy"
    np.testing.assert_allclose(stitch(grid, corners, cells, path), stitch_slowly(grid, corners, cells), atol=1e-5)


def test_a_tile_above_what_is_written_is_refused(tmp_path):
    grid = MapGrid(shape=(20, 30), slide_size=(300, 200), tile_l0=(50.0, 50.0), edges=(0.0, 1.0))
    with CellStitcher(grid, tmp_path / "map.npy") as stitcher:
        stitcher.begin_row(100)
        with pytest.raises(TileError, match="Sort tiles from the top"):
            stitcher.add((0, 40), np.ones((1, 1)))


def test_only_the_band_that_tiles_fall_on_is_held(tmp_path):
    grid = MapGrid(shape=(4000, 50), slide_size=(500, 40_000), tile_l0=(100.0, 100.0), edges=(0.0, 0.5, 1.0))
    most = 0
    with CellStitcher(grid, tmp_path / "map.npy") as stitcher:
        for y in range(0, 39_900, 100):
            stitcher.begin_row(y)
            stitcher.add((200, y), np.full((2, 2), float(y)))
            most = max(most, len(stitcher._sum))
    assert most <= 12
    raster = np.load(tmp_path / "map.npy")
    assert raster.shape == (4000, 50)
    assert raster[1995, 25] == 19_900
    assert np.isnan(raster[1995, 5])


@pytest.mark.parametrize(
    ("first", "stride", "side", "cells"), [(0.5, 32, 512, 16), (14.5, 32, 512, 16), (31.5, 32, 512, 16)]
)
def test_every_part_of_a_tile_belongs_to_the_cell_whose_centre_is_nearest(first, stride, side, cells):
    grid = plan_map_grid(
        slide_size=(4000, 3000), tile_l0=(1024.0, 1024.0), tile_px=side, stride=stride, first=first, cells=cells
    )
    edges = np.array(grid.edges) * side
    centres = first + stride * np.arange(cells)
    for place in np.linspace(1, side - 1, 97):
        assert np.abs(centres - place).argmin() == np.searchsorted(edges, place) - 1
    assert (edges[0], edges[-1]) == (0, side)


def test_a_map_comes_back_from_its_tiff_with_the_slides_extent(tmp_path):
    raster = np.random.default_rng(0).normal(size=(301, 517)).astype(np.float32)
    raster[:, :40] = np.nan
    np.save(tmp_path / "raster.npy", raster)
    for source in (raster, tmp_path / "raster.npy"):
        save_map(source, tmp_path / "map.tiff", slide_um=(1034.0, 602.0), channel="a & b")
        np.testing.assert_array_equal(load_map(tmp_path / "map.tiff"), raster)
        with tifffile.TiffFile(tmp_path / "map.tiff") as file:
            assert len(file.series[0].levels) >= 2
            assert 'PhysicalSizeX="2"' in file.ome_metadata
            assert 'PhysicalSizeY="2"' in file.ome_metadata
            assert "a &amp; b" in file.ome_metadata
    small = load_map(tmp_path / "map.tiff", long_px=200)
    assert small.shape == (101, 173)
    assert np.isnan(small[:, :13]).all()
    assert np.isfinite(small[:, 13:]).all()
    assert small[10, 50] == pytest.approx(raster[30:33, 150:153].mean(), rel=1e-5)


def test_empty_places_do_not_bear_on_their_neighbours_when_a_map_is_fitted():
    raster = np.full((8, 12), 2.0, dtype=np.float32)
    raster[:, :6] = np.nan
    fitted = fit_map(raster, (4, 6))
    assert np.isnan(fitted[:, :3]).all()
    np.testing.assert_allclose(fitted[:, 3:], 2.0)


def test_a_map_that_is_not_there_says_so(tmp_path):
    with pytest.raises(OutputError, match=r"'none\.tiff' is absent or damaged"):
        load_map(tmp_path / "none.tiff")
