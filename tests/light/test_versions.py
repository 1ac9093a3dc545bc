"""The table of what differs between versions of MuJoCo names what does differ, and nothing that does not."""

import json
import pathlib
import subprocess

import mujoco
import numpy as np
import pytest

from dso_robotics.errors import DsoError
from dso_robotics.physics.model import load
from dso_robotics.physics.refuse import refuse, unsupported
from dso_robotics.physics.versions import INSTALLED, differences, refuse_faults
from tests.light import steps
from tests.light.test_numbers import PEER

THREE, FOUR = (3, 17, 0), (4, 0, 0)
needs_four = pytest.mark.skipif(INSTALLED < (4,), reason="MuJoCo 3 does not know the attribute")


@pytest.mark.parametrize("case", steps.NAMED)
def test_what_differs_is_named_on_its_version_alone(case):
    names, text = steps.NAMED[case]
    model = mujoco.MjModel.from_xml_string(text)
    here, there = (THREE, FOUR) if case == "still" else (FOUR, THREE)
    (said,) = differences(model, here)
    assert names in said
    assert not differences(model, there)


@pytest.mark.parametrize("case", steps.UNNAMED)
def test_what_is_the_same_is_not_named(case):
    model = mujoco.MjModel.from_xml_string(steps.UNNAMED[case])
    assert not differences(model, THREE)
    assert not differences(model, FOUR)


@pytest.mark.skipif(not PEER, reason="make light names the Python to compare with in DSO_PEER_PYTHON")
def test_the_table_is_what_a_step_of_both_versions_shows(tmp_path):
    subprocess.run([str(PEER), str(pathlib.Path(steps.__file__)), str(tmp_path / "steps.json")], check=True)
    three = json.loads((tmp_path / "steps.json").read_text())
    apart = {}
    for name, theirs in three.items():
        kind, _, case = name.partition(" ")
        text = steps.NAMED[case][1] if kind == "named" else steps.UNNAMED[case]
        apart[name] = np.abs(np.array(steps.step(text)) - np.array(theirs)).max()
    assert {name for name, error in apart.items() if error > 1e-9} == {n for n in apart if n.startswith("named")}
    assert max(error for name, error in apart.items() if name.startswith("unnamed")) < 1e-12


@needs_four
def test_what_mjx_does_not_know_is_refused():
    text = (
        "<mujoco><option>{}</option><worldbody><body><joint name='j' {}/><geom size='.1'/></body></worldbody></mujoco>"
    )
    speculative = mujoco.MjModel.from_xml_string(text.format("<flag speculative='enable'/>", ""))
    with pytest.raises(DsoError, match="option/flag/speculative is unknown to MJX: disable it"):
        refuse(speculative)
    spring = mujoco.MjModel.from_xml_string(text.format("", "stiffness='3' springyield='20'"))
    assert unsupported(spring) == ["The springyield of joint 'j' is unknown to MJX: remove it."]
    with pytest.raises(DsoError, match=r"springyield of joint 'j': .* remove springyield"):
        load(spring)


def test_the_solver_of_4_0_0_is_refused_where_it_is_wrong():
    text = "<mujoco><option jacobian='{}' solver='{}'/><worldbody><body><joint/><geom size='.1'/></body></worldbody></mujoco>"
    for jacobian, solver in (("sparse", "Newton"), ("dense", "Newton"), ("auto", "Newton"), ("sparse", "CG")):
        model = mujoco.MjModel.from_xml_string(text.format(jacobian, solver))
        for version in (THREE, (4, 0, 1)):
            refuse_faults(model, "robot.xml", version)
        if (jacobian, solver) == ("sparse", "Newton"):
            with pytest.raises(DsoError, match=r'robot\.xml: MuJoCo 4\.0\.0 .* jacobian="dense"'):
                refuse_faults(model, "robot.xml", FOUR)
        else:
            refuse_faults(model, "robot.xml", FOUR)


def test_the_models_that_ship_are_free_of_all_of_it(models):
    """Except that tendons of the finger have side sites, by which C of both versions leads them alike."""
    for path in models.glob("*.xml"):
        robot = load(path)
        assert not differences(robot.mj, THREE), path
        found = differences(robot.mj, FOUR)
        if path.stem == "tendon_finger":
            assert [text.partition(" of ")[0] for text in found] == ["Since MuJoCo 4 the sidesite"]
        else:
            assert not found, path
