"""Steatosis grades from fat area, by a calibration that the user brings."""

import itertools
import json
import math
from dataclasses import dataclass
from pathlib import Path

from steatosis_d2.errors import InputError

_EXAMPLE = '{"grades": [{"grade": "0", "below_percent": 1.5}, ..., {"grade": "3"}]}'


@dataclass(frozen=True)
class GradeCalibration:
    """
    Grades over fat area, as measured by someone on cases of known grade.

    Pathologists' grades count cells with fat, not area (Kleiner et al. 2005), so no such limits
    hold for every scanner, stain and model, and none are built in.

    Attributes:
        name (str): of the file, to be shown wherever the grade is.
        limits_percent (tuple[float]): ascending; the upper limit, exclusive, of all grades but
            the last.
        grades (tuple[str]): one more than limits.
    """

    name: str
    limits_percent: tuple[float, ...]
    grades: tuple[str, ...]

    def grade(self, fat_area_percent):
        """
        Grade of a fat area.

        Examples:
            >>> GradeCalibration("ours.json", (1.5, 8.0), ("0", "1", "2 or 3")).grade(1.5)
            '1'
        """
        return self.grades[sum(fat_area_percent >= limit for limit in self.limits_percent)]


def read_grade_calibration(path):
    """
    Read a calibration file: JSON with ``grades``, a list in ascending order; each has a name
    (``grade``) and, but for the last, the fat area that it stays below (``below_percent``).

    Args:
        path (str or Path): the file.

    Returns:
        GradeCalibration: named after the file.

    Raises:
        InputError: the file is missing or says something else.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"grade calibration '{path}' does not exist; check the path.")
    try:
        records = json.loads(path.read_text(encoding="utf-8"))["grades"]
        limits = tuple(float(record["below_percent"]) for record in records[:-1])
        grades = tuple(str(record["grade"]) for record in records)
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"grade calibration '{path}' cannot be read ({error!r}); expected JSON such as "
            f"{_EXAMPLE}."
        ) from None
    is_ascending = all(low < high for low, high in itertools.pairwise(limits))
    if not grades or not is_ascending or not all(map(math.isfinite, limits)):
        raise InputError(
            f"grade calibration '{path}' has the limits {list(limits)} for {len(grades)} grades; "
            f"expected ascending limits, such as {_EXAMPLE}."
        )
    return GradeCalibration(path.name, limits, grades)
