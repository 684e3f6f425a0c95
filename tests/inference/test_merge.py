"""Merging the instances of overlapping tiles: the result is that of the whole image."""

import gc
import weakref

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from skimage import measure

from steatosis_d2.inference.merge import BorderMerger
from steatosis_d2.inference.tiles import plan_tiles
from steatosis_d2.instances.instance import Instance


def draw_disks(shape, disks):
    """Label image of disks (x, y, radius); a later one hides, or cuts, what it covers of others."""
    labels = np.zeros(shape, np.int32)
    for label, (x, y, radius) in enumerate(disks, start=1):
        cv2.circle(labels, (x, y), radius, label, -1)
    return measure.label(labels, connectivity=2)  # each piece is a droplet


def find_instances(labels):
    """What an exact model gives: each label's mask in its box."""
    return [
        Instance(labels[box] == label, box[0].start, box[1].start, score=0.9)
        for label, box in enumerate(ndimage.find_objects(labels), start=1)
        if box is not None
    ]


def merge(tiles, instances_of, *, shape):
    """All that the merger gives for some tiles and a function tile -> instances."""
    merger = BorderMerger(tiles, width=shape[1], height=shape[0])
    return [item for tile in tiles for item in merger.add(tile, instances_of(tile))]


def merge_labels(labels, *, tile_px, overlap_px):
    tiles = plan_tiles(*labels.shape[::-1], tile_px=tile_px, overlap_px=overlap_px)

    def instances_of(tile):
        return find_instances(labels[tile.top : tile.bottom, tile.left : tile.right])

    return merge(tiles, instances_of, shape=labels.shape)


def content(instances):
    """What can be compared, in any order; a list, so that doubles show."""
    return sorted(
        (item.top, item.left, item.crop.shape, item.crop.tobytes(), item.score, item.truncated)
        for item in instances
    )


def boxes(instances):
    return sorted((item.left, item.top, item.right, item.bottom) for item in instances)


@pytest.fixture(scope="module")
def clumped_labels():
    """900 x 1200 px: droplets in clumps, some of 400 px, larger than any overlap here."""
    rng = np.random.default_rng(0)
    centers = rng.uniform((0, 0), (1200, 900), (60, 2))
    disks = [(300, 330, 200), (850, 500, 180), (1100, 60, 150)]
    for _ in range(900):
        x, y = rng.normal(centers[rng.integers(len(centers))], 30)
        disks.append((int(x), int(y), int(rng.integers(2, 40))))
    return draw_disks((900, 1200), disks)


@pytest.mark.parametrize("tile_px", [256, 512, 1024])
@pytest.mark.parametrize("overlap_px", [16, 64, 128])
def test_tiles_of_any_size_give_the_instances_of_the_whole(clumped_labels, tile_px, overlap_px):
    merged = merge_labels(clumped_labels, tile_px=tile_px, overlap_px=overlap_px)
    whole = merge_labels(clumped_labels, tile_px=2000, overlap_px=128)
    assert len(whole) > 400
    assert content(merged) == content(whole)


def test_whole_image_is_the_models_own_result(clumped_labels):
    whole = merge_labels(clumped_labels, tile_px=2000, overlap_px=128)
    assert boxes(whole) == boxes(find_instances(clumped_labels))
    assert all(
        item.truncated
        == (item.left == 0 or item.top == 0 or item.right == 1200 or item.bottom == 900)
        for item in whole
    )


@settings(max_examples=50, deadline=None)
@given(data=st.data())
def test_any_blobs_on_any_grid_give_the_instances_of_the_whole(data):
    seed = data.draw(st.integers(0, 2**32 - 1))
    height, width = data.draw(st.tuples(st.integers(1, 250), st.integers(1, 250)))
    tile_px = data.draw(st.integers(32, 120))
    overlap_px = data.draw(st.integers(16, tile_px // 2))
    blob_px = data.draw(st.floats(0.5, 12))
    noise = ndimage.gaussian_filter(
        np.random.default_rng(seed).normal(size=(height, width)), blob_px
    )
    labels, _ = ndimage.label(noise > noise.mean(), structure=np.ones((3, 3)))
    merged = merge_labels(labels, tile_px=tile_px, overlap_px=overlap_px)
    assert content(merged) == content(merge_labels(labels, tile_px=300, overlap_px=16))


@settings(max_examples=30, deadline=None)
@given(
    disks=st.lists(
        st.tuples(st.integers(0, 300), st.integers(0, 200), st.integers(0, 120)), max_size=30
    ),
    tile_px=st.integers(40, 200),
)
def test_any_disks_on_any_grid_keep_their_number(disks, tile_px):
    labels = draw_disks((200, 300), disks)
    merged = merge_labels(labels, tile_px=tile_px, overlap_px=16)
    assert boxes(merged) == boxes(find_instances(labels))


# What follows is about models that see one droplet differently in two tiles. The tiles are
# 0..100 and 60..160, so that both see 60..100; they are equally near to column 80.
TILES = plan_tiles(160, 100, tile_px=100, overlap_px=40)


def block(left, top, right, bottom, *, score=0.9):
    """A rectangle in px of the slide."""
    return Instance(np.ones((bottom - top, right - left), bool), top, left, score)


def merge_two(first, second):
    """Merge what the two tiles saw, given in px of the slide."""
    seen = {0: first, 60: second}

    def instances_of(tile):
        return [
            Instance(item.crop, item.top, item.left - tile.left, item.score)
            for item in seen[tile.left]
        ]

    return merge(TILES, instances_of, shape=(100, 160))


def test_two_views_of_one_droplet_are_one():
    merged = merge_two([block(72, 40, 90, 60)], [block(71, 41, 88, 61)])
    assert boxes(merged) == [(72, 40, 90, 60)]


def test_views_that_each_place_the_droplet_nearer_to_the_other_tile_are_one():
    """Each tile alone would leave the droplet to the other one."""
    merged = merge_two([block(74, 40, 90, 60)], [block(70, 40, 86, 60)])
    assert len(merged) == 1


def test_what_only_the_farther_tile_reports_is_left_out():
    """The nearer tile saw the place whole and found nothing there."""
    assert merge_two([block(88, 40, 94, 46)], []) == []


def test_what_only_the_nearer_tile_reports_stays():
    assert boxes(merge_two([block(64, 40, 70, 46)], [])) == [(64, 40, 70, 46)]


def test_whole_view_wins_over_a_cut_one():
    merged = merge_two([block(30, 40, 70, 60)], [block(60, 38, 73, 63)])
    assert boxes(merged) == [(30, 40, 70, 60)]
    assert not merged[0].truncated


def test_parts_that_agree_are_joined_and_take_the_higher_score():
    merged = merge_two([block(30, 40, 100, 60, score=0.6)], [block(60, 42, 130, 62, score=0.7)])
    assert boxes(merged) == [(30, 40, 130, 62)]
    assert merged[0].score == 0.7
    assert not merged[0].truncated


def test_touching_droplets_are_not_joined_across_the_border():
    """One side sees two droplets where the other ends in one; each keeps its own."""
    upper, lower = (20, 30, 100, 50), (20, 50, 100, 70)
    merged = merge_two(
        [block(*upper), block(*lower)], [block(60, 30, 140, 50), block(60, 50, 140, 70)]
    )
    assert boxes(merged) == [(20, 30, 140, 50), (20, 50, 140, 70)]


def test_part_without_a_counterpart_stays_and_is_truncated():
    merged = merge_two([block(30, 40, 100, 60)], [])
    assert boxes(merged) == [(30, 40, 100, 60)]
    assert merged[0].truncated


def test_cut_view_of_two_droplets_in_one_gives_way_to_the_two():
    """The first tile cuts two droplets and takes them for one; the second sees both whole."""
    two = [block(82, 30, 105, 49), block(82, 51, 105, 70)]
    merged = merge_two([block(82, 30, 100, 70)], two)
    assert boxes(merged) == boxes(two)


def test_small_droplet_inside_a_larger_one_of_another_tile_is_dropped():
    merged = merge_two([block(20, 30, 95, 70)], [block(84, 44, 92, 52)])
    assert boxes(merged) == [(20, 30, 95, 70)]


def test_droplets_that_overlap_in_one_tile_both_stay():
    both = [block(20, 40, 40, 60), block(22, 42, 38, 58)]
    assert boxes(merge_two(both, [])) == boxes(both)


def test_empty_and_loose_crops_are_taken_for_what_they_show():
    loose = np.zeros((50, 50), bool)
    loose[10:20, 5:9] = True
    merged = merge_two(
        [Instance(loose, 0, 0, 0.5), Instance(np.zeros((9, 9), bool), 5, 5, 0.5)], []
    )
    assert boxes(merged) == [(5, 10, 9, 20)]


def test_border_of_the_slide_truncates():
    [at_border] = merge_two([block(0, 40, 20, 60)], [])
    assert at_border.truncated


def test_what_is_decided_is_freed_at_once():
    """Not when the garbage collector gets to it: a slide's droplets would pile up until then."""
    labels = draw_disks((64, 90), [(20, 20, 5), (45, 30, 8), (70, 40, 5)])
    tiles = plan_tiles(90, 64, tile_px=64, overlap_px=32)
    merger = BorderMerger(tiles, width=90, height=64)
    seen = []
    gc.disable()
    try:
        for tile in tiles:
            found = find_instances(labels[tile.top : tile.bottom, tile.left : tile.right])
            seen += [weakref.ref(instance.crop) for instance in found]
            merger.add(tile, found)
        del found
        assert seen
        assert all(crop() is None for crop in seen)
    finally:
        gc.enable()
