"""Randomised smoothing against closed forms: a polynomial, a jump and a stiff wall."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from dso_robotics.core.gradient.mixed import combine
from dso_robotics.core.gradient.smoothing import differenced, first_order, noisy_points, zeroth_order
from dso_robotics.errors import DsoError

X, SIGMA, COUNT = jnp.array([0.4, -0.3]), 0.5, 20_000


def cubic(points):
    return points[:, 0] ** 3 + points[:, 0] * points[:, 1]


# d/dx E[(x + w)^3 + (x + w)(y + v)].
CUBIC = np.array([3 * (0.4**2 + SIGMA**2) - 0.3, 0.4])


def within(estimate, exact, errors=4.0):
    return np.all(np.abs(np.asarray(estimate.gradient) - exact) < errors * np.asarray(estimate.standard_error) + 1e-6)


def test_both_orders_are_unbiased_on_a_smooth_function_and_the_first_has_less_variance():
    first = first_order(jax.random.key(0), differenced(cubic, step=1e-4), X, sigma=SIGMA, count=COUNT)
    zeroth = zeroth_order(jax.random.key(1), cubic, X, sigma=SIGMA, count=COUNT)
    assert within(first, CUBIC)
    assert within(zeroth, CUBIC)
    assert np.all(np.asarray(first.standard_error) < np.asarray(zeroth.standard_error))
    assert int(first.samples) == COUNT // 2
    assert int(zeroth.samples) == COUNT // 2
    both = combine(first, zeroth, (first, zeroth))
    assert np.all(np.asarray(both.standard_error) <= np.asarray(first.standard_error))


def test_first_order_is_blind_to_a_jump_and_its_error_does_not_tell():
    def step(points):
        return (points[:, 0] > 0.0).astype(float)

    exact = np.array([stats.norm.pdf(0.4, scale=SIGMA), 0.0])
    zeroth = zeroth_order(jax.random.key(1), step, X, sigma=SIGMA, count=COUNT)
    assert within(zeroth, exact)
    first = first_order(jax.random.key(0), differenced(step, step=1e-6), X, sigma=SIGMA, count=1000)
    np.testing.assert_array_equal(first.gradient, 0.0)
    np.testing.assert_array_equal(first.standard_error, 0.0)
    # So the weights by inverse variance trust it, wrongly.
    np.testing.assert_array_equal(combine(first, zeroth, (first, zeroth)).gradient, 0.0)


def test_zeroth_order_has_the_smaller_variance_at_a_stiff_wall():
    def wall(points):
        return np.clip(200.0 * points[:, 0], 0.0, 1.0)

    first = first_order(jax.random.key(0), differenced(wall, step=1e-6), X[:1], sigma=SIGMA, count=COUNT)
    zeroth = zeroth_order(jax.random.key(1), wall, X[:1], sigma=SIGMA, count=COUNT)
    assert float(zeroth.standard_error[0]) < 0.3 * float(first.standard_error[0])
    exact = 200.0 * (stats.norm.cdf(0.4, scale=SIGMA) - stats.norm.cdf(0.4 - 1 / 200, scale=SIGMA))
    assert within(zeroth, exact)
    assert within(first, exact)


def test_samples_that_are_not_finite_are_left_out_and_counted():
    def lost(points):
        return np.where(points[:, 0] > 1.0, np.nan, points[:, 0])

    found = zeroth_order(jax.random.key(0), lost, X[:1], sigma=SIGMA, count=1000)
    points = np.asarray(noisy_points(jax.random.key(0), X[:1], sigma=SIGMA, count=1000))[:, 0]
    assert int(found.diverged) == np.sum((points[:500] > 1.0) | (points[500:] > 1.0))
    assert int(found.diverged) > 0
    # What is left are pairs within 0.6 of the middle: E[w^2; |w| < c] / P(|w| < c) / sigma^2, and not the slope of 1.
    c = (1.0 - float(X[0])) / SIGMA
    exact = 1.0 - 2.0 * c * stats.norm.pdf(c) / (2.0 * stats.norm.cdf(c) - 1.0)
    assert within(found, exact)


@pytest.mark.parametrize("wrong", [{"sigma": 0.0}, {"sigma": float("inf")}, {"count": 3}, {"count": 0}])
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(DsoError, match=next(iter(wrong))):
        zeroth_order(jax.random.key(0), cubic, X, **{"sigma": SIGMA, "count": 10, **wrong})
    with pytest.raises(DsoError, match="step"):
        differenced(cubic, step=0.0)
