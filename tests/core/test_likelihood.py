"""Likelihoods against SciPy's distributions, and their scales against maximum likelihood by brute force."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import optimize, stats

from dso_robotics.core.likelihood import Normal, Student, likelihood

R = np.array([-30.0, -2.0, -1e-8, 0.0, 1e-3, 0.7, 5.0, 200.0])
KINDS = [(Normal(), stats.norm()), (Student(4.0), stats.t(4.0)), (Student(1.5), stats.t(1.5))]


@pytest.mark.parametrize(("distribution", "density"), KINDS)
def test_cost_is_the_negative_log_density_and_all_else_follows_from_it(distribution, density):
    constant = distribution.log_normaliser + 0.5 * np.log(2 * np.pi)
    np.testing.assert_allclose(distribution.cost(R) + constant, -density.logpdf(R), rtol=1e-12)
    np.testing.assert_allclose(0.5 * distribution.whiten(R) ** 2, distribution.cost(R), rtol=1e-12, atol=1e-300)
    assert (np.sign(distribution.whiten(R)) == np.sign(R)).all()
    h = 1e-5 * np.maximum(1, np.abs(R))
    slope = (distribution.whiten(R + h) - distribution.whiten(R - h)) / (2 * h)
    np.testing.assert_allclose(distribution.slope(R), slope, rtol=1e-6)
    by_r = (distribution.cost(R + h) - distribution.cost(R - h)) / (2 * h)
    np.testing.assert_allclose(distribution.weight(R) * R, by_r, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(("distribution", "density"), KINDS)
def test_jax_gives_the_same_numbers_and_derivatives(distribution, density):
    for name in ("cost", "weight", "whiten", "slope"):
        function = getattr(distribution, name)
        np.testing.assert_allclose(jax.jit(function)(jnp.asarray(R)), function(R), rtol=1e-12)
    by_r = jax.vmap(jax.grad(distribution.cost))(jnp.asarray(R))
    np.testing.assert_allclose(by_r, distribution.weight(R) * R, rtol=1e-12, atol=1e-300)


@pytest.mark.parametrize("array", [np.asarray, jnp.asarray])
def test_channels_may_have_degrees_of_their_own(array):
    degrees, errors = np.array([1.5, 4.0, 100.0]), np.random.default_rng(0).normal(size=(4, 5, 3))
    several = Student(degrees)
    found = several.cost(array(errors)) + several.log_normaliser + 0.5 * np.log(2 * np.pi)
    np.testing.assert_allclose(found, -stats.t(degrees).logpdf(errors), rtol=1e-12)
    for name in ("weight", "whiten", "slope"):
        together = getattr(several, name)(array(errors))
        for c, v in enumerate(degrees):
            np.testing.assert_allclose(together[..., c], getattr(Student(v), name)(errors[..., c]), rtol=1e-12)


def test_no_degrees_of_freedom_mean_normal_errors():
    assert isinstance(likelihood(None), Normal)
    np.testing.assert_allclose(likelihood(1e9).cost(R[1:-1]), likelihood(None).cost(R[1:-1]), rtol=1e-6)


def test_scales_maximise_the_likelihood_of_each_group():
    rng, degrees = np.random.default_rng(0), np.array([4.0, 2.0])
    errors = 0.3 * rng.standard_t(degrees, size=(6, 50, 2)) * np.array([1.0, 20.0])
    errors[0, :10] = np.nan
    members = np.repeat(np.eye(2), 3, axis=1)
    found = Student(degrees).scale(errors**2, members, np.ones((2, 2)), rounds=40)
    normal = Normal().scale(errors**2, members, np.ones((2, 2)))
    for g in range(2):
        for c in range(2):
            e = errors[3 * g : 3 * g + 3, :, c].ravel()
            e = e[np.isfinite(e)]
            best = optimize.minimize_scalar(
                lambda log, e=e, v=degrees[c]: -stats.t(v, scale=np.exp(log)).logpdf(e).sum(),
                bounds=(-6, 6),
                method="bounded",
            )
            assert found[g, c] == pytest.approx(np.exp(best.x), rel=1e-3)
            assert normal[g, c] == pytest.approx(np.sqrt(np.mean(e**2)), rel=1e-12)
    floor = np.array([1e3, 0.0])
    np.testing.assert_array_equal(Normal().scale(errors**2, members, np.ones((2, 2)), floor=floor)[:, 0], 1e3)
    np.testing.assert_array_equal(Student().scale(errors**2, members, np.ones((2, 2)), floor=floor)[:, 0], 1e3)
