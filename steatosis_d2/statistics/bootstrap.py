"""Intervals by the bootstrap."""

import warnings

import numpy as np
from scipy import stats

LEVEL = 0.95
N_RESAMPLES = 2000


def bootstrap_interval(statistic, *samples, seed=0):
    """
    95% interval of a statistic of cases, by the bias-corrected and accelerated bootstrap
    (Efron, J Am Stat Assoc 1987;82:171).

    Args:
        statistic (callable): arrays of shape (..., n) -> array of shape (...).
        samples (ndarray): shape (n,); cases are drawn, with all that is known of them.
        seed (int): of the draws.

    Returns:
        tuple[float, float]: NaN where it is not defined, such as the correlation of a constant.
            Where resamples are too much alike for the correction, percentiles take its place.
    """
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")  # of degenerate resamples, which are dealt with below
        result = stats.bootstrap(
            samples,
            lambda *resampled, axis: statistic(*resampled),
            paired=True,
            vectorized=True,
            confidence_level=LEVEL,
            n_resamples=N_RESAMPLES,
            rng=np.random.default_rng(seed),
        )
        low, high = result.confidence_interval
        if not np.isfinite([low, high]).all():
            outside = 100 * (1 - LEVEL) / 2
            low, high = np.nanpercentile(result.bootstrap_distribution, [outside, 100 - outside])
    return float(low), float(high)
