"""Tissue that cannot be measured is seen, and left out or not as the user says."""

import functools

import cv2
import numpy as np
import pytest

from steatosis_d2.data.images import read_image_rgb
from steatosis_d2.data.splits import read_splits
from steatosis_d2.data.synthetic import random_liver
from steatosis_d2.slides.parts import split_by_piece
from steatosis_d2.slides.slide import ArraySlide
from steatosis_d2.slides.tissue import find_tissue

MPP = 0.5
SIDE_PX = 800  # 400 um
GLASS = (240, 240, 238)


@functools.cache
def draw_liver(seed=0, height=SIDE_PX, width=SIDE_PX, fat_fraction=0.1):
    liver = random_liver(
        np.random.default_rng(seed), mpp=MPP, fat_fraction=fat_fraction, glass_fraction=0.0
    )
    image_rgb = liver.render(top=0, left=0, height=height, width=width).image_rgb
    image_rgb.setflags(write=False)
    return image_rgb


def defocus(image_rgb, blur_um, *, noise=2.0, mpp=MPP):
    image = cv2.GaussianBlur(image_rgb.astype(np.float32), (0, 0), blur_um / mpp)
    image += np.random.default_rng(0).normal(0, noise, image.shape)
    return image.round().clip(0, 255).astype(np.uint8)


def percents(image_rgb, *, mpp=MPP, **options):
    return find_tissue(ArraySlide(image_rgb, mpp=mpp), **options).artefact_percents()


@pytest.mark.parametrize(("seed", "fat_fraction"), [(0, 0.0), (1, 0.1), (2, 0.3)])
def test_tissue_in_focus_has_no_artefact(seed, fat_fraction):
    found = percents(draw_liver(seed, height=416, width=416, fat_fraction=fat_fraction))
    assert found == {"ink": 0, "folds": 0, "bubbles": 0, "out of focus": 0}


@pytest.mark.parametrize("blur_um", [2.5, 4.0, 8.0, 20.0])
def test_a_blurred_half_is_out_of_focus(blur_um):
    image = draw_liver().copy()
    image[:, SIDE_PX // 2 :] = defocus(image, blur_um)[:, SIDE_PX // 2 :]
    tissue = find_tissue(ArraySlide(image, mpp=MPP))
    assert tissue.artefact_percents()["out of focus"] == pytest.approx(50, abs=2)
    assert tissue.area_px == pytest.approx(SIDE_PX**2 / 2, rel=0.04)
    assert tissue.leaves_out(SIDE_PX - 50, 50)
    assert not tissue.leaves_out(50, 50)


def test_a_slight_blur_is_measured():
    assert percents(defocus(draw_liver(), 0.7))["out of focus"] == 0


@pytest.mark.parametrize(("mpp", "side_px"), [(0.25, 1600), (0.8, 500)])
def test_blur_is_judged_in_um(mpp, side_px):
    sharp = cv2.resize(draw_liver(), (side_px, side_px), interpolation=cv2.INTER_CUBIC)
    assert percents(defocus(sharp, 0.7, mpp=mpp), mpp=mpp)["out of focus"] == 0
    assert percents(defocus(sharp, 3.0, mpp=mpp), mpp=mpp)["out of focus"] > 95


@pytest.mark.parametrize("shape", [(1, 1), (2, 400), (3, 5)])
def test_pictures_of_a_few_pixels_are_judged(shape):
    noise = np.random.default_rng(0).normal((200, 120, 170), 2, (*shape, 3))
    assert percents(noise.round().astype(np.uint8))["ink"] in (0, None)


def test_large_pixels_show_no_blur():
    assert percents(defocus(draw_liver(), 4.0), mpp=1.2)["out of focus"] == 0


def test_a_drawing_of_one_colour_is_no_blur():
    assert percents(np.full((400, 400, 3), (200, 120, 170), np.uint8))["out of focus"] == 0


@pytest.mark.parametrize(("blur_um", "low", "high"), [(0, 0, 0.5), (1, 0, 3), (2.5, 90, 100)])
def test_blur_of_real_tiles_is_seen(shared_data, blur_um, low, high):
    names = read_splits(shared_data / "torino_liver" / "splits.json")["val"][:40]
    found = []
    for name in names:
        image = read_image_rgb(shared_data / "torino_liver" / "image" / f"{name}.webp")
        image = defocus(image, blur_um) if blur_um else image
        percent = percents(image)["out of focus"]
        found += [] if percent is None else [percent]
    assert low <= np.mean(found) <= high


def draw_bubble(image_rgb, *, center=(400, 400), radius_px=120, rim_px=16):
    inside = defocus(image_rgb, 3.0)
    disk = np.zeros(image_rgb.shape[:2], np.uint8)
    cv2.circle(disk, center, radius_px, 1, -1)
    drawn = np.where(disk[..., None] > 0, inside, image_rgb)
    cv2.circle(drawn, center, radius_px, (70, 70, 72), rim_px, cv2.LINE_AA)
    return drawn


def test_a_bubble_on_tissue_is_left_out():
    tissue = find_tissue(ArraySlide(draw_bubble(draw_liver()), mpp=MPP))
    outer_px = 120 + 16 / 2
    margin_px = 2 * tissue.cell_px
    expected = 100 * np.pi * (outer_px + margin_px) ** 2 / SIDE_PX**2
    assert tissue.artefact_percents()["bubbles"] == pytest.approx(expected, rel=0.1)
    assert tissue.leaves_out(400, 400)


def test_a_bubble_on_glass_is_no_tissue():
    glass = np.full((SIDE_PX, SIDE_PX, 3), GLASS, np.uint8)
    assert find_tissue(ArraySlide(draw_bubble(glass), mpp=MPP)).area_px == 0


def flawed_slide():
    """Tissue with ink in the upper left, a fold in the upper right, blur in the lower left."""
    image = draw_liver(fat_fraction=0.0).copy()
    image[400:, :400] = defocus(image, 4.0)[400:, :400]
    image[:200, :200] = (40, 60, 160)
    image[:200, 600:] = image[:200, 600:] / 240.0 * image[200:400, 600:]
    return ArraySlide(image, mpp=MPP)


def test_each_kind_has_its_share():
    found = find_tissue(flawed_slide()).artefact_percents()
    assert found["ink"] == pytest.approx(6.25, abs=1)
    assert found["folds"] == pytest.approx(6.25, abs=1.5)
    assert found["out of focus"] == pytest.approx(25, abs=2)


def test_what_is_flagged_counts_but_for_ink():
    excluded = find_tissue(flawed_slide())
    flagged = find_tissue(flawed_slide(), leave_out_artefacts=False)
    assert flagged.artefact_percents() == excluded.artefact_percents()
    assert flagged.area_px == pytest.approx(SIDE_PX**2 - 200**2, rel=0.02)
    assert excluded.area_px == pytest.approx(SIDE_PX**2 * (1 - 0.0625 * 2 - 0.25), rel=0.04)
    spots = {"ink": (50, 50), "fold": (750, 50), "blur": (50, 750)}
    assert [excluded.leaves_out(*spot) for spot in spots.values()] == [True, True, True]
    assert [flagged.leaves_out(*spot) for spot in spots.values()] == [True, False, False]


def test_a_core_that_is_blurred_in_the_middle_is_one_piece():
    image = np.full((600, 1600, 3), GLASS, np.uint8)
    image[100:500, 100:1500] = draw_liver(height=400, width=1400)
    image[:, 600:1000] = defocus(image, 4.0)[:, 600:1000]
    tissue = find_tissue(ArraySlide(image, mpp=MPP))
    [piece] = split_by_piece(tissue, mpp=MPP)
    assert piece.tissue.area_px == tissue.area_px
    assert piece.tissue.artefact_percents() == tissue.artefact_percents()
    assert tissue.artefact_percents()["out of focus"] > 20
