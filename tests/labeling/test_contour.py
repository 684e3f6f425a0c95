"""Outlines measured together: area, form and notches, against drawn shapes."""

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from steatosis_d2.labeling.contour import (
    Outlines,
    measure_ellipse_misfit,
    measure_shapes,
    outline_solidity,
    pick_notches,
    trace_regions,
    vote_for_notches,
)


def outline_of(mask):
    [contour] = trace_regions(mask.astype(np.uint8), 0)
    return contour


def ellipse(axes, *, angle=0, side=160):
    mask = np.zeros((side, side), np.uint8)
    cv2.ellipse(mask, (side // 2, side // 2), axes, angle, 0, 360, 1, -1)
    return mask > 0


def two_disks(distance, *, radius=20):
    mask = np.zeros((100, 160), np.uint8)
    for x in (80 - distance // 2, 80 + distance // 2):
        cv2.circle(mask, (x, 50), radius, 1, -1)
    return mask > 0


def test_regions_are_traced_above_a_level_and_short_ones_left_out():
    brightness = np.zeros((50, 50), np.uint8)
    brightness[5:15, 5:15] = 200
    brightness[30:40, 30:40] = 100
    brightness[45, 45] = 200
    assert len(trace_regions(brightness, 50)) == 3
    assert len(trace_regions(brightness, 50, min_points=10)) == 2
    [contour] = trace_regions(brightness, 150, min_points=10)
    assert contour.min(axis=0).tolist() == [5, 5]
    assert contour.max(axis=0).tolist() == [14, 14]


def test_region_inside_the_hole_of_another_is_traced_too():
    brightness = np.zeros((60, 60), np.uint8)
    brightness[5:55, 5:55] = 200
    brightness[10:50, 10:50] = 0
    brightness[25:35, 25:35] = 200
    assert len(trace_regions(brightness, 100)) == 2


@given(half_width=st.integers(3, 40), half_height=st.integers(3, 40), angle=st.integers(0, 179))
def test_area_and_centre_are_those_of_the_filled_pixels(half_width, half_height, angle):
    mask = ellipse((half_width, half_height), angle=angle)
    outlines = Outlines.join([outline_of(mask)] * 2, [1, 1])
    shapes = measure_shapes(outlines)
    assert shapes.area_px == pytest.approx([mask.sum()] * 2)
    rows, columns = np.nonzero(mask)
    assert shapes.centre_xy[1] == pytest.approx([columns.mean(), rows.mean()], abs=0.5)


def test_axis_ratio_of_a_turned_ellipse():
    outlines = Outlines.join([outline_of(ellipse((60, 20), angle=30))], [1])
    assert measure_shapes(outlines).axis_ratio[0] == pytest.approx(1 / 3, abs=0.02)


def test_ellipse_fits_itself_and_two_disks_do_not():
    outlines = Outlines.join([outline_of(ellipse((50, 25))), outline_of(two_disks(34))], [1, 1])
    single, double = measure_ellipse_misfit(outlines, measure_shapes(outlines))
    assert single < 0.02
    assert double > 2 * single


def test_solidity_is_one_for_convex_shapes_and_lower_for_clumps():
    square = np.zeros((40, 40), bool)
    square[5:30, 5:30] = True
    assert outline_solidity(outline_of(square)) == 1
    assert outline_solidity(outline_of(two_disks(0))) > 0.95
    assert outline_solidity(outline_of(two_disks(36))) < 0.92


def test_line_of_pixels_has_a_form_without_division_by_zero():
    contour = np.array([[5, 5], [6, 5], [7, 5], [6, 5]], np.int32)
    outlines = Outlines.join([contour], [1])
    shapes = measure_shapes(outlines)
    assert np.isfinite(shapes.centre_xy).all()
    assert np.isfinite(measure_ellipse_misfit(outlines, shapes)).all()


def test_notches_lie_where_two_disks_meet():
    contour = outline_of(two_disks(34))
    votes = vote_for_notches(contour, arms_px=(4, 7, 10))
    notches = contour[pick_notches(votes, min_angle=np.deg2rad(25), min_gap=8)]
    assert sorted(notches[:, 0]) == pytest.approx([80, 80], abs=2)
    assert sorted(notches[:, 1]) == pytest.approx([50 - 10.5, 50 + 10.5], abs=2)


def test_convex_outline_gets_no_notch():
    votes = vote_for_notches(outline_of(ellipse((40, 25))), arms_px=(5, 8, 12))
    assert len(pick_notches(votes, min_angle=np.deg2rad(25), min_gap=8)) == 0


def test_corners_of_a_hole_are_notches_of_the_region_around_it():
    square = np.array([[10, 10], [30, 10], [30, 30], [10, 30]], np.int32)
    hole = np.concatenate(
        [
            np.linspace(a, b, 20, endpoint=False)
            for a, b in zip(square, np.roll(square, -1, 0), strict=True)
        ]
    )
    votes = vote_for_notches(hole.astype(np.int32), arms_px=(4,), region_is_inside=False)
    assert set(pick_notches(votes, min_angle=1.0, min_gap=5)) == {0, 20, 40, 60}


def test_strongest_notches_come_first_and_keep_their_distance_round_the_end():
    votes = np.zeros(50)
    votes[[0, 48, 20, 25]] = [0.9, 0.8, 0.7, 1.0]
    assert pick_notches(votes, min_angle=0.5, min_gap=4).tolist() == [25, 0, 20]


def test_kept_outlines_are_the_same_points():
    squares = [np.array([[0, 0], [k, 0], [k, k], [0, k]], np.int32) for k in (1, 2, 3)]
    kept = Outlines.join(squares, [10, 20, 30]).keep(np.array([True, False, True]))
    assert kept.levels.tolist() == [10, 30]
    np.testing.assert_array_equal(kept.split(), [squares[0], squares[2]])


def test_no_outlines_split_into_none():
    assert Outlines.join([], []).split() == []
