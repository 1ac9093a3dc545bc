"""Reparameterised distributions: both gradients agree with each other, densities integrate to 1, control variates help."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dso_robotics.core.reparameterised import (
    GumbelSoftmax,
    Kumaraswamy,
    Normal,
    Squashed,
    Truncated,
    controlled,
    pathwise_samples,
    score_samples,
)

COUNT = 40_000
PLACE = jnp.array([0.3, -0.5])
LAWS = [
    Normal(PLACE, jnp.array([-0.7, 0.1])),
    Squashed(PLACE, jnp.array([-0.7, -0.2])),
    Truncated(PLACE, jnp.array([-0.7, 0.1])),
    Kumaraswamy(jnp.array([0.2, 0.6]), jnp.array([0.5, 0.3])),
    GumbelSoftmax(jnp.array([0.5, -0.3, 0.1]), 0.7),
]
NAMES = [type(law).__name__ for law in LAWS]


def smooth(action):
    return jnp.sum(jnp.sin(2.0 * action + jnp.arange(action.shape[0]))) + action[0] * action[1]


@pytest.mark.parametrize("law", LAWS, ids=NAMES)
def test_both_gradients_are_of_one_expectation(law):
    through = pathwise_samples(jax.random.key(0), law, smooth, COUNT)
    by_score = score_samples(jax.random.key(1), law, smooth, COUNT)
    for a, b in zip(jax.tree.leaves(through), jax.tree.leaves(by_score), strict=True):
        gap = np.asarray(a.mean(0) - b.mean(0))
        error = np.sqrt(np.asarray(a.var(0) + b.var(0)) / COUNT)
        assert (np.abs(gap) < 4 * error).all()
        assert np.abs(np.asarray(a.mean(0))).max() > 8 * error.max()


@pytest.mark.parametrize(
    ("law", "low", "high"),
    [
        (Squashed(PLACE[:1], jnp.array([-0.7])), -1.0, 1.0),
        (Truncated(PLACE[:1], jnp.array([0.1])), -1.0, 1.0),
        (Kumaraswamy(jnp.array([0.2]), jnp.array([0.5])), 0.0, 1.0),
    ],
)
def test_densities_integrate_to_one(law, low, high):
    points = jnp.linspace(low + 1e-7, high - 1e-7, 100_001)
    total = jnp.trapezoid(jnp.exp(jax.vmap(lambda u: law.log_prob(u[None]))(points)), points)
    assert float(total) == pytest.approx(1.0, abs=1e-3)


def test_the_published_example_and_the_best_control_variate():
    """E[u^2 theta] of u ~ N(theta, 1) at theta = 1: the derivative is 4, of which the part by the draw is 2."""
    law = Normal(jnp.ones(1), jnp.zeros(1))
    samples = score_samples(jax.random.key(2), law, lambda u: u[0] ** 2, COUNT).mean
    scores = score_samples(jax.random.key(2), law, lambda u: 1.0, COUNT).mean
    calm = controlled(samples, scores)
    own = 2.0  # E[u^2], the derivative by the factor theta
    for found in (samples, calm, pathwise_samples(jax.random.key(3), law, lambda u: u[0] ** 2, COUNT).mean):
        assert abs(float(found.mean()) + own - 4.0) < 4 * float(found.std()) / np.sqrt(COUNT)
    # var(u^2 e) = 30 less cov^2 / var(e) = 4^2 with e = u - 1: E[u^4 e^2] - 4 = 30, E[u^2 e^2] = 4.
    assert float(samples.var()) == pytest.approx(30.0, rel=0.1)
    assert float(calm.var()) == pytest.approx(14.0, rel=0.1)
