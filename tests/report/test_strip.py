"""Outlines of geoms are where MuJoCo puts them, and stay there when the model moves on."""

import re

import mujoco
import numpy as np

from dso_robotics.report.strip import outline, strip

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


def test_a_strip_has_every_moment_at_one_scale():
    """The rod of 1 m hangs up at first and lies at the end; the pictures of both have the same length."""
    model = mujoco.MjModel.from_xml_string(MODEL)
    time, turn = np.linspace(0, 1, 50), np.linspace(0, np.pi / 2, 50)
    drawn = str(strip(model, time, turn[:, None], "after training <b>", count=4))
    assert re.findall(r">([\d.]+ s)</text>", drawn) == ["0.00 s", "0.33 s", "0.67 s", "1.00 s"]
    assert "<b>after training &lt;b&gt;</b>" in drawn
    rods = [
        np.array(path.split(), float) for path in re.findall(r'<path d="M([\d. ]+)" stroke="[^"]+" stroke-width', drawn)
    ]
    ends = [rod.reshape(2, 2) for rod in rods if len(rod) == 4]
    across, up = np.abs(np.diff(ends, axis=1))[:, 0].T
    assert len(ends) == 4
    np.testing.assert_allclose(np.hypot(across, up), np.hypot(across, up)[0], rtol=0.01)
    np.testing.assert_allclose(np.arctan2(across, up), turn[[0, 16, 33, 49]], atol=0.01)
