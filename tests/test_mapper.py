import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog

from steatosis_d2.config import load_config
from steatosis_d2.data.augmentation import RandomScaledCrop, ScaledInput, build_train_augmentations
from steatosis_d2.data.mapper import InstanceMapper
from steatosis_d2.errors import InputError


@pytest.fixture
def records(disks):
    spec = f"coco:{disks}/annotations.json:{disks}/images"
    load_config("liver/starter.yaml", ["DATASETS.TRAIN", f"('{spec}',)"])
    return DatasetCatalog.get(spec)


def starter_mapper(*overrides, is_train=True):
    return InstanceMapper(load_config("liver/starter.yaml", overrides), is_train=is_train)


@pytest.mark.parametrize("seed", range(8))
def test_masks_and_boxes_follow_the_image(records, seed):
    """Whatever the augmentation, masks lie on the white disks and boxes are tight."""
    np.random.seed(seed)  # noqa: NPY002  (Detectron2's augmentations draw from it)
    result = starter_mapper("INPUT.BRIGHTNESS", "(1.0, 1.0)")(records[seed % 4])
    instances = result["instances"]
    white = result["image"][1].numpy() > 180
    union = instances.gt_masks.tensor.any(dim=0).numpy()
    assert (union != white).mean() < 0.02  # the rim, where resizing blurs
    for mask, box in zip(instances.gt_masks.tensor, instances.gt_boxes.tensor, strict=True):
        rows, columns = np.nonzero(mask.numpy())
        assert box.tolist() == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


def test_instances_outside_the_crop_are_left_out(records):
    settings = ["INPUT.CROP.SIZE", "[32, 32]", "INPUT.SCALE_JITTER", "(1.0, 1.0)"]
    np.random.seed(0)  # noqa: NPY002
    results = [starter_mapper(*settings)(records[0]) for _ in range(20)]
    assert {tuple(result["image"].shape) for result in results} == {(3, 32, 32)}
    counts = [len(result["instances"]) for result in results]
    assert min(counts) == 0
    assert max(counts) < 3
    for result in results:
        if len(result["instances"]):
            assert result["instances"].gt_masks.tensor.flatten(1).any(dim=1).all()


def test_blank_image_has_no_instances(records):
    assert len(starter_mapper()(records[4])["instances"]) == 0


def test_evaluation_sees_the_image_as_it_is_in_the_networks_channel_order(records):
    rgb = starter_mapper(is_train=False)(records[0])
    bgr = starter_mapper("INPUT.FORMAT", "BGR", is_train=False)(records[0])
    assert rgb["image"].shape == (3, 96, 128)
    assert "annotations" not in rgb
    assert torch.equal(rgb["image"], bgr["image"].flip(0))
    assert rgb["image"][:, 0, 0].tolist() == [200, 120, 170]


def test_record_is_left_as_it_was(records):
    before = [dict(annotation) for annotation in records[0]["annotations"]]
    starter_mapper()(records[0])
    assert records[0]["annotations"] == before


def test_crowd_regions_are_not_trained_on(records):
    record = dict(records[0], annotations=[dict(records[0]["annotations"][0], iscrowd=1)])
    assert len(starter_mapper()(record)["instances"]) == 0


def test_polygons_are_masks_too(records):
    square = {
        "bbox": [10, 10, 20, 20],
        "bbox_mode": 1,
        "category_id": 0,
        "segmentation": [[10, 10, 30, 10, 30, 30, 10, 30]],
    }
    settings = ["INPUT.SCALE_JITTER", "(1.0, 1.0)", "INPUT.RANDOM_ORIENTATION", "False"]
    result = starter_mapper(*settings)(dict(records[0], annotations=[square]))
    assert result["instances"].gt_masks.tensor.sum() == 400


def test_image_of_another_size_than_stated_is_an_error(records):
    with pytest.raises(InputError, match=r"tile_1.png' is 128 x 96 px, its .* for 128 x 50 px"):
        starter_mapper()(dict(records[0], height=50))


def plain_input(image, scale=1.0):
    return ScaledInput(image, scale=scale, boxes=np.zeros((0, 4)))


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
    np.random.seed(0)  # noqa: NPY002
    augmentation = RandomScaledCrop((0.5, 2.0), (1000, 1000))
    image = np.zeros((100, 100, 3), np.uint8)
    sizes = [augmentation(plain_input(image)).apply_image(image).shape[0] for _ in range(400)]
    assert 50 <= min(sizes) <= max(sizes) <= 200
    assert 0.4 < np.mean(np.array(sizes) < 100) < 0.6


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["INPUT.SCALE_JITTER", "(2.0, 1.0)"],
            r"SCALE_JITTER is \(2.0, 1.0\); expected \(min, max\)",
        ),
        (["INPUT.BRIGHTNESS", "(0.0, 1.0)"], r"BRIGHTNESS is \(0.0, 1.0\)"),
        (["INPUT.CROP.TYPE", "relative"], r"CROP.TYPE is 'relative'; crops are given in px"),
    ],
)
def test_bad_augmentation_settings_are_errors(overrides, message):
    with pytest.raises(InputError, match=message):
        build_train_augmentations(load_config("liver/starter.yaml", overrides))
