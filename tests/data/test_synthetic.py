"""The synthetic liver: what is drawn is what is known, in every window of the slide."""

import functools
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from steatosis_d2.data.synthetic import Anatomy, Look, SyntheticLiver, random_liver
from steatosis_d2.data.synthetic.fat import draw_droplets
from steatosis_d2.data.synthetic.layout import Frame, vessel_maps
from steatosis_d2.data.synthetic.noise import (
    pixel_noise,
    place_ids,
    smooth_noise,
    smooth_noise_at,
    uniform,
)

EIGHT_NEIGHBOURS = np.ones((3, 3), bool)


def crowded_liver(seed, mpp=0.5):
    """Everything at once: fat of all sizes, clumps, vessels, tears and the tissue's border."""
    anatomy = Anatomy(
        seed=seed,
        fat_fraction=0.4,
        macro_share=0.5,
        glass_fraction=0.3,
        tear_density=1.0,
        vessel_density=1.0,
    )
    return SyntheticLiver(anatomy, Look(clearing=0.5), mpp)


@functools.cache
def large_window(seed, mpp):
    return crowded_liver(seed, mpp).render(top=-40, left=1000, height=240, width=200)


def assert_same_window(small, large, rows, columns):
    """Same pixels, same places without fat, same droplets with the same identities."""
    np.testing.assert_array_equal(small.image_rgb, large.image_rgb[rows, columns])
    np.testing.assert_array_equal(small.white_not_fat, large.white_not_fat[rows, columns])
    np.testing.assert_array_equal(identities(small), identities(large)[rows, columns])


def identities(drawn):
    """Each pixel's droplet as known on the whole slide, 0 for none."""
    return np.concatenate([np.zeros(1, np.uint64), drawn.droplet_ids])[drawn.labels]


@settings(max_examples=12, deadline=None)
@given(
    seed=st.integers(0, 1),
    mpp=st.sampled_from([0.5, 0.25]),
    top=st.integers(0, 239),
    left=st.integers(0, 199),
    height=st.integers(1, 120),
    width=st.integers(1, 120),
)
def test_any_window_shows_what_the_larger_rendering_shows(seed, mpp, top, left, height, width):
    height, width = min(height, 240 - top), min(width, 200 - left)
    window = crowded_liver(seed, mpp).render(
        top=top - 40, left=left + 1000, height=height, width=width
    )
    rows, columns = slice(top, top + height), slice(left, left + width)
    assert_same_window(window, large_window(seed, mpp), rows, columns)


@pytest.mark.parametrize("seed", range(3))
def test_small_frames_hold_the_droplets_of_the_large_one(seed):
    """No neighbour far outside a frame is forgotten: sizes and borders come out the same."""
    anatomy = crowded_liver(seed).anatomy
    large = draw_droplets(anatomy, Frame(0, 0, 300, 300, 2.0))
    for top, left in ((0, 0), (150, 20), (260, 260)):
        small = draw_droplets(anatomy, Frame(top, left, 40, 40, 2.0))
        part = (slice(top, top + 40), slice(left, left + 40))
        np.testing.assert_array_equal(identities(small), identities(large)[part])


@pytest.mark.parametrize("seed", range(6))
def test_small_frames_hold_the_vessels_of_the_large_one(seed):
    anatomy = crowded_liver(seed).anatomy
    axis_um = np.arange(600) * 2.0
    depth, _ = vessel_maps(anatomy, axis_um, axis_um)
    for start in range(0, 600, 100):
        part, _ = vessel_maps(anatomy, axis_um[start : start + 100], axis_um)
        np.testing.assert_array_equal(part < 0, depth[start : start + 100] < 0)
        np.testing.assert_array_equal(part <= 1, depth[start : start + 100] <= 1)


@pytest.mark.slow
def test_windows_larger_than_a_piece_are_seamless():
    """Windows above 1024 px are put together from pieces; a window across the seam is not."""
    liver = crowded_liver(4)
    large = liver.render(top=0, left=0, height=1100, width=1060)
    seam = liver.render(top=980, left=970, height=100, width=90)
    assert_same_window(seam, large, slice(980, 1080), slice(970, 1060))


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 300), (300, 1), (37, 211)])
def test_windows_of_any_shape(height, width):
    window = crowded_liver(1).render(top=3, left=5, height=height, width=width)
    assert window.image_rgb.shape == (height, width, 3)
    assert window.image_rgb.dtype == np.uint8
    assert window.labels.shape == window.white_not_fat.shape == (height, width)
    assert window.labels.dtype == np.int32


def test_memory_does_not_depend_on_the_place():
    """A slide of 100,000 px is never held, wherever on it the window lies."""
    peaks = []
    for place in (0, 100_000 - 64):
        tracemalloc.start()
        crowded_liver(1).render(top=place, left=place, height=64, width=64)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.5 * peaks[0]


@settings(max_examples=8, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    height=st.integers(1, 90),
    width=st.integers(1, 90),
    mpp=st.sampled_from([0.25, 0.5, 1.0]),
)
def test_each_droplet_is_one_piece_in_whatever_window(seed, height, width, mpp):
    window = crowded_liver(seed, mpp).render(top=0, left=0, height=height, width=width)
    for label in range(1, window.labels.max() + 1):
        assert ndimage.label(window.labels == label, EIGHT_NEIGHBOURS)[1] == 1


def test_labels_are_consecutive_and_described():
    window = large_window(0, 0.5)
    count = len(window.droplet_ids)
    assert count > 20
    np.testing.assert_array_equal(np.unique(window.labels), np.arange(count + 1))
    assert len(np.unique(window.droplet_ids)) == len(window.diameters_um) == count


def test_nothing_is_both_fat_and_white_without_fat():
    window = large_window(0, 0.5)
    assert window.white_not_fat.any()
    assert not (window.white_not_fat & (window.labels > 0)).any()


def test_tissue_without_fat_has_no_droplets():
    healthy = SyntheticLiver(Anatomy(seed=3, fat_fraction=0.0))
    window = healthy.render(top=0, left=0, height=300, width=300)
    assert window.labels.max() == 0
    assert len(window.droplet_ids) == len(window.diameters_um) == 0


def test_glass_is_white_and_nothing_else():
    glass = SyntheticLiver(
        Anatomy(seed=3, fat_fraction=0.4, glass_fraction=1.0), Look(white_rgb=(238, 240, 236))
    )
    window = glass.render(top=0, left=0, height=200, width=200)
    assert window.labels.max() == 0
    assert window.white_not_fat.all()
    np.testing.assert_allclose(window.image_rgb.mean(axis=(0, 1)), (238, 240, 236), atol=6)
    assert window.image_rgb.min() > 200


@pytest.mark.parametrize("macro_share", [0.2, 0.8])
@pytest.mark.parametrize("fat_fraction", [0.1, 0.3])
def test_fat_covers_about_the_wanted_share(fat_fraction, macro_share):
    anatomy = Anatomy(
        seed=1, fat_fraction=fat_fraction, macro_share=macro_share, vessel_density=0, tear_density=0
    )
    window = SyntheticLiver(anatomy, mpp=2.0).render(top=0, left=0, height=400, width=400)
    assert (window.labels > 0).mean() == pytest.approx(fat_fraction, rel=0.3)


def test_droplets_measure_what_they_are_said_to():
    """Of droplets cut by neither neighbours nor the window, the area gives the diameter back."""
    mpp = 0.25
    anatomy = Anatomy(seed=8, fat_fraction=0.06, vessel_density=0, tear_density=0)
    window = SyntheticLiver(anatomy, mpp=mpp).render(top=0, left=0, height=800, width=800)
    measured = []
    for label in range(1, window.labels.max() + 1):
        mask = np.pad(window.labels == label, 8)
        around = ndimage.binary_dilation(mask, EIGHT_NEIGHBOURS, iterations=8)
        others = np.pad(window.labels, 8) * ~mask
        at_border = mask[8, :].any() or mask[-9, :].any() or mask[:, 8].any() or mask[:, -9].any()
        if not at_border and not others[around].any():
            diameter_um = 2 * np.sqrt(mask.sum() / np.pi) * mpp
            assert diameter_um == pytest.approx(window.diameters_um[label - 1], rel=0.02, abs=0.15)
            measured.append(diameter_um)
    assert len(measured) > 15


def test_sizes_run_from_micro_to_macro():
    anatomy = Anatomy(seed=2, fat_fraction=0.35, macro_share=0.6)
    window = SyntheticLiver(anatomy, mpp=0.5).render(top=0, left=0, height=900, width=900)
    assert 1.5 <= window.diameters_um.min() < 2.5
    assert 45 < window.diameters_um.max() <= 60


def test_there_are_touching_droplets():
    """Clumps matter: a membrane of at most 1 um, or none at all in pixels, between two labels."""
    window = large_window(0, 0.5)
    highest = ndimage.maximum_filter(window.labels, size=3)
    inside = np.where(window.labels > 0, window.labels, 10**6)
    lowest = ndimage.minimum_filter(inside, size=3)
    meet = (highest > 0) & (lowest < 10**6) & (lowest != highest)
    assert len(np.unique(np.stack([lowest[meet], highest[meet]]), axis=1).T) > 5


def test_droplets_are_brighter_than_the_cytoplasm():
    liver = SyntheticLiver(Anatomy(seed=6, fat_fraction=0.2), mpp=0.25)
    window = liver.render(top=0, left=0, height=500, width=500)
    green = window.image_rgb[..., 1].astype(float)
    cytoplasm = np.median(green[(window.labels == 0) & ~window.white_not_fat])
    labels = np.flatnonzero(window.diameters_um > 4) + 1
    brightness = ndimage.median(green, window.labels, labels)
    assert len(labels) > 10
    assert brightness.min() > cytoplasm + 20


def test_scale_changes_neither_the_droplets_nor_their_places():
    anatomy = Anatomy(seed=9, fat_fraction=0.2)
    fine = SyntheticLiver(anatomy, mpp=0.25).render(top=0, left=0, height=400, width=400)
    coarse = SyntheticLiver(anatomy, mpp=0.5).render(top=0, left=0, height=200, width=200)
    large_fine = set(fine.droplet_ids[fine.diameters_um > 4].tolist())
    large_coarse = set(coarse.droplet_ids[coarse.diameters_um > 4].tolist())
    assert len(large_fine & large_coarse) >= 0.95 * len(large_fine | large_coarse)
    agree = (fine.labels[::2, ::2] > 0) == (coarse.labels > 0)
    assert agree.mean() > 0.97


def test_the_stain_does_not_move_the_fat():
    anatomy = Anatomy(seed=9, fat_fraction=0.2)
    place = {"top": 0, "left": 0, "height": 120, "width": 120}
    pink = SyntheticLiver(anatomy).render(**place)
    dark = SyntheticLiver(anatomy, Look(eosin_od=(0.3, 1.1, 0.6))).render(**place)
    np.testing.assert_array_equal(pink.labels, dark.labels)
    assert dark.image_rgb.mean() < pink.image_rgb.mean() - 10


def test_another_seed_is_another_tissue():
    place = {"top": 0, "left": 0, "height": 120, "width": 120}
    one, other = (crowded_liver(seed).render(**place) for seed in (0, 1))
    assert not set(one.droplet_ids.tolist()) & set(other.droplet_ids.tolist())


def test_random_livers_differ_in_stain_and_repeat_with_their_generator():
    def draw(seed):
        return random_liver(np.random.default_rng(seed), mpp=0.5, fat_fraction=0.2)

    assert draw(1) == draw(1)
    assert draw(1).look.eosin_od != draw(2).look.eosin_od


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"seed": -1}, "seed is -1"),
        ({"seed": 0, "fat_fraction": 0.7}, "fat_fraction is 0.7; expected 0 to 0.5"),
        ({"seed": 0, "glass_fraction": float("nan")}, "glass_fraction is nan"),
        ({"seed": 0, "vessel_density": -0.1}, "vessel_density is -0.1"),
    ],
)
def test_impossible_tissue_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Anatomy(**settings)


@pytest.mark.parametrize("mpp", [0, -0.5, float("nan"), 50])
def test_impossible_scale_is_refused(mpp):
    with pytest.raises(ValueError, match="mpp is"):
        SyntheticLiver(Anatomy(seed=0), mpp=mpp)


@pytest.mark.parametrize(("height", "width"), [(0, 5), (5, -1)])
def test_empty_window_is_refused(height, width):
    with pytest.raises(ValueError, match="expected 1 x 1 or more"):
        SyntheticLiver(Anatomy(seed=0)).render(top=0, left=0, height=height, width=width)


def test_smooth_noise_is_standardised():
    axis_um = np.arange(400) * 0.77
    noise = smooth_noise(5, "any", axis_um, axis_um, scale_um=2.0)
    assert noise.mean() == pytest.approx(0, abs=0.05)
    assert noise.std() == pytest.approx(1, abs=0.05)


def test_smooth_noise_at_points_is_the_same_field():
    y_um, x_um = np.linspace(-50, 90, 31), np.linspace(-20, 70, 31)
    field = smooth_noise(5, "any", y_um, x_um, scale_um=9.0)
    points = smooth_noise_at(5, "any", y_um, x_um, scale_um=9.0)
    np.testing.assert_allclose(points, np.diagonal(field), atol=1e-5)


def test_hashed_numbers_are_uniform_and_unrelated():
    ids = place_ids(1, "grid", np.arange(-100, 100)[:, None], np.arange(-100, 100))
    assert len(np.unique(ids)) == ids.size
    one, other = uniform(ids, "one").ravel(), uniform(ids, "other").ravel()
    np.testing.assert_allclose(np.histogram(one, 10, (0, 1))[0], ids.size / 10, rtol=0.08)
    assert abs(np.corrcoef(one, other)[0, 1]) < 0.03
    assert abs(np.corrcoef(one[:-1], one[1:])[0, 1]) < 0.03


def test_camera_noise_is_independent_between_channels():
    noise = pixel_noise(1, "camera", np.arange(200), np.arange(200)).reshape(-1, 3)
    np.testing.assert_allclose(np.corrcoef(noise.T), np.eye(3), atol=0.03)
    assert noise.min() >= -1
    assert noise.max() < 1


def test_synthetic_tissue_needs_no_deep_learning_library():
    code = (
        "import sys, steatosis_d2.data.synthetic;"
        "print([name for name in ('torch', 'detectron2') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
