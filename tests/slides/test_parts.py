"""Regions and pieces that get a row of their own."""

import numpy as np
import pytest
import shapely

from steatosis_d2.slides.parts import split_by_piece, split_by_region
from steatosis_d2.slides.tissue import TissueMask


def tissue_of(*boxes, shape=(200, 300)):
    """Cells of 10 px (5 um) that lie in boxes (top, left, bottom, right)."""
    mask = np.zeros(shape, bool)
    for top, left, bottom, right in boxes:
        mask[top:bottom, left:right] = True
    return TissueMask(mask=mask, cell_px=10, width=10 * shape[1], height=10 * shape[0])


def test_pieces_are_numbered_from_left_to_right():
    tissue = tissue_of((20, 200, 180, 240), (30, 20, 190, 60), (10, 110, 170, 150))
    pieces = split_by_piece(tissue, mpp=0.5)
    assert [piece.name for piece in pieces] == ["piece 1", "piece 2", "piece 3"]
    assert [piece.place_xy[0] // 10 for piece in pieces] == [40, 130, 220]
    assert sum(piece.tissue.area_px for piece in pieces) == tissue.area_px


def test_pieces_below_each_other_are_numbered_from_top_to_bottom():
    pieces = split_by_piece(tissue_of((120, 20, 150, 280), (20, 40, 50, 290)), mpp=0.5)
    assert [piece.place_xy[1] // 10 for piece in pieces] == [35, 135]


def test_a_crack_does_not_part_a_piece_and_crumbs_are_none():
    cracked = tissue_of((20, 20, 180, 60), (20, 64, 180, 100), (5, 250, 8, 253))
    [piece] = split_by_piece(cracked, mpp=0.5)
    assert piece.tissue.area_px == cracked.area_px - 9 * 100


def test_each_droplet_is_in_one_piece_also_at_the_border():
    tissue = tissue_of((20, 20, 180, 60), (20, 110, 180, 150))
    x, y = np.array([300.0, 615.0, 1085.0, 2900.0]), np.full(4, 500.0)
    owners = [piece.contains(x, y).tolist() for piece in split_by_piece(tissue, mpp=0.5)]
    assert owners == [[True, True, False, False], [False, False, True, True]]


def test_no_tissue_has_no_pieces():
    assert split_by_piece(tissue_of(), mpp=0.5) == []


def test_regions_may_overlap_and_may_miss_the_slide():
    tissue = tissue_of((0, 0, 200, 300))
    named = (
        ("a", shapely.box(0, 0, 1000, 1000)),
        ("b", shapely.box(500, 0, 1500, 1000)),
        ("far", shapely.box(9000, 9000, 9100, 9100)),
    )
    first, second, far = split_by_region(tissue, named)
    assert first.tissue.area_px == second.tissue.area_px == 1000 * 1000
    assert far.tissue.area_px == 0
    x, y = np.array([100.0, 700.0]), np.array([100.0, 100.0])
    assert first.contains(x, y).tolist() == [True, True]
    assert second.contains(x, y).tolist() == [False, True]


@pytest.mark.parametrize("mpp", [0.5, None])
def test_the_pixel_size_need_not_be_known(mpp):
    assert len(split_by_piece(tissue_of((20, 20, 180, 60), (20, 150, 180, 200)), mpp=mpp)) == 2
