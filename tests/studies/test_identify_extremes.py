"""The longest and the shortest window: free-running identification, and calibration without any simulation."""

import dataclasses
import json

import mujoco
import numpy as np
import pytest

from dso_robotics.cli import main
from dso_robotics.data.log import Log, read_log, write_log
from dso_robotics.data.rollout import Rollout
from dso_robotics.errors import DsoError
from dso_robotics.parameters.path import parse
from dso_robotics.studies.identify import identify
from dso_robotics.studies.study import IdentifyStudy
from tests.pendulum import TRUTH, record

IMU = """
<mujoco>
  <option timestep="0.005"/>
  <worldbody>
    <body name="pole">
      <joint name="hinge" axis="0 1 0" damping="0.1"/>
      <inertial pos="0 0 -0.3" mass="1" diaginertia="0.01 0.01 0.001"/>
      <site name="imu" pos="{x} 0 -0.4" euler="0 0 {turn}"/>
    </body>
  </worldbody>
  <sensor>
    <jointpos name="angle" joint="hinge"/>
    <gyro name="gyro" site="imu"/>
    <framepos name="tip" objtype="site" objname="imu"/>
  </sensor>
</mujoco>
"""
# The site's turn about its own z axis mixes the gyroscope's x and y.
X, TURN, BIAS, OFFSET = 0.05, 0.3, 0.02, 0.1
SIGMA = 0.01


@pytest.fixture(scope="module")
def imu(tmp_path_factory):
    """Folder with imu.xml (its site elsewhere) and imu.h5: recorded states, sensors with errors, samples 0.02 s apart."""
    folder = tmp_path_factory.mktemp("imu")
    model = mujoco.MjModel.from_xml_string(IMU.format(x=X, turn=np.rad2deg(TURN)))
    data, rng, rows = mujoco.MjData(model), np.random.default_rng(0), []
    data.qpos[:] = 1.0
    while len(rows) < 300:
        mujoco.mj_forward(model, data)
        rows.append(np.concatenate([data.qpos, data.qvel, data.sensordata]))
        mujoco.mj_step(model, data, 4)
    rows = np.array(rows)
    sensordata = rows[:, 2:] + SIGMA * rng.normal(size=(300, 7))
    sensordata[:, 0] += OFFSET
    sensordata[:, 1] += BIAS
    names = ("angle", "gyro[0]", "gyro[1]", "gyro[2]", "tip[0]", "tip[1]", "tip[2]")
    units = ("rad", *("rad/s",) * 3, *("m",) * 3)
    rollout = Rollout(
        name="swing",
        time=0.02 * np.arange(300),
        sensordata=sensordata,
        sensor_names=names,
        sensor_units=units,
        qpos=rows[:, :1],
        qvel=rows[:, 1:2],
    )
    (folder / "imu.xml").write_text(IMU.format(x=0.0, turn=0.0))
    write_log(folder / "imu.h5", Log("", "simulated for a test", "CC0", (rollout,)))
    return folder


def calibrate(folder, out, *free, log="imu.h5", **changes):
    study = IdentifyStudy(str(folder / "imu.xml"), (str(folder / log),), tuple(map(parse, free)), window=0, **changes)
    return identify(study, out).summary


def test_recorded_states_calibrate_sensors_without_simulation(imu, tmp_path):
    free = ("sensor/angle/bias", "sensor/gyro/bias[0]", "site/imu/pos[0]", "site/imu/rot[2]")
    summary = calibrate(imu, tmp_path / "out", *free)
    for path, truth in zip(free, (OFFSET, BIAS, X, TURN), strict=True):
        entry = summary["parameters"][path]
        half = (entry["high95"] - entry["low95"]) / 2
        assert abs(entry["value"] - truth) < 2 * half
        assert half < 0.01
    # The offset of one channel is the mean of 300 errors: an interval in closed form, which few pieces of half a second and
    # Student's distribution for them widen.
    entry = summary["parameters"]["sensor/angle/bias"]
    assert (entry["high95"] - entry["low95"]) / 2 == pytest.approx(1.96 * SIGMA / np.sqrt(300), rel=0.6)
    assert summary["uncertainty"]["windows"] == 12
    assert summary["fit"]["train"]["angle"]["pooled_rmse"] == pytest.approx(SIGMA, rel=0.1)
    assert summary["windows"]["score_seconds"] == 0


def test_what_single_samples_cannot_tell_is_refused(imu, tmp_path):
    with pytest.raises(DsoError, match=r"joint/hinge/damping.*nothing is simulated.*--window 0\.5"):
        calibrate(imu, tmp_path / "out", "joint/hinge/damping", "sensor/angle/bias")
    log = read_log(imu / "imu.h5")
    bare = [dataclasses.replace(r, qpos=None, qvel=None) for r in log.rollouts]
    write_log(tmp_path / "bare.h5", dataclasses.replace(log, rollouts=tuple(bare)))
    with pytest.raises(DsoError, match=r"sensor/angle/bias.*taken from angle"):
        calibrate(imu, tmp_path / "out", "sensor/angle/bias", log=tmp_path / "bare.h5")
    # Positions are enough of a state. Their offset turns the site, and that they agree with themselves is no news.
    summary = calibrate(imu, tmp_path / "out", "site/imu/pos[0]", log=tmp_path / "bare.h5")
    assert summary["parameters"]["site/imu/pos[0]"]["value"] == pytest.approx(
        X * np.cos(OFFSET) + 0.4 * np.sin(OFFSET), abs=0.003
    )
    assert any("taken from angle" in w for w in summary["warnings"])


def test_a_full_window_is_each_rollout_in_one_piece(pendulum, tmp_path, capsys):
    log = record(0, runs=6, seconds=1.5)
    short = log.rollouts[0]
    short = dataclasses.replace(short, time=short.time[:90], ctrl=short.ctrl[:90], sensordata=short.sensordata[:90])
    write_log(tmp_path / "log.h5", dataclasses.replace(log, rollouts=(short, *log.rollouts[1:])))
    (tmp_path / "study.toml").write_text(
        f'model = "{pendulum / "pendulum.xml"}"\nlogs = ["log.h5"]\nwindow = "full"\nhold_out = "run5"\n'
        'free = ["joint/hinge/damping", "body/pole/mass"]\n'
    )
    assert (
        main(["identify", "--study", str(tmp_path / "study.toml"), "--out", str(tmp_path / "out"), "--no-report"]) == 0
    )
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["windows"]["full"]
    assert summary["windows"]["train"] == 5
    assert summary["windows"]["seconds"] == pytest.approx(1.49)
    assert summary["fit"]["hold_out"]["angle"]["rmse"] < 0.05
    for name in ("damping", "mass"):
        entry = next(v for k, v in summary["parameters"].items() if k.endswith(name))
        assert abs(entry["value"] - TRUTH[name]) < 0.15 * TRUTH[name]
    assert "1.49 s" in capsys.readouterr().out
    # The flag is the same study.
    study = IdentifyStudy.read(tmp_path / "study.toml", window=float("inf"))
    assert study.as_dict()["window"] == "full"
    assert IdentifyStudy.read(tmp_path / "study.toml", window="full") == study
