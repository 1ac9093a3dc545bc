"""Logs without controls: controllers in their place, both engines alike, gains and physics recovered together."""

import dataclasses
import json

import mujoco
import numpy as np
import pytest

from dso_robotics.data.log import Log, write_log
from dso_robotics.data.match import match_channels
from dso_robotics.data.rollout import Rollout
from dso_robotics.data.windows import cut
from dso_robotics.errors import DsoError
from dso_robotics.parameters.gains import NO_GAINS
from dso_robotics.parameters.path import parse
from dso_robotics.parameters.vector import pack
from dso_robotics.physics.model import load
from dso_robotics.robot import start
from dso_robotics.robot.controller import Controller, controlled
from dso_robotics.robot.prediction import CPrediction
from dso_robotics.robot.prediction_mjx import MjxPrediction
from dso_robotics.studies.identify import identify
from dso_robotics.studies.study import IdentifyStudy
from dso_robotics.studies.torque_fit import regress

ARM = """
<mujoco model="arm">
  <option timestep="0.005" integrator="implicitfast"/>
  <worldbody>
    <body name="upper">
      <joint name="shoulder" axis="0 1 0" damping="{damping}"/>
      <inertial pos="0 0 -0.15" mass="{mass}" diaginertia="0.004 0.004 0.0005"/>
      <body name="lower" pos="0 0 -0.3">
        <joint name="elbow" axis="0 1 0" damping="0.03"/>
        <inertial pos="0 0 -0.1" mass="0.4" diaginertia="0.002 0.002 0.0004"/>
      </body>
    </body>
  </worldbody>
  <actuator>
    <motor name="m1" joint="shoulder" ctrllimited="true" ctrlrange="-2.5 2.5" {late}/>
    <motor name="m2" joint="elbow"/>
  </actuator>
  <sensor>
    <jointpos name="q1" joint="shoulder"/><jointpos name="q2" joint="elbow"/>
    <jointvel name="v1" joint="shoulder"/><jointvel name="v2" joint="elbow"/>
  </sensor>
</mujoco>
"""
TRUTH = {"damping": 0.08, "mass": 0.8}
GAINS = {"q1": -9.0, "v1": -0.6, "q2": 0.5, "bias": 0.4}
NAMES = ("q1", "q2", "v1", "v2")
NOISE = np.array([1e-3, 1e-3, 1e-2, 1e-2])


def simulated(seed=0, *, steps=800, every=1, late="", hold=False):
    """The arm under u1 = -9 (q1 - r) - 0.6 (v1 - w) + 0.5 q2 + 0.4 and a recorded u2; (rollout without u1, all u1).

    The controller acts on what the sensors show, noise included, at every time step or, with `hold`, at the samples.
    """
    model = mujoco.MjModel.from_xml_string(ARM.format(late=late, **TRUTH))
    data, rng = mujoco.MjData(model), np.random.default_rng(seed)
    time = model.opt.timestep * np.arange(steps)
    phase = 2 * np.pi * np.outer(time, [0.7, 1.9]) + rng.uniform(0, 6, 2)
    target, speed = np.sin(phase).sum(1) * 0.7, (np.cos(phase) * 2 * np.pi * [0.7, 1.9]).sum(1) * 0.7
    target, speed = (np.repeat(v[::every], every)[:steps] for v in (target, speed))
    u2 = np.repeat(0.5 * rng.normal(size=(steps // 40 + 1)), 40)[:steps]
    data.qpos[:] = rng.normal(size=2)
    rows, controls = [], []
    for k in range(steps):
        read = np.r_[data.qpos, data.qvel] + NOISE * rng.normal(size=4)
        if not hold or k % every == 0:
            u1 = -9.0 * (read[0] - target[k]) - 0.6 * (read[2] - speed[k]) + 0.5 * read[1] + 0.4
        data.ctrl[:] = u1, u2[k]
        rows.append(read)
        controls.append(u1)
        mujoco.mj_step(model, data)
    kept = slice(None, None, every)
    rollout = Rollout(
        name=f"run{seed}", time=time[kept], ctrl=np.c_[u2, target, speed][kept], ctrl_names=("m2", "r", "w"),
        sensordata=np.array(rows)[kept], sensor_names=NAMES,
    )  # fmt: skip
    return rollout, np.array(controls)


def declared(**changes):
    known = {k: v for k, v in GAINS.items() if k != "bias"}
    settings = {"gains": known, "reference": {"q1": "r", "v1": "w"}, "bias": GAINS["bias"]}
    return Controller("m1", **(settings | changes))


def prepared(tmp_path, rollouts, controller, free, *, seconds=0.2, damping=0.08):
    """Vector and windows of the arm; (vector, windows, drives)."""
    (tmp_path / "arm.xml").write_text(ARM.format(damping=damping, mass=0.8, late=""))
    robot = load(tmp_path / "arm.xml")
    log, drives = controlled(Log("", "", "", tuple(rollouts)), [controller], robot.mj)
    assert drives is not None
    vector = pack(map(parse, free), robot, log.names, drives.gains)
    windows = cut(
        log.rollouts,
        match_channels(log, robot.mj),
        timestep=robot.mj.opt.timestep,
        seconds=seconds,
        past=vector.longest("actuator_delay"),
    )
    return vector, drives.attach(windows), drives


def test_the_controls_are_those_that_acted_clamped_and_late(tmp_path):
    """With the true gains every window follows the recording, whose controls ran into their range, to the sensors' noise."""
    rollout, controls = simulated()
    assert (np.abs(controls) > 2.5).mean() > 0.1
    vector, windows, _ = prepared(tmp_path, [rollout], declared(), ["controller/m1/*"])
    made = windows.drive.values @ (vector.gains.values[:, None] * windows.drive.share)
    for w in range(len(windows)):
        mine = windows.sample[w][windows.sample[w] >= 0]
        np.testing.assert_allclose(made[w, : len(mine), 0], controls[mine], atol=1e-12)
    x = start.guess(windows, vector.mj)
    prediction = CPrediction(vector, windows)
    right, wrong = (
        np.sqrt(np.mean((prediction.predict(z, x) - windows.measured)[:, :20, 2] ** 2))
        for z in (vector.initial, 0.8 * vector.initial)
    )
    assert right < 4 * NOISE[2] < 0.5 * wrong

    late = 'delay="0.0125" nsample="4" interp="linear"'
    rollout, _ = simulated(late=late)
    vector, windows, _ = prepared(tmp_path, [rollout], declared(), ["actuator/m1/delay=0.0125@0:0.03"])
    x = start.guess(windows, vector.mj)
    prediction = CPrediction(vector, windows)
    errors = [np.sqrt(np.mean((prediction.predict(np.array([d]), x) - windows.measured)[1:, :, 2] ** 2))
              for d in (0.0, 0.0125, 0.025)]  # fmt: skip
    assert errors[1] < 0.5 * min(errors[0], errors[2])


@pytest.mark.parametrize("hold", [False, True], ids=["every step", "held"])
def test_a_log_slower_than_the_model(tmp_path, hold):
    """Held where the controller held, interpolated where it acted at every step: each is wrong for the other."""
    rollout, _ = simulated(every=4, hold=hold)
    errors = {}
    for assumed in (False, True):
        vector, windows, _ = prepared(
            tmp_path, [rollout], declared(hold=assumed), ["joint/shoulder/damping"], seconds=0.5
        )
        y = CPrediction(vector, windows).predict(vector.initial, start.guess(windows, vector.mj))
        errors[assumed] = np.sqrt(np.nanmean((y - windows.measured)[..., 2] ** 2))
    assert errors[hold] < errors[not hold]


def test_engines_agree_and_derivatives_are_central_differences(tmp_path):
    rollout, _ = simulated(steps=120)
    free = ("controller/m1/*", "joint/*/damping", "actuator/m1/delay=0.007@0:0.02", "sensor/q1/bias")
    vector, windows, _ = prepared(tmp_path, [rollout], declared(), free)
    assert vector.coordinate_names[:4] == (
        "controller/m1/q1", "controller/m1/v1", "controller/m1/q2", "controller/m1/bias",
    )  # fmt: skip
    z = vector.initial * 0.9
    x = start.guess(windows, vector.mj)
    c, mjx = CPrediction(vector, windows), MjxPrediction(vector, windows)
    np.testing.assert_allclose(mjx.predict(z, x), c.predict(z, x), rtol=1e-9, atol=1e-10)
    _, by_z, by_x = c.linearize(z, x)
    _, by_z_mjx, by_x_mjx = mjx.linearize(z, x)
    np.testing.assert_allclose(by_x, by_x_mjx, rtol=1e-4, atol=1e-5 * np.abs(by_x).max())
    for j, h in enumerate(1e-5 * np.diag(vector.scale)):
        central = (c.predict(z + h, x) - c.predict(z - h, x)) / (2 * h.sum())
        bound = 1e-5 * max(np.abs(central).max(), 1e-6)
        assert np.abs(central).max() > 1e-3
        np.testing.assert_allclose(by_z_mjx[..., j], central, rtol=1e-4, atol=bound)
        np.testing.assert_allclose(by_z[..., j], central, rtol=1e-3, atol=10 * bound)


STUDY = """
model = "arm.xml"
logs = ["arm.h5"]
free = ["controller/m1/*", "joint/shoulder/damping=0.16@0:2", "body/upper/mass=1.0@0.1:3"]
hold_out = "run3"
{more}
[controller.m1]
gains = {{ q1 = -4.0, v1 = -0.2, q2 = 0.0 }}
reference = {{ q1 = "r", v1 = "w" }}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    where = tmp_path_factory.mktemp("controlled")
    (where / "arm.xml").write_text(ARM.format(damping=0.16, mass=1.0, late=""))
    write_log(where / "arm.h5", Log("", "simulated", "CC0", tuple(simulated(seed)[0] for seed in range(4))))
    (where / "study.toml").write_text(STUDY.format(more=""))
    return where


def study(folder, **changes):
    return IdentifyStudy.read(folder / "study.toml", **changes)


def test_gains_and_physics_are_recovered_together(folder, tmp_path):
    found = identify(study(folder), tmp_path / "out")
    summary, truth = found.summary, {f"controller/m1/{k}": v for k, v in GAINS.items()}
    truth |= {"joint/shoulder/damping": TRUTH["damping"], "body/upper/mass": TRUTH["mass"]}
    assert summary["converged"]
    for path, value in truth.items():
        entry = summary["parameters"][path]
        half = (entry["high95"] - entry["low95"]) / 2
        assert abs(entry["value"] - value) < 2 * half, path
        assert half < 0.1 * abs(value), path
    for name, sigma in zip(NAMES, NOISE, strict=True):
        assert summary["noise"][name]["value"] == pytest.approx(sigma, rel=0.15)
    assert summary["parameters"]["controller/m1/v1"]["unit"] == "N*m/(rad/s)"
    assert summary["controller"]["m1"]["q1"] == summary["parameters"]["controller/m1/q1"]["value"]
    # Held-out runs are predicted with the controller too.
    assert summary["fit"]["hold_out"]["q1"]["rmse"] < 3 * NOISE[0]
    assert "controller" in json.loads((tmp_path / "out" / "summary.json").read_text())


def test_damping_of_a_joint_and_of_its_controller_are_told_to_be_one(folder, tmp_path):
    """Without a reference for the speed nothing but their sum acts: the direction is named, not believed."""
    own = {"m1": {"gains": {"q1": -9.0, "v1": -0.6, "q2": 0.5}, "reference": {"q1": "r"}, "bias": 0.4}}
    free = tuple(map(parse, ("controller/m1/v1", "joint/shoulder/damping@0:2")))
    log = Log("", "", "", tuple(replaced_speed(seed) for seed in range(2)))
    write_log(tmp_path / "log.h5", log)
    asked = study(folder, controller=own, free=free, logs=[str(tmp_path / "log.h5")], hold_out=None)
    summary = identify(asked, tmp_path / "out").summary
    assert any("controller/m1/v1" in text and "correlated" in text for text in summary["warnings"])


def replaced_speed(seed):
    """A recording whose speed was measured without noise, which otherwise tells the two apart."""
    model = mujoco.MjModel.from_xml_string(ARM.format(late="", **TRUTH))
    data, rng, rows = mujoco.MjData(model), np.random.default_rng(seed), []
    data.qpos[:] = rng.normal(size=2)
    time = model.opt.timestep * np.arange(400)
    target = np.sin(2 * np.pi * 0.7 * time + seed)
    for r in target:
        read = np.r_[data.qpos, data.qvel]
        data.ctrl[:] = -9.0 * (read[0] - r) - 0.6 * read[2] + 0.5 * read[1] + 0.4, 0.0
        rows.append(read)
        mujoco.mj_step(model, data)
    measured = np.array(rows) + 1e-5 * rng.normal(size=(400, 4))
    return Rollout(
        name=f"run{seed}", time=time, ctrl=np.c_[0 * target, target], ctrl_names=("m2", "r"),
        sensordata=measured, sensor_names=NAMES,
    )  # fmt: skip


def test_a_regression_starts_gains_too(folder, tmp_path):
    free = ("controller/m1/*", "joint/shoulder/damping@0:2", "body/upper/mass=1.5@0.1:3")
    nothing = declared(gains=dict.fromkeys(("q1", "v1", "q2"), 0.0), bias=0.0)
    vector, windows, drives = prepared(tmp_path, [simulated(seed)[0] for seed in range(3)], nothing, free)
    z = regress(vector, windows, drives)
    np.testing.assert_allclose(z, [*GAINS.values(), TRUTH["damping"], TRUTH["mass"]], rtol=0.2, atol=0.05)
    (out := tmp_path / "out").mkdir()
    zeros = dataclasses.replace(study(folder).controller["m1"], gains=dict.fromkeys(("q1", "v1", "q2"), 0.0))
    summary = identify(study(folder, warm_start=True, controller={"m1": zeros}), out).summary
    assert summary["parameters"]["controller/m1/q1"]["value"] == pytest.approx(-9.0, rel=0.02)


def test_a_recording_may_have_gains_of_its_own(tmp_path):
    rollouts = [simulated(seed, steps=60)[0] for seed in range(2)]
    free = ("log/*/controller/m1/bias", "controller/m1/q1")
    vector, windows, _ = prepared(tmp_path, rollouts, declared(), free)
    assert vector.coordinate_names[:2] == ("log/run0/controller/m1/bias", "log/run1/controller/m1/bias")
    x = start.guess(windows, vector.mj)
    prediction = CPrediction(vector, windows)
    y = prediction.predict(vector.initial, x)
    moved = prediction.predict(vector.initial + np.array([0.1, 0.0, 0.0]), x)
    changed = np.abs(moved - y).max((1, 2)) > 0
    np.testing.assert_array_equal(changed, windows.rollout == 0)


def test_signals_from_states_and_where_samples_are_missing(tmp_path):
    """qpos/JOINT is the position sensor, qvel/JOINT its slope where no speed was measured; NaN is bridged."""
    text = ARM.format(damping=0.08, mass=0.8, late="")
    (tmp_path / "arm.xml").write_text(text.split("<jointvel")[0] + "</sensor></mujoco>")
    robot = load(tmp_path / "arm.xml")
    rollout, _ = simulated()
    measured = rollout.sensordata[:, :2].copy()
    measured[1::2, 0] = np.nan
    bare = dataclasses.replace(
        rollout, sensordata=measured, sensor_names=("q1", "q2"), sensor_units=(), ctrl=rollout.ctrl[:, :1],
        ctrl_names=("m2",), ctrl_units=(),
    )  # fmt: skip
    given = Controller("m1", {"qpos/shoulder": -1.0, "qvel/shoulder": -1.0, "q1": 1.0}, {"q1": 0.25})
    log, drives = controlled(Log("", "", "", (bare,)), [given], robot.mj)
    values = drives.at("run0", rollout.time)
    np.testing.assert_allclose(values[::2, 0], measured[::2, 0])
    np.testing.assert_allclose(values[1:-1:2, 0], (measured[:-2:2, 0] + measured[2::2, 0]) / 2)
    np.testing.assert_allclose(values[:, 2], values[:, 0] - 0.25)
    assert np.sqrt(np.mean((values[:, 1] - rollout.sensordata[:, 2]) ** 2)) < 0.3
    np.testing.assert_array_equal(values[:, 3], 1.0)
    assert log.rollouts[0].ctrl_names == ("m1", "m2")
    assert drives.gains.units == ("N*m/rad", "N*m/(rad/s)", "N*m/rad", "N*m")


def test_a_control_that_is_nan_throughout_was_not_recorded():
    ctrl = np.c_[np.full(5, np.nan), np.arange(5.0)]
    rollout = Rollout(name="a", time=np.arange(5.0), ctrl=ctrl, ctrl_names=("m1", "m2"), ctrl_units=("N*m", "N*m"))
    assert rollout.ctrl_names == ("m2",)
    np.testing.assert_array_equal(rollout.ctrl, ctrl[:, 1:])
    none = Rollout(name="a", time=np.arange(5.0), ctrl=ctrl[:, :1], ctrl_names=("m1",))
    assert none.ctrl is None
    assert none.ctrl_names == ()


def test_what_cannot_be_is_refused_with_its_cure(folder, tmp_path):
    keys = study(folder)
    with pytest.raises(DsoError, match=r"no recorded control of m1.*\[controller.m1\] with gains"):
        identify(dataclasses.replace(keys, controller={}, free=keys.free[1:]), tmp_path / "out")
    bare = Log("", "", "", (dataclasses.replace(simulated()[0], ctrl_names=("m2", "r", "m_1")),))
    write_log(tmp_path / "misspelt.h5", bare)
    with pytest.raises(DsoError, match="the log's r, m_1 are not in the model"):
        identify(dataclasses.replace(keys, controller={}, free=keys.free[1:], logs=(str(tmp_path / "misspelt.h5"),)),
                 tmp_path / "out")  # fmt: skip
    with pytest.raises(DsoError, match=r"controller/m1/\*: no controller is declared"):
        pack([parse("controller/m1/*")], load(folder / "arm.xml"), (), NO_GAINS)
    wrong = {
        "no actuator of this name. Did you mean 'm1'": {"m11": {"gains": {"q1": 1.0}}},
        "reads 'q3', which the log does not hold": {"m1": {"gains": {"q3": 1.0}}},
        "no hinge or slide is called 'wrist'": {"m1": {"gains": {"qpos/wrist": 1.0}}},
        "unknown key 'gain'": {"m1": {"gain": {"q1": 1.0}}},
        "'gains' is missing; write gains = {": {"m1": {}},
        r"controller.m1 = 3: expected a table; write \[controller.m1\]": {"m1": 3},
        "reference names 'q2', which has no gain": {"m1": {"gains": {"q1": 1.0}, "reference": {"q2": "r"}}},
        "bias = 'x': expected a number": {"m1": {"gains": {"q1": 1.0}, "bias": "x"}},
        "the constant is a key of its own": {"m1": {"gains": {"bias": 1.0}}},
        "hold = 1: expected true or false": {"m1": {"gains": {"q1": 1.0}, "hold": 1}},
    }
    for message, controller in wrong.items():
        with pytest.raises(DsoError, match=message):
            identify(dataclasses.replace(keys, controller=controller, free=keys.free[1:]), tmp_path / "out")
    with pytest.raises(DsoError, match="no controller has this number; they have"):
        identify(dataclasses.replace(keys, free=(parse("controller/m1/q9"),)), tmp_path / "out")
    assert not (tmp_path / "out" / "run.h5").exists()
