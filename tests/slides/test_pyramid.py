"""Windows of a slide at any scale, whatever its levels."""

import numpy as np
import pytest

from steatosis_d2.slides.pyramid import Slide


class DrawnSlide(Slide):
    """A picture in memory, with a second level of a quarter of its sides."""

    def __init__(self, image_rgb, *, mpp=None):
        self.images = [image_rgb, image_rgb[::4, ::4]]
        sizes = [image.shape[1::-1] for image in self.images]
        super().__init__("drawn", sizes=sizes, mpp=mpp)

    def _read_level(self, level, left, top, width, height):
        return self.images[level][top : top + height, left : left + width]


def test_a_window_is_cut_out_of_level_0(picture):
    window = DrawnSlide(picture).read_region(50, 20, 100, 30)
    assert np.array_equal(window, picture[20:50, 50:150])


def test_what_lies_outside_the_slide_is_white(picture):
    window = DrawnSlide(picture).read_region(-10, 290, 30, 20)
    assert np.array_equal(window[:10, 10:], picture[290:, :20])
    assert (window[10:] == 255).all() and (window[:, :10] == 255).all()


def test_a_window_far_outside_is_all_white(picture):
    assert (DrawnSlide(picture).read_region(5000, -700, 8, 9) == 255).all()


def test_shrinking_by_an_integer_averages_px(picture):
    shrunk = DrawnSlide(picture).read_region(40, 20, 60, 40, scale=0.5)
    mean = picture[20:60, 40:100].reshape(20, 2, 30, 2, 3).mean(axis=(1, 3))
    assert shrunk.shape == (20, 30, 3)
    assert np.abs(shrunk - mean).max() <= 1


def test_a_shrunk_window_comes_from_the_coarsest_level_that_is_fine_enough(picture):
    slide = DrawnSlide(picture)
    assert np.array_equal(slide.read_region(40, 20, 80, 60, scale=0.25), picture[20:80:4, 40:120:4])


def test_a_level_that_is_too_coarse_is_not_enlarged(picture):
    slide = DrawnSlide(picture)
    slide.images[1] = np.zeros_like(slide.images[1])
    assert slide.read_region(0, 0, 400, 300, scale=0.3).any()


def test_enlarging_keeps_flat_colours_up_to_the_slides_border():
    slide = DrawnSlide(np.full((40, 60, 3), 7, np.uint8))
    enlarged = slide.read_region(0, 0, 60, 40, scale=2.5)
    assert enlarged.shape == (100, 150, 3)
    assert (enlarged == 7).all()


def test_a_large_window_is_shrunk_block_by_block_without_seams():
    ramp = np.linspace(0, 255, 9000).astype(np.uint8)
    slide = DrawnSlide(np.broadcast_to(ramp[None, :, None], (30, 9000, 3)))
    slide.levels = slide.levels[:1]
    shrunk = slide.read_region(0, 0, 9000, 30, scale=1 / 3)
    mean = ramp.reshape(-1, 3).mean(axis=1)
    assert np.abs(shrunk - mean[None, :, None]).max() <= 1


def test_windows_that_meet_at_a_whole_px_join_without_seams(picture):
    slide = DrawnSlide(picture)
    whole = slide.read_region(0, 0, 400, 300, scale=0.4)
    part = slide.read_region(100, 50, 200, 100, scale=0.4)
    assert np.array_equal(part, whole[20:60, 40:120])


def test_thumbnails_have_the_longest_side_asked_for(picture):
    assert DrawnSlide(picture).thumbnail(100).shape == (75, 100, 3)


def test_small_slides_are_not_enlarged_for_a_thumbnail(picture):
    assert np.array_equal(DrawnSlide(picture).thumbnail(2048), picture)


@pytest.mark.parametrize(("width", "scale"), [(0, 1), (10, 0), (10, -1)])
def test_windows_without_px_are_refused(picture, width, scale):
    with pytest.raises(ValueError, match="expected at least 1 x 1 px"):
        DrawnSlide(picture).read_region(0, 0, width, 10, scale=scale)


# --- formats ---
