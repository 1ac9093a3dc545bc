"""Likelihoods against SciPy's distributions, and their scales against maximum likelihood by brute force."""

import numpy as np
import pytest
from scipy import optimize, stats

from dso_robotics.costs.likelihood import Normal, Student


@pytest.mark.parametrize(("likelihood", "density"), [(Normal(), stats.norm()), (Student(4.0), stats.t(4.0))])
def test_cost_is_the_negative_log_density_and_slope_its_derivative(likelihood, density):
    r = np.array([-30.0, -2.0, -1e-8, 0.0, 1e-3, 0.7, 5.0, 200.0])
    cost = 0.5 * likelihood.whiten(r) ** 2
    np.testing.assert_allclose(cost - cost[3], density.logpdf(0.0) - density.logpdf(r), rtol=1e-9, atol=1e-12)
    h = 1e-5 * np.maximum(1, np.abs(r))
    slope = (likelihood.whiten(r + h) - likelihood.whiten(r - h)) / (2 * h)
    np.testing.assert_allclose(likelihood.slope(r), slope, rtol=1e-6)


def test_scales_maximise_the_likelihood_of_each_group():
    rng = np.random.default_rng(0)
    errors = 0.3 * rng.standard_t(4, size=(6, 50, 2)) * np.array([1.0, 20.0])
    errors[0, :10] = np.nan
    members = np.repeat(np.eye(2), 3, axis=1)
    found = Student(4.0).scale(errors**2, members, np.ones((2, 2)))
    for g in range(2):
        for c in range(2):
            e = errors[3 * g : 3 * g + 3, :, c].ravel()
            e = e[np.isfinite(e)]
            best = optimize.minimize_scalar(
                lambda log, e=e: -stats.t(4.0, scale=np.exp(log)).logpdf(e).sum(), bounds=(-6, 6), method="bounded"
            )
            assert found[g, c] == pytest.approx(np.exp(best.x), rel=1e-3)
