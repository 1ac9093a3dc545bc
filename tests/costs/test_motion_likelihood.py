"""Identification inside a training, against C MuJoCo and the known truth of a pendulum's log."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dso_robotics.costs.composite import composite
from dso_robotics.costs.motion_likelihood import MotionLikelihood, identification
from dso_robotics.costs.quantity import quantity
from dso_robotics.costs.task import Square
from dso_robotics.data.log import read_log
from dso_robotics.errors import DsoError
from dso_robotics.parameters.path import parse
from dso_robotics.parameters.vector import pack
from dso_robotics.physics.model import load
from dso_robotics.robot.mechanism import Mechanism
from dso_robotics.robot.observation import state_observation
from dso_robotics.robot.policy import LinearPolicy
from dso_robotics.robot.sensing import make_sensing
from dso_robotics.robot.system_build import on_c, robot_system
from tests.pendulum import NOISE, TRUTH

FREE = ["joint/hinge/damping=0.16@0:1", "body/pole/mass=1@0.1:3", "joint/hinge/frictionloss=0.02@0:1"]


def system(pendulum, engine, free):
    robot = load(pendulum / "pendulum.xml")
    mechanism = Mechanism(robot, pack([parse(text) for text in free], robot))
    scene_cost = composite({"place": (1.0, Square(quantity("joint/hinge/position", robot)))})
    parts = mechanism, LinearPolicy(3, 1), state_observation(robot)
    more = {"scene_cost": scene_cost, "engine": engine}
    if "sensor" in mechanism.groups:
        more["sensing"] = make_sensing(mechanism, {"*": 0.05}, interval=robot.mj.opt.timestep)
    made = robot_system(*parts, **more)
    return made if engine == "mjx" else on_c(made, robot, made.start)[0]


@pytest.fixture(scope="module", params=["mjx", "mujoco"])
def chain(pendulum, request):
    return system(pendulum, request.param, FREE)


@pytest.fixture(scope="module")
def cost(chain, pendulum):
    return identification(read_log(pendulum / "pendulum.h5"), chain, window=0.5)


@pytest.fixture(scope="module")
def slope(chain, cost):
    return jax.jit(jax.value_and_grad(lambda at: cost(chain, at)))


def test_value_and_gradient_are_those_of_c(chain, cost, slope):
    theta = jnp.asarray(chain.layout.initial)
    value, gradient = slope(theta)
    assert float(value) == pytest.approx(cost.by_c(chain, theta), rel=1e-9)
    for k in range(chain.layout.where("physics").start, chain.layout.size):
        move = np.zeros(chain.layout.size)
        move[k] = 1e-4
        wanted = (cost.by_c(chain, theta + move) - cost.by_c(chain, theta - move)) / 2e-4
        assert float(gradient[k]) == pytest.approx(wanted, rel=1e-4)
        assert abs(wanted) > 1e-4
    np.testing.assert_array_equal(gradient[chain.layout.where("policy")], 0.0)


def test_starts_follow_the_bias_of_the_sensor_that_they_come_from(pendulum):
    """A log without states: the windows start where the sensors say."""
    log = read_log(pendulum / "pendulum.h5")
    bare = dataclasses.replace(log, rollouts=tuple(dataclasses.replace(r, qpos=None, qvel=None) for r in log.rollouts))
    chain = system(pendulum, "mujoco", [FREE[0], "sensor/angle/bias=0.02@-1:1"])
    cost, theta = identification(bare, chain, window=0.5), np.array(chain.layout.initial)
    slope = jax.jit(jax.grad(lambda at: cost(chain, at)))(jnp.asarray(theta))
    part = chain.layout.where("sensor")
    move = np.zeros(chain.layout.size)
    move[part] = 1e-4
    wanted = (cost.by_c(chain, theta + move) - cost.by_c(chain, theta - move)) / 2e-4
    assert float(slope[part][0]) == pytest.approx(wanted, rel=1e-4)
    # Without them, the bias would be compared with itself.
    still = MotionLikelihood(cost.prediction, cost.start)
    assert float(jax.grad(lambda at: still(chain, at))(jnp.asarray(theta))[part][0]) != pytest.approx(wanted, rel=0.1)


def test_its_minimum_is_the_truth_and_the_noise(chain, cost, slope):
    theta, method = jnp.asarray(chain.layout.initial), optax.adam(0.1, b2=0.9)
    state = method.init(theta)
    for _ in range(150):
        change, state = method.update(slope(theta)[1], state)
        theta = theta + 0.5 * jnp.asarray(change)
    value, _ = slope(theta)
    z = np.asarray(chain.numbers(theta))
    np.testing.assert_allclose(z, [TRUTH["damping"], TRUTH["mass"], TRUTH["frictionloss"]], rtol=0.1)
    # Two channels of as many samples: half the sum of the logarithms of their noise, and a little for noisy start states.
    least = np.mean(np.log(NOISE))
    assert least - 0.05 < float(value) < least + 1.0


def test_what_cannot_be_identified_is_refused(chain, pendulum):
    log = read_log(pendulum / "pendulum.h5")
    bare = robot_system(Mechanism(chain.mechanism.robot), chain.policy, chain.observation, scene_cost=chain.scene_cost)
    with pytest.raises(DsoError, match="free some"):
        identification(log, bare)
    with pytest.raises(DsoError, match="window"):
        identification(log, chain, window=0.0)
    with pytest.raises(DsoError, match="shorter than two"):
        identification(log, chain, window=0.005)
