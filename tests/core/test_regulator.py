"""The regulator against SciPy's Riccati solver and finite differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg

from dso_robotics.core.implicit import Dense
from dso_robotics.core.regulator import regulator
from dso_robotics.errors import DsoError

A = jnp.array([[1.0, 0.1, 0.0], [0.0, 1.0, 0.1], [0.3, 0.0, 1.05]])
B = jnp.array([[0.0, 0.0], [0.1, 0.02], [0.05, 0.2]])
Q, R = jnp.diag(jnp.array([1.0, 0.2, 0.5])), jnp.array([[0.3, 0.05], [0.05, 0.2]])


@pytest.mark.parametrize("gamma", [1.0, 0.95])
def test_gain_and_value_are_those_of_scipy(gamma):
    root = np.sqrt(gamma)
    p = scipy.linalg.solve_discrete_are(root * np.asarray(A), root * np.asarray(B), np.asarray(Q), np.asarray(R))
    k = np.linalg.solve(R + gamma * B.T @ p @ B, gamma * B.T @ p @ A)
    gain, value = regulator(A, B, Q, R, gamma=gamma)
    np.testing.assert_allclose(value, p, rtol=1e-9)
    np.testing.assert_allclose(gain, k, rtol=1e-9)


def test_the_gain_is_differentiated_by_the_model():
    def total(scale):
        return jnp.sum(regulator(A * scale[0], B * scale[1], Q * scale[2], R * scale[3], inverse=Dense())[0] ** 2)

    at, total = jnp.ones(4), jax.jit(total)
    step = 1e-5
    differences = [(total(at + step * e) - total(at - step * e)) / (2 * step) for e in jnp.eye(4)]
    np.testing.assert_allclose(jax.jit(jax.grad(total))(at), differences, rtol=1e-6)


def test_a_value_found_elsewhere_gives_the_same_gain_and_derivatives():
    p = scipy.linalg.solve_discrete_are(*(np.asarray(part) for part in (A, B, Q, R)))

    def gain(a, value):
        return regulator(a, B, Q, R, inverse=Dense(), value=value)[0]

    at = jnp.asarray(p)
    np.testing.assert_allclose(gain(A, at), gain(A, None), rtol=1e-9)
    found, wanted = (jax.jacrev(gain)(A, value) for value in (at, None))
    np.testing.assert_allclose(found, wanted, rtol=1e-7, atol=1e-9)
    assert np.all(np.isnan(gain(A, jnp.full_like(A, jnp.nan))))


def test_what_cannot_be_stabilised_is_an_error():
    with pytest.raises(RuntimeError, match="did not settle"):
        regulator(jnp.eye(2) * 1.1, jnp.array([[1.0], [0.0]]), jnp.eye(2), jnp.eye(1))
    with pytest.raises(DsoError, match="gamma"):
        regulator(A, B, Q, R, gamma=0.0)
