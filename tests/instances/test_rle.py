import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pycocotools import mask as coco_mask

from steatosis_d2.instances.rle import (
    as_sound_rle,
    concatenate_runs,
    decode_crop,
    decode_mask,
    encode_crop,
    encode_label_image,
    encode_mask,
    encode_strip,
    find_boxes,
    run_lengths,
)
from steatosis_d2.instances.strip import stack_crops

small_masks = hnp.arrays(bool, hnp.array_shapes(min_dims=2, max_dims=2, max_side=9))


@given(crop=small_masks, top=st.integers(0, 3), left=st.integers(0, 3), margin=st.integers(0, 3))
@settings(max_examples=300)
def test_crop_code_equals_the_code_of_the_full_mask(crop, top, left, margin):
    height, width = top + crop.shape[0] + margin, left + crop.shape[1] + margin
    full = np.zeros((height, width), bool)
    full[top : top + crop.shape[0], left : left + crop.shape[1]] = crop
    assert encode_crop(crop, top=top, left=left, height=height, width=width) == encode_mask(full)


@given(st.lists(small_masks, min_size=1, max_size=4), st.integers(0, 3), st.integers(0, 2))
@settings(max_examples=200, deadline=None)
def test_codes_of_many_at_once_are_those_of_each(crops, margin, offset):
    height = max(crop.shape[0] for crop in crops) + offset + margin
    width = max(crop.shape[1] for crop in crops) + offset + margin
    at_once = encode_strip(
        stack_crops(crops, tops=[offset] * len(crops), lefts=[offset] * len(crops)),
        height=height,
        width=width,
    )
    assert at_once == [
        encode_crop(crop, top=offset, left=offset, height=height, width=width) for crop in crops
    ]


def test_image_of_more_px_than_32_bits_count():
    """pycocotools refuses counts from 2^32 on, which a slide of 100,000 x 100,000 px has."""
    strip = stack_crops([np.ones((2, 3), bool)], tops=[90_000], lefts=[96_000])
    [rle] = encode_strip(strip, height=100_000, width=100_000)
    first = 96_000 * 100_000 + 90_000
    last = 10**10 - first - 2 * 100_000 - 2
    assert run_lengths(rle).tolist() == [first, 2, 99_998, 2, 99_998, 2, last]


@given(mask=small_masks)
def test_decoding_gives_the_mask_back(mask):
    assert np.array_equal(decode_mask(encode_mask(mask)), mask)


def test_uncompressed_code_is_decoded_down_the_columns():
    rle = {"size": [2, 3], "counts": [1, 2, 3]}
    assert decode_mask(rle).tolist() == [[False, True, False], [True, False, False]]


def test_crop_outside_its_image_is_an_error():
    with pytest.raises(ValueError, match="reaches outside its image of 10 x 10"):
        encode_crop(np.ones((4, 4), bool), top=8, left=0, height=10, width=10)


def test_label_image_with_sparse_labels_and_parts():
    labels = np.zeros((6, 8), np.uint16)
    labels[0:2, 0:2] = 40_000
    labels[5, 7] = 7
    labels[3, 3] = 40_000  # a second part of the same instance
    codes = encode_label_image(labels)
    assert list(codes) == [7, 40_000]
    assert np.array_equal(decode_mask(codes[40_000]), labels == 40_000)
    assert coco_mask.area(codes[7]) == 1


def test_label_image_without_background():
    assert list(encode_label_image(np.full((2, 2), 3))) == [3]


def test_empty_label_image_has_no_instances():
    assert encode_label_image(np.zeros((5, 5), int)) == {}


@given(runs=st.lists(st.integers(1, 100_000), min_size=1, max_size=9), first=st.integers(0, 1))
def test_runs_come_back_from_their_compressed_code(runs, first):
    runs[0] *= first  # a mask that begins inside has an empty first run
    size = [1, sum(runs)]
    code = coco_mask.frPyObjects({"size": size, "counts": runs}, *size)
    assert run_lengths(code).tolist() == runs


@pytest.mark.parametrize("counts", ["", "P", "\x01\x02", "01ü", b"\xff"])
def test_text_that_is_no_run_length_code_is_an_error(counts):
    with pytest.raises(ValueError, match="no COCO run-length code"):
        run_lengths({"size": [4, 4], "counts": counts})


@given(masks=st.lists(hnp.arrays(bool, (5, 7)), min_size=1, max_size=6))
def test_runs_of_many_codes_are_those_of_each(masks):
    codes = [coco_mask.encode(np.asfortranarray(mask, np.uint8)) for mask in masks]
    runs, n_runs = concatenate_runs(codes)
    each = np.split(runs, np.cumsum(n_runs)[:-1])
    assert [part.tolist() for part in each] == [run_lengths(code).tolist() for code in codes]
    for part, mask in zip(each, masks, strict=True):
        values = np.repeat(np.arange(len(part)) % 2 == 1, part)
        assert np.array_equal(values.reshape(7, 5).T, mask)


def test_one_unsound_code_among_many_is_an_error():
    sound = encode_mask(np.eye(4, dtype=bool))
    for text in ("", "P", "01ü"):
        with pytest.raises(ValueError, match="no COCO run-length code"):
            concatenate_runs([sound, {"size": [4, 4], "counts": text}, sound])


@given(crop=small_masks, top=st.integers(0, 3), left=st.integers(0, 3), margin=st.integers(0, 3))
def test_crop_comes_back_from_its_code(crop, top, left, margin):
    height, width = top + crop.shape[0] + margin, left + crop.shape[1] + margin
    code = encode_crop(crop, top=top, left=left, height=height, width=width)
    decoded, first_row, first_column = decode_crop(code)
    assert (
        encode_crop(decoded, top=first_row, left=first_column, height=height, width=width) == code
    )
    rows, columns = np.nonzero(crop)
    assert decoded.shape == ((np.ptp(rows) + 1, np.ptp(columns) + 1) if rows.size else (0, 0))


@pytest.mark.parametrize("counts", [[3, 2, 4], b"324", "324"])
def test_any_sound_code_is_compressed_text(counts):
    rle = as_sound_rle({"size": [3, 3], "counts": counts}, height=3, width=3)
    assert isinstance(rle["counts"], str)
    assert run_lengths(rle).tolist() == [3, 2, 4]


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ([1, 2], "add up to 3 px; expected 3 x 3 = 9 px"),
        ([-1, 10], "out of bounds|add up"),
        ("~~", "no COCO"),
    ],
)
def test_unsound_code_is_an_error(counts, message):
    with pytest.raises(ValueError, match=message):
        as_sound_rle({"size": [3, 3], "counts": counts}, height=3, width=3)


@given(hnp.arrays(bool, hnp.array_shapes(min_dims=2, max_dims=2, max_side=9)))
@settings(max_examples=300)
def test_decoded_crop_is_the_mask_in_its_box(mask):
    crop, top, left = decode_crop(encode_mask(mask))
    assert encode_crop(crop, top=top, left=left, height=len(mask), width=mask.shape[1]) == (
        encode_mask(mask)
    )
    if mask.any():
        assert crop.any(axis=0)[[0, -1]].all()
        assert crop.any(axis=1)[[0, -1]].all()


@given(st.lists(hnp.arrays(bool, (7, 9)), max_size=5))
@settings(max_examples=200)
def test_boxes_are_those_of_pycocotools(masks):
    rles = [encode_mask(mask) for mask in masks]
    expected = [coco_mask.toBbox(rle).astype(int).tolist() for rle in rles]
    assert find_boxes(rles).tolist() == expected


def test_masks_of_a_slide_of_ten_gigapixels_are_decoded_quickly():
    """pycocotools counts in 32 bits, and the columns of such a slide have 100,000 px each."""
    crop = np.tri(40, 30, dtype=bool)
    size = {"height": 100_000, "width": 110_000}
    lefts = [100_000 + i for i in range(500)]
    rles = encode_strip(stack_crops([crop] * 500, tops=[90_000] * 500, lefts=lefts), **size)
    decoded, top, left = decode_crop(rles[7])
    np.testing.assert_array_equal(decoded, crop)
    assert (top, left) == (90_000, 100_007)
    assert find_boxes(rles)[7].tolist() == [100_007, 90_000, 30, 40]
