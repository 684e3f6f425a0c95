import numpy as np
import pytest
from detectron2.data import transforms as T
from hypothesis import given
from hypothesis import strategies as st

from steatosis_d2.data.augmentation import LabelResize, MirrorAffineTransform
from steatosis_d2.data.label_layers import paint_layers, split_layers
from steatosis_d2.instances.rle import encode_mask, run_lengths

HEIGHT, WIDTH = 12, 17

TRANSFORMS = [
    T.NoOpTransform(),
    T.CropTransform(3, 2, 9, 7),
    T.HFlipTransform(WIDTH),
    T.RotationTransform(HEIGHT, WIDTH, 90),
    LabelResize(HEIGHT, WIDTH, 23, 29),
    LabelResize(HEIGHT, WIDTH, 5, 9),
    MirrorAffineTransform(np.array([[0.9, -0.4, 3.0], [0.4, 0.9, -1.0]])),
]


@st.composite
def rectangles(draw):
    """A mask with one rectangle in it: from one px to the whole image, full columns among them."""
    top = draw(st.integers(0, HEIGHT - 1))
    left = draw(st.integers(0, WIDTH - 1))
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[top : draw(st.integers(top + 1, HEIGHT)), left : draw(st.integers(left + 1, WIDTH))] = True
    return mask


def paint(masks):
    height, width = masks[0].shape
    return paint_layers([encode_mask(mask) for mask in masks], height=height, width=width)


@given(masks=st.lists(rectangles(), min_size=1, max_size=8), transform=st.sampled_from(TRANSFORMS))
def test_layers_give_the_masks_that_one_by_one_transformation_gives(masks, transform):
    one_by_one = [transform.apply_segmentation(mask.astype(np.float32)) > 0 for mask in masks]
    layers = [transform.apply_segmentation(layer) for layer in paint(masks)]
    indices, together, boxes = split_layers(layers, size=one_by_one[0].shape)
    assert sorted(indices) == [index for index, mask in enumerate(one_by_one) if mask.any()]
    for index, mask, box in zip(indices, together, boxes, strict=True):
        assert np.array_equal(mask, one_by_one[index])
        rows, columns = np.nonzero(mask)
        assert box.tolist() == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


@given(masks=st.lists(rectangles(), min_size=1, max_size=8))
def test_each_instance_lies_in_the_first_layer_in_which_it_overlaps_no_other(masks):
    expected = []
    for value, mask in enumerate(masks, 1):
        free = [layer for layer in expected if not layer[mask].any()]
        if not free:
            expected.append(np.zeros((HEIGHT, WIDTH)))
            free = expected[-1:]
        free[0][mask] = value
    assert np.array_equal(paint(masks), expected)


def test_instances_that_only_touch_share_a_layer():
    left, right = np.zeros((2, 4, 6), bool)
    left[:, :3] = right[:, 3:] = True
    assert [layer.tolist() for layer in paint([left, right])] == [[[1, 1, 1, 2, 2, 2]] * 4]


def test_more_instances_than_a_byte_can_number():
    masks = np.eye(400, dtype=bool).reshape(400, 20, 20)
    indices, together, _ = split_layers(paint(masks), size=(20, 20))
    assert indices.tolist() == list(range(400))
    assert np.array_equal(together, masks)


def test_polygons_and_codes_of_either_kind_are_painted_alike():
    mask = np.zeros((10, 12), bool)
    mask[2:6, 3:9] = True
    polygons = [[3, 2, 9, 2, 9, 6, 3, 6]]
    code = encode_mask(mask)
    uncompressed = {"size": [10, 12], "counts": run_lengths(code).tolist()}
    for segmentation in (polygons, code, uncompressed):
        [layer] = paint_layers([segmentation], height=10, width=12)
        assert np.array_equal(layer, mask)


def test_regions_of_one_instance_are_instances_only_where_asked_for():
    layer = np.array([[1, 0, 0, 2, 2], [0, 1, 0, 0, 0], [0, 0, 0, 2, 0]], np.float32)
    indices, _, _ = split_layers([layer], size=layer.shape)
    assert indices.tolist() == [0, 1]
    indices, masks, boxes = split_layers([layer], size=layer.shape, by_region=True)
    assert indices.tolist() == [0, 1, 1]  # pixels that meet at a corner are one region
    assert masks.sum(axis=(1, 2)).tolist() == [2, 2, 1]
    assert boxes.tolist() == [[0, 0, 2, 2], [3, 0, 5, 1], [3, 2, 4, 3]]


def test_image_without_instances_has_no_layers():
    assert paint_layers([], height=5, width=6) == []
    indices, masks, boxes = split_layers([], size=(5, 6))
    assert (indices.shape, masks.shape, boxes.shape) == ((0,), (0, 5, 6), (0, 4))


@pytest.mark.parametrize(
    ("segmentation", "message"),
    [
        ({"size": [6, 5], "counts": [30]}, r"size \[6, 5\]; expected \[5, 6\]"),
        ({"size": [5, 6], "counts": [10, 15]}, r"do not add up to 5 x 6 px"),
        ({"size": [5, 6], "counts": "\x01"}, "no COCO run-length code"),
        ([[1, 1, 4, 4]], "neither a COCO run-length code nor a list of polygons"),
        (None, "neither a COCO run-length code nor a list of polygons"),
    ],
)
def test_unsound_mask_is_an_error(segmentation, message):
    sound = encode_mask(np.ones((5, 6), bool))
    with pytest.raises(ValueError, match=message):
        paint_layers([sound, segmentation], height=5, width=6)
