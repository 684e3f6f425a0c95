"""Coefficients of agreement against published packages, and against simulated truths."""

import numpy as np
import pandas as pd
import pingouin
import pytest
from sklearn.metrics import cohen_kappa_score

from steatosis_d2.statistics import coefficients
from steatosis_d2.statistics.bootstrap import bootstrap_interval


@pytest.fixture(params=[0, 1, 2])
def pair(request):
    """Two measurements of 40 cases, with ties, a shift and another scale."""
    rng = np.random.default_rng(request.param)
    x = np.round(rng.gamma(2, 5, 40), 1)
    return x, np.round(0.8 * x + 1 + rng.normal(0, 2, 40), 1)


def test_correlations_are_pingouins(pair):
    for method in ("pearson", "spearman"):
        expected = pingouin.corr(*pair, method=method)["r"].iloc[0]
        assert getattr(coefficients, method)(*pair) == pytest.approx(expected, abs=1e-6)


def test_intraclass_correlations_are_pingouins(pair):
    x, y = pair
    long = pd.DataFrame(
        {
            "case": np.tile(np.arange(40), 2),
            "rater": np.repeat(["x", "y"], 40),
            "value": np.concatenate([x, y]),
        }
    )
    table = pingouin.intraclass_corr(long, targets="case", raters="rater", ratings="value")
    expected = table.set_index("Type")["ICC"]
    assert coefficients.icc_agreement(x, y) == pytest.approx(expected["ICC(A,1)"], abs=1e-6)
    assert coefficients.icc_consistency(x, y) == pytest.approx(expected["ICC(C,1)"], abs=1e-6)


def test_weighted_kappa_is_scikit_learns():
    rng = np.random.default_rng(0)
    for _ in range(20):
        true, predicted = rng.integers(0, 4, (2, 30))
        expected = cohen_kappa_score(true, predicted, weights="quadratic")
        assert coefficients.weighted_kappa(true, predicted) == pytest.approx(expected, abs=1e-9)


def test_limits_of_agreement_are_those_of_the_differences(pair):
    x, y = pair
    assert coefficients.bias(x, y) == pytest.approx((x - y).mean())
    half = 1.96 * np.std(x - y, ddof=1)
    assert coefficients.upper_limit(x, y) == pytest.approx((x - y).mean() + half)
    assert coefficients.lower_limit(x, y) == pytest.approx((x - y).mean() - half)


def test_concordance_falls_with_a_shift_that_correlation_does_not_see(pair):
    x, _ = pair
    assert coefficients.concordance(x, x) == pytest.approx(1)
    assert coefficients.pearson(x, x + 5) == pytest.approx(1)
    shifted = coefficients.concordance(x, x + x.std())
    assert shifted == pytest.approx(2 / 3)  # 2 v / (2 v + v)


def test_many_resamples_go_through_at_once(pair):
    both = np.stack([np.stack(pair), np.stack(pair[::-1])], axis=1)
    for name in ("pearson", "spearman", "concordance", "icc_agreement", "upper_limit"):
        function = getattr(coefficients, name)
        together = function(both[0], both[1])
        assert together == pytest.approx([function(*pair), function(*pair[::-1])])


def test_a_constant_has_no_correlation():
    assert np.isnan(coefficients.pearson(np.ones(5), np.arange(5.0)))


@pytest.mark.parametrize("name", ["pearson", "icc_agreement", "concordance", "bias"])
def test_simulated_truths_lie_in_their_intervals(name):
    """Of 100 cohorts of 40 cases with a true correlation of 0.9, 90 or more hold the truth."""
    rng = np.random.default_rng(0)
    truth = 0.0 if name == "bias" else 0.9
    held = 0
    for seed in range(100):
        common = rng.normal(0, np.sqrt(0.9), 40)
        x, y = common + rng.normal(0, np.sqrt(0.1), (2, 40))
        low, high = bootstrap_interval(getattr(coefficients, name), x, y, seed=seed)
        held += low <= truth <= high
    assert 88 <= held <= 100


def test_an_interval_of_what_is_not_defined_is_none():
    assert np.isnan(bootstrap_interval(coefficients.pearson, np.ones(6), np.arange(6.0))).all()
