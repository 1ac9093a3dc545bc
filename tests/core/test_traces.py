"""Generalised advantages: batched, online and by definition are equal, and are those of the training's lambda returns."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from core_chains import regulator

from dso_robotics.core.fitting import bellman_errors, lambda_returns
from dso_robotics.core.objective import Episodic, Problem
from dso_robotics.core.rollout import rollout
from dso_robotics.core.traces import generalised_advantages, no_trace
from dso_robotics.core.value import KnownValue


@pytest.mark.parametrize("lam", [0.0, 0.7, 1.0])
def test_batched_and_online_are_the_definition(lam):
    gamma, keys = 0.9, jax.random.split(jax.random.key(0))
    errors, scores = jax.random.normal(keys[0], (9,)), jax.random.normal(keys[1], (9, 3))
    batched = generalised_advantages(errors, gamma * lam)
    # (1 - lam) sum_k lam^k A^(k), the mixture of k-step advantages; what is left of the weights is on the longest.
    wanted = []
    for t in range(9):
        longest = 9 - t
        steps = [sum(gamma**j * errors[t + j] for j in range(k + 1)) for k in range(longest)]
        weights = [(1 - lam) * lam**k for k in range(longest - 1)] + [lam ** (longest - 1)]
        wanted.append(sum(w * a for w, a in zip(weights, steps, strict=True)))
    np.testing.assert_allclose(batched, jnp.stack(wanted), rtol=1e-12)
    online = no_trace(3)
    for score, error in zip(scores, errors, strict=True):
        online = online.stepped(score, error, gamma * lam)
    np.testing.assert_allclose(online.gradient, batched @ scores, rtol=1e-12)


def test_they_are_those_of_the_lambda_returns():
    chain, theta = regulator()
    objective, value = Episodic(0.95, 8), KnownValue(lambda state: 0.3 + 1.7 * jnp.sum(state**2))
    path = rollout(jax.random.key(1), Problem(chain, objective, theta=theta), theta)
    returns = lambda_returns(path, objective, value, lam=0.8)[:-1]
    here = jax.vmap(value)(jax.tree.map(lambda leaf: leaf[:-1], path.states))
    found = generalised_advantages(bellman_errors(path, objective, value), 0.95 * 0.8)
    np.testing.assert_allclose(found, returns - here, rtol=1e-10)
