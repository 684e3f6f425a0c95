"""How far figures of a slide would differ on other tissue of the same liver."""

import numpy as np
from scipy import stats

from steatosis_d2.data.coco import DROPLET
from steatosis_d2.measurement.summary import TERMS

LEVEL = 0.95
# Wider than lobules, so that blocks know little of each other: with 500 um, on synthetic liver,
# less than 90% of the intervals hold the truth (tools/benchmark.py --only coverage).
BLOCK_UM = 1000.0
# Fewer, of equal size, tell too little of how blocks differ.
FEWEST_BLOCKS = 6
N_RESAMPLES = 2000
ROUNDING = 1e-12
_SEED = 0


def estimate_intervals(kept, tissue, *, mpp, category, large_diameter_um):
    """
    95% intervals of the figures of a slide, by a bootstrap over blocks of its tissue.

    The tissue is cut into blocks of 1 mm. Blocks are drawn with all that they hold, as often as
    there are blocks, so that what lies together stays together. A figure is a ratio of sums over
    blocks. Its interval is its logarithm, give or take the standard deviation over the draws times
    the quantile of Student's t for as many blocks as there would be if all were of one size.

    Args:
        kept (pandas.DataFrame): instances that count, from
            :func:`~.morphology.measure_instances`.
        tissue (TissueMask): where they were looked for.
        mpp (float or None): um/px.
        category (str): ``droplet`` or ``nucleus``.
        large_diameter_um (float): droplets of this diameter or more are called large.

    Returns:
        dict: column of the summary -> (low, high). Without a pixel size, with fewer than
        6 blocks, or where there is nothing to count, a column is left out.
    """
    if mpp is None or not len(kept):
        return {}
    terms = TERMS[category]
    blocks = _sum_blocks(kept, tissue, mpp=mpp, large_diameter_um=large_diameter_um)
    tissue_mm2 = blocks["tissue"]
    ratios = {
        f"{terms.area}_area_percent": (100 * blocks["area"], tissue_mm2, 100.0),
        f"{terms.plural}_per_mm2": (blocks["number"], tissue_mm2, np.inf),
    }
    if category == DROPLET:
        ratios["large_droplet_fat_percent"] = (100 * blocks["large"], blocks["area"], 100.0)
    intervals = {}
    for column, (top, bottom, highest) in ratios.items():
        interval = interval_of_ratio(top, bottom, seed=_SEED)
        if interval is not None:
            intervals[column] = tuple(min(end, highest) for end in interval)
    return intervals


def interval_of_ratio(top, bottom, *, seed):
    """
    95% interval of a ratio of sums over blocks.

    Args:
        top, bottom (ndarray): shape (n,), of each block; ``bottom`` is not negative.
        seed (int): of the resamples.

    Returns:
        tuple[float, float] or None: None for fewer than 6 blocks, counted as if all had the same
        ``bottom``; for a ratio of 0; and for one that is the same in all blocks.
    """
    top, bottom = top[bottom > 0], bottom[bottom > 0]
    n = len(top)
    # Kish's effective number: crumbs of tissue at the border are no blocks of their own.
    n_effective = bottom.sum() ** 2 / (bottom**2).sum() if n else 0
    if n_effective < FEWEST_BLOCKS or top.sum() == 0:
        return None
    draws = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=N_RESAMPLES)
    ratios = (draws @ top) / (draws @ bottom)
    deviation = np.log(ratios[ratios > 0]).std(ddof=1)
    if deviation < ROUNDING:
        return None
    reach = stats.t.ppf((1 + LEVEL) / 2, n_effective - 1) * deviation
    ratio = top.sum() / bottom.sum()
    return float(ratio * np.exp(-reach)), float(ratio * np.exp(reach))


def _sum_blocks(kept, tissue, *, mpp, large_diameter_um):
    """Of each block the tissue, all area, the number, and the area of large ones; areas in mm2."""
    mm2 = (mpp / 1000) ** 2
    block_px = BLOCK_UM / mpp
    n_rows = int(tissue.height // block_px) + 1
    n_columns = int(tissue.width // block_px) + 1

    def number_block(y_px, x_px):
        rows = np.clip(y_px // block_px, 0, n_rows - 1)
        return (rows * n_columns + np.clip(x_px // block_px, 0, n_columns - 1)).astype(np.int64)

    rows, columns = np.nonzero(tissue.mask)
    cell = tissue.cell_px
    own_height = np.minimum(cell, tissue.height - cell * rows)
    own_width = np.minimum(cell, tissue.width - cell * columns)
    of_cells = number_block((rows + 0.5) * cell, (columns + 0.5) * cell)
    of_instances = number_block(kept["centroid_y_px"].to_numpy(), kept["centroid_x_px"].to_numpy())
    area_mm2 = kept["area_um2"].to_numpy(np.float64) / 1e6
    is_large = kept["equivalent_diameter_um"].to_numpy() >= large_diameter_um
    n_blocks = n_rows * n_columns
    return {
        "tissue": np.bincount(of_cells, own_height * own_width * mm2, minlength=n_blocks),
        "area": np.bincount(of_instances, area_mm2, minlength=n_blocks),
        "number": np.bincount(of_instances, minlength=n_blocks).astype(np.float64),
        "large": np.bincount(of_instances, area_mm2 * is_large, minlength=n_blocks),
    }
