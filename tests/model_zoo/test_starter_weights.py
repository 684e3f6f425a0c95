"""
The weights that ship: a change that silently harms inference is seen here.

On synthetic tissue, whose droplets are known. Counts are those of the day the weights were made,
with room for another processor's rounding.
"""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from detectron2.engine import DefaultPredictor
from PIL import Image

from steatosis_d2 import model_zoo
from steatosis_d2.data.synthetic import Anatomy, Look, SyntheticLiver
from steatosis_d2.engine.checkpoint import VALIDATION_KEY, read_note
from steatosis_d2.evaluation.matching import match_instances, sparse_iou
from steatosis_d2.evaluation.metrics import instance_metrics
from steatosis_d2.inference.models import MaskRCNNChoice
from steatosis_d2.instances.rle import encode_crop, encode_label_image

STARTER = "liver/starter.yaml"
# um/px -> side of the tile in px, droplets in it, droplets found: in 8-bit integers, and in 32 bits
# on processors that multiply in neither 8 nor 16
FATTY = {0.5: (416, 90, (60, 62)), 0.25: (832, 90, (62, 63))}


@pytest.fixture(scope="module")
def starter():
    return MaskRCNNChoice()()


def draw_tile(mpp, side_px, **anatomy):
    liver = SyntheticLiver(Anatomy(seed=5, **anatomy), Look(), mpp)
    return liver.render(top=0, left=0, height=side_px, width=side_px)


def fat_pixels(instances, shape):
    fat = np.zeros(shape, bool)
    for one in instances:
        height, width = one.crop.shape
        fat[one.top : one.top + height, one.left : one.left + width] |= one.crop
    return fat


@pytest.mark.parametrize("config", [STARTER, "nucleus/starter.yaml"])
def test_file_is_small_and_its_card_tells_which_it_is(config):
    weights = Path(model_zoo.get_weights(config))
    assert weights.stat().st_size < 20e6
    card = weights.with_suffix(".md").read_text()
    assert hashlib.sha256(weights.read_bytes()).hexdigest() in card
    assert "Not a medical device" in card


def test_reports_state_the_errors_that_the_card_states():
    weights = Path(model_zoo.get_weights(STARTER))
    header, *rows = [
        [cell.strip() for cell in line.split("|")]
        for line in weights.with_suffix(".md").read_text().splitlines()
        if line.startswith(("| tiles | | F1", "| Torino val"))
    ]
    [row] = rows
    noted = read_note(weights, VALIDATION_KEY)
    assert f"{noted['images']} tiles" in row[1]
    assert f"{noted['count_error']:.2g}" == row[header.index("count error")]
    assert f"{noted['fat_area_error_points']:.2g}" == row[header.index("fat-area error, points")]


@pytest.mark.slow
@pytest.mark.parametrize("mpp", FATTY)
def test_droplets_of_a_fatty_tile(mpp, starter):
    side_px, n_true, n_found = FATTY[mpp]
    tile = draw_tile(mpp, side_px, fat_fraction=0.15)
    assert len(tile.droplet_ids) == n_true
    [found] = starter([tile.image_rgb], mpp=mpp)
    assert 0.95 * n_found[0] <= len(found) <= 1.05 * n_found[1]
    print(f"droplets found at {mpp} um/px: {len(found)}")
    predictions = [
        encode_crop(one.crop, top=one.top, left=one.left, height=side_px, width=side_px)
        for one in found
    ]
    match = match_instances(sparse_iou(predictions, list(encode_label_image(tile.labels).values())))
    assert instance_metrics(match, iou_threshold=0.5)["precision"] > 0.9


@pytest.mark.parametrize("white", [255, 238, 215])
def test_blank_glass_has_no_droplet(white, starter):
    rng = np.random.default_rng(0)
    glass = np.clip(rng.normal(white, 2, (512, 512, 3)), 0, 255).astype(np.uint8)
    for mpp in (None, 0.25, 0.5):
        assert starter([glass], mpp=mpp) == [[]]


@pytest.mark.slow
@pytest.mark.parametrize("mpp", FATTY)
def test_tears_and_sinusoids_are_no_fat(mpp, starter):
    """Large vessels with a thin wall are, now and then, as the model card says."""
    side_px, *_ = FATTY[mpp]
    tile = draw_tile(mpp, side_px, fat_fraction=0.0, vessel_density=0.0, tear_density=1.0)
    [found] = starter([tile.image_rgb], mpp=mpp)
    taken_for_fat = fat_pixels(found, tile.labels.shape) & tile.white_not_fat
    assert np.count_nonzero(taken_for_fat) < 0.02 * np.count_nonzero(tile.white_not_fat)


@pytest.mark.slow
def test_detectron2s_own_predictor_finds_the_same(starter):
    """In float32, not 8-bit integers, and without a pixel size, which it cannot be told."""
    tile = draw_tile(0.33, 512, fat_fraction=0.15)
    predictor = DefaultPredictor(model_zoo.get_config(STARTER, trained=True))
    theirs = predictor(tile.image_rgb[:, :, ::-1])["instances"]
    theirs = theirs[theirs.scores >= starter.score_threshold]
    [ours] = starter([tile.image_rgb], mpp=None)
    assert len(theirs) > 20
    assert len(ours) == pytest.approx(len(theirs), rel=0.05)


@pytest.mark.slow
def test_tile_is_segmented_without_further_options(tmp_path, run_script):
    tile = draw_tile(0.33, 512, fat_fraction=0.15)
    Image.fromarray(tile.image_rgb).save(tmp_path / "tile.png")
    done = run_script("tools/segment.py", tmp_path / "tile.png", "--output", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    predictions = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert len(predictions["annotations"]) > 20
    assert predictions["info"]["model"]["weights"] == "liver_starter.pth"
