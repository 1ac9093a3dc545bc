"""Optimal model design on the two-state process with published numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dso_robotics.core import exact
from dso_robotics.core.families import FiniteMDP, general_chain
from dso_robotics.core.implicit import ConjugateGradients, Dense
from dso_robotics.core.model_design import PlannedPolicy, SoftmaxModel, model_error, optimal_q, soft_bellman
from dso_robotics.core.objective import Episodic, Problem
from dso_robotics.errors import DsoError

GAMMA, TEMPERATURE = 0.9, 0.01
# State, action, next state; the paper prints action, state, next state.
DYNAMICS = jnp.array([[[0.7, 0.3], [0.99, 0.01]], [[0.2, 0.8], [0.99, 0.01]]])
COSTS = -jnp.array([[-0.45, -0.1], [0.5, 0.5]])
TRUE = FiniteMDP(DYNAMICS, COSTS, jnp.ones(2) / 2)
MODEL = SoftmaxModel(2, 2)
SETTINGS = {"gamma": GAMMA, "temperature": TEMPERATURE}


def true_theta():
    return jnp.concatenate([jnp.log(DYNAMICS).ravel(), COSTS.ravel()])


def cost(theta, inverse=None):
    policy = PlannedPolicy(MODEL, **SETTINGS, inverse=inverse)
    chain = general_chain(TRUE, policy, theta=true_theta())
    return exact.cost(Problem(chain, Episodic(GAMMA, 1), theta=true_theta()), theta)


def test_the_published_q_and_return_of_the_true_model():
    q = optimal_q(DYNAMICS, COSTS, **SETTINGS)
    np.testing.assert_allclose(-q, [[0.16363807, 0.06282009], [1.89091046, 0.66282009]], atol=1e-6)
    assert -cost(true_theta()) == pytest.approx(1.0272551, abs=1e-6)
    greedy = jax.nn.one_hot(jnp.argmin(q, axis=1), 2)
    chain = general_chain(TRUE, lambda theta: greedy, theta=jnp.zeros(1))
    best = exact.cost(Problem(chain, Episodic(GAMMA, 1), theta=jnp.zeros(1)), jnp.zeros(1))
    assert -best == pytest.approx(1.0272727, abs=1e-6)


def test_a_low_temperature_is_value_iteration_and_an_infinite_one_the_mean():
    q = jnp.array([[1.0, 2.0], [0.5, -0.5]])
    hard = COSTS + GAMMA * DYNAMICS @ jnp.min(q, axis=1)
    np.testing.assert_allclose(soft_bellman(q, DYNAMICS, COSTS, gamma=GAMMA, temperature=1e-4), hard, atol=1e-9)
    hot = 1e6
    soft = soft_bellman(q, DYNAMICS, COSTS, gamma=GAMMA, temperature=hot) + GAMMA * hot * np.log(2)
    np.testing.assert_allclose(soft, COSTS + GAMMA * DYNAMICS @ jnp.mean(q, axis=1), atol=1e-5)


@pytest.mark.parametrize("inverse", [Dense(), ConjugateGradients()])
def test_the_gradient_of_the_return_by_the_model_is_that_of_differences(inverse):
    # Logits and costs at which the policy is not yet decided, so that the gradient is not zero.
    theta = 0.02 * jax.random.normal(jax.random.key(3), (MODEL.size,))
    policy = PlannedPolicy(MODEL, gamma=GAMMA, temperature=0.05, inverse=inverse)
    chain = general_chain(TRUE, policy, theta=theta)
    problem = Problem(chain, Episodic(GAMMA, 1), theta=theta)
    slope = jax.jit(jax.grad(lambda t: exact.cost(problem, t)))(theta)
    assert np.linalg.norm(slope) > 0.1
    step = 1e-6
    every = [theta + s * step * e for e in np.eye(theta.size) for s in (1, -1)]
    values = jax.jit(jax.vmap(lambda t: exact.cost(problem, t)))(jnp.stack(every)).reshape(-1, 2)
    np.testing.assert_allclose(slope, (values[:, 0] - values[:, 1]) / (2 * step), atol=1e-6)
    # Theorem 1 neither differentiates density nor value, and gives the same.
    np.testing.assert_allclose(jax.jit(lambda t: exact.gradient(problem, t))(theta), slope, atol=1e-9)


def test_the_likelihood_is_least_at_the_truth_and_a_bound_is_kept():
    theta = true_theta()
    assert model_error(TRUE, *MODEL(theta)) == pytest.approx(0.0, abs=1e-12)
    np.testing.assert_allclose(jax.grad(lambda t: model_error(TRUE, *MODEL(t)))(theta), 0.0, atol=1e-12)
    assert jnp.linalg.norm(MODEL.bounded(theta, 1.5)) == pytest.approx(1.5)
    np.testing.assert_array_equal(MODEL.bounded(theta, 100.0), theta)
    np.testing.assert_array_equal(MODEL.bounded(theta, 0.0), 0.0)
    scaled = SoftmaxModel(2, 2, scale=100.0)
    small = scaled.bounded(theta, 1.0)
    weighted = jnp.concatenate([100.0 * small[:8], small[8:]])
    assert jnp.linalg.norm(weighted) == pytest.approx(1.0)


@pytest.mark.parametrize("wrong", [{"gamma": 1.0}, {"gamma": -0.1}, {"temperature": 0.0}])
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(DsoError, match=next(iter(wrong))):
        optimal_q(DYNAMICS, COSTS, **{**SETTINGS, **wrong})
