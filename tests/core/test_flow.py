"""Conditional normalising flows: densities against their definition, noise inferred exactly, recovery of a known noise."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from core_chains import within

from dso_robotics.core.flow import normal_flow
from dso_robotics.core.flow_chain import FlowChain, StepModel, fit_steps, regressed
from dso_robotics.core.gaussian import gaussian_log
from dso_robotics.core.gradient.recorded import recorded_pathwise
from dso_robotics.core.gradient.score import score
from dso_robotics.core.objective import Episodic, Problem
from dso_robotics.core.value import KnownValue, ZeroValue
from dso_robotics.errors import DsoError

KEY = jax.random.key(3)


def bent(size, *, layers=2, bins=6):
    """A flow far from normal, with all weights drawn."""
    flow = normal_flow(KEY, jnp.arange(size) / 3.0, jnp.eye(size) + 0.4, 2, layers=layers, bins=bins, hidden=8)
    weights, rest = eqx.partition(flow.layers, eqx.is_inexact_array)
    leaves, shape = jax.tree.flatten(weights)
    keys = jax.random.split(KEY, len(leaves))
    drawn = [leaf + 0.5 * jax.random.normal(key, leaf.shape) for key, leaf in zip(keys, leaves, strict=True)]
    return eqx.tree_at(lambda f: f.layers, flow, eqx.combine(jax.tree.unflatten(shape, drawn), rest))


@pytest.mark.parametrize(("size", "bins"), [(1, 6), (3, 6), (3, 0)])
def test_the_inverse_is_exact_and_the_density_is_that_of_the_change_of_variables(size, bins):
    flow = bent(size, layers=3, bins=bins)
    forward, inverse, log_prob = map(eqx.filter_jit, (flow.forward, flow.inverse, flow.log_prob))
    for at, scale in enumerate((0.5, 1.0, 3.0, 8.0)):  # inside the box of the splines, at its ends and outside
        noise = scale * jax.random.normal(jax.random.key(at), (size,))
        condition = jnp.array([0.4, -1.3]) * (at + 1)
        y = forward(noise, condition)
        np.testing.assert_allclose(inverse(y, condition), noise, atol=1e-10)
        step = 1e-6
        columns = [
            (forward(noise + step * e, condition) - forward(noise - step * e, condition)) / (2 * step)
            for e in jnp.eye(size)
        ]
        change = np.linalg.slogdet(np.stack(columns, 1))[1]
        base = -0.5 * noise @ noise - 0.5 * size * np.log(2 * np.pi)
        np.testing.assert_allclose(log_prob(y, condition), base - change, atol=1e-6)


def test_the_density_integrates_to_one():
    line, flow = jnp.linspace(-80.0, 80.0, 400_001), bent(1)
    density = eqx.filter_jit(lambda y, c: jnp.exp(jax.vmap(lambda y: flow.log_prob(y[None], c))(y)))
    for condition in (jnp.array([0.0, 0.0]), jnp.array([1.0, -2.0])):
        np.testing.assert_allclose(jnp.trapezoid(density(line, condition), line), 1.0, atol=1e-4)


@pytest.mark.long
def test_the_density_of_two_numbers_integrates_to_one():
    flow, side = bent(2), jnp.linspace(-12.0, 16.0, 2801)
    grid = jnp.stack(jnp.meshgrid(side, side, indexing="ij"), axis=-1).reshape(-1, 2)
    density = eqx.filter_jit(lambda y, c: jnp.exp(jax.vmap(lambda y: flow.log_prob(y, c))(y)))
    total = jnp.sum(density(grid, jnp.array([0.2, 0.1]))) * (side[1] - side[0]) ** 2
    np.testing.assert_allclose(total, 1.0, atol=1e-3)


def test_it_begins_as_the_normal_density():
    root = jnp.array([[0.5, 0.0, 0.0], [0.2, 1.5, 0.0], [-0.4, 0.1, 0.3]])
    flow = normal_flow(KEY, jnp.array([1.0, 0.0, -2.0]), root @ root.T, 2)
    y, condition = jnp.array([0.7, -0.3, -1.9]), jnp.array([3.0, -1.0])
    np.testing.assert_allclose(flow.log_prob(y, condition), gaussian_log(y - flow.location, root), atol=1e-10)


def test_derivatives_of_the_density_are_those_of_differences():
    """By the condition and by y, on both sides of the box of the splines."""
    flow = bent(2)
    log_prob = eqx.filter_jit(flow.log_prob)
    for y, condition in (
        (jnp.array([0.3, -0.5]), jnp.array([0.4, 0.7])),
        (jnp.array([9.0, 40.0]), jnp.array([-1.0, 0.0])),
    ):
        for arg in range(2):
            found = eqx.filter_jit(jax.grad(flow.log_prob, argnums=arg))(y, condition)
            for i, e in enumerate(1e-6 * jnp.eye(2)):
                ends = [
                    log_prob(*[p + s * e if k == arg else p for k, p in enumerate((y, condition))]) for s in (1, -1)
                ]
                np.testing.assert_allclose(found[i], (ends[0] - ends[1]) / 2e-6, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"layers": 0}, "layers: expected at least 1"),
        ({"bins": 1}, "bins: expected 0"),
        ({"covariance": jnp.zeros((2, 2))}, "noise in every direction"),
        ({"covariance": jnp.eye(3)}, r"expected shape \(2, 2\)"),
    ],
)
def test_bad_input(more, told):
    with pytest.raises(DsoError, match=told):
        normal_flow(KEY, jnp.zeros(2), more.pop("covariance", jnp.eye(2)), 1, **more)


class Latched(FlowChain):
    """A learned chain of one number under u = theta0 x + theta1, with the cost x^2."""

    model: StepModel

    def initial(self, key, theta):
        return jax.random.uniform(key, (1,), minval=-1.0, maxval=1.0)

    def bottleneck(self, state, theta):
        return theta[:1] * state + theta[1:]

    def cost_through(self, state, h):
        return state[0] ** 2


class Latch:
    """The true process: x' = 0.8 x + 0.5 with probability p(u) = 1 / (1 + exp(-1.5 u)), else 0.8 x - 0.5; N(0, 0.25^2) besides.

    The action moves the weight of the modes. No location and scale of one normal density follow from it.
    """

    jump, spread = 0.5, 0.25

    def chance(self, u):
        return jax.nn.sigmoid(1.5 * u)

    def recorded(self, key, count):
        keys = jax.random.split(key, 4)
        x, u = (jax.random.uniform(k, (count, 1), minval=-1.0, maxval=1.0) for k in keys[:2])
        sign = jnp.where(jax.random.uniform(keys[2], (count, 1)) < self.chance(u), 1.0, -1.0)
        return x, u, 0.8 * x + self.jump * sign + self.spread * jax.random.normal(keys[3], (count, 1))

    def log_prob(self, following, x, u):
        logs = jnp.log(jnp.stack([self.chance(u), 1.0 - self.chance(u)]))
        means = jnp.stack([0.8 * x + self.jump, 0.8 * x - self.jump])
        return jax.scipy.special.logsumexp(logs + jax.scipy.stats.norm.logpdf(following, means, self.spread), axis=0)

    def expected(self, x, u):
        """E[x'^3]."""
        moments = [m**3 + 3 * m * self.spread**2 for m in (0.8 * x + self.jump, 0.8 * x - self.jump)]
        return self.chance(u) * moments[0] + (1.0 - self.chance(u)) * moments[1]


@pytest.fixture(scope="module")
def fitted():
    """The latch, and models of its steps: a flow, and normal noise whose mean and spread are networks too."""
    truth = Latch()
    steps = truth.recorded(jax.random.key(0), 4000)
    models = {}
    for name, bins in (("flow", 8), ("normal", 0)):
        begun = regressed(KEY, steps, layers=1, bins=bins, hidden=16)
        models[name], result = fit_steps(jax.random.key(1), begun, steps, iterations=200, rate=1e-2)
        assert result.best is not None
    return truth, models


def test_a_noise_of_two_modes_is_recovered(fitted):
    truth, models = fitted
    x, u, following = truth.recorded(jax.random.key(9), 20_000)
    exact = truth.log_prob(following, x, u)[:, 0]
    lost = {name: exact - jax.vmap(model.log_prob)(following, x, u) for name, model in models.items()}
    divergence = {name: float(jnp.mean(part)) for name, part in lost.items()}
    assert divergence["flow"] < 0.02
    assert divergence["normal"] > 0.08  # what one normal density cannot describe
    # The noise inferred from new transitions is standard normal, independently of the action, where the model is right.
    noise = jax.vmap(models["flow"].inferred)(following, x, u)[:, 0]
    np.testing.assert_allclose([jnp.mean(noise), jnp.std(noise)], [0.0, 1.0], atol=0.03)
    for power in (1, 2, 3):
        assert abs(float(jnp.corrcoef(noise**power, u[:, 0])[0, 1])) < 0.04
    np.testing.assert_allclose(jax.vmap(models["flow"].next)(noise[:, None], x, u), following, atol=1e-10)


def test_the_value_gradient_on_recorded_steps_is_nearer_with_the_flow_than_with_normal_noise(fitted):
    truth, models = fitted
    x, u, following = truth.recorded(jax.random.key(11), 40_000)
    theta, gamma = jnp.array([0.6, -0.2]), 0.9
    value = KnownValue(lambda state: state[0] ** 3)

    def slope(x):
        return jax.grad(lambda t: gamma * truth.expected(x, t[0] * x + t[1]))(theta)

    exact = jnp.mean(jax.vmap(slope)(x[:, 0]), axis=0)
    found = {}
    for name, model in models.items():
        noise = jax.vmap(model.inferred)(following, x, u)
        found[name] = recorded_pathwise(Latched(model), theta, x, noise[:, None], gamma=gamma, value=value)
    size = np.linalg.norm(exact)
    off = {name: np.linalg.norm(one.gradient - exact) / size for name, one in found.items()}
    # The standard errors are below 0.01. What is left of the flow's error is that of 4,000 recorded steps.
    assert np.linalg.norm(found["normal"].standard_error) < 0.02 * size
    assert off["flow"] < 0.2
    assert off["normal"] > 0.4


def test_it_is_a_chain_of_the_core(fitted):
    """Rollouts, noise inferred along one of them, and both gradients of the same chain agree."""
    chain, theta = Latched(fitted[1]["flow"]), jnp.array([0.3, 0.1])
    state = jnp.array([0.4])
    noise = chain.draw(KEY, theta, 1)[0]
    following = chain.move(noise, state, theta)
    np.testing.assert_allclose(chain.inferred(following, state, theta), noise, atol=1e-10)
    np.testing.assert_array_equal(jax.jacobian(lambda t: chain.inferred(following, state, t))(theta), 0.0)
    problem = Problem(chain, Episodic(0.9, 2), theta=theta)
    by_score, _ = score(jax.random.key(5), problem, theta, count=20_000)
    starts = jax.vmap(lambda key: chain.initial(key, theta))(jax.random.split(jax.random.key(6), 20_000))
    drawn = jax.random.normal(jax.random.key(7), (20_000, 2, 1))
    through = recorded_pathwise(chain, theta, starts, drawn, gamma=0.9, value=ZeroValue())
    errors = np.hypot(by_score.standard_error, through.standard_error)
    assert within(by_score.gradient, errors, through.gradient)


def test_bad_recordings():
    truth = Latch()
    steps = truth.recorded(KEY, 100)
    with pytest.raises(DsoError, match="too few"):
        regressed(KEY, tuple(part[:3] for part in steps))
    with pytest.raises(DsoError, match="not finite"):
        regressed(KEY, (steps[0], steps[1], steps[2].at[4].set(jnp.nan)))
    with pytest.raises(DsoError, match="steps: expected x"):
        regressed(KEY, (steps[0], steps[1][:-1], steps[2]))
    with pytest.raises(DsoError, match="without noise"):
        regressed(KEY, (steps[0], steps[1], 0.5 * steps[0] + steps[1]))
    with pytest.raises(DsoError, match="hold_out"):
        fit_steps(KEY, regressed(KEY, steps), steps, hold_out=1.0)
    chain = Latched(regressed(KEY, steps))
    with pytest.raises(DsoError, match=r"noise: expected \(M, H, k\)"):
        recorded_pathwise(chain, jnp.zeros(2), steps[0], steps[0], gamma=0.9, value=ZeroValue())
