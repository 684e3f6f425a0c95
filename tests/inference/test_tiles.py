"""Tiles cover the slide, overlap enough, and leave out what holds no tissue."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from steatosis_d2.inference.tiles import plan_tiles
from steatosis_d2.slides.tissue import TissueMask


@given(
    width=st.integers(1, 5000),
    height=st.integers(1, 300),
    tile_px=st.integers(32, 1024),
    data=st.data(),
)
def test_tiles_cover_the_slide_and_overlap_enough(width, height, tile_px, data):
    overlap_px = data.draw(st.integers(16, tile_px // 2))
    tiles = plan_tiles(width, height, tile_px=tile_px, overlap_px=overlap_px)
    columns = sorted({(tile.left, tile.right) for tile in tiles})
    assert columns[0][0] == 0
    assert columns[-1][1] == width
    [side] = {right - left for left, right in columns}
    assert side <= min(tile_px, width)
    assert (side - 1 - overlap_px) * len(columns) + overlap_px < width, "a smaller one would do"
    for (_, right), (left, _) in pairwise(columns):
        assert right - left >= overlap_px
    rows = {(tile.top, tile.bottom) for tile in tiles}
    assert len(tiles) == len(rows) * len(columns)


def test_tiles_are_numbered_in_rows():
    tiles = plan_tiles(150, 150, tile_px=100, overlap_px=16)
    assert [(tile.index, tile.left, tile.top) for tile in tiles] == [
        (0, 0, 0),
        (1, 67, 0),
        (2, 0, 67),
        (3, 67, 67),
    ]
    assert {(tile.width, tile.height) for tile in tiles} == {(83, 83)}


def test_no_more_tiles_than_needed():
    assert len(plan_tiles(184, 100, tile_px=100, overlap_px=16)) == 2
    assert len(plan_tiles(185, 100, tile_px=100, overlap_px=16)) == 3


def test_tiles_without_tissue_are_left_out():
    mask = np.zeros((10, 10), bool)
    mask[0, 9] = True
    tissue = TissueMask(mask, cell_px=50, width=500, height=500)
    tiles = plan_tiles(500, 500, tile_px=100, overlap_px=20, tissue=tissue)
    assert [tile.box_xyxy for tile in tiles] == [(400, 0, 500, 100)]
    assert tiles[0].index == 0


@pytest.mark.parametrize("overlap_px", [0, 15, 51])
def test_overlap_that_cannot_work_is_refused(overlap_px):
    with pytest.raises(ValueError, match=f"overlap by {overlap_px} px"):
        plan_tiles(500, 500, tile_px=100, overlap_px=overlap_px)
