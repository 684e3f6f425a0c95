"""Masks pasted into crops are, bit by bit, those that Detectron2 pastes into whole images."""

import numpy as np
import pytest
import torch
from detectron2.layers.mask_ops import paste_masks_in_image
from hypothesis import given, settings
from hypothesis import strategies as st

from steatosis_d2.modeling import mask_crops
from steatosis_d2.modeling.mask_crops import chunks_of_like_size, paste_crops

HEIGHT, WIDTH = 90, 130


def as_full_size(crops, *, height=HEIGHT, width=WIDTH):
    masks = np.zeros((len(crops), height, width), bool)
    for mask, (crop, top, left) in zip(masks, crops, strict=True):
        mask[top : top + crop.shape[0], left : left + crop.shape[1]] = crop
    return masks


def assert_same_as_detectron2(probabilities, boxes, *, height=HEIGHT, width=WIDTH):
    crops = paste_crops(probabilities, boxes, height=height, width=width)
    expected = paste_masks_in_image(probabilities, boxes, (height, width)).numpy()
    assert np.array_equal(as_full_size(crops, height=height, width=width), expected)


@st.composite
def boxes_xyxy(draw):
    """A box that overlaps the image: from a hundredth of a pixel to twice the image."""
    left = draw(st.floats(-WIDTH, WIDTH - 1, width=32))
    top = draw(st.floats(-HEIGHT, HEIGHT - 1, width=32))
    right = draw(st.floats(max(left + 0.01, 0.5), 2 * WIDTH))
    bottom = draw(st.floats(max(top + 0.01, 0.5), 2 * HEIGHT))
    return [left, top, right, bottom]


@settings(deadline=None, max_examples=100)
@given(st.lists(boxes_xyxy(), min_size=1, max_size=8), st.integers(0, 2**32), st.booleans())
def test_bits_are_those_of_detectron2(boxes, seed, is_saturated):
    generator = torch.Generator().manual_seed(seed)
    probabilities = torch.rand(len(boxes), 28, 28, generator=generator)
    if is_saturated:  # as a sigmoid of large numbers gives: exactly 0, 0.5 and 1
        probabilities = (probabilities * 3).floor() / 2
    assert_same_as_detectron2(probabilities, torch.tensor(boxes, dtype=torch.float32))


def test_bits_agree_in_an_image_as_large_as_they_come():
    """Coordinates of thousands of px leave fewer bits for the fraction."""
    generator = torch.Generator().manual_seed(1)
    corners = torch.rand(60, 2, generator=generator) * 1900
    sizes = 10 ** (torch.rand(60, 2, generator=generator) * 2.5)
    probabilities = torch.rand(60, 28, 28, generator=generator)
    boxes = torch.cat([corners, corners + sizes], dim=1)
    assert_same_as_detectron2(probabilities, boxes, height=2048, width=2048)


def test_crop_is_the_bounding_box_of_the_mask():
    probabilities = torch.zeros(1, 28, 28)
    probabilities[0, 7:14, 14:28] = 1
    [(crop, top, left)] = paste_crops(
        probabilities, torch.tensor([[10.0, 20.0, 38.0, 48.0]]), height=HEIGHT, width=WIDTH
    )
    assert (top, left) == (27, 24)
    assert crop.shape == (7, 14)
    assert crop.all()


def test_crop_keeps_its_own_pixels_alone_in_memory():
    crops = paste_crops(
        torch.ones(2, 28, 28),
        torch.tensor([[0.0, 0.0, 9.0, 9.0], [0.0, 0.0, 90.0, 90.0]]),
        height=HEIGHT,
        width=WIDTH,
    )
    assert [crop.shape for crop, _, _ in crops] == [(9, 9), (90, 90)]
    assert all(crop.base is None for crop, _, _ in crops)


def test_mask_below_the_threshold_is_an_empty_crop():
    [(crop, _, _)] = paste_crops(
        torch.full((1, 28, 28), 0.4), torch.tensor([[5.0, 5.0, 50.0, 50.0]]), height=90, width=130
    )
    assert crop.shape == (0, 0)


def test_box_outside_the_image_is_an_empty_crop():
    [(crop, _, _)] = paste_crops(
        torch.ones(1, 28, 28), torch.tensor([[500.0, 500.0, 550.0, 550.0]]), height=90, width=130
    )
    assert crop.shape == (0, 0)


def test_no_mask_gives_no_crop():
    assert paste_crops(torch.zeros(0, 28, 28), torch.zeros(0, 4), height=9, width=9) == []


def test_threshold_is_the_callers():
    probabilities, boxes = torch.full((1, 28, 28), 0.4), torch.tensor([[5.0, 5.0, 50.0, 50.0]])
    [(crop, _, _)] = paste_crops(probabilities, boxes, height=90, width=130, threshold=0.3)
    assert crop.shape == (45, 45)
    assert crop[1:-1, 1:-1].all()


@pytest.mark.parametrize("chunk_px", [1, 5000, 10**9])
def test_chunks_change_no_result(monkeypatch, chunk_px):
    monkeypatch.setattr(mask_crops, "CHUNK_PX", chunk_px)
    generator = torch.Generator().manual_seed(2)
    corners = torch.rand(20, 2, generator=generator) * 80
    boxes = torch.cat([corners, corners + 5 + torch.rand(20, 2, generator=generator) * 60], dim=1)
    assert_same_as_detectron2(torch.rand(20, 28, 28, generator=generator), boxes)


def test_chunks_hold_each_region_once_and_little_padding(monkeypatch):
    monkeypatch.setattr(mask_crops, "CHUNK_PX", 1000)
    rng = np.random.default_rng(0)
    corners, sizes = rng.integers(0, 50, (40, 2)), rng.integers(1, 60, (40, 2))
    regions = np.concatenate([corners, corners + sizes], axis=1)
    chunks = chunks_of_like_size(regions)
    assert sorted(index for chunk in chunks for index in chunk) == list(range(40))
    for chunk in chunks:
        largest = sizes[chunk].max(axis=0).prod()
        assert len(chunk) == 1 or len(chunk) * largest <= 1000
