"""Identification with logs that do not fit the model completely, and with quaternions whose sign flips."""

import dataclasses
import math

import mujoco
import numpy as np
import pytest

from dso_robotics.data.log import Log, Rollout, write_log
from dso_robotics.data.match import match_channels
from dso_robotics.data.windows import cut
from dso_robotics.parameters.vector import pack
from dso_robotics.physics.model import load
from dso_robotics.robot.prediction import CPrediction
from dso_robotics.studies.identify import identify
from dso_robotics.studies.study import IdentifyStudy
from tests.pendulum import PENDULUM, TRUTH, record

BALL = """<mujoco model="ball"><option timestep="0.01" integrator="implicitfast"/><worldbody><body name="b">
<joint name="j" type="ball" damping="{damping}"/><inertial pos="0 0 -.2" mass="1" diaginertia=".02 .03 .01"/><site name="s"/>
</body></worldbody><sensor><framequat name="att" objtype="site" objname="s"/><gyro name="gyro" site="s"/></sensor></mujoco>"""


def without(rollout, *channels):
    keep = [i for i, name in enumerate(rollout.sensor_names) if name not in channels]
    return dataclasses.replace(
        rollout,
        sensordata=rollout.sensordata[:, keep],
        sensor_names=tuple(rollout.sensor_names[i] for i in keep),
        sensor_units=tuple(rollout.sensor_units[i] for i in keep),
    )


def run(folder, log, xml, **keys):
    folder.mkdir(exist_ok=True)
    (folder / "robot.xml").write_text(xml)
    write_log(folder / "log.h5", log)
    keys = {"model": str(folder / "robot.xml"), "logs": [str(folder / "log.h5")], **keys}
    return identify(IdentifyStudy.from_dict(keys), folder / "out")


@pytest.mark.parametrize("case", ["missing", "missing in one", "not held out", "not trained", "extra"])
def test_channels_that_only_one_side_has(tmp_path, case):
    log = record(0, runs=3, seconds=2.0)
    cut_from = {"missing": (0, 1, 2), "missing in one": (1,), "not held out": (2,), "not trained": (0, 1), "extra": ()}[
        case
    ]
    rollouts = [without(r, "speed") if i in cut_from else r for i, r in enumerate(log.rollouts)]
    if case == "extra":
        rollouts = [
            dataclasses.replace(
                r,
                sensordata=np.c_[r.sensordata, r.time],
                sensor_names=(*r.sensor_names, "temperature"),
                sensor_units=(*r.sensor_units, "K"),
            )
            for r in rollouts
        ]
    log = Log("", "", "", tuple(rollouts))
    found = run(tmp_path, log, PENDULUM.format(**TRUTH), free=["joint/hinge/damping=0.03@0:1"], hold_out="run2")
    entry = found.summary["parameters"]["joint/hinge/damping"]
    assert abs(entry["value"] - TRUTH["damping"]) < 0.01
    text = " ".join(found.summary["warnings"])
    word = {
        "missing": "speed is not in the log",
        "not trained": "'speed' was never measured",
        "extra": "'temperature' is no",
    }
    assert word.get(case, "") in text
    assert ("speed" in found.summary["noise"]) == (case not in ("missing", "not trained"))
    assert ("speed" in found.summary["fit"]["hold_out"]) == (case in ("missing in one", "extra"))


def ball_log(flip, seed=0):
    """A tumbling ball joint, recorded with noise; every 7 samples the sign of the quaternion flips if `flip`."""
    model = mujoco.MjModel.from_xml_string(BALL.format(damping=0.05))
    rng, rollouts = np.random.default_rng(seed), []
    for run_ in range(2):
        data, rows, states = mujoco.MjData(model), [], []
        data.qvel[:] = 6 * rng.normal(size=3)
        for _ in range(300):
            mujoco.mj_forward(model, data)
            rows.append(data.sensordata.copy())
            states.append(np.r_[data.qpos, data.qvel])
            mujoco.mj_step(model, data)
        values = np.array(rows) + rng.normal(size=(300, 7)) * 1e-3
        if flip:
            values[:, :4] *= np.where((np.arange(300) + 3 * run_) // 7 % 2, 1.0, -1.0)[:, None]
        rollouts.append(
            Rollout(
                name=f"run{run_}",
                time=np.arange(300) * 0.01,
                sensordata=values,
                sensor_names=(*(f"att[{i}]" for i in range(4)), *(f"gyro[{i}]" for i in range(3))),
                qpos=np.array(states)[:, :4],
                qvel=np.array(states)[:, 4:],
            )
        )
    return Log("", "", "", tuple(rollouts))


def test_the_sign_of_a_quaternion_means_nothing(tmp_path):
    model, found = BALL.format(damping=0.03), {}
    for flip in (False, True):
        found[flip] = run(tmp_path / str(flip), ball_log(flip), model, free=["joint/j/damping=0.03@0:1"], window=0.3)
    plain, flipped = (found[flip].summary for flip in (False, True))
    value = flipped["parameters"]["joint/j/damping"]["value"]
    assert abs(value - 0.05) < 5e-4
    assert math.isclose(value, plain["parameters"]["joint/j/damping"]["value"], rel_tol=1e-6)
    assert all(flipped["noise"][f"att[{i}]"]["value"] < 2e-3 for i in range(4))
    assert all(flipped["fit"]["train"][f"att[{i}]"]["rmse"] < 3e-3 for i in range(4))
    assert any("sign of a quaternion flips" in text for text in flipped["warnings"])


@pytest.mark.mjx
def test_both_engines_face_the_measured_quaternion():
    from dso_robotics.robot.prediction_mjx import MjxPrediction

    log = ball_log(flip=True)
    robot = load(mujoco.MjModel.from_xml_string(BALL.format(damping=0.05)))
    channels = match_channels(log, robot.mj)
    windows = cut(log.rollouts, channels, timestep=0.01, seconds=0.1)
    vector = pack(IdentifyStudy.from_dict({"model": "m", "logs": ["l"], "free": ["joint/j/damping=0.05"]}).free, robot)
    states = np.stack(
        [
            np.r_[log.rollouts[i].qpos[s], log.rollouts[i].qvel[s]]
            for i, s in zip(windows.rollout, windows.sample[:, 0], strict=True)
        ]
    )
    for prediction in (CPrediction(vector, windows), MjxPrediction(vector, windows)):
        y = prediction.predict(vector.initial, states)
        assert np.nanmax(np.abs(y - windows.measured)) < 0.05


@pytest.mark.mjx
def test_an_estimator_does_not_see_the_sign_either():
    """States and errors of a filter are those of a log without flips, on both engines."""
    import jax

    from dso_robotics.robot import estimator_start, filter_data
    from dso_robotics.robot.filter import CFilter
    from dso_robotics.robot.filter_jax import JaxFilter
    from dso_robotics.robot.filter_mjx import MjxSystem, jax_windows

    robot = load(mujoco.MjModel.from_xml_string(BALL.format(damping=0.05)))
    logs = {flip: ball_log(flip) for flip in (False, True)}
    channels = filter_data.select_channels(logs[True], robot.mj, None)
    cut_by = {"interval": 0.01, "substeps": 1, "seconds": 0.3}
    given = {flip: filter_data.cut_windows(log.rollouts, channels, robot.mj, **cut_by) for flip, log in logs.items()}
    free = IdentifyStudy.from_dict({"model": "m", "logs": ["l"], "free": ["joint/j/damping=0.05"]}).free
    vector, scales = estimator_start.begin("gain", 3, given[False], pack(free, robot))
    rng = np.random.default_rng(0)
    z = vector.initial.copy()
    z[: len(vector.weights)] += 0.1 * rng.normal(size=len(vector.weights))
    runs = {flip: CFilter(vector, scales, g, threads=1).run(z, g.start) for flip, g in given.items()}
    np.testing.assert_allclose(runs[True].states, runs[False].states, atol=1e-9)
    errors = {flip: runs[flip].predicted - given[flip].measured[:, 1:] for flip in runs}
    np.testing.assert_allclose(np.abs(errors[True]), np.abs(errors[False]), atol=1e-9)
    assert np.abs(errors[True]).max() < 0.2

    system = MjxSystem(vector.physics, channels.sensor_addresses, 0.01, 1)
    made = JaxFilter(system, vector.corrector, scales, parameters=vector.size - len(vector.weights))
    theta = np.concatenate([z, np.zeros(7)])
    run_mjx = jax.jit(jax.vmap(made.run, in_axes=(None, 0)))(theta, jax_windows(given[True], warm_up=0))
    np.testing.assert_allclose(run_mjx.predicted, runs[True].predicted, atol=1e-6)
