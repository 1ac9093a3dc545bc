"""A model attached without a prefix is written as MJCF that compiles to the same model; package:// is refused with a cure."""

import mujoco
import numpy as np
import pytest

from dso_robotics.errors import DsoError
from dso_robotics.parameters.path import parse
from dso_robotics.parameters.vector import pack
from dso_robotics.physics.export import to_mjcf
from dso_robotics.physics.model import load

ARM = """<mujoco><default><joint damping="3"/><geom density="500"/><default class="k"><joint armature="2"/></default></default>
<worldbody><body name="a" childclass="k"><joint name="j"/><geom name="g" size=".1"/>
<body name="b" pos="0 0 1"><joint name="jj" class="k" frictionloss=".5"/><geom size=".1"/></body></body></worldbody></mujoco>"""
OUTER = """<mujoco><default><joint damping="7"/></default><asset><model name="r" file="arm.xml"/></asset>
<worldbody><attach model="r" body="a" prefix=""/><body name="own"><joint name="o"/><geom size=".1"/></body></worldbody>
<sensor><jointpos name="q" joint="j"/></sensor></mujoco>"""
URDF = """<robot name="r"><link name="base"/><link name="arm"><inertial><mass value="1"/>
<inertia ixx=".1" ixy="0" ixz="0" iyy=".1" iyz="0" izz=".1"/></inertial>
<collision><geometry><mesh filename="package://robot_description/meshes/arm.stl"/></geometry></collision></link>
<joint name="j" type="revolute"><parent link="base"/><child link="arm"/>
<limit lower="-1" upper="1" effort="1" velocity="1"/></joint>
</robot>"""


def test_a_model_attached_without_a_prefix_is_written(tmp_path):
    (tmp_path / "arm.xml").write_text(ARM)
    (tmp_path / "outer.xml").write_text(OUTER)
    with pytest.warns(UserWarning, match="empty prefix"):
        robot = load(tmp_path / "outer.xml")
    vector = pack([parse("joint/j/damping")], robot)
    written = mujoco.MjModel.from_xml_string(to_mjcf(robot, vector.fields(np.array([0.25]))))
    expected = np.array(robot.mj.dof_damping)
    expected[robot.mj.joint("j").dofadr] = 0.25
    np.testing.assert_allclose(written.dof_damping, expected)
    for field in ("dof_armature", "dof_frictionloss", "body_mass", "body_inertia", "geom_size"):
        np.testing.assert_allclose(getattr(written, field), getattr(robot.mj, field), rtol=1e-9)


def test_package_paths_are_refused_with_a_cure_that_works(tmp_path):
    (tmp_path / "robot.urdf").write_text(URDF)
    with pytest.raises(DsoError) as error:
        load(tmp_path / "robot.urdf")
    for words in ("robot.urdf", "does not resolve package://", 'strippath="false"', str(tmp_path)):
        assert words in str(error.value)
    (tmp_path / "meshes").mkdir()
    corners = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]], "<f4")
    faces = b"".join(
        bytes(12) + corners[list(f)].tobytes() + bytes(2) for f in ((0, 2, 1), (0, 1, 3), (0, 3, 2), (1, 2, 3))
    )
    (tmp_path / "meshes" / "arm.stl").write_bytes(bytes(80) + (4).to_bytes(4, "little") + faces)
    cured = URDF.replace("package://robot_description/", "").replace(
        '<robot name="r">', '<robot name="r"><mujoco><compiler strippath="false"/></mujoco>'
    )
    (tmp_path / "robot.urdf").write_text(cured)
    assert load(tmp_path / "robot.urdf").mj.nmesh == 1
