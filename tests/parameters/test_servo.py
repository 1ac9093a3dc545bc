"""Servos by name: published numbers become start values and priors of the joints that they drive."""

import math

import mujoco
import numpy as np
import pytest

from dso_robotics.cli import main
from dso_robotics.data.log import write_log
from dso_robotics.errors import DsoError
from dso_robotics.parameters.path import Declaration
from dso_robotics.parameters.servo import fit_servos, servos
from dso_robotics.parameters.vector import pack
from dso_robotics.physics.model import load
from tests.pendulum import PENDULUM, record

ARM = """
<mujoco>
  <worldbody><body>
    <joint name="hip" axis="0 1 0"/><geom size="0.05" pos="0.1 0 0"/>
    <body pos="0.2 0 0"><joint name="kn*e" axis="0 1 0"/><geom size="0.05" pos="0.1 0 0"/>
      <body pos="0.2 0 0"><joint name="rail" type="slide"/><geom size="0.05"/></body></body>
  </body></worldbody>
  <actuator>
    <position name="hip" joint="hip" kp="3"/>
    <position name="knee" joint="kn*e" kp="3" kv="0.1"/>
    <dcmotor name="motor" joint="hip" motorconst="0.1" resistance="2"/>
    <motor name="geared" joint="hip" gear="4"/>
    <motor name="rail" joint="rail"/>
  </actuator>
</mujoco>
"""


@pytest.fixture(scope="module")
def robot():
    return load(mujoco.MjSpec.from_string(ARM))


def test_every_servo_has_numbers_units_source_and_licence():
    assert len(servos()) >= 3
    for servo in servos().values():
        assert servo.title
        assert servo.licence == "Apache-2.0"
        assert "github.com/" in servo.source
        units = {
            "armature": "kg*m^2",
            "friction": "N*m",
            "viscous": "N*m*s/rad",
            "motorconst": "N*m/A",
            "resistance": "ohm",
        }
        for key, unit in units.items():
            known = getattr(servo, key)
            assert known.value > 0
            assert known.unit == unit
            assert known.interval is None or known.interval[0] <= known.value <= known.interval[1]


def starts(text, robot, free=()):
    return {d.path: d for one in fit_servos([text], robot, free) for d in one.declarations}


def test_a_servo_without_kv_is_braked_by_its_back_emf(robot):
    servo = servos()["xl330"]
    found = starts("xl330=hip", robot)
    assert set(found) == {"joint/hip/armature", "joint/hip/frictionloss", "joint/hip/damping"}
    assert found["joint/hip/armature"].init == servo.armature.value
    assert found["joint/hip/damping"].init == servo.viscous.value + servo.motorconst.value**2 / servo.resistance.value
    low, high = servo.armature.interval
    median, deviation = found["joint/hip/armature"].prior
    # The farther end of the source's interval is one standard deviation away.
    assert max(math.log(high / median), math.log(median / low)) == pytest.approx(deviation)
    assert found["joint/hip/frictionloss"].prior is None
    pack(found.values(), robot)


def test_a_servo_with_kv_and_a_dcmotor_brake_by_themselves(robot):
    servo = servos()["mx64"]
    assert starts("mx64=knee", robot)[r"joint/kn\*e/damping"].init == servo.viscous.value
    found = starts("mx64=mot?r", robot)
    assert found["joint/hip/damping"].init == servo.viscous.value
    assert found["actuator/motor/resistance"].init == servo.resistance.value
    assert found["actuator/motor/motorconst"].init == servo.motorconst.value
    pack(found.values(), robot)


def test_what_the_user_frees_stays_as_it_is(robot):
    assert set(starts("xl330=hip", robot, [Declaration("joint/*/armature", init=0.3)])) == {
        "joint/hip/frictionloss",
        "joint/hip/damping",
    }


@pytest.mark.parametrize(
    ("texts", "told"),
    [
        (["xl33"], "xl330"),
        (["xl330=elbow"], "'hip'"),
        (["xl330=rail"], "drives no named hinge"),
        (["xl330=geared"], "gear 4"),
        (["xl330=hip", "mx64=h*"], "two servos"),
    ],
)
def test_what_cannot_be_is_told(robot, texts, told):
    with pytest.raises(DsoError, match=told):
        fit_servos(texts, robot, ())


def test_an_identification_starts_from_the_library_and_says_so(tmp_path, capsys):
    (tmp_path / "m.xml").write_text(PENDULUM.format(damping=1.0, frictionloss=0.5, mass=0.7))
    write_log(tmp_path / "l.h5", record(0))
    argv = ["identify", str(tmp_path / "m.xml"), str(tmp_path / "l.h5"), "--actuator", "mx64", "--no-report"]
    assert main([*argv, "--out", str(tmp_path / "r")]) == 0
    text = capsys.readouterr().out
    assert "Dynamixel MX-64" in text
    assert "Apache-2.0" in text
    (row,) = (line.split() for line in text.splitlines() if line.startswith("joint/hinge/frictionloss"))
    assert float(row[1]) == pytest.approx(servos()["mx64"].friction.value, rel=1e-3)
    # Wherever the library starts, the data lead to the truth.
    assert np.isclose(float(row[2]), 0.05, atol=0.01)
