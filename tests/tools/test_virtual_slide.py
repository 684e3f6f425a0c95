"""Virtual slides: every window is right, and the stand-in for a model finds every droplet."""

import pickle

import numpy as np
import pytest
from benchmarks.virtual_slide import ColorModel, DiskSlide, VirtualSlide

from steatosis_d2.data.synthetic import Anatomy, SyntheticLiver
from steatosis_d2.slides.pyramid_writer import write_pyramid
from steatosis_d2.slides.slide import open_slide
from steatosis_d2.slides.tissue import find_tissue

SIDE = 1500


@pytest.fixture(scope="module")
def disks():
    return DiskSlide(SIDE, SIDE + 100, seed=2)


@pytest.fixture(scope="module")
def liver():
    return VirtualSlide(SyntheticLiver(Anatomy(seed=5, fat_fraction=0.25), mpp=2.0), 200, 150)


def as_pixels(instances):
    """Instances as a set that can be compared, to the px."""
    return {(one.top, one.left, one.crop.shape, one.crop.tobytes(), one.score) for one in instances}


def paint_labels(instances, height, width):
    labels = np.zeros((height, width), int)
    for number, instance in enumerate(instances, 1):
        window = labels[instance.top : instance.bottom, instance.left : instance.right]
        assert not window[instance.crop].any(), "two share a px"
        window[instance.crop] = number
    return labels


def read_whole(slide):
    return slide.read_region(0, 0, slide.width, slide.height)


def test_any_window_shows_what_the_whole_shows(disks):
    whole = read_whole(disks)
    for left, top, width, height in [(0, 0, 40, 50), (333, 777, 411, 99), (1400, 1500, 100, 100)]:
        window = disks.read_region(left, top, width, height)
        assert np.array_equal(window, whole[top : top + height, left : left + width])


def test_a_place_far_out_on_a_huge_slide_is_read_at_once():
    slide = DiskSlide(10**6, 10**6)
    window = slide.read_region(987_000, 912_000, 300, 300)
    assert np.array_equal(window[100:, 100:], slide.read_region(987_100, 912_100, 200, 200))
    assert len(slide.instances(987_000, 912_000, 987_300, 912_300)) > 10


def test_the_stand_in_finds_every_disk_to_the_px(disks):
    [found] = ColorModel()([read_whole(disks)], mpp=None)
    truth = disks.instances(0, 0, disks.width, disks.height)
    assert as_pixels(found) == as_pixels(truth)
    assert [one.score for one in found] == sorted([one.score for one in truth], reverse=True)


def test_the_stand_in_sees_in_a_window_the_same_disks_cut(disks):
    left, top, side = 411, 613, 256
    [found] = ColorModel()([disks.read_region(left, top, side, side)], mpp=None)
    truth = disks.instances(left, top, left + side, top + side)
    of_whole = paint_labels(truth, disks.height, disks.width)[top : top + side, left : left + side]
    assert np.array_equal(of_whole > 0, paint_labels(found, side, side) > 0)
    assert sorted(one.score for one in found) == sorted(one.score for one in truth)


def test_the_stand_in_finds_nothing_on_glass():
    assert ColorModel()([np.full((50, 50, 3), 255, np.uint8)], mpp=None) == [[]]


def test_the_hard_cases_occur(disks):
    """Clumps of touching disks, disks of 400 px, disks that the slide's borders cut."""
    truth = disks.instances(0, 0, disks.width, disks.height)
    labels = paint_labels(truth, disks.height, disks.width)
    beside = (labels[:, 1:] != labels[:, :-1]) & (labels[:, 1:] > 0) & (labels[:, :-1] > 0)
    assert beside.sum() > 100
    assert max(one.crop.shape[0] for one in truth) >= 400
    for border in (labels[0], labels[-1], labels[:, 0], labels[:, -1]):
        assert border.any()
    assert 0.25 < (labels > 0).mean() < 0.45


def test_seeds_give_different_disks():
    first, second = (DiskSlide(300, 300, seed=seed) for seed in (1, 2))
    assert not np.array_equal(read_whole(first), read_whole(second))


def test_coarse_levels_show_the_same_disks():
    slide = DiskSlide(9000, 300, seed=1)
    assert [level.width for level in slide.levels] == [9000, 2250]
    is_disk = slide.read_region(0, 0, 4000, 300, scale=0.25)[..., 1] > 200
    share_inside = (slide.read_region(0, 0, 4000, 300)[..., 1] > 200).reshape(75, 4, 1000, 4)
    assert (is_disk == (share_inside.mean(axis=(1, 3)) > 0.5)).mean() > 0.98


def test_all_of_a_disk_slide_is_tissue(disks):
    assert find_tissue(disks).area_px == disks.width * disks.height


def test_a_margin_of_glass_holds_no_tissue_and_no_disks():
    slide = DiskSlide(3000, 2500, glass_px=700)
    assert find_tissue(slide).area_px == pytest.approx(1600 * 1100, rel=0.01)
    assert (read_whole(slide)[:700] == 255).all()
    truth = slide.instances(0, 0, 3000, 2500)
    assert min(one.top for one in truth) >= 700 and max(one.right for one in truth) <= 2300
    [found] = ColorModel()([read_whole(slide)], mpp=None)
    assert as_pixels(found) == as_pixels(truth)


def test_a_disk_slide_pickles(disks):
    assert np.array_equal(read_whole(pickle.loads(pickle.dumps(disks))), read_whole(disks))


def test_the_stand_in_is_exact_on_a_written_pyramid(disks, tmp_path):
    write_pyramid(tmp_path / "disks.tif", disks)
    with open_slide(tmp_path / "disks.tif") as slide:
        assert slide.mpp == pytest.approx(disks.mpp)
        [found] = ColorModel()([read_whole(slide)], mpp=slide.mpp)
    assert as_pixels(found) == as_pixels(disks.instances(0, 0, disks.width, disks.height))


def test_a_liver_slide_shows_its_liver(liver):
    window = liver.liver.render(top=30, left=40, height=50, width=60)
    assert np.array_equal(liver.read_region(40, 30, 60, 50), window.image_rgb)


def test_droplets_of_a_liver_slide_are_those_of_its_liver(liver):
    rendered = liver.liver.render(top=0, left=0, height=150, width=200)
    truth = liver.instances(0, 0, 200, 150)
    assert len(truth) == len(rendered.droplet_ids) > 100
    labels = paint_labels(truth, 150, 200)
    assert np.array_equal(labels > 0, rendered.labels > 0)


def test_droplets_of_a_window_are_whole(liver):
    whole = liver.instances(0, 0, 200, 150)
    labels = paint_labels(whole, 150, 200)
    expected = [whole[k - 1] for k in np.unique(labels[50:80, 90:130]) if k > 0]
    assert as_pixels(liver.instances(90, 50, 130, 80)) == as_pixels(expected)
