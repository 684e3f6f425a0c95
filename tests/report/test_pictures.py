"""What is written onto a report's pictures."""

from types import SimpleNamespace

import numpy as np
import pytest

from steatosis_d2.report.pictures import write_name

SLIDE = SimpleNamespace(width=6400, height=3000)
PINK = (230, 170, 200)


def draw(name, place_xy=(3200, 1500)):
    picture_rgb = np.full((300, 640, 3), PINK, np.uint8)
    write_name(picture_rgb, name, place_xy, SLIDE)
    return picture_rgb, np.argwhere((picture_rgb != PINK).any(axis=2))


def test_a_name_is_written_around_its_place():
    _, written = draw("piece 1")
    assert (written.min(axis=0) + written.max(axis=0)) / 2 == pytest.approx((150, 320), abs=2)


@pytest.mark.parametrize("place_xy", [(0, 0), (6400, 0), (0, 3000), (6400, 3000)])
def test_a_name_at_the_border_is_whole(place_xy):
    _, whole = draw("piece 1")
    _, written = draw("piece 1", place_xy)
    assert len(written) == len(whole)


def test_letters_of_other_languages_are_not_question_marks():
    drawn = {draw(letter)[0].tobytes() for letter in "ä?aβЖ"}
    assert len(drawn) == 5
