"""Advantages with lambda: written out step by step, without bias under the exact value, biased under a wrong one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from core_chains import assemble, enumerate_paths, exact, expectation, layered_chain, random_chain
from test_enumeration import gradient_of, rough

from dso_robotics.core.gradient.score import DriftBaseline, NoBaseline, StateBaseline, score
from dso_robotics.core.objective import Average, Episodic, Problem, TimeVarying
from dso_robotics.core.value import LinearValue, TimeVaryingValue, one_hot
from dso_robotics.errors import DsoError


@pytest.mark.parametrize("lam", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("ends", [False, True], ids=["cut", "first exit"])
def test_advantages_are_sums_of_bellman_errors(lam, ends):
    """V(x_{t+1}) - b(x_t) + lam sum_k (gamma lam)^k delta_{t+1+k}, by loops over the states of every path."""
    gamma = 0.7
    chain, theta = layered_chain(1, 3, 2, 3) if ends else random_chain(5, 3, 3)
    table = np.random.default_rng(3).normal(size=chain.size)
    problem = Problem(chain, Episodic(gamma, 3), theta=theta)
    paths, _ = enumerate_paths(problem, theta)
    batch = assemble(problem, theta, paths, StateBaseline(LinearValue(one_hot(chain.size), jnp.array(table))), lam)
    costs, exits = np.asarray(chain.costs(theta)), np.asarray(chain.exits)
    value = np.where(exits, costs, table)  # the cost of an exit is all that is left there
    for path, moved, found in zip(*map(np.asarray, (paths.states, paths.moved, batch.advantage)), strict=True):
        for t in np.flatnonzero(moved):
            expected, factor = value[path[t + 1]] - table[path[t]], lam
            for s in range(t + 1, 3):
                if moved[s]:
                    expected += factor * (costs[path[s]] + gamma * value[path[s + 1]] - value[path[s]])
                    factor *= gamma * lam
            np.testing.assert_allclose(found[t], expected, atol=1e-12)


@pytest.mark.parametrize("random_end", [False, True])
def test_no_bias_under_the_exact_value_and_some_under_a_wrong_one(random_end):
    chain, theta = random_chain(5, 3, 3)
    problem = Problem(chain, Episodic(0.8, 3, random_end=random_end), theta=theta)
    paths, chances = enumerate_paths(problem, theta)
    exactly = LinearValue(one_hot(3), exact.values(problem, theta))

    def mean(value, lam):
        return expectation(gradient_of, assemble(problem, theta, paths, DriftBaseline(value), lam), chances)

    wanted = mean(exactly, 1.0)
    for lam in (0.0, 0.5):
        np.testing.assert_allclose(mean(exactly, lam), wanted, atol=1e-10)
    wrong = rough(3)
    bias = [np.abs(mean(wrong, lam) - mean(wrong, 1.0)).max() for lam in (0.0, 0.5)]
    assert bias[0] > bias[1] > 1e-3


def test_a_time_varying_value_is_that_of_the_time():
    chain, theta = random_chain(3, 3, 2)
    problem = Problem(chain, TimeVarying(3), theta=theta)
    values = TimeVaryingValue(LinearValue(one_hot(3), exact.horizon_values(problem, theta)))
    paths, chances = enumerate_paths(problem, theta)
    batch = assemble(problem, theta, paths, DriftBaseline(values), 0.3)
    np.testing.assert_allclose(expectation(gradient_of, batch, chances), exact.derivative(problem, theta), atol=1e-10)


def test_a_small_lambda_has_less_variance():
    chain, theta = random_chain(7, 4, 2)
    problem = Problem(chain, Episodic(0.95, 60), theta=theta)
    value = LinearValue(one_hot(4), exact.values(problem, theta))
    errors = {}
    for lam in (0.0, 0.9, 1.0):
        found, _ = score(jax.random.key(0), problem, theta, count=400, baseline=StateBaseline(value), lam=lam)
        errors[lam] = float(jnp.linalg.norm(found.standard_error))
    assert errors[0.0] < errors[0.9] < 0.9 * errors[1.0]


def test_refusals():
    chain, theta = random_chain(5, 3, 3)
    problem, key = Problem(chain, Episodic(0.8, 3), theta=theta), jax.random.key(0)
    with pytest.raises(DsoError, match="from 0"):
        score(key, problem, theta, count=4, baseline=DriftBaseline(rough(3)), lam=1.2)
    with pytest.raises(DsoError, match="fitted value"):
        score(key, problem, theta, count=4, baseline=NoBaseline(), lam=0.9)
    endless = Problem(chain, Average(5), theta=theta)
    with pytest.raises(DsoError, match="window"):
        score(key, endless, theta, count=4, baseline=DriftBaseline(rough(3)), lam=0.9)
