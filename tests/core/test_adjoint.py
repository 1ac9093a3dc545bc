"""Value gradients along a rollout against their closed form on a linear-quadratic chain."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dso_robotics.core.chain import Chain
from dso_robotics.core.gradient.adjoint import value_slopes
from dso_robotics.core.objective import Episodic, Problem
from dso_robotics.core.rollout import rollout
from dso_robotics.core.value import KnownValue

A = np.array([[0.9, 0.3], [-0.2, 0.8]])
Q, P = np.diag([1.0, 0.5]), np.array([[3.0, 0.4], [0.4, 2.0]])
GAMMA, STEPS = 0.9, 6


class Linear(Chain):
    """x' = A x + noise, L = x.Q.x."""

    def initial(self, key, theta):
        return jax.random.normal(key, (2,))

    def step(self, key, state, theta):
        return A @ state + 0.1 * jax.random.normal(key, (2,))

    def cost(self, state, theta):
        return state @ Q @ state


@pytest.mark.parametrize("horizon", [1, 2, 4, 6])
def test_slopes_are_those_of_what_follows_up_to_where_the_window_is_closed(horizon):
    theta = jnp.zeros(1)
    problem = Problem(Linear(), Episodic(GAMMA, STEPS), theta=theta)
    key, start = jax.random.key(3), jnp.array([1.0, -0.7])
    value = KnownValue(lambda state: state @ P @ state)
    found = value_slopes(key, problem, theta, start=start, horizon=horizon, value=value)
    states = np.asarray(rollout(key, problem, theta, start=start).states)
    for t in range(STEPS):
        end = min((t // horizon + 1) * horizon, STEPS)
        wanted = np.zeros(2)
        for k in range(1, end - t + 1):
            weight = P if t + k == end else Q
            power = np.linalg.matrix_power(A, k)
            wanted += GAMMA**k * 2.0 * power.T @ weight @ states[t + k]
        np.testing.assert_allclose(found[t], wanted, rtol=1e-9)
