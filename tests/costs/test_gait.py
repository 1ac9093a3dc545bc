"""The gait cost against its formula, on both sides of its clock, and what it refuses."""

import jax.numpy as jnp
import numpy as np
import pytest

from dso_robotics.costs.gait import step_height
from dso_robotics.costs.kind import COSTS, Scope
from dso_robotics.errors import DsoError
from dso_robotics.physics import step as physics
from dso_robotics.physics.device import put_model
from dso_robotics.physics.model import load
from dso_robotics.robot.scene import Scene

ARM = """<mujoco><option timestep="0.01"/><worldbody>
<body name="left"><joint name="left" type="slide" axis="0 0 1"/><geom size=".01" mass="1"/><site name="left"/></body>
<body name="right"><joint name="right" type="slide" axis="0 0 1"/><geom size=".01" mass="1"/><site name="right"/></body>
</worldbody></mujoco>"""


def test_a_foot_stands_then_is_lifted_as_the_square_of_a_sine():
    cycles = np.array([0.0, 0.3, 0.6, 0.7, 0.8, 0.9, 1.0, 2.8])
    wanted = [0, 0, 0, np.sin(np.pi / 4) ** 2, 1.0, np.sin(3 * np.pi / 4) ** 2, 0, 1]
    found = [float(step_height(jnp.asarray(t), (0.0,), 0.6)[0]) for t in cycles]
    np.testing.assert_allclose(found, wanted, atol=1e-9)
    here = step_height(jnp.asarray(0.3), (0.0, 0.5), 0.6)
    np.testing.assert_allclose(here, [0.0, 1.0], atol=1e-9)


def test_the_cost_is_that_of_the_heights(tmp_path):
    (tmp_path / "arm.xml").write_text(ARM)
    robot = load(tmp_path / "arm.xml")
    asked = COSTS["gait"](feet={"left": 0.0, "right": 0.5}, period=0.4, lift=0.1, ground=0.02, duty=0.5, scale=0.05)  # type: ignore[call-arg]
    term = asked.term(Scope(robot))  # type: ignore[attr-defined]
    model = put_model(robot.mj)
    state = physics.make_state(model, jnp.array([0.03, 0.05]), jnp.zeros(2))
    for time, left, right in ((0.1, 0.0, 1.0), (0.3, 1.0, 0.0), (0.5, 0.0, 1.0)):
        now = physics.State(state.qpos, state.qvel, state.act, state.warmstart, jnp.asarray(time))
        scene = Scene(robot.mj, model, None, now, jnp.zeros(0), jnp.zeros(0))
        wanted = ((0.03 - 0.02 - 0.1 * left) / 0.05) ** 2 + ((0.05 - 0.02 - 0.1 * right) / 0.05) ** 2
        assert float(term(scene)) == pytest.approx(wanted, rel=1e-9)


def test_a_gait_without_feet_or_with_unknown_ones_is_refused(tmp_path):
    (tmp_path / "arm.xml").write_text(ARM)
    with pytest.raises(DsoError, match="name the sites"):
        COSTS["gait"](feet={}, period=0.4, lift=0.1)  # type: ignore[call-arg]
    asked = COSTS["gait"](feet={"lefd": 0.0}, period=0.4, lift=0.1)  # type: ignore[call-arg]
    with pytest.raises(DsoError, match="no site called 'lefd'"):
        asked.term(Scope(load(tmp_path / "arm.xml")))  # type: ignore[attr-defined]
