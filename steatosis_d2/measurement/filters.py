"""Which instances count: thresholds on the columns of their table, absolute or relative."""

import operator
import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from steatosis_d2.errors import InputError
from steatosis_d2.measurement import morphology

# Guo et al. 2019 keep what has a size, perimeter and eccentricity within these multiples of the
# mean over the image (section 2.3; the figures are those of the authors' code).
PAPER_RULES = (
    "area>=0.001*mean",
    "area<=6*mean",
    "perimeter>=0.5*mean",
    "perimeter<=4*mean",
    "eccentricity>=0.2*mean",
    "eccentricity<=1.5*mean",
)
NAMED = {"paper": PAPER_RULES, "none": ()}

_COMPARISONS = {">=": operator.ge, "<=": operator.le, ">": operator.gt, "<": operator.lt}
_AVERAGES: dict[str, Callable] = {"mean": np.mean, "median": np.median}
_RULE = re.compile(
    r"\s*(?P<measure>[a-z_0-9]+?)\s*(?P<comparison>>=|<=|>|<)\s*"
    r"(?P<factor>[0-9.]+(?:e[-+]?[0-9]+)?)\s*(?:\*\s*(?P<average>mean|median))?\s*"
)
# The distance to a neighbour is left out: it depends on what else is dropped.
_LENGTHS = [length for length in morphology.LENGTHS if length != "nearest_neighbour"]
_UNITS = {"area": ("_um2", "_px"), **dict.fromkeys(_LENGTHS, ("_um", "_px"))}
# These have the same name with and without a pixel size.
_PLAIN = (*morphology.FORMS, "touching", "score", "width_px", "height_px")


@dataclass(frozen=True)
class Rule:
    """
    What an instance must fulfil to be kept.

    Attributes:
        measure (str): a column of the table, or its name without the unit.
        comparison (str): ``>=``, ``<=``, ``>`` or ``<``.
        factor (float): the threshold, or what the average is multiplied by.
        average (str or None): ``mean`` or ``median`` over the input; None for an absolute one.
    """

    measure: str
    comparison: str
    factor: float
    average: str | None = None

    def __str__(self):
        average = f"*{self.average}" if self.average else ""
        return f"{self.measure}{self.comparison}{self.factor:g}{average}"

    def column(self, table):
        """Name of the rule's column in a table with or without a pixel size."""
        names = (self.measure + unit for unit in ("", *_UNITS.get(self.measure, ())))
        return next(name for name in names if name in table)

    def is_met(self, table):
        """Which rows of a table meet the rule: bool, shape (n,)."""
        values = table[self.column(table)].to_numpy(np.float64)
        threshold = self.factor
        if self.average:
            threshold *= _AVERAGES[self.average](values)
        return _COMPARISONS[self.comparison](values, threshold)


def parse_rules(texts):
    """
    Read rules as a user writes them.

    Args:
        texts (list[str]): each ``paper``, ``none``, or one or more rules with commas between
            them, such as ``area_um2>=5`` and ``eccentricity<=1.5*mean``.

    Returns:
        list[Rule]: all of them; an instance must meet every one.

    Raises:
        InputError: what is neither, with the columns that there are.

    Examples:
        >>> [str(rule) for rule in parse_rules(["solidity >= 0.8, area <= 6 * mean"])]
        ['solidity>=0.8', 'area<=6*mean']
    """
    rules = []
    for text in texts:
        for part in NAMED.get(text.strip(), text.split(",")):
            rules.append(_parse_rule(part))
    return rules


def check_units(rules, *, mpp, path):
    """
    Refuse rules in um for an input without a pixel size, before hours are spent on it.

    Args:
        rules (list[Rule]): from :func:`parse_rules`.
        mpp (float or None): pixel size of the input in um/px.
        path (str or Path): the input, for the message.

    Raises:
        InputError: the pixel size is not known and a rule needs it, or it is known and a rule is
            in px, where the table has um.
    """
    for rule in rules:
        if mpp is None and rule.measure.endswith(("_um", "_um2")):
            raise InputError(
                f"'{path}' has no pixel size (mpp), which the filter '{rule}' needs; give the "
                "scanner's value, such as --mpp 0.25, or a filter in px or relative to the mean."
            )
        if mpp is not None and rule.measure in {f"{measure}_px" for measure in _UNITS}:
            raise InputError(
                f"'{path}' has a pixel size ({mpp:g} um/px), so it is measured in um; the filter "
                f"'{rule}' is in px. State it in um."
            )


def find_reasons(table, rules):
    """
    Say of each instance why it does not count.

    Averages are over all instances of a category, whatever other rules say of them.

    Args:
        table (pandas.DataFrame): from :func:`~.morphology.measure_instances`.
        rules (list[Rule]): from :func:`parse_rules`.

    Returns:
        pandas.array: str, shape (n,): the first rule that is not met; "" for what is kept.
    """
    reasons = np.full(len(table), "", object)
    for rows in _rows_of_categories(table):
        part = table.iloc[rows]
        for rule in reversed(rules):
            reasons[rows[~rule.is_met(part)]] = str(rule)
    return pd.array(reasons, dtype="string")  # text in Parquet, even where there is none


def select_kept(table):
    """
    The rows that count: without a copy where all do, since tables may have millions.

    Args:
        table (pandas.DataFrame): with ``dropped_by``.

    Returns:
        pandas.DataFrame: rows whose ``dropped_by`` is empty, with their labels; not to be changed.
    """
    is_kept = (table["dropped_by"] == "").to_numpy()
    return table if is_kept.all() else table[is_kept]


def select_category(table, category):
    """
    The rows of one category: without a copy where there is no other.

    Args:
        table (pandas.DataFrame): with a column ``category``, or all of one.
        category (str): its name.

    Returns:
        pandas.DataFrame: with their labels; not to be changed.
    """
    if "category" not in table:
        return table
    is_wanted = (table["category"] == category).to_numpy()
    return table if is_wanted.all() else table[is_wanted]


def _rows_of_categories(table):
    """Numbers of the rows of each category that the table has."""
    if "category" not in table:
        return [np.arange(len(table))] if len(table) else []
    codes = table["category"].cat.codes.to_numpy()
    return [np.flatnonzero(codes == code) for code in np.unique(codes)]


def _parse_rule(text):
    match = _RULE.fullmatch(text)
    measures = [*_UNITS, *_PLAIN]
    names = [*(name + unit for name, units in _UNITS.items() for unit in units), *_PLAIN]
    if not match or match["measure"] not in {*measures, *names}:
        raise InputError(
            f"filter '{text.strip()}' is not understood; expected {', '.join(NAMED)}, or a column, "
            "one of >=, <=, >, <, and a number or a multiple of mean or median, such as "
            f"'area_um2>=5' or 'eccentricity<=1.5*mean'. Columns: {', '.join(names)}."
        )
    try:
        rule = Rule(match["measure"], match["comparison"], float(match["factor"]), match["average"])
    except ValueError:
        raise InputError(
            f"filter '{text.strip()}': '{match['factor']}' is not a number; write it as 0.5 or 5."
        ) from None
    if rule.measure in _UNITS and not rule.average:
        units = " or ".join(f"{rule.measure}{unit}" for unit in _UNITS[rule.measure])
        raise InputError(
            f"filter '{rule}' has no unit; write {units}, or a multiple of the mean or median."
        )
    return rule
