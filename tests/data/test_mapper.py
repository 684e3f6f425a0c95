import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog
from scipy import ndimage

from steatosis_d2.data.augmentation import RandomAffine
from steatosis_d2.data.mapper import InstanceMapper
from steatosis_d2.errors import InputError
from steatosis_d2.model_zoo import get_config


@pytest.fixture
def records(disks):
    spec = f"coco:{disks}/annotations.json:{disks}/images"
    get_config("liver/starter.yaml", ["DATASETS.TRAIN", f"('{spec}',)"])
    return DatasetCatalog.get(spec)


def starter_mapper(*overrides, is_train=True):
    return InstanceMapper(get_config("liver/starter.yaml", overrides), is_train=is_train)


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


def test_contrast_is_stretched_in_training_and_left_to_the_model_at_test(records):
    percentiles = ("INPUT.STRETCH", "[0, 100]")
    crop_alone = [
        *("INPUT.AUGMENTATIONS_AT_MOST", "0", "INPUT.CROP.SIZE", "(384, 384)"),
        *("INPUT.SCALE", "1.0", "INPUT.SCALE_JITTER", "(1.0, 1.0)"),
    ]
    given = starter_mapper(*crop_alone)(records[0])["image"]
    trained_on = starter_mapper(*crop_alone, *percentiles)(records[0])["image"]
    assert (given.min(), given.max()) != (0, 255)
    assert (trained_on.min(), trained_on.max()) == (0, 255)
    evaluated_on = starter_mapper(*percentiles, is_train=False)(records[0])["image"]
    assert torch.equal(evaluated_on, starter_mapper(is_train=False)(records[0])["image"])


def test_record_is_left_as_it_was(records):
    before = [dict(annotation) for annotation in records[0]["annotations"]]
    starter_mapper()(records[0])
    assert records[0]["annotations"] == before


@pytest.mark.parametrize(("ignore_areas", "classes"), [("True", [-1, 0]), ("False", [0])])
def test_crowd_region_is_an_area_to_ignore_or_background(ignore_areas, classes, records):
    crowd, droplet = records[0]["annotations"][:2]
    record = dict(records[0], annotations=[dict(crowd, iscrowd=1), droplet])
    settings = ["INPUT.SCALE_JITTER", "(1.0, 1.0)", "INPUT.AFFINE_PROBABILITY", "0.0"]
    mapper = starter_mapper(*settings, "INPUT.IGNORE_AREAS", ignore_areas)
    assert mapper(record)["instances"].gt_classes.tolist() == classes


def test_crops_are_not_drawn_for_the_sake_of_an_area_to_ignore(records):
    """Where all instances are crowd regions, a crop on an instance is any crop."""
    crowds = [dict(annotation, iscrowd=1) for annotation in records[0]["annotations"]]
    settings = ["INPUT.CROP.SIZE", "[32, 32]", "INPUT.CROP_ON_INSTANCE", "1.0"]
    settings += ["INPUT.SCALE_JITTER", "(1.0, 1.0)", "INPUT.AFFINE_PROBABILITY", "0.0"]
    mapper = starter_mapper(*settings)
    np.random.seed(0)  # noqa: NPY002
    counts = [len(mapper(dict(records[0], annotations=crowds))["instances"]) for _ in range(30)]
    assert min(counts) == 0


def test_polygons_are_masks_too(records):
    square = {
        "bbox": [10, 10, 20, 20],
        "bbox_mode": 1,
        "category_id": 0,
        "segmentation": [[10, 10, 30, 10, 30, 30, 10, 30]],
    }
    settings = ["INPUT.SCALE_JITTER", "(1.0, 1.0)", "INPUT.AFFINE_PROBABILITY", "0.0"]
    result = starter_mapper(*settings)(dict(records[0], annotations=[square]))
    assert result["instances"].gt_masks.tensor.sum() == 400


def test_image_of_another_size_than_stated_is_an_error(records):
    with pytest.raises(InputError, match=r"tile_1.png' is 128 x 96 px, its .* for 128 x 50 px"):
        starter_mapper()(dict(records[0], height=50))


def test_image_of_known_pixel_size_is_brought_to_the_networks(records):
    settings = ["INPUT.MPP", "0.33", "INPUT.SCALE", "1.0", "INPUT.SCALE_JITTER", "(1.0, 1.0)"]
    mapper = starter_mapper(*settings, "INPUT.RANDOM_ORIENTATION", "False")
    mapper.augmentations.augs = mapper.augmentations.augs[:1]  # the crop, which resizes
    sizes = [tuple(mapper(records[0] | extra)["image"].shape) for extra in ({}, {"mpp": 0.66})]
    assert sizes == [(3, 96, 128), (3, 192, 256)]
    half = mapper(records[0] | {"mpp": 0.165})["instances"]
    assert half.image_size == (48, 64)
    whole = mapper(records[0])["instances"]
    areas = [one.gt_masks.tensor.sum(dim=(1, 2)) for one in (half, whole)]
    assert (4 * areas[0] / areas[1]).tolist() == pytest.approx([1, 1, 1], rel=0.15)


def test_what_is_mirrored_in_from_beyond_the_border_is_outlined_too(records):
    mapper = InstanceMapper(
        is_train=True,
        augmentations=[RandomAffine(rotation_deg=0, scale=(0.5, 0.5), shear_deg=0)],
        image_format="RGB",
        scale=1.0,
        network_mpp=0.0,
    )
    result = mapper(records[0])
    white = result["image"][1].numpy() > 180
    masks = result["instances"].gt_masks.tensor.numpy()
    assert len(masks) == ndimage.label(white, np.ones((3, 3)))[1] > 3
    assert masks.sum(axis=0).max() == 1
    assert (masks.any(axis=0) != white).mean() < 0.02


@pytest.mark.parametrize(
    ("segmentation", "message"),
    [
        ({"size": [96, 100], "counts": [9600]}, r"size \[96, 100\]; expected \[96, 128\]"),
        ({"size": [96, 128], "counts": [100]}, "do not add up to 96 x 128 px"),
        (None, "neither a COCO run-length code nor"),
    ],
)
def test_unsound_mask_names_its_image(segmentation, message, records):
    annotation = dict(records[0]["annotations"][0], segmentation=segmentation)
    with pytest.raises(InputError, match=rf"image '.*tile_1.png': .*{message}.* Prepare the data"):
        starter_mapper()(dict(records[0], annotations=[annotation]))
