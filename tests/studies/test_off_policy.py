"""DDPG, TD3 and SAC: the optimal regulator and its Q, DPG as the limit of SAC, ends and time limits, what is refused."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg

from dso_robotics.core.method.fitted_q import least
from dso_robotics.core.method.sac import log_acting
from dso_robotics.core.method.settings import Settings
from dso_robotics.core.objective import Episodic, Problem
from dso_robotics.errors import DsoError
from dso_robotics.robot.schedule import training_method
from dso_robotics.studies.train_build import build
from dso_robotics.studies.train_study import TrainStudy
from tests.studies.test_short_horizon import GAMMA, cart
from tests.studies.train_robots import regulated_cart, trained, write


def settings(method, **more):
    """Short windows of the cart."""
    given = {
        "environments": 16,
        "horizon": 8,
        "iterations": 160,
        "critic_hidden": 64,
        "critic_batch": 128,
        "ratio": 0.5,
    }
    rates = {"critic_rate": 3e-3, "learning_rate": 2e-2, "final_rate": 0.05, "noise_end": 0.1, "polyak": 0.02}
    given |= {"warmup": 500, "replay": 20_000, "restart": 0.3, "episode": 40, "gamma": GAMMA}
    return Settings(method=method, **(given | rates | more))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "temperature"),
    [
        pytest.param("ddpg", None, marks=pytest.mark.long),
        ("td3", None),
        pytest.param("sac", 0.0, marks=pytest.mark.long),
        ("sac", None),
        ("nfqca", None),
        ("fitted_q", None),
        ("amortised_q", None),
    ],
)
def test_finds_the_optimal_gain_and_its_q(tmp_path, method, temperature):
    chain = cart(tmp_path)
    chosen = settings(method, temperature=temperature, basepoints=512, solver_steps=12)
    trainer = training_method(chain, chosen)
    learner, news = trained(trainer, chain, chosen.iterations)
    assert bool(news.accepted)
    a, b, q, r, value = regulated_cart(GAMMA)
    root = np.sqrt(GAMMA)

    def cost(k):
        """Of a gain, from starts uniform in [-1, 1]^2, in closed form."""
        closed = a - b @ k
        return np.trace(scipy.linalg.solve_discrete_lyapunov(root * closed.T, closed.T @ q @ closed + k.T @ r @ k)) / 3

    best, found = np.trace(value) / 3, -np.asarray(learner.theta)[None, :2] / np.asarray(learner.memory.spread)
    assert best <= cost(found) < 1.05 * best
    if method in ("td3", "sac") and temperature is None:
        return  # Q of SAC counts the entropy, and that of TD3 noise on the actions
    draws = np.random.default_rng(0).uniform(-0.8, 0.8, (200, 3))
    wanted = []
    for *x, u in draws:
        after = a @ x + b[:, 0] * u
        wanted.append(after @ q @ after + r[0, 0] * u**2 + GAMMA * after @ value @ after)

    def q_of(draw):
        state = eqx.tree_at(lambda s: (s.body.qpos, s.body.qvel), chain.rest(), (draw[:1], draw[1:2]))
        row = trainer.course.row(learner.theta, state)
        return learner.critic_scale * (1 + trainer.value(learner.critic, learner.memory, row, draw[2:])[0])

    error = np.asarray(jax.vmap(q_of)(jnp.asarray(draws))) - wanted
    assert np.sqrt(np.mean(error**2)) < 0.1 * np.std(wanted)


def test_the_solver_finds_the_least_in_a_box():
    low, high = jnp.array([-1.0, -1.0]), jnp.array([1.0, 3.0])
    starts = jnp.array([[0.9, -0.9], [-0.5, 2.5]])
    found = least(lambda u: (u[0] - 0.3) ** 2 + u[0] * u[1] + (u[1] - 9.0) ** 2, starts, low, high, steps=60)
    # u[1] is at its bound of 3, and there u[0] = 0.3 - 1.5 is at its own.
    np.testing.assert_allclose(found, [-1.0, 3.0], atol=1e-6)
    inside = least(lambda u: jnp.sum((u - jnp.array([0.25, 1.5])) ** 2), starts, low, high, steps=60)
    np.testing.assert_allclose(inside, [0.25, 1.5], atol=0.03)
    # Two valleys: the start in the deeper one counts.
    wavy = least(
        lambda u: jnp.cos(6.0 * u[0]) + 0.3 * u[0] + u[1] ** 2,
        jnp.array([[0.5, 0.0], [-0.5, 0.0]]),
        low,
        high,
        steps=60,
    )
    assert float(wavy[0]) == pytest.approx((-np.pi - np.arcsin(0.05)) / 6.0, abs=0.03)


def test_solved_actions_are_kept_for_a_window_of_iterations(tmp_path):
    chain = cart(tmp_path)
    trainer = training_method(chain, settings("amortised_q", basepoints=32, solver_steps=3, window=2, warmup=0))
    learner, rings = trainer.init(jax.random.key(0), jnp.asarray(chain.layout.initial)), []
    for _ in range(3):
        learner, _ = trainer.step(learner)
        rings.append(np.asarray(learner.spare.kept.greedy))
    assert learner.spare.capacity == 64
    np.testing.assert_array_equal(rings[1][:32], rings[0][:32])
    np.testing.assert_array_equal(rings[2][32:], rings[1][32:])
    assert np.all(rings[2][:32] != rings[0][:32])
    kept = learner.spare.kept
    # Where Q has no range of actions to know, the solver stays within those that were played.
    assert np.all(np.abs(kept.greedy) <= np.abs(np.asarray(learner.experience.kept.action)).max())


def test_targets_stay_while_q_is_fitted(tmp_path):
    """Of fitted iterations: the slow networks are those that the iteration before ended with."""
    chain = cart(tmp_path)
    trainer = training_method(chain, settings("nfqca", warmup=0))
    learner = trainer.init(jax.random.key(0), jnp.asarray(chain.layout.initial))
    for _ in range(2):
        before, (learner, _) = learner, trainer.step(learner)
        for slow, old in zip(
            *(jax.tree.leaves(eqx.filter(c, eqx.is_array)) for c in (learner.slow, before.critic)), strict=True
        ):
            np.testing.assert_array_equal(slow, old)
        np.testing.assert_array_equal(learner.slow_theta, before.theta)
        assert np.any(np.asarray(learner.theta) != np.asarray(before.theta))


def test_dpg_is_sac_without_temperature_and_spread(tmp_path):
    chain = cart(tmp_path)
    theta = jnp.asarray(chain.layout.initial) + 0.3
    sac = training_method(chain, settings("sac", temperature=0.0, warmup=0))
    td3 = training_method(chain, settings("td3"))
    learner = sac.init(jax.random.key(0), theta)
    for _ in range(2):
        learner, _ = sac.step(learner)
    one = learner.critic[0]
    at = dataclasses.replace(learner, critic=(one, one))
    assert int(learner.experience.count) == 256
    batch = learner.experience.drawn(jax.random.key(1), 256)
    narrow = eqx.tree_at(lambda s: s.network.layers[-1].bias, learner.spare.spread, replace_fn=lambda b: b - 50.0)
    noisy = jax.grad(lambda t: sac.policy_cost(jax.random.key(2), t, narrow, at, at, batch)[0])(theta)
    plain = jax.grad(lambda t: td3.policy_cost(t, at.critic, learner.memory, batch))(theta)
    assert float(jnp.linalg.norm(plain)) > 1e-4
    np.testing.assert_allclose(noisy, plain, atol=0.02 * float(jnp.linalg.norm(plain)))


def test_the_density_of_what_acts_integrates_to_one():
    mean, log_spread = jnp.array([0.4, -0.3]), jnp.array([-0.5, 0.2])
    acting = jnp.linspace(-1 + 1e-7, 1 - 1e-7, 200_001)
    action = jnp.arctanh(acting)
    for k in range(2):
        draw = (action - mean[k]) * jnp.exp(-log_spread[k])
        logs = jax.vmap(lambda a, d, k=k: log_acting(a[None], d[None], log_spread[k : k + 1], np.array([True])))(
            action, draw
        )
        assert float(jnp.trapezoid(jnp.exp(logs), acting)) == pytest.approx(1.0, abs=1e-3)
    both = log_acting(mean + 0.1, jnp.full(2, 0.1) * jnp.exp(-log_spread), log_spread, np.array([False, False]))
    wanted = jax.scipy.stats.norm.logpdf(0.1, 0.0, jnp.exp(log_spread)).sum()
    assert float(both) == pytest.approx(float(wanted))


def test_what_acts_is_the_place_in_the_range(tmp_path):
    """Where zero is home and a small action moves the control a little, the critics see and the noise moves the control."""
    path = write(tmp_path, more="[action]\nscale = { push = 0.5 }")
    model = tmp_path / "cart.xml"
    model.write_text(model.read_text().replace('gear="2"', 'gear="2" ctrlrange="-1 3"'))
    path.write_text(path.read_text().replace("[training]", '[training]\nmethod = "td3"'))
    task = build(TrainStudy.read(path))
    trainer = training_method(task.chain, task.windows, explore=task.explore)
    learner = trainer.init(jax.random.key(0), jnp.asarray(task.chain.layout.initial) + 0.2)
    law = dataclasses.replace(trainer.law(learner), alone=jnp.array(False), deviation=jnp.array([0.2]))
    noise = jax.random.normal(jax.random.key(1), (8, 8, 1))
    states = trainer.course.explored(learner.theta, learner.memory, trainer.placed(learner), noise, law)
    place = (np.asarray(states.ctrl)[:, 1:] - 1.0) / 2.0
    acting = trainer.bounded(trainer.course.taken(states))[:, 1:]
    np.testing.assert_allclose(acting, place, rtol=1e-9)
    before = jax.tree.map(lambda leaf: jnp.asarray(leaf[0, 0]), states)
    mean = trainer.course.mean(learner.theta, learner.memory, trainer.course.row(learner.theta, before))
    np.testing.assert_allclose(jnp.tanh(mean) + 0.2 * noise[0, 0], place[0, 0], rtol=1e-6)
    # At home the slope is `scale`: a policy's output of 1e-4 moves the control by half of that.
    squash = task.chain.squash
    assert float(squash(jnp.array([1e-4]))[0]) == pytest.approx(0.5e-4, rel=1e-3)


FAR = '[terminate.far]\nquantity = "joint/x/position"\nhigh = 1.3\ncost = 7.0\n'


def test_a_terminal_state_ends_and_a_time_limit_does_not(tmp_path):
    path = write(tmp_path, more=FAR)
    path.write_text(path.read_text().replace("[training]", '[training]\nmethod = "ddpg"\nreplay = 64\nwarmup = 10000'))
    task = build(TrainStudy.read(path))
    theta = np.array(task.chain.layout.initial)
    theta[2] = 50.0  # the bias of a linear policy: it pushes to the right as hard as it can
    trainer = training_method(task.chain, dataclasses.replace(task.windows, noise_end=1e-6), explore=task.explore)
    learner = trainer.init(jax.random.key(0), jnp.asarray(theta))
    learner = dataclasses.replace(
        learner,
        experience=dataclasses.replace(learner.experience, count=jnp.asarray(0)),
        age=jnp.zeros_like(learner.age),
    )
    law = trainer.law(
        dataclasses.replace(learner, experience=dataclasses.replace(learner.experience, count=jnp.asarray(10**6)))
    )
    noise = jnp.zeros((8, 8, 1))
    states = trainer.course.explored(learner.theta, learner.memory, trainer.placed(learner), noise, law)
    window = jax.tree.map(lambda leaf: jnp.asarray(leaf[0]), states)
    path, found = trainer._taken(trainer.problem, learner.theta, window)
    x = np.asarray(window.body.qpos[:, 0])
    first = int(np.argmax(x > 1.3))
    assert 1 < first < 8
    # The transition into the terminal state ends and costs; none begins there. Nothing else ends.
    np.testing.assert_array_equal(found.valid, np.arange(8) < first)
    np.testing.assert_array_equal(np.flatnonzero(found.ended & found.valid), [first - 1])
    assert float(found.cost[first - 1]) > 7.0
    inside = jax.tree.map(lambda leaf: leaf[:first], window)
    trainer.problem = Problem(trainer.problem.chain, Episodic(0.99, first - 1), theta=learner.theta)
    path, found = trainer._taken(trainer.problem, learner.theta, inside)
    assert np.asarray(found.valid).all()
    assert not np.asarray(found.ended).any()


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ("basepoints = 0", "basepoints: expected at least 1"),
        ("solver_steps = 0", "solver_steps: expected at least 1"),
        ("window = 0", "window: expected at least 1"),
        ("replay = 500", "basepoints: 1024 are more than the replay keeps"),
    ],
)
def test_numbers_of_the_solver_that_cannot_be_are_refused(tmp_path, more, told):
    path = write(tmp_path)
    path.write_text(path.read_text().replace("[training]", f'[training]\nmethod = "amortised_q"\n{more}'))
    with pytest.raises(DsoError, match=told):
        build(TrainStudy.read(path))


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ("replay = 63", "replay: 63 transitions are fewer than one iteration"),
        ("temperature = -1.0", "temperature: expected a number from 0"),
        ("ratio = 0.0", "ratio: expected a positive number"),
        ("polyak = 2.0", "polyak: expected a number from 0 to 1"),
    ],
)
def test_numbers_that_cannot_be_are_refused(tmp_path, more, told):
    path = write(tmp_path)
    path.write_text(path.read_text().replace("[training]", f'[training]\nmethod = "sac"\n{more}'))
    with pytest.raises(DsoError, match=told):
        build(TrainStudy.read(path))


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("noise = 0.1", "noise = 0.1\nlearn_noise = true", "learn_noise changes nothing: method = 'td3'"),
        (
            "[cost.effort]",
            '[cost.sure]\nkind = "entropy"\nweight = 0.1\n[cost.effort]',
            "cost.sure is of the policy itself",
        ),
        ("seconds = 2.0", 'seconds = 2.0\nfree = ["actuator/push/gear=2@1:4"]', "gear"),
    ],
)
def test_what_a_replay_cannot_learn_is_refused(tmp_path, old, new, told):
    path = write(tmp_path)
    path.write_text(path.read_text().replace("[training]", '[training]\nmethod = "td3"').replace(old, new))
    with pytest.raises(DsoError, match=told):
        build(TrainStudy.read(path))
