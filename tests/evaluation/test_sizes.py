"""Figures by size of droplet, and Dice in its three ways, on squares with known answers."""

import numpy as np
import pytest

from steatosis_d2.evaluation.figures import evaluate_pairs
from steatosis_d2.evaluation.image_pairs import ImagePair
from steatosis_d2.evaluation.tables import format_table
from steatosis_d2.instances.rle import encode_crop

SIDE = 200


def square(side, left):
    return encode_crop(np.ones((side, side), bool), top=0, left=left, height=SIDE, width=SIDE)


def pair(name, truths, predictions, *, mpp=0.5):
    return ImagePair(name, SIDE, SIDE, truths, [], predictions, np.ones(len(predictions)), mpp=mpp)


# At 0.5 um/px, squares of 4, 16 and 40 px are as large as disks of 2.3, 9.0 and 22.6 um.
SMALL, MEDIUM, LARGE = square(4, 0), square(16, 10), square(40, 40)


def test_recall_and_precision_are_told_by_size():
    pairs = [
        pair("a", [SMALL, MEDIUM, LARGE], [MEDIUM, LARGE, square(40, 100)]),
        pair("b", [SMALL], [SMALL]),
    ]
    assert evaluate_pairs(pairs).metrics["by_size"] == {
        "truths_below_5_um": 2,
        "recall_below_5_um": 0.5,
        "predictions_below_5_um": 1,
        "precision_below_5_um": 1.0,
        "truths_5_to_10_um": 1,
        "recall_5_to_10_um": 1.0,
        "predictions_5_to_10_um": 1,
        "precision_5_to_10_um": 1.0,
        "truths_from_10_um": 1,
        "recall_from_10_um": 1.0,
        "predictions_from_10_um": 2,
        "precision_from_10_um": 0.5,
    }


def test_sizes_depend_on_the_pixel_size():
    figures = evaluate_pairs([pair("a", [MEDIUM], [], mpp=0.25)]).metrics["by_size"]
    assert (figures["truths_below_5_um"], figures["recall_below_5_um"]) == (1, 0.0)


def test_without_every_pixel_size_there_are_none():
    evaluation = evaluate_pairs([pair("a", [SMALL], []), pair("b", [SMALL], [], mpp=None)])
    assert "by_size" not in evaluation.metrics
    assert "By diameter" not in format_table(evaluation)


def test_table_has_a_row_a_size():
    text = format_table(evaluate_pairs([pair("a", [SMALL, LARGE], [LARGE])]))
    rows = [" ".join(line.split()) for line in text.splitlines()]
    assert "below 5 um 1 0.0000 0 1.0000" in rows


def test_dice_over_all_images_over_those_with_fat_and_over_all_pixels():
    # Half of 1600 px is common: Dice 0.5. Of the missed one it is 0, of the healthy one 1.
    half = square(40, 60)
    pairs = [pair("half", [LARGE], [half]), pair("missed", [SMALL], []), pair("healthy", [], [])]
    figures = evaluate_pairs(pairs).metrics["instances"]
    assert figures["dice"] == pytest.approx((0.5 + 0 + 1) / 3)
    assert figures["dice_nonempty"] == pytest.approx((0.5 + 0) / 2)
    assert figures["dice_pooled"] == pytest.approx(2 * 800 / (1600 + 1600 + 16))


def test_dice_of_healthy_images_alone_is_1():
    figures = evaluate_pairs([pair("healthy", [], [])]).metrics["instances"]
    assert (figures["dice"], figures["dice_nonempty"], figures["dice_pooled"]) == (1, 1, 1)
