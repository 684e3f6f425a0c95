"""Measurements of drawn shapes with known answers."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import ndimage
from skimage import measure

from steatosis_d2.instances.instance import Instance
from steatosis_d2.measurement.morphology import measure_instances

FORMS = ["eccentricity", "solidity", "circularity"]
SIZES = ["area_px", "perimeter_px", "equivalent_diameter_px", "major_axis_px", "minor_axis_px"]

masks = arrays.arrays(bool, st.tuples(st.integers(1, 12), st.integers(1, 12))).filter(np.any)


def ellipse(length, width=None, *, angle=0.0):
    """A drawn ellipse in its bounding box; a disk where only its length is given."""
    a, b = length / 2, (width or length) / 2
    reach = int(np.ceil(a)) + 1
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    mask = (along / a) ** 2 + (across / b) ** 2 <= 1
    [box] = ndimage.find_objects(mask.astype(np.uint8))
    return mask[box]


def measure_one(crop, *, top=0, left=0, mpp=None):
    table = measure_instances([Instance(np.array(crop, bool), top, left, 0.5)], mpp=mpp)
    return table.iloc[0]


@pytest.mark.parametrize("diameter", [5, 8, 13, 21, 60, 200])
def test_disk(diameter):
    row = measure_one(ellipse(diameter))
    # what a grid does to a small disk
    tolerance = 0.02 + 0.4 / diameter
    assert row["equivalent_diameter_px"] == pytest.approx(diameter, rel=tolerance)
    assert row["perimeter_px"] == pytest.approx(np.pi * diameter, rel=tolerance)
    assert row["major_axis_px"] == pytest.approx(diameter, rel=tolerance)
    assert row["minor_axis_px"] == pytest.approx(diameter, rel=tolerance)
    assert row["circularity"] == pytest.approx(1, abs=2 * tolerance)
    assert row["eccentricity"] == pytest.approx(0, abs=1e-3)
    assert row["solidity"] == 1


@pytest.mark.parametrize("angle", [0, 0.5, np.pi / 2, 2.2])
def test_ellipse(angle):
    row = measure_one(ellipse(80, 40, angle=angle))
    assert row["major_axis_px"] == pytest.approx(80, rel=0.01)
    assert row["minor_axis_px"] == pytest.approx(40, rel=0.01)
    assert row["eccentricity"] == pytest.approx(np.sqrt(3) / 2, abs=0.005)
    assert row["area_px"] == pytest.approx(np.pi / 4 * 80 * 40, rel=0.01)
    assert row["perimeter_px"] == pytest.approx(193.77, rel=0.01)  # Ramanujan's formula


def test_rectangle():
    row = measure_one(np.ones((3, 12)), top=10, left=20)
    assert (row["area_px"], row["width_px"], row["height_px"]) == (36, 12, 3)
    assert (row["centroid_x_px"], row["centroid_y_px"]) == (26, 11.5)
    # the second moment of a side a is a^2 / 12
    assert row["major_axis_px"] == pytest.approx(4 * 12 / np.sqrt(12))
    assert row["minor_axis_px"] == pytest.approx(4 * 3 / np.sqrt(12))
    assert row["solidity"] == 1


def test_single_pixel():
    row = measure_one([[True]])
    assert row["area_px"] == 1
    assert row["eccentricity"] == 0
    assert row["solidity"] == 1


def test_cross_fills_part_of_its_hull():
    cross = np.zeros((7, 7), bool)
    cross[3] = cross[:, 3] = True
    # 13 px; the hull, a diamond, has 25 px
    assert measure_one(cross)["solidity"] == pytest.approx(13 / 25)


@settings(max_examples=40, deadline=None)
@given(masks)
def test_perimeter_and_area_are_those_of_scikit_image(mask):
    row = measure_one(mask)
    [region] = measure.regionprops(np.pad(mask, 1).astype(np.uint8))
    assert row["area_px"] == region.area
    assert row["perimeter_px"] == pytest.approx(region.perimeter_crofton, rel=1e-6)
    assert row["equivalent_diameter_px"] == pytest.approx(region.equivalent_diameter_area, rel=1e-6)


@settings(max_examples=40, deadline=None)
@given(masks)
def test_centroid_is_that_of_scikit_image(mask):
    row = measure_one(mask, top=100_000, left=50_000)
    [region] = measure.regionprops(mask.astype(np.uint8))
    assert row["centroid_y_px"] == pytest.approx(region.centroid[0] + 100_000.5)
    assert row["centroid_x_px"] == pytest.approx(region.centroid[1] + 50_000.5)


@settings(max_examples=40, deadline=None)
@given(masks, st.integers(0, 10**6), st.integers(0, 10**6))
def test_form_and_size_do_not_depend_on_place(mask, top, left):
    here, there = measure_one(mask), measure_one(mask, top=top, left=left)
    for name in SIZES + FORMS:
        assert there[name] == here[name]


@settings(max_examples=40, deadline=None)
@given(masks)
def test_form_and_size_do_not_depend_on_a_quarter_turn(mask):
    upright, turned = measure_one(mask), measure_one(np.rot90(mask))
    for name in SIZES + FORMS:
        assert turned[name] == pytest.approx(upright[name], rel=1e-5, abs=1e-3)


@settings(max_examples=40, deadline=None)
@given(st.lists(masks, min_size=2, max_size=5))
def test_instances_do_not_change_one_another_s_form(crops):
    together = measure_instances([Instance(crop, 0, 0, 0.5) for crop in crops], mpp=None)
    for number, crop in enumerate(crops):
        alone = measure_one(crop)
        for name in SIZES + FORMS:
            assert together[name][number] == alone[name]


def test_twice_the_size_is_four_times_the_area():
    crop = ellipse(40, 30, angle=0.4)
    small, large = measure_one(crop), measure_one(np.kron(crop, np.ones((2, 2), bool)))
    assert large["area_px"] == 4 * small["area_px"]
    assert large["major_axis_px"] == pytest.approx(2 * small["major_axis_px"], rel=1e-3)
    assert large["eccentricity"] == pytest.approx(small["eccentricity"], abs=1e-3)


def test_lengths_are_in_um_where_the_pixel_size_is_known():
    crop = ellipse(20, 10)
    in_px, in_um = measure_one(crop, left=8), measure_one(crop, left=8, mpp=0.5)
    assert in_um["area_um2"] == pytest.approx(in_px["area_px"] / 4)
    assert in_um["perimeter_um"] == pytest.approx(in_px["perimeter_px"] / 2)
    assert in_um["centroid_x_um"] == in_px["centroid_x_px"] / 2
    assert in_um["centroid_x_px"] == in_px["centroid_x_px"]
    assert in_um["eccentricity"] == in_px["eccentricity"]
    assert "area_px" not in in_um and "area_um2" not in in_px


def square(top, left, *, side=4):
    return Instance(np.ones((side, side), bool), top, left, 0.5)


@pytest.mark.parametrize(
    ("other", "touching"),
    [
        (square(0, 4), 1),  # a side
        (square(4, 4), 1),  # a corner
        (square(2, 2), 1),  # overlap
        (square(0, 5), 0),  # 1 px between
        (square(5, 5), 0),
    ],
)
def test_touching(other, touching):
    table = measure_instances([square(0, 0), other], mpp=None)
    assert table["touching"].tolist() == [touching, touching]


def test_masks_may_be_apart_where_boxes_overlap():
    lower_left = Instance(np.tri(9, dtype=bool), 0, 0, 0.5)
    upper_right = Instance(np.tri(9, dtype=bool).T, 0, 3, 0.5)
    assert measure_instances([lower_left, upper_right], mpp=None)["touching"].tolist() == [0, 0]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30), masks), max_size=12))
def test_touching_agrees_with_dilating_each_mask(placed):
    instances = [Instance(crop, top, left, 0.5) for top, left, crop in placed]
    images = np.zeros((len(instances), 45, 45), bool)
    for image, instance in zip(images, instances, strict=True):
        rows = slice(instance.top + 1, instance.bottom + 1)
        image[rows, instance.left + 1 : instance.right + 1] = instance.crop
    grown = [ndimage.binary_dilation(image, np.ones((3, 3))) for image in images]
    expected = [
        sum(bool((images[j] & grown[i]).any()) for j in range(len(images)) if j != i)
        for i in range(len(images))
    ]
    assert measure_instances(instances, mpp=None)["touching"].tolist() == expected


def test_nearest_neighbour_is_measured_between_centres():
    table = measure_instances([square(0, 0), square(0, 30), square(40, 30)], mpp=0.5)
    assert table["nearest_neighbour_um"].tolist() == [15, 15, 20]


def test_lone_instance_has_no_neighbour():
    assert np.isnan(measure_one(np.ones((2, 2)))["nearest_neighbour_px"])


def test_no_instances_give_an_empty_table_with_all_columns():
    empty = measure_instances([], mpp=0.25)
    one = measure_instances([square(0, 0)], mpp=0.25)
    assert len(empty) == 0
    assert list(empty.columns) == list(one.columns)
    assert list(empty.dtypes) == list(one.dtypes)


def test_numbers_scores_and_cut_masks_are_kept():
    instances = [square(0, 0), Instance(np.ones((2, 2), bool), 9, 9, 0.75, truncated=True)]
    table = measure_instances(instances, mpp=None)
    assert table["instance_id"].tolist() == [1, 2]
    assert table["score"].tolist() == [0.5, 0.75]
    assert table["truncated"].tolist() == [False, True]


def test_many_large_and_small_masks_are_measured_as_one_by_one():
    """A large mask does not fit the strip that small ones share."""
    crops = [ellipse(5), ellipse(900), ellipse(7), np.ones((2, 1500), bool), ellipse(5)] * 3
    table = measure_instances([Instance(crop, 0, 0, 0.5) for crop in crops], mpp=None)
    for number, crop in enumerate(crops):
        assert table["area_px"][number] == crop.sum()
