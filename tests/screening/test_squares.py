"""Tiles of the squares of slides that are judged to the end."""

import json

import numpy as np
import pytest
import tifffile
from PIL import Image

from steatosis_d2.data.coco import annotation_record, image_record, read_coco, write_coco
from steatosis_d2.errors import InputError
from steatosis_d2.instances.rle import decode_mask, encode_crop
from steatosis_d2.screening.labels import find_images, read_labels
from steatosis_d2.screening.squares import cut_slides
from steatosis_d2.slides.slide import open_slide

SIZE = {"height": 300, "width": 5000}  # squares of 200 px, the last row of 100
# Left, top, and the verdict. The second and the fifth lie across borders of squares.
LABELS = {
    1: (20, 30, "accepted"),
    2: (190, 50, "rejected"),
    3: (220, 100, "unreviewed"),
    4: (410, 30, "rejected"),
    5: (390, 60, "unreviewed"),
    6: (4990, 250, "accepted"),
}
SIDE = 16


@pytest.fixture
def screened(tmp_path):
    """A slide of which each px is known, a tile, and labels of both."""
    rows, columns = np.indices((SIZE["height"], SIZE["width"]))
    image = np.stack([columns // 20, rows, (rows + columns) % 251], axis=2).astype(np.uint8)
    tifffile.imwrite(
        tmp_path / "s.tif", image, tile=(256, 256), photometric="rgb", compression="zlib"
    )
    Image.new("RGB", (60, 40)).save(tmp_path / "tile.png")
    crop = np.ones((SIDE, SIDE), bool)
    annotations = [
        annotation_record(
            number, 1, encode_crop(crop[:, : 5000 - left], top=top, left=left, **SIZE), score=0.5
        )
        | {"screening": verdict, "iscrowd": int(verdict == "rejected")}
        for number, (left, top, verdict) in LABELS.items()
    ]
    ignored = encode_crop(np.ones((50, 50), bool), top=180, left=100, **SIZE)
    annotations.append(annotation_record(8, 1, ignored) | {"iscrowd": 1})
    of_tile = encode_crop(crop, top=1, left=2, height=40, width=60)
    annotations.append(annotation_record(9, 2, of_tile))
    write_coco(
        tmp_path / "screened.json",
        [
            image_record(1, "s.tif", mpp=1.0, **SIZE) | {"case": "P7"},
            image_record(2, "tile.png", height=40, width=60),
        ],
        annotations,
        category="droplet",
    )
    return tmp_path


def cut(folder):
    path = folder / "screened.json"
    label_file = read_labels(path)
    paths = find_images(label_file, folder)
    images, annotations = cut_slides(read_coco(path), label_file, paths, folder / "out")
    return {image["file_name"]: image for image in images}, annotations


def boxes(annotations, image):
    return [
        (one["bbox"], one["iscrowd"], one.get("screening"))
        for one in annotations
        if one["image_id"] == image["id"]
    ]


def test_squares_in_which_all_is_judged_become_tiles(screened):
    images, annotations = cut(screened)
    assert list(images) == ["s_x0_y0.tif", "s_x400_y0.tif", "s_x4800_y200.tif", "tile.png"]
    first, third, last, tile = images.values()
    assert (first["width"], first["height"], first["mpp"], first["case"]) == (200, 200, 1.0, "P7")
    assert first["source"] == {"slide": "s.tif", "left_px": 0, "top_px": 0}
    # The second label's part in the square, and that of an area to ignore
    assert boxes(annotations, first) == [
        ([20, 30, 16, 16], 0, "accepted"),
        ([190, 50, 10, 16], 1, "rejected"),
        ([100, 180, 50, 20], 1, None),
    ]
    assert boxes(annotations, third) == [
        ([10, 30, 16, 16], 1, "rejected"),
        ([0, 60, 6, 16], 1, "unreviewed"),
    ]
    assert (last["width"], last["height"]) == (200, 100)
    assert boxes(annotations, last) == [([190, 50, 10, 16], 0, "accepted")]
    assert boxes(annotations, tile) == [([2, 1, 16, 16], 0, None)]
    assert [one["id"] for one in annotations] == [1, 2, 3, 4, 5, 6, 7]


def test_tiles_have_the_slides_pixels_and_their_labels_fit(screened):
    images, annotations = cut(screened)
    with open_slide(screened / "s.tif") as slide, open_slide(screened / "out/s_x0_y0.tif") as tile:
        assert tile.mpp == pytest.approx(1.0)
        expected = slide.read_region(0, 0, 200, 200)
        np.testing.assert_array_equal(tile.read_region(0, 0, 200, 200), expected)
    for one in annotations:
        image = next(image for image in images.values() if image["id"] == one["image_id"])
        assert decode_mask(one["segmentation"]).shape == (image["height"], image["width"])
    assert (screened / "out" / "tile.png").read_bytes() == (screened / "tile.png").read_bytes()


def test_labels_of_squares_that_are_not_judged_are_ignored_where_they_reach_into_one(screened):
    content = json.loads((screened / "screened.json").read_text())
    content["annotations"][1] |= {"screening": "accepted", "iscrowd": 0}
    content["annotations"][2]["segmentation"] = encode_crop(
        np.ones((SIDE, 60), bool), top=100, left=180, **SIZE
    )
    (screened / "screened.json").write_text(json.dumps(content))
    images, annotations = cut(screened)
    assert ([180, 100, 20, 16], 1, "unreviewed") in boxes(annotations, images["s_x0_y0.tif"])


def test_nothing_judged_is_refused(screened):
    content = json.loads((screened / "screened.json").read_text())
    content["images"] = content["images"][:1]
    content["annotations"] = [
        one | {"screening": "unreviewed", "iscrowd": 0} for one in content["annotations"][:6]
    ]
    (screened / "screened.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"no square of the slides of .* is judged to the end"):
        cut(screened)


def test_another_slide_is_refused(screened):
    tifffile.imwrite(
        screened / "s.tif", np.zeros((9, 5000, 3), np.uint8), tile=(16, 16), photometric="rgb"
    )
    with pytest.raises(InputError, match=r"made for 300 x 5000 px\. Give the images"):
        cut(screened)
