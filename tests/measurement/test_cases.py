"""Several slides of a case."""

import pytest

from steatosis_d2.measurement.cases import combine_cases
from steatosis_d2.measurement.grading import GradeCalibration
from steatosis_d2.measurement.summary import fault_row


def slide(file, case, *, tissue_mm2, fat_mm2, droplets, large_percent=0.0, mpp=0.5):
    px = 4e6
    return {
        "file": file,
        "case": case,
        "fault": None,
        "mpp": mpp,
        "tissue_area_mm2": None if mpp is None else tissue_mm2,
        "tissue_area_px": tissue_mm2 * px,
        "fat_area_mm2": None if mpp is None else fat_mm2,
        "fat_area_px": fat_mm2 * px,
        "droplets": droplets,
        "large_droplets": None if mpp is None else 1,
        "large_droplet_area_percent": None if mpp is None else large_percent,
    }


FIRST = slide("a_1.svs", "a", tissue_mm2=3, fat_mm2=0.3, droplets=100, large_percent=6.0)
SECOND = slide("a_2.svs", "a", tissue_mm2=1, fat_mm2=0.02, droplets=20)


def test_a_slide_counts_by_its_tissue():
    [row] = combine_cases([FIRST, SECOND], category="droplet")
    assert (row["case"], row["slides"], row["files"]) == ("a", 2, "a_1.svs; a_2.svs")
    assert row["fat_area_percent"] == pytest.approx(8)
    assert row["droplets_per_mm2"] == 30
    assert row["large_droplet_area_percent"] == pytest.approx(4.5)
    assert row["large_droplet_fat_percent"] == pytest.approx(100 * 0.18 / 0.32)


def test_cases_are_graded_by_their_totals():
    limits = GradeCalibration("ours.json", (5.0, 9.0), ("0", "1", "2"))
    [row] = combine_cases([FIRST, SECOND], category="droplet", calibration=limits)
    assert (row["grade"], row["grade_calibration"]) == ("1", "ours.json")


def test_without_pixel_sizes_percentages_remain():
    rows = [
        slide(f"a_{n}.png", "a", tissue_mm2=n, fat_mm2=0.1, droplets=9, mpp=None) for n in (1, 3)
    ]
    [row] = combine_cases(rows, category="droplet")
    assert row["fat_area_percent"] == pytest.approx(5)
    assert row["tissue_area_mm2"] is row["large_droplet_area_percent"] is None


def test_slides_that_failed_are_named():
    failed = fault_row("a_3.svs", "is damaged", case="a")
    [row] = combine_cases([FIRST, failed], category="droplet")
    assert (row["slides"], row["files"], row["droplets"]) == (1, "a_1.svs", 100)
    assert (row["failed_slides"], row["failed_files"]) == (1, "a_3.svs")


def test_a_case_of_failed_slides_alone_has_no_figures():
    limits = GradeCalibration("ours.json", (5.0, 9.0), ("0", "1", "2"))
    whole, lost = combine_cases(
        [FIRST, fault_row("b_1.svs", "is damaged", case="b")],
        category="droplet",
        calibration=limits,
    )
    assert lost.keys() == whole.keys()
    known = {name: value for name, value in lost.items() if value is not None}
    assert known == {
        "case": "b", "slides": 0, "files": "", "failed_slides": 1, "failed_files": "b_1.svs",
        "grade_calibration": "ours.json",
    }  # fmt: skip


def test_slides_without_a_case_are_none():
    assert combine_cases([FIRST | {"case": None}], category="droplet") == []
