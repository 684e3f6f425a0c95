"""Values of cases, from ``summary.csv`` and from what others know of the same cases."""

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from steatosis_d2.data.pixel_size import read_decimal
from steatosis_d2.errors import InputError
from steatosis_d2.files import drop_suffix
from steatosis_d2.slides.slide import SLIDE_SUFFIXES

logger = logging.getLogger(__name__)

# What a table may call its cases, the best name first.
KEYS = ("case", "file", "file_name", "filename", "name", "slide", "id")
# Of summary.csv: rows that are no slide of their own, or no result.
_NOT_A_SLIDE = ("region", "fault")
_LISTED = 5


@dataclass(frozen=True)
class CaseValues:
    """
    One column of a table, by case.

    Attributes:
        path (Path): of the table.
        column (str): its name there.
        values (dict): case (str) -> str as it is written, never empty.
    """

    path: Path
    column: str
    values: dict[str, str]

    def as_numbers(self):
        """
        The values as numbers.

        Returns:
            dict: case -> float.

        Raises:
            InputError: one is none.
        """
        numbers = {case: read_decimal(text) for case, text in self.values.items()}
        for case, number in numbers.items():
            if number is None or not np.isfinite(number):
                raise InputError(
                    f"'{self.path}': '{self.column}' of case '{case}' is '{self.values[case]}'; "
                    "expected a number. Mend the table, or take the case out."
                )
        return numbers


def read_case_values(path, *, column=None, usual=()):
    """
    Read a column of a table of cases.

    The cases' names are in a column ``case``, ``file``, ``name`` or the like, or in the first one;
    folders and the suffix of a slide do not count. Several rows of one case are averaged over
    their tissue where the table states it, as ``summary.csv`` does. Rows of regions, and of inputs
    that could not be segmented, are passed over.

    Args:
        path (str or Path): CSV file with commas, semicolons or tabs.
        column (str or None): which one; None takes the first of ``usual`` that there is, or the
            only one beside the cases' names.
        usual (tuple[str, ...]): what the column is mostly called.

    Returns:
        CaseValues: by the cases' names.

    Raises:
        InputError: the file is missing or no table, the column is not there, a value is empty, or
            a case is there twice.
    """
    path = Path(path)
    table = _read_table(path)
    for name in _NOT_A_SLIDE:
        if name in table:
            left_out = table[table[name] != ""]
            if name == "fault" and len(left_out):
                logger.warning("'%s': %d inputs with a fault are left out.", path, len(left_out))
            table = table[table[name] == ""]
    key = _find_key(table)
    column = column or _find_column(path, table, key, usual)
    if column not in table:
        raise InputError(
            f"'{path}' has no column '{column}'; it has {', '.join(table.columns)}. Name one."
        )
    cases = [_as_case(text) for text in table[key]]
    empty = [case for case, text in zip(cases, table[column], strict=True) if not text]
    if empty:
        raise InputError(
            f"'{path}' has no '{column}' of {_join(empty)}; expected one for each case. Fill it "
            "in, or take the row out."
        )
    return CaseValues(path, column, _one_a_case(path, table.assign(**{key: cases}), key, column))


def join_cases(first, second, *, skip_missing=False):
    """
    The cases that two tables have in common.

    Args:
        first, second (CaseValues): by case.
        skip_missing (bool): leave out, with a warning, what only one of them has.

    Returns:
        list[str]: cases, in the order of the first.

    Raises:
        InputError: a case is in one of them alone, or none is in both.
    """
    common = [case for case in first.values if case in second.values]
    if not common:
        raise InputError(
            f"'{first.path}' and '{second.path}' have no case in common; the first has "
            f"{_join(list(first.values))}, the second {_join(list(second.values))}. Give the cases "
            "the same names."
        )
    for one, other in ((first, second), (second, first)):
        alone = [case for case in one.values if case not in other.values]
        if alone and not skip_missing:
            raise InputError(
                f"'{other.path}' has no '{other.column}' of {_join(alone)}, which '{one.path}' "
                "has. Add it, or leave such cases out with --skip-missing."
            )
        if alone:
            logger.warning("left out, since '%s' does not have it: %s", other.path, _join(alone))
    return common


def _read_table(path):
    if not path.is_file():
        raise InputError(f"table '{path}' does not exist; check the path.")
    try:
        with path.open(encoding="utf-8-sig") as file:
            names = file.readline()
        table = pd.read_csv(
            path,
            sep=max(",;\t", key=names.count),
            dtype=str,
            keep_default_na=False,
            encoding="utf-8-sig",
        )
    except ValueError as error:  # of pandas, too
        raise InputError(f"table '{path}' cannot be read ({error}); expected a CSV file.") from None
    table = table.rename(columns=str.strip).apply(lambda column: column.str.strip())
    if len(table.columns) < 2 or table.empty:
        raise InputError(
            f"table '{path}' has {len(table)} rows of {len(table.columns)} columns; expected a CSV "
            "file with a line of names, and the case and a value in each line after it."
        )
    return table


def _find_key(table):
    by_name = {name.lower(): name for name in table.columns}
    for key in KEYS:
        if key in by_name and (table[by_name[key]] != "").any():
            return by_name[key]
    return table.columns[0]


def _find_column(path, table, key, usual):
    others = [name for name in table.columns if name != key]
    for name in usual:
        if name in others:
            return name
    if len(others) == 1:
        return others[0]
    raise InputError(
        f"'{path}' has the columns {', '.join(others)}; name the one to take with --column or "
        "--reference-column."
    )


def _as_case(text):
    """The name of a case: without folders, and without the suffix that a slide's file has."""
    path = Path(text.replace("\\", "/"))
    is_file_name = path.name.lower().endswith(tuple(SLIDE_SUFFIXES))
    return drop_suffix(path).name if is_file_name else path.name


def _one_a_case(path, table, key, column):
    """Value of each case; of several slides the mean over their tissue, where it is known."""
    rows_of = table.groupby(key, sort=False)
    twice = [case for case, rows in rows_of if len(rows) > 1]
    if not twice:
        return dict(zip(table[key], table[column], strict=True))
    if "tissue_area_px" not in table or not column.endswith("percent"):
        raise InputError(
            f"'{path}' has {_join(twice)} more than once; expected a row a case. Take out what is "
            "not meant."
        )
    weight = "tissue_area_mm2" if (table["tissue_area_mm2"] != "").all() else "tissue_area_px"
    return {
        case: repr(
            float(np.average(rows[column].astype(float), weights=rows[weight].astype(float)))
        )
        for case, rows in rows_of
    }


def _join(names):
    listed = ", ".join(f"'{name}'" for name in names[:_LISTED])
    return listed + (f" and {len(names) - _LISTED} more" if len(names) > _LISTED else "")
