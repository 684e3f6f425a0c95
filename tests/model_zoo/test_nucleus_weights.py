"""
The nucleus weights that ship, on drawn nuclei: a change that silently harms them is seen here.

Light on dark and dark on light, in colour and in grey, as clear as nuclei ever are.
"""

import json

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from steatosis_d2.evaluation.matching import match_instances, sparse_iou
from steatosis_d2.inference.models import MaskRCNNChoice
from steatosis_d2.instances.rle import encode_crop, encode_label_image

NUCLEUS_STARTER = "nucleus/starter.yaml"
SIDE_PX, PER_SIDE = 256, 4
# kind -> colour of the background and of the nuclei, RGB
COLOURS = {
    "dim fluorescence": ((5, 5, 5), (20, 20, 20)),
    "bright fluorescence": ((20, 20, 20), (230, 230, 230)),
    "H&E": ((215, 170, 205), (90, 60, 150)),
    "bright field": ((220, 220, 220), (100, 100, 100)),
}


@pytest.fixture(scope="module")
def starter():
    return MaskRCNNChoice(NUCLEUS_STARTER)()


def draw_labels(rng):
    """A label image of PER_SIDE x PER_SIDE ellipses, each about 24 px wide."""
    labels = np.zeros((SIDE_PX, SIDE_PX), int)
    rows, columns = np.mgrid[:SIDE_PX, :SIDE_PX]
    pitch = SIDE_PX / PER_SIDE
    for label, (row, column) in enumerate(np.ndindex(PER_SIDE, PER_SIDE), start=1):
        down = rows - (row + 0.5) * pitch - rng.uniform(-8, 8)
        right = columns - (column + 0.5) * pitch - rng.uniform(-8, 8)
        half_height, half_width = rng.uniform(10, 15, 2)
        labels[(down / half_height) ** 2 + (right / half_width) ** 2 < 1] = label
    return labels


def colour(labels, kind, rng):
    """The picture of a label image: soft borders, texture and noise."""
    background, nucleus = np.array(COLOURS[kind], float)
    texture = 1 + 0.1 * ndimage.gaussian_filter(rng.normal(size=labels.shape), 2) / 0.14
    cover = ndimage.gaussian_filter((labels > 0).astype(float), 1.2) * texture
    picture = background + (nucleus - background) * cover[..., None]
    noisy = picture + rng.normal(0, 0.02 * np.abs(nucleus - background).max(), picture.shape)
    return np.clip(noisy.round(), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("kind", COLOURS)
def test_nuclei_are_found_whatever_is_dark_and_what_is_light(kind, starter):
    rng = np.random.default_rng(0)
    labels = draw_labels(rng)
    [found] = starter([colour(labels, kind, rng)], mpp=None)
    predictions = [
        encode_crop(one.crop, top=one.top, left=one.left, height=SIDE_PX, width=SIDE_PX)
        for one in found
    ]
    match = match_instances(sparse_iou(predictions, list(encode_label_image(labels).values())))
    assert len(found) == PER_SIDE**2
    assert match.ious.min() > 0.85


@pytest.mark.parametrize("level", [3, 30, 128, 240])
def test_empty_field_has_no_nucleus(level, starter):
    noise = np.random.default_rng(0).normal(level, 2, (SIDE_PX, SIDE_PX, 3))
    assert starter([np.clip(noise, 0, 255).astype(np.uint8)], mpp=None) == [[]]


@pytest.mark.slow
def test_outputs_speak_of_nuclei(tmp_path, run_script):
    rng = np.random.default_rng(0)
    picture = colour(draw_labels(rng), "dim fluorescence", rng)
    Image.fromarray(picture).save(tmp_path / "field.png")
    command = ["tools/segment.py", tmp_path / "field.png", "--output", tmp_path / "out"]
    done = run_script(*command, "--config-file", NUCLEUS_STARTER)
    assert done.returncode == 0, done.stderr
    predictions = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert [category["name"] for category in predictions["categories"]] == ["nucleus"]
    assert len(predictions["annotations"]) == PER_SIDE**2
    assert predictions["info"]["model"]["weights"] == "nucleus_starter.pth"
    overlay_rgb = np.asarray(Image.open(tmp_path / "out" / "field_overlay.png"))
    assert picture.max() < 30 < 200 < overlay_rgb.max(), "what is too dark to see is shown"
    summary = (tmp_path / "out" / "summary.csv").read_text()
    assert ",nuclei," in summary
    assert "fat" not in summary
