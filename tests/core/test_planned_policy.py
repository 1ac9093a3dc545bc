"""Optimal Model Design of a chain: the policy that is optimal for a model, as a function of the model's numbers."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dso_robotics.core.descent import Best, descend
from dso_robotics.core.implicit import ConjugateGradients, Dense, minimiser
from dso_robotics.core.method.first_order import FirstOrder
from dso_robotics.core.method.sampled import Sampled, Stopping
from dso_robotics.core.regulator import regulator
from dso_robotics.core.sampler import ExactSampler
from dso_robotics.errors import DsoError

STARTS = jnp.array([0.3, 0.6]) * jax.random.normal(jax.random.key(4), (12, 2))
PERIOD, STEPS = 0.05, 60


@functools.partial(jax.jit, static_argnums=(2,))
def cost(gains, numbers, lag):
    """Mean cost of a step of an inverted pendulum with mass [kg] and damping [N*m*s/rad], under u = gains . (angle, speed).

    Rod of 1 m, torque of at most 12 N*m, which follows what is asked for with the time constant `lag` [s].
    """
    mass, damping = jnp.exp(numbers)
    follow = 1.0 - jnp.exp(-PERIOD / lag) if lag else 1.0

    def rolled(start):
        def step(carry, _):
            angle, speed, torque = carry
            asked = 12.0 * jnp.tanh((gains[0] * angle + gains[1] * speed) / 12.0)
            torque = torque + follow * (asked - torque)
            speed = speed + PERIOD * (9.81 * jnp.sin(angle) + (torque - damping * speed) / mass)
            angle = angle + PERIOD * speed
            price = 20.0 * jnp.tanh((10.0 * angle**2 + 0.1 * speed**2 + 0.002 * asked**2) / 20.0)
            return (angle, speed, torque), price

        return jnp.mean(jax.lax.scan(step, (*start, jnp.zeros(())), None, length=STEPS)[1])

    return jnp.mean(jax.vmap(rolled)(STARTS))


TRUE, BEGUN = jnp.log(jnp.array([1.0, 0.1])), jnp.array([-20.0, -5.0])


def planned(numbers, **more):
    """The gains that are optimal for the model without a lag."""
    return minimiser(lambda gains, at: cost(gains, at, 0.0), BEGUN, numbers, **more)


@pytest.mark.parametrize("inverse", [ConjugateGradients(symmetric=True), Dense()])
def test_the_gradient_of_the_whole_map_is_that_of_differences(inverse):
    """Numbers -> optimal policy of the model -> cost on the world, which has a lag."""

    @jax.jit
    def whole(numbers):
        return cost(planned(numbers, inverse=inverse, tolerance=1e-8), jnp.asarray(TRUE), 0.04)

    found, step = jax.grad(whole)(TRUE + 0.2), 1e-4
    ends = [(whole(TRUE + 0.2 + step * e) - whole(TRUE + 0.2 - step * e)) / (2 * step) for e in jnp.eye(2)]
    np.testing.assert_allclose(found, ends, rtol=2e-3, atol=1e-6)
    assert np.all(np.abs(found) > 1e-5)


def test_the_minimiser_of_a_linear_quadratic_cost_is_the_regulator():
    a, b = jnp.array([[1.0, 0.1], [0.3, 0.95]]), jnp.array([[0.0], [0.1]])
    q, r = jnp.diag(jnp.array([1.0, 0.1])), jnp.array([[0.05]])

    def horizon(gain, scale):
        def back(value, _):
            loop = a + scale * b @ gain[None]
            return q + gain[:, None] @ r @ gain[None] + loop.T @ value @ loop, None

        return jnp.trace(jax.lax.scan(back, q, None, length=300)[0])

    begun = jnp.array([-12.0, -6.0])
    for scale in (0.8, 1.0):
        exact = -regulator(a, scale * b, q, r)[0][0]
        np.testing.assert_allclose(minimiser(horizon, begun, jnp.asarray(scale)), exact, rtol=1e-5)
    slope = jax.jacobian(lambda scale: minimiser(horizon, begun, scale))(jnp.asarray(0.9))
    exact = jax.jacobian(lambda scale: -regulator(a, scale * b, q, r, inverse=Dense())[0][0])(jnp.asarray(0.9))
    np.testing.assert_allclose(slope, exact, rtol=1e-3)


def test_designed_numbers_lower_the_cost_where_the_likely_ones_cannot():
    """The world's torque is late, the model's is not. The true mass and damping are the most likely ones, and plan badly."""
    lag = 0.15
    method = Sampled(
        FirstOrder(optax.adam(0.1), lambda numbers: jnp.clip(numbers, TRUE - 1.0, TRUE + 1.0)),
        ExactSampler(lambda numbers: cost(planned(numbers), TRUE, lag)),
        stopping=Stopping(noise_floor=False),
    )
    begun = method.init(jax.random.key(0), TRUE)
    keep = Best(lambda state: state.value, take=lambda state: state.theta)
    whole = descend(method, begun, iterations=30, keep=keep)
    assert whole.best is not None
    likely = float(cost(planned(TRUE), TRUE, lag))
    limit = float(cost(minimiser(lambda gains, at: cost(gains, at, lag), planned(whole.best.kept), TRUE), TRUE, lag))
    assert whole.best.cost < 0.8 * likely
    assert limit - 1e-6 <= whole.best.cost < limit + 0.5 * (likely - limit)
    # A run that goes on from a stored state has the numbers of one that was not interrupted.
    half = descend(method, begun, iterations=11)
    rest = descend(method, half.state, iterations=30, past=half.history)
    assert np.array_equal(rest.theta, whole.theta)
    assert rest.history == whole.history


def test_what_has_no_minimum_is_an_error():
    with pytest.raises(RuntimeError, match="no point with a gradient of zero"):
        minimiser(lambda w, at: jnp.sum(at * w), jnp.ones(2), jnp.ones(2), iterations=20)
    for more, told in (({"tolerance": 0.0}, "tolerance"), ({"iterations": 0}, "iterations")):
        with pytest.raises(DsoError, match=told):
            minimiser(lambda w, at: jnp.sum((w - at) ** 2), jnp.ones(2), jnp.ones(2), **more)
