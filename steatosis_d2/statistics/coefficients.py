"""
How two sets of values of the same cases agree.

All functions take arrays of shape (..., n) and reduce the last axis, so that the resamples of a
bootstrap go through in one call.
"""

import numpy as np
from scipy import stats

# 95% of normally distributed differences (Bland and Altman, Lancet 1986;327:307).
LIMITS_SD = 1.96


def pearson(x, y):
    """
    Pearson's correlation.

    Args:
        x, y (ndarray): shape (..., n).

    Returns:
        ndarray: shape (...); NaN where one of them is constant.
    """
    x, y = _center(x), _center(y)
    with np.errstate(invalid="ignore"):
        return (x * y).sum(axis=-1) / np.sqrt((x**2).sum(axis=-1) * (y**2).sum(axis=-1))


def spearman(x, y):
    """Spearman's rank correlation; arguments and result as for :func:`pearson`."""
    return pearson(stats.rankdata(x, axis=-1), stats.rankdata(y, axis=-1))


def concordance(x, y):
    """
    Lin's concordance correlation coefficient (Biometrics 1989;45:255), with moments over n.

    Arguments and result as for :func:`pearson`.
    """
    covariance = (_center(x) * _center(y)).mean(axis=-1)
    shift = x.mean(axis=-1) - y.mean(axis=-1)
    with np.errstate(invalid="ignore"):
        return 2 * covariance / (x.var(axis=-1) + y.var(axis=-1) + shift**2)


def icc_agreement(x, y):
    """
    ICC(2,1): two-way random effects, absolute agreement, a single measurement
    (Shrout and Fleiss, Psychol Bull 1979;86:420).

    Arguments and result as for :func:`pearson`.
    """
    subjects, raters, rest = _mean_squares(x, y)
    with np.errstate(invalid="ignore"):
        return (subjects - rest) / (subjects + rest + 2 * (raters - rest) / x.shape[-1])


def icc_consistency(x, y):
    """ICC(3,1): two-way mixed effects, consistency; otherwise as :func:`icc_agreement`."""
    subjects, _, rest = _mean_squares(x, y)
    with np.errstate(invalid="ignore"):
        return (subjects - rest) / (subjects + rest)


def bias(x, y):
    """Mean of x - y."""
    return (x - y).mean(axis=-1)


def lower_limit(x, y):
    """Lower 95% limit of agreement of x - y (Bland and Altman 1986)."""
    return bias(x, y) - LIMITS_SD * (x - y).std(axis=-1, ddof=1)


def upper_limit(x, y):
    """Upper 95% limit of agreement of x - y (Bland and Altman 1986)."""
    return bias(x, y) + LIMITS_SD * (x - y).std(axis=-1, ddof=1)


def weighted_kappa(true, predicted):
    """
    Cohen's kappa with quadratic weights (Psychol Bull 1968;70:213).

    For these weights it is :func:`concordance` of the grades' numbers (Fleiss and Cohen, Educ
    Psychol Meas 1973;33:613).

    Args:
        true, predicted (ndarray): whole numbers from 0 on, shape (..., n).

    Returns:
        ndarray: shape (...); NaN where all are of one and the same grade.
    """
    return concordance(np.asarray(true, np.float64), np.asarray(predicted, np.float64))


def accuracy(true, predicted):
    """Share of equal values; arguments and result as for :func:`weighted_kappa`."""
    return (np.asarray(true) == np.asarray(predicted)).mean(axis=-1)


def _center(values):
    values = np.asarray(values, np.float64)
    return values - values.mean(axis=-1, keepdims=True)


def _mean_squares(x, y):
    """Of subjects, raters and rest, in the analysis of variance of n subjects and two raters."""
    n = x.shape[-1]
    both = np.stack([x, y], axis=-2).astype(np.float64)
    of_subjects, of_raters = both.mean(axis=-2), both.mean(axis=-1)
    subjects = 2 * of_subjects.var(axis=-1) * n / (n - 1)
    raters = n * of_raters.var(axis=-1) * 2
    rest = (
        both
        - of_subjects[..., None, :]
        - of_raters[..., None]
        + both.mean(axis=(-2, -1))[..., None, None]
    )
    return subjects, raters, (rest**2).sum(axis=(-2, -1)) / (n - 1)
