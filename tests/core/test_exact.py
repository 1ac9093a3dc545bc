"""The theorems on finite chains against plain differentiation of the closed forms."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from core_chains import exact, free_start, layered_chain, random_chain

from dso_robotics.core.chain import stack
from dso_robotics.core.objective import Average, Episodic, Problem, TimeVarying

SETTINGS = [
    (seed, size, objective)
    for seed, size in [(0, 3), (1, 5), (2, 8)]
    for objective in (Episodic(0.5, 1), Episodic(0.97, 1), Average(2), TimeVarying(4))
]


@pytest.mark.parametrize(("seed", "size", "objective"), SETTINGS)
def test_theorems_1_to_3_equal_the_derivative_of_j(seed, size, objective):
    chain, theta = random_chain(seed, size, 4)
    problem = Problem(chain, objective, theta=theta)
    np.testing.assert_allclose(exact.gradient(problem, theta), exact.derivative(problem, theta), atol=1e-10)


def test_theorem_1_first_exit():
    chain, theta = layered_chain(3, 3, 2, 4)
    problem = Problem(chain, Episodic(1.0, 1), theta=theta)
    np.testing.assert_allclose(exact.gradient(problem, theta), exact.derivative(problem, theta), atol=1e-12)


def test_theorem_3_with_chains_that_vary():
    parts = [random_chain(seed, 3, 2)[0] for seed in range(4)]
    theta = jnp.array([0.3, -0.2])
    problem = Problem(stack(parts), TimeVarying(3), theta=theta)
    np.testing.assert_allclose(exact.gradient(problem, theta), exact.derivative(problem, theta), atol=1e-12)
    probability, total = parts[0].start, 0.0
    for chain in parts:
        total += probability @ chain.costs(theta)
        probability = probability @ chain.transition(theta)
    np.testing.assert_allclose(exact.cost(problem, theta), total, rtol=1e-12)


@pytest.mark.parametrize("objective", [Episodic(0.9, 1), Average(2)])
def test_bellman_equations_and_densities(objective):
    chain, theta = random_chain(4, 5, 3)
    problem = Problem(chain, objective, theta=theta)
    value, matrix, costs = exact.values(problem, theta), chain.transition(theta), chain.costs(theta)
    if isinstance(objective, Average):
        density = exact.stationary(problem, theta)
        np.testing.assert_allclose(matrix.T @ density, density, atol=1e-12)
        np.testing.assert_allclose(exact.cost(problem, theta) + value, costs + matrix @ value, atol=1e-12)
        np.testing.assert_allclose(density @ value, 0.0, atol=1e-12)
    else:
        np.testing.assert_allclose(value, costs + 0.9 * matrix @ value, atol=1e-12)
        rows, p = 0.0, chain.start
        for time in range(400):
            rows, p = rows + 0.9**time * p, p @ matrix
        np.testing.assert_allclose(exact.visitation(problem, theta), rows, atol=1e-10)
        np.testing.assert_allclose(exact.cost(problem, theta), exact.visitation(problem, theta) @ costs, rtol=1e-12)


@pytest.mark.parametrize("objective", [Episodic(0.8, 1), Average(2)])
def test_surrogate_gradient_and_corrected_hessian(objective):
    chain, theta = random_chain(5, 4, 5)
    problem = Problem(chain, objective, theta=theta)
    zero = jnp.zeros_like(theta)
    slope = eqx.filter_jit(jax.grad(lambda d: exact.surrogate(problem, theta, d)))(zero)
    np.testing.assert_allclose(slope, exact.derivative(problem, theta), atol=1e-10)
    true = exact.hessian(problem, theta)
    np.testing.assert_allclose(exact.corrected_hessian(problem, theta), true, atol=1e-9)
    approximate = eqx.filter_jit(jax.hessian(lambda d: exact.surrogate(problem, theta, d)))(zero)
    assert np.linalg.norm(approximate - true) > 0.05 * np.linalg.norm(true)  # without the correction it is not exact


@pytest.mark.parametrize("objective", [Episodic(0.8, 1), TimeVarying(3)])
def test_gradient_and_hessian_where_the_start_depends_on_theta(objective):
    """J = P0(theta) . V(theta), differentiated as it stands, without the closed forms' own start."""
    fixed, theta = random_chain(2, 3, 2)
    chain = free_start(fixed, theta)
    problem = Problem(chain, objective, theta=theta)

    def cost(t):
        p0 = jnp.exp(jax.vmap(lambda x: chain.log_initial(x, t))(jnp.arange(3)))
        if isinstance(objective, TimeVarying):
            return p0 @ exact.horizon_values(problem, t)[0]
        return p0 @ jnp.linalg.solve(jnp.eye(3) - 0.8 * chain.transition(t), chain.costs(t))

    np.testing.assert_allclose(exact.cost(problem, theta), cost(theta), atol=1e-12)
    np.testing.assert_allclose(exact.gradient(problem, theta), eqx.filter_jit(jax.grad(cost))(theta), atol=1e-12)
    if isinstance(objective, Episodic):
        truth = eqx.filter_jit(jax.hessian(cost))(theta)
        np.testing.assert_allclose(exact.corrected_hessian(problem, theta), truth, atol=1e-10)


def test_surrogate_hessian_symmetry_of_equation_78():
    chain, theta = random_chain(6, 4, 3)
    problem = Problem(chain, Episodic(0.9, 1), theta=theta)
    zero = jnp.zeros_like(theta)

    @eqx.filter_jit
    def mixed(at):
        total = jax.jacfwd(lambda t: jax.grad(lambda d: exact.surrogate(problem, t, d))(zero))(at)
        return total - jax.hessian(lambda d: exact.surrogate(problem, at, d))(zero)

    cross = mixed(theta)
    np.testing.assert_allclose(cross, cross.T, atol=1e-10)


def test_fisher_is_the_curvature_of_the_divergence():
    chain, theta = random_chain(7, 4, 3)
    problem = Problem(chain, Episodic(0.9, 1), theta=theta)
    density = exact.visitation(problem, theta)
    key = jax.random.key(0)

    def divergence(other):
        return density @ jax.vmap(lambda x: chain.divergence(key, x, theta, other))(jnp.arange(4))

    np.testing.assert_allclose(exact.fisher(problem, theta), eqx.filter_jit(jax.hessian(divergence))(theta), atol=1e-10)


@pytest.mark.parametrize("gamma", [1.0, 0.9])
def test_optimal_chain_beats_all_others_and_has_the_value_of_z(gamma):
    chain, theta = layered_chain(8, 3, 3, 4)
    base, costs = np.array(chain.transition(theta)), chain.costs(theta)
    z = exact.optimal_z(base, costs, gamma=gamma, terminal=chain.exits)
    best = exact.optimal_chain(base, z, gamma=gamma)

    def value(matrix):
        ratio = jnp.where(
            base > 0.0, jnp.log(jnp.where(base > 0.0, matrix / jnp.where(base > 0.0, base, 1.0), 1.0)), 0.0
        )
        stage = costs + jnp.where(chain.exits, 0.0, jnp.sum(matrix * ratio, axis=1))
        return jnp.linalg.solve(jnp.eye(9) - gamma * jnp.where(chain.exits[:, None], 0.0, matrix), stage)

    np.testing.assert_allclose(value(best), -jnp.log(z), atol=1e-10)
    mixed = 0.9 * best + 0.1 * base
    assert np.all(value(mixed) >= value(best) - 1e-12)
    assert np.any(value(mixed) > value(best) + 1e-6)


def test_optimal_average_is_the_principal_pair():
    chain, theta = random_chain(9, 5, 2)
    base, costs = chain.transition(theta), chain.costs(theta)
    c, z = exact.optimal_average(base, costs)
    eigenvalues = np.linalg.eigvals(np.exp(-np.asarray(costs))[:, None] * np.asarray(base))
    np.testing.assert_allclose(np.exp(-c), np.max(eigenvalues.real), rtol=1e-10)
    best = exact.optimal_chain(base, z)
    stage = costs + jnp.sum(best * jnp.log(best / base), axis=1)
    density = jnp.linalg.solve(jnp.eye(5) - best.T + 1.0, jnp.ones(5))
    np.testing.assert_allclose(density @ stage, c, rtol=1e-10)
