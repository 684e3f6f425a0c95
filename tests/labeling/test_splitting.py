"""Clumps of drawn disks, cut where they touch."""

import cv2
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from steatosis_d2.labeling.splitting import (
    Cut,
    find_cut,
    find_dividing_curve,
    is_clump,
    split_clump,
)

RADIUS_PX = 20


def draw(centres_rc, *, radius=RADIUS_PX, shape=(220, 220)):
    mask = np.zeros(shape, np.uint8)
    for row, column in centres_rc:
        cv2.circle(mask, (round(column), round(row)), radius, 1, -1)
    return mask > 0


def brighten(mask):
    return cv2.GaussianBlur(np.where(mask, 240, 80).astype(np.uint8), (0, 0), 1.5)


def ring(number, *, distance):
    """Centres on a circle, neighbours ``distance`` apart."""
    angle = 2 * np.pi * np.arange(number) / number
    reach = distance / 2 / np.sin(np.pi / number)
    return np.stack([110 + reach * np.sin(angle), 110 + reach * np.cos(angle)], axis=1)


def centres_of(pieces):
    return sorted(tuple(np.mean(np.nonzero(piece), axis=1).round().astype(int)) for piece in pieces)


def assert_split_at(centres_rc, *, radius=RADIUS_PX):
    clump = draw(centres_rc, radius=radius)
    pieces = split_clump(clump, brighten(clump), min_area_px=200)
    expected = sorted(tuple(np.round(centre).astype(int)) for centre in centres_rc)
    assert len(pieces) == len(expected)
    assert np.array(centres_of(pieces)) == pytest.approx(np.array(expected), abs=2)


def test_single_disk_and_ellipse_stay_whole():
    for mask in (
        draw([(110, 110)]),
        cv2.ellipse(np.zeros((220, 220), np.uint8), (110, 110), (60, 25), 30, 0, 360, 1, -1) > 0,
    ):
        [piece] = split_clump(mask, brighten(mask), min_area_px=200)
        np.testing.assert_array_equal(piece, mask)


@pytest.mark.parametrize("angle", [0, 30, 45, 90, 120])
def test_two_disks_are_parted_in_any_direction(angle):
    step = 18 * np.array([np.sin(np.deg2rad(angle)), np.cos(np.deg2rad(angle))])
    assert_split_at([110 - step, 110 + step])


def test_small_droplet_on_a_large_one_is_parted():
    large, small = draw([(110, 90)], radius=30), draw([(110, 128)], radius=12)
    clump = large | small
    pieces = split_clump(clump, brighten(clump), min_area_px=200)
    assert sorted(piece.sum() for piece in pieces) == pytest.approx(
        [(small & ~large).sum(), large.sum()], rel=0.05
    )


def test_chain_is_parted_link_by_link():
    assert_split_at([(110, 40), (110, 78), (120, 114), (100, 146)])


@pytest.mark.parametrize("number", [5, 6])
def test_ring_is_opened_and_parted(number):
    assert_split_at(ring(number, distance=37.5))


@settings(max_examples=30, deadline=None)
@example(distance=38, angle=8.0, radius=19)  # they touch in one point
@given(distance=st.integers(32, 38), angle=st.floats(0, 180), radius=st.integers(19, 23))
def test_pieces_are_disjoint_and_together_the_clump(distance, angle, radius):
    step = distance / 2 * np.array([np.sin(np.deg2rad(angle)), np.cos(np.deg2rad(angle))])
    clump = draw([110 - step, 110 + step], radius=radius)
    pieces = split_clump(clump, brighten(clump), min_area_px=200)
    owners = np.sum(pieces, axis=0, dtype=int)
    assert owners.max() == 1
    assert (owners[clump] == 1).all()
    # Along the seam, the notch may cut pixels off from the outside: a hole, and filled.
    added = np.argwhere((owners == 1) & ~clump)
    assert np.all(np.abs((added - 110) @ step) <= 2 * np.linalg.norm(step))


def test_clump_cut_by_the_border_of_its_crop_is_parted():
    clump = draw([(10, 70), (10, 106)])[:40]
    assert len(split_clump(clump, brighten(clump), min_area_px=200)) == 2


def test_no_piece_is_smaller_than_a_droplet():
    mask = draw([(110, 90)], radius=30) | draw([(110, 123)], radius=6)
    assert len(split_clump(mask, brighten(mask), min_area_px=200)) == 1


def test_ragged_outline_of_one_droplet_is_not_cut():
    rng = np.random.default_rng(0)
    noise = cv2.GaussianBlur(rng.normal(size=(220, 220)), (0, 0), 1.5)
    ragged = brighten(draw([(110, 110)], radius=35)) > 160 + 60 * noise / noise.std() / 2
    [_, *_] = pieces = split_clump(largest_part(ragged), brighten(ragged), min_area_px=200)
    assert len(pieces) == 1


def largest_part(mask):
    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=4)
    return labels == 1 + stats[1:, cv2.CC_STAT_AREA].argmax()


def test_cut_joins_the_two_notches():
    cut = find_cut(np.pad(draw([(110, 92), (110, 128)]), 1), min_area_px=200)
    assert sorted([cut.start_xy[0], cut.end_xy[0]]) == pytest.approx([111, 111], abs=2)


def test_dividing_curve_follows_the_dark_line_and_not_the_chord():
    region = np.ones((41, 41), bool)
    brightness = np.full((41, 41), 240, np.uint8)
    rows = np.arange(41)
    dark_columns = np.round(20 + 6 * np.sin(np.pi * rows / 40)).astype(int)
    brightness[rows, dark_columns] = 120
    curve = find_dividing_curve(region, brightness, Cut(np.array([20, 0]), np.array([20, 40])))
    assert np.abs(curve[:, 1] - dark_columns[curve[:, 0]]).max() <= 1


def test_dividing_curve_stays_in_the_sectors_of_its_ends():
    """A dark way that leads far around is not taken."""
    region = np.ones((41, 81), bool)
    brightness = np.full((41, 81), 240, np.uint8)
    brightness[:, 75] = brightness[0, 40:76] = brightness[40, 40:76] = 80
    curve = find_dividing_curve(region, brightness, Cut(np.array([40, 0]), np.array([40, 40])))
    assert np.abs(curve[:, 1] - 40).max() <= 15


def test_clumps_are_neither_single_droplets_nor_networks():
    assert [is_clump(solidity) for solidity in (0.3, 0.8, 0.96)] == [False, True, False]
