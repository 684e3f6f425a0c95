"""The pixel size of images that do not state it, from their nuclei."""

import numpy as np
import pytest
from PIL import Image

from steatosis_d2 import api
from steatosis_d2.errors import InputError
from steatosis_d2.labeling.pixel_size import estimate_mpp, measure_nuclei


def paint_nuclei(radius_px, *, number=16, side=400):
    image = np.full((side, side, 3), (190, 120, 170), np.uint8)
    rows, columns = np.indices((side, side))
    pitch = side // 4
    for i in range(number):
        row, column = pitch // 2 + pitch * (i // 4), pitch // 2 + pitch * (i % 4)
        image[(rows - row) ** 2 + (columns - column) ** 2 <= radius_px**2] = (70, 40, 110)
    return image


def label(path, *, mpp):
    """COCO records of the image and its labels."""
    coco = api.label(path, method="watershed", mpp=mpp).coco
    return coco["images"][0], coco["annotations"]


def test_glass_needs_no_pixel_size_where_it_is_estimated(tmp_path):
    Image.new("RGB", (60, 40), (236, 236, 236)).save(tmp_path / "glass.png")
    image, annotations = label(tmp_path / "glass.png", mpp="estimate")
    assert (image["width"], image["height"], "mpp" in image) == (60, 40, False)
    assert annotations == []


@pytest.mark.parametrize(
    ("mpp", "expected"), [("estimate", (0.25, "nuclei")), (0.4, (0.4, "given"))]
)
def test_pixel_size_comes_with_its_source(tmp_path, mpp, expected):
    Image.fromarray(paint_nuclei(13)).save(tmp_path / "tile.png")
    image, _ = label(tmp_path / "tile.png", mpp=mpp)
    assert (image["mpp"], image["mpp_source"]) == expected


def test_pixel_size_is_never_guessed_without_being_asked(tmp_path):
    """It was: 20x or 40x, whichever the nuclei fitted better."""
    Image.fromarray(paint_nuclei(13)).save(tmp_path / "tile.png")
    with pytest.raises(InputError, match=r"tile.png' states no pixel size.*--mpp estimate"):
        label(tmp_path / "tile.png", mpp=None)


def test_pixel_size_of_the_file_is_taken(tmp_path):
    path = tmp_path / "tile.tif"
    Image.fromarray(paint_nuclei(13)).save(path, resolution=20_000, resolution_unit="cm")
    image, _ = label(path, mpp="estimate")
    assert (image["mpp"], image["mpp_source"]) == (0.5, "file")


@pytest.mark.parametrize(("radius_px", "mpp"), [(6.5, 0.5), (13, 0.25)])
def test_magnification_follows_the_size_of_the_nuclei(radius_px, mpp):
    assert estimate_mpp(measure_nuclei(paint_nuclei(radius_px))) == (mpp, 16)


def test_unusual_pixel_size_is_estimated_as_it_is():
    mpp, _ = estimate_mpp(measure_nuclei(paint_nuclei(8.6)))
    assert mpp == pytest.approx(0.37, rel=0.06)


def test_too_few_nuclei_give_no_pixel_size(tmp_path):
    Image.fromarray(paint_nuclei(13, number=3)).save(tmp_path / "tile.png")
    with pytest.raises(InputError, match="with 3 nuclei it cannot be estimated"):
        label(tmp_path / "tile.png", mpp="estimate")


def test_nuclei_are_measured_and_slits_are_not():
    image = paint_nuclei(10, number=5)
    image[350:354, 20:380] = (70, 40, 110)
    assert measure_nuclei(image) == pytest.approx([20] * 5, rel=0.1)
