"""Value approximations against the known value of linear-quadratic and finite problems."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from core_chains import enumerate_paths, exact, layered_chain, random_chain, regulator

from dso_robotics.core.chain import Chain
from dso_robotics.core.finite import FiniteChain
from dso_robotics.core.fitting import (
    SmoothedSlope,
    bellman_errors,
    fit_linear,
    fit_network,
    fit_slope,
    fit_smoothed_slope,
    fit_time_varying,
    lambda_returns,
    value_gradient_targets,
)
from dso_robotics.core.objective import Average, Episodic, Problem, TimeVarying
from dso_robotics.core.rollout import rollouts
from dso_robotics.core.value import (
    KnownValue,
    LinearValue,
    linear_value,
    network_value,
    one_hot,
    polynomial_features,
    repeated,
)

KEY = jax.random.key(5)
GAMMA = 0.9
roll = eqx.filter_jit(rollouts)


@pytest.mark.parametrize("lam", [0.0, 0.5, 1.0])
def test_td_lambda_is_exact_without_noise(lam):
    chain, theta = regulator(noise=0.0)
    problem = Problem(chain, Episodic(GAMMA, 6), theta=theta)
    paths = roll(KEY, problem, theta, count=50)
    fitted = fit_linear(
        linear_value(polynomial_features(2), jnp.zeros(2)), paths, problem.objective, lam=lam, ridge=1e-13
    )
    m = chain.value_matrix(theta, GAMMA)
    np.testing.assert_allclose(fitted.weights, [0, 0, 0, m[0, 0], 2 * m[0, 1], m[1, 1]], atol=1e-5)
    errors = jax.vmap(lambda path: bellman_errors(path, problem.objective, fitted))(paths)
    np.testing.assert_allclose(errors, 0.0, atol=1e-5)


@pytest.mark.parametrize("lam", [0.0, 0.6, 1.0])
def test_td_lambda_on_a_first_exit_table(lam):
    chain, theta = layered_chain(0, 3, 2, 2)
    problem = Problem(chain, Episodic(1.0, 3), theta=theta)
    paths = roll(KEY, problem, theta, count=4000)
    fitted = fit_linear(LinearValue(one_hot(6), jnp.zeros(6)), paths, problem.objective, lam=lam)
    np.testing.assert_allclose(fitted.weights, exact.values(problem, theta), atol=0.1)
    rich = fit_linear(LinearValue(one_hot(6), jnp.zeros(6)), paths, problem.objective, lam=1.0)
    if lam == 1.0:  # the regression on returns, state by state
        targets = jax.vmap(lambda p: lambda_returns(p, problem.objective, rich))(paths)
        for x in range(6):
            here = np.asarray((paths.states == x) & paths.counted)
            np.testing.assert_allclose(rich.weights[x], np.asarray(targets)[here].mean(), atol=1e-6)


class Dyadic(eqx.Module):
    """Rows of quarters: every path of a batch can be repeated as often as it is likely."""

    rows: jax.Array

    def __call__(self, theta):
        return self.rows / 4.0


@pytest.mark.parametrize("lam", [0.0, 0.5, 1.0])
def test_td_lambda_with_too_few_features_is_the_fixed_point_of_its_lambda(lam):
    """Fewer features than states: every lambda has a solution of its own, which the closed form knows."""
    rows = jnp.array([[0.0, 2, 1, 1, 0], [0, 0, 1, 2, 1], [0, 0, 0, 1, 3], [0, 0, 0, 0, 4], [0, 0, 0, 0, 4]])
    costs, gamma, theta = jnp.array([1.0, -2.0, 3.0, 0.5, 2.0]), 0.9, jnp.zeros(1)
    start, exits = np.array([0.75, 0.25, 0, 0, 0]), np.arange(5) == 4
    chain = FiniteChain(Dyadic(rows), lambda t: costs, start, theta=theta, terminal=exits)
    problem = Problem(chain, Episodic(gamma, 4), theta=theta)
    paths, chances = enumerate_paths(problem, theta)
    often = np.rint(np.asarray(chances) * 4**5).astype(int)
    np.testing.assert_allclose(often / 4**5, chances, rtol=1e-12)
    batch = jax.tree.map(lambda leaf: jnp.repeat(leaf, often, axis=0), paths)
    table = jnp.array(np.random.default_rng(3).normal(size=(5, 2)))
    fitted = fit_linear(LinearValue(lambda x: table[x], jnp.zeros(2)), batch, problem.objective, lam=lam, ridge=1e-14)
    # With d the mean number of visits: Phi.D (I - gamma lam P)^-1 [(I - gamma P) Phi w - L] = 0.
    phi, matrix = np.asarray(table), np.where(exits[:, None], 0.0, np.asarray(rows) / 4.0)
    visits = np.linalg.solve(np.eye(5) - matrix.T, start)
    traces = (phi * visits[:, None]).T @ np.linalg.inv(np.eye(5) - gamma * lam * matrix)
    expected = np.linalg.solve(traces @ (np.eye(5) - gamma * matrix) @ phi, traces @ np.asarray(costs))
    np.testing.assert_allclose(fitted.weights, expected, rtol=1e-8)


@pytest.mark.slow
def test_random_ends_and_average_cost_tables():
    chain, theta = random_chain(1, 4, 2)
    for objective in (Episodic(0.8, 60, random_end=True), Episodic(0.8, 20), Average(40, burn_in=10, window=5)):
        problem = Problem(chain, objective, theta=theta)
        paths = roll(KEY, problem, theta, count=2000)
        fitted = fit_linear(LinearValue(one_hot(4), jnp.zeros(4)), paths, objective, lam=0.3)
        truth = exact.values(problem, theta)
        shift = fitted.weights - truth if isinstance(objective, Average) else fitted.weights * 0.0
        np.testing.assert_allclose(fitted.weights - jnp.mean(shift), truth, atol=0.15)


def test_time_varying_value():
    chain, theta = random_chain(2, 3, 2)
    problem = Problem(chain, TimeVarying(4), theta=theta)
    paths = roll(KEY, problem, theta, count=4000)
    start = repeated(LinearValue(one_hot(3), jnp.zeros(3)), 4)
    for lam in (0.0, 1.0):
        fitted = eqx.filter_jit(fit_time_varying)(start, paths, problem.objective, lam=lam)
        np.testing.assert_allclose(fitted.stacked.weights, exact.horizon_values(problem, theta), atol=0.15)


@pytest.mark.parametrize(("lam", "rounds"), [(1.0, 1), (0.5, 6)])
def test_network(lam, rounds):
    chain, theta = regulator(noise=0.02)
    problem = Problem(chain, Episodic(GAMMA, 20), theta=theta)
    paths = roll(KEY, problem, theta, count=60)
    start = network_value(jax.random.key(0), 2, 32)
    fit = eqx.filter_jit(fit_network)
    fitted = fit(KEY, start, paths, objective=problem.objective, lam=lam, rounds=rounds, updates=300)
    m = chain.value_matrix(theta, GAMMA)
    constant = GAMMA / (1 - GAMMA) * jnp.vdot(m, chain.noise @ chain.noise.T)
    states = paths.states[:, :-1].reshape(-1, 2)
    truth = jax.vmap(lambda x: x @ m @ x + constant)(states)
    assert np.sqrt(np.mean((jax.vmap(fitted)(states) - truth) ** 2)) < 0.15 * np.std(truth)


def test_value_gradient_critic():
    chain, theta = regulator()
    problem = Problem(chain, Episodic(GAMMA, 5), theta=theta)
    m = chain.value_matrix(theta, GAMMA)
    critic = KnownValue(lambda x: x @ m @ x)
    states = jax.random.normal(KEY, (4000, 2))
    targets = eqx.filter_jit(value_gradient_targets)(KEY, problem, theta, states=states, horizon=4, critic=critic)
    fitted = fit_slope(polynomial_features(1), states, targets)
    error = np.std(targets - states @ (2.0 * m), axis=0) / np.sqrt(4000)
    assert np.all(np.abs(fitted.slope.weights[1:] - 2.0 * m) < 6.0 * error)
    assert np.all(np.abs(fitted.slope.weights[0]) < 6.0 * error)


class SmoothedQuartic(Chain):
    """x' = x / 2 with the cost E_w[(x + rho w)^4], w ~ N(0, 1)."""

    rho: jax.Array

    def initial(self, key, theta):
        return jnp.ones(1)

    def step(self, key, state, theta):
        return 0.5 * state

    def cost(self, state, theta):
        return jnp.sum(state**4 + 6 * self.rho**2 * state**2 + 3 * self.rho**4)


def test_one_critic_holds_the_value_gradient_of_every_level_of_smoothing():
    """dV/dx = 4 x^3 / (1 - gamma / 16) + 12 rho^2 x / (1 - gamma / 4); TD(3) on gradients finds it, levels in between too."""
    theta, gamma = jnp.zeros(1), 0.9

    def features(state, rho):
        return jnp.concatenate([state**3, rho**2 * state, jnp.ones(1)])

    levels = jnp.repeat(jnp.array([0.0, 0.4, 1.0]), 20)
    states = jax.random.normal(KEY, (60, 1))
    critic = fit_smoothed_slope(features, states, levels, jnp.zeros((60, 1)))
    problems = [Problem(SmoothedQuartic(jnp.asarray(rho)), Episodic(gamma, 3), theta=theta) for rho in (0.0, 0.4, 1.0)]

    @jax.jit
    def swept(weights):
        critic = SmoothedSlope(features, weights)
        parts = [
            value_gradient_targets(KEY, problem, theta, states=here, horizon=3, critic=critic.at(problem.chain.rho))
            for problem, here in zip(problems, jnp.split(states, 3), strict=True)
        ]
        return fit_smoothed_slope(features, states, levels, jnp.concatenate(parts)).weights

    for _ in range(12):
        critic = SmoothedSlope(features, swept(critic.weights))
    for rho in (0.0, 0.7, 1.0):
        x = jnp.array([0.8])
        exact = 4 * x**3 / (1 - gamma / 16) + 12 * rho**2 * x / (1 - gamma / 4)
        np.testing.assert_allclose(critic.at(rho).slope(x), exact, rtol=1e-5, atol=1e-6)
