"""Veins, portal tracts and ducts of the synthetic liver."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from steatosis_d2.data.synthetic import (
    Anatomy,
    SyntheticLiver,
    add_structures,
    random_liver,
)
from steatosis_d2.data.synthetic.layout import Window
from steatosis_d2.data.synthetic.structures import (
    DUCT,
    VEIN,
    duct_nuclei,
    opening_maps,
    place_structures,
)

CROWDED = Anatomy(
    seed=3, fat_fraction=0.2, vein_density=2.0, tract_density=1.0, gap_share=0.2, vessel_density=0.3
)
WINDOW = Window(0.0, 0.0, 400.0, 400.0)


@pytest.fixture(scope="module")
def large():
    return SyntheticLiver(CROWDED).render(top=-40, left=300, height=240, width=200)


@settings(max_examples=8, deadline=None)
@given(
    top=st.integers(0, 239),
    left=st.integers(0, 199),
    height=st.integers(1, 120),
    width=st.integers(1, 120),
)
def test_any_window_shows_what_the_larger_rendering_shows(large, top, left, height, width):
    height, width = min(height, 240 - top), min(width, 200 - left)
    window = SyntheticLiver(CROWDED).render(
        top=top - 40, left=left + 300, height=height, width=width
    )
    part = (slice(top, top + height), slice(left, left + width))
    np.testing.assert_array_equal(window.image_rgb, large.image_rgb[part])
    np.testing.assert_array_equal(window.white_not_fat, large.white_not_fat[part])


def test_no_droplet_lies_in_an_opening():
    anatomy = Anatomy(seed=3, fat_fraction=0.3, vein_density=3.0, tract_density=1.0)
    window = SyntheticLiver(anatomy).render(top=0, left=0, height=300, width=300)
    axis_um = (np.arange(300) + 0.5) * 0.5
    depth = opening_maps(anatomy, axis_um, axis_um).depth
    assert (window.labels > 0).mean() > 0.05
    assert (depth[window.labels > 0] < 0).mean() < 0.005  # the room is measured in steps of 4 um


def test_small_maps_are_parts_of_the_large_one():
    axis_um = np.arange(300) * 2.0
    large = opening_maps(CROWDED, axis_um, axis_um)
    for start in range(0, 300, 75):
        part = opening_maps(CROWDED, axis_um[start : start + 75], axis_um)
        np.testing.assert_array_equal(part.depth < 0, large.depth[start : start + 75] < 0)
        np.testing.assert_array_equal(part.kind, large.kind[start : start + 75])


def test_tissue_without_structures_is_as_it_was():
    axis_um = np.arange(100) * 2.0
    anatomy = Anatomy(seed=3, vessel_density=1.0)
    assert place_structures(anatomy, WINDOW) == []
    assert not opening_maps(anatomy, axis_um, axis_um).kind.any()


def test_tracts_hold_veins_and_ducts():
    kinds = [one.kind for one in place_structures(CROWDED, WINDOW)]
    assert kinds.count(DUCT) > 2
    assert kinds.count(VEIN) > 2


def test_nuclei_ring_the_ducts():
    ducts = [one for one in place_structures(CROWDED, WINDOW) if one.kind == DUCT]
    ids, y_um, x_um = duct_nuclei(CROWDED, WINDOW)
    assert len(np.unique(ids)) == len(ids) > 8
    for y, x in zip(y_um, x_um, strict=True):
        away_um = [np.hypot(y - one.y_um, x - one.x_um) - one.radius_um for one in ducts]
        assert min(np.abs(away_um)) < 15


def test_random_structures_repeat_with_their_generator():
    def draw(seed):
        rng = np.random.default_rng(seed)
        liver = random_liver(rng, mpp=0.5, fat_fraction=0.1)
        return add_structures(liver, rng, crowded=True, gap_share=0.1)

    assert draw(1) == draw(1)
    assert draw(1).anatomy.vein_density != draw(2).anatomy.vein_density
    assert draw(1).anatomy.gap_share == 0.1
