"""Draws from a cut-off normal against its closed form and against rejection."""

import numpy as np
import pytest
from scipy import stats

from dso_robotics.core.truncated import truncated_normal


def test_far_beyond_a_bound_the_draws_are_those_of_the_tail():
    """The mean is eight deviations below the bound: plain draws never get there."""
    low, high, inside = np.array([8.0, -np.inf]), np.full(2, np.inf), np.array([8.5, 0.0])
    rng = np.random.default_rng(0)
    found = truncated_normal(rng, np.zeros(2), np.eye(2), low, high, 2000, inside=inside)
    assert stats.kstest(found[:, 0], stats.truncnorm(8, np.inf).cdf).statistic < 0.045
    assert stats.kstest(found[:, 1], stats.norm.cdf).statistic < 0.045


def test_correlations_survive_the_cut():
    cov = np.array([[1.0, 0.95], [0.95, 1.0]])
    low, high = np.array([2.6, -np.inf]), np.full(2, np.inf)
    exact = np.random.default_rng(1).multivariate_normal(np.zeros(2), cov, 2_000_000)
    exact = exact[exact[:, 0] >= 2.6]
    rng = np.random.default_rng(2)
    found = truncated_normal(rng, np.zeros(2), cov, low, high, 3000, inside=np.array([3.0, 3.0]))
    for i in range(2):
        assert stats.ks_2samp(found[:, i], exact[:, i]).statistic < 0.045
    assert np.corrcoef(found.T)[0, 1] == pytest.approx(np.corrcoef(exact.T)[0, 1], abs=0.06)


def test_a_number_that_nothing_holds_fills_its_bounds():
    cov, high = np.diag([1e12, 1.0]), np.array([3.0, np.inf])
    found = truncated_normal(
        np.random.default_rng(3), np.zeros(2), cov, np.array([1.0, -np.inf]), high, 2000, inside=np.array([2.0, 0.0])
    )
    assert stats.kstest(found[:, 0], stats.uniform(1, 2).cdf).statistic < 0.045
