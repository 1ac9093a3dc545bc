"""Identified numbers in a copy of a URDF: MuJoCo reads the same robot from it as from model.xml; the rest of the text stays."""

import difflib
import json
import re

import mujoco
import numpy as np
import pytest

from dso_robotics.cli import main
from dso_robotics.data.run_file import write_run
from dso_robotics.errors import DsoError
from dso_robotics.parameters.path import Declaration
from dso_robotics.parameters.vector import pack, values
from dso_robotics.physics.export import to_mjcf
from dso_robotics.physics.inertia import rotation
from dso_robotics.physics.markup_patch import Markup
from dso_robotics.physics.model import load
from dso_robotics.physics.urdf import Urdf, angles, turned
from dso_robotics.report.export.finished import read_finished
from dso_robotics.report.export.format import write_export

URDF = """<?xml version="1.0"?>
<!-- an arm > "mine" -->
<robot name='arm'>
  <link name="base"><inertial><mass value="2"/>
    <inertia ixx="0.1" ixy="0" ixz="0" iyy="0.1" iyz="0" izz="0.1"/></inertial></link>
  <link name="upper"> <!-- carries the tool -->
    <inertial>
      <origin xyz="0.1 0.02 0" rpy="0.1 0.2 0.3"/> <!-- xyz="9 9 9" -->
      <mass   value = '1.5' />
      <inertia ixx="0.02" ixy="0.001" ixz="0" iyy="0.03" iyz="0" izz="0.04"/>
    </inertial>
    <collision><geometry><box size="0.2 0.05 0.05"/></geometry></collision>
  </link>
  <link name="tool">
    <inertial><mass value="0.3"/><inertia ixx="1e-3" ixy="0" ixz="0" iyy="1e-3" iyz="0" izz="1e-3"/></inertial>
  </link>
  <link name="fore"><inertial><origin xyz="0.1 0 0"/><mass value="0.4"/>
    <inertia ixx="0.002" ixy="0" ixz="0" iyy="0.003" iyz="0" izz="0.004"/></inertial></link>
  <joint name="shoulder" type="revolute">
    <parent link="base"/><child link="upper"/>
    <origin xyz="0 0 0.3" rpy="0 0.5 0"/>
    <axis xyz="0 1 0"/>
    <limit lower="-1" upper="2" effort="10" velocity="3"/>
  </joint>
  <joint name="flange" type="fixed"><parent link="upper"/><child link="tool"/><origin xyz="0.3 0 0" rpy="0 0 1"/></joint>
  <joint name="elbow" type="continuous">
    <parent link="tool"/><child link="fore"/><origin xyz="0.1 0 0" rpy="0.4 0 0"/>
    <axis xyz="0 0 1"/>
    <dynamics damping="0.1" friction="0.2"/>
  </joint>
</robot>
"""


def result(folder, free, truth, urdf=URDF, fuse=True):
    """A finished run whose model was made of the URDF, with an armature, and `truth` as the values identified."""
    folder.mkdir()
    (folder / "my arm.urdf").write_text(urdf, "utf-8")
    spec = mujoco.MjSpec.from_string(urdf)
    spec.compiler.fusestatic = fuse
    spec.compile()
    text = re.sub(r'(<joint name="elbow")', r'\1 armature="0.01"', spec.to_xml())
    motor = '<actuator><motor name="m" joint="elbow"/></actuator></mujoco>'
    (folder / "arm.xml").write_text(text.replace("</mujoco>", motor), "utf-8")
    robot = load(folder / "arm.xml")
    vector = pack([Declaration(path) for path in free], robot)
    z = np.concatenate([np.atleast_1d(truth[p.path]) for p in vector.parameters])
    (folder / "model.xml").write_text(to_mjcf(robot, vector.written(z)), "utf-8")
    rows = {label: {"value": value, "unit": "1"} for label, value in values(vector, z).items()}
    tree = {
        "status": "finished",
        "summary": json.dumps({"command": "identify", "parameters": rows}),
        "inputs": {"model": {"path": str(folder / "arm.xml"), "sha256": ""}},
    }
    write_run(folder / "run.h5", tree, {"command": "identify", "model": str(folder / "arm.xml")}, text)
    return folder


def export(folder):
    paths, notes = write_export("urdf", read_finished(folder), options={"file": str(folder / "my arm.urdf")})
    assert paths == [folder / "model.urdf"]
    return paths[0].read_text("utf-8"), notes


def both(folder, fuse=True):
    """The two models as MuJoCo compiles them."""
    spec = mujoco.MjSpec.from_file(str(folder / "model.urdf"))
    spec.compiler.fusestatic = fuse
    return spec.compile(), mujoco.MjModel.from_xml_path(str(folder / "model.xml"))


def tensors(model):
    turn = rotation(model.body_iquat)
    return turn @ (model.body_inertia[..., None] * np.eye(3)) @ np.swapaxes(turn, -1, -2)


def same(one, two, fields=()):
    """Numbers that were not identified went through an MJCF of MuJoCo's, which has six digits."""
    for name in ("body_mass", "body_ipos", "body_pos", "body_quat", "jnt_axis", "dof_damping", "dof_frictionloss"):
        exact = name in fields
        tolerances = {"rtol": 1e-9, "atol": 1e-11} if exact else {"rtol": 1e-5, "atol": 1e-6}
        np.testing.assert_allclose(getattr(one, name), getattr(two, name), err_msg=name, **tolerances)
    np.testing.assert_allclose(tensors(one), tensors(two), rtol=1e-5, atol=1e-6 * np.abs(tensors(two)).max())


def changed(text):
    """The lines that differ, without those of attributes only."""
    return [
        line for line in difflib.unified_diff(URDF.splitlines(), text.splitlines(), n=0, lineterm="") if line[0] in "+-"
    ][2:]


FREE = (
    "body/upper/inertia",
    "body/fore/mass",
    "body/fore/ipos",
    "body/fore/rot",
    "body/upper/pos",
    "joint/shoulder/damping",
    "joint/elbow/damping",
    "joint/elbow/frictionloss",
    "joint/shoulder/range",
    "joint/shoulder/actuatorfrcrange",
)


def truth_of(rng):
    return {
        "body/upper/inertia": 0.2 * rng.normal(size=10),
        "body/fore/mass": 0.55,
        **{f"body/fore/ipos[{i}]": v for i, v in enumerate((0.12, -0.01, 0.02))},
        **{f"body/fore/rot[{i}]": v for i, v in enumerate((0.1, -0.2, 0.05))},
        **{f"body/upper/pos[{i}]": v for i, v in enumerate((0.01, 0.02, 0.31))},
        "joint/shoulder/damping": 0.7,
        "joint/elbow/damping": 0.11,
        "joint/elbow/frictionloss": 0.33,
        "joint/shoulder/range[0]": -1.1,
        "joint/shoulder/range[1]": 2.1,
        "joint/shoulder/actuatorfrcrange": 7.5,
    }


@pytest.mark.parametrize("fuse", [True, False])
def test_mujoco_reads_the_same_robot_from_both(tmp_path, fuse):
    free = [f"{path}[*]" if path.endswith(("ipos", "rot", "/pos", "/range")) else path for path in FREE]
    folder = result(tmp_path / "r", free, truth_of(np.random.default_rng(1)), fuse=fuse)
    text, notes = export(folder)
    one, two = both(folder, fuse)
    same(one, two, ("body_mass", "dof_damping", "dof_frictionloss"))
    for name in ("jnt_range", "jnt_actfrcrange"):
        np.testing.assert_allclose(getattr(one, name), getattr(two, name), rtol=1e-12)
    np.testing.assert_allclose(tensors(one)[1 if fuse else 2], tensors(two)[1 if fuse else 2], rtol=1e-9, atol=1e-12)
    assert "armature" in notes[-1]
    assert "1 actuator" in notes[-1]
    assert '<!-- an arm > "mine" -->' in text
    assert '<!-- xyz="9 9 9" -->' in text
    assert "<collision><geometry><box" in text
    # The tool is as it was; its body's mass is in the link of the body.
    assert URDF[URDF.index('<link name="tool">') : URDF.index('<link name="fore">')] in text


def test_only_the_attribute_of_the_identified_number_differs(tmp_path):
    folder = result(tmp_path / "r", ["joint/elbow/damping"], {"joint/elbow/damping": 0.25})
    text, _ = export(folder)
    assert text == URDF.replace('damping="0.1"', 'damping="0.25"')


def test_what_is_missing_is_added_in_its_place(tmp_path):
    folder = result(tmp_path / "r", ["joint/shoulder/damping"], {"joint/shoulder/damping": 0.25})
    text, _ = export(folder)
    assert changed(text) == ['+    <dynamics damping="0.25"/>']


def test_a_mass_changes_one_attribute(tmp_path):
    folder = result(tmp_path / "r", ["body/fore/mass"], {"body/fore/mass": 0.75})
    text, _ = export(folder)
    assert text == URDF.replace('<mass value="0.4"/>', '<mass value="0.75"/>')


def test_less_mass_than_what_is_fixed_to_the_link_goes_into_the_link(tmp_path):
    folder = result(tmp_path / "r", ["body/upper/mass"], {"body/upper/mass": 0.2})
    text, notes = export(folder)
    same(*both(folder))
    assert "tool" in notes[0]
    assert "fixed to 'upper'" in notes[0]
    assert '<mass value="0"/>' in text


def test_an_empty_link_gets_its_mass_in_the_link_that_has_one(tmp_path):
    """Many URDF have links without a mass and put it in a link fixed to them."""
    link = '<link name="hand"/>\n  <link name="fore"><inertial>'
    urdf = URDF.replace('<link name="fore"><inertial>', '<link name="fore"/><link name="hand"><inertial>')
    urdf = urdf.replace(
        "</robot>",
        '<joint name="weld" type="fixed"><parent link="fore"/><child link="hand"/><origin rpy="0 1 0"/></joint></robot>',
    )
    assert link not in urdf
    truth = {"body/fore/inertia": 0.1 * np.random.default_rng(2).normal(size=10)}
    folder = result(tmp_path / "r", ["body/fore/inertia"], truth, urdf)
    text, _ = export(folder)
    same(*both(folder))
    assert '<link name="fore"/>' in text


def test_a_link_without_inertial_gets_one(tmp_path):
    """MuJoCo takes the mass of such a link from its shape."""
    part = URDF[URDF.index('<link name="fore">') : URDF.index('  <joint name="shoulder"')]
    bare = '<link name="fore">\n    <collision><geometry><sphere radius="0.1"/></geometry></collision>\n  </link>\n'
    folder = result(tmp_path / "r", ["body/fore/mass"], {"body/fore/mass": 3.0}, URDF.replace(part, bare))
    text, _ = export(folder)
    same(*both(folder))
    assert "</inertial>\n    <collision><geometry><sphere" in text


def test_what_urdf_cannot_hold_is_told_by_name(tmp_path):
    free = ["joint/elbow/armature", "joint/elbow/damping_quadratic", "actuator/m/gear[0]", "joint/elbow/damping"]
    folder = result(tmp_path / "r", free, dict(zip(free, (0.02, 0.1, 3.0, 0.2), strict=True)))
    _, notes = export(folder)
    assert notes[0].startswith("URDF has no place for " + ", ".join(free[:2]) + " and " + free[2])


def test_nothing_to_write_is_refused(tmp_path):
    folder = result(tmp_path / "r", ["joint/elbow/armature"], {"joint/elbow/armature": 0.02})
    with pytest.raises(DsoError, match="joint/elbow/armature"):
        export(folder)
    assert not (folder / "model.urdf").exists()


def test_another_robots_urdf_is_refused(tmp_path):
    folder = result(tmp_path / "r", ["joint/elbow/damping"], {"joint/elbow/damping": 0.2})
    path = folder / "my arm.urdf"
    path.write_text(URDF.replace('joint name="elbow"', 'joint name="knee"'))
    with pytest.raises(DsoError, match=r"no joint 'elbow'.*'knee'"):
        export(folder)


def test_a_difference_that_was_not_identified_is_told(tmp_path):
    folder = result(tmp_path / "r", ["joint/elbow/damping"], {"joint/elbow/damping": 0.2})
    path = folder / "my arm.urdf"
    path.write_text(URDF.replace('<mass value="0.4"/>', '<mass value="0.5"/>').replace('effort="10"', 'effort="20"'))
    _, notes = export(folder)
    assert notes[-1].endswith("model.xml: mass of fore; effort of shoulder.")


def test_a_urdf_whose_compiler_changes_masses_is_refused(tmp_path):
    folder = result(tmp_path / "r", ["body/fore/mass"], {"body/fore/mass": 0.2})
    path = folder / "my arm.urdf"
    path.write_text(URDF.replace("<link name", '<mujoco><compiler boundmass="0.5"/></mujoco><link name', 1))
    with pytest.raises(DsoError, match="mass of fore"):
        export(folder)


def test_meshes_of_ros_packages_do_not_stop_it(tmp_path):
    mesh = '<visual><geometry><mesh filename="package://arm/upper.stl"/></geometry></visual>\n    <collision>'
    folder = result(tmp_path / "r", ["joint/elbow/damping"], {"joint/elbow/damping": 0.2})
    path = folder / "my arm.urdf"
    text = URDF.replace("<collision>", mesh.replace("visual", "collision"), 1)
    path.write_text(text)
    found, notes = export(folder)
    assert found == text.replace('damping="0.1"', 'damping="0.2"')
    assert any("without its meshes" in note for note in notes)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("<mujoco/>", "not <robot>"),
        ("<robot><link name='a'></robot>", "well-formed"),
        ('<robot xmlns:xacro="x"><xacro:property name="a" value="1"/></robot>', "xacro"),
        ('<robot name="r"><link name="a"/><joint name="j"><parent link="a"/><child link="b"/></joint></robot>', "tree"),
    ],
)
def test_what_is_no_urdf_is_told(text, told):
    with pytest.raises(DsoError, match=told):
        Urdf(text.encode(), "x.urdf")


def test_the_model_must_be_named_where_it_was_no_urdf(tmp_path, capsys):
    folder = result(tmp_path / "r", ["joint/elbow/damping"], {"joint/elbow/damping": 0.2})
    assert main(["export", str(folder), "--to", "urdf"]) == 2
    assert "--set file=FILE" in capsys.readouterr().err


def test_angles_undo_turned():
    rng = np.random.default_rng(0)
    for rpy in [*rng.uniform(-3, 3, (20, 3)), (0.3, np.pi / 2, 0.4), (0.3, -np.pi / 2, -2.0), (3, 0, 0)]:
        np.testing.assert_allclose(turned(angles(turned(rpy))), turned(rpy), atol=1e-9)


def test_a_patch_touches_the_value_alone():
    text = b'\xef\xbb\xbf<a>\r\n <b x="1>2" yx=\'3\' y = "4" z="y=\'5\'"/><!-- <b y="6"/> --><c\ty="7"></c></a>'
    patch = Markup(text, "x")
    patch.set(patch.root.first("b"), "y", '8"')
    patch.set(patch.root.first("c"), "w", "é")
    patch.add(patch.root.first("b"), "d", {"q": "1"})
    expected = text.replace(b'y = "4"', b'y = "8&quot;"').replace(b'<c\ty="7">', b'<c\ty="7" w="&#233;">')
    assert patch.changed() == expected.replace(b"\"y='5'\"/>", b'"y=\'5\'">\r\n   <d q="1"/>\r\n </b>')
