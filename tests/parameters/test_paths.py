"""Paths name what MJCF names, and every wrong one is refused with the nearest right ones."""

import numpy as np
import pytest

from dso_robotics.cli import main
from dso_robotics.errors import DsoError
from dso_robotics.parameters.family import FAMILIES
from dso_robotics.parameters.parameter import declare
from dso_robotics.parameters.path import every, parse, resolve
from dso_robotics.parameters.vector import pack
from dso_robotics.physics.model import load


@pytest.fixture(scope="module")
def arm(models):
    return load(models / "two_joint_arm.xml")


def test_parse_reads_start_and_bounds():
    declaration = parse("joint/elbow/damping=1e-2@0:2.5")
    assert (declaration.path, declaration.init, declaration.low, declaration.high) == (
        "joint/elbow/damping",
        0.01,
        0,
        2.5,
    )
    assert parse("body/upper/mass@:3").high == 3
    assert parse("body/upper/mass").init is None


def test_wildcards_free_each_match_in_model_order(arm):
    assert [t.path for t in resolve("joint/*/damping", arm)] == ["joint/shoulder/damping", "joint/elbow/damping"]
    assert [t.path for t in resolve("body/upper/ipos", arm)] == [f"body/upper/ipos[{i}]" for i in range(3)]
    assert resolve("body/upper/com[2]", arm)[0].path == "body/upper/ipos[2]"


def test_every_listed_path_resolves_to_itself_and_holds_the_models_value(arm):
    for target in every(arm):
        (found,) = resolve(target.path, arm)
        assert found == target
    values = {t.path: t.nominal(arm) for t in every(arm)}
    assert values["joint/elbow/frictionloss"] == pytest.approx(0.122522)
    assert values["body/lower/ipos[2]"] == pytest.approx(-0.183777)
    assert {f"joint/elbow/{f.field}" for f in FAMILIES.values() if f.kind == "joint"} - {*values} == {
        "joint/elbow/range",
        "joint/elbow/actuatorfrcrange",
    }


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("joint/elbw/damping", ["no joint called 'elbw'", "'elbow'"]),
        ("joint/elbow/dampin", ["no parameter 'dampin'", "'damping'"]),
        ("jont/elbow/damping", ["no kind 'jont'", "joint"]),
        ("elbow", ["not a parameter path", "KIND/NAME/FIELD"]),
        ("body/upper/ipos[3]", ["3 number", "below 3"]),
        ("option/timestep", ["cannot be freed", "time step"]),
        ("log/*/initial_state", ["cannot be freed", "`dso identify` with a log"]),
        ("sensor/elbow_pos/noise", ["cannot be freed", "`dso identify` with a log"]),
        ("joint/elbow/damping=2@0:1", ["start value 2", "outside"]),
        ("joint/elbow/damping@3:1", ["3 is not below", "@LOW:HIGH"]),
        ("joint/elbow/damping=nan", ["nan"]),
        ("joint/elbow/damping=fast", ["cannot read", "PATH[=INIT][@LOW:HIGH]"]),
        ("body/upper/mass=-1", ["-1", "outside the bounds 0"]),
        ("body/upper/mass=0", ["no mass"]),
        ("body/upper/mass@-1:1", ["-1", "beyond 0"]),
        ("body/upper/diaginertia[1]@0.0001:0.2", ["moments", "bounds"]),
        ("body/upper/diaginertia[1]=0.1", ["what the other two allow", "body/upper/inertia"]),
        ("body/upper/inertia=2", ["ten numbers"]),
        ("actuator/tau1/offset", ["biastype"]),
        ("actuator/tau1/kp", ["not a position servo"]),
        ("joint/shoulder/damping+body/upper/mass", ["same unit"]),
    ],
)
def test_bad_declarations_say_what_and_how(arm, text, words):
    with pytest.raises(DsoError) as error:
        pack([parse(text)], arm)
    message = str(error.value)
    assert "\n" not in message
    for word in words:
        assert word in message


def test_nothing_free_and_the_same_number_twice(arm):
    with pytest.raises(DsoError, match="nothing is free"):
        pack([], arm)
    with pytest.raises(DsoError, match="same number"):
        pack([parse("joint/*/damping"), parse("joint/elbow/damping")], arm)
    with pytest.raises(DsoError, match="same number"):
        pack([parse("body/upper/mass"), parse("body/upper/inertia")], arm)


def test_a_tie_writes_one_number_to_every_place(arm):
    vector = pack([parse("joint/shoulder/damping+joint/elbow/damping=0.3")], arm)
    assert vector.size == 1
    np.testing.assert_array_equal(vector.fields(np.array([0.7]))["dof_damping"], [0.7, 0.7])


def test_every_listed_path_can_be_freed_whatever_the_names(tmp_path):
    names = ("a[0]", "b=1", "c@2", "d+e", "f*", "g?", "h\\i", "[j]k", "l m")
    bodies = "".join(
        f'<body name="{n}" pos="{i} 0 0"><joint name="{n}" damping="{i + 1}"/><geom name="{n}" size="0.1"/></body>'
        for i, n in enumerate(names)
    )
    (tmp_path / "odd.xml").write_text(f"<mujoco><worldbody>{bodies}</worldbody></mujoco>")
    robot = load(tmp_path / "odd.xml")
    for target in every(robot):
        (found,) = resolve(parse(f"{target.path}=0.5@0:9").path, robot)
        assert found == target
    assert [t.nominal(robot) for t in resolve("joint/f*/damping", robot)] == [5.0]
    assert len(resolve("joint/?*/damping", robot)) == len(names)
    both = declare(parse(r"joint/d\+e/damping+joint/b\=1/damping=3"), robot)
    assert [len(p.slots) for p in both] == [2]
    assert both[0].initial[0] == 3.0


def test_the_joints_damping_of_a_free_body_has_both_units(tmp_path, capsys):
    (tmp_path / "box.xml").write_text(
        '<mujoco><worldbody><body name="box"><joint name="float" type="free" damping="0.1"/><geom size="0.1"/></body>'
        '<body><joint name="rail" type="slide"/><joint name="ball" type="ball"/><geom size="0.1"/></body>'
        "</worldbody></mujoco>"
    )
    assert main(["parameters", str(tmp_path / "box.xml")]) == 0
    units = {line.split("  ")[0]: line for line in capsys.readouterr().out.splitlines()}
    assert " N*s/m and N*m*s/rad " in units["joint/float/damping"]
    assert " kg and kg*m^2 " in units["joint/float/armature"]
    assert " N*s/m " in units["joint/rail/damping"]
    assert " N*m*s/rad " in units["joint/ball/damping"]
    for name in ("rail", "ball"):
        assert " and " not in units[f"joint/{name}/damping"]
    assert "joint/float/stiffness" not in units
