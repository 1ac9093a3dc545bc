"""Sampled gradients on a linear-quadratic problem, whose J and gradient are known, and the standard error they report."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from core_chains import regulator, within

from dso_robotics.core.chain import Chain
from dso_robotics.core.gradient.bottleneck import bottleneck_pathwise, bottleneck_score
from dso_robotics.core.gradient.mixed import combine, mixed
from dso_robotics.core.gradient.pathwise import pathwise
from dso_robotics.core.gradient.score import DriftBaseline, NoBaseline, StateBaseline, score
from dso_robotics.core.objective import Average, Episodic, Problem, TimeVarying
from dso_robotics.core.value import KnownValue, LinearValue, TimeVaryingValue, ValueGradient, polynomial_features

CHAIN, THETA = regulator()
STEPS = 8
FINITE = Problem(CHAIN, TimeVarying(STEPS), theta=THETA)
TRUE_COST = CHAIN.horizon_cost(THETA, STEPS)
TRUE = jax.jit(jax.grad(lambda t: CHAIN.horizon_cost(t, STEPS)))(THETA)
KEY = jax.random.key(7)


def horizon_value(chain):
    """V_t of the time-varying problem: x.M_t x and a constant, for each t."""
    gain = chain.gain(THETA)
    loop, stage = chain.a + chain.b @ gain, chain.q + gain.T @ chain.r @ gain
    matrix, constant, rows = stage, 0.0, []
    for _ in range(STEPS + 1):
        rows.append([constant, 0.0, 0.0, matrix[0, 0], 2.0 * matrix[0, 1], matrix[1, 1]])
        constant = constant + jnp.vdot(matrix, chain.noise @ chain.noise.T)
        matrix = stage + loop.T @ matrix @ loop
    return TimeVaryingValue(LinearValue(polynomial_features(2), jnp.array(rows[::-1])))


def discounted_value(gamma):
    matrix = CHAIN.value_matrix(THETA, gamma)
    constant = gamma / (1.0 - gamma) * jnp.vdot(matrix, CHAIN.noise @ CHAIN.noise.T)
    return KnownValue(lambda x: x @ matrix @ x + constant), matrix


VALUE = horizon_value(CHAIN)


def check(estimate, truth=TRUE, cost=TRUE_COST):
    assert bool(estimate.usable)
    assert within(estimate.gradient, estimate.standard_error, truth)
    assert within(estimate.value, estimate.value_error, cost)


@pytest.mark.parametrize("baseline", [NoBaseline(), StateBaseline(VALUE), DriftBaseline(VALUE)])
def test_score(baseline):
    check(score(KEY, FINITE, THETA, count=2000, baseline=baseline)[0])


def test_drift_baseline_has_the_least_variance_when_noise_is_small_next_to_drift():
    chain, theta = regulator(noise=0.03)
    problem, value = Problem(chain, TimeVarying(STEPS), theta=theta), horizon_value(chain)
    plain, at_state, at_drift = (
        np.max(score(KEY, problem, theta, count=1000, baseline=baseline)[0].standard_error)
        for baseline in (NoBaseline(), StateBaseline(value), DriftBaseline(value))
    )
    assert at_drift < 0.5 * at_state < 0.5 * plain


@pytest.mark.parametrize("horizon", [1, 3, None])
def test_pathwise_with_an_exact_critic(horizon):
    check(pathwise(KEY, FINITE, THETA, count=2000, horizon=horizon, value=VALUE)[0])


def test_pathwise_with_a_value_gradient_critic():
    gamma = 0.8
    value, matrix = discounted_value(gamma)
    problem = Problem(CHAIN, Episodic(gamma, 60), theta=THETA)
    truth = jax.grad(lambda t: CHAIN.episodic_cost(t, gamma))(THETA)
    critic = ValueGradient(lambda x: 2.0 * matrix @ x)
    estimate, _ = pathwise(KEY, problem, THETA, count=1000, horizon=4, value=critic)
    assert within(estimate.gradient, estimate.standard_error, truth)
    same, _ = pathwise(KEY, problem, THETA, count=1000, horizon=4, value=value)
    np.testing.assert_allclose(estimate.gradient, same.gradient, rtol=1e-9)


def test_random_ends():
    gamma = 0.8
    value, _ = discounted_value(gamma)
    problem = Problem(CHAIN, Episodic(gamma, 60, random_end=True), theta=THETA)
    truth = jax.grad(lambda t: CHAIN.episodic_cost(t, gamma))(THETA)
    cost = CHAIN.episodic_cost(THETA, gamma)
    check(score(KEY, problem, THETA, count=2000, baseline=DriftBaseline(value))[0], truth, cost)
    check(pathwise(KEY, problem, THETA, count=2000, value=value)[0], truth, cost)
    check(pathwise(KEY, problem, THETA, count=2000, horizon=3, value=value)[0], truth, cost)


@pytest.mark.parametrize("form", ["score", "pathwise"])
def test_average_cost(form):
    matrix = CHAIN.value_matrix(THETA, 1.0)
    value = KnownValue(lambda x: x @ matrix @ x)
    problem = Problem(CHAIN, Average(80, burn_in=30, window=5), theta=THETA)
    truth, cost = jax.grad(CHAIN.average_cost)(THETA), CHAIN.average_cost(THETA)
    if form == "score":
        estimate, _ = score(KEY, problem, THETA, count=500, baseline=DriftBaseline(value))
    else:
        estimate, _ = pathwise(KEY, problem, THETA, count=500, horizon=5, value=value)
    check(estimate, truth, cost)


def test_bottleneck():
    by_score, _ = bottleneck_score(KEY, FINITE, THETA, count=2000, baseline=DriftBaseline(VALUE))
    plain, _ = score(KEY, FINITE, THETA, count=2000, baseline=DriftBaseline(VALUE))
    np.testing.assert_allclose(by_score.gradient, plain.gradient, rtol=1e-9)  # the chain rule, nothing else
    check(bottleneck_pathwise(KEY, FINITE, THETA, count=2000, value=VALUE)[0])


def test_bottleneck_of_an_average_cost():
    matrix = CHAIN.value_matrix(THETA, 1.0)
    value = KnownValue(lambda x: x @ matrix @ x)
    problem = Problem(CHAIN, Average(60, burn_in=30, window=0), theta=THETA)
    truth, cost = jax.grad(CHAIN.average_cost)(THETA), CHAIN.average_cost(THETA)
    check(bottleneck_score(KEY, problem, THETA, count=500, baseline=DriftBaseline(value))[0], truth, cost)
    check(bottleneck_pathwise(KEY, problem, THETA, count=500, value=value)[0], truth, cost)


def test_mixed_and_combined():
    some = np.array([True, False])
    estimate, batch = mixed(KEY, FINITE, THETA, count=2000, by_score=some, value=VALUE, baseline=DriftBaseline(VALUE))
    check(estimate)
    assert batch.count == 2000
    by_score, _ = score(KEY, FINITE, THETA, count=2000, baseline=DriftBaseline(VALUE))
    earlier = (
        score(jax.random.key(1), FINITE, THETA, count=200)[0],
        pathwise(jax.random.key(2), FINITE, THETA, count=200)[0],
    )
    other, _ = pathwise(jax.random.key(3), FINITE, THETA, count=2000)
    both = combine(by_score, other, earlier)
    check(both)
    assert np.all(both.standard_error <= 1.05 * np.minimum(by_score.standard_error, other.standard_error))


def test_groups_leave_the_gradient_unchanged():
    one, _ = score(KEY, FINITE, THETA, count=640, baseline=DriftBaseline(VALUE))
    two, _ = score(KEY, FINITE, THETA, count=640, baseline=DriftBaseline(VALUE), groups=32)
    np.testing.assert_allclose(one.gradient, two.gradient, rtol=1e-9)
    np.testing.assert_allclose(one.standard_error, two.standard_error, rtol=0.5)


@pytest.mark.slow
@pytest.mark.parametrize("estimator", ["score", "pathwise"])
def test_coverage_of_the_standard_error(estimator):
    """In 95% of batches the truth lies within 1.96 standard errors; 500 batches tell that to about one in a hundred."""

    @eqx.filter_jit
    def repeated(keys):
        def one(key):
            if estimator == "score":
                estimate, _ = score(key, FINITE, THETA, count=400, baseline=DriftBaseline(VALUE))
            else:
                estimate, _ = pathwise(key, FINITE, THETA, count=400)
            return estimate.gradient, estimate.standard_error

        return jax.lax.map(one, keys)

    gradients, errors = repeated(jax.random.split(jax.random.key(11), 500))
    inside = np.mean(np.abs(gradients - TRUE) < 1.96 * errors, axis=0)
    assert np.all(inside > 0.92)
    assert np.all(inside < 0.98)
    np.testing.assert_allclose(np.mean(errors, axis=0), np.std(gradients, axis=0), rtol=0.12)


class TwoPoint(Chain):
    """x' = x + 0.5 tanh(theta . (1, x)) + 0.3 xi with xi = +-1 read from a table: the noise can be enumerated."""

    signs: jax.Array

    def initial(self, key, theta):
        return jnp.array([0.5])

    def at(self, time):
        return eqx.tree_at(lambda c: c.signs, self, self.signs[jnp.minimum(time, self.signs.shape[-1] - 1)][None])

    def step(self, key, state, theta):
        return state + 0.5 * jnp.tanh(theta[0] + theta[1] * state) + 0.3 * self.signs[0]

    def cost(self, state, theta):
        return jnp.sum(state**2) + 0.1 * theta[1] * jnp.sum(jnp.sin(state))


def test_pathwise_equals_the_exact_expectation_over_enumerated_noise():
    steps = 5
    signs = 2.0 * ((jnp.arange(2**steps)[:, None] >> jnp.arange(steps)) & 1) - 1.0
    theta = jnp.array([-0.3, -0.7])
    chain = TwoPoint(signs)
    problem = Problem(chain, TimeVarying(steps), theta=theta, axes=eqx.if_array(0))

    def cost(at):
        def one(noise):
            state, total = jnp.array([0.5]), 0.0
            for sign in noise:
                total = total + chain.cost(state, at)
                state = state + 0.5 * jnp.tanh(at[0] + at[1] * state) + 0.3 * sign
            return total + chain.cost(state, at)

        return jnp.mean(jax.vmap(one)(signs))

    estimate, _ = pathwise(KEY, problem, theta, count=2**steps)
    np.testing.assert_allclose(estimate.value, cost(theta), atol=1e-10)
    np.testing.assert_allclose(estimate.gradient, jax.jit(jax.grad(cost))(theta), atol=1e-10)


def test_windows_with_an_exact_critic_equal_the_expectation_over_enumerated_noise():
    """A linear chain with two-point noise has the value of the Gaussian one: every horizon then gives the gradient of J."""
    steps = 4
    signs = 2.0 * ((jnp.arange(2**steps)[:, None] >> jnp.arange(steps)) & 1) - 1.0

    class Linear(TwoPoint):
        def step(self, key, state, theta):
            return theta[0] * state + theta[1] + 0.3 * self.signs[0]

        def cost(self, state, theta):
            return jnp.sum(state**2)

    theta = jnp.array([0.8, 0.1])
    problem = Problem(Linear(signs), TimeVarying(steps), theta=theta, axes=eqx.if_array(0))
    rows = [jnp.array([0.0, 0.0, 1.0])]  # V_t = c + b x + m x^2
    for _ in range(steps):
        c, b, m = rows[-1]
        a, d = theta
        rows.append(jnp.array([c + b * d + m * (d * d + 0.09), b * a + 2.0 * m * a * d, 1.0 + m * a * a]))
    value = TimeVaryingValue(LinearValue(polynomial_features(2), jnp.array(rows[::-1])))
    gradients = [
        pathwise(KEY, problem, theta, count=2**steps, horizon=horizon, value=value)[0].gradient
        for horizon in (1, 2, 3, 4)
    ]
    for gradient in gradients[:3]:
        np.testing.assert_allclose(gradient, gradients[3], atol=1e-10)


@pytest.mark.parametrize("horizon", [1, 2, 3])
def test_the_critic_at_the_end_of_a_window_is_discounted_to_its_time(horizon):
    """Without noise, window by window, by hand: gamma^t0 (sum_{k<H} gamma^k L + gamma^H V(x_{t0+H})), x_{t0} constant."""
    gamma, steps, theta = 0.6, 3, jnp.array([-0.3, -0.7])
    chain = TwoPoint(jnp.zeros(1))
    problem = Problem(chain, Episodic(gamma, steps), theta=theta)

    def step(x, at):
        return x + 0.5 * jnp.tanh(at[0] + at[1] * x)

    def critic(x):
        return jnp.sum(2.0 + 3.0 * x + x**2)

    def by_hand(at):
        x, total = jnp.array([0.5]), 0.0
        for t in range(steps):
            total = total + gamma**t * (x[0] ** 2 + 0.1 * at[1] * jnp.sin(x[0]))
            x = step(x, at)
            if (t + 1) % horizon == 0 or t + 1 == steps:
                total = total + gamma ** (t + 1) * critic(x)
                x = jax.lax.stop_gradient(x)
        return total

    estimate, _ = pathwise(KEY, problem, theta, count=2, horizon=horizon, value=KnownValue(critic))
    np.testing.assert_allclose(estimate.gradient, jax.jit(jax.grad(by_hand))(theta), rtol=1e-10)
    if horizon == steps:
        np.testing.assert_allclose(estimate.value, by_hand(theta), rtol=1e-10)
    else:
        path, whole = jnp.array([0.5]), 0.0
        for t in range(steps):
            whole, path = whole + gamma**t * chain.cost(path, theta), step(path, theta)
        np.testing.assert_allclose(estimate.value, whole + gamma**steps * critic(path), rtol=1e-10)


def test_naive_score_and_reparameterised_estimates_of_a_known_derivative():
    """J = E_{x~N(theta,1)}[x^2 theta] at theta = 1: the derivative is 4, the naive one that ignores the density 2."""

    class Square(Chain):
        def initial(self, key, theta):
            return theta + jax.random.normal(key, (1,))

        def log_initial(self, state, theta):
            return -0.5 * jnp.sum((state - theta) ** 2)

        def step(self, key, state, theta):
            return state

        def log_prob(self, following, state, theta):
            return jnp.zeros(())

        def terminal(self, state):
            return jnp.ones((), bool)

        def cost(self, state, theta):
            return state[0] ** 2 * theta[0]

    class Naive(Square):
        def log_initial(self, state, theta):
            return jnp.zeros(())

    theta = jnp.ones(1)
    by_score, _ = score(KEY, Problem(Square(), Episodic(1.0, 1), theta=theta), theta, count=4000)
    by_path, _ = pathwise(KEY, Problem(Square(), Episodic(1.0, 1), theta=theta), theta, count=4000)
    naive, _ = score(KEY, Problem(Naive(), Episodic(1.0, 1), theta=theta), theta, count=4000)
    assert within(by_score.gradient, by_score.standard_error, 4.0)
    assert within(by_path.gradient, by_path.standard_error, 4.0)
    assert within(naive.gradient, naive.standard_error, 2.0)
    assert by_path.standard_error[0] < 0.75 * by_score.standard_error[0]
