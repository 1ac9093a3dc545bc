"""Fisher products, natural and Newton steps and sampled Hessians on the linear-quadratic problem, and Riccati solutions."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
from core_chains import assemble, random_chain, regulator, within
from core_chains import exact as closed

from dso_robotics.core import curvature
from dso_robotics.core.descent import Status
from dso_robotics.core.gradient.score import NoBaseline, StateBaseline, sample_batch
from dso_robotics.core.method.natural import natural_direction, solve
from dso_robotics.core.method.newton import Newton, newton_direction
from dso_robotics.core.method.sampled import Stopping, minimise
from dso_robotics.core.method.trust_region import TrustRegion
from dso_robotics.core.objective import Episodic, Problem, TimeVarying
from dso_robotics.core.rollout import rollouts
from dso_robotics.core.sampler import ExactSampler
from dso_robotics.core.value import LinearValue, TimeVaryingValue, one_hot

CHAIN, THETA = regulator()
STEPS = 8
PROBLEM = Problem(CHAIN, TimeVarying(STEPS), theta=THETA)
KEY = jax.random.key(9)


@pytest.fixture(scope="module")
def batch():
    return eqx.filter_jit(sample_batch)(KEY, PROBLEM, THETA, count=4000, baseline=NoBaseline())


def exact_fisher():
    """sum_t E[x_t x_t^T] times B.S^-1 B, for one input."""
    loop = CHAIN.a + CHAIN.b @ CHAIN.gain(THETA)
    spread, noise, total = CHAIN.start @ CHAIN.start.T, CHAIN.noise @ CHAIN.noise.T, 0.0
    for _ in range(STEPS):
        total = total + spread
        spread = loop @ spread @ loop.T + noise
    return total * (CHAIN.b.T @ jnp.linalg.solve(noise, CHAIN.b))[0, 0]


def test_fisher_products_and_the_natural_gradient(batch):
    truth = exact_fisher()
    for product, tolerance in ((curvature.fisher_product, 0.1), (curvature.divergence_product, 0.05)):
        matrix = eqx.filter_jit(lambda b, p=product: jax.vmap(lambda v: p(b, v))(jnp.eye(2)))(batch)
        np.testing.assert_allclose(matrix, truth, rtol=tolerance, atol=tolerance * np.max(np.abs(truth)) / 3)
    gradient = jax.grad(lambda t: CHAIN.horizon_cost(t, STEPS))(THETA)
    direction = natural_direction(lambda v: truth @ v, gradient, damping=0.0)
    assert bool(direction.solved)
    np.testing.assert_allclose(direction.step, -jnp.linalg.solve(truth, gradient), rtol=1e-6)
    short = natural_direction(lambda v: truth @ v, gradient, damping=0.0, divergence_limit=1e-3)
    np.testing.assert_allclose(0.5 * short.step @ truth @ short.step, 1e-3, rtol=1e-9)
    np.testing.assert_allclose(short.curvature, 2e-3, rtol=1e-9)


def test_conjugate_gradients_and_gauss_newton():
    rng = np.random.default_rng(0)
    jacobian, right = jnp.array(rng.normal(size=(9, 5))), jnp.array(rng.normal(size=5))
    solution, solved = solve(
        lambda v: curvature.gauss_newton_product(lambda t: jacobian @ t, jnp.zeros(5), v), right, damping=0.1
    )
    assert bool(solved)
    np.testing.assert_allclose(solution, jnp.linalg.solve(jacobian.T @ jacobian + 0.1 * jnp.eye(5), right), rtol=1e-5)


def test_damping_of_the_natural_step_has_no_unit():
    """It is a part of the mean curvature along the gradient: a Fisher matrix a hundred times as large takes as much more."""
    fisher, gradient = jnp.array([[300.0, 40.0], [40.0, 20.0]]), jnp.array([1.0, -2.0])
    level = 0.5 * (gradient @ fisher @ gradient) / (gradient @ gradient)  # 22
    direction = natural_direction(lambda v: fisher @ v, gradient, damping=0.5)
    np.testing.assert_allclose(direction.step, -jnp.linalg.solve(fisher + level * jnp.eye(2), gradient), rtol=1e-6)
    blind = natural_direction(lambda v: 0.0 * v, gradient, damping=0.5)  # no Fisher curvature: damping alone
    np.testing.assert_allclose(blind.step, -gradient / 0.5, rtol=1e-6)


def test_newton_direction_goes_down_where_the_hessian_is_indefinite():
    hessian, gradient = jnp.diag(jnp.array([2.0, -0.5])), jnp.array([1.0, 1.0])
    np.testing.assert_allclose(newton_direction(hessian, gradient).step, [-0.5, -2.0])
    np.testing.assert_allclose(jnp.linalg.norm(newton_direction(hessian, gradient, longest=0.1).step), 0.1)


def test_trust_region_follows_the_ratio():
    trust = TrustRegion(radius=0.1)
    assert trust.judge(0.1, 0.9, 1.0) == (True, 0.2)
    assert trust.judge(0.1, 0.5, 1.0) == (True, 0.1)
    assert trust.judge(0.1, 0.15, 1.0) == (True, 0.05)
    assert trust.judge(0.1, -1.0, 1.0) == (False, 0.05)
    assert trust.judge(0.1, float("nan"), 1.0) == (False, 0.05)


def test_sampled_hessians(batch):
    truth = jax.hessian(lambda t: CHAIN.horizon_cost(t, STEPS))(THETA)
    unbiased, gradient = eqx.filter_jit(curvature.unbiased_hessian)(batch)
    assert within(unbiased.value, unbiased.standard_error, truth)
    raw, _ = eqx.filter_jit(lambda b: curvature.unbiased_hessian(b, control=False))(batch)
    assert np.all(unbiased.standard_error < raw.standard_error)
    assert np.all(np.isfinite(gradient))


@pytest.mark.slow
def test_baselines_and_tail_sums_beat_lemma_3():
    chain, theta = random_chain(3, 4, 3)
    problem = Problem(chain, TimeVarying(12), theta=theta)
    truth = closed.hessian(problem, theta)
    expected = closed.horizon_values(problem, theta) @ chain.transition(theta).T  # E[V_{t+1}(x')|x], the best baseline
    baseline = StateBaseline(TimeVaryingValue(LinearValue(one_hot(4), expected)))

    @eqx.filter_jit
    def errors(key):
        paths = rollouts(key, problem, theta, count=100)
        whole = curvature.exact_hessian(assemble(problem, theta, paths, baseline))
        lemma = curvature.unbiased_hessian(assemble(problem, theta, paths, NoBaseline()))[0].value
        return jnp.linalg.norm(whole - truth), jnp.linalg.norm(lemma - truth)

    ours, lemma = np.mean([errors(key) for key in jax.random.split(KEY, 20)], axis=0)
    assert ours < 0.7 * lemma


def test_value_matrix_and_average_cost_against_lyapunov():
    loop = np.asarray(CHAIN.a + CHAIN.b @ CHAIN.gain(THETA))
    gain = np.asarray(CHAIN.gain(THETA))
    stage = np.asarray(CHAIN.q) + gain.T @ np.asarray(CHAIN.r) @ gain
    for gamma in (0.9, 1.0):
        expected = scipy.linalg.solve_discrete_lyapunov(np.sqrt(gamma) * loop.T, stage)
        np.testing.assert_allclose(CHAIN.value_matrix(THETA, gamma), expected, rtol=1e-9)
    spread = scipy.linalg.solve_discrete_lyapunov(loop, np.asarray(CHAIN.noise @ CHAIN.noise.T))
    np.testing.assert_allclose(CHAIN.average_cost(THETA), np.trace(stage @ spread), rtol=1e-9)


@pytest.mark.parametrize("gamma", [0.9, 1.0])
def test_newton_finds_the_riccati_gain(gamma):
    a, b = np.sqrt(gamma) * np.asarray(CHAIN.a), np.sqrt(gamma) * np.asarray(CHAIN.b)
    q, r = np.asarray(CHAIN.q), np.asarray(CHAIN.r)
    matrix = scipy.linalg.solve_discrete_are(a, b, q, r)
    gain = -np.linalg.solve(r + b.T @ matrix @ b, b.T @ matrix @ a)

    def cost(theta):
        return CHAIN.average_cost(theta) if gamma == 1.0 else CHAIN.episodic_cost(theta, gamma)

    newton = Newton(jax.hessian(cost))
    result = minimise(KEY, ExactSampler(cost), THETA, newton, iterations=40, stopping=Stopping(tolerance=1e-9))
    assert result.status == Status.CONVERGED
    np.testing.assert_allclose(result.theta, gain.ravel(), rtol=1e-6)
    np.testing.assert_allclose(CHAIN.value_matrix(result.theta, gamma), matrix, rtol=1e-6)


def test_episodic_cost_of_a_long_horizon_is_the_discounted_one():
    problem = Problem(CHAIN, Episodic(0.7, 60), theta=THETA)
    batch = eqx.filter_jit(sample_batch)(KEY, problem, THETA, count=4000, baseline=NoBaseline())
    values = np.asarray(batch.credit.value)
    assert abs(values.mean() - CHAIN.episodic_cost(THETA, 0.7)) < 4.0 * values.std() / np.sqrt(4000)
