"""Implicit derivatives against dense linear algebra, finite differences and closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dso_robotics.core.implicit import ConjugateGradients, Dense, Identity, fixed_point, implied
from dso_robotics.errors import DsoError


def contraction(w, theta):
    """Not symmetric, and nonlinear in w: its Jacobian is not its transpose's."""
    matrix = jnp.array([[0.2, 0.3, 0.0], [-0.1, 0.4, 0.2], [0.3, 0.0, -0.2]])
    return jnp.tanh(matrix @ w + theta[:3] * theta[3])


THETA = jnp.array([0.5, -0.3, 0.8, 1.2])


def differences(function, theta, step=1e-6):
    columns = [(function(theta + step * e) - function(theta - step * e)) / (2 * step) for e in jnp.eye(len(theta))]
    return jnp.stack(columns, axis=-1)


@pytest.mark.parametrize("inverse", [Dense(), ConjugateGradients()])
def test_the_derivative_of_a_fixed_point_is_that_of_dense_algebra_and_of_differences(inverse):
    @jax.jit
    def point(theta):
        return fixed_point(contraction, jnp.zeros(3), theta, inverse=inverse, tolerance=1e-14)

    w = point(THETA)
    np.testing.assert_allclose(w, contraction(w, THETA), atol=1e-13)
    by_w = jax.jacfwd(contraction, 0)(w, THETA)
    exact = np.linalg.solve(np.eye(3) - by_w, jax.jacfwd(contraction, 1)(w, THETA))
    np.testing.assert_allclose(differences(point, THETA), exact, atol=1e-8)
    np.testing.assert_allclose(jax.jacfwd(point)(THETA), exact, atol=1e-8)
    np.testing.assert_allclose(jax.jacrev(point)(THETA), exact, atol=1e-8)


def test_second_derivatives_are_those_of_differences():
    def total(theta):
        return jnp.sum(fixed_point(contraction, jnp.zeros(3), theta, inverse=Dense(), tolerance=1e-14) ** 2)

    hessian = jax.jit(jax.hessian(total))(THETA)
    np.testing.assert_allclose(hessian, differences(jax.jit(jax.grad(total)), THETA), atol=1e-7)


def test_the_identity_is_the_first_term_of_the_neumann_series():
    def point(theta):
        return fixed_point(contraction, jnp.zeros(3), theta, inverse=Identity())

    w = point(THETA)
    np.testing.assert_allclose(jax.jacrev(point)(THETA), jax.jacfwd(contraction, 1)(w, THETA), atol=1e-12)


def test_a_minimiser_found_elsewhere_has_the_derivative_of_its_first_order_condition():
    rng = np.random.default_rng(0)
    design, right = jnp.asarray(rng.normal(size=(8, 3))), jnp.asarray(rng.normal(size=8))

    def slope(w, theta):
        """Of |design w - right|^2 / 2 + exp(theta) |w|^2 / 2, with w as a tree."""
        flat = jnp.concatenate([w["a"], w["b"]])
        moved = design.T @ (design @ flat - right) + jnp.exp(theta) * flat
        return {"a": moved[:1], "b": moved[1:]}

    def ridge(theta):
        return jnp.linalg.solve(design.T @ design + jnp.exp(theta) * jnp.eye(3), design.T @ right)

    def found(theta):
        closed = jax.lax.stop_gradient(ridge(theta))
        start = {"a": closed[:1], "b": closed[1:]}
        w = implied(slope, start, theta, inverse=ConjugateGradients(symmetric=True))
        return jnp.concatenate([w["a"], w["b"]])

    theta = jnp.asarray(0.3)
    np.testing.assert_allclose(found(theta), ridge(theta), atol=1e-12)
    for derivative in (jax.jacrev, jax.jacfwd):
        np.testing.assert_allclose(jax.jit(derivative(found))(theta), jax.jacrev(ridge)(theta), atol=1e-9)


def test_damping_is_added_to_the_jacobian():
    matrix = jnp.array([[2.0, 0.5], [0.5, 1.0]])
    right = jnp.array([1.0, -2.0])
    for symmetric in (True, False):
        solved = ConjugateGradients(symmetric=symmetric, damping=0.7)(lambda v: matrix @ v, right)
        np.testing.assert_allclose(solved, np.linalg.solve(matrix + 0.7 * np.eye(2), right), atol=1e-9)


def test_an_iteration_that_does_not_settle_is_an_error():
    def grows(w, theta):
        return 2.0 * w + theta

    with pytest.raises(RuntimeError, match="did not settle in 50 steps"):
        jax.jit(lambda t: fixed_point(grows, jnp.ones(2), t, iterations=50))(jnp.ones(2))


@pytest.mark.parametrize("wrong", [{"tolerance": 0.0}, {"tolerance": float("nan")}, {"iterations": 0}])
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(DsoError, match=next(iter(wrong))):
        fixed_point(contraction, jnp.zeros(3), THETA, **wrong)
    with pytest.raises(DsoError, match="damping"):
        ConjugateGradients(damping=-1.0)
