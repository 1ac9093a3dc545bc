"""A written model has its elements where they were, also in frames and of meshes, and identified places come back."""

import mujoco
import numpy as np
import pytest

from dso_robotics.parameters.path import Declaration
from dso_robotics.parameters.vector import pack
from dso_robotics.physics.export import to_mjcf
from dso_robotics.physics.model import load

FRAMED = """
<mujoco>
  <asset><mesh name="m" vertex="0 0 0  0.125 0 0  0 0.25 0  0 0 0.5"/></asset>
  <worldbody>
    <frame pos="0.1234567891 0.2 0.3" euler="10.123456 20 30.98765">
      <light pos="0.1234567891 0 1" dir="0.3 0 -1"/>
      <body name="a" pos="0.3333333333 0 0" quat="0.3 0.4 0.5 0.6">
        <frame pos="0.0123456789 0 0" euler="0 0 33.33333333">
          <joint name="j" pos="0.1234567891 0 0" axis="1 0.123456789 0"/>
        </frame>
        <geom type="mesh" mesh="m" pos="0.111111111 0 0"/>
        <frame pos="1.23456789 0 0" axisangle="1 0 0 45">
          <site name="s" pos="0.1111111 0 0"/>
          <geom type="capsule" fromto="0 0 0 0.123456789 0.2 0" size="0.01"/>
          <camera name="c" pos="0.123456789 0 0"/>
          <body name="b" pos="0 0.1 0"><joint name="k" axis="0 1 0"/><geom size="0.1" pos="0.0123456789 0 0"/></body>
        </frame>
      </body>
    </frame>
  </worldbody>
</mujoco>
"""
FIELDS = (
    *("body_pos", "body_quat", "body_ipos", "geom_pos", "geom_quat", "site_pos", "site_quat", "cam_pos", "cam_quat"),
    *("jnt_pos", "jnt_axis", "light_pos", "light_dir"),
)


def written(free, value):
    robot = load(mujoco.MjSpec.from_string(FRAMED))
    vector = pack([Declaration(path) for path in free], robot)
    fields = vector.written(np.full(vector.size, value))
    return robot.mj, fields, mujoco.MjModel.from_xml_string(to_mjcf(robot, fields))


def close(new, old, name):
    if name.endswith("quat"):
        new = np.where((new * old).sum(-1, keepdims=True) < 0, -new, new)
    # MuJoCo writes the vertices and sizes of shapes with six digits.
    np.testing.assert_allclose(
        new, old, rtol=0, atol=1e-6 if name.startswith(("geom", "body_i")) else 1e-12, err_msg=name
    )


def test_everything_stays_where_it_was():
    old, _, new = written(["joint/j/damping"], 0.3)
    for name in FIELDS:
        close(getattr(new, name), getattr(old, name), name)
    data = [mujoco.MjData(m) for m in (old, new)]
    for model, one in zip((old, new), data, strict=True):
        one.qpos[:] = 0.3, -0.7
        mujoco.mj_forward(model, one)
    for name in ("xpos", "geom_xpos", "site_xpos", "cam_xpos", "xanchor", "xaxis"):
        np.testing.assert_allclose(getattr(data[1], name), getattr(data[0], name), rtol=0, atol=1e-6)


@pytest.mark.parametrize("path", ["body/a/pos[*]", "body/b/pos[*]", "body/b/rot[*]", "site/s/pos[*]", "site/s/rot[*]"])
def test_an_identified_place_in_a_frame_comes_back(path):
    old, fields, new = written([path], 0.2)
    for name in FIELDS:
        close(getattr(new, name), fields.get(name, getattr(old, name)), name)
    assert any(not np.array_equal(fields[name], getattr(old, name)) for name in fields)


def test_a_model_without_files_names_no_folder(tmp_path):
    path = tmp_path / "arm.xml"
    path.write_text('<mujoco><worldbody><body><joint name="j"/><geom size=".1"/></body></worldbody></mujoco>')
    assert str(tmp_path) not in to_mjcf(load(path), {})
