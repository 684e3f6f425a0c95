"""Grades by a calibration file."""

import json

import pytest

from steatosis_d2.errors import InputError
from steatosis_d2.measurement.grading import read_grade_calibration

GRADES = [
    {"grade": "S0", "below_percent": 1.5},
    {"grade": "S1", "below_percent": 8},
    {"grade": "S2"},
]


def write(tmp_path, content):
    path = tmp_path / "ours.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


@pytest.mark.parametrize(
    ("percent", "grade"), [(0, "S0"), (1.49, "S0"), (1.5, "S1"), (8, "S2"), (100, "S2")]
)
def test_grade_is_that_of_the_range_with_the_fat_area(tmp_path, percent, grade):
    calibration = read_grade_calibration(write(tmp_path, {"grades": GRADES}))
    assert calibration.grade(percent) == grade
    assert calibration.name == "ours.json"


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[]",
        "{}",
        {"grades": 3},
        {"grades": [{"grade": "S0"}, {"grade": "S1"}]},
        {"grades": [1]},
    ],
)
def test_what_is_no_calibration_is_named(tmp_path, content):
    with pytest.raises(InputError, match=r"ours\.json' cannot be read"):
        read_grade_calibration(write(tmp_path, content))


@pytest.mark.parametrize("grades", [[], [*GRADES[1::-1], GRADES[2]]])
def test_limits_must_ascend(tmp_path, grades):
    with pytest.raises(InputError, match="expected ascending limits"):
        read_grade_calibration(write(tmp_path, {"grades": grades}))


def test_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"none\.json' does not exist"):
        read_grade_calibration(tmp_path / "none.json")
