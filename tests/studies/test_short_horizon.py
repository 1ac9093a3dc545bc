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


def test_refuses_settings_that_cannot_be():
    for wrong in (
        {"gamma": 1.0},
        {"horizon": 0},
        {"environments": 6},
        {"learning_rate": -1.0},
        {"lam": 2.0},
        {"abandon": 0.0},
        {"soften": 0.5},
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
