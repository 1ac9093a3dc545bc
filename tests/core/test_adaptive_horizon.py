"""Value expansion with a horizon set by the measured variance."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dso_robotics.core.chain import Chain
from dso_robotics.core.descent import descend
from dso_robotics.core.gradient.pathwise import pathwise_loss
from dso_robotics.core.method.adaptive_horizon import AdaptiveHorizon
from dso_robotics.core.method.course import Course
from dso_robotics.core.method.settings import Settings
from dso_robotics.core.objective import Episodic, Problem
from dso_robotics.core.value import KnownValue
from dso_robotics.studies import checkpoint

THETA = jnp.array([-0.2, 0.1])


class Wobble(Chain):
    """x' = sin(rate x) + theta0 x + theta1 + noise: chaotic for a large rate."""

    rate: jax.Array

    def initial(self, key, theta):
        return jax.random.normal(key, (1,))

    def draw(self, key, theta, steps):
        return 0.1 * jax.random.normal(key, (steps, 1))

    def move(self, noise, state, theta):
        return jnp.sin(self.rate * state) + theta[0] * state + theta[1] + noise

    def step(self, key, state, theta):
        return self.move(self.draw(key, theta, 1)[0], state, theta)

    def cost(self, state, theta):
        return jnp.sum(state**2) + 0.1 * theta @ theta


@pytest.mark.parametrize("horizon", [1, 3, 4, 7, 12])
def test_a_horizon_that_is_traced_gives_the_gradient_of_a_fixed_one(horizon):
    problem = Problem(Wobble(jnp.asarray(0.9)), Episodic(0.95, 12), theta=THETA)
    value = KnownValue(lambda x: 1.5 * jnp.sum(x**2))
    key = jax.random.key(0)

    def slope(horizon):
        return jax.grad(lambda t: pathwise_loss(key, problem, t, horizon=horizon, value=value)[0])(THETA)

    np.testing.assert_allclose(jax.jit(slope)(jnp.asarray(horizon)), slope(horizon), rtol=1e-12)


def trained(rate, variance, iterations=60):
    chain = Wobble(jnp.asarray(rate))
    course = Course(chain, 1, lambda state, theta: state)
    more = {"learning_rate": 1e-3, "critic_hidden": 8, "critic_updates": 2, "restart": 0.5, "variance": variance}
    settings = Settings(environments=16, horizon=16, iterations=iterations, method="adaptive_horizon", **more)
    rates = np.full(2, settings.learning_rate)
    method = AdaptiveHorizon(course, settings, theta=np.asarray(THETA), blocks=[slice(0, 2)], rates=rates)
    return method, descend(method, method.init(jax.random.key(1), THETA), iterations=iterations)


def test_the_horizon_grows_to_the_longest_on_a_calm_chain_and_stays_short_on_a_chaotic_one():
    method, calm = trained(0.3, 1.0)
    assert int(calm.state.horizon) == 16
    assert "horizon at the end is 16 of at most 16" in calm.message
    _, wild = trained(3.5, 1.0)
    assert 1 <= int(wild.state.horizon) <= 8
    assert float(wild.state.variance) < 3.0 * float(wild.state.level)
    # A bound that nothing exceeds lets it grow there too.
    _, loose = trained(3.5, 1e30)
    assert int(loose.state.horizon) == 16
    # A stored run goes on to the same numbers: the horizon and its running means are part of the state.
    stored = checkpoint.flatten(calm.state)
    again = checkpoint.restore(method.init(jax.random.key(9), THETA), stored, pathlib.Path("run.h5"))
    state, other = (method.step(at)[0] for at in (calm.state, again))
    np.testing.assert_array_equal(state.theta, other.theta)
    np.testing.assert_array_equal(state.variance, other.variance)
    np.testing.assert_array_equal(state.span, other.span)


def test_too_few_good_windows_shorten_the_horizon():
    method, done = trained(0.3, 1.0, iterations=30)
    gradients = jnp.ones((4, 2))
    before = float(done.state.span)
    bad = method._judged(done.state, gradients, jnp.array([True, True, True, False]))
    assert float(bad.span) == pytest.approx(max(0.9 * before, 1.0))
    assert float(bad.variance) == float(done.state.variance)
    same = method._judged(done.state, gradients, jnp.zeros(4, bool))
    assert float(same.variance) == pytest.approx(0.9 * float(done.state.variance))
