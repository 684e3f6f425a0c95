"""Edits of outlines as geometry: merge, split, draw."""

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pycocotools import mask as coco_mask
from screening_actions import BOXES, HEIGHT, WIDTH, box_mask

from steatosis_d2.instances.rle import decode_mask, encode_mask
from steatosis_d2.screening.edits import close_outline, encode_geometry, merge_masks, split_mask


def test_merged_mask_is_the_union():
    masks = [box_mask(*BOXES[1]), box_mask(*BOXES[3])]
    merged = merge_masks([encode_mask(mask) for mask in masks])
    assert np.array_equal(decode_mask(merged), masks[0] | masks[1])
    assert isinstance(merged["counts"], str)


@pytest.mark.parametrize(
    "line", [[(26, 15), (26, 40)], [(5, 28), (50, 28)], [(5, 18), (50, 38)], [(26, 1e6), (26, 0)]]
)
def test_line_across_splits_in_two_without_loss(line):
    whole = box_mask(*BOXES[3])
    parts = [decode_mask(part) for part in split_mask(encode_mask(whole), line)]
    assert len(parts) == 2
    assert np.array_equal(parts[0] ^ parts[1], whole), "each pixel is in exactly one part"
    assert parts[0].sum() >= parts[1].sum() > whole.sum() / 4


def test_bent_line_splits_where_it_was_drawn():
    whole = box_mask(*BOXES[3])
    line = [(18, 10), (18, 28), (34, 28), (34, 10)]
    inner = decode_mask(split_mask(encode_mask(whole), line)[1])
    assert not inner[whole & (np.arange(HEIGHT)[:, None] > 29)].any()
    assert inner[20:27, 20:33].all()


@pytest.mark.parametrize("line", [[(0, 0), (59, 0)], [(20, 25), (30, 25)], [(26, 15), (26, 28)]])
def test_line_that_does_not_cross_is_refused(line):
    with pytest.raises(ValueError, match="draw it right across"):
        split_mask(encode_mask(box_mask(*BOXES[3])), line)


def test_line_along_a_ragged_edge_makes_no_splinters():
    """A line beside a comb's teeth once cut each of them off as a label of its own."""
    comb = box_mask(10, 30, 10, 40)
    comb[30, 10:40:2] = True
    with pytest.raises(ValueError, match="right across"):
        split_mask(encode_mask(comb), [(5, 29.5), (50, 29.5)])


@settings(deadline=None)
@given(
    mask=hnp.arrays(bool, (9, 11)),
    line=st.lists(st.tuples(st.floats(-5, 15), st.floats(-5, 15)), min_size=2, max_size=4),
)
def test_parts_of_any_mask_are_the_mask(mask, line):
    mask[4, 4] = True
    try:
        parts = split_mask(encode_mask(mask), line)
    except ValueError:
        return
    total = sum(decode_mask(part).astype(int) for part in parts)
    assert len(parts) > 1
    assert np.array_equal(total, mask.astype(int))


def test_outline_is_filled_and_cut_at_the_image():
    rle = encode_geometry(shapely.box(50, -1e9, 1e9, 3), height=HEIGHT, width=WIDTH)
    assert np.array_equal(decode_mask(rle), box_mask(0, 3, 50, 60))


def test_outline_that_crosses_itself_is_mended():
    bow_tie = shapely.Polygon([(0, 0), (20, 20), (20, 0), (0, 20)])
    rle = encode_geometry(bow_tie, height=HEIGHT, width=WIDTH)
    assert coco_mask.area(rle) == pytest.approx(200, abs=25)


def test_outline_drawn_past_its_beginning_has_no_hole():
    """Whoever draws round a droplet overshoots; the overlap once became a hole."""
    past = [(5, 5), (25, 5), (25, 25), (5, 25), (5, 2), (12, 2), (12, 12), (2, 12), (2, 5)]
    rle = encode_geometry(close_outline(past), height=HEIGHT, width=WIDTH)
    assert decode_mask(rle)[5:25, 5:25].all()


@pytest.mark.parametrize("points", [[], [(0, 0)], [(0, 0), (9, 9)], [(0, 0), (9, 9), (4, 4)]])
def test_points_that_enclose_nothing_are_empty(points):
    assert close_outline(points).is_empty


@pytest.mark.parametrize(
    "geometry",
    [
        shapely.Point(5, 5),
        shapely.LineString([(0, 0), (9, 9)]),
        shapely.Polygon(),
        shapely.box(-9, -9, 0, 0),
        shapely.box(5.1, 5.1, 5.2, 5.2),
    ],
)
def test_what_encloses_no_pixel_is_none(geometry):
    assert encode_geometry(geometry, height=HEIGHT, width=WIDTH) is None
