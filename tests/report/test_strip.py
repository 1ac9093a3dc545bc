"""Outlines of geoms are where MuJoCo puts them, and stay there when the model moves on."""

import mujoco
import numpy as np

from dso_robotics.report.strip import outline

MODEL = """<mujoco><worldbody><body name="arm"><joint name="j" axis="0 1 0"/>
<geom name="rod" type="capsule" fromto="0 0 0 0 0 1" size="0.02"/><geom name="ball" type="sphere" pos="0 0 1" size="0.1"/>
<geom name="block" type="box" pos="0 0 0.5" size="0.1 0.2 0.3"/></body></worldbody></mujoco>"""


def test_outlines_follow_the_joint():
    model = mujoco.MjModel.from_xml_string(MODEL)
    data = mujoco.MjData(model)
    data.qpos[0] = np.pi / 2
    mujoco.mj_kinematics(model, data)
    rod, ball, block = (outline(model, data, g) for g in range(3))
    data.qpos[0] = 0.0
    mujoco.mj_kinematics(model, data)
    np.testing.assert_allclose(rod[rod[:, 0].argsort()], [[0, 0, 0], [1, 0, 0]], atol=1e-12)
    np.testing.assert_allclose(ball, [[1, 0, 0]], atol=1e-12)
    np.testing.assert_allclose([block.min(0), block.max(0)], [[0.2, 0, -0.1], [0.8, 0, 0.1]], atol=1e-12)
