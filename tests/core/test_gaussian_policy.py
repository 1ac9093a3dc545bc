"""The Gaussian-quadratic S-MDP and its D-MDP partner: closed forms against integrals over the action, J and its gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dso_robotics.core.chain import covered
from dso_robotics.core.gaussian import LinearQuadratic
from dso_robotics.core.gaussian_policy import GaussianPolicyChain, GaussianQuadratic
from dso_robotics.core.gradient.score import score
from dso_robotics.core.objective import Episodic, Problem
from dso_robotics.errors import DsoError

A, B = jnp.array([[0.9, 0.2], [-0.1, 0.7]]), jnp.array([[0.3], [0.8]])
Q, R = jnp.array([[1.0, 0.1], [0.1, 0.5]]), jnp.array([[0.4]])
NOISE, START = jnp.array([[0.3, 0.0], [0.1, 0.2]]), jnp.eye(2)


def curved():
    """Dynamics and state cost that are neither linear nor quadratic; theta is a gain, an offset and log W."""
    mdp = GaussianQuadratic(
        lambda x: jnp.sin(x) + x[::-1],
        lambda x: jnp.stack([1.0 + x[:1] ** 2, jnp.cos(x[1:])]),
        lambda x: jnp.abs(x[0]) + jnp.exp(x[1]),
        R,
        NOISE,
    )
    chain = GaussianPolicyChain(
        mdp, lambda x, t: t[:1] * x[:1] + t[1:2] * x[1:] ** 2, lambda t: jnp.exp(t[2]) * jnp.ones((1, 1)), START
    )
    return chain, jnp.array([0.6, -0.4, -0.9])


def test_cost_and_density_are_integrals_over_the_action():
    chain, theta = curved()
    x, following = jnp.array([0.4, -0.7]), jnp.array([0.1, 0.9])
    points, weights = np.polynomial.hermite_e.hermegauss(60)
    weights = weights / weights.sum()
    actions = chain.mean(x, theta) + jnp.exp(theta[2]) * points[:, None]
    mean_cost = weights @ jax.vmap(lambda u: chain.mdp.cost(x, u))(actions)
    np.testing.assert_allclose(chain.cost(x, theta), mean_cost, rtol=1e-12)
    density = weights @ jnp.exp(jax.vmap(lambda u: chain.mdp.log_prob(following, x, u))(actions))
    np.testing.assert_allclose(chain.log_prob(following, x, theta), np.log(density), rtol=1e-6)


def linear(theta_width):
    mdp = GaussianQuadratic(lambda x: A @ x, lambda x: B, lambda x: x @ Q @ x, R, NOISE)
    chain = GaussianPolicyChain(mdp, lambda x, t: t[:2] @ x[:, None], lambda t: jnp.exp(t[2]) * jnp.eye(1), START)
    return chain, jnp.array([-0.2, -0.5, theta_width])


def test_j_and_its_gradient_are_those_of_the_regulator_with_the_action_s_noise():
    """J = tr(M P0) + gamma / (1 - gamma) tr(M (S + B W W' B')) + tr(R W W') / (1 - gamma)."""
    gamma, (chain, theta) = 0.8, linear(-0.5)

    def j(t):
        root = jnp.concatenate([NOISE, B * jnp.exp(t[2])], axis=1)
        own = jnp.exp(2 * t[2]) * R[0, 0] / (1 - gamma)
        return LinearQuadratic(A, B, Q, R, root, START).episodic_cost(t[:2], gamma) + own

    wanted, slope = jax.value_and_grad(j)(theta)
    problem = Problem(chain, Episodic(gamma, 60), theta=theta)
    found, _ = score(jax.random.key(1), problem, theta, count=2000)
    assert abs(found.value - wanted) < 4 * found.value_error
    assert np.all(np.abs(found.gradient - slope) < 4 * found.standard_error)
    assert np.all((np.abs(slope) > 4 * found.standard_error)[np.array([0, 2])])  # a gradient of zero would not pass


def test_the_density_needs_noise_of_the_state():
    chain, theta = linear(-0.5)
    assert covered(chain, theta).all()
    silent = GaussianPolicyChain(
        GaussianQuadratic(chain.mdp.passive, chain.mdp.gain, chain.mdp.state_cost, R, 0.0 * NOISE),
        chain.mean,
        chain.width,
        START,
    )
    with pytest.raises(DsoError, match="score form does not exist"):
        covered(silent, theta)
