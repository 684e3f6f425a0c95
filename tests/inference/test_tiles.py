"""Tiles cover the slide, overlap enough, and leave out what holds no tissue."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from steatosis_d2.errors import InputError
from steatosis_d2.inference.plan import Tiling, plan_slide
from steatosis_d2.inference.tiles import plan_tiles
from steatosis_d2.slides.slide import ArraySlide
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


@given(seed=st.integers(0, 2**31), density=st.sampled_from([0.002, 0.02, 0.3]))
def test_every_px_of_tissue_is_seen_as_often_as_without_narrowing(seed, density):
    width, height, cell_px = 900, 700, 10
    cells = np.random.default_rng(seed).random((height // cell_px, width // cell_px)) < density
    tissue = TissueMask(cells, cell_px=cell_px, width=width, height=height)
    settings = {"tile_px": 300, "overlap_px": 64}
    views = np.zeros((2, height, width), int)
    for view, mask in zip(views, (None, tissue), strict=True):
        for tile in plan_tiles(width, height, tissue=mask, **settings):
            view[tile.top : tile.bottom, tile.left : tile.right] += 1
    stained = np.kron(cells, np.ones((cell_px, cell_px), bool))
    assert (views[0] == views[1])[stained].all()
    assert (views[1] <= views[0]).all()


def test_a_core_on_glass_takes_little_more_than_its_area():
    mask = np.zeros((400, 100), bool)
    mask[:, 40:60] = True
    tissue = TissueMask(mask, cell_px=10, width=1000, height=4000)
    tiles = plan_tiles(1000, 4000, tile_px=1024, overlap_px=128, tissue=tissue)
    assert {(tile.left, tile.right) for tile in tiles} == {(320, 640)}
    assert sum(tile.width * tile.height for tile in tiles) < 0.4 * 1000 * 4000


def test_a_slide_of_one_window_stays_whole():
    mask = np.zeros((10, 10), bool)
    mask[4, 4] = True
    tissue = TissueMask(mask, cell_px=50, width=500, height=500)
    [tile] = plan_tiles(500, 500, tile_px=512, overlap_px=64, tissue=tissue)
    assert tile.box_xyxy == (0, 0, 500, 500)


@pytest.mark.parametrize("overlap_px", [0, 15, 51])
def test_overlap_that_cannot_work_is_refused(overlap_px):
    with pytest.raises(ValueError, match=f"overlap by {overlap_px} px"):
        plan_tiles(500, 500, tile_px=100, overlap_px=overlap_px)


def test_tiles_are_smaller_where_the_network_sees_them_much_enlarged():
    """At 5 um/px a tile of 1024 px became one of 15,500 px, and memory ran out."""
    slide = ArraySlide(np.full((2000, 2000, 3), (200, 120, 170), np.uint8), mpp=5.0)
    plans = {
        scale: plan_slide(slide, Tiling(), input_scale=lambda mpp, scale=scale: scale)
        for scale in (1.5, 4, 5.0 / 0.33)
    }
    sides = {scale: max(tile.width for tile in plan.tiles) for scale, plan in plans.items()}
    assert sides[1.5] == sides[4] <= 1024
    assert 250 <= sides[5.0 / 0.33] <= 4096 / 15
    covered = np.zeros((2000, 2000), bool)
    for tile in plans[5.0 / 0.33].tiles:
        covered[tile.top : tile.bottom, tile.left : tile.right] = True
    assert covered.all()


def test_what_would_be_enlarged_beyond_all_measure_is_refused():
    slide = ArraySlide(np.zeros((9, 9, 3), np.uint8), mpp=5.0)
    with pytest.raises(InputError, match="would be enlarged 500 times"):
        plan_slide(slide, Tiling(), input_scale=lambda mpp: 500.0)
