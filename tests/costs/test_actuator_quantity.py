"""Forces, speeds and powers of actuators, and the mass of a design, against C MuJoCo; the cost of limits."""

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

from dso_robotics.costs.kind import Scope
from dso_robotics.costs.kinds.quantity import BoundsCost
from dso_robotics.costs.quantity import quantity
from dso_robotics.errors import DsoError
from dso_robotics.physics import step as physics
from dso_robotics.physics.constants import with_fields
from dso_robotics.physics.design import LimbLength, compose
from dso_robotics.physics.device import put_model
from dso_robotics.physics.model import load
from dso_robotics.robot.scene import Scene

ARM = """<mujoco><worldbody><body name="upper"><joint name="shoulder" axis="0 1 0"/>
<geom type="capsule" fromto="0 0 0 .3 0 0" size=".02"/><body name="lower" pos=".3 0 0"><joint name="elbow" axis="0 1 0"/>
<geom type="capsule" fromto="0 0 0 .2 0 0" size=".02"/></body></body></worldbody><actuator>
<motor name="motor" joint="shoulder" gear="3" ctrlrange="-1 1"/>
<position name="servo" joint="elbow" kp="20" kv="1" forcerange="-4 4"/></actuator></mujoco>"""
QPOS, QVEL, CTRL = np.array([0.3, 0.2]), np.array([1.5, -2.0]), np.array([0.7, 0.5])


@pytest.fixture(scope="module")
def robot():
    return load(mujoco.MjSpec.from_string(ARM))


def scene(robot, model, products=None):
    state = physics.make_state(model, jnp.asarray(QPOS), jnp.asarray(QVEL))
    return Scene(robot.mj, model, products, state, jnp.asarray(CTRL), jnp.zeros(2))


def test_they_are_those_of_c(robot):
    data = mujoco.MjData(robot.mj)
    data.qpos[:], data.qvel[:], data.ctrl[:] = QPOS, QVEL, CTRL
    mujoco.mj_forward(robot.mj, data)
    here = scene(robot, put_model(robot.mj))
    for k, name in enumerate(("motor", "servo")):
        force, speed = data.actuator_force[k], data.actuator_velocity[k]
        for field, wanted in (("force", force), ("speed", speed), ("power", force * speed)):
            found = quantity(f"actuator/{name}/{field}", robot).read(here)
            np.testing.assert_allclose(found, [wanted], atol=1e-12, err_msg=f"{name} {field}")
    assert data.actuator_force[1] == 4.0  # at its limit
    np.testing.assert_allclose(quantity("mass", robot).read(here), [robot.mj.body_mass.sum()])


def test_the_mass_of_a_design_has_the_derivative_of_its_recompiled_model(robot):
    design, base = compose([LimbLength(robot, "upper")], robot), put_model(robot.mj)
    weight = quantity("mass", robot)
    slope = jax.grad(lambda n: weight.read(scene(robot, *with_fields(base, robot.mj, design(n))))[0])(jnp.array([0.3]))
    longer = [mujoco.MjModel.from_xml_string(ARM.replace(".3 0 0", f"{0.3 + d} 0 0")) for d in (1e-5, -1e-5)]
    np.testing.assert_allclose(slope[0], np.diff([m.body_mass.sum() for m in longer[::-1]]) / 2e-5, rtol=1e-7)


def test_limits_cost_what_is_beyond_them(robot):
    here, scope = scene(robot, put_model(robot.mj)), Scope(robot)
    limit = BoundsCost(quantity="actuator/servo/force", low=-1.0, high=2.5, scale=0.5)
    np.testing.assert_allclose(limit.term(scope)(here), ((4.0 - 2.5) / 0.5) ** 2)
    assert BoundsCost(quantity="mass", high=9.0).term(scope)(here) == 0.0
    with pytest.raises(DsoError, match="low, high or both"):
        BoundsCost(quantity="mass")
    with pytest.raises(DsoError, match="no quantity 'torque' there; it has force, speed, power"):
        quantity("actuator/servo/torque", robot)
