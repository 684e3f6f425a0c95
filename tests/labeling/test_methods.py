"""Ways to label without a network, and what is said of a run."""

import numpy as np
import pytest

from steatosis_d2.labeling.levels import read_levels
from steatosis_d2.labeling.methods import describe_labels
from steatosis_d2.slides.slide import ArraySlide


def test_run_names_the_parameters_of_each_pixel_size_it_used():
    given = describe_labels([{"mpp": 0.3}], method="clump-split", mpp=0.3)
    assert given["mpp"] == 0.3
    assert given["parameters"]["0.3"]["min_diameter_um"] == 5.0
    estimated = [{"mpp": 0.5}, {"mpp": 0.25}, {}, {"mpp": 0.5}]
    described = describe_labels(estimated, method="watershed", mpp="estimate")
    assert list(described["parameters"]) == ["0.25", "0.5"]


@pytest.mark.parametrize("side_px", [40, 512, 3000])
def test_levels_of_a_slide_are_those_of_its_tissue_and_glass(side_px):
    """Of large ones, too, which are looked at in places alone."""
    rng = np.random.default_rng(0)
    image = np.full((side_px, side_px, 3), 240, np.uint8)
    image[:, : side_px // 2] = rng.integers(100, 121, (side_px, side_px // 2, 1))
    with ArraySlide(image, mpp=0.5) as slide:
        tissue, white = read_levels(slide, smoothing_um=0.3)
    assert tissue == pytest.approx(110, abs=1)
    assert white == pytest.approx(240, abs=1)
