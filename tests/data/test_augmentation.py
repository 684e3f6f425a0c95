import functools

import numpy as np
import pytest
from detectron2.data import transforms as T
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage

from steatosis_d2.data.augmentation import (
    LabelResize,
    MirrorAffineTransform,
    RandomAffine,
    RandomBlur,
    RandomScaledCrop,
    RandomStain,
    RandomSubset,
    ScaledInput,
    build_train_augmentations,
    change_stains,
)
from steatosis_d2.data.label_layers import split_layers
from steatosis_d2.errors import InputError
from steatosis_d2.model_zoo import get_config

SIDES = st.integers(1, 40)


@pytest.fixture(autouse=True)
def seed():
    """Detectron2's augmentations draw from numpy's global generator."""
    np.random.seed(0)  # noqa: NPY002


def plain_input(image, *, scale=1.0, boxes=()):
    return ScaledInput(image, scale=scale, boxes=np.array(boxes, float).reshape(-1, 4))


def noise(height, width, *, channels=3):
    return np.random.default_rng(0).integers(0, 256, (height, width, channels), np.uint8)


@pytest.mark.parametrize("scale", [0.5, 1.0, 1.7, 2.2])
def test_scaled_crop_has_the_size_asked_for(scale):
    image = np.zeros((416, 500, 3), np.uint8)
    crop = RandomScaledCrop((1.0, 1.0), (150, 200))(plain_input(image, scale=scale))
    assert crop.apply_image(image).shape == (150, 200, 3)


def test_image_smaller_than_the_crop_is_kept_whole():
    image = np.zeros((100, 120, 3), np.uint8)
    crop = RandomScaledCrop((0.5, 0.5), (384, 384))(plain_input(image))
    assert crop.apply_image(image).shape == (50, 60, 3)


def test_scales_are_even_on_a_logarithmic_axis():
    augmentation = RandomScaledCrop((0.5, 2.0), (1000, 1000))
    image = np.zeros((100, 100, 3), np.uint8)
    sizes = [augmentation(plain_input(image)).apply_image(image).shape[0] for _ in range(400)]
    assert 50 <= min(sizes) <= max(sizes) <= 200
    assert 0.4 < np.mean(np.array(sizes) < 100) < 0.6


@given(height=SIDES, width=SIDES, scale=st.floats(0.3, 3), crop=st.integers(1, 30), data=st.data())
def test_crop_on_an_instance_holds_its_centre(height, width, scale, crop, data):
    left, top = data.draw(st.integers(0, width - 1)), data.draw(st.integers(0, height - 1))
    right, bottom = data.draw(st.integers(left + 1, width)), data.draw(st.integers(top + 1, height))
    centre = np.zeros((height, width), np.float32)
    centre[(top + bottom) // 2, (left + right) // 2] = 1
    augmentation = RandomScaledCrop((1.0, 1.0), (crop, crop), on_instance=1.0)
    image = np.zeros((height, width, 3), np.uint8)
    transforms = augmentation(
        plain_input(image, scale=scale, boxes=[[left, top, right, bottom]])
    ).transforms
    assert transforms[0].apply_segmentation(centre).any()


def test_crop_on_an_instance_takes_small_ones_as_often_as_large_ones():
    image = np.zeros((300, 300, 3), np.uint8)
    boxes = [[20, 20, 26, 26], [120, 120, 280, 280]]
    augmentation = RandomScaledCrop((1.0, 1.0), (30, 30), on_instance=1.0)
    crops = [augmentation(plain_input(image, boxes=boxes)).transforms[0] for _ in range(400)]
    assert 160 < sum(crop.x0 < 100 for crop in crops) < 240


def test_crop_on_a_box_outside_the_image_stays_in_the_image():
    image = np.zeros((50, 60, 3), np.uint8)
    augmentation = RandomScaledCrop((1.0, 1.0), (20, 20), on_instance=1.0)
    for box in ([90, 90, 95, 95], [-30, -30, -20, -20], [60, 50, 60, 50]):
        crop = augmentation(plain_input(image, boxes=[box]))
        assert crop.apply_image(image).shape == (20, 20, 3)


@given(height=SIDES, width=SIDES, new_height=SIDES, new_width=SIDES)
def test_labels_are_resized_to_the_nearest_pixel_as_each_mask_would_be(
    height, width, new_height, new_width
):
    labels = np.random.default_rng(1).integers(0, 4, (height, width)).astype(np.float32)
    resized = LabelResize(height, width, new_height, new_width).apply_segmentation(labels)
    for value in range(4):
        mask = Image.fromarray((labels == value).astype(np.uint8))
        expected = mask.resize((new_width, new_height), Image.Resampling.NEAREST)
        assert np.array_equal(resized == value, np.asarray(expected, bool))


@given(side=SIDES)
def test_quarter_turn_is_exact(side):
    """The frame of the matrix has the image's corner, not its first pixel's centre, at (0, 0)."""
    turn = MirrorAffineTransform(np.array([[0.0, 1.0, 0.0], [-1.0, 0.0, side]]))
    image = noise(side, side)
    assert np.array_equal(turn.apply_image(image), np.rot90(image))
    labels = image[..., 0].astype(np.float32)
    assert np.array_equal(turn.apply_segmentation(labels), np.rot90(labels))
    assert turn.apply_coords(np.array([[0.0, 0.0]])).tolist() == [[0.0, side]]


@given(height=SIDES, width=SIDES)
def test_affine_without_turn_scale_and_shear_changes_nothing(height, width):
    image = noise(height, width)
    affine = RandomAffine(rotation_deg=0, scale=(1, 1), shear_deg=0)(T.AugInput(image.copy()))
    assert np.array_equal(affine.apply_image(image), image)
    labels = image[..., 0].astype(np.float32)
    assert np.array_equal(affine.apply_segmentation(labels), labels)
    points = np.array([[0.0, 0.0], [width, height]])
    assert affine.apply_coords(points) == pytest.approx(points)


def disk(shape, center_rc, radius):
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    return (rows + 0.5 - center_rc[0]) ** 2 + (columns + 0.5 - center_rc[1]) ** 2 <= radius**2


@pytest.mark.parametrize("draw", range(5))
def test_masks_lie_on_the_disks_after_turning_scaling_and_shearing(draw):
    np.random.seed(draw)  # noqa: NPY002
    shape = (120, 150)
    mask = disk(shape, (50, 70), 14) | disk(shape, (95, 30), 9)
    affine = RandomAffine(rotation_deg=180, scale=(0.7, 1.5), shear_deg=10)(
        T.AugInput(np.zeros((*shape, 3), np.uint8))
    )
    white = affine.apply_image(np.repeat(mask[..., None] * np.uint8(255), 3, axis=2))[..., 0]
    turned = affine.apply_segmentation(mask.astype(np.float32)) > 0
    within_a_px = ndimage.binary_dilation(turned) & ~ndimage.binary_erosion(turned)
    assert not ((white > 127) != turned)[~within_a_px].any()
    # The centre goes where coordinates go, to half a pixel.
    label = ndimage.label(turned)[0]
    [(x, y)] = affine.apply_coords(np.array([[70.0, 50.0]]))
    if 20 < x < 130 and 20 < y < 100:
        region = label == label[int(y), int(x)]
        assert np.mean(np.nonzero(region), axis=1) + 0.5 == pytest.approx([y, x], abs=0.5)


def test_mirrored_copy_of_an_instance_is_an_instance_of_its_own():
    layer = disk((60, 100), (30, 12), 6).astype(np.float32)
    shift = MirrorAffineTransform(np.array([[1.0, 0.0, 30.0], [0.0, 1.0, 0.0]]))
    indices, masks, _ = split_layers(
        [shift.apply_segmentation(layer)], size=(60, 100), by_region=True
    )
    assert indices.tolist() == [0, 0]
    expected = [disk((60, 100), (30, column), 6) for column in (18, 42)]
    assert sorted(mask.tolist() for mask in masks) == sorted(mask.tolist() for mask in expected)


def all_rgb(step):
    """An image of all colours of a grid in the RGB cube."""
    grid = np.arange(0, 256, step, dtype=np.uint8)
    return np.stack(np.meshgrid(grid, grid, grid), axis=-1).reshape(len(grid), -1, 3)


def test_unchanged_stains_give_every_colour_back():
    colours = all_rgb(5)
    changed = change_stains(colours, np.ones(3), np.zeros(3))
    assert np.abs(changed.astype(int) - colours).max() <= 1


def test_white_stays_white_under_any_stain():
    white = np.full((4, 4, 3), 255, np.uint8)
    for _ in range(20):
        [changed] = {tuple(c) for c in apply(RandomStain(1.0), white).reshape(-1, 3).tolist()}
        assert changed == (255, 255, 255)


def apply(augmentation, image):
    augmented = T.AugInput(image.copy())
    augmentation(augmented)
    return augmented.image


def test_more_haematoxylin_makes_nuclei_darker_and_bluer():
    nucleus = np.array([[[110, 80, 160]]], np.uint8)
    [[changed]] = change_stains(nucleus, np.array([1.4, 1.0, 1.0]), np.zeros(3)).astype(int)
    assert changed.sum() < nucleus.sum() - 20
    assert changed[2] / changed[0] > 160 / 110 + 0.1


def test_more_eosin_makes_cytoplasm_redder():
    cytoplasm = np.array([[[220, 150, 190]]], np.uint8)
    [[changed]] = change_stains(cytoplasm, np.array([1.0, 1.4, 1.0]), np.zeros(3)).astype(int)
    assert changed[0] / changed[1] > 220 / 150 + 0.1


@pytest.mark.parametrize("sigma", [0.6, 1.5])
def test_blur_is_gaussian_in_px(sigma):
    image = noise(40, 50)
    expected = ndimage.gaussian_filter(image.astype(float), (sigma, sigma, 0))
    blurred = apply(RandomBlur((sigma, sigma)), image)
    assert np.abs(blurred[6:-6, 6:-6] - expected[6:-6, 6:-6]).max() < 3


def test_blur_of_no_width_changes_nothing():
    image = noise(9, 9)
    assert np.array_equal(apply(RandomBlur((0.0, 0.0)), image), image)


@pytest.mark.parametrize(
    "augmentation", [RandomBlur((1.0, 2.0)), RandomStain(0.5), T.RandomBrightness(0.5, 0.6)]
)
def test_change_of_colour_leaves_labels_and_boxes_alone(augmentation):
    image = noise(20, 30)
    transform = augmentation(T.AugInput(image.copy()))
    assert not np.array_equal(transform.apply_image(image), image)
    labels = image[..., 0].astype(np.float32)
    assert np.array_equal(transform.apply_segmentation(labels), labels)
    assert transform.apply_box(np.array([[1.0, 2.0, 3.0, 4.0]])).tolist() == [[1, 2, 3, 4]]


class Note(T.Augmentation):
    """Writes down that it was applied."""

    def __init__(self, name, notes):
        super().__init__()
        self.name, self.notes = name, notes

    def get_transform(self, image):
        self.notes.append(self.name)
        return T.NoOpTransform()


def test_subset_is_of_any_size_equally_often_and_of_any_member_in_order():
    image = T.AugInput(np.zeros((2, 2, 3), np.uint8))
    notes = []
    subset = RandomSubset([Note(name, notes) for name in "abcd"], at_most=2)
    chosen = []
    for _ in range(3000):
        notes.clear()
        subset(image)
        chosen.append("".join(notes))
    sizes = np.bincount([len(names) for names in chosen])
    assert sizes / 3000 == pytest.approx([1 / 3] * 3, abs=0.05)
    assert all(list(names) == sorted(names) for names in chosen)
    members = [np.mean([name in names for names in chosen]) for name in "abcd"]
    assert members == pytest.approx([1 / 4] * 4, abs=0.05)  # (0 + 1 + 2) / 3 of 4


def build(*overrides):
    return build_train_augmentations(get_config("liver/mask_rcnn_R_50_FPN.yaml", overrides))


SWITCHED_OFF = {
    "INPUT.SCALE_JITTER": "(1.0, 1.0)",
    "INPUT.CROP.ENABLED": "False",
    "INPUT.AFFINE_PROBABILITY": "0.0",
    "INPUT.STAIN_PROBABILITY": "0.0",
    "INPUT.BRIGHTNESS": "(1.0, 1.0)",
    "INPUT.CONTRAST": "(1.0, 1.0)",
    "INPUT.BLUR_PROBABILITY": "0.0",
    "INPUT.AUGMENTATIONS_AT_MOST": "-1",
}
PLAIN = [word for setting in SWITCHED_OFF.items() for word in setting]


@pytest.mark.parametrize("shape", [(4, 4), (5, 8)])
def test_eight_orientations_are_equally_likely_and_exact(shape):
    image = noise(*shape)
    labels = image[..., 0].astype(np.float32)
    turned = [np.rot90(image, k) for k in range(4)]
    expected = [view.tobytes() for one in turned for view in (one, one[:, ::-1])]
    seen = []
    for _ in range(800):
        augmented = plain_input(image.copy())
        transforms = T.AugmentationList(build_orientations())(augmented)
        seen.append(expected.index(augmented.image.tobytes()))
        assert np.array_equal(transforms.apply_segmentation(labels), augmented.image[..., 0])
    assert np.bincount(seen, minlength=8) / 800 == pytest.approx([1 / 8] * 8, abs=0.05)


@functools.cache
def build_orientations():
    return build(*PLAIN)


def test_without_augmentations_the_image_is_as_it_was():
    image = noise(30, 40)
    augmentations = build(*PLAIN, "INPUT.RANDOM_ORIENTATION", "False")
    augmented = plain_input(image.copy())
    T.AugmentationList(augmentations)(augmented)
    assert np.array_equal(augmented.image, image)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("SCALE", "0.0", "expected a factor above 0"),
        ("MPP", "-0.5", "expected um/px, or 0 for none"),
        ("FORMAT", "YUV", "is YUV; expected RGB or BGR"),
        ("SCALE_JITTER", "(2.0, 1.0)", r"is \(2.0, 1.0\); expected \(min, max\)"),
        ("SCALE_JITTER", "(0.0, 1.0)", r"expected \(min, max\) with min above 0"),
        ("SCALE_JITTER", "(1.0,)", r"expected \(min, max\)"),
        ("BRIGHTNESS", "(0.0, 1.0)", r"is \(0.0, 1.0\)"),
        ("CONTRAST", "(-1.0, 1.0)", r"is \(-1.0, 1.0\)"),
        ("AFFINE_SCALE", "(0.0, 1.0)", r"is \(0.0, 1.0\)"),
        ("AFFINE_ROTATION_DEG", "-5.0", "expected a number from 0 to 180"),
        ("AFFINE_SHEAR_DEG", "90.0", "expected a number from 0 to 45"),
        ("AFFINE_PROBABILITY", "1.5", "expected a number from 0 to 1"),
        ("STAIN_PROBABILITY", "-0.1", "expected a number from 0 to 1"),
        ("STAIN_STRENGTH", "2.0", "expected a number from 0 to 1"),
        ("BLUR_PROBABILITY", "7.0", "expected a number from 0 to 1"),
        ("BLUR_SIGMA_PX", "(2.0, 1.0)", r"expected \(min, max\) with 0 <= min <= max"),
        ("CROP_ON_INSTANCE", "1.1", "expected a number from 0 to 1"),
        ("CROP.TYPE", "relative", "is 'relative'; crops are given in px"),
        ("CROP.SIZE", "[0, 100]", r"is \(0, 100\); expected \[height, width\] in whole px"),
        ("CROP.SIZE", "[0.5, 0.5]", r"expected \[height, width\] in whole px"),
        ("CROP.SIZE", "[100]", r"expected \[height, width\] in whole px"),
    ],
)
def test_setting_that_makes_no_sense_is_an_error(key, value, message):
    with pytest.raises(InputError, match=rf"INPUT\.{key} .*{message}"):
        build(f"INPUT.{key}", value)
