"""A robot system with sensors and an estimator: what an unobserved estimator changes, world and model apart, late sensors."""

from typing import Any

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

from dso_robotics.costs.composite import composite
from dso_robotics.costs.quantity import quantity
from dso_robotics.costs.task import Square
from dso_robotics.errors import DsoError
from dso_robotics.parameters.path import has_noise, noise_named, parse
from dso_robotics.parameters.vector import pack
from dso_robotics.physics.model import load
from dso_robotics.robot.context import Context, Draw
from dso_robotics.robot.estimator_design import design_filter
from dso_robotics.robot.mechanism import Mechanism
from dso_robotics.robot.observation import state_observation
from dso_robotics.robot.play import Player
from dso_robotics.robot.policy import LinearPolicy
from dso_robotics.robot.sensing import make_sensing
from dso_robotics.robot.system_build import robot_system
from tests.studies.everything import CART

STEPS = 6


@pytest.fixture(scope="module")
def robot():
    return load(mujoco.MjSpec.from_string(CART))


def system(robot, free=("joint/x/damping=0.2@0:2",), drawn=0, **parts):
    """The cart with a linear policy; `parts` as for `robot_system`."""
    mechanism = Mechanism(robot, pack([parse(text) for text in free], robot), drawn=drawn)
    cost = composite({"place": (1.0, Square(quantity("joint/x/position", robot)))})
    if parts.pop("estimator", False):
        sensing = make_sensing(mechanism, {"*": 0.02}, interval=0.05)
        parts |= {"sensing": sensing, "estimator": design_filter(mechanism, sensing)}
    return robot_system(mechanism, LinearPolicy(2, 1), state_observation(robot), scene_cost=cost, **parts)


def rolled(chain, theta, noise):
    state = chain.initial(jax.random.key(0), theta)
    bound = chain.bind(theta, state)

    def step(state, draw):
        state = bound.move(draw, state, theta)
        return state, bound.cost(state, theta)

    return jnp.sum(jax.lax.scan(step, state, noise)[1])


def test_an_estimator_that_nobody_observes_changes_no_gradient(robot):
    plain, more = system(robot), system(robot, estimator=True)
    noise = np.random.default_rng(0).normal(size=(STEPS, more.noises))
    theta = np.array([0.3, -0.5, 0.1, 0.2])
    whole = np.asarray(more.layout.initial).copy()
    whole[: len(theta)] = theta
    one = jax.jit(jax.grad(lambda at: rolled(plain, at, jnp.asarray(noise[:, :1]))))(jnp.asarray(theta))
    two = jax.jit(jax.grad(lambda at: rolled(more, at, jnp.asarray(noise))))(jnp.asarray(whole))
    np.testing.assert_allclose(two[: len(theta)], one, rtol=1e-12)
    np.testing.assert_array_equal(two[len(theta) :], 0.0)
    assert np.abs(one).min() > 1e-6


def test_world_and_model_are_apart(robot):
    free = ("body/cart/mass=1.5@0.2:5", "joint/x/damping=0.1@0:2")
    context = Context((), (Draw("joint/x/damping", 0.0, 2.0),), (0.1,))
    made = {
        name: system(robot, free, 1, estimator=True, context=context, believes=name)
        for name in ("world", "own", "nominal")
    }
    masses, dampings = {}, {}
    for name, chain in made.items():
        theta = jnp.asarray(chain.layout.initial)
        if name == "own":
            # Its own values: a mass of 3, a damping of 0.7.
            values = {"body/cart/mass": 3.0, "joint/x/damping": 0.7}
            theta = theta.at[chain.layout.where("model")].set(
                chain.mechanism.believed.unconstrain(np.array(list(values.values())))
            )
        model, _ = chain.model_of_the_estimator(theta)
        masses[name], dampings[name] = float(model.body_mass[1]), float(model.dof_damping[0])
    assert masses == pytest.approx({"world": 1.5, "own": 3.0, "nominal": 1.0})
    # No estimator knows the damping that an episode draws.
    assert dampings == pytest.approx({"world": 0.1, "own": 0.7, "nominal": 0.1})


def test_a_late_sensor_reports_an_earlier_position(robot):
    chain = system(robot, ("sensor/place/delay=0.075@0:0.1", "sensor/place/bias=0.5@-1:1"), estimator=True)
    theta = jnp.asarray(chain.layout.initial).at[chain.layout.where("policy")].set(jnp.array([0.0, 0.0, 0.4]))
    noise, player = np.zeros((STEPS, chain.noises)), Player(chain)
    found = player.play(np.asarray(theta), chain.scaling, steps=STEPS, noise=noise)
    place = found.qpos[:, 0]
    # 1.5 control steps late: halfway between the readings one and two steps ago.
    wanted = 0.5 + 0.5 * (place[1:-1] + place[:-2])
    np.testing.assert_allclose(found.readings[2:, 0], wanted, atol=1e-12)
    assert place[-1] > 0.01
    # The estimator knows the delay and the bias, so it is right from the start to the end.
    np.testing.assert_allclose(found.estimate, np.c_[found.qpos, found.qvel], atol=1e-12)
    # All steps have the types of the first one, so nothing was compiled twice.
    functions: list[Any] = [player.decide, player.control, player.arrive, player.read]
    assert [function._cache_size() for function in functions] == [1, 1, 1, 1]


def test_on_a_real_robot_the_policy_sees_its_sensors_and_not_those_of_theta(robot):
    chain = system(robot, ("sensor/place/bias=0.1@-1:1",), estimator=True, sees="readings")
    theta = jnp.asarray(chain.layout.initial).at[chain.layout.where("policy")].set(jnp.array([2.0, 0.0, 0.0]))
    noise, none = np.zeros((STEPS, chain.noises)), np.zeros(2)
    for sensors, bias in ((None, 0.1), ((np.ones(2), np.array([0.3, 0.0]), none, none), 0.3)):
        found = Player(chain).play(np.asarray(theta), chain.scaling, steps=STEPS, noise=noise, sensors=sensors)
        np.testing.assert_allclose(found.readings[1:, 0], found.qpos[1:, 0] + bias, atol=1e-12)
        np.testing.assert_allclose(found.ctrl[:, 0], np.tanh(2.0 * found.readings[:-1, 0]), rtol=1e-12)


@pytest.mark.parametrize(
    ("parts", "text"),
    [
        ({"sees": "readings"}, "no sensors"),
        ({"sees": "estimate"}, "no estimator"),
        ({"free": ("sensor/place/bias=0@-1:1",)}, "nothing reads that sensor"),
        ({"free": ("sensor/place/bias=0@-1:1",), "estimator": True, "believes": "own"}, "of its own"),
        ({"free": ("sensor/place/bias=0@-1:1", "joint/x/damping")}, "after those of the physics"),
    ],
)
def test_parts_that_do_not_go_together_are_refused(robot, parts, text):
    with pytest.raises(DsoError, match=text):
        system(robot, **parts)


def test_noise_is_called_by_the_path_that_frees_it():
    """Also where a sensor has components, and brackets in its name."""
    xml = CART.replace("</worldbody>", '<body><site name="s"/></body></worldbody>')
    xml = xml.replace("</sensor>", '<gyro name="imu" site="s"/><jointpos name="odd[1]" joint="x"/></sensor>')
    mechanism = Mechanism(load(mujoco.MjSpec.from_string(xml)))
    block = make_sensing(mechanism, {"*": 0.1}, interval=0.05).noise_block(free=True)
    assert block.names == (
        "sensor/place/noise", "sensor/speed/noise", "sensor/imu/noise[0]", "sensor/imu/noise[1]", "sensor/imu/noise[2]",
        "sensor/odd[1]/noise",
    )  # fmt: skip
    for path in block.names:
        named = noise_named(path)
        parts = make_sensing(mechanism, {"*": 0.1}, interval=0.05).parts
        assert [p for p, part in zip(block.names, parts, strict=True) if has_noise(named, *part)] == [path]


def test_noise_of_every_channel_must_be_given(robot):
    mechanism = Mechanism(robot)
    for noise, text in (
        ({"place": 0.1}, "'speed' is missing"),
        ({"*": 0.0}, "is 0"),
        ({"plce": 0.1, "*": 1.0}, "plce"),
    ):
        with pytest.raises(DsoError, match=text):
            make_sensing(mechanism, noise, interval=0.05)
