"""
Limits of a measure between ordinal grades: fitted on cases of known grade, and judged.

The limits are those that agree best with the grades, by Cohen's kappa with quadratic weights; they
are found exactly. No form of the relation is assumed, and grades that a measure separates
completely, which a proportional-odds model cannot be fitted to, are nothing special.
"""

import functools
import re
from dataclasses import dataclass

import numpy as np
from scipy import stats

from steatosis_d2.errors import InputError
from steatosis_d2.statistics.bootstrap import LEVEL, bootstrap_interval
from steatosis_d2.statistics.coefficients import accuracy, spearman, weighted_kappa

FEWEST_OF_A_GRADE = 3
_N_RESAMPLES = 500
# Ratios of sums of squares of small numbers, up to rounding
_SAME = 1e-12


@dataclass(frozen=True, eq=False)
class GradeFit:
    """
    Limits, and how well they do on cases that they were not fitted on.

    Attributes:
        grades (tuple[str, ...]): ascending.
        limits (ndarray): shape (n_grades - 1,): a value of a limit or more has the grade above it.
        limits_interval (ndarray): shape (n_grades - 1, 2), 95% by resampled cases.
        values (ndarray): of the measure, shape (n,).
        true (ndarray): numbers of the grades, from 0 on, shape (n,).
        predicted (ndarray): by limits that were fitted without the case, shape (n,).
    """

    grades: tuple[str, ...]
    limits: np.ndarray
    limits_interval: np.ndarray
    values: np.ndarray
    true: np.ndarray
    predicted: np.ndarray

    @property
    def confusion(self):
        """Cases by true grade (row) and predicted one: int, shape (n_grades, n_grades)."""
        n = len(self.grades)
        return np.bincount(n * self.true + self.predicted, minlength=n * n).reshape(n, n)

    @functools.cached_property
    def figures(self):
        """
        Figures of the predictions, each with its 95% interval (dict): ``weighted_kappa``,
        ``accuracy`` and ``spearman`` -> (value, low, high).
        """
        figures = {
            "weighted_kappa": (weighted_kappa, self.true, self.predicted),
            "accuracy": (accuracy, self.true, self.predicted),
            "spearman": (spearman, self.values, self.true),
        }
        return {
            name: (float(function(*samples)), *bootstrap_interval(function, *samples))
            for name, (function, *samples) in figures.items()
        }

    @functools.cached_property
    def cut_offs(self):
        """
        How well each limit tells the grades below it from those above (list[dict]).

        For each limit: ``grade`` (the one that begins there), ``limit``,
            ``limit_low``, ``limit_high``, ``auc`` of the measure itself, and ``sensitivity`` and
            ``specificity`` of the predictions with Wilson's 95% intervals (``_low``, ``_high``).
        """
        rows = []
        for number, limit in enumerate(self.limits, 1):
            is_above, is_called = self.true >= number, self.predicted >= number
            above, below = self.values[is_above], self.values[~is_above]
            row = {
                "grade": self.grades[number],
                "limit": float(limit),
                "limit_low": float(self.limits_interval[number - 1, 0]),
                "limit_high": float(self.limits_interval[number - 1, 1]),
                "auc": float(
                    stats.mannwhitneyu(above, below).statistic / (len(above) * len(below))
                ),
            }
            for name, correct in (
                ("sensitivity", is_called[is_above]),
                ("specificity", ~is_called[~is_above]),
            ):
                test = stats.binomtest(int(correct.sum()), len(correct))
                interval = test.proportion_ci(LEVEL, method="wilson")
                row |= {
                    name: float(correct.mean()),
                    f"{name}_low": float(interval.low),
                    f"{name}_high": float(interval.high),
                }
            rows.append(row)
        return rows


def order_grades(texts, *, order=None):
    """
    The grades that cases have, from the lowest to the highest.

    Args:
        texts (iterable[str]): the grades of all cases.
        order (list[str] or None): all grades, ascending; None orders numbers, or names that end
            in one, such as ``S0``.

    Returns:
        tuple[str, ...]: without repeats.

    Raises:
        InputError: they have no order of their own, or one is not in ``order``.
    """
    found = set(texts)
    if order is not None:
        if unknown := sorted(found - set(order)):
            raise InputError(
                f"the grade '{unknown[0]}' is not in the order {', '.join(order)}; name all "
                "grades, the lowest first."
            )
        return tuple(grade for grade in dict.fromkeys(order) if grade in found)
    matches = [match for grade in found if (match := re.fullmatch(r"(\D*)(\d+)", grade))]
    if len(matches) < len(found) or len({match[1] for match in matches}) > 1:
        raise InputError(
            f"the grades {', '.join(sorted(found))} have no order of their own; expected numbers, "
            "or names such as S0, S1. Say it: --order none mild moderate severe."
        )
    return tuple(match[0] for match in sorted(matches, key=lambda match: int(match[2])))


def fit_limits(values, true, n_grades):
    """
    The limits whose grades agree best with the true ones, by quadratic-weighted kappa.

    Kappa is 1 - N / D, where N = sum (t - p)^2 and D = sum (t - m)^2 + (p - m)^2 over cases of
    grade t, predicted p, with m the mean of t. Both are sums over cases. So for a fixed ratio r the
    best partition of the sorted values minimises N - r D and is found by dynamic programming; with
    r = N / D of the last one it converges to the best ratio in a few rounds (Dinkelbach, Management
    Science 1967;13:492).

    Args:
        values (ndarray): of the measure, shape (n,).
        true (ndarray): int, from 0 to n_grades - 1, shape (n,).
        n_grades (int): each gets one value or more.

    Returns:
        ndarray: shape (n_grades - 1,), ascending, each in the middle between two values.

    Raises:
        InputError: there are fewer different values than grades.
    """
    levels, place = np.unique(values, return_inverse=True)
    if len(levels) < n_grades:
        raise InputError(
            f"the measure has {len(levels)} different values for {n_grades} grades; expected at "
            "least one for each. Give more cases, or fewer grades."
        )
    grades = np.arange(n_grades)[:, None]
    count = np.bincount(place, minlength=len(levels))
    total = np.bincount(place, true, minlength=len(levels))
    squares = np.bincount(place, true**2, minlength=len(levels))
    mean = true.mean()
    # Sums of (t - p)^2 and of (t - m)^2 + (p - m)^2, by predicted grade and level
    errors = squares - 2 * grades * total + grades**2 * count
    spread = squares - 2 * mean * total + mean**2 * count + (grades - mean) ** 2 * count
    columns = np.arange(len(levels))
    ratio, starts = np.inf, np.arange(1, n_grades)
    trial = 0.0
    while True:
        candidate = _partition(errors - trial * spread)
        predicted = np.searchsorted(candidate, columns, side="right")
        trial = errors[predicted, columns].sum() / spread[predicted, columns].sum()
        if trial >= ratio - _SAME:
            return (levels[starts - 1] + levels[starts]) / 2
        ratio, starts = trial, candidate


def predict_grades(values, limits):
    """Numbers of the grades of values, from 0 on (ndarray)."""
    return np.searchsorted(limits, values, side="right")


def fit_grades(values, grades, *, order=None, seed=0):
    """
    Fit limits, and judge them on cases that were left out, one at a time.

    Args:
        values (array): of the measure, shape (n,).
        grades (list[str]): of the same cases.
        order (list[str] or None): as for :func:`order_grades`.
        seed (int): of the resamples.

    Returns:
        GradeFit: limits and judgement.

    Raises:
        InputError: there are fewer than two grades, or too few cases of one.
    """
    names = order_grades(grades, order=order)
    values = np.asarray(values, np.float64)
    true = np.array([names.index(grade) for grade in grades])
    counts = np.bincount(true, minlength=len(names))
    if len(names) < 2 or counts.min() < FEWEST_OF_A_GRADE:
        listed = ", ".join(f"{n} of grade {name}" for name, n in zip(names, counts, strict=True))
        raise InputError(
            f"there are {len(true)} cases: {listed}; expected two grades or more, with at least "
            f"{FEWEST_OF_A_GRADE} cases of each. Add cases, or join grades."
        )
    n = len(true)
    predicted = np.empty(n, int)
    for left_out in range(n):
        rest = np.arange(n) != left_out
        limits = fit_limits(values[rest], true[rest], len(names))
        predicted[left_out] = predict_grades(values[left_out], limits)
    return GradeFit(
        names,
        fit_limits(values, true, len(names)),
        _resample_limits(values, true, len(names), np.random.default_rng(seed)),
        values,
        true,
        predicted,
    )


def _resample_limits(values, true, n_grades, rng):
    """95% intervals of the limits by resampled cases; those without all grades are passed over."""
    found = []
    for _ in range(_N_RESAMPLES):
        drawn = rng.integers(0, len(true), len(true))
        if len(np.unique(true[drawn])) == n_grades <= len(np.unique(values[drawn])):
            found.append(fit_limits(values[drawn], true[drawn], n_grades))
    outside = 100 * (1 - LEVEL) / 2
    return np.percentile(found, [outside, 100 - outside], axis=0).T


def _partition(costs):
    """
    Where the grades begin, so that the costs of all levels together are least.

    Args:
        costs (ndarray): shape (n_grades, n_levels), of a level that gets a grade.

    Returns:
        ndarray: int, shape (n_grades - 1,), ascending: the first level of each grade but the first.
    """
    n_grades, n_levels = costs.shape
    sums = np.concatenate([np.zeros((n_grades, 1)), costs.cumsum(axis=1)], axis=1)
    best = np.where(np.arange(n_levels + 1) > 0, sums[0], np.inf)  # of the first levels, so far
    begins = []
    for own in sums[1:]:
        before = best - own  # a grade that begins at a level
        lowest = np.minimum.accumulate(before)
        is_new = np.concatenate([[True], before[1:] < lowest[:-1]])
        place = np.maximum.accumulate(np.where(is_new, np.arange(n_levels + 1), 0))
        begins.append(place[:-1])
        best = np.concatenate([[np.inf], lowest[:-1] + own[1:]])
    starts, end = [], n_levels
    for place in reversed(begins):
        end = place[end - 1]
        starts.append(end)
    return np.array(starts[::-1])
