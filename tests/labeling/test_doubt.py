"""Doubt where droplets are few, and a second look at large ones."""

import cv2
import numpy as np
import pytest

from steatosis_d2.instances.instance import Instance
from steatosis_d2.labeling.doubt import NEIGHBOURHOOD_UM, doubt_where_sparse, measure_density
from steatosis_d2.labeling.generator import prepare_scene
from steatosis_d2.labeling.openings import doubt_openings, measure_openings
from steatosis_d2.labeling.parameters import AT_20X

MPP = 0.5
TISSUE_RGB, NUCLEUS_RGB, WHITE_RGB = (190, 120, 170), (80, 50, 120), (240, 240, 240)


def scene_of(image_rgb):
    return prepare_scene(image_rgb, mpp=MPP, parameters=AT_20X)


def tissue(height_px, width_px):
    """Pink with a corner of nuclei, so that it has levels."""
    image = np.full((height_px, width_px, 3), TISSUE_RGB, np.uint8)
    image[:8, :8] = NUCLEUS_RGB
    return image


def square(side_px, score, *, top=0, left=0):
    return Instance(np.ones((side_px, side_px), bool), top, left, score)


def disk(radius_px, *, x, y, score=0.9):
    rows, columns = np.indices((2 * radius_px + 1, 2 * radius_px + 1)) - radius_px
    return Instance(rows**2 + columns**2 <= radius_px**2, y - radius_px, x - radius_px, score)


def draw(image, droplets, rgb=WHITE_RGB):
    for one in droplets:
        image[one.top : one.bottom, one.left : one.right][one.crop] = rgb
    return image


def test_few_weak_droplets_are_doubted_and_many_are_not():
    few = [square(20, 0.9), square(20, 0.7, left=30)]
    kept = doubt_where_sparse(few, scene_of(tissue(60, 66)), parameters=AT_20X)  # 0.001 mm2
    assert [droplet.score for droplet in kept] == pytest.approx([0.9, 0.7])
    assert doubt_where_sparse(few, scene_of(tissue(632, 632)), parameters=AT_20X) == []


def test_large_droplets_are_doubted_first():
    small, large = square(6, 0.8), square(60, 0.8)
    # 400 droplets a square millimetre: enough for small ones, few for large ones
    kept = doubt_where_sparse([large, small], scene_of(tissue(126, 127)), parameters=AT_20X)
    assert [droplet.crop.shape for droplet in kept] == [(6, 6)]
    assert kept[0].score == pytest.approx(0.8, abs=0.01)


def test_no_droplets_and_no_tissue_are_no_division_by_zero():
    glass = scene_of(np.full((300, 300, 3), 240, np.uint8))
    assert doubt_where_sparse([], glass, parameters=AT_20X) == []
    [kept] = doubt_where_sparse([square(9, 1.0)], glass, parameters=AT_20X)
    assert kept.score == pytest.approx(1)


def test_density_is_that_of_the_neighbourhood():
    """A place on a large image is judged as a tile of its own would be."""
    side_px = round(NEIGHBOURHOOD_UM / MPP)
    scene = scene_of(tissue(side_px, 3 * side_px))
    crowd = [square(10, 1.0, top=30 * i, left=30 * j) for i in range(8) for j in range(8)]
    lonely = square(10, 1.0, top=100, left=3 * side_px - 50)
    density = measure_density([*crowd, lonely], scene)
    mm2 = (NEIGHBOURHOOD_UM / 1000) ** 2
    assert density[:64] == pytest.approx(64 / mm2)
    assert density[64] == pytest.approx(1 / mm2)


def test_nuclei_of_a_wall_are_seen_in_the_directions_where_they_lie():
    lumen = disk(25, x=100, y=100)
    image = tissue(200, 200)
    for angle in np.arange(0, 2 * np.pi, np.pi / 8):
        x, y = 100 + 31 * np.cos(angle), 100 + 31 * np.sin(angle)
        cv2.circle(image, (round(x), round(y)), 5, NUCLEUS_RGB, -1)
    _, of_duct = measure_openings([lumen], scene_of(draw(image, [lumen])))
    _, of_droplet = measure_openings([lumen], scene_of(draw(tissue(200, 200), [lumen])))
    assert of_duct["nuclei_share"][0] > 0.9
    assert of_droplet["nuclei_share"][0] == 0


def test_fat_around_a_large_droplet_is_measured_without_itself():
    large = disk(25, x=150, y=150)
    small = [disk(8, x=x, y=40) for x in range(20, 300, 40)]
    scene = scene_of(draw(tissue(300, 300), [large, *small]))
    indices, parts = measure_openings([*small, large], scene)
    assert indices == [len(small)]
    share = sum(0.9 * one.crop.sum() for one in small) / 300**2
    assert parts["fat_near_share"][0] == pytest.approx(share, rel=0.02)
    assert measure_openings(small, scene) == ([], {})


def test_what_is_cut_by_the_border_says_so():
    cut = Instance(np.ones((40, 30), bool), 0, 50, 0.9)
    _, parts = measure_openings([cut], scene_of(draw(tissue(200, 200), [cut])))
    assert parts["border_um"][0] == 30 * MPP


def test_blood_in_a_vein_darkens_its_inside():
    clean, bloody = disk(25, x=60, y=60), disk(25, x=160, y=60)
    image = draw(tissue(120, 220), [clean, bloody])
    cv2.circle(image, (160, 60), 8, (200, 60, 80), -1)
    _, parts = measure_openings([clean, bloody], scene_of(image))
    assert parts["darkest_inside"][0] > 0.9
    assert parts["darkest_inside"][1] < 0.6


def test_a_lone_opening_is_dropped_and_a_droplet_among_others_is_kept():
    vein = disk(40, x=200, y=200, score=0.8)
    alone = doubt_openings([vein], scene_of(draw(tissue(400, 400), [vein])), parameters=AT_20X)
    assert alone == []
    fatty = [disk(18, x=x, y=y) for x in range(30, 370, 60) for y in range(30, 370, 60)]
    kept = doubt_openings(fatty, scene_of(draw(tissue(400, 400), fatty)), parameters=AT_20X)
    assert len(kept) == len(fatty)
