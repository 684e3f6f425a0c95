import numpy as np

from steatosis_d2.report.overlay import show_dark_field


def test_dim_fluorescence_is_shown_with_its_full_range():
    picture = np.full((64, 64, 3), 4, np.uint8)
    picture[20:40, 20:40] = 24
    shown = show_dark_field(picture)
    assert shown[0, 0].tolist() == [0, 0, 0]
    assert shown[30, 30].tolist() == [255, 255, 255]
    assert picture.max() == 24


def test_empty_dark_field_stays_dark():
    noise = np.random.default_rng(0).integers(3, 6, (64, 64, 3)).astype(np.uint8)
    assert show_dark_field(noise).max() < 64


def test_bright_field_is_shown_as_it_is():
    picture = np.full((8, 8, 3), 180, np.uint8)
    assert show_dark_field(picture) is picture
