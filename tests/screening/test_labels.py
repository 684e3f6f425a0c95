"""The file of labels that is screened, and its images."""

import json

import numpy as np
import pytest
from screening_actions import HEIGHT, WIDTH, write_labels_file

from steatosis_d2.errors import InputError
from steatosis_d2.instances.rle import encode_mask
from steatosis_d2.screening.labels import find_images, read_labels


def test_file_that_was_screened_before_goes_on_where_it_was(tmp_path):
    path = write_labels_file(tmp_path / "a.json", screening="rejected", iscrowd=1)
    label_file = read_labels(path)
    assert [label.screening for label in label_file.labels[1]] == [
        "rejected",
        "unreviewed",
        "unreviewed",
    ]
    assert label_file.regions == []


def test_areas_to_ignore_are_no_labels(tmp_path):
    label_file = read_labels(write_labels_file(tmp_path / "a.json", iscrowd=1))
    assert [label.id for label in label_file.labels[1]] == [2, 3]
    assert [region["id"] for region in label_file.regions] == [1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"segmentation": None}, "neither a COCO run-length code nor a list"),
        ({"segmentation": {"size": [9, 9], "counts": "0"}}, r"size \[9, 9\]"),
        ({"segmentation": {"size": [HEIGHT, WIDTH], "counts": [5, 5]}}, "add up to 10 px"),
        ({"score": 7}, "the score is 7; expected a number in 0..1"),
        ({"score": "high"}, "the score is 'high'"),
        ({"screening": "maybe"}, "'screening' is 'maybe'"),
    ],
)
def test_unsound_label_is_named(tmp_path, changes, message):
    path = write_labels_file(tmp_path / "a.json")
    content = json.loads(path.read_text())
    content["annotations"][0] |= changes
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match=message) as error:
        read_labels(path)
    assert "a.json', image '1.png', annotation" in str(error.value)


def test_label_without_pixels_is_left_out(tmp_path, caplog):
    empty = encode_mask(np.zeros((HEIGHT, WIDTH), bool))
    label_file = read_labels(write_labels_file(tmp_path / "a.json", segmentation=empty))
    assert [label.id for label in label_file.labels[1]] == [2, 3]
    assert "annotation 1 has no pixels" in caplog.text


@pytest.mark.parametrize("name", ["../1.png", "/etc/passwd", "a/../../1.png", "..\\1.png", "a\0b"])
def test_image_outside_the_folder_is_refused(tmp_path, label_file, name):
    (tmp_path / "1.png").touch()
    (tmp_path / "images").mkdir()
    label_file.images[1]["file_name"] = name
    with pytest.raises(InputError, match="leads out of the image folder"):
        find_images(label_file, tmp_path / "images")


def test_missing_images_are_listed(tmp_path, label_file):
    (tmp_path / "2.png").touch()
    with pytest.raises(InputError, match=r"1 of the 2 images of '.*' are not in '.*': '1\.png'\."):
        find_images(label_file, tmp_path)
    with pytest.raises(InputError, match=r"image folder '.*none' does not exist"):
        find_images(label_file, tmp_path / "none")


def test_many_labels_are_read_in_parts(tmp_path, monkeypatch):
    path = write_labels_file(tmp_path / "a.json")
    at_once = read_labels(path).labels
    monkeypatch.setattr("steatosis_d2.screening.labels._CHECKED_AT_ONCE", 2)
    in_parts = read_labels(path).labels
    assert [vars(label) for label in in_parts[1]] == [vars(label) for label in at_once[1]]
