"""DefaultPredictor, the first thing that a user of Detectron2 runs, finds what `segment` finds."""

import json
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from detectron2.engine import DefaultPredictor

import steatosis_d2
from steatosis_d2.data.sources import read_guo2019_image
from steatosis_d2.data.synthetic import random_liver
from steatosis_d2.model_zoo import get_config, get_weights


def paste(instances, shape):
    """Full-size masks of instances as bytes, in an order of their own."""
    masks = []
    for one in instances:
        mask = np.zeros(shape, bool)
        mask[one.top : one.bottom, one.left : one.right] = one.crop
        masks.append(mask.tobytes())
    return sorted(masks)


def assert_same(cfg, image_rgb, *, model=None, mpp=None):
    """The instances of both ways, mask by mask; returns how many there are."""
    found = DefaultPredictor(cfg)(image_rgb[:, :, ::-1])["instances"]
    ours = steatosis_d2.segment_image(image_rgb, model=model, mpp=mpp).instances
    theirs = sorted(mask.tobytes() for mask in found.pred_masks.numpy() if mask.any())
    assert paste(ours, image_rgb.shape[:2]) == theirs
    return len(theirs)


@pytest.fixture(scope="module")
def tiles(shared_data):
    """The eight tiles of Guo et al. and ten of Torino, RGB."""
    guo = sorted((shared_data / "guo2019_liver").glob("*/image/*.png"))
    names = json.loads((shared_data / "torino_liver" / "splits.json").read_text())["val"]
    torino = [shared_data / "torino_liver" / "image" / f"{name}.webp" for name in names[:40:4]]
    return [read_guo2019_image(path) for path in guo] + [
        cv2.imread(str(path))[:, :, ::-1].copy() for path in torino
    ]


@pytest.mark.slow
def test_default_predictor_agrees_with_segment_on_real_tiles(tiles):
    """It counted everything from a score of 0.05, ten times as many as there are."""
    cfg = get_config("liver/starter.yaml", ["TEST.VIEWS", "1"], trained=True)
    model = steatosis_d2.load_model(overrides=["TEST.VIEWS", "1"])
    assert len(tiles) == 18
    assert sum(assert_same(cfg, tile, model=model) for tile in tiles) > 300


@pytest.mark.slow
@pytest.mark.parametrize("name", ["liver/starter.yaml", "nucleus/starter.yaml"])
def test_every_config_with_weights_agrees(name):
    rng = np.random.default_rng(0)
    image_rgb = np.full((256, 256, 3), (200, 120, 170), np.uint8)
    for x, y in rng.integers(20, 236, (12, 2)).tolist():
        cv2.circle(image_rgb, (x, y), 9, (240, 240, 240), -1)
    image_rgb = cv2.GaussianBlur(image_rgb, (0, 0), 1)
    assert_same(get_config(name, trained=True), image_rgb, model=name)
    assert_same(get_config(name, weights=get_weights(name)), image_rgb, model=name)
    model = steatosis_d2.load_model(name)
    assert_same(get_config(name, trained=True, mpp=0.4), image_rgb, model=model, mpp=0.4)


def test_config_of_the_users_own_agrees(slim_cfg, tmp_path):
    """A child of ours in a file, with a threshold and weights of its own."""
    own = tmp_path / "own.yaml"
    own.write_text(slim_cfg.dump())
    words = ["MODEL.ROI_HEADS.SCORE_THRESH_TEST", "0.3"]
    image_rgb = np.random.default_rng(1).integers(0, 256, (96, 80, 3), np.uint8)
    model = steatosis_d2.load_model(own, weights=slim_cfg.MODEL.WEIGHTS, overrides=words)
    assert assert_same(get_config(own, words), image_rgb, model=model) > 0


def test_threshold_changed_on_the_model_counts_at_once(slim_cfg):
    """As users of Detectron2 do, although a copy of the network does the work."""
    predictor = DefaultPredictor(slim_cfg)
    image = np.random.default_rng(1).integers(0, 256, (96, 80, 3), np.uint8)
    scores = predictor(image)["instances"].scores
    middle = scores.median().item()
    predictor.model.roi_heads.box_predictor.test_score_thresh = middle
    kept = predictor(image)["instances"].scores
    assert kept.tolist() == scores[scores >= middle].tolist()


def test_fast_copy_follows_the_weights(slim_cfg):
    """Weights loaded or trained after the first image are those that count."""
    predictor = DefaultPredictor(slim_cfg)
    image = np.random.default_rng(1).integers(0, 256, (96, 80, 3), np.uint8)
    before = predictor(image)["instances"].scores
    assert len(before)
    state = {name: value.clone() for name, value in predictor.model.state_dict().items()}
    changed = dict(state)
    changed["roi_heads.box_predictor.cls_score.weight"] = (
        0 * state["roi_heads.box_predictor.cls_score.weight"]
    )
    predictor.model.load_state_dict(changed)
    assert not torch.equal(predictor(image)["instances"].scores, before)
    with torch.no_grad():
        for name, parameter in predictor.model.named_parameters():
            parameter.copy_(state[name])
    predictor.model.eval()
    assert torch.equal(predictor(image)["instances"].scores, before)


@pytest.mark.slow
def test_snippet_of_the_guide_prints_what_segment_finds(tmp_path, monkeypatch, capsys):
    guide = (Path(__file__).resolve().parents[2] / "docs/python-api.md").read_text()
    [snippet] = [
        code for code in re.findall(r"```python\n(.*?)```", guide, re.DOTALL) if "Default" in code
    ]
    monkeypatch.chdir(tmp_path)
    liver = random_liver(np.random.default_rng(3), mpp=0.33, fat_fraction=0.15)
    tile = liver.render(top=0, left=0, height=400, width=400)
    cv2.imwrite("tile.png", tile.image_rgb[:, :, ::-1])
    exec(compile(snippet, "python-api.md", "exec"), {})
    printed = capsys.readouterr().out
    [found] = steatosis_d2.segment("tile.png")
    row = found.summary
    share = row["fat_area_px"] / (row["width_px"] * row["height_px"])
    assert row["droplets"] > 5
    assert printed == f"{row['droplets']} droplets, {share:.1%} of the tile's area\n"
