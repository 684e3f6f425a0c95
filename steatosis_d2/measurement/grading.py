"""Steatosis grades from fat area, by limits that the user brings or fits."""

import itertools
import json
import math
from dataclasses import dataclass
from pathlib import Path

from steatosis_d2.errors import InputError

FAT_AREA = "fat_area_percent"
_EXAMPLE = '{"grades": [{"grade": "0", "below": 1.5}, ..., {"grade": "3"}]}'


@dataclass(frozen=True)
class GradeCalibration:
    """
    Grades over fat area, or another measure, as found by someone on cases of known grade.

    Pathologists' grades count cells with fat, not area (Kleiner et al. 2005), so no such limits
    hold for every scanner, stain and model, and none are built in.

    Attributes:
        name (str): of the file, to be shown wherever the grade is.
        limits (tuple[float]): ascending; the upper limit, exclusive, of all grades but the last.
        grades (tuple[str]): one more than limits.
        measure (str): the column of ``summary.csv`` that they are of.
        basis (str): on what cases they rest; empty where the file does not say.
        weights_sha256 (str or None): of the network that measured these cases.
    """

    name: str
    limits: tuple[float, ...]
    grades: tuple[str, ...]
    measure: str = FAT_AREA
    basis: str = ""
    weights_sha256: str | None = None

    def grade(self, value):
        """
        Grade of a value of the measure.

        Examples:
            >>> GradeCalibration("ours.json", (1.5, 8.0), ("0", "1", "2 or 3")).grade(1.5)
            '1'
        """
        return self.grades[sum(value >= limit for limit in self.limits)]


def read_grade_calibration(path):
    """
    Read a calibration file: JSON with ``grades``, a list in ascending order; each has a name
    (``grade``) and, but for the last, the value that it stays below (``below``). ``grades fit``
    writes what else it may hold: ``measure``, ``cases``, ``graded_by`` and ``model``.

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
        content = json.loads(path.read_text(encoding="utf-8"))
        records = content["grades"]
        limits = tuple(float(_limit_of(record)) for record in records[:-1])
        grades = tuple(str(record["grade"]) for record in records)
        weights = (content.get("model") or {}).get("weights_sha256")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
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
    return GradeCalibration(
        path.name,
        limits,
        grades,
        measure=str(content.get("measure", FAT_AREA)),
        basis=_describe_basis(content),
        weights_sha256=weights,
    )


def _limit_of(record):
    """``below_percent`` is what files without a measure called it."""
    return record["below"] if "below" in record else record["below_percent"]


def _describe_basis(content):
    if "cases" not in content:
        return ""
    return f"{content['cases']} cases, {content.get('graded_by', 'graders not named')}"
