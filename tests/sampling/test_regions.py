"""Squares of tissue on a slide, and which of them are looked at."""

import numpy as np
import pytest

from steatosis_d2.errors import InputError
from steatosis_d2.sampling.regions import MIN_TISSUE, Region, list_regions, spread_over_cases
from steatosis_d2.slides.slide import ArraySlide
from steatosis_d2.slides.tissue import find_tissue

MPP = 0.5


@pytest.fixture
def half_tissue():
    """1000 x 600 px; tissue up to column 520."""
    image = np.full((600, 1000, 3), 240, np.uint8)
    image[:, :520] = (190, 120, 170)
    return image


def regions_of(image, *, size_um, mpp=MPP):
    with ArraySlide(image, mpp=mpp) as slide:
        return list_regions(slide, find_tissue(slide), size_um=size_um, file_name="a", case="A")


def test_regions_are_tissue_apart_and_within_the_slide(half_tissue):
    regions = regions_of(half_tissue, size_um=50)
    assert len(regions) == 5 * 6
    corners = [(region.left, region.top) for region in regions]
    assert len(set(corners)) == len(corners)
    for region in regions:
        assert region.side_px == 100
        assert 0 <= region.left <= 500
        assert 0 <= region.top <= 500
        assert region.tissue_share >= MIN_TISSUE


def test_glass_is_never_a_region(half_tissue):
    assert max(region.left for region in regions_of(half_tissue, size_um=25)) <= 500
    assert regions_of(np.full((400, 400, 3), 240, np.uint8), size_um=50) == []


def test_a_slide_smaller_than_a_region_has_none(half_tissue):
    assert regions_of(half_tissue, size_um=400) == []


def test_unknown_pixel_size_is_an_error(half_tissue):
    with pytest.raises(InputError, match="states no pixel size"):
        regions_of(half_tissue, size_um=50, mpp=None)


def test_cases_with_few_regions_are_not_left_behind():
    regions = [Region("big", "big", 10 * i, 0, 10, 1.0) for i in range(50)]
    regions += [Region("small", "small", 10 * i, 0, 10, 1.0) for i in range(3)]
    dealt = spread_over_cases(regions, 10, np.random.default_rng(0))
    cases = [region.case for region in dealt]
    assert (cases.count("small"), cases.count("big")) == (3, 7)
    assert dealt == spread_over_cases(regions, 10, np.random.default_rng(0))
    assert dealt != spread_over_cases(regions, 10, np.random.default_rng(1))
    assert len(spread_over_cases(regions, 100, np.random.default_rng(0))) == 53
