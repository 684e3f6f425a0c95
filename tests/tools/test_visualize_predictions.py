import numpy as np
import pytest
from PIL import Image

from steatosis_d2.instances.rle import encode_mask
from steatosis_d2.report.overlay import PREDICTED_RGB, TRUE_RGB, draw_outlines

SCRIPT = "tools/visualize_predictions.py"


def test_outline_is_the_rim_of_the_mask_and_the_image_is_kept():
    image = np.full((12, 12, 3), 50, np.uint8)
    mask = np.zeros((12, 12), bool)
    mask[3:8, 4:10] = True
    drawn = draw_outlines(image, [encode_mask(mask)], color_rgb=(1, 2, 3))
    inside = np.zeros_like(mask)
    inside[4:7, 5:9] = True
    assert np.array_equal((drawn == (1, 2, 3)).all(axis=2), mask & ~inside)
    assert (image == 50).all()


def test_hole_and_second_part_are_outlined_too():
    mask = np.zeros((20, 20), bool)
    mask[2:13, 2:13] = True
    mask[5:10, 5:10] = False
    mask[16:18, 16:18] = True
    drawn = draw_outlines(np.zeros((20, 20, 3), np.uint8), [encode_mask(mask)], color_rgb=(9, 9, 9))
    rim = drawn[..., 0] == 9
    assert rim[2, 2] and rim[4, 7] and rim[16, 16]
    assert not rim[3, 3]


def test_empty_mask_draws_nothing():
    image = np.zeros((5, 5, 3), np.uint8)
    assert not draw_outlines(image, [encode_mask(image[..., 0] > 0)], color_rgb=(9, 9, 9)).any()


def test_pictures_show_predictions_over_truths(disks, tmp_path, run_script):
    labels = disks / "annotations.json"
    output = tmp_path / "pictures"
    process = run_script(
        SCRIPT, "--images", disks / "images", "--predictions", labels, "--output", output
    )
    assert process.returncode == 0
    assert len(list(output.iterdir())) == 5
    blank, first = (np.asarray(Image.open(output / f"tile_{i}.png")) for i in (5, 1))
    assert not (blank == PREDICTED_RGB).all(axis=2).any()
    assert (first == PREDICTED_RGB).all(axis=2).sum() > 60
    assert not (first == TRUE_RGB).all(axis=2).any()


@pytest.mark.parametrize("option", ["--images", "--predictions"])
def test_missing_input_is_one_line(option, disks, tmp_path, run_script):
    arguments = {
        "--images": disks / "images",
        "--predictions": disks / "annotations.json",
        "--output": tmp_path / "pictures",
        option: tmp_path / "nowhere",
    }
    process = run_script(SCRIPT, *(item for pair in arguments.items() for item in pair))
    assert process.returncode == 1
    assert "nowhere" in process.stderr
    assert "does not exist" in process.stderr
