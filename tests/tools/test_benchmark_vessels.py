"""The benchmark of restraint counts what it says."""

import numpy as np
import pytest
from benchmarks.vessels import draw_tile, label_wide, measure_tile

from steatosis_d2.instances.instance import Instance


@pytest.fixture
def white():
    """A round opening of 30 um, one of 10 um, and glass of 10 um along the border, at 0.5 um/px."""
    rows, columns = np.ogrid[:200, :200]
    return (
        ((rows - 60) ** 2 + (columns - 60) ** 2 <= 30**2)
        | ((rows - 140) ** 2 + (columns - 60) ** 2 <= 10**2)
        | (columns >= 180)
    )


def instance(top, left, height, width):
    return Instance(np.ones((height, width), bool), top, left, 0.9, truncated=False)


def test_only_wide_openings_count_and_glass_goes_on_beyond_the_border(white):
    openings = label_wide(white, mpp=0.5)
    assert openings.max() == 2
    assert openings[60, 60] > 0
    assert openings[140, 60] == 0
    assert openings[100, 190] > 0


def test_an_opening_is_taken_where_a_part_of_it_is(white):
    nothing = measure_tile(white, [], mpp=0.5)
    assert (nothing.openings, nothing.taken, nothing.taken_px) == (2, 0, 0)
    found = measure_tile(white, [instance(50, 50, 40, 40), instance(130, 130, 9, 9)], mpp=0.5)
    assert found.taken == 1
    assert 0.3 < found.taken_px / np.pi / 30**2 < 0.6


def test_tiles_have_openings_to_mistake():
    tiles = [draw_tile(number, 0.5) for number in (0, 5)]
    assert all(label_wide(tile.white_not_fat, mpp=0.5).max() >= 1 for tile in tiles)
