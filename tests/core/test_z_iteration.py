"""Z-iteration: the discounted linear problem in closed form, from cubature and from records of another chain."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from core_chains import ROOT, A, LinearPassive, Q, quadratic

from dso_robotics.core import zlearning
from dso_robotics.core.descent import Status, descend
from dso_robotics.core.method.z_iteration import ZIteration, cubature_moves, recorded_moves
from dso_robotics.errors import DsoError

KEY = jax.random.key(4)
GAMMA = 0.9


def discounted():
    """V = x.M x / 2 + c of the linear problem: -log E[exp(-gamma V(x'))] of a normal x' in closed form, iterated."""
    a, s, m, c = np.asarray(A), np.asarray(ROOT @ ROOT.T), np.zeros((2, 2)), 0.0
    for _ in range(400):
        wide = np.eye(2) + GAMMA * s @ m
        c = GAMMA * c + 0.5 * np.log(np.linalg.det(wide))
        m = np.asarray(Q) + a.T @ (GAMMA * m) @ np.linalg.inv(wide) @ a
    return m, c


def energy_of(w):
    return np.array([[w[1], w[2]], [w[2], w[3]]]), 0.5 * w[0]


def test_z_iteration_by_cubature_finds_the_closed_form():
    m, c = discounted()
    points, weights = zlearning.hermite_points(2, order=12)
    states = jax.random.normal(KEY, (60, 2))
    moves = cubature_moves(LinearPassive(), quadratic, states, lambda xi, x: A @ x + ROOT @ xi, points, weights)
    method = ZIteration(moves, gamma=GAMMA, tolerance=1e-9)
    result = descend(method, method.init(None, jnp.zeros(4)), iterations=300)
    assert result.status is Status.CONVERGED
    found, constant = energy_of(np.asarray(result.state.w))
    np.testing.assert_allclose(found, m, rtol=1e-5)
    assert constant == pytest.approx(c, rel=1e-5)
    assert result.history[-1].cost < 1e-5


def test_z_iteration_from_records_of_another_chain_is_unbiased():
    """Of records with more noise and another drift. A fit of the logarithm of the same targets is far off."""
    m, c = discounted()
    other, wide = 0.8 * A, 1.3 * ROOT
    states = jax.random.normal(KEY, (20_000, 2))
    following = states @ other.T + jax.random.normal(jax.random.key(5), (20_000, 2)) @ wide.T

    def log_density(x, mean, root):
        white = jnp.linalg.solve(root, (x - mean).T)
        return -0.5 * jnp.sum(white**2, axis=0) - jnp.log(jnp.abs(jnp.linalg.det(root)))

    ratio = jnp.exp(log_density(following, states @ A.T, ROOT) - log_density(following, states @ other.T, wide))
    moves = recorded_moves(LinearPassive(), quadratic, states, following, ratio)
    errors = {}
    for exact_fit in (False, True):
        tried = dataclasses.replace(moves, exact=exact_fit)
        method = ZIteration(tried, gamma=GAMMA)
        result = descend(method, method.init(None, jnp.zeros(4)), iterations=200)
        assert result.status is Status.CONVERGED
        found, constant = energy_of(np.asarray(result.state.w))
        errors[exact_fit] = np.abs(found - m).max() / np.abs(m).max(), abs(constant - c)
    assert errors[False][0] < 0.05
    assert errors[False][1] < 0.3  # an error of the ratios' mean of 1% is one of 0.1 in the constant
    assert errors[True][1] > 1.0


def test_z_iteration_refuses_what_has_no_answer():
    points, weights = zlearning.cubature_points(2)
    states = jax.random.normal(KEY, (10, 2))
    moves = cubature_moves(LinearPassive(), quadratic, states, lambda xi, x: A @ x + ROOT @ xi, points, weights)
    with pytest.raises(DsoError, match="below 1"):
        ZIteration(moves, gamma=1.0)
    with pytest.raises(DsoError, match="gamma"):
        ZIteration(moves, gamma=1.5)
    with pytest.raises(DsoError, match="ratio"):
        recorded_moves(LinearPassive(), quadratic, states, states, jnp.full(10, -1.0))
    # A feature that grows faster than its own target has no fixed point.
    steep = cubature_moves(LinearPassive(), lambda x: x[:1], states, lambda xi, x: 3.0 * x + 1.0, points, weights)
    method = ZIteration(steep, gamma=0.9)
    result = descend(method, method.init(None, jnp.ones(1)), iterations=2000)
    assert result.status is Status.DIVERGED
    assert "normalised Gaussians" in method.message(result.state, result.status, 1)
