"""Kinds of microscopy, on drawn images and on those of BBBC038."""

import csv
import json

import numpy as np
import pytest

from steatosis_d2.data.microscopy import (
    BRIGHT_FIELD,
    FLUORESCENCE,
    HISTOLOGY,
    is_dark_field,
    tell_microscopy,
)


def image_of(background, nuclei):
    image = np.full((64, 64, 3), background, np.uint8)
    image[20:40, 20:40] = nuclei
    return image


@pytest.mark.parametrize(
    ("background", "nuclei", "kind"),
    [
        ((5, 5, 5), (120, 120, 120), FLUORESCENCE),
        ((170, 170, 170), (60, 60, 60), BRIGHT_FIELD),
        ((240, 235, 245), (90, 60, 150), HISTOLOGY),
        ((170, 120, 190), (80, 40, 120), HISTOLOGY),
    ],
)
def test_kind_follows_from_colour_and_background(background, nuclei, kind):
    assert tell_microscopy(image_of(background, nuclei)) == kind


def test_a_coloured_dark_field_is_one_too():
    blue = np.zeros((8, 8, 3), np.uint8)
    blue[..., 2] = 60
    assert is_dark_field(blue)
    assert not is_dark_field(255 - blue)


@pytest.mark.slow
def test_kinds_of_bbbc038_reach_the_table(shared_data, tmp_path, run_script):
    """One image of each kind: into the COCO file, and into the per-image table."""
    names = {
        FLUORESCENCE: "00071198d059ba7f5914a526d124d28e6d010c92466da21d4a04cd5413362552",
        BRIGHT_FIELD: "08275a5b1c2dfcd739e8c4888a5ee2d29f83eccfa75185404ced1dc0866ea992",
        HISTOLOGY: "01d44a26f6680c42ba94c9bc6339228579a95d0e2695b149b7cc0c9592b21baf",
    }
    splits = {"train": [], "val": sorted(names.values()), "test": []}
    (tmp_path / "splits.json").write_text(json.dumps(splits))
    source = shared_data / "bbbc038" / "stage1_train.zip"
    options = ["--splits", tmp_path / "splits.json", "--output", tmp_path / "data"]
    assert run_script("datasets/prepare_bbbc038.py", "--source", source, *options).returncode == 0
    truth = tmp_path / "data" / "annotations" / "instances_val.json"
    images = json.loads(truth.read_text())["images"]
    expected = {f"{name}.png": kind for kind, name in names.items()}
    assert {image["file_name"]: image["group"] for image in images} == expected
    table = tmp_path / "images.csv"
    options = ["--ground-truth", truth, "--predictions", truth, "--per-image", table]
    assert run_script("tools/evaluate.py", *options).returncode == 0
    with table.open() as file:
        assert {row["file_name"]: row["group"] for row in csv.DictReader(file)} == expected
