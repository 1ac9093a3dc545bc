"""How rollouts end, what they charge, and that checkpointing and per-rollout chains change nothing they should not."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from core_chains import layered_chain, regulator

from dso_robotics.core.chain import Chain, stack
from dso_robotics.core.gradient.pathwise import pathwise
from dso_robotics.core.gradient.score import score
from dso_robotics.core.objective import Average, Episodic, Problem, TimeVarying
from dso_robotics.core.rollout import Ending, credit, rollout, rollouts
from dso_robotics.core.value import KnownValue, ZeroValue

KEY = jax.random.key(3)


class Counter(Chain):
    """x counts steps; it ends at `last`, and blows up at `limit`."""

    last: float = 1e9
    limit: float = 1e9

    def initial(self, key, theta):
        return jnp.zeros(2)

    def step(self, key, state, theta):
        grown = state.at[0].add(1.0).at[1].set(jax.random.normal(key))
        return jnp.where(grown[0] >= self.limit, jnp.array([jnp.inf, grown[1]]), grown)

    def log_prob(self, following, state, theta):
        return -0.5 * (following[1] - theta[0]) ** 2

    def cost(self, state, theta):
        return 1.0 + theta[0] + 0.0 * state[0]

    def terminal(self, state):
        return state[0] >= self.last


def run(chain, objective, theta=(0.0,)):
    theta = jnp.array(theta)
    problem = Problem(chain, objective, theta=theta)
    path = eqx.filter_jit(rollout)(KEY, problem, theta)
    return problem, path


def test_ends_at_the_preset_time_and_bootstraps():
    problem, path = run(Counter(), Episodic(0.5, 3))
    assert int(path.ending) == Ending.TIME
    assert path.counted.tolist() == [True, True, True, False]
    earned = credit(path, problem.objective, KnownValue(lambda x: jnp.asarray(10.0)))
    np.testing.assert_allclose(earned.returns, [1.75 + 1.25, 1.5 + 2.5, 1.0 + 5.0, 10.0])
    np.testing.assert_allclose(earned.move_weight, [0.5, 0.25, 0.125])


def test_ends_at_a_terminal_state_charged_once():
    problem, path = run(Counter(last=2.0), Episodic(1.0, 5))
    assert int(path.ending) == Ending.TERMINAL
    assert path.counted.tolist() == [True, True, True, False, False, False]
    assert float(credit(path, problem.objective, ZeroValue()).value) == 3.0


def test_finite_horizon_charges_the_last_state():
    problem, path = run(Counter(), TimeVarying(3))
    assert float(credit(path, problem.objective, KnownValue(lambda x: jnp.asarray(99.0))).value) == 4.0


def test_divergence_is_reported_or_charged():
    _, path = run(Counter(limit=2.0), Episodic(0.9, 5))
    assert int(path.ending) == Ending.DIVERGED
    assert bool(jnp.all(jnp.isfinite(path.states)))
    theta = jnp.zeros(1)
    estimate, _ = score(KEY, Problem(Counter(limit=2.0), Episodic(0.9, 5), theta=theta), theta, count=8)
    assert int(estimate.diverged) == 8
    assert not bool(estimate.usable)
    priced = Problem(Counter(limit=2.0), Episodic(0.5, 5, divergence_cost=100.0), theta=theta)
    estimate, batch = score(KEY, priced, theta, count=8)
    assert bool(estimate.usable)
    np.testing.assert_allclose(estimate.value, 1.0 + 0.5 + 25.0)
    # The score of the move into divergence is kept: the action that was played is still in the state.
    np.testing.assert_allclose(batch.credit.move_weight[0], [0.5, 0.25, 0.0, 0.0, 0.0])
    np.testing.assert_allclose(batch.credit.to_go[0, :2], [1.0 + 50.0, 100.0])


class Fragile(Chain):
    """A random walk that blows up beyond 1.5; it has no terminal states, unless `Watched`."""

    gain: jax.Array

    def initial(self, key, theta):
        return jnp.where(jax.random.uniform(key) < 0.1, jnp.nan, jnp.zeros(2))

    def step(self, key, state, theta):
        grown = self.gain * theta[0] * state + jax.random.normal(key, (2,))
        return jnp.where(grown > 1.5, jnp.inf, grown)

    def log_prob(self, following, state, theta):
        return -0.5 * jnp.sum((following - self.gain * theta[0] * state) ** 2)

    def cost(self, state, theta):
        return theta[0] ** 2 + self.gain * jnp.sum(state**2)


class Watched(Fragile):
    """The same, with an account of its ends in the scan, of which there are none."""

    def terminal(self, state):
        return jnp.zeros((), bool)

    def ends(self):
        return False


def constant(kind):
    return kind(jnp.asarray(0.9)), None


def varying(kind):
    return stack([kind(jnp.asarray(gain)) for gain in np.linspace(0.5, 1.2, 7)]), None


def one_each(kind):
    return kind(jnp.linspace(0.5, 1.2, 200)), eqx.if_array(0)


@pytest.mark.parametrize(
    ("objective", "make"),
    [
        (Episodic(0.9, 6), constant),
        (TimeVarying(6), varying),
        (Average(6, burn_in=1), constant),
        (Episodic(0.9, 6), one_each),
    ],
    ids=["episodic", "time-varying", "average", "one chain each"],
)
def test_looking_for_blow_ups_afterwards_changes_no_number(objective, make):
    theta, value, told = jnp.array([0.7]), KnownValue(lambda x: jnp.sum(x**2)), []

    @eqx.filter_jit
    def everything(problem):
        paths = rollouts(KEY, problem, theta, count=200)
        drawn = [score(KEY, problem, theta, count=200, groups=groups)[0] for groups in (200, 100)]
        for horizon, groups, critic in ((6, 200, None), (6, 100, value), (2, 100, value)):
            drawn.append(pathwise(KEY, problem, theta, count=200, horizon=horizon, groups=groups, value=critic)[0])
        return paths, drawn

    for kind in (Fragile, Watched):
        chain, axes = make(kind)
        told.append(everything(Problem(chain, objective, theta=theta, axes=axes)))
    (bare, bare_drawn), (watched, watched_drawn) = told
    assert len(np.unique(np.sum(bare.moved, axis=1))) == 7
    assert set(np.unique(bare.ending)) == {Ending.TIME, Ending.DIVERGED}
    for one, other in zip(jax.tree.leaves(bare), jax.tree.leaves(watched), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12)
    for estimate in bare_drawn:
        assert 0 < int(estimate.diverged) < 200
        assert bool(jnp.isfinite(estimate.value))
        assert bool(jnp.all(jnp.isfinite(estimate.gradient)))
    for one, other in zip(jax.tree.leaves(bare_drawn), jax.tree.leaves(watched_drawn), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-10)


def test_random_ends_have_the_right_rate():
    theta = jnp.zeros(1)
    problem = Problem(Counter(), Episodic(0.7, 40, random_end=True), theta=theta)
    paths = eqx.filter_jit(rollouts)(KEY, problem, theta, count=4000)
    length = np.asarray(jnp.sum(paths.counted, axis=1))
    np.testing.assert_allclose(length.mean(), 1.0 / 0.3, atol=4.0 * length.std() / np.sqrt(4000))
    assert set(np.unique(paths.ending)) == {Ending.RANDOM}


@pytest.mark.parametrize("segment", [1, 3, 4, 7])
def test_checkpointing_changes_no_number(segment):
    chain, theta = regulator()
    problem = Problem(chain, TimeVarying(8), theta=theta)
    plain, _ = pathwise(KEY, problem, theta, count=8)
    stored, _ = pathwise(KEY, problem, theta, count=8, checkpoint=segment)
    np.testing.assert_allclose(stored.gradient, plain.gradient, rtol=1e-12)


def test_one_chain_per_rollout_is_the_mean_over_chains():
    chain, theta = regulator(noise=0.0)
    scales = jnp.array([0.9, 1.0, 1.1])
    many = eqx.filter_vmap(lambda scale: eqx.tree_at(lambda c: c.b, chain, scale * chain.b))(scales)
    problem = Problem(many, TimeVarying(6), theta=theta, axes=eqx.if_array(0))
    estimate, _ = pathwise(KEY, problem, theta, count=3)
    keys = jax.random.split(KEY, 3)
    singles = []
    for index, scale in enumerate(scales):
        one = Problem(eqx.tree_at(lambda c: c.b, chain, scale * chain.b), TimeVarying(6), theta=theta)
        path = eqx.filter_jit(rollout)(keys[index], one, theta)
        singles.append(credit(path, one.objective, ZeroValue()).value)
    np.testing.assert_allclose(estimate.value, np.mean(singles), rtol=1e-12)


def test_finite_rollouts_visit_states_as_often_as_the_closed_form_says():
    chain, theta = layered_chain(4, 3, 2, 2)
    problem = Problem(chain, Episodic(1.0, 3), theta=theta)
    paths = eqx.filter_jit(rollouts)(KEY, problem, theta, count=4000)
    seen = np.stack([np.sum((paths.states == x) & paths.counted, axis=1) for x in range(6)], axis=1)
    from core_chains import exact

    rho = exact.visitation(problem, theta)
    error = seen.std(axis=0) / np.sqrt(4000) + 1e-12
    assert np.all(np.abs(seen.mean(axis=0) - rho) < 4.0 * error)
