"""Rows of summary.csv."""

import csv

import numpy as np
import pytest

from steatosis_d2.instances.instance import Instance
from steatosis_d2.measurement.grading import GradeCalibration
from steatosis_d2.measurement.morphology import measure_instances
from steatosis_d2.measurement.summary import fault_row, summarise, write_summary


def square(side, *, left, truncated=False):
    return Instance(np.ones((side, side), bool), 0, left, 0.5, truncated)


def summarise_squares(*instances, mpp=0.5, dropped=(), **changes):
    table = measure_instances(instances, mpp=mpp)
    table["dropped_by"] = [dropped.get(i, "") if dropped else "" for i in range(len(table))]
    arguments = {
        "category": "droplet",
        "file_name": "a.svs",
        "shape_px": (1000, 2000),
        "mpp": mpp,
        "tissue_area_px": 1_000_000,
        "large_diameter_um": 11.3,
        "calibration": None,
    }
    return summarise(table, **(arguments | changes))


TWO = (square(10, left=0), square(30, left=100))


def test_areas_and_densities():
    row = summarise_squares(*TWO)
    assert row["tissue_area_mm2"] == 0.25
    assert row["fat_area_px"] == 1000
    assert row["fat_area_mm2"] == 0.00025
    assert row["fat_area_percent"] == 0.1
    assert row["droplets"] == 2
    assert row["droplets_per_mm2"] == 8
    assert row["droplets_per_megapixel"] == 2


def test_size_distribution():
    row = summarise_squares(*TWO)
    diameters = np.sqrt(4 / np.pi * np.array([100, 900]))
    assert row["diameter_mean_px"] == pytest.approx(diameters.mean(), rel=1e-5)
    assert row["diameter_median_um"] == pytest.approx(diameters.mean() / 2, rel=1e-5)
    assert row["diameter_p5_px"] == pytest.approx(np.percentile(diameters, 5), rel=1e-5)


def test_share_of_large_droplets_is_of_the_fat_area():
    # diameters of 5.6 and 16.9 um
    row = summarise_squares(*TWO)
    assert row["large_droplets"] == 1
    assert row["large_droplet_fat_percent"] == 90
    assert row["small_droplet_fat_percent"] == 10
    assert summarise_squares(*TWO, large_diameter_um=17)["large_droplet_fat_percent"] == 0


def test_neighbours_are_measured_among_what_is_kept():
    three = (*TWO, square(10, left=40))
    assert summarise_squares(*three)["nearest_neighbour_mean_px"] < 70
    row = summarise_squares(*three, dropped={2: "score>=0.6"})
    assert row["nearest_neighbour_mean_px"] == pytest.approx(np.hypot(110, 10), rel=1e-5)


def test_dropped_instances_are_counted_by_reason_and_nowhere_else():
    row = summarise_squares(*TWO, square(9, left=300), dropped={1: "b", 2: "a"})
    assert (row["droplets"], row["dropped"], row["fat_area_px"]) == (1, 2, 100)
    assert row["dropped_by"] == "a: 1; b: 1"


def test_truncated_instances_are_counted():
    assert summarise_squares(square(5, left=0, truncated=True), *TWO)["truncated"] == 1


def test_without_a_pixel_size_what_is_in_um_is_not_defined():
    row = summarise_squares(*TWO, mpp=None)
    undefined = {name for name, value in row.items() if value is None}
    assert {name for name in row if name.endswith(("_um", "_mm2"))} - undefined == {
        "large_diameter_um"
    }
    assert row["fat_area_percent"] == 0.1
    assert row["diameter_mean_px"] == summarise_squares(*TWO)["diameter_mean_px"]


def test_no_droplets_are_zero_fat_and_no_sizes():
    row = summarise_squares()
    assert (row["droplets"], row["fat_area_percent"], row["droplets_per_mm2"]) == (0, 0, 0)
    assert row["diameter_mean_um"] is None
    assert row["large_droplet_fat_percent"] is None


def test_no_tissue_has_no_percentage():
    row = summarise_squares(tissue_area_px=0)
    assert row["fat_area_percent"] is None
    assert row["droplets_per_mm2"] is None
    assert row["droplets"] == 0


def test_grade_comes_with_the_name_of_its_calibration():
    row = summarise_squares(*TWO, calibration=GradeCalibration("ours.json", (0.05,), ("0", "1")))
    assert (row["grade"], row["grade_calibration"]) == ("1", "ours.json")
    assert summarise_squares(*TWO)["grade"] is None


def test_nuclei_have_columns_of_their_own_name():
    row = summarise_squares(*TWO, category="nucleus")
    assert row["nuclei"] == 2
    assert row["nucleus_area_percent"] == 0.1
    assert not any("fat" in name or "droplet" in name for name in row)


@pytest.mark.parametrize("category", ["droplet", "nucleus"])
def test_same_columns_whatever_was_found(category):
    columns = list(summarise_squares(*TWO, category=category))
    assert list(summarise_squares(category=category, mpp=None)) == columns
    assert set(fault_row("bad.svs", "is damaged")) < set(columns)


def test_csv_has_empty_cells_and_no_nan(tmp_path):
    rows = [summarise_squares(), fault_row("bad.svs", 'is "bad", damaged')]
    write_summary(tmp_path / "summary.csv", rows, category="droplet")
    with (tmp_path / "summary.csv").open(newline="") as file:
        blank, bad = csv.DictReader(file)
    assert (blank["droplets"], blank["diameter_mean_um"], blank["fault"]) == ("0", "", "")
    assert (bad["file"], bad["fault"], bad["droplets"]) == ("bad.svs", 'is "bad", damaged', "")
    assert "nan" not in (tmp_path / "summary.csv").read_text().lower()
