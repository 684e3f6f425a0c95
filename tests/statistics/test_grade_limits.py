"""Limits between grades: the best there are, judged on what they did not see."""

import itertools

import numpy as np
import pytest

from steatosis_d2.errors import InputError
from steatosis_d2.statistics.coefficients import weighted_kappa
from steatosis_d2.statistics.grade_limits import (
    fit_grades,
    fit_limits,
    order_grades,
    predict_grades,
)


@pytest.mark.parametrize("seed", range(40))
def test_no_other_limits_agree_better(seed):
    """Against all partitions of a few cases."""
    rng = np.random.default_rng(seed)
    n_grades, n = rng.integers(2, 5), rng.integers(8, 15)
    true = np.concatenate([np.arange(n_grades), rng.integers(0, n_grades, n - n_grades)])
    values = np.round(2 * true + rng.normal(0, 2, n), 1)
    levels = np.unique(values)
    middles = (levels[1:] + levels[:-1]) / 2
    limits = fit_limits(values, true, n_grades)
    assert (np.diff(limits) > 0).all()
    best = max(
        weighted_kappa(true, predict_grades(values, np.array(chosen)))
        for chosen in itertools.combinations(middles, n_grades - 1)
    )
    assert weighted_kappa(true, predict_grades(values, limits)) == pytest.approx(best)


def simulate(n, rng, *, limits=(2.0, 6.0, 14.0), noise=0.15):
    """Cases whose grade is that of their true fat area, which is measured with an error."""
    fat = np.exp(rng.uniform(np.log(0.3), np.log(40), n))
    true = np.searchsorted(limits, fat)
    return fat * np.exp(rng.normal(0, noise, n)), [str(grade) for grade in true]


def test_true_limits_lie_in_their_intervals():
    rng = np.random.default_rng(0)
    held = np.zeros(3)
    for seed in range(20):
        fit = fit_grades(*simulate(150, rng), seed=seed)
        low, high = fit.limits_interval.T
        held += (low <= (2, 6, 14)) & (high >= (2, 6, 14))
    assert (held >= 17).all()


def test_grades_that_are_separate_are_found_exactly():
    values = np.array([0.1, 0.2, 0.3, 5, 6, 7, 20, 21, 22])
    fit = fit_grades(values, list("000111222"))
    assert fit.limits == pytest.approx([(0.3 + 5) / 2, (7 + 20) / 2])
    assert fit.figures["weighted_kappa"][0] == 1
    assert np.array_equal(fit.confusion, 3 * np.eye(3))
    [first, second] = fit.cut_offs
    assert (first["sensitivity"], first["specificity"], first["auc"]) == (1, 1, 1)
    assert second["grade"] == "2"
    assert second["sensitivity_low"] == pytest.approx(0.4385, abs=1e-3)  # Wilson, 3 of 3


def test_a_measure_that_tells_nothing_is_judged_so():
    rng = np.random.default_rng(0)
    grades = [str(grade) for grade in rng.integers(0, 3, 90)]
    kappa, low, _ = fit_grades(rng.normal(size=90), grades).figures["weighted_kappa"]
    assert low < 0.1 and kappa < 0.25


@pytest.mark.parametrize(
    ("grades", "order", "expected"),
    [
        (["10", "2", "0"], None, ("0", "2", "10")),
        (["S3", "S0", "S1"], None, ("S0", "S1", "S3")),
        (["mild", "none"], ["none", "mild", "severe"], ("none", "mild")),
    ],
)
def test_grades_have_an_order(grades, order, expected):
    assert order_grades(grades, order=order) == expected


def test_grades_without_an_order_are_refused():
    with pytest.raises(InputError, match=r"no order of their own.*--order"):
        order_grades(["mild", "none"])
    with pytest.raises(InputError, match="'bad' is not in the order none, mild"):
        order_grades(["bad", "none"], order=["none", "mild"])


@pytest.mark.parametrize("grades", [list("000011"), list("0000000")])
def test_too_few_cases_are_refused(grades):
    with pytest.raises(InputError, match=r"of grade 0.*at least 3 cases of each"):
        fit_grades(np.arange(len(grades)), grades)


def test_fewer_values_than_grades_are_refused():
    with pytest.raises(InputError, match="2 different values for 3 grades"):
        fit_grades([1, 1, 1, 1, 2, 2, 2, 2, 2], list("000111222"))
