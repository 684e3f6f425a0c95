"""How a measure agrees with a reference over cases."""

import math
from dataclasses import dataclass

import numpy as np

from steatosis_d2.errors import InputError
from steatosis_d2.statistics import coefficients
from steatosis_d2.statistics.bootstrap import bootstrap_interval
from steatosis_d2.statistics.cases import join_cases

FEWEST_CASES = 4
# Key in files -> name for readers, function. The first two ask whether cases have the same order or
# lie on a line, the others whether the numbers are the same.
COEFFICIENTS = {
    "spearman": ("Spearman's rho", coefficients.spearman),
    "pearson": ("Pearson's r", coefficients.pearson),
    "icc_2_1": ("ICC(2,1), absolute agreement", coefficients.icc_agreement),
    "icc_3_1": ("ICC(3,1), consistency", coefficients.icc_consistency),
    "concordance": ("Lin's concordance", coefficients.concordance),
    "bias": ("mean difference", coefficients.bias),
    "lower_limit": ("lower 95% limit of agreement", coefficients.lower_limit),
    "upper_limit": ("upper 95% limit of agreement", coefficients.upper_limit),
}


@dataclass(frozen=True, eq=False)
class CaseAgreement:
    """
    Two sets of values of the same cases.

    Attributes:
        cases (list[str]): their names.
        measured, reference (ndarray): float64, shape (n,), in the order of the cases.
        measured_name, reference_name (str): what they are called.
        figures (dict): key of :data:`COEFFICIENTS` -> (value, low, high), the latter an interval
            of 95%; NaN where it is not defined.
    """

    cases: list[str]
    measured: np.ndarray
    reference: np.ndarray
    measured_name: str
    reference_name: str
    figures: dict[str, tuple[float, float, float]]

    def as_record(self):
        """All that is known, as JSON values; None where a figure is not defined."""
        return {
            "cases": len(self.cases),
            "measured": self.measured_name,
            "reference": self.reference_name,
            "figures": {
                key: dict(zip(("value", "low", "high"), map(_or_none, figures), strict=True))
                for key, figures in self.figures.items()
            },
        }


def measure_case_agreement(measured, reference, *, skip_missing=False, seed=0):
    """
    Compare a measure with a reference.

    Args:
        measured, reference (CaseValues): numbers by case.
        skip_missing (bool): as for :func:`~.cases.join_cases`.
        seed (int): of the bootstrap over cases.

    Returns:
        CaseAgreement: with all figures.

    Raises:
        InputError: cases do not match, are too few, or a value is no number.
    """
    numbers, reference_numbers = measured.as_numbers(), reference.as_numbers()
    cases = join_cases(measured, reference, skip_missing=skip_missing)
    if len(cases) < FEWEST_CASES:
        raise InputError(
            f"'{measured.path}' and '{reference.path}' have {len(cases)} cases in common; expected "
            f"{FEWEST_CASES} or more."
        )
    x = np.array([numbers[case] for case in cases])
    y = np.array([reference_numbers[case] for case in cases])
    figures = {
        key: (float(function(x, y)), *bootstrap_interval(function, x, y, seed=seed))
        for key, (_, function) in COEFFICIENTS.items()
    }
    return CaseAgreement(cases, x, y, measured.column, reference.column, figures)


def _or_none(value):
    return value if math.isfinite(value) else None
