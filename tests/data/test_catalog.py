import json

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog

from steatosis_d2.data.catalog import PREPARED_DATASETS
from steatosis_d2.data.splits import SPLITS
from steatosis_d2.errors import InputError
from steatosis_d2.model_zoo import get_config


def load(spec):
    get_config("liver/starter.yaml", ["DATASETS.TRAIN", f"('{spec}',)"])
    return DatasetCatalog.get(spec)


def test_all_splits_of_our_datasets_are_registered():
    names = {f"{dataset}_{split}" for dataset in PREPARED_DATASETS for split in SPLITS}
    assert len(names) == 15
    assert names <= set(DatasetCatalog.list())


def test_unprepared_dataset_names_the_command_that_prepares_it():
    with pytest.raises(
        InputError, match=r"prepare_torino.py --source DIR_OR_ZIP --output \S+torino"
    ):
        DatasetCatalog.get("liver_torino_test")


def test_coco_file_is_named_in_the_config_alone(disks):
    spec = f"coco:{disks}/annotations.json:{disks}/images"
    records = load(spec)
    assert [len(record["annotations"]) for record in records] == [3, 3, 3, 3, 0]
    assert records[0]["file_name"] == f"{disks}/images/tile_1.png"
    assert MetadataCatalog.get(spec).thing_classes == ["droplet"]


def describe_first_image(disks, **extras):
    """A spec of the disks whose first image has more to say."""
    content = json.loads((disks / "annotations.json").read_text())
    content["images"][0] |= extras
    (disks / "described.json").write_text(json.dumps(content))
    return f"coco:{disks}/described.json:{disks}/images"


def test_pixel_size_and_group_reach_the_record(disks):
    first, second, *_ = load(describe_first_image(disks, mpp=0.25, group="fluorescence"))
    assert (first["mpp"], first["group"]) == (0.25, "fluorescence")
    assert not {"mpp", "group"} & second.keys()


@pytest.mark.parametrize("mpp", [0, -0.25, "0.25"])
def test_pixel_size_that_is_no_length_is_an_error(mpp, disks):
    message = r"image 'tile_1.png' has the pixel size .*; expected um/px"
    with pytest.raises(InputError, match=message):
        load(describe_first_image(disks, mpp=mpp))


def test_coco_file_of_the_test_set_is_registered_too(disks):
    spec = f"coco:{disks}/annotations.json:{disks}/images"
    get_config("liver/starter.yaml", ["DATASETS.TEST", f"('{spec}',)"])
    assert spec in DatasetCatalog


@pytest.mark.parametrize("spec", ["coco:annotations.json", "coco::images", "coco:a.json:"])
def test_spec_without_two_paths_is_an_error(spec):
    with pytest.raises(InputError, match=r"expected 'coco:ANNOTATIONS:IMAGES'"):
        get_config("liver/starter.yaml", ["DATASETS.TRAIN", f"('{spec}',)"])


def test_missing_annotation_file_is_an_error(tmp_path):
    with pytest.raises(InputError, match=r"there is no file '\S+/no.json'. Check the path"):
        load(f"coco:{tmp_path}/no.json:{tmp_path}")


def test_missing_images_are_counted_and_the_first_is_named(disks):
    (disks / "images/tile_2.png").unlink()
    (disks / "images/tile_4.png").unlink()
    with pytest.raises(InputError, match=r"2 of 5 images are not in .* first is 'tile_2.png'"):
        load(f"coco:{disks}/annotations.json:{disks}/images")


def test_coco_file_without_images_is_an_error(disks):
    path = disks / "empty.json"
    path.write_text(json.dumps({"images": [], "annotations": [], "categories": []}))
    with pytest.raises(InputError, match=r"empty.json' has no images in it"):
        load(f"coco:{path}:{disks}/images")


def test_annotation_of_an_unknown_image_is_an_error(disks):
    content = json.loads((disks / "annotations.json").read_text())
    content["annotations"][3]["image_id"] = 77
    path = disks / "foreign.json"
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"annotation 4 belongs to image 77"):
        load(f"coco:{path}:{disks}/images")


@pytest.mark.parametrize("category", [7, "7"])
def test_annotation_of_an_unknown_category_is_named(disks, category):
    content = json.loads((disks / "annotations.json").read_text())
    content["annotations"][1]["category_id"] = category
    (disks / "odd.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=rf"annotation 2 has the category {category!r}, .*\[1\]"):
        load(f"coco:{disks}/odd.json:{disks}/images")
