"""Regression on inverse dynamics: near the truth from a start ten times off, and a competitor in the search."""

import dataclasses

import mujoco
import numpy as np
import pytest

from dso_robotics.costs.torque import TorqueIdentification
from dso_robotics.data.log import Log, write_log
from dso_robotics.data.match import match_channels
from dso_robotics.data.record import Flaws, record
from dso_robotics.data.rollout import Rollout
from dso_robotics.data.windows import cut
from dso_robotics.errors import DsoError
from dso_robotics.parameters.path import parse
from dso_robotics.parameters.vector import pack
from dso_robotics.physics.model import load
from dso_robotics.robot.torque_balance import TorqueBalance
from dso_robotics.studies.identify import identify
from dso_robotics.studies.study import IdentifyStudy
from dso_robotics.studies.torque_fit import minimum, regress, torque_errors, worse

FREE = {
    "joint/shoulder/frictionloss": 1.46084,
    "joint/elbow/frictionloss": 1.22522,
    "body/upper/mass": 5.6,
    "body/lower/mass": 6.0,
    "joint/elbow/armature": 0.0276,
}


@pytest.fixture(scope="module")
def log(models):
    """Both motors driven, positions with a little noise."""
    model, rng = mujoco.MjModel.from_xml_path(str(models / "two_joint_arm.xml")), np.random.default_rng(0)
    rollouts = []
    for run in range(2):
        data, rows, ctrl = mujoco.MjData(model), [], np.zeros((1500, 2))
        time = model.opt.timestep * np.arange(1500)
        for j in range(2):
            for f in rng.uniform(0.3, 2.5, 4):
                ctrl[:, j] += rng.normal(0, (0.8, 0.3)[j]) * np.sin(2 * np.pi * f * time + rng.uniform(0, 6))
        for u in ctrl:
            data.ctrl[:] = u
            mujoco.mj_forward(model, data)
            rows.append(data.sensordata.copy())
            mujoco.mj_step(model, data)
        measured = np.array(rows) + rng.normal(size=(1500, 4)) * [1e-5, 1e-5, 1e-3, 1e-3]
        names = tuple(model.sensor(i).name for i in range(4))
        rollouts.append(
            Rollout(
                name=f"run{run}", time=time, ctrl=ctrl, ctrl_names=("tau1", "tau2"), ctrl_units=("", ""),
                sensordata=measured, sensor_names=names, sensor_units=("",) * 4,
            )
        )  # fmt: skip
    return Log("", "simulated for a test", "CC0", tuple(rollouts))


def test_it_comes_near_the_truth_from_ten_times_off(models, log):
    robot = load(models / "two_joint_arm.xml")
    vector = pack([parse(f"{path}={start}") for path, start in FREE.items()], robot)
    windows = cut(log.rollouts, match_channels(log, robot.mj), timestep=0.002, seconds=0.5)
    truth = [
        robot.mj.dof_frictionloss[0],
        robot.mj.dof_frictionloss[1],
        *robot.mj.body_mass[1:3],
        robot.mj.dof_armature[1],
    ]
    found = regress(vector, windows)
    np.testing.assert_allclose(found, truth, rtol=0.2)


def test_it_competes_as_a_start_and_says_what_it_needs(models, log, tmp_path):
    write_log(tmp_path / "log.h5", log)
    free = tuple(parse(f"{path}={start}") for path, start in FREE.items())
    study = IdentifyStudy(str(models / "two_joint_arm.xml"), (str(tmp_path / "log.h5"),), free, warm_start=True)
    found = identify(study, tmp_path / "out").summary
    starts = found["starts"]
    assert starts["warm_start"] == 1
    assert starts["chosen"] == int(np.argmin(starts["costs"]))
    assert found["parameters"]["body/lower/mass"]["value"] == pytest.approx(0.604, rel=0.02)
    blind = dataclasses.replace(
        log.rollouts[0], sensordata=log.rollouts[0].sensordata[:, 1:], sensor_names=log.rollouts[0].sensor_names[1:],
        sensor_units=("",) * 3,
    )  # fmt: skip
    text = (models / "two_joint_arm.xml").read_text().replace('<jointpos name="shoulder_pos" joint="shoulder"/>', "")
    (tmp_path / "blind.xml").write_text(text)
    write_log(tmp_path / "blind.h5", dataclasses.replace(log, rollouts=(blind,)))
    with pytest.raises(DsoError, match="position of every joint"):
        identify(
            dataclasses.replace(study, model=str(tmp_path / "blind.xml"), logs=(str(tmp_path / "blind.h5"),)),
            tmp_path / "no",
        )


THREE = """<mujoco><option timestep="0.002" integrator="implicitfast"/>
  <worldbody><body name="one"><joint name="a" axis="0 0 1" damping="DAMP" frictionloss="FRIC" armature="0.05"/>
    <inertial pos="0.01 0.02 0.1" mass="M1" fullinertia="0.03 0.03 0.02 0.001 0.002 0.001"/>
    <body name="two" pos="0 0 0.2"><joint name="b" axis="0 1 0" damping="0.4" frictionloss="0.3" armature="0.02"/>
      <inertial pos="C2 0.02 0.01" mass="M2" fullinertia="0.01 0.03 0.03 0.001 0.002 0.001"/>
      <body name="three" pos="0.3 0 0"><joint name="c" axis="0 1 0" damping="0.2"/>
        <inertial pos="0.1 0 0.02" mass="M3" fullinertia="0.003 0.008 0.007 0.0005 0.0002 0.0001"/>
      </body></body></body></worldbody>
  <actuator><general name="ta" joint="a" biastype="affine" biasprm="OFF 0 0"/><motor name="tb" joint="b"/>
    <motor name="tc" joint="c"/></actuator>
  <sensor><jointpos name="a" joint="a"/><jointpos name="b" joint="b"/><jointpos name="c" joint="c"/></sensor></mujoco>"""
TRUE = {"DAMP": "0.8", "FRIC": "0.6", "OFF": "0.3", "M1": "3", "M2": "2", "M3": "1", "C2": "0.15"}
WRONG = {"DAMP": "0.2", "FRIC": "0.1", "OFF": "0", "M1": "1", "M2": "4", "M3": "0.4", "C2": "0.02"}


def three(numbers):
    text = THREE
    for name, value in numbers.items():
        text = text.replace(name, value)
    return load(mujoco.MjSpec.from_string(text))


def test_full_inertias_predict_forces_that_were_not_fitted():
    """Every body's ten numbers, friction and an offset, from a start far off: the forces of other motions come out right."""
    true, wrong = three(TRUE), three(WRONG)
    rng, time = np.random.default_rng(0), 0.002 * np.arange(3000)
    data, rows, ctrl = mujoco.MjData(true.mj), [], np.zeros((3000, 3))
    for j in range(3):
        for f in rng.uniform(0.2, 2.0, 5):
            ctrl[:, j] += rng.normal(0, (3.0, 4.0, 1.5)[j]) * np.sin(2 * np.pi * f * time + rng.uniform(0, 6))
    for u in ctrl:
        data.ctrl[:] = u
        mujoco.mj_forward(true.mj, data)
        rows.append(data.sensordata.copy())
        mujoco.mj_step(true.mj, data)
    rollout = Rollout(
        name="one", time=time, ctrl=ctrl, ctrl_names=("ta", "tb", "tc"), sensordata=np.array(rows),
        sensor_names=("a", "b", "c"),
    )  # fmt: skip
    log = Log("", "simulated for a test", "CC0", (rollout,))
    free = ["body/*/inertia", "joint/*/damping", "joint/a/frictionloss", "joint/b/frictionloss", "actuator/ta/offset"]
    vector = pack([parse(path) for path in free], wrong)
    z = regress(vector, cut(log.rollouts, match_channels(log, wrong.mj), timestep=0.002, seconds=0.5))
    found = {name: value for name, (value, _) in vector.report(z).items()}
    assert found["joint/a/damping"] == pytest.approx(0.8, rel=0.03)
    assert found["joint/a/frictionloss"] == pytest.approx(0.6, rel=0.05)
    assert found["actuator/ta/offset"] == pytest.approx(0.3, abs=0.02)
    fresh = np.random.default_rng(5).normal(size=(200, 9)) * np.repeat([1.0, 2.0, 10.0], 3)
    moments = np.concatenate([fresh, np.zeros((200, 3))], 1)
    none = np.zeros((0, 3))
    right = TorqueBalance(pack([parse("actuator/ta/offset")], true), moments, none)(np.array([0.3]))
    errors = TorqueBalance(vector, moments, none)(z) - right
    before = TorqueBalance(vector, moments, none)(vector.initial) - right
    assert np.all(errors.std(0) < 0.02 * right.std(0))
    assert np.all(before.std(0) > 0.2 * right.std(0))


def test_the_derivative_of_the_balance(models):
    """Of numbers of all kinds: linear ones, inertial ones, and a gear and a body's place, which are neither."""
    wrong = three(WRONG)
    paths = ["body/two/inertia", "body/three/mass", "joint/b/frictionloss", "joint/a/damping"]
    paths += ["actuator/tb/gear", "body/three/pos[0]"]
    vector = pack([parse(path) for path in paths], wrong)
    moments = np.random.default_rng(2).normal(size=(20, 12))
    for kept in (vector, pack([parse(path) for path in paths[:4]], wrong)):
        balance = TorqueBalance(kept, moments, np.zeros((0, 3)))
        assert balance.affine == (kept is not vector)
        z = kept.initial + 0.05 * kept.scale
        slope = balance.slope(z)
        for i in range(kept.size):
            h = 1e-4 * kept.scale[i] * np.eye(kept.size)[i]
            np.testing.assert_allclose(
                slope[..., i], (balance(z + h) - balance(z - h)) / (2 * h[i]), rtol=1e-4, atol=1e-5
            )


def study(models, log, folder, **more):
    write_log(folder / "log.h5", log)
    free = tuple(parse(f"{path}={start}") for path, start in FREE.items())
    return IdentifyStudy(str(models / "two_joint_arm.xml"), (str(folder / "log.h5"),), free, hold_out="run1", **more)


def test_a_fit_of_forces_ends_at_the_truth_with_intervals(models, log, tmp_path):
    found = identify(study(models, log, tmp_path, fit="torque"), tmp_path / "out").summary
    truth = {"body/upper/mass": 0.56, "body/lower/mass": 0.604, "joint/shoulder/frictionloss": 0.146084}
    assert found["converged"]
    for path, value in truth.items():
        row = found["parameters"][path]
        assert row["value"] == pytest.approx(value, rel=0.05)
        assert row["low95"] < row["value"] < row["high95"]
    assert (tmp_path / "out" / "model.xml").exists()
    # Nothing was simulated to fit; only the windows are, once or twice, to say how good the prediction is.
    assert found["simulated_steps"] < 5 * 1500
    assert "forces" in found["engine_reason"]


def test_at_standstill_dry_friction_says_nothing():
    """A joint that stands still, one that slides either way, and a joint without dry friction, whose force is always known."""
    true = three(TRUE)
    vector = pack([parse("joint/a/frictionloss"), parse("joint/b/damping")], true)
    moments = np.random.default_rng(3).normal(size=(40, 12))
    moments[:10, 3:6] = 0.0
    balance = TorqueBalance(vector, moments, np.zeros((0, 3)))
    np.testing.assert_array_equal(balance.known[:10], np.tile([False, False, True], (10, 1)))
    assert balance.known[10:].mean() > 0.95
    slope = balance.slope(vector.initial)[..., 0]
    np.testing.assert_array_equal(slope[:, 0], np.where(balance.known[:, 0], np.sign(moments[:, 3]), 0.0))
    np.testing.assert_array_equal(slope[:, 1:], 0.0)


def test_a_joint_that_never_moves_tells_nothing_and_stops_nothing():
    """Its dry friction stays where it was, and the others are found."""
    none, true = np.zeros((0, 3)), three(TRUE)
    moments = np.random.default_rng(3).normal(size=(60, 12))
    moments[:, [0, 3, 6]] = 0.0
    moments[:, 9:] = 0.0
    moments[:, 9:] = TorqueBalance(pack([parse("joint/a/damping")], true), moments, none)(np.array([0.8]))
    vector = pack(
        [parse(path) for path in ("joint/a/frictionloss", "joint/b/frictionloss=2", "joint/c/damping=5")], true
    )
    balance = TorqueBalance(vector, moments, none)
    assert not balance.known[:, 0].any()
    np.testing.assert_allclose(minimum(TorqueIdentification(balance, 3), vector).z, [0.6, 0.3, 0.2], rtol=1e-6)


def test_the_drag_of_a_fluid_changes_with_the_inertia():
    """MuJoCo's box of a body's drag comes from its mass and inertia."""
    text = THREE.replace('timestep="0.002"', 'timestep="0.002" density="1000" viscosity="0.1"')
    for name, value in TRUE.items():
        text = text.replace(name, value)
    robot, none = load(mujoco.MjSpec.from_string(text)), np.zeros((0, 3))
    moments = np.random.default_rng(4).normal(size=(20, 12))
    near, there = (pack([parse(f"body/two/mass={mass}")], robot) for mass in (2.0, 2.6))
    z = there.initial
    np.testing.assert_allclose(TorqueBalance(near, moments, none)(z), TorqueBalance(there, moments, none)(z), rtol=1e-9)


def test_forces_are_judged_beside_least_squares(models, log, tmp_path):
    found = identify(study(models, log, tmp_path), tmp_path / "out").summary
    for part in ("train", "hold_out"):
        for joint in ("shoulder", "elbow"):
            row = found["torque"][part][joint]
            # The model is right, so no fit can be much better than the other.
            assert row["rmse"] == pytest.approx(row["least_squares"], rel=0.2)
            assert row["rmse"] < 0.3 * row["spread"]
            assert row["unit"] == "N*m"
    assert not any("inverse dynamics" in text for text in found["warnings"])


def test_a_fit_whose_forces_are_worse_is_told():
    table = {"hold_out": {"elbow": {"rmse": 0.2, "least_squares": 0.1, "spread": 1.0, "unit": "N*m"}}}
    (text,) = worse(table)
    assert "elbow 0.2 where least squares has 0.1 N*m" in text
    assert "--fit torque" in text
    table["hold_out"]["elbow"]["rmse"] = 0.105
    assert worse(table) == []


@pytest.mark.parametrize(
    ("more", "text"),
    [({"window": 0.0}, "no motion is compared"), ({"continuity": 1.0}, "which continuity needs")],
)
def test_what_needs_a_simulation_does_not_go_with_forces(models, log, tmp_path, more, text):
    with pytest.raises(DsoError, match=text):
        study(models, log, tmp_path, fit="torque", **more)


STIFF = """<mujoco><option timestep="0.002" integrator="implicitfast"/><worldbody><body><joint name="lift" axis="0 1 0"
damping="16" frictionloss="4" armature="0.3"/>
<geom type="capsule" fromto="0 0 0 .4 0 0" size=".05" mass="5" contype="0" conaffinity="0"/>
</body></worldbody><actuator><general name="servo" joint="lift"
gainprm="2000" biasprm="0 -2000 -400" biastype="affine"/></actuator>
<sensor><jointpos name="q" joint="lift"/></sensor></mujoco>"""


def test_noise_that_a_stiff_servo_turns_into_force_is_no_fault_of_the_fit():
    robot, time = load(mujoco.MjSpec.from_string(STIFF)), 0.008 * np.arange(500)
    ctrl = 0.5 * np.stack([np.sin(3 * time) + 0.5 * np.sin(8 * time + 1)], axis=1)
    log = record(robot.mj, np.random.default_rng(0), [("a", ctrl)], every=4, flaws=Flaws(sensor_noise={"q": 2e-4}))
    vector, channels = (
        pack([parse("joint/lift/damping"), parse("joint/lift/armature")], robot),
        match_channels(log, robot.mj),
    )
    told = {}
    for name, z in (("true", np.array([16.0, 0.3])), ("wrong", np.array([16.0, 4.0]))):
        table = torque_errors(vector, z, {"train": log.rollouts}, channels, None, np.array([2e-4]))
        row = table["train"]["lift"]
        told[name] = worse(table)
        if name == "true":
            # Least squares explains the noise by wrong numbers; a motion of the model itself has the same error.
            assert row["rmse"] > 1.1 * row["least_squares"]
            assert row["rmse"] == pytest.approx(row["own"], rel=0.2)
    assert told["true"] == []
    assert len(told["wrong"]) == 1
    # A recording that cannot be simulated as a whole leaves that comparison out, and ends nothing.
    (whole,) = log.rollouts
    cut_off = dataclasses.replace(
        whole, name="b", time=whole.time[:2], ctrl=whole.ctrl[:2], sensordata=whole.sensordata[:2]
    )
    table = torque_errors(vector, np.array([16.0, 0.3]), {"train": (whole, cut_off)}, channels, None, np.array([2e-4]))
    assert table["train"]["lift"]["own"] is None
    assert table["train"]["lift"]["rmse"] > 0


def test_the_force_of_an_implicit_step_balances():
    robot = load(mujoco.MjSpec.from_string(STIFF.replace('loss="4"', 'loss="0"')))
    vector, model = pack([parse("joint/lift/damping")], robot), robot.mj
    data, rows = mujoco.MjData(model), []
    for k in range(40):
        data.ctrl[:] = np.sin(0.2 * k)
        qpos, qvel = data.qpos.copy(), data.qvel.copy()
        mujoco.mj_step(model, data)
        rows.append(np.concatenate([qpos, qvel, (data.qvel - qvel) / model.opt.timestep, data.ctrl]))
    error = TorqueBalance(vector, np.array(rows), np.zeros((0, 1)))(vector.initial)
    np.testing.assert_allclose(error, 0.0, atol=1e-9)
