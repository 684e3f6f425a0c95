import pytest
import torch

from steatosis_d2.data.contrast import SMALLEST_RANGE, stretch_contrast


def test_values_at_the_percentiles_become_black_and_white():
    image = torch.arange(100, 201, dtype=torch.uint8).expand(3, 1, 101)
    stretched = stretch_contrast(image, (10, 90))[0, 0]
    assert (stretched[:11] == 0).all()
    assert stretched[50] == 128
    assert (stretched[90:] == 255).all()


def test_stretching_undoes_a_dim_lamp():
    image = torch.randint(0, 256, (3, 40, 40), dtype=torch.uint8)
    dim = (image.float() / 4).round()
    difference = stretch_contrast(dim, (1, 99)).int() - stretch_contrast(image, (1, 99)).int()
    assert difference.abs().max() <= 4


def test_no_percentiles_leave_the_image_as_it_is():
    image = torch.rand(3, 8, 8) * 255
    assert stretch_contrast(image, []) is image


@pytest.mark.parametrize("level", [0, 128, 255])
def test_noise_on_an_empty_image_stays_weak(level):
    image = (level + torch.randint(-1, 2, (3, 64, 64))).clamp(0, 255)
    stretched = stretch_contrast(image, (0.5, 99.5)).float()
    assert stretched.max() - stretched.min() <= 2 * 256 / SMALLEST_RANGE


def test_image_of_more_values_than_torchs_quantile_takes():
    image = torch.zeros(3, 2400, 2400, dtype=torch.uint8)
    image[:, :1200] = 100
    assert stretch_contrast(image, (1, 99)).unique().tolist() == [0, 255]
