"""What there is to doubt in a region."""

import numpy as np
import pytest

from steatosis_d2.data.colours import ColourStatistics, describe_colours
from steatosis_d2.instances.instance import Instance
from steatosis_d2.sampling.doubt import measure_region
from steatosis_d2.sampling.regions import Region

REGION = Region("a.svs", "a", 0, 0, 100, 0.5)
IMAGE = np.full((100, 100, 3), (190, 120, 170), np.uint8)
COLOURS = ColourStatistics(describe_colours(IMAGE), np.eye(6))


def square(left, score, *, side=10):
    return Instance(np.ones((side, side), bool), 0, left, score)


def measure(found, classical=()):
    return measure_region(
        IMAGE, found, list(classical), threshold=0.5, region=REGION, mpp=1.0, colours=COLOURS
    )


def test_fat_is_a_share_of_the_tissue():
    findings = measure([square(0, 0.9), square(20, 0.4)])
    assert len(findings.instances) == 1
    assert findings.fat_share == pytest.approx(100 / (0.5 * 100**2))


def test_scores_near_the_threshold_are_counted_from_both_sides():
    scores = (0.99, 0.6, 0.4, 0.36)
    found = [square(20 * i, score) for i, score in enumerate(scores)]
    assert measure(found).near_threshold == pytest.approx(3 / 0.01)


def test_disagreement_is_what_the_other_method_does_not_confirm():
    found = [square(0, 0.9), square(20, 0.9)]
    assert measure(found, [square(0, 1.0)]).disagreement == pytest.approx(1 / 0.01)
    assert measure(found, [square(0, 1.0), square(20, 1.0)]).disagreement == pytest.approx(0)


def test_other_colours_are_strange():
    assert measure([]).strangeness == pytest.approx(0, abs=1e-6)
    green = describe_colours(np.full((100, 100, 3), (90, 200, 90), np.uint8))
    assert COLOURS.distance_to(green) > 0.1


def test_statistics_survive_being_written():
    rng = np.random.default_rng(0)
    described = [describe_colours(rng.integers(60, 200, (40, 40, 3), np.uint8)) for _ in range(9)]
    statistics = ColourStatistics.of(described)
    again = ColourStatistics.from_lists(statistics.as_lists())
    for one in described:
        assert again.distance_to(one) == pytest.approx(statistics.distance_to(one))
        assert again.distance_to(one) < 3


def test_glass_has_no_colours_and_one_image_is_enough():
    glass = describe_colours(np.full((40, 40, 3), 250, np.uint8))
    assert glass.tolist() == [0] * 6
    assert ColourStatistics.of([glass]).distance_to(glass) == 0
