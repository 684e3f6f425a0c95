"""How often the intervals of a slide's figures hold the truth, on synthetic liver."""

from concurrent.futures import ProcessPoolExecutor

import numpy as np

from benchmarks.figures import Figure

LIVERS = 60
MPP, CELL_PX = 0.5, 8
# Height and width of the tissue that is seen of each: a needle biopsy, and a piece of a resection
WINDOWS_UM = ((600, 10_000), (2500, 2500))
FAT_FRACTION, SPARED_SHARE = 0.15, 0.5
LARGE_UM = 11.3


def measure_coverage(_options):
    """Share of livers whose interval holds the figure of all of them together."""
    return [figure for window in WINDOWS_UM for figure in measure_window(*window)]


def measure_window(height_um, width_um):
    """One figure for each column of the summary that has an interval."""
    from steatosis_d2.measurement.uncertainty import estimate_intervals
    from steatosis_d2.slides.tissue import TissueMask

    tissue = TissueMask(
        mask=np.ones((round(height_um / MPP / CELL_PX), round(width_um / MPP / CELL_PX)), bool),
        cell_px=CELL_PX,
        width=round(width_um / MPP),
        height=round(height_um / MPP),
    )
    with ProcessPoolExecutor() as pool:
        sizes = [(seed, height_um, width_um) for seed in range(LIVERS)]
        livers = list(pool.map(place, sizes))
    tissue_mm2 = LIVERS * height_um * width_um / 1e6
    area_um2 = sum(kept["area_um2"].sum() for kept in livers)
    large_um2 = sum(
        kept["area_um2"][kept["equivalent_diameter_um"] >= LARGE_UM].sum() for kept in livers
    )
    truths = {
        "fat_area_percent": area_um2 / 1e4 / tissue_mm2,
        "droplets_per_mm2": sum(map(len, livers)) / tissue_mm2,
        "large_droplet_fat_percent": 100 * large_um2 / area_um2,
    }
    intervals = [
        estimate_intervals(kept, tissue, mpp=MPP, category="droplet", large_diameter_um=LARGE_UM)
        for kept in livers
    ]
    figures = []
    for column, truth in truths.items():
        # Where little of a liver has fat, there is no interval of a share of it.
        ends = [one[column] for one in intervals if column in one]
        figures.append(
            Figure(
                "coverage",
                f"95% intervals of {column} that hold {truth:.3g}, of {len(ends)} livers of "
                f"{height_um / 1000:g} x {width_um / 1000:g} mm",
                100 * float(np.mean([low <= truth <= high for low, high in ends])),
                "%",
                at_least=90,
            )
        )
    return figures


def place(liver):
    """Droplets of a liver (seed, height and width in um), as tables have them."""
    import pandas as pd

    from steatosis_d2.data.synthetic.droplets import place_droplets
    from steatosis_d2.data.synthetic.layout import Anatomy, Window

    seed, height_um, width_um = liver
    anatomy = Anatomy(
        seed=seed, fat_fraction=FAT_FRACTION, spared_share=SPARED_SHARE, tear_density=0
    )
    droplets = place_droplets(anatomy, Window(0, 0, height_um, width_um))
    inside = (
        (droplets.y_um >= 0)
        & (droplets.y_um < height_um)
        & (droplets.x_um >= 0)
        & (droplets.x_um < width_um)
    )
    radius_um = droplets.radius_um[inside]
    return pd.DataFrame(
        {
            "centroid_y_px": droplets.y_um[inside] / MPP,
            "centroid_x_px": droplets.x_um[inside] / MPP,
            "area_um2": np.pi * radius_um**2,
            "equivalent_diameter_um": 2 * radius_um,
        }
    )


MEASURES = (measure_coverage,)
