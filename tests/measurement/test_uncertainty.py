"""Intervals of a slide's figures."""

import numpy as np
import pandas as pd
import pytest

from steatosis_d2.measurement.uncertainty import estimate_intervals, interval_of_ratio
from steatosis_d2.slides.tissue import TissueMask

MPP = 0.5


def draw_slide(rng, *, side_mm=6.0, per_mm2=60.0, spread=0.5):
    """Disks on a square of tissue whose density varies from place to place, as tables have them."""
    n_blocks = int(side_mm * 2)
    density = per_mm2 * rng.gamma(1 / spread**2, spread**2, (n_blocks, n_blocks))
    numbers = rng.poisson(density * 0.25).ravel()
    rows, columns = np.divmod(np.repeat(np.arange(n_blocks**2), numbers), n_blocks)
    diameter_um = rng.lognormal(2.2, 0.5, len(rows))
    side_px = int(side_mm * 1000 / MPP)
    kept = pd.DataFrame(
        {
            "centroid_y_px": (rows + rng.random(len(rows))) * 1000,
            "centroid_x_px": (columns + rng.random(len(rows))) * 1000,
            "area_um2": np.pi / 4 * diameter_um**2,
            "equivalent_diameter_um": diameter_um,
        }
    )
    mask = np.ones((side_px // 8,) * 2, bool)
    return kept, TissueMask(mask=mask, cell_px=8, width=side_px, height=side_px)


def estimate(kept, tissue, **changes):
    settings = {"mpp": MPP, "category": "droplet", "large_diameter_um": 11.3}
    return estimate_intervals(kept, tissue, **(settings | changes))


def test_intervals_hold_the_figure_and_the_same_input_gives_the_same():
    kept, tissue = draw_slide(np.random.default_rng(0))
    intervals = estimate(kept, tissue)
    assert intervals == estimate(kept, tissue)
    tissue_mm2 = tissue.area_px * MPP**2 / 1e6
    large = kept["area_um2"][kept["equivalent_diameter_um"] >= 11.3].sum()
    for column, value in {
        "fat_area_percent": kept["area_um2"].sum() / tissue_mm2 / 1e4,
        "droplets_per_mm2": len(kept) / tissue_mm2,
        "large_droplet_fat_percent": 100 * large / kept["area_um2"].sum(),
    }.items():
        low, high = intervals[column]
        assert low < value < high


def test_more_tissue_makes_them_narrower():
    rng = np.random.default_rng(0)
    widths = []
    for side_mm in (3.0, 9.0):
        low, high = estimate(*draw_slide(rng, side_mm=side_mm))["droplets_per_mm2"]
        widths.append(high - low)
    assert widths[1] < widths[0] / 2


@pytest.mark.parametrize("spread", [0.3, 0.8])
def test_19_of_20_hold_the_truth(spread):
    """Of 400 slides, 90 to 98%; the truth is that of the process that draws them."""
    rng = np.random.default_rng(1)
    tissue = np.full(64, 0.25)
    held = 0
    for _ in range(400):
        number = rng.poisson(15 * rng.gamma(1 / spread**2, spread**2, 64))
        low, high = interval_of_ratio(number.astype(float), tissue, seed=0)
        held += low <= 60 <= high
    assert 360 <= held <= 392


def test_there_are_none_where_little_is_known():
    kept, tissue = draw_slide(np.random.default_rng(0))
    assert estimate(kept, tissue, mpp=None) == {}
    assert estimate(kept.iloc[:0], tissue) == {}
    one_block = TissueMask(mask=np.ones((20, 20), bool), cell_px=8, width=160, height=160)
    assert estimate(kept[:5], one_block) == {}
    assert interval_of_ratio(np.full(9, 2.0), np.ones(9), seed=0) is None  # all blocks alike


def test_nuclei_have_two():
    kept, tissue = draw_slide(np.random.default_rng(0))
    assert estimate(kept, tissue, category="nucleus").keys() == {
        "nucleus_area_percent",
        "nuclei_per_mm2",
    }
