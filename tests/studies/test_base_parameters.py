"""Base parameters of a planar arm: those of the textbook, by name and value."""

import functools

import mujoco
import numpy as np
import pytest

from dso_robotics.core.covariance import uncertainty
from dso_robotics.costs.torque import TorqueIdentification
from dso_robotics.data.log import Log, write_log
from dso_robotics.data.rollout import Rollout
from dso_robotics.parameters.path import parse
from dso_robotics.parameters.vector import pack
from dso_robotics.physics.model import load
from dso_robotics.report.identify import write_report
from dso_robotics.report.table import identification_table
from dso_robotics.robot.torque_balance import TorqueBalance
from dso_robotics.studies.base_parameters import base_parameters
from dso_robotics.studies.identify import identify
from dso_robotics.studies.study import IdentifyStudy
from dso_robotics.studies.torque_fit import minimum

LENGTH = 0.4
ARM = f"""
<mujoco><option gravity="{{gravity}}"/><worldbody>
  <body name="upper"><joint name="a" axis="0 0 1"/><inertial pos=".2 .01 .02" mass="2" fullinertia=".02 .05 .06 .001 0 0"/>
    <body name="lower" pos="{LENGTH} 0 0"><joint name="b" axis="0 0 1"/>
      <inertial pos=".1 .03 0" mass="1.5" fullinertia=".01 .02 .025 0 .001 0"/></body></body>
</worldbody><actuator><motor name="ta" joint="a"/><motor name="tb" joint="b"/></actuator></mujoco>
"""


def fitted(gravity):
    robot, rng = load(mujoco.MjSpec.from_string(ARM.format(gravity=gravity))), np.random.default_rng(0)
    vector = pack([parse("body/upper/inertia"), parse("body/lower/inertia")], robot)
    motion = rng.normal(size=(400, 6)) * [1, 1, 2, 2, 5, 5]
    data, forces = mujoco.MjData(robot.mj), np.zeros((400, 2))
    for row, force in zip(motion, forces, strict=True):
        data.qpos[:], data.qvel[:], data.qacc[:] = row[:2], row[2:4], row[4:]
        mujoco.mj_inverse(robot.mj, data)
        force[:] = data.qfrc_inverse + 1e-3 * rng.normal(size=2)
    balance = TorqueBalance(vector, np.concatenate([motion, forces], 1), np.zeros((0, 2)))
    solution = minimum(TorqueIdentification(balance, 100, huber=np.inf), vector)
    return base_parameters(vector, solution, uncertainty(solution, vector.scale))


def test_a_planar_arm_without_gravity_shows_four_combinations():
    found = fitted("0 0 0")
    names = {entry["name"]: entry for entry in found["combinations"]}
    assert set(names) == {
        f"inertia zz of upper + {LENGTH**2:.3g} mass of lower",
        "first moment x of lower",
        "first moment y of lower",
        "inertia zz of lower",
    }
    lower = 0.025 + 1.5 * (0.1**2 + 0.03**2)
    truth = {
        f"inertia zz of upper + {LENGTH**2:.3g} mass of lower": 0.06 + 2 * (0.2**2 + 0.01**2) + LENGTH**2 * 1.5,
        "first moment x of lower": 0.15,
        "first moment y of lower": 0.045,
        "inertia zz of lower": lower,
    }
    for name, value in truth.items():
        entry = names[name]
        assert entry["value"] == pytest.approx(value, rel=2e-3)
        assert entry["low95"] < entry["value"] < entry["high95"]
        assert entry["high95"] - entry["low95"] < 0.05 * value
    assert names["inertia zz of lower"]["unit"] == "kg*m^2"
    assert {"mass of upper", "first moment z of upper", "inertia xx of lower"} <= set(found["unseen"])
    assert "inertia zz of lower" not in found["unseen"]
    assert "mass of lower" not in found["unseen"]


def test_gravity_across_the_axes_shows_first_moments_of_the_upper_body_too():
    names = {entry["name"]: entry for entry in fitted("0 -9.81 0")["combinations"]}
    assert len(names) == 6
    moment = names[f"first moment x of upper + {LENGTH:.3g} mass of lower"]
    assert moment["value"] == pytest.approx(2 * 0.2 + LENGTH * 1.5, rel=2e-3)
    assert names["first moment y of upper"]["value"] == pytest.approx(0.02, rel=0.05)


def test_a_run_lists_them_in_the_table_and_the_report(tmp_path):
    rng, rollouts = np.random.default_rng(0), []
    text = ARM.format(gravity="0 0 0").replace(
        "</actuator>", '</actuator><sensor><jointpos name="qa" joint="a"/><jointpos name="qb" joint="b"/></sensor>'
    )
    text = text.replace("<mujoco>", '<mujoco><option timestep="0.005"/>')
    model = mujoco.MjModel.from_xml_string(text)
    for run in range(2):
        data, rows = mujoco.MjData(model), []
        time = 0.005 * np.arange(400)
        ctrl = np.sin(np.outer(time, rng.uniform(3, 9, 2)) + run) * [2.0, 0.5]
        for u in ctrl:
            data.ctrl[:] = u
            rows.append(data.qpos.copy())
            mujoco.mj_step(model, data)
        measured = np.array(rows) + 1e-4 * rng.normal(size=(400, 2))
        names = {"ctrl_names": ("ta", "tb"), "sensor_names": ("qa", "qb")}
        units = {"ctrl_units": ("N*m", "N*m"), "sensor_units": ("rad", "rad")}
        rollouts.append(Rollout(name=f"r{run}", time=time, ctrl=ctrl, sensordata=measured, **names, **units))
    (tmp_path / "arm.xml").write_text(text)
    write_log(tmp_path / "log.h5", Log("", "simulated for a test", "CC0", tuple(rollouts)))
    free = tuple(map(parse, ("body/upper/inertia", "body/lower/inertia")))
    study = IdentifyStudy(str(tmp_path / "arm.xml"), (str(tmp_path / "log.h5"),), free)
    found = identify(study, tmp_path / "out", report=functools.partial(write_report, video=False)).summary
    names = {entry["name"]: entry for entry in found["base_parameters"]["combinations"]}
    entry = names["inertia zz of lower"]
    assert entry["low95"] < 0.025 + 1.5 * (0.1**2 + 0.03**2) < entry["high95"]
    page, table = (tmp_path / "out" / "report.html").read_text(), identification_table(found)
    for text in (page, table):
        assert "inertia zz of lower" in text
        assert f"inertia zz of upper + {LENGTH**2:.3g} mass of lower" in text
        assert "mass of upper" in text
    assert not any("/inertia[" in warning and "correlated" in warning for warning in found["warnings"])


def test_plain_numbers_have_none(models):
    vector = pack([parse("body/upper/mass")], load(models / "two_joint_arm.xml"))
    assert base_parameters(vector, None, None) == {}  # pyright: ignore[reportArgumentType]
