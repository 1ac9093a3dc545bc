"""`dso estimate` with a Kalman filter: stable and honest on every log, at any times, with late sensors and drifting biases."""

import dataclasses
import re

import mujoco
import numpy as np
import pytest

from dso_robotics.cli import main
from dso_robotics.data.log import Log, write_log
from dso_robotics.data.rollout import Rollout
from dso_robotics.errors import DsoError
from dso_robotics.robot.estimator import Estimator
from dso_robotics.robot.filter_times import taken
from dso_robotics.robot.kalman_estimator import KalmanEstimator
from dso_robotics.studies.estimate import estimate
from dso_robotics.studies.estimate_study import EstimateStudy

MODEL = """
<mujoco>
  <option timestep="{timestep}" integrator="implicitfast"/>
  <worldbody>
    <body name="pole">
      <joint name="hinge" axis="0 1 0" damping="0.08"/>
      <inertial pos="0 0 -0.3" mass="{mass}" diaginertia="0.01 0.01 0.001"/>
    </body>
  </worldbody>
  <actuator><motor name="motor" joint="hinge"/></actuator>
  <sensor>
    <jointpos name="angle" joint="hinge"/>
    <jointpos name="camera" joint="hinge" {delay}/>
    <jointvel name="rate" joint="hinge"/>
  </sensor>
</mujoco>
"""
FINE = 0.001
NOISE = {"angle": 0.005, "camera": 0.002, "rate": 0.05}


def motion(seed: int, seconds: float) -> tuple[np.ndarray, np.ndarray]:
    """States (T, 2) and torques (T,) at every millisecond, with white noise on the torque."""
    rng = np.random.default_rng(seed)
    model = mujoco.MjModel.from_xml_string(MODEL.format(timestep=FINE, mass=0.7, delay=""))
    data, count, states = mujoco.MjData(model), round(seconds / FINE) + 1, []
    data.qpos[0] = rng.normal()
    torque = np.repeat(rng.normal(size=count // 200 + 1), 200)[:count]
    for t in range(count):
        states.append([data.qpos[0], data.qvel[0]])
        data.ctrl[0] = torque[t]
        data.qvel[0] += 0.1 * np.sqrt(FINE) * rng.normal()
        mujoco.mj_step(model, data)
    return np.array(states), torque


def rollout(
    name: str, seed: int, *, seconds: float = 3.0, jitter: bool = False, lag: float = 0.0, state=True
) -> Rollout:
    """An encoder at 100 Hz and a camera at 30 Hz that shows what was `lag` [s] ago; with jitter each has its own clock."""
    rng, (states, torque) = np.random.default_rng(100 + seed), motion(seed, seconds)
    last = len(states) - 1
    if jitter:
        first = np.cumsum(np.concatenate([[0], rng.integers(7, 14, size=last)]))
        second = np.cumsum(np.concatenate([[17], rng.integers(30, 37, size=last)]))
    else:
        first, second = np.arange(0, last + 1, 10), np.arange(0, last + 1, 30)
    first, second = first[first <= last], second[second <= last]
    # The torque changes at samples, which need not hold readings.
    every = np.unique(np.concatenate([first, second, np.arange(0, last, 200)]))
    data = np.full((len(every), 3), np.nan)
    data[np.searchsorted(every, first), 0] = states[first, 0] + NOISE["angle"] * rng.normal(size=len(first))
    before = np.maximum(second - round(lag / FINE), 0)
    data[np.searchsorted(every, second), 1] = states[before, 0] + NOISE["camera"] * rng.normal(size=len(second))
    data[np.searchsorted(every, first), 2] = states[first, 1] + NOISE["rate"] * rng.normal(size=len(first))
    known = {"qpos": states[every, :1], "qvel": states[every, 1:]} if state else {}
    return Rollout(
        name=name, time=FINE * every, ctrl=torque[every][:, None], ctrl_names=("motor",), ctrl_units=("N*m",),
        sensordata=data, sensor_names=("angle", "camera", "rate"), sensor_units=("rad", "rad", "rad/s"), **known,
    )  # fmt: skip


def log(runs: int = 3, **keys) -> Log:
    return Log("", "test", "CC0", tuple(rollout(f"run{i}", i, **keys) for i in range(runs)))


def run(folder, given: Log, *, mass: float = 0.7, timestep: float = 0.005, delay: str = "", **keys):
    write_log(folder / "log.h5", given)
    (folder / "model.xml").write_text(MODEL.format(mass=mass, delay=delay, timestep=timestep))
    files = {"model": str(folder / "model.xml"), "logs": (str(folder / "log.h5"),)}
    keys = {"hold_out": given.rollouts[-1].name} | keys
    return estimate(EstimateStudy(**files, **keys), folder / "out", force=True)


@pytest.mark.parametrize(("runs", "window", "mass"), [(2, 0.2, 0.7), (2, 1.0, 0.35)])
def test_it_is_the_default_stable_and_honest(tmp_path, runs, window, mass):
    summary = run(tmp_path, log(runs, seconds=2.0), mass=mass, window=window, sensors=("angle",))
    assert summary["corrector"] == {"kind": "kalman", "reason": "the default", "numbers": 3}
    assert summary["converged"], summary["warnings"]
    for part in ("train", "hold_out"):
        assert summary["stability"][part]["rate"] < -1
        assert 0.6 < summary["consistency"][part]["nis"] < 1.6
        assert 0.2 < summary["consistency"][part]["nees"] < 3
    assert summary["noise"]["angle"]["value"] == pytest.approx(0.005, rel=0.25)
    assert isinstance(Estimator.load(tmp_path / "out"), KalmanEstimator)


def test_the_recorded_state_is_not_learned_from(tmp_path):
    (tmp_path / "bare").mkdir()
    one = run(tmp_path, log(2, seconds=1.5), sensors=("angle",), window=0.5)
    other = run(tmp_path / "bare", log(2, seconds=1.5, state=False), sensors=("angle",), window=0.5)
    assert one["noise"] == other["noise"]
    assert one["process"] == other["process"]
    assert other["consistency"]["hold_out"]["nees"] is None


@pytest.mark.parametrize("lag", [0.0, 0.05])
def test_jittery_clocks_and_a_late_camera(tmp_path, lag):
    given = log(jitter=True, lag=lag)
    delay = f'delay="{lag}" nsample="60"' if lag else ""
    summary = run(tmp_path, given, timestep=FINE, delay=delay, sensors=("angle", "camera"))
    assert summary["converged"], summary["warnings"]
    for name in ("angle", "camera"):
        assert summary["noise"][name]["value"] == pytest.approx(NOISE[name], rel=0.2)
    assert summary["process"]["joint/hinge/velocity"]["value"] == pytest.approx(0.1, rel=0.4)
    assert 0.5 < summary["consistency"]["hold_out"]["nees"] < 2
    made, held = Estimator.load(tmp_path / "out"), given.rollouts[-1]
    made.reset(measurement=[held.sensordata[0, 0], np.nan])
    off, squares = [], []
    for k in range(1, len(held.time)):
        found = made.update(held.ctrl[k - 1], held.sensordata[k, :2], dt=held.time[k] - held.time[k - 1])
        off.append(np.concatenate([found.qpos - held.qpos[k], found.qvel - held.qvel[k]]))
        squares.append(off[-1] @ np.linalg.solve(found.covariance, off[-1]) / 2)
    assert np.sqrt(np.mean(np.array(off)[100:, 0] ** 2)) < 0.004
    assert np.mean(squares[100:]) < 2.5


def test_readings_go_to_where_they_were_taken():
    given = rollout("one", 0, jitter=True, lag=0.05)
    moved = taken(given, ("angle", "camera"), np.array([0.0, 0.05]))
    camera = np.isfinite(given.sensordata[:, 1])
    expected = given.time[camera] - 0.05
    found = np.isfinite(moved.sensordata[:, 1])
    np.testing.assert_allclose(moved.time[found], expected[expected >= 0], atol=1e-9)
    np.testing.assert_array_equal(moved.sensordata[found, 1], given.sensordata[camera, 1][expected >= 0])
    np.testing.assert_array_equal(
        moved.sensordata[np.isfinite(moved.sensordata[:, 0]), 0],
        given.sensordata[np.isfinite(given.sensordata[:, 0]), 0],
    )
    assert taken(given, ("angle",), np.zeros(1)) is given


def test_a_drifting_bias_is_a_state(tmp_path):
    given = log(3, seconds=4.0)
    spoiled = []
    for i, r in enumerate(given.rollouts):
        walk = 0.3 + np.cumsum(np.random.default_rng(i).normal(size=len(r.time))) * 0.1 * np.sqrt(0.01)
        data = r.sensordata.copy()
        data[:, 2] += walk
        spoiled.append(dataclasses.replace(r, sensordata=data))
    given = Log("", "test", "CC0", tuple(spoiled))
    summary = run(tmp_path, given, sensors=("angle", "rate"), drift=("rate",))
    assert summary["drift"]["rate"]["value"] == pytest.approx(0.1, rel=0.6)
    assert summary["drift"]["rate"]["unit"] == "rad/s/sqrt(s)"
    assert summary["consistency"]["hold_out"]["nees"] < 3
    made, held = Estimator.load(tmp_path / "out"), given.rollouts[-1]
    made.reset(measurement=held.sensordata[0, [0, 2]])
    for k in range(1, len(held.time)):
        found = made.update(held.ctrl[k - 1], held.sensordata[k, [0, 2]])
    assert found.bias[1] == pytest.approx(walk[-1], abs=0.15)


def test_physics_is_learned_beside_the_noise(tmp_path):
    summary = run(tmp_path, log(3), mass=1.0, sensors=("angle", "rate"), free=EstimateStudy.from_dict(
        {"model": "m", "logs": ["l"], "free": ["body/pole/mass"]}
    ).free)  # fmt: skip
    assert summary["parameters"]["body/pole/mass"]["value"] == pytest.approx(0.7, rel=0.03)


def test_a_run_unlike_the_fitted_ones_is_not_converged(tmp_path):
    given = log(3, seconds=2.0)
    last = given.rollouts[-1]
    # In the held-out run the angle is read with a slow error of 50 mrad, which innovations hardly show.
    data = last.sensordata.copy()
    data[:, 0] += 0.05 * np.sin(3 * last.time)
    given = Log("", "test", "CC0", (*given.rollouts[:-1], dataclasses.replace(last, sensordata=data)))
    summary = run(tmp_path, given, sensors=("angle",))
    assert summary["consistency"]["hold_out"]["nees"] > 3
    assert not summary["converged"]


def test_spikes_in_training_do_not_widen_the_noise(tmp_path):
    given = log(3, seconds=2.0)
    spoiled = []
    for i, r in enumerate(given.rollouts):
        rng, data = np.random.default_rng(i), r.sensordata.copy()
        wild = rng.random(len(data)) < 0.02
        data[wild, 0] += rng.choice([-1.0, 1.0], wild.sum()) * (0.2 + rng.exponential(1.0, wild.sum()))
        spoiled.append(dataclasses.replace(r, sensordata=data))
    summary = run(tmp_path, Log("", "test", "CC0", tuple(spoiled)), sensors=("angle",))
    assert summary["noise"]["angle"]["value"] == pytest.approx(0.005, rel=0.25)
    assert summary["consistency"]["hold_out"]["nees"] < 3


@pytest.mark.parametrize(
    ("keys", "text"),
    [
        ({"corrector": "kalman", "ahead": 3}, "'kalman' does not do ahead"),
        ({"drift": ("gyro",)}, "no sensor is called 'gyro'"),
        ({"corrector": "gain", "drift": ("rate",)}, "'gain' has no bias states"),
    ],
)
def test_what_it_does_not_do_is_refused(tmp_path, keys, text):
    with pytest.raises(DsoError, match=text):
        run(tmp_path, log(1, seconds=1.0), hold_out=None, **keys)


def test_where_a_gain_is_taken_instead_it_is_said(tmp_path):
    summary = run(tmp_path, log(2, seconds=1.0), supervised=1.0, iterations=1, window=0.3)
    assert summary["corrector"]["kind"] == "gain"
    assert summary["corrector"]["reason"] == "a Kalman filter does not do supervised"


def test_the_command_shows_it_and_draws_a_report(tmp_path, capsys):
    write_log(tmp_path / "log.h5", log(2, seconds=1.5))
    (tmp_path / "model.xml").write_text(MODEL.format(mass=0.7, delay="", timestep=0.005))
    (tmp_path / "s.toml").write_text('model = "model.xml"\nlogs = ["log.h5"]\nhold_out = "run1"\n')
    assert main(["estimate", str(tmp_path / "s.toml"), "--out", str(tmp_path / "out")]) == 0
    said = capsys.readouterr()
    assert "(NIS/n)" in said.out
    assert "noise of angle" in said.out
    assert "joint/hinge/velocity" in said.out
    page = (tmp_path / "out" / "report.html").read_text()
    assert "kalman" in page
    assert {"hinge, position", "hinge, velocity", "angle"} <= set(re.findall(r'data-title="([^"]*)"', page))
