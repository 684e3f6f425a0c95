"""Brightness on a scale of its own, and glass told from tissue."""

import cv2
import numpy as np
import pytest

from steatosis_d2.data.brightness import (
    GLASS,
    TISSUE,
    find_background,
    level_of,
    measure_saturation,
    normalise_brightness,
    open_bright,
)


def stained(tissue_rgb, white_rgb, *, side=200, white_rows=40):
    image = np.full((side, side, 3), tissue_rgb, np.uint8)
    image[:white_rows] = white_rgb
    return image


@pytest.mark.parametrize(
    ("tissue_rgb", "white_rgb"),
    [
        ((170, 90, 150), (222, 223, 218)),
        ((120, 40, 80), (240, 240, 240)),
        ((90, 70, 90), (255,) * 3),
    ],
)
def test_tissue_and_white_come_out_alike_whatever_the_stain(tissue_rgb, white_rgb):
    brightness = normalise_brightness(stained(tissue_rgb, white_rgb))
    assert brightness[-1, 0] == TISSUE
    assert brightness[0, 0] == GLASS


def test_red_and_blue_may_be_swapped_without_any_change():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (50, 60, 3), np.uint8)
    swapped = np.ascontiguousarray(image[..., ::-1])
    np.testing.assert_array_equal(normalise_brightness(image), normalise_brightness(swapped))
    np.testing.assert_array_equal(measure_saturation(image), measure_saturation(swapped))


def test_blank_glass_is_not_stretched_into_tissue():
    """The few grey pixels of a glass tile were once taken for tissue, and its noise for fat."""
    rng = np.random.default_rng(0)
    image = rng.integers(230, 236, (200, 200, 3)).astype(np.uint8)
    assert normalise_brightness(image).min() > level_of(0.8)


def test_level_runs_from_tissue_to_white():
    assert (level_of(0), level_of(0.5), level_of(1)) == (TISSUE, (TISSUE + GLASS) / 2, GLASS)


def test_saturation_is_the_distance_from_grey():
    image = np.array([[[200, 200, 200], [200, 90, 150]]], np.uint8)
    assert measure_saturation(image).tolist() == [[0, 110]]


def test_glass_is_background_with_its_arms_and_a_droplet_is_not():
    brightness = np.full((400, 400), TISSUE, np.uint8)
    brightness[:, :150] = GLASS
    brightness[180:220, 150:240] = GLASS  # an arm of the glass, narrower than a droplet
    cv2.circle(brightness, (330, 80), 40, GLASS, -1)
    background = find_background(brightness, min_width_um=70, mpp=0.5)
    in_px = cv2.resize(background.astype(np.uint8), (400, 400), interpolation=cv2.INTER_NEAREST)
    assert in_px[200, 20] == in_px[200, 200] == 1
    assert in_px[80, 330] == in_px[350, 350] == 0


def test_droplet_cut_by_the_border_is_no_background():
    brightness = np.full((400, 400), TISSUE, np.uint8)
    cv2.circle(brightness, (0, 200), 50, GLASS, -1)
    assert not find_background(brightness, min_width_um=70, mpp=0.5).any()


def test_opening_removes_what_a_disk_does_not_fit_into():
    brightness = np.full((60, 60), TISSUE, np.uint8)
    cv2.circle(brightness, (20, 30), 12, GLASS, -1)
    brightness[29:31, 30:60] = GLASS
    opened = open_bright(brightness, radius_px=3)
    assert opened[30, 50] == TISSUE
    assert opened[30, 20] == GLASS
