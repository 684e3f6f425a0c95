"""The script for a user's own images and masks, as a user runs it."""

import numpy as np
import pytest
from PIL import Image

from steatosis_d2.data.coco import read_coco
from steatosis_d2.instances.rle import decode_mask

SCRIPT = "datasets/prepare_masks.py"
NAMES = ("s1_a", "s1_b", "s2_a", "s3_a")

# Three instances: two that touch, and one apart.
LABELS = np.zeros((30, 40), np.uint16)
LABELS[2:10, 2:10], LABELS[2:10, 10:20], LABELS[20:25, 30:38] = 1, 2, 700


def save(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def images(tmp_path):
    """Folder of four images, of every kind that has to become 8-bit RGB."""
    folder = tmp_path / "images"
    save(folder / "s1_a.jpg", np.full((30, 40, 3), 120, np.uint8))
    save(folder / "s1_b.png", np.full((30, 40, 4), 120, np.uint8))
    save(folder / "s2_a.tif", np.full((30, 40), 65535, np.uint16))
    save(folder / "s3_a.png", np.full((30, 40), 120, np.uint8))
    return folder


@pytest.fixture
def prepare(tmp_path, images, run_script):
    """Function that runs the script on the images and returns the process."""

    def run(*options):
        arguments = ["--images", images, "--masks", tmp_path / "masks"]
        return run_script(SCRIPT, *arguments, "--output", tmp_path / "out", *options)

    return run


def contents(tmp_path):
    return [
        read_coco(tmp_path / "out" / "annotations" / f"instances_{split}.json")
        for split in ("train", "val", "test")
    ]


def masks_of_each_image(tmp_path):
    """File name -> instance masks, over all splits."""
    masks = {}
    for content in contents(tmp_path):
        names = {image["id"]: image["file_name"] for image in content["images"]}
        masks |= {name: [] for name in names.values()}
        for record in content["annotations"]:
            masks[names[record["image_id"]]].append(decode_mask(record["segmentation"]))
    return masks


def test_folder_of_masks(tmp_path, prepare):
    for name in NAMES[:3]:
        for number, label in enumerate((1, 2, 700)):
            save(tmp_path / "masks" / name / f"{number}.png", (label == LABELS).astype(np.uint8))
    (tmp_path / "masks" / "s3_a").mkdir()
    process = prepare()
    assert process.returncode == 0, process.stderr
    assert "layout of the masks: folder (detected)" in process.stderr
    masks = masks_of_each_image(tmp_path)
    assert {name: len(found) for name, found in masks.items()} == {
        "s1_a.png": 3,
        "s1_b.png": 3,
        "s2_a.png": 3,
        "s3_a.png": 0,
    }
    assert np.array_equal(masks["s2_a.png"][2], LABELS == 700)


def test_label_images(tmp_path, prepare):
    for name in NAMES:
        save(tmp_path / "masks" / f"{name}.png", LABELS)
    process = prepare("--mpp", "0.5", "--category", "nucleus")
    assert process.returncode == 0, process.stderr
    assert "layout of the masks: labels (detected)" in process.stderr
    for found in masks_of_each_image(tmp_path).values():
        assert [int(mask.sum()) for mask in found] == [64, 80, 40]
    for content in contents(tmp_path):
        assert content["categories"] == [{"id": 1, "name": "nucleus"}]
        assert {image["mpp"] for image in content["images"]} <= {0.5}


def test_binary_images_join_what_touches(tmp_path, prepare):
    for name in NAMES:
        save(tmp_path / "masks" / f"{name}.tif", np.where(LABELS, 255, 0).astype(np.uint8))
    process = prepare()
    assert process.returncode == 0, process.stderr
    assert "layout of the masks: binary (detected)" in process.stderr
    for found in masks_of_each_image(tmp_path).values():
        assert [int(mask.sum()) for mask in found] == [144, 40]


def test_layout_that_could_be_either_must_be_stated(tmp_path, prepare):
    for name in NAMES:
        save(tmp_path / "masks" / f"{name}.png", (LABELS > 0).astype(np.uint8))
    process = prepare()
    assert process.returncode == 1
    assert "--layout labels or --layout binary" in process.stderr
    assert not (tmp_path / "out").exists()
    process = prepare("--layout", "binary")
    assert process.returncode == 0, process.stderr
    assert "binary (as stated)" in process.stderr
    assert all(len(found) == 2 for found in masks_of_each_image(tmp_path).values())


def test_case_pattern_keeps_a_case_in_one_split(tmp_path, prepare):
    for name in NAMES:
        save(tmp_path / "masks" / f"{name}.png", LABELS)
    assert prepare("--case-pattern", "^[^_]+").returncode == 0
    cases = [
        {image["file_name"][:2] for image in content["images"]} for content in contents(tmp_path)
    ]
    assert sorted(map(sorted, cases)) == [["s1"], ["s2"], ["s3"]]


def test_case_pattern_that_is_no_regular_expression(prepare):
    process = prepare("--case-pattern", "(")
    assert process.returncode == 2
    assert "no regular expression" in process.stderr


def test_every_bad_file_is_named(tmp_path, prepare, images):
    for name in NAMES[:3]:
        save(tmp_path / "masks" / f"{name}.png", LABELS)
    save(tmp_path / "masks" / "s1_b.png", LABELS.T)
    (images / "s2_a.tif").write_bytes(b"II*\0")
    process = prepare("--fractions", "1", "0", "0")
    assert process.returncode == 1
    for text in (
        "3 images were left out",
        "s1_b.png' has 40 x 30 px",
        "s2_a.tif' cannot be read",
        "s3_a.png' does not exist",
    ):
        assert text in process.stderr
    assert list(masks_of_each_image(tmp_path)) == ["s1_a.png"]


def test_two_images_of_one_name_stop_before_writing(tmp_path, prepare, images):
    save(images / "s3_a.jpg", np.zeros((30, 40), np.uint8))
    (tmp_path / "masks").mkdir()
    process = prepare()
    assert process.returncode == 1
    assert "share the name 's3_a'" in process.stderr
    assert not (tmp_path / "out").exists()


def test_output_onto_the_source_is_refused(tmp_path, images, run_script):
    for name in NAMES:
        save(tmp_path / "masks" / f"{name}.png", LABELS)
    before = {path.name: path.read_bytes() for path in images.iterdir()}
    process = run_script(
        SCRIPT, "--images", images, "--masks", tmp_path / "masks", "--output", tmp_path
    )
    assert process.returncode == 1
    assert "choose another --output" in process.stderr
    assert {path.name: path.read_bytes() for path in images.iterdir()} == before


@pytest.mark.slow
def test_30000_instances_are_written_and_read(tmp_path, run_script):
    """The size of a real training set: 3,000 instances in each of ten label images."""
    labels = np.zeros((300, 500), np.uint16)
    labels[::5, ::10] = labels[1::5, 1::10] = labels[::5, 1::10] = np.arange(1, 3001).reshape(
        60, 50
    )
    for number in range(10):
        save(tmp_path / "images" / f"{number}.png", np.zeros((300, 500), np.uint8))
        save(tmp_path / "masks" / f"{number}.png", labels)
    process = run_script(
        SCRIPT,
        *("--images", tmp_path / "images", "--masks", tmp_path / "masks"),
        *("--output", tmp_path / "out", "--fractions", "1", "0", "0"),
    )
    assert process.returncode == 0, process.stderr
    train, *_ = contents(tmp_path)
    assert [record["id"] for record in train["annotations"]] == list(range(1, 30001))
    assert {record["area"] for record in train["annotations"]} == {3}
    assert train["annotations"][-1]["bbox"] == [490, 295, 2, 2]
