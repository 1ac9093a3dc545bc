"""Training by short windows against the optimal gain of a linear-quadratic cart."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dso_robotics as dso
from dso_robotics.core.method.settings import Settings
from dso_robotics.costs.composite import composite
from dso_robotics.costs.quantity import quantity
from dso_robotics.costs.task import Square
from dso_robotics.errors import DsoError
from dso_robotics.physics.model import load
from dso_robotics.robot.mechanism import Mechanism
from dso_robotics.robot.observation import state_observation
from dso_robotics.robot.policy import LinearPolicy
from dso_robotics.robot.schedule import training_method
from dso_robotics.robot.system_build import robot_system
from dso_robotics.robot.system_state import Spread
from dso_robotics.studies.train_build import build
from dso_robotics.studies.train_study import TrainStudy
from tests.studies.train_robots import CART, regulated_cart, trained, write

GAMMA = 0.95


def cart(tmp_path):
    (tmp_path / "cart.xml").write_text(CART)
    robot = load(tmp_path / "cart.xml")
    observation = state_observation(robot)
    scene_cost = composite(
        {
            "place": (1.0, Square(quantity("joint/x/position", robot))),
            "effort": (0.3, Square(quantity("control", robot))),
        }
    )
    chain = robot_system(Mechanism(robot), LinearPolicy(2, 1), observation, scene_cost=scene_cost, noise=0.2)
    wide = Spread(chain.rest(), jnp.ones(1), jnp.ones(1), uniform=True)
    return eqx.tree_at(lambda c: c.start, chain, wide)


def test_finds_the_optimal_gain(tmp_path):
    chain = cart(tmp_path)
    settings = Settings(
        environments=32,
        horizon=12,
        iterations=300,
        gamma=GAMMA,
        learning_rate=0.05,
        critic_hidden=16,
        episode=40,
        critic_updates=8,
        restart=0.3,
    )
    method = training_method(chain, settings)
    learner, news = trained(method, chain, settings.iterations)
    assert bool(news.accepted)

    a, b, q, r, value = regulated_cart(GAMMA)
    gain = np.linalg.solve(r + b.T @ q @ b + GAMMA * b.T @ value @ b, b.T @ q @ a + GAMMA * b.T @ value @ a)
    found = np.asarray(learner.theta[:2]) / np.asarray(learner.memory.spread)
    np.testing.assert_allclose(found, -gain[0], rtol=0.12)


@pytest.mark.parametrize("horizon", [2, 8])
def test_a_critic_of_gradients_is_that_of_the_riccati_equation(tmp_path, horizon):
    """Under the best gain, which is held, the derivative of what follows a state is 2 gamma P x."""
    chain = cart(tmp_path)
    sizes = {"environments": 32, "horizon": horizon, "iterations": 400 // horizon, "critic_hidden": 32, "restart": 0.3}
    rates = {"critic_rate": 3e-3, "critic_updates": 16, "learning_rate": 1e-12, "noise_end": 1e-6}
    settings = Settings(gamma=GAMMA, episode=40, critic="gradient", **sizes, **rates)
    method = training_method(chain, settings)
    a, b, _, r, value = regulated_cart(GAMMA)
    gain = np.linalg.solve(
        r + b.T @ (np.diag([1.0, 0.0]) + GAMMA * value) @ b, b.T @ (np.diag([1.0, 0.0]) + GAMMA * value) @ a
    )
    learner = method.init(jax.random.key(0), jnp.asarray(chain.layout.initial))
    for _ in range(settings.iterations):
        slope = -jnp.asarray(gain[0]) * learner.memory.spread
        theta = jnp.append(slope, slope @ (learner.memory.mean / learner.memory.spread))
        learner, news = method.step(eqx.tree_at(lambda one: one.theta, learner, theta))
    critic = method._value(learner.critic, learner, theta).rest
    places = np.random.default_rng(0).uniform(-0.7, 0.7, (100, 2))

    def known(place):
        return critic(eqx.tree_at(lambda s: (s.body.qpos, s.body.qvel), chain.rest(), (place[:1], place[1:])))

    found, wanted = jax.vmap(jax.grad(known))(jnp.asarray(places)), 2.0 * GAMMA * places @ value
    assert float(jnp.sqrt(jnp.mean((found - wanted) ** 2))) < 0.1 * np.std(wanted)
    assert bool(news.accepted)


def test_a_critic_of_gradients_is_for_methods_that_use_no_values(tmp_path):
    path = write(tmp_path, iterations=2)
    text = path.read_text()
    path.write_text(text + 'critic = "gradient"\n')
    result = dso.train(path, progress=False)
    assert np.isfinite(result.summary["cost"]["total"])
    path.write_text(text + 'horizons = [2, 8]\nmethod = "adaptive_horizon"\n')
    with pytest.raises(DsoError, match="horizons changes nothing: method = 'adaptive_horizon'"):
        build(TrainStudy.read(path))
    for method in ("mixed", "natural", "sac"):
        path.write_text(text + f'critic = "gradient"\nmethod = "{method}"\n')
        with pytest.raises(DsoError, match=f"critic = 'gradient' knows no values, and method = '{method}'"):
            build(TrainStudy.read(path))
    path.write_text(text + 'critic = "slope"\n')
    with pytest.raises(DsoError, match="critic"):
        TrainStudy.read(path)


def test_a_window_that_blows_up_costs_its_neighbours_nothing_and_dear_ones_are_abandoned(tmp_path):
    chain = cart(tmp_path)
    settings = Settings(environments=4, horizon=4, iterations=4, critic_hidden=8, groups=1, abandon=2.0, restart=0.0)
    method = training_method(chain, settings)
    learner = method.init(jax.random.key(0), jnp.asarray(chain.layout.initial))
    # Windows at rest near the target, one far away, one lost.
    places = jnp.array([[0.01], [0.02], [30.0], [jnp.nan]])
    learner = eqx.tree_at(lambda one: one.states.body.qpos, learner, places)
    learner = eqx.tree_at(lambda one: (one.states.body.qvel, one.age), learner, (jnp.zeros((4, 1)), jnp.zeros(4, int)))
    following, news = method.step(learner)
    assert float(news.blown) == 0.25
    assert bool(news.accepted)
    assert np.all(np.isfinite(following.theta))
    assert np.any(np.asarray(following.theta) != np.asarray(learner.theta))
    np.testing.assert_array_equal(following.age, [4, 4, 0, 0])


def test_contacts_are_softer_at_first_and_the_models_own_at_last(tmp_path):
    method = training_method(cart(tmp_path), Settings(environments=4, soften=3.0))
    first, later, last = (
        method.course.at(method.course.memory, jnp.asarray(p)).base.geom_solref for p in (0.0, 0.35, 0.8)
    )
    own = method.course.chain.base.geom_solref
    np.testing.assert_allclose(first, own * np.array([3.0, 1.0]))
    np.testing.assert_allclose(later, own * np.array([np.sqrt(3.0), 1.0]))
    np.testing.assert_array_equal(last, own)


def test_horizon_and_smoothing_are_annealed_together(tmp_path):
    """Halfway to the model's own contacts both are at their geometric mean; the gradient is that of a fixed horizon."""
    chain, sizes = cart(tmp_path), {"environments": 4, "horizon": 8, "iterations": 20, "critic_hidden": 8}
    both = training_method(chain, Settings(soften=4.0, horizons=(2, 8), **sizes))
    learner = both.init(jax.random.key(0), jnp.asarray(chain.layout.initial) + 0.3)
    at = {i: eqx.tree_at(lambda one: one.iteration, learner, jnp.asarray(i)) for i in (0, 7, 14, 19)}
    assert [int(both._horizon(one)) for one in at.values()] == [2, 4, 8, 8]
    softness = [both.course.at(learner.memory, jnp.asarray(i / 20)).base.geom_solref[0, 0] for i in at]
    np.testing.assert_allclose(np.array(softness) / softness[-1], [4.0, 2.0, 1.0, 1.0])
    slopes = []
    for horizons in ((), (8, 8), (4, 4)):
        method = training_method(chain, Settings(horizons=horizons, **sizes))
        slopes.append(np.asarray(method._gradients(learner, jax.random.key(1), jnp.zeros(()))[0]))
    np.testing.assert_allclose(slopes[1], slopes[0], rtol=1e-9)
    assert np.abs(slopes[2] - slopes[0]).max() > 1e-3 * np.abs(slopes[0]).max()


def test_refuses_settings_that_cannot_be():
    for wrong in (
        {"gamma": 1.0},
        {"horizon": 0},
        {"environments": 6},
        {"learning_rate": -1.0},
        {"lam": 2.0},
        {"abandon": 0.0},
        {"soften": 0.5},
        {"critic": "slope"},
        {"horizons": (4, 33)},
        {"horizons": (4,)},
    ):
        with pytest.raises(DsoError, match=next(iter(wrong))):
            Settings(**wrong)


@pytest.mark.parametrize("engine", ["mujoco", "mjx"])
def test_a_study_names_the_adaptive_horizon_on_either_engine(tmp_path, engine):
    study = write(tmp_path, iterations=6, more=f'engine = "{engine}"')
    study.write_text(study.read_text() + 'method = "adaptive_horizon"\nvariance = 0.9\n')
    result = dso.train(study, progress=False)
    assert result.summary["method"]["name"] == "adaptive_horizon"
    assert "of at most 8 steps" in result.summary["message"]
    assert result.summary["engine"] == engine
