"""Recordings that are not tables: made-up files with known contents, and what physics says about the real ones."""

import json
from pathlib import Path

import h5py
import mujoco
import numpy as np
import pytest
from scipy.io import savemat

from dso_robotics.data.match import match_channels
from dso_robotics.data.recordings import convert_recording
from dso_robotics.data.registry import fetch
from dso_robotics.errors import DsoError
from dso_robotics.physics.refuse import unsupported

MODELS = {
    "bam_xl330": "xl330_servo",
    "broad_imu": "imu",
    "dfki_double_pendulum_A0": "two_joint_arm",
    "dfki_simple_pendulum": "simple_pendulum",
    "multiarm_double": "multiarm_double",
    "multiarm_single": "multiarm_single",
}


def test_a_servo_file(tmp_path):
    entry = {"position": 0.1, "speed": -2.0, "timestamp": 0.5, "goal_position": 0.4, "torque_enable": True}
    later = {**entry, "timestamp": 0.507, "torque_enable": False}
    (tmp_path / "run.json").write_text(json.dumps({"kp": 800, "entries": [entry, later]}))
    (rollout,), _ = convert_recording("position_servo", tmp_path / "run.json", "run")
    np.testing.assert_allclose(rollout.time, [0.5, 0.507])
    np.testing.assert_allclose(rollout.sensordata, [[0.1, -2.0]] * 2)
    # 0.3 rad are 0.3 * 4096 / 2 pi counts; the firmware multiplies them with 800 / 256, of a full scale of 885.
    target, feedback, powered = rollout.ctrl[0]
    assert target - feedback * 0.1 == pytest.approx(0.3 * 4096 / (2 * np.pi) * 800 / 256 / 885)
    assert powered == 1
    assert not rollout.ctrl[1].any()


def test_a_file_of_arms(tmp_path):
    absolute = np.array(
        [[np.pi + 0.1, np.pi - 0.2], [np.pi + 0.3, np.pi], [1.0, 2.0], [4.0, 8.0]]
    )  # angles, then rates
    cells = np.empty((1, 1), object)
    cells[0, 0] = absolute
    times = np.empty((1, 1), object)
    times[0, 0] = np.array([[0.0], [0.001]])
    content = {f"{kind}_{part}": value for part in ("id", "vad") for kind, value in (("Y", cells), ("Time", times))}
    savemat(tmp_path / "arms.mat", content)
    rollouts, _ = convert_recording("falling_arms", tmp_path / "arms.mat", "")
    assert [r.name for r in rollouts] == ["id01", "val1"]
    np.testing.assert_allclose(rollouts[0].sensordata, [[0.1, 0.2, 1.0, 3.0], [-0.2, 0.2, 2.0, 6.0]], atol=1e-12)


def test_an_inertial_file(tmp_path):
    with h5py.File(tmp_path / "imu.hdf5", "w") as file:
        file.attrs["sampling_rate"] = 4.0
        for name, width in (("imu_gyr", 3), ("imu_acc", 3), ("imu_mag", 3), ("opt_quat", 4), ("opt_pos", 3)):
            file[name] = np.arange(5.0)[:, None] + np.zeros(width)
        file["opt_pos"][0] = np.nan
        file["movement"] = [False, True, True, True, False]
    (rollout,), facts = convert_recording("inertial_unit", tmp_path / "imu.hdf5", "a")
    assert facts == {"a.movement_begins": 0.25, "a.movement_ends": 0.75}
    assert rollout.sensor_units[-1] == "m"
    assert np.isnan(rollout.sensor("position[2]")[0])
    np.testing.assert_array_equal(rollout.sensor("orientation[3]"), np.arange(5.0))


@pytest.mark.parametrize("kind", ["position_servo", "falling_arms", "inertial_unit"])
@pytest.mark.parametrize("content", [b"", b"{}", b"<html>moved</html>"])
def test_another_file_is_refused(tmp_path, kind, content):
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(DsoError, match=r"file: is not the file it is registered as.*restore"):
        convert_recording(kind, tmp_path / "file", "a")


@pytest.mark.parametrize("name", MODELS)
def test_every_recording_has_a_model_for_both_engines(real_data, models, name):
    model = mujoco.MjModel.from_xml_path(str(models / f"{MODELS[name]}.xml"))
    assert match_channels(fetch(name), model).warnings == ()
    assert not unsupported(model)


def test_the_servo_file_says_what_duty_cycle_the_firmware_made(real_data):
    """The files hold the firmware's own counts (as wrapped 16-bit numbers); the log does not use them."""
    log = fetch("bam_xl330")
    assert len(log.rollouts) == 16
    path = sorted((Path(real_data) / "bam_xl330" / "raw").glob("*.json"))[9]
    rollout = log["kp400_lift_and_drop"]
    entries = json.loads(path.read_text())["entries"]
    counts = np.array([entry["load"] for entry in entries], float)
    counts = np.where(counts > 32767, counts - 65536, counts)
    target, feedback, powered = rollout.ctrl.T
    duty = np.clip(target - feedback * rollout.sensor("pos"), -1, 1)
    on = powered > 0
    assert 100 < on.sum() < len(on)
    assert np.median(np.abs(counts[on] / 885 - duty[on])) < 0.01


def test_angles_and_rates_of_the_arms_agree(real_data):
    for name, joints in (("multiarm_single", 1), ("multiarm_double", 2)):
        for rollout in fetch(name).rollouts:
            for joint in range(1, joints + 1):
                slope = np.gradient(rollout.sensor(f"pos{joint}"), rollout.time)
                assert np.corrcoef(slope, rollout.sensor(f"vel{joint}"))[0, 1] > 0.998
    # The last pieces swing a little about straight down.
    assert np.abs(fetch("multiarm_double")["val4"].sensor("pos1")).max() < 0.2


def test_the_cameras_and_the_inertial_unit_see_one_motion(real_data, models):
    """The model in the recorded orientations, turning as they do, reads what the unit measured."""
    model = mujoco.MjModel.from_xml_path(str(models / "imu.xml"))
    data = mujoco.MjData(model)
    log = fetch("broad_imu")
    rollout = log["02_undisturbed_slow_rotation_B"]
    begins = float(log.attributes["02_undisturbed_slow_rotation_B.movement_begins"])
    first, step = int(np.searchsorted(rollout.time, begins + 20)), 2
    quat = np.stack([rollout.sensor(f"orientation[{i}]") for i in range(4)], axis=1)
    read, measured = [], []
    for sample in range(first, first + 2000, 10):
        data.qpos[3:] = quat[sample]
        mujoco.mju_subQuat(data.qvel[3:], quat[sample + step], quat[sample - step])
        data.qvel[3:] /= rollout.time[sample + step] - rollout.time[sample - step]
        mujoco.mj_forward(model, data)
        read.append(np.r_[data.sensor("gyro").data, data.sensor("magnetometer").data])
        measured.append([rollout.sensor(f"{s}[{i}]")[sample] for s in ("gyro", "magnetometer") for i in range(3)])
    error = np.sqrt(np.mean((np.array(read) - measured) ** 2, axis=0))
    assert np.std(measured, axis=0)[0] > 1.5
    assert (error[:3] < 0.15).all()  # rad/s: finite differences of the cameras' orientations
    assert (error[3:] < 6.0).all()  # uT, of a field of 45
