"""MDP families against a direct MDP evaluation, and the equivalences of section 2.2."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from core_chains import exact

from dso_robotics.core.families import (
    DeterministicMDP,
    FiniteMDP,
    SoftmaxPolicy,
    deterministic_chain,
    entropy_chain,
    general_chain,
    proximal_chain,
    solvable_chain,
    solvable_to_deterministic,
    stochastic_chain,
    stochastic_to_deterministic,
)
from dso_robotics.core.objective import Average, Episodic, Problem

NS, NA, GAMMA = 4, 3, 0.9
RNG = np.random.default_rng(0)
MDP = FiniteMDP(RNG.dirichlet(np.ones(NS), size=(NS, NA)), RNG.normal(size=(NS, NA)), RNG.dirichlet(np.ones(NS)))
POLICY = SoftmaxPolicy(NS, NA)
THETA = jnp.array(RNG.normal(size=NS * NA))
OLD = jnp.array(RNG.dirichlet(np.ones(NA), size=NS))


def policy_evaluation(cost_of_action):
    """V of the MDP by its own Bellman equation, sweeping over states and actions (13, 15)."""
    pi, value = np.asarray(POLICY(THETA)), np.zeros(NS)
    for _ in range(400):
        q = cost_of_action + GAMMA * np.asarray(MDP.dynamics) @ value
        value = np.sum(pi * q, axis=1)
    return value


def solution(chain):
    problem = Problem(chain, Episodic(GAMMA, 1), theta=THETA)
    return exact.cost(problem, THETA), exact.values(problem, THETA), exact.derivative(problem, THETA)


def test_lemma_1_for_every_family():
    costs, log_pi = np.asarray(MDP.costs), np.log(np.asarray(POLICY(THETA)))
    proximal = np.sum(np.asarray(OLD) * (np.log(np.asarray(OLD)) - log_pi), axis=1, keepdims=True)
    cases = [
        (stochastic_chain(MDP, POLICY, theta=THETA), costs),
        (entropy_chain(MDP, POLICY, theta=THETA, weight=0.3), costs + 0.3 * log_pi),
        (proximal_chain(MDP, POLICY, theta=THETA, old=OLD, weight=0.5), costs + 0.5 * proximal),
    ]
    for chain, of_action in cases:
        np.testing.assert_allclose(solution(chain)[1], policy_evaluation(of_action), atol=1e-10)


def test_s_mdp_gradient_is_the_policy_gradient_theorem():
    """(49-51): sum_x rho sum_u dpi(u|x) Q(x, u)."""
    cost, value, gradient = solution(stochastic_chain(MDP, POLICY, theta=THETA))
    problem = Problem(stochastic_chain(MDP, POLICY, theta=THETA), Episodic(GAMMA, 1), theta=THETA)
    rho, q = exact.visitation(problem, THETA), MDP.costs + GAMMA * MDP.dynamics @ value
    np.testing.assert_allclose(gradient, jax.grad(lambda t: jnp.sum(rho[:, None] * POLICY(t) * q))(THETA), atol=1e-10)
    assert np.isfinite(cost)


class Tilt(eqx.Module):
    """Dynamics with one continuous action a state: a moves the logits."""

    base: jax.Array
    slope: jax.Array

    def __call__(self, actions):
        return jax.nn.softmax(self.base + actions[:, None] * self.slope, axis=-1)


TILT = Tilt(jnp.array(RNG.normal(size=(NS, NS))), jnp.array(RNG.normal(size=(NS, NS))))


def actions(theta):
    return jnp.tanh(theta.reshape(NS, NA).sum(axis=1))


def test_d_mdp_gradient_is_the_deterministic_policy_gradient():
    """(52-53): sum_x rho dpi(x)^T d_u {l(x, u) + gamma E[V(x')|x, u]}."""
    mdp = DeterministicMDP(TILT, lambda a: jnp.arange(NS) + a**2, actions, MDP.start, MDP.terminal)
    chain = deterministic_chain(mdp, theta=THETA)
    problem = Problem(chain, Episodic(GAMMA, 1), theta=THETA)
    _, value, gradient = solution(chain)
    rho, slope = exact.visitation(problem, THETA), jax.jacobian(actions)(THETA)
    inner = jax.grad(lambda a: jnp.sum(rho * (jnp.arange(NS) + a**2 + GAMMA * TILT(a) @ value)))(actions(THETA))
    np.testing.assert_allclose(gradient, inner @ slope, atol=1e-10)


@pytest.mark.parametrize("objective", [Episodic(GAMMA, 1), Average(2)])
def test_s_and_d_partners_are_the_same_chain(objective):
    stochastic = stochastic_chain(MDP, POLICY, theta=THETA)
    partner = stochastic_to_deterministic(
        MDP, lambda a: jax.nn.softmax(a, axis=-1), lambda theta: theta.reshape(NS, NA)
    )
    same(stochastic, deterministic_chain(partner, theta=THETA), objective)


@pytest.mark.parametrize("objective", [Episodic(GAMMA, 1), Average(2)])
def test_l_and_d_partners_are_the_same_chain(objective):
    base, costs = RNG.dirichlet(np.ones(NS), size=NS), RNG.normal(size=NS)
    solvable, partner = solvable_to_deterministic(TILT, actions, base, costs, MDP.start, theta=THETA)
    deterministic = deterministic_chain(partner, theta=THETA)
    same(solvable, deterministic, objective)
    p = np.asarray(solvable.transition(THETA))
    np.testing.assert_allclose(solvable.costs(THETA), costs + np.sum(p * np.log(p / base), axis=1), atol=1e-12)


def same(first, second, objective):
    for quantity in (exact.cost, exact.values, exact.derivative, exact.hessian, exact.fisher):
        one = quantity(Problem(first, objective, theta=THETA), THETA)
        np.testing.assert_allclose(quantity(Problem(second, objective, theta=THETA), THETA), one, atol=1e-10)


def test_g_mdp_cost_may_depend_on_theta():
    chain = general_chain(MDP, POLICY, theta=THETA, costs=lambda t: jnp.outer(jnp.ones(NS), jnp.sin(t[:NA])))
    problem = Problem(chain, Episodic(GAMMA, 1), theta=THETA)
    np.testing.assert_allclose(exact.gradient(problem, THETA), exact.derivative(problem, THETA), atol=1e-10)


def test_l_mdp_gradient_holds():
    """(54-56), in the average setting it was published for."""
    base = jnp.array(RNG.dirichlet(np.ones(NS), size=NS))
    chain = solvable_chain(lambda t: TILT(actions(t)), base, jnp.arange(NS) * 0.1, MDP.start, theta=THETA)
    problem = Problem(chain, Average(2), theta=THETA)
    value, density = exact.values(problem, THETA), exact.stationary(problem, THETA)

    def published(t):
        p = chain.transition(t)
        now = jax.lax.stop_gradient(p)
        return density @ jnp.sum(p * (value[None, :] + jnp.log(now / base)), axis=1)

    np.testing.assert_allclose(jax.grad(published)(THETA), exact.derivative(problem, THETA), atol=1e-10)
