"""Quantities of a floating body in three frames against C MuJoCo's object velocities and SciPy's rotations."""

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from dso_robotics.costs.quantity import quantity
from dso_robotics.errors import DsoError
from dso_robotics.physics import step as physics
from dso_robotics.physics.device import put_model
from dso_robotics.physics.model import load
from dso_robotics.robot.scene import Scene
from tests.floating import WALKER

NAMES = ("height", "upright", "gravity", "tilt", "heading", "velocity", "velocity_body", "velocity_heading", "spin")
NAMES += ("spin_body", "spin_heading", "velocity_heading[1]", "gravity[2]")


@pytest.fixture(scope="module")
def robot():
    return load(mujoco.MjSpec.from_string(WALKER))


@pytest.fixture(scope="module")
def measured(robot):
    model = put_model(robot.mj)
    readers = [quantity(f"body/trunk/{name}", robot) for name in NAMES]

    @jax.jit
    def read(qpos, qvel):
        scene = Scene(robot.mj, model, None, physics.make_state(model, qpos, qvel), jnp.zeros(2), jnp.zeros(2))
        return {reader.name.removeprefix("body/trunk/"): reader.read(scene) for reader in readers}

    return read


@pytest.mark.parametrize("seed", range(3))
def test_they_are_those_of_c(robot, measured, seed):
    rng, data = np.random.default_rng(seed), mujoco.MjData(robot.mj)
    data.qpos[:], data.qvel[:] = rng.normal(size=robot.mj.nq), rng.normal(size=robot.mj.nv)
    data.qpos[3:7] /= np.linalg.norm(data.qpos[3:7])
    mujoco.mj_forward(robot.mj, data)
    body, speed = data.body("trunk"), np.zeros(6)
    mujoco.mj_objectVelocity(robot.mj, data, int(mujoco.mjtObj.mjOBJ_BODY), body.id, speed, 0)
    turn = body.xmat.reshape(3, 3)
    heading = np.arctan2(turn[1, 0], turn[0, 0])
    level = Rotation.from_euler("z", heading).as_matrix()
    wanted = {
        "height": body.xpos[2:],
        "upright": turn[2, 2:],
        "gravity": turn.T @ [0, 0, -1],
        "tilt": [np.arccos(turn[2, 2])],
        "heading": [heading],
        "velocity": speed[3:],
        "velocity_body": turn.T @ speed[3:],
        "velocity_heading": level.T @ speed[3:],
        "spin": speed[:3],
        "spin_body": turn.T @ speed[:3],
        "spin_heading": level.T @ speed[:3],
        "velocity_heading[1]": (level.T @ speed[3:])[1:2],
        "gravity[2]": -turn[2, 2:],
    }
    found = measured(jnp.asarray(data.qpos), jnp.asarray(data.qvel))
    for name, value in wanted.items():
        np.testing.assert_allclose(found[name], value, atol=1e-12, err_msg=name)


def test_upright_and_nose_up_have_finite_derivatives(robot):
    model = put_model(robot.mj)
    tilt, heading = quantity("body/trunk/tilt", robot), quantity("body/trunk/heading", robot)

    def both(qpos):
        scene = Scene(robot.mj, model, None, physics.make_state(model, qpos, None), jnp.zeros(2), jnp.zeros(2))
        return jnp.concatenate([tilt.read(scene), heading.read(scene)])

    slope = jax.jit(jax.jacrev(both))
    for quat in ([1.0, 0, 0, 0], [np.sqrt(0.5), 0, -np.sqrt(0.5), 0]):
        assert np.isfinite(slope(jnp.asarray(robot.mj.qpos0).at[3:7].set(jnp.array(quat)))).all()


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("body/trunk/gravity[3]", r"gravity\[3\]: body/trunk/gravity has the components 0 to 2"),
        ("body/trunk/height[1]", "has one number, so it has no components"),
        ("body/trunk/speed", "no quantity 'speed' there; it has x, y, z, height"),
        ("sensor/gyro[3]", "components 0 to 2"),
    ],
)
def test_what_there_is_not_is_refused(robot, name, told):
    with pytest.raises(DsoError, match=told):
        quantity(name, robot)
