"""What segments tiles, by the user's choice."""

import pickle
import subprocess
import sys

import cv2
import numpy as np
import pytest

from steatosis_d2 import model_zoo
from steatosis_d2.errors import InputError
from steatosis_d2.inference.models import ClassicalChoice, MaskRCNNChoice


@pytest.fixture
def droplet_rgb():
    """A droplet of 10 um at 0.25 um/px."""
    image = np.full((128, 128, 3), (172, 86, 152), np.uint8)
    cv2.circle(image, (64, 64), 20, (236, 236, 236), -1)
    return cv2.GaussianBlur(image, (0, 0), 1.5)


def test_classical_model_takes_several_tiles(droplet_rgb):
    glass_rgb = np.full_like(droplet_rgb, 240)
    found = ClassicalChoice()()([droplet_rgb, glass_rgb], mpp=0.25)
    assert [len(instances) for instances in found] == [1, 0]


def test_score_threshold_of_the_classical_model_is_described(droplet_rgb):
    [[droplet]] = ClassicalChoice()()([droplet_rgb], mpp=0.25)
    threshold = (1 + droplet.score) / 2
    strict = ClassicalChoice(score_threshold=threshold)()
    assert strict([droplet_rgb], mpp=0.25) == [[]]
    assert strict.describe()["parameters"]["0.25"]["min_score"] == threshold


def test_classical_model_needs_the_pixel_size(droplet_rgb):
    with pytest.raises(InputError, match="--mpp"):
        ClassicalChoice()()([droplet_rgb], mpp=None)


def test_starter_without_shipped_weights_says_what_to_give(monkeypatch):
    monkeypatch.setattr(model_zoo, "_SHIPPED_WEIGHTS", {})
    with pytest.raises(InputError, match="--weights"):
        MaskRCNNChoice()()


def test_equal_choices_are_one_model_in_a_worker():
    choice = MaskRCNNChoice(weights="a.pth", overrides=("MODEL.DEVICE", "cpu"))
    again = pickle.loads(pickle.dumps(choice))
    assert again == choice
    assert hash(again) == hash(choice)


def test_classical_model_runs_without_torch():
    script = """
import sys
import steatosis_d2.inference.pipeline, steatosis_d2.inference.models
print(sorted({"torch", "detectron2", "pandas"} & set(sys.modules)))
"""
    process = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert process.stdout.strip() == "[]"
