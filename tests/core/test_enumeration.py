"""Exact expectation of every estimator, by enumeration over the paths of random finite chains, against closed forms."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from core_chains import assemble, enumerate_paths, exact, expectation, free_start, layered_chain, random_chain

from dso_robotics.core import curvature
from dso_robotics.core.chain import stack
from dso_robotics.core.gradient.score import (
    Batch,
    DriftBaseline,
    NoBaseline,
    StateBaseline,
    advantages,
    batch_gradient,
)
from dso_robotics.core.method.natural import Natural
from dso_robotics.core.objective import Average, Episodic, Problem, TimeVarying
from dso_robotics.core.rollout import batched, credit
from dso_robotics.core.sampler import Sample
from dso_robotics.core.surrogate import ProximalClip, surrogate
from dso_robotics.core.value import KnownValue, LinearValue, TimeVaryingValue, one_hot


def gradient_of(batch):
    every = jnp.ones(batch.theta.shape, bool)
    return batch_gradient(batch, entries=every, groups=1).gradient


def rough(size, seed=0):
    """A value approximation that is wrong: unbiasedness may not rest on it."""
    return LinearValue(one_hot(size), jnp.array(np.random.default_rng(seed).normal(size=size)))


@pytest.mark.parametrize("baseline", [NoBaseline(), DriftBaseline(rough(3)), StateBaseline(rough(3))])
@pytest.mark.parametrize("seed", [0, 1])
def test_algorithm_1_time_varying(seed, baseline):
    parts = [random_chain(10 * seed + k, 3, 3)[0] for k in range(4)]
    theta = jnp.array([0.4, -0.3, 0.2])
    problem = Problem(stack(parts), TimeVarying(3), theta=theta)
    paths, chances = enumerate_paths(problem, theta)
    np.testing.assert_allclose(jnp.sum(chances), 1.0, rtol=1e-12)
    batch = assemble(problem, theta, paths, baseline)
    np.testing.assert_allclose(chances @ batch.credit.value, exact.cost(problem, theta), atol=1e-10)
    np.testing.assert_allclose(expectation(gradient_of, batch, chances), exact.derivative(problem, theta), atol=1e-10)


def test_algorithm_1_with_a_time_varying_value():
    chain, theta = random_chain(3, 3, 2)
    problem = Problem(chain, TimeVarying(3), theta=theta)
    values = exact.horizon_values(problem, theta)
    baseline = DriftBaseline(TimeVaryingValue(LinearValue(one_hot(3), values)))
    paths, chances = enumerate_paths(problem, theta)
    batch = assemble(problem, theta, paths, baseline)
    np.testing.assert_allclose(expectation(gradient_of, batch, chances), exact.derivative(problem, theta), atol=1e-10)


@pytest.mark.parametrize("kind", [DriftBaseline, StateBaseline])
def test_the_baseline_of_step_t_is_the_value_of_the_next_time(kind):
    """Any baseline leaves the mean alone; which one it is shows in each advantage."""
    chain, theta = random_chain(3, 3, 2)
    problem = Problem(chain, TimeVarying(3), theta=theta)
    table = np.random.default_rng(1).normal(size=(4, 3))
    paths, _ = enumerate_paths(problem, theta)
    batch = assemble(problem, theta, paths, kind(TimeVaryingValue(LinearValue(one_hot(3), jnp.array(table)))))
    states, costs = np.asarray(paths.states), np.asarray(paths.costs)
    likely = np.argmax(np.asarray(chain.transition(theta)), axis=1)
    for t in range(3):
        seen = likely[states[:, t]] if kind is DriftBaseline else states[:, t]
        expected = costs[:, t + 1 :].sum(axis=1) - table[t + 1, seen]
        np.testing.assert_allclose(batch.advantage[:, t], expected, atol=1e-12)


@pytest.mark.parametrize("gamma", [1.0, 0.7])
@pytest.mark.parametrize("baseline", [NoBaseline(), DriftBaseline(rough(6))])
def test_algorithm_1_first_exit(gamma, baseline):
    chain, theta = layered_chain(1, 3, 2, 3)
    steps = 2 if gamma == 1.0 else 3  # with two, most paths reach their exit in the last step of all
    problem = Problem(chain, Episodic(gamma, steps), theta=theta)
    paths, chances = enumerate_paths(problem, theta)
    batch = assemble(problem, theta, paths, baseline)
    np.testing.assert_allclose(chances @ batch.credit.value, exact.cost(problem, theta), atol=1e-10)
    np.testing.assert_allclose(expectation(gradient_of, batch, chances), exact.derivative(problem, theta), atol=1e-10)


def cut_derivative(problem, theta, closing):
    return eqx.filter_jit(jax.grad(lambda t: problem.chain.start @ exact.horizon_values(problem, t, closing)[0]))(theta)


@pytest.mark.parametrize("random_end", [False, True])
@pytest.mark.parametrize("gamma", [0.6, 0.95])
def test_algorithm_1_discounted_and_cut_with_a_bootstrap(gamma, random_end):
    chain, theta = random_chain(5, 3, 3)
    problem = Problem(chain, Episodic(gamma, 3, random_end=random_end), theta=theta)
    value = exact.values(problem, theta)
    paths, chances = enumerate_paths(problem, theta)
    np.testing.assert_allclose(jnp.sum(chances), 1.0, rtol=1e-12)
    batch = assemble(problem, theta, paths, DriftBaseline(LinearValue(one_hot(3), value)))
    np.testing.assert_allclose(chances @ batch.credit.value, exact.cost(problem, theta), atol=1e-10)
    truth = cut_derivative(problem, theta, value)
    np.testing.assert_allclose(expectation(gradient_of, batch, chances), truth, atol=1e-10)


@pytest.mark.parametrize("gamma", [0.3, 0.9])
def test_corollary_1_under_the_discounted_density(gamma):
    """One transition drawn from rho: the infinite horizon, without cutting it."""
    chain, theta = random_chain(6, 5, 4)
    problem = Problem(chain, Episodic(gamma, 1), theta=theta)
    rho, value, matrix = exact.visitation(problem, theta), exact.values(problem, theta), chain.transition(theta)

    def one(x, y):
        slope = jax.grad(lambda t: chain.cost(x, t))(theta)
        score = jax.grad(lambda t: chain.log_prob(y, x, t))(theta)
        return rho[x] * matrix[x, y] * (slope + gamma * score * (value[y] - value[chain.drift(x, theta)]))

    x, y = (jnp.ravel(index) for index in jnp.meshgrid(jnp.arange(5), jnp.arange(5), indexing="ij"))
    total = jnp.sum(jax.jit(jax.vmap(one))(x, y), axis=0)
    np.testing.assert_allclose(total, exact.derivative(problem, theta), atol=1e-10)


@pytest.mark.parametrize(("steps", "window"), [(2, 0), (3, 1)])
def test_theorem_2_average_cost(steps, window):
    chain, theta = random_chain(7, 3, 3)
    problem = Problem(chain, Average(steps, window=window), theta=theta)
    settled = Problem(
        type(chain)(chain.transition, chain.costs, exact.stationary(problem, theta), theta=theta),
        problem.objective,
        theta=theta,
    )
    value = LinearValue(one_hot(3), exact.values(problem, theta))
    mean = exact.cost(problem, theta)
    paths, chances = enumerate_paths(settled, theta)
    earned = eqx.filter_jit(jax.vmap(lambda path: credit(path, settled.objective, value, average=mean)))(paths)
    baseline = DriftBaseline(value)
    gained = eqx.filter_jit(batched)(
        settled, lambda p, path, r: advantages(p, theta, path, r, baseline), paths, earned.to_go
    )
    batch = Batch(settled, theta, paths, earned, gained, jnp.zeros(chances.shape))
    np.testing.assert_allclose(chances @ earned.value, mean, atol=1e-10)
    np.testing.assert_allclose(expectation(gradient_of, batch, chances), exact.derivative(problem, theta), atol=1e-10)


@pytest.fixture(scope="module")
def exits():
    chain, theta = layered_chain(2, 3, 2, 3)
    problem = Problem(chain, Episodic(0.8, 3), theta=theta)
    paths, chances = enumerate_paths(problem, theta)
    return problem, theta, paths, chances


def test_surrogate_away_from_zero(exits):
    problem, theta, paths, chances = exits
    batch = assemble(problem, theta, paths, NoBaseline())
    delta = jnp.array([0.3, -0.2, 0.5])
    sampled = expectation(lambda b: surrogate(b, delta), batch, chances)
    np.testing.assert_allclose(sampled, exact.surrogate(problem, theta, delta), atol=1e-10)


def test_fisher_products(exits):
    problem, theta, paths, chances = exits
    batch = assemble(problem, theta, paths, NoBaseline())
    vector, fisher = jnp.array([1.0, -2.0, 0.5]), exact.fisher(problem, theta)
    for product in (curvature.fisher_product, curvature.divergence_product):
        mean = expectation(lambda b, p=product: p(b, vector), batch, chances)
        np.testing.assert_allclose(mean, fisher @ vector, atol=1e-10)


def test_fisher_products_under_random_ends():
    """A move that is survived with probability gamma counts as much as one that is weighted by gamma."""
    chain, theta = layered_chain(2, 3, 2, 3)
    problem = Problem(chain, Episodic(0.6, 3, random_end=True), theta=theta)
    paths, chances = enumerate_paths(problem, theta)
    batch = assemble(problem, theta, paths, NoBaseline())
    vector, fisher = jnp.array([1.0, -2.0, 0.5]), exact.fisher(problem, theta)
    for product in (curvature.fisher_product, curvature.divergence_product):
        mean = expectation(lambda b, p=product: p(b, vector), batch, chances)
        np.testing.assert_allclose(mean, fisher @ vector, atol=1e-10)


def test_the_natural_step_has_the_kl_it_promises_under_random_ends():
    """The radius is a KL a move: rho's mass of moves times the radius is the KL of the step."""
    chain, theta = layered_chain(2, 3, 2, 3)
    problem = Problem(chain, Episodic(0.6, 3, random_end=True), theta=theta)
    paths, chances = enumerate_paths(problem, theta)
    batch = assemble(problem, theta, paths, NoBaseline())
    weighted = eqx.tree_at(
        lambda b: b.credit.move_weight, batch, batch.credit.move_weight * chances[:, None] * chances.size
    )
    estimate = batch_gradient(batch, entries=jnp.ones(3, bool), groups=1)
    rule = Natural(damping=0.0, iterations=200)
    proposal = rule.propose(jax.random.key(0), theta, Sample(estimate, weighted, None), 1e-4, jnp.ones(()))
    step, moves = proposal.theta - theta, jnp.sum(jnp.where(chain.exits, 0.0, exact.visitation(problem, theta)))
    np.testing.assert_allclose(0.5 * step @ exact.fisher(problem, theta) @ step, 1e-4 * moves, rtol=1e-6)


@pytest.mark.parametrize("baseline", [NoBaseline(), DriftBaseline(rough(6))])
def test_hessians(exits, baseline):
    problem, theta, paths, chances = exits
    batch = assemble(problem, theta, paths, baseline)
    zero = jnp.zeros_like(theta)
    approximate = eqx.filter_jit(jax.hessian(lambda d: exact.surrogate(problem, theta, d)))(zero)
    np.testing.assert_allclose(expectation(curvature.surrogate_hessian, batch, chances), approximate, atol=1e-10)
    np.testing.assert_allclose(
        expectation(curvature.exact_hessian, batch, chances), exact.hessian(problem, theta), atol=1e-10
    )
    vector = jnp.array([0.5, 1.0, -1.0])
    product = expectation(lambda b: curvature.surrogate_hessian_product(b, vector), batch, chances)
    np.testing.assert_allclose(product, approximate @ vector, atol=1e-10)


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize("objective", [Episodic(0.8, 3), Episodic(0.8, 3, random_end=True), TimeVarying(3)])
def test_hessian_where_the_start_depends_on_theta(objective, known):
    """dlog P0 dV(x0)^T + transpose belongs to the Hessian of J: 1.2 of 7.0 in norm here."""
    fixed, theta = layered_chain(2, 3, 2, 3)
    chain = free_start(fixed, theta)
    problem = Problem(chain, objective, theta=theta)
    paths, chances = enumerate_paths(problem, theta)
    np.testing.assert_allclose(jnp.sum(chances), 1.0, rtol=1e-12)
    batch = assemble(problem, theta, paths, DriftBaseline(rough(6)))
    # Enumerated paths are alone, without others whose mean could be the baseline of the start.
    batch = eqx.tree_at(lambda b: b.start_advantage, batch, batch.credit.returns[:, 0])
    np.testing.assert_allclose(expectation(gradient_of, batch, chances), exact.derivative(problem, theta), atol=1e-10)
    truth = exact.hessian(problem, theta)
    if not known:
        np.testing.assert_allclose(expectation(curvature.exact_hessian, batch, chances), truth, atol=1e-10)
        return
    if isinstance(objective, Episodic):
        table = eqx.filter_jit(jax.jacfwd(lambda t: exact.values(problem, t)))(theta)
        corrected = expectation(lambda b: curvature.hessian_correction(b, lambda x: table[x]).value, batch, chances)
        surrogates = expectation(curvature.surrogate_hessian, batch, chances)
        np.testing.assert_allclose(surrogates + corrected, truth, atol=1e-10)


def test_hessian_correction_with_a_known_value_slope(exits):
    problem, theta, paths, chances = exits
    batch = assemble(problem, theta, paths, DriftBaseline(rough(6)))
    table = eqx.filter_jit(jax.jacfwd(lambda t: exact.values(problem, t)))(theta)
    corrected = expectation(lambda b: curvature.hessian_correction(b, lambda x: table[x]).value, batch, chances)
    surrogates = expectation(curvature.surrogate_hessian, batch, chances)
    np.testing.assert_allclose(surrogates + corrected, exact.hessian(problem, theta), atol=1e-10)


def test_lemma_3_path_by_path():
    chain, theta = random_chain(11, 3, 3)
    problem = Problem(chain, TimeVarying(3), theta=theta)
    paths, chances = enumerate_paths(problem, theta)
    batch = assemble(problem, theta, paths, NoBaseline())
    hessian = expectation(lambda b: curvature.unbiased_hessian(b, control=False)[0].value, batch, chances)
    gradient = expectation(lambda b: curvature.unbiased_hessian(b, control=False)[1], batch, chances)
    np.testing.assert_allclose(hessian, exact.hessian(problem, theta), atol=1e-10)
    np.testing.assert_allclose(gradient, exact.derivative(problem, theta), atol=1e-10)


@pytest.mark.slow
def test_lemma_3_with_control_variates_pair_by_pair():
    """The control variate of a path is the mean of the others: enumerate all pairs of paths."""
    chain, theta = random_chain(12, 2, 2)
    problem = Problem(chain, TimeVarying(2), theta=theta)
    paths, chances = enumerate_paths(problem, theta)
    count = chances.shape[0]
    i, j = (jnp.ravel(index) for index in jnp.meshgrid(jnp.arange(count), jnp.arange(count), indexing="ij"))
    pairs = jax.tree.map(lambda leaf: jnp.stack([leaf[i], leaf[j]], axis=1), paths)

    def hessian(pair):
        return curvature.unbiased_hessian(assemble(problem, theta, pair, NoBaseline()))[0].value

    mean = jnp.tensordot(chances[i] * chances[j], eqx.filter_jit(jax.vmap(hessian))(pairs), axes=1)
    np.testing.assert_allclose(mean, exact.hessian(problem, theta), atol=1e-10)


@pytest.mark.parametrize("clip", [None, ProximalClip(0.2)])
def test_surrogate_gradient_is_algorithm_1_sample_by_sample(exits, clip):
    problem, theta, paths, _ = exits
    batch = assemble(problem, theta, paths, DriftBaseline(KnownValue(lambda x: 0.1 * x)))

    @eqx.filter_jit
    def both(part):
        one = Batch(problem, theta, *part)
        return jax.grad(lambda d: surrogate(one, d, clip=clip))(jnp.zeros_like(theta)), gradient_of(one)

    whole = (batch.trajectory, batch.credit, batch.advantage, batch.start_advantage)
    for index in range(paths.ending.shape[0]):
        slope, algorithm = both(jax.tree.map(lambda leaf: leaf[index : index + 1], whole))  # noqa: B023
        np.testing.assert_allclose(slope, algorithm, atol=1e-13)
