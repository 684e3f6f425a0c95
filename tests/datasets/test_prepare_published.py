"""The scripts for the published data sets, as a user runs them."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from steatosis_d2.data.coco import read_coco
from steatosis_d2.instances.rle import decode_mask

GUO2019 = "datasets/prepare_guo2019.py"
TORINO = "datasets/prepare_torino.py"
BBBC038 = "datasets/prepare_bbbc038.py"


def save(path, pixels, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)


def disk_mask(centre_rc, radius_px, side_px=40):
    rows, columns = np.indices((side_px, side_px))
    distance_px = np.hypot(rows - centre_rc[0], columns - centre_rc[1])
    return np.where(distance_px <= radius_px, 255, 0).astype(np.uint8)


DISKS = disk_mask((10, 10), 5), disk_mask((28, 26), 8)
BLANK = np.zeros((40, 40), np.uint8)
SWAPPED_PINK = np.full((40, 40, 3), (180, 98, 210), np.uint8)


@pytest.fixture
def guo2019(tmp_path):
    """Two slides: one with two droplets, one of blank glass."""
    source = tmp_path / "guo"
    for name, masks in (("140_1_2_2000_0_0", DISKS), ("158_1_2_2000_0_0", [BLANK])):
        save(source / name / "image" / f"{name}.png", SWAPPED_PINK)
        for number, mask in enumerate(masks, start=1):
            save(source / name / "masks" / f"{number}.png", mask)
    return source


@pytest.fixture
def torino(tmp_path):
    """Three cases, one of them with two tiles; the tile 3_1 has no droplet."""
    source = tmp_path / "torino"
    both = np.maximum(*DISKS)
    for name, mask in (("1_1", both), ("1_2", DISKS[0]), ("2_1", both), ("3_1", BLANK)):
        save(source / "image" / f"{name}.webp", SWAPPED_PINK, lossless=True)
        save(source / "manual" / f"{name}.png", mask > 0)
    return source


@pytest.fixture
def bbbc038(tmp_path):
    """A zip file with two RGBA images of two nuclei each, in a top-level folder."""
    for name in ("a", "b"):
        home = tmp_path / "fixes" / "stage1_train" / name
        save(home / "images" / f"{name}.png", np.full((40, 40, 4), (9, 9, 9, 255), np.uint8))
        for number, mask in enumerate(DISKS):
            save(home / "masks" / f"{number}.png", mask)
    return Path(shutil.make_archive(tmp_path / "stage1_train", "zip", tmp_path / "fixes"))


def prepared(folder):
    return {
        split: read_coco(folder / "annotations" / f"instances_{split}.json")
        for split in ("train", "val", "test")
    }


def files_in(folder):
    """Relative path -> bytes."""
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder): path.read_bytes() for path in paths}


def counts(folder):
    """Split -> numbers of images and of instances."""
    return {
        split: (len(content["images"]), len(content["annotations"]))
        for split, content in prepared(folder).items()
    }


# ---- Guo et al. 2019


def test_guo2019_colours_and_masks(tmp_path, guo2019, run_script):
    output = tmp_path / "out"
    process = run_script(
        GUO2019, "--source", guo2019, "--output", output, "--fractions", "1", "0", "0"
    )
    assert process.returncode == 0, process.stderr
    assert "swapped back" in process.stderr
    assert counts(output) == {"train": (2, 2), "val": (0, 0), "test": (0, 0)}
    content = prepared(output)["train"]
    first, blank = content["images"]
    with Image.open(output / "images" / first["file_name"]) as image:
        assert image.getpixel((0, 0)) == (210, 98, 180)
    assert {record["image_id"] for record in content["annotations"]} == {first["id"]}
    for record, disk in zip(content["annotations"], DISKS, strict=True):
        assert np.array_equal(decode_mask(record["segmentation"]), disk > 0)
    assert "mpp" not in first and blank["file_name"] == "158_1_2_2000_0_0.png"


def test_guo2019_pixel_size_from_the_user(tmp_path, guo2019, run_script):
    output = tmp_path / "out"
    run_script(GUO2019, "--source", guo2019, "--output", output, "--mpp", "0.25")
    images = [image for content in prepared(output).values() for image in content["images"]]
    assert [image["mpp"] for image in images] == [0.25, 0.25]


@pytest.mark.parametrize("mpp", ["0", "-0.25", "nan", "inf", "20x"])
def test_pixel_size_that_is_none_is_a_usage_error(tmp_path, run_script, mpp):
    process = run_script(GUO2019, "--source", tmp_path, f"--mpp={mpp}")
    assert process.returncode == 2
    assert "expected um/px" in process.stderr


# ---- Torino


def test_torino_splits_file_in_the_source_is_the_default(tmp_path, torino, run_script):
    splits = {"train": ["1_1", "1_2"], "val": ["2_1", "3_1"]}
    (torino / "splits.json").write_text(json.dumps(splits))
    process = run_script(TORINO, "--source", torino, "--output", tmp_path / "out")
    assert process.returncode == 0, process.stderr
    assert str(torino / "splits.json") in process.stderr
    assert counts(tmp_path / "out") == {"train": (2, 3), "val": (2, 2), "test": (0, 0)}


def test_torino_without_splits_keeps_cases_whole(tmp_path, torino, run_script):
    run_script(TORINO, "--source", torino, "--output", tmp_path / "out")
    splits = {
        split: {image["file_name"].partition("_")[0] for image in content["images"]}
        for split, content in prepared(tmp_path / "out").items()
    }
    assert sorted(map(len, splits.values())) == [1, 1, 1]
    assert set.union(*splits.values()) == {"1", "2", "3"}


def test_torino_case_in_two_splits_stops_before_writing(tmp_path, torino, run_script):
    (tmp_path / "s.json").write_text(json.dumps({"train": ["1_1", "2_1"], "val": ["1_2"]}))
    process = run_script(
        TORINO, "--source", torino, "--output", tmp_path / "out", "--splits", tmp_path / "s.json"
    )
    assert process.returncode == 1
    assert "case '1' in two splits: '1_1' in train, '1_2' in val" in process.stderr
    assert not (tmp_path / "out").exists()


def test_torino_bad_tiles_are_all_named_and_the_rest_is_written(tmp_path, torino, run_script):
    (torino / "manual" / "1_1.png").unlink()
    save(torino / "manual" / "2_1.png", np.zeros((20, 40), bool))
    process = run_script(
        TORINO, "--source", torino, "--output", tmp_path / "out", "--fractions", "1", "0", "0"
    )
    assert process.returncode == 1
    assert "2 images were left out" in process.stderr
    assert "1_1.png' does not exist" in process.stderr
    assert "2_1.png' has 20 x 40 px (rows x columns), its image 40 x 40" in process.stderr
    assert counts(tmp_path / "out")["train"] == (2, 1)


# ---- BBBC038


def test_bbbc038_from_a_zip_file(tmp_path, bbbc038, run_script):
    output = tmp_path / "out"
    process = run_script(
        BBBC038, "--source", bbbc038, "--output", output, "--fractions", "1", "0", "0"
    )
    assert process.returncode == 0, process.stderr
    content = prepared(output)["train"]
    assert content["categories"] == [{"id": 1, "name": "nucleus"}]
    assert counts(output)["train"] == (2, 4)
    with Image.open(output / "images" / "a.png") as image:
        assert image.mode == "RGB"
    assert np.array_equal(decode_mask(content["annotations"][3]["segmentation"]), DISKS[1] > 0)


def test_bbbc038_extracted_folder_gives_the_same_bytes(tmp_path, bbbc038, run_script):
    run_script(BBBC038, "--source", bbbc038, "--output", tmp_path / "a")
    run_script(BBBC038, "--source", tmp_path / "fixes", "--output", tmp_path / "b")
    assert files_in(tmp_path / "a") == files_in(tmp_path / "b")


def test_bbbc038_half_downloaded_zip(tmp_path, bbbc038, run_script):
    half = tmp_path / "half.zip"
    half.write_bytes(bbbc038.read_bytes()[:1000])
    process = run_script(BBBC038, "--source", half, "--output", tmp_path / "out")
    assert process.returncode == 1
    assert f"'{half}' is neither a folder nor a whole zip file" in process.stderr


def test_output_that_cannot_be_written(tmp_path, bbbc038, run_script):
    (tmp_path / "out").write_text("a file where the folder should be")
    process = run_script(BBBC038, "--source", bbbc038, "--output", tmp_path / "out")
    assert process.returncode == 1
    assert str(tmp_path / "out") in process.stderr


# ---- the real data


@pytest.mark.slow
def test_real_guo2019(tmp_path, shared_data, run_script):
    source = shared_data / "guo2019_liver"
    process = run_script(
        GUO2019, "--source", source, "--output", tmp_path, "--fractions", "0", "0", "1"
    )
    assert process.returncode == 0, process.stderr
    assert counts(tmp_path) == {"train": (0, 0), "val": (0, 0), "test": (8, 338)}
    assert "2 of them without a droplet" in process.stderr
    pixels = np.asarray(Image.open(tmp_path / "images" / "140_10189_5493_2000_0_976.png"))
    red, green, blue = np.median(pixels[pixels[..., 1] < 180], axis=0)
    assert red > blue > green  # pink tissue; as published, it is purple


@pytest.mark.slow
def test_real_torino(tmp_path, shared_data, run_script):
    process = run_script(TORINO, "--source", shared_data / "torino_liver", "--output", tmp_path)
    assert process.returncode == 0, process.stderr
    assert counts(tmp_path) == {"train": (366, 7468), "val": (68, 1641), "test": (0, 0)}
    blank = [
        len(content["images"]) - len({record["image_id"] for record in content["annotations"]})
        for content in prepared(tmp_path).values()
    ]
    assert sum(blank) == 60


@pytest.mark.slow
def test_real_bbbc038(tmp_path, shared_data, run_script):
    source = shared_data / "bbbc038" / "stage1_train.zip"
    process = run_script(BBBC038, "--source", source, "--output", tmp_path)
    assert process.returncode == 0, process.stderr
    assert counts(tmp_path) == {"train": (540, 23732), "val": (60, 2198), "test": (0, 0)}
