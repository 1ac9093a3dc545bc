"""Importance sampling against densities whose moments are known in closed form."""

import numpy as np
import pytest
from scipy import stats

from dso_robotics.core.importance import UNRELIABLE_K, generalised_pareto, sample, smoothed

FREE = {"low": np.full(2, -np.inf), "high": np.full(2, np.inf)}


def test_a_normal_density_is_found_from_a_wrong_proposal():
    mean, cov = np.array([1.0, -2.0]), np.array([[1.0, 0.9], [0.9, 2.0]])
    target = stats.multivariate_normal(mean, cov)
    # The first proposal is two deviations away, half as wide and without the correlation.
    rng = np.random.default_rng(0)
    found = sample(target.logpdf, mean + np.array([2.0, 0.0]), np.diag([0.25, 0.5]), rng, count=4000, **FREE)
    assert found.k < 0.5
    assert found.effective > 1500
    assert found.mean() == pytest.approx(mean, abs=4 * np.sqrt(2.0 / found.effective))
    assert found.covariance() == pytest.approx(cov, abs=0.2)


def test_a_bound_cuts_the_density_and_nothing_lies_beyond():
    # A standard normal above 1: mean phi(1) / (1 - Phi(1)).
    rng, low = np.random.default_rng(1), np.array([1.0])
    found = sample(
        lambda z: -0.5 * float(z @ z), np.array([1.0]), np.eye(1), rng, count=4000, low=low, high=np.array([np.inf])
    )
    assert found.z.min() >= 1.0
    assert found.mean()[0] == pytest.approx(stats.norm.pdf(1) / stats.norm.sf(1), abs=0.03)
    equal = found.z[found.resampled(rng, 2000), 0]
    assert np.quantile(equal, [0.1, 0.5, 0.9]) == pytest.approx(
        stats.truncnorm(1, np.inf).ppf([0.1, 0.5, 0.9]), abs=0.06
    )


def test_heavy_weights_are_told_by_their_pareto_shape():
    rng = np.random.default_rng(2)
    for k in (0.3, 0.9):
        raw = stats.genpareto(k).rvs(4000, random_state=rng)
        assert smoothed(np.log(raw))[1] == pytest.approx(k, abs=0.15)
    assert smoothed(np.log(stats.genpareto(1.2).rvs(4000, random_state=rng)))[1] > UNRELIABLE_K


def test_the_pareto_fit_recovers_shape_and_scale():
    x = np.sort(stats.genpareto(0.4, scale=2.0).rvs(2000, random_state=3))
    k, sigma = generalised_pareto(x)
    assert k == pytest.approx(0.4, abs=0.1)
    assert sigma == pytest.approx(2.0, rel=0.15)


def test_no_finite_density_is_said_and_not_hidden():
    rng = np.random.default_rng(4)
    found = sample(lambda z: np.nan, np.zeros(2), np.eye(2), rng, count=100, **FREE)
    assert found.k == np.inf
