"""Costs that need no rollout, and tracking, against the same numbers written out."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dso_robotics.costs.cloning import cloning
from dso_robotics.costs.composite import composite
from dso_robotics.costs.kinds.recorded import CloningCost
from dso_robotics.costs.prior import prior
from dso_robotics.costs.quantity import quantity
from dso_robotics.costs.supervised import Supervised
from dso_robotics.costs.task import Square
from dso_robotics.costs.tracking import tracking
from dso_robotics.data.log import Log, write_log
from dso_robotics.data.rollout import Rollout
from dso_robotics.errors import DsoError
from dso_robotics.parameters.path import parse
from dso_robotics.parameters.vector import pack
from dso_robotics.physics.design import Gear, compose
from dso_robotics.physics.model import load
from dso_robotics.robot.mechanism import Mechanism
from dso_robotics.robot.observation import state_observation
from dso_robotics.robot.policy import LinearPolicy
from dso_robotics.robot.sensing import make_sensing
from dso_robotics.robot.system_build import robot_system
from tests.studies.train_robots import CART

TIME = np.array([0.0, 0.1, 0.3])
STATES = np.array([[0.5, -1.0], [0.2, 0.3], [-0.4, 2.0]])
CTRL = np.array([[0.7], [-0.2], [1.5]])


@pytest.fixture(scope="module")
def chain(tmp_path_factory):
    path = tmp_path_factory.mktemp("cart") / "cart.xml"
    path.write_text(CART)
    robot = load(path)
    mechanism = Mechanism(robot, None, compose([Gear(robot, "push", bounds=(1.0, 4.0))], robot))
    scene_cost = composite({"place": (1.0, Square(quantity("joint/x/position", robot)))})
    return robot_system(mechanism, LinearPolicy(2, 1), state_observation(robot), scene_cost=scene_cost, noise=0.5)


@pytest.fixture(scope="module")
def rollout():
    return Rollout(name="one", time=TIME, ctrl=CTRL, ctrl_names=("push",), qpos=STATES[:, :1], qvel=STATES[:, 1:])


def test_cloning_is_the_likelihood_of_the_recorded_actions(chain, rollout):
    weights = np.array([0.3, -0.6, 0.1])
    theta = jnp.asarray(chain.layout.initial).at[chain.layout.where("policy")].set(weights)
    cost = cloning([rollout], chain)
    errors = CTRL[:, 0] - STATES @ weights[:2] - weights[2]
    wanted = np.mean(0.5 * (errors / 0.5) ** 2 + np.log(0.5) + 0.5 * np.log(2 * np.pi))
    np.testing.assert_allclose(cost(chain, theta), wanted, rtol=1e-12)
    slope = jax.grad(lambda at: cost(chain, at))(theta)[chain.layout.where("policy")]
    features = np.c_[STATES, np.ones(3)]
    np.testing.assert_allclose(slope, -(features * errors[:, None]).mean(0) / 0.25, rtol=1e-10)


def test_the_sum_over_a_log_grows_with_the_log_and_the_mean_does_not(chain, rollout, tmp_path):
    """Sums of log-likelihoods and of priors may be added: together they are the logarithm of a posterior density."""
    theta = jnp.asarray(chain.layout.initial).at[chain.layout.where("policy")].set(np.array([0.3, -0.6, 0.1]))
    errors = CTRL[:, 0] - STATES @ [0.3, -0.6] - 0.1
    every = 0.5 * (errors / 0.5) ** 2 + np.log(0.5) + 0.5 * np.log(2 * np.pi)
    for copies in (1, 3):
        path = tmp_path / f"{copies}.h5"
        rows = tuple(dataclasses.replace(rollout, name=f"run{k}") for k in range(copies))
        write_log(path, Log("", "made for a test", "CC0", rows))
        for per, wanted in (("number", every.mean()), ("log", copies * every.sum())):
            cost = CloningCost(log=str(path), per=per)
            made = cost.cost(chain)
            np.testing.assert_allclose(cost.sized(made) * made(chain, theta), wanted, rtol=1e-12)
    with pytest.raises(DsoError, match="per has no effect"):
        CloningCost(log=str(path), per="log", weight="balance")


def test_a_cost_of_two_actuators_is_the_mean_over_their_numbers(tmp_path):
    two = CART.replace("</actuator>", '<motor name="pull" joint="x"/></actuator>')
    (tmp_path / "cart.xml").write_text(two)
    robot = load(tmp_path / "cart.xml")
    scene_cost = composite({"place": (1.0, Square(quantity("joint/x/position", robot)))})
    policy = LinearPolicy(2, 2)
    chain = robot_system(Mechanism(robot), policy, state_observation(robot), scene_cost=scene_cost, noise=0.5)
    given = {"ctrl": np.c_[CTRL, CTRL], "ctrl_names": ("push", "pull"), "qpos": STATES[:, :1], "qvel": STATES[:, 1:]}
    cost = cloning([Rollout(name="one", time=TIME, **given)], chain)
    wanted = np.mean(0.5 * (CTRL / 0.5) ** 2 + np.log(0.5) + 0.5 * np.log(2 * np.pi))
    np.testing.assert_allclose(cost(chain, jnp.asarray(chain.layout.initial)), wanted, rtol=1e-12)


def test_cloning_refuses_a_log_without_states(chain):
    blind = Rollout(name="two", time=TIME, ctrl=CTRL, ctrl_names=("push",))
    with pytest.raises(DsoError, match="qpos"):
        cloning([blind], chain)


def test_prior_is_a_normal_one(chain):
    cost = prior(chain, {"actuator/push/gear[0]": (3.0, 0.5)})
    np.testing.assert_allclose(
        cost(chain, jnp.asarray(chain.layout.initial)), 0.5 * ((2.0 - 3.0) / 0.5) ** 2, rtol=1e-9
    )


def test_tracking_follows_the_recording_in_time(chain, rollout):
    term = tracking(rollout, chain.mechanism.robot, scale=0.1)
    theta = jnp.asarray(chain.layout.initial)
    for time, wanted in ((0.2, -0.1), (5.0, -0.4)):
        state = chain.rest(jnp.array([0.25]))
        state = type(state)(
            type(state.body)(state.body.qpos, state.body.qvel, state.body.act, state.body.warmstart, jnp.asarray(time)),
            state.action,
            state.ctrl,
            state.before,
            state.queue,
            state.memory,
        )
        np.testing.assert_allclose(term(chain.scene(state, theta)), ((0.25 - wanted) / 0.1) ** 2, rtol=1e-9)


def test_a_fading_weight_falls_to_zero_on_time(chain):
    cost = Supervised(4.0, lambda chain, theta: theta[0] ** 2, fade=0.5)
    theta = jnp.full(chain.layout.size, 3.0)
    found = [float(jax.grad(lambda at, p=p: cost(chain, at, p))(theta)[0]) for p in (0.0, 0.25, 0.5, 0.9)]
    np.testing.assert_allclose(found, [24.0, 12.0, 0.0, 0.0])
    assert cost.by_c(chain, theta) == pytest.approx(36.0)
    assert float(Supervised(4.0, cost.cost)(chain, theta, 0.9)) == pytest.approx(36.0)
    for wrong in (0.0, -1.0, 1.5, float("nan")):
        with pytest.raises(DsoError, match="fade"):
            Supervised(1.0, cost.cost, wrong)


def test_cloning_does_not_follow_the_annealed_noise(chain, rollout):
    cost, theta = cloning([rollout], chain), jnp.asarray(chain.layout.initial)
    annealed = eqx.tree_at(lambda c: c.anneal, chain, jnp.full(1, -2.0), is_leaf=lambda leaf: leaf is None)
    assert float(cost(annealed, theta)) == float(cost(chain, theta))


def test_cloning_shows_a_policy_the_readings_of_the_recorded_state(tmp_path, rollout):
    sensed = CART.replace("</mujoco>", '<sensor><jointpos name="place" joint="x"/></sensor></mujoco>')
    (tmp_path / "cart.xml").write_text(sensed)
    robot = load(tmp_path / "cart.xml")
    mechanism = Mechanism(robot, pack([parse("sensor/place/bias=0.2@-1:1")], robot))
    sensing = make_sensing(mechanism, {"place": 0.1}, interval=0.05)
    scene_cost = composite({"place": (1.0, Square(quantity("joint/x/position", robot)))})
    more = {"scene_cost": scene_cost, "noise": 0.5, "sensing": sensing, "sees": "readings"}
    chain = robot_system(mechanism, LinearPolicy(1, 1), state_observation(robot), **more)
    theta = jnp.asarray(chain.layout.initial).at[chain.layout.where("policy")].set(np.array([0.3, 0.1]))
    errors = CTRL[:, 0] - 0.3 * (STATES[:, 0] + 0.2) - 0.1
    wanted = np.mean(0.5 * (errors / 0.5) ** 2 + np.log(0.5) + 0.5 * np.log(2 * np.pi))
    np.testing.assert_allclose(cloning([rollout], chain)(chain, theta), wanted, rtol=1e-9)
