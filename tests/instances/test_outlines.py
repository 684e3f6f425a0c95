"""Masks to polygons and back."""

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import ndimage

from steatosis_d2.instances.instance import Instance
from steatosis_d2.instances.outlines import build_geometries, fill_geometry, trace_outlines

masks = arrays.arrays(bool, st.tuples(st.integers(1, 9), st.integers(1, 9))).filter(np.any)


def as_geometry(polygons):
    return shapely.MultiPolygon([(polygon[0], polygon[1:]) for polygon in polygons])


def trace(mask, *, top=0, left=0):
    [polygons] = trace_outlines([Instance(np.array(mask, bool), top, left, 1.0)])
    return polygons


def paint(crop, top, left, *, shape):
    image = np.zeros(shape, bool)
    image[top : top + crop.shape[0], left : left + crop.shape[1]] = crop
    return image


@settings(max_examples=40, deadline=None)
@given(st.lists(masks, min_size=1, max_size=4), st.integers(0, 5), st.integers(0, 5))
def test_filled_outlines_are_the_masks(crops, top, left):
    instances = [Instance(crop, top, left, 1.0) for crop in crops]
    for crop, polygons in zip(crops, trace_outlines(instances), strict=True):
        filled = fill_geometry(as_geometry(polygons))
        before = paint(crop, top, left, shape=(16, 16))
        np.testing.assert_array_equal(paint(*filled, shape=(16, 16)), before)


@settings(max_examples=40, deadline=None)
@given(st.lists(masks, min_size=1, max_size=4))
def test_geometries_of_many_are_those_of_each(crops):
    outlines = list(trace_outlines([Instance(crop, 2, 3, 1.0) for crop in crops]))
    for polygons, geometry in zip(outlines, build_geometries(outlines), strict=True):
        assert geometry.geom_type == ("Polygon" if len(polygons) == 1 else "MultiPolygon")
        assert geometry.equals(as_geometry(polygons))


@settings(max_examples=40, deadline=None)
@given(masks)
def test_outlines_are_valid_polygons_of_the_masks_area(mask):
    geometry = as_geometry(trace(mask))
    assert geometry.is_valid, shapely.is_valid_reason(geometry)
    assert geometry.area == mask.sum()


@settings(max_examples=40, deadline=None)
@given(masks)
def test_parts_that_share_no_side_are_polygons_of_their_own(mask):
    assert len(trace(mask)) == ndimage.label(mask)[1]


@settings(max_examples=40, deadline=None)
@given(masks)
def test_outer_rings_and_holes_turn_as_geojson_wants(mask):
    for outer, *holes in trace(mask):
        assert shapely.LinearRing(outer).is_ccw
        assert not any(shapely.LinearRing(hole).is_ccw for hole in holes)


def test_outline_runs_along_the_sides_of_pixels():
    [[ring]] = trace(np.ones((1, 2)), top=5, left=3)
    np.testing.assert_array_equal(ring, [[3, 5], [5, 5], [5, 6], [3, 6], [3, 5]])


def test_hole_is_a_ring_of_its_polygon():
    mask = np.ones((5, 5), bool)
    mask[2, 1:3] = False
    [[_, hole]] = trace(mask)
    assert {tuple(point) for point in hole.tolist()} == {(1, 2), (3, 2), (3, 3), (1, 3)}


def test_island_in_a_hole_is_a_polygon_and_the_hole_belongs_to_the_ring_around_it():
    mask = np.ones((7, 7), bool)
    mask[1:6, 1:6] = False
    mask[3, 3] = True
    around, island = sorted(trace(mask), key=len, reverse=True)
    assert len(around) == 2
    assert shapely.Polygon(island[0]).area == 1


def test_ring_closed_over_a_corner_is_a_polygon_with_a_hole():
    """A ring whose ends meet at a corner has an outline through that point twice."""
    mask = np.ones((4, 4), bool)
    mask[1:3, 1:3] = False
    mask[0, 0] = False
    [[_, hole]] = trace(mask)
    assert shapely.Polygon(hole).area == 4


def test_fill_counts_pixels_whose_centre_is_inside():
    crop, top, left = fill_geometry(shapely.box(1.6, 2.4, 3.4, 3.4))
    np.testing.assert_array_equal(paint(crop, top, left, shape=(5, 5)).nonzero(), [[2], [2]])


@pytest.mark.parametrize("geometry", [shapely.Polygon(), shapely.box(0.6, 0.6, 0.9, 0.9)])
def test_fill_of_a_polygon_without_a_pixel_is_empty(geometry):
    crop, _, _ = fill_geometry(geometry)
    assert not crop.any()


def test_no_instances_have_no_outlines():
    assert list(trace_outlines([])) == []
