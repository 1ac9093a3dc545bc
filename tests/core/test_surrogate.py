"""Chain Iteration, PCO and proximal costs: what they promise and what they keep to."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from core_chains import exact, random_chain, regulator

from dso_robotics.core.chain import Chain
from dso_robotics.core.gradient.score import NoBaseline, sample_batch, score
from dso_robotics.core.objective import Episodic, Problem, TimeVarying
from dso_robotics.core.surrogate import (
    ProximalChain,
    ProximalClip,
    chain_iteration,
    mean_divergence,
    proximal_chain_optimization,
    surrogate,
)

KEY = jax.random.key(2)


@pytest.fixture(scope="module")
def setting():
    chain, theta = random_chain(4, 4, 3)
    problem = Problem(chain, Episodic(0.8, 25), theta=theta)
    return problem, theta, eqx.filter_jit(sample_batch)(KEY, problem, theta, count=500, baseline=NoBaseline())


def test_clip_is_a_maximum_because_these_are_costs():
    clip = ProximalClip(0.2)
    ratio, advantage = jnp.array([1.5, 1.5, 0.5, 0.5]), jnp.array([1.0, -1.0, 1.0, -1.0])
    np.testing.assert_allclose(clip(ratio, advantage), [1.5, -1.2, 0.8, -0.5])


@pytest.mark.parametrize("step", [chain_iteration, proximal_chain_optimization])
def test_steps_reduce_the_surrogate_and_the_true_cost(setting, step):
    problem, theta, batch = setting
    made = eqx.filter_jit(step)(KEY, batch)
    assert float(made.predicted) > 0.0
    promised = surrogate(batch, jnp.zeros_like(theta)) - surrogate(batch, made.delta)
    if step is chain_iteration:
        np.testing.assert_allclose(made.predicted, promised, rtol=1e-9)
    assert exact.cost(problem, theta + 0.5 * made.delta) < exact.cost(problem, theta)
    np.testing.assert_allclose(made.divergence, mean_divergence(KEY, batch, made.delta), rtol=1e-9)


def test_pco_keeps_to_its_divergence_limit(setting):
    _, _, batch = setting
    for limit in (1e-3, 1e-2):
        made = eqx.filter_jit(proximal_chain_optimization)(KEY, batch, divergence_limit=limit, updates=200)
        assert 0.2 * limit < float(made.divergence) <= limit


def test_entries_that_are_not_asked_for_do_not_move(setting):
    _, _, batch = setting
    mask = np.array([True, False, True])
    for step in (chain_iteration, proximal_chain_optimization):
        assert float(eqx.filter_jit(step)(KEY, batch, entries=mask).delta[1]) == 0.0


def test_proximal_chain_charges_the_divergence_and_nothing_at_the_old_theta(setting):
    problem, theta, _ = setting
    chain = ProximalChain(problem.chain, theta, 3.0, KEY)
    new = theta + 0.4
    for x in range(4):
        p, q = problem.chain.transition(theta)[x], problem.chain.transition(new)[x]
        expected = problem.chain.costs(new)[x] + 3.0 * jnp.sum(p * jnp.log(p / q))
        np.testing.assert_allclose(chain.cost(jnp.asarray(x), new), expected, rtol=1e-10)
    proximal = Problem(chain, problem.objective, theta=theta)
    plain, _ = score(KEY, problem, theta, count=50)
    charged, _ = score(KEY, proximal, theta, count=50)
    np.testing.assert_allclose(charged.gradient, plain.gradient, atol=1e-10)  # the KL is flat at its minimum
    assert float(score(KEY, proximal, new, count=50)[0].value) > float(score(KEY, problem, new, count=50)[0].value)


def test_sampled_divergence_agrees_with_the_closed_form_of_a_gaussian_chain():
    chain, theta = regulator()
    problem = Problem(chain, TimeVarying(5), theta=theta)
    batch = eqx.filter_jit(sample_batch)(KEY, problem, theta, count=2000, baseline=NoBaseline())
    delta = jnp.array([0.1, -0.1])
    closed = eqx.filter_jit(mean_divergence)(KEY, batch, delta)

    class Sampled(type(chain)):
        divergence = Chain.divergence

    other = Sampled(chain.a, chain.b, chain.q, chain.r, chain.noise, chain.start)
    sampled = eqx.filter_jit(mean_divergence)(KEY, eqx.tree_at(lambda b: b.problem.chain, batch, other), delta)
    np.testing.assert_allclose(sampled, closed, rtol=0.1)
