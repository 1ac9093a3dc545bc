"""Costs against the same numbers from C MuJoCo's own fields and from the formulas of dm_control's rewards."""

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

from dso_robotics.costs.composite import composite
from dso_robotics.costs.quantity import quantity
from dso_robotics.costs.task import Distance, Factor, Function, Hinge, Product, Square
from dso_robotics.errors import DsoError
from dso_robotics.physics import step as physics
from dso_robotics.physics.device import put_model
from dso_robotics.physics.model import load
from dso_robotics.robot.scene import Scene

QPOS, QVEL, CTRL, BEFORE = np.array([0.4, 2.2]), np.array([0.7, -3.0]), np.array([0.6]), np.array([-0.2])


@pytest.fixture(scope="module")
def robot(models):
    return load(models / "cartpole.xml")


@pytest.fixture
def scene(robot):
    model = put_model(robot.mj)
    state = physics.make_state(model, jnp.asarray(QPOS), jnp.asarray(QVEL))
    return Scene(robot.mj, model, None, state, jnp.asarray(CTRL), jnp.asarray(BEFORE))


@pytest.fixture(scope="module")
def data(robot):
    data = mujoco.MjData(robot.mj)
    data.qpos[:], data.qvel[:], data.ctrl[:] = QPOS, QVEL, CTRL
    mujoco.mj_forward(robot.mj, data)
    return data


def test_product_is_one_less_the_reward_of_the_control_suite(robot, scene):
    cost = Product(
        (
            Factor(quantity("joint/hinge/cosine", robot), 1.0, 1.0, 2.0, 0.0, "linear"),
            Factor(quantity("joint/slider/position", robot), margin=2.0, floor=0.5),
            Factor(quantity("control", robot), margin=1.0, at_margin=0.0, sigmoid="quadratic", floor=0.8),
            Factor(quantity("joint/hinge/velocity", robot), margin=5.0, floor=0.5),
        )
    )
    upright = (np.cos(QPOS[1]) + 1) / 2
    centred = (1 + np.exp(-0.5 * (QPOS[0] / 2 * np.sqrt(-2 * np.log(0.1))) ** 2)) / 2
    small_control = (4 + max(0.0, 1 - CTRL[0] ** 2)) / 5
    slow = (1 + np.exp(-0.5 * (QVEL[1] / 5 * np.sqrt(-2 * np.log(0.1))) ** 2)) / 2
    np.testing.assert_allclose(cost(scene), 1 - upright * small_control * slow * centred, rtol=1e-12)


def test_quantities_are_those_of_c(robot, scene, data):
    pole, speed = robot.names("body").index("pole"), np.zeros(6)
    mujoco.mj_objectVelocity(robot.mj, data, int(mujoco.mjtObj.mjOBJ_BODY), pole, speed, 0)
    wanted = {
        "site/tip/x": data.site("tip").xpos[0],
        "body/pole/z": data.xipos[pole, 2],
        "body/pole/upright": data.xmat[pole, 8],
        "body/pole/vx": speed[3],
        "body/pole/vz": speed[5],
        "sensor/pole_velocity": QVEL[1],
        "joint/slider/power": 10.0 * CTRL[0] * QVEL[0],
        "action_change": 0.8,
    }

    def read(name):
        return quantity(name, robot).read(scene)[0]

    found = jax.jit(lambda: [read(name) for name in wanted])()
    np.testing.assert_allclose(found, list(wanted.values()), rtol=1e-9)


def test_terms_and_their_sum(robot, scene, data):
    tip = [data.site("tip").xpos[k] for k in (0, 2)]
    parts = {
        "tip": (2.0, Distance(tuple(quantity(f"site/tip/{a}", robot) for a in "xz"), (0.1, 1.5), 0.2, 0.5)),
        "fast": (1.0, Square(quantity("joint/slider/velocity", robot), 1.0, 2.0)),
        "low": (3.0, Hinge(quantity("body/pole/upright", robot), 1.0, 2.0)),
        "own": (0.5, Function(lambda scene: scene.state.qpos[0] ** 2)),
    }
    cost = composite(parts)
    gap = np.hypot(tip[0] - 0.1, tip[1] - 1.5)
    wanted = [
        2.0 * (np.hypot(gap, 0.2) - 0.2) / 0.5,
        ((0.7 - 1.0) / 2.0) ** 2,
        3.0 * (1 - np.cos(QPOS[1])) / 2,
        0.5 * QPOS[0] ** 2,
    ]
    np.testing.assert_allclose(cost.terms(scene), wanted, rtol=1e-9)
    np.testing.assert_allclose(cost(scene), sum(wanted), rtol=1e-9)
    assert cost.names == tuple(parts)


def test_beyond_the_target_the_hinge_loss_is_zero(robot, scene):
    velocity = quantity("joint/slider/velocity", robot)
    np.testing.assert_allclose(Hinge(velocity, 0.5, 2.0)(scene), 0.0)
    np.testing.assert_allclose(Hinge(velocity, 0.9, 2.0)(scene), 0.1)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("joint/hinj/position", "'hinge'"),
        ("joint/hinge/speed", "velocity"),
        ("site/top/x", "'tip'"),
        ("weather", "joint/J/position"),
        ("joint/slider/cosine", "position"),
    ],
)
def test_unknown_quantities_list_what_there_is(robot, name, told):
    with pytest.raises(DsoError, match=told):
        quantity(name, robot)


def test_a_negative_weight_is_called_a_reward(robot):
    with pytest.raises(DsoError, match="reward"):
        composite({"forward": (-1.0, Square(quantity("control", robot)))})
    with pytest.raises(DsoError, match="finite"):
        composite({"forward": (float("nan"), Square(quantity("control", robot)))})
