"""What the label generator finds on drawn tissue, and what it leaves out."""

from dataclasses import replace

import cv2
import numpy as np
import pytest

from steatosis_d2.instances.instance import Instance
from steatosis_d2.labeling.droplet_masks import fill_outline, grow_droplet
from steatosis_d2.labeling.evidence import measure_evidence
from steatosis_d2.labeling.generator import (
    label_by_clump_split,
    prepare_scene,
    propose_outlines,
    select_droplets,
)
from steatosis_d2.labeling.parameters import AT_20X, AT_40X, choose_parameters
from steatosis_d2.labeling.scorecards import EXPERT_CARD, PAPER_CARD, Scorecard
from steatosis_d2.labeling.watershed import label_by_watershed

TISSUE_RGB = (172, 86, 152)
GLASS_RGB = (238, 238, 236)


def paint_tissue(side=512, *, seed=0, tissue_rgb=TISSUE_RGB):
    """Pink with the grain of cytoplasm."""
    rng = np.random.default_rng(seed)
    grain = cv2.GaussianBlur(rng.normal(size=(side, side)), (0, 0), 2)[..., np.newaxis]
    return np.clip(np.array(tissue_rgb) + 25 * grain, 0, 255).astype(np.uint8)


def paint_droplets(image_rgb, centres_rc, radii_px):
    """White disks with a soft edge, a little irregular as microscopes show them."""
    mask = np.zeros(image_rgb.shape[:2], np.float32)
    for (row, column), radius in zip(centres_rc, radii_px, strict=True):
        cv2.circle(mask, (round(column), round(row)), round(radius), 1, -1)
    opacity = cv2.GaussianBlur(mask, (0, 0), 1.5)[..., np.newaxis]
    return (opacity * np.array(GLASS_RGB) + (1 - opacity) * image_rgb).astype(np.uint8)


def grid(side=512, pitch=64):
    rows, columns = np.mgrid[pitch // 2 : side : pitch, pitch // 2 : side : pitch]
    return np.stack([rows.ravel(), columns.ravel()], axis=1)


def label(image_rgb, *, mpp=0.25, **changes):
    parameters = replace(choose_parameters(mpp), **changes)
    return label_by_clump_split(image_rgb, mpp=mpp, parameters=parameters)


def full_mask(droplet, shape):
    mask = np.zeros(shape[:2], bool)
    height, width = droplet.crop.shape
    mask[droplet.top : droplet.top + height, droplet.left : droplet.left + width] = droplet.crop
    return mask


def best_ious(droplets, centres_rc, radii_px, shape):
    """For each drawn disk, its highest IoU with a label."""
    rows, columns = np.indices(shape[:2])
    masks = [full_mask(droplet, shape) for droplet in droplets]
    best = []
    for (row, column), radius in zip(centres_rc, radii_px, strict=True):
        disk = (rows - row) ** 2 + (columns - column) ** 2 <= radius**2
        best.append(max((mask & disk).sum() / (mask | disk).sum() for mask in masks))
    return np.array(best)


@pytest.mark.parametrize("tissue_rgb", [TISSUE_RGB, (120, 50, 90), (225, 160, 210)])
@pytest.mark.parametrize("mpp", [0.25, 0.5])
def test_every_droplet_is_found_once_whatever_the_stain_and_the_scale(tissue_rgb, mpp):
    centres, radii = grid(), np.tile([16, 20, 24, 18], 16) * 0.25 / mpp
    image = paint_droplets(paint_tissue(tissue_rgb=tissue_rgb), centres, radii)
    droplets = label(image, mpp=mpp)
    assert len(droplets) == len(centres)
    assert best_ious(droplets, centres, radii, image.shape).min() > 0.7


def test_labels_do_not_overlap_and_come_most_confident_first():
    centres = [(row, column + dx) for row, column in grid() for dx in (0, 21)]
    image = paint_droplets(paint_tissue(), centres, [12] * len(centres))
    droplets = label(image)
    assert np.sum([full_mask(d, image.shape) for d in droplets], axis=0).max() == 1
    scores = [droplet.score for droplet in droplets]
    assert scores == sorted(scores, reverse=True)
    assert 0.5 <= scores[-1] <= scores[0] <= 1


def test_pairs_of_touching_droplets_are_two_labels():
    centres = [(row, column + dx) for row, column in grid() for dx in (-14, 14)]
    image = paint_droplets(paint_tissue(), centres, [15] * len(centres))
    droplets = label(image)
    assert len(droplets) == len(centres)
    assert best_ious(droplets, centres, [15] * len(centres), image.shape).min() > 0.7


@pytest.mark.parametrize("noise", [0, 3])
@pytest.mark.parametrize("mpp", [0.25, 0.5])
def test_blank_glass_has_no_droplets(noise, mpp):
    rng = np.random.default_rng(0)
    glass = np.array(GLASS_RGB) + noise * rng.normal(size=(256, 256, 3))
    assert label(glass.clip(0, 255).astype(np.uint8), mpp=mpp) == []


def test_black_white_and_one_pixel_images_have_no_droplets():
    for image in (
        np.zeros((64, 64, 3), np.uint8),
        np.full((64, 64, 3), 255, np.uint8),
        np.full((1, 1, 3), 120, np.uint8),
    ):
        assert label(image) == []
        assert label_by_watershed(image, mpp=0.25, parameters=AT_40X) == []


def test_tissue_without_droplets_has_none():
    assert label(paint_tissue()) == []


def test_sinusoids_tears_and_the_glass_beside_the_tissue_are_left_out():
    image = paint_droplets(paint_tissue(), grid()[:24], [16] * 24)
    image[320:] = GLASS_RGB
    for row in (250, 270, 290):
        cv2.line(image, (20, row), (480, row + 15), GLASS_RGB, 6)
    droplets = label(image)
    assert len(droplets) == 24
    assert max(droplet.top + droplet.crop.shape[0] for droplet in droplets) < 240


def test_droplets_at_the_border_are_found():
    centres = [(row, column) for row in (0, 128, 256, 384, 511) for column in (0, 256, 511)]
    image = paint_droplets(paint_tissue(), centres, [24] * len(centres))
    assert len(label(image)) == len(centres)


def test_proposals_weighed_in_small_batches_give_the_same_labels(monkeypatch):
    image = paint_droplets(paint_tissue(), grid(), [16] * 64)
    whole = label(image)
    monkeypatch.setattr("steatosis_d2.labeling.generator._POINTS_AT_ONCE", 100)
    batched = label(image)
    assert [d.encode(image.shape) for d in batched] == [d.encode(image.shape) for d in whole]


def test_better_outline_wins_where_two_overlap():
    def square(size):
        return np.array([[9, 9], [9 + size, 9], [9 + size, 9 + size], [9, 9 + size]], np.int32)

    [droplet] = select_droplets(
        [square(20), square(18)], [0.6, 0.9], image_shape=(50, 50), growth_px=0, max_overlap=0.15
    )
    assert (droplet.score, droplet.crop.shape) == (0.9, (19, 19))


def test_growth_stops_at_the_border_and_at_neighbours():
    taken = np.zeros((20, 20), bool)
    taken[5:10, 0:8] = taken[5:10, 9:15] = True
    grown = grow_droplet(Instance(np.ones((5, 8), bool), 5, 0, 0.5), growth_px=2, taken=taken)
    mask = full_mask(grown, (20, 20))
    assert mask[3, 4] and mask[11, 4] and mask[7, 8]
    assert not mask[5:10, 9:15].any()
    assert taken[mask].all()


def test_outline_is_filled_with_its_border():
    crop, top, left = fill_outline(np.array([[3, 5], [7, 5], [7, 8], [3, 8]], np.int32))
    assert (top, left, crop.shape, crop.all()) == (5, 3, (4, 5), True)


def test_evidence_of_a_drawn_disk():
    image = paint_droplets(np.full((200, 200, 3), TISSUE_RGB, np.uint8), [(100, 100)], [30])
    scene = prepare_scene(image, mpp=0.25, parameters=AT_40X)
    at_half = replace(AT_40X, levels=(0.5,))
    [outlines] = propose_outlines(scene.brightness, mpp=0.25, parameters=at_half)
    evidence = {name: values[0] for name, values in measure_evidence(outlines, scene).items()}
    assert evidence["diameter_um"] == pytest.approx(15, abs=0.5)
    assert evidence["solidity"] > 0.97
    assert evidence["axis_ratio"] > 0.97
    assert evidence["contrast"] == pytest.approx(1, abs=0.1)
    assert evidence["open_edge_share"] == evidence["border_share"] == 0
    assert evidence["inner_saturation"] < evidence["rim_saturation"]


def test_card_adds_the_curves_between_their_knots_and_holds_them_beyond():
    card = Scorecard(curves={"a": ((0, 1), (0, 2)), "b": ((0, 1), (0, -4))}, base=1.0)
    parts = {"a": np.array([0.5, 9.0]), "b": np.array([0.0, 0.5])}
    log_odds = np.array([1 + 1, 1 + 2 - 2])
    assert card.weigh(parts) == pytest.approx(1 / (1 + np.exp(-log_odds)))


def test_cards_use_only_evidence_that_is_measured():
    image = paint_droplets(paint_tissue(128), [(64, 64)], [20])
    scene = prepare_scene(image, mpp=0.25, parameters=AT_40X)
    outlines = next(propose_outlines(scene.brightness, mpp=0.25, parameters=AT_40X))
    measured = measure_evidence(outlines, scene)
    assert set(EXPERT_CARD.curves) | set(PAPER_CARD.curves) == set(measured)
    for card in (EXPERT_CARD, PAPER_CARD):
        for values, votes in card.curves.values():
            assert len(values) == len(votes)
            assert (np.diff(values) > 0).all()


@pytest.mark.parametrize(
    ("mpp", "preset"), [(0.1, AT_40X), (0.25, AT_40X), (0.34, AT_40X), (0.37, AT_20X), (2, AT_20X)]
)
def test_preset_of_the_nearest_pixel_size_is_chosen(mpp, preset):
    assert choose_parameters(mpp) == preset


def test_watershed_parts_two_touching_droplets():
    image = paint_droplets(paint_tissue(128), [(64, 50), (64, 82)], [18, 18])
    assert len(label_by_watershed(image, mpp=0.25, parameters=AT_40X)) == 2
