"""The adjoint through C MuJoCo against central differences of whole predictions; friction no parameter has, learned."""

import dataclasses

import mujoco
import numpy as np
import pytest

from dso_robotics.data.log import write_log
from dso_robotics.data.match import match_channels
from dso_robotics.data.run_file import read_run
from dso_robotics.data.windows import cut
from dso_robotics.errors import DsoError
from dso_robotics.parameters.path import parse
from dso_robotics.physics.batch import BatchEngine
from dso_robotics.physics.model import load
from dso_robotics.physics.sensitivity import linearize_steps
from dso_robotics.robot import start
from dso_robotics.robot.joint_network import INPUTS, joint_network
from dso_robotics.robot.prediction_network import NetworkPrediction, with_motors
from dso_robotics.studies.identify import identify
from dso_robotics.studies.study import IdentifyStudy
from tests.pendulum import PENDULUM, TRUTH, record


def test_the_adjoint_is_the_derivative_of_the_prediction(models):
    robot, rng = load(models / "two_joint_arm.xml"), np.random.default_rng(0)
    log = record(0)
    time = 0.002 * np.arange(120)
    names = tuple(robot.names("sensor"))
    rollout = dataclasses.replace(
        log.rollouts[0], time=time, ctrl=rng.normal(size=(120, 2)), ctrl_names=("tau1", "tau2"), ctrl_units=("", ""),
        sensordata=rng.normal(size=(120, 4)), sensor_names=names, sensor_units=("",) * 4,
    )  # fmt: skip
    log = dataclasses.replace(log, rollouts=(rollout,))
    channels = match_channels(log, robot.mj)
    windows = cut(log.rollouts, channels, timestep=0.002, seconds=0.1, past=0.01, settle=0.01)
    signals = {
        "sensor_delay": np.array([0.0033, 0.0, 0.005, 0.0]),
        "sensor_scale": np.array([1.1, 1.0, 0.9, 1.0]),
        "actuator_delay": np.array([0.0051, 0.0]),
    }
    model = with_motors(robot.spec, ("shoulder", "elbow"))
    network = joint_network(model, (0, 1), qvel=rng.normal(size=(9, 2)), ctrl=windows.ctrl, hidden=(5,), inputs=INPUTS)
    prediction = NetworkPrediction(model, network, windows, signals)
    weights, x = network.start(rng) + 0.1 * rng.normal(size=network.size), start.guess(windows, robot.mj)
    seen = np.isfinite(windows.measured)

    def slope(y):
        r = np.where(seen, y - windows.measured, 0.0)
        return 0.5 * np.sum(r**2), r

    cost, gradient = prediction.gradient(weights, x, windows, slope)
    assert cost == slope(prediction.predict(weights, x))[0]
    for i in rng.choice(network.size, 6, replace=False):
        h = 1e-4 * np.eye(network.size)[i]
        ends = [slope(prediction.predict(weights + s * h, x))[0] for s in (1, -1)]
        assert gradient[i] == pytest.approx((ends[0] - ends[1]) / 2e-4, rel=1e-4, abs=1e-6)


def test_steps_of_a_free_body_are_linearised_in_its_tangent_space():
    text = """<mujoco><worldbody><body><freejoint/><geom type="box" size=".1 .2 .3"/><site name="s"/></body></worldbody>
      <sensor><gyro site="s"/></sensor></mujoco>"""
    model, rng = mujoco.MjModel.from_xml_string(text), np.random.default_rng(0)
    state = rng.normal(size=(3, 13))
    state[:, 3:7] /= np.linalg.norm(state[:, 3:7], axis=1, keepdims=True)
    found = linearize_steps(BatchEngine(model), state, np.zeros((3, 0)))
    for i in range(3):
        data = mujoco.MjData(model)
        data.qpos[:], data.qvel[:] = state[i, :7], state[i, 7:]
        a, c = np.zeros((12, 12)), np.zeros((3, 12))
        mujoco.mjd_transitionFD(model, data, 1e-6, True, a, None, c, None)
        np.testing.assert_allclose(found.state_by_state[i], a, atol=1e-5)
        np.testing.assert_allclose(found.sensor_by_state[i], c, atol=1e-5)


@pytest.mark.slow
def test_friction_that_no_parameter_has_is_learned(tmp_path):
    """Drag that grows with the square of speed, recorded from a model that has it and fitted by one that has not."""
    (tmp_path / "pendulum.xml").write_text(PENDULUM.format(**TRUTH))
    model = mujoco.MjModel.from_xml_string(PENDULUM.format(**TRUTH).replace('damping="0.08"', 'damping="0.08 0.06"'))
    rng, rollouts = np.random.default_rng(0), []
    for rollout in record(0, runs=4).rollouts:
        data, rows = mujoco.MjData(model), []
        data.qpos[:], data.qvel[:] = rng.normal(size=1), 3 * rng.normal(size=1)
        for u in 3 * rollout.ctrl:
            data.ctrl[:] = u
            mujoco.mj_forward(model, data)
            rows.append(data.sensordata.copy())
            mujoco.mj_step(model, data)
        measured = np.array(rows) + [0.002, 0.02] * rng.normal(size=(len(rows), 2))
        rollouts.append(dataclasses.replace(rollout, ctrl=3 * rollout.ctrl, sensordata=measured))
    write_log(tmp_path / "log.h5", dataclasses.replace(record(0), rollouts=tuple(rollouts)))
    study = IdentifyStudy(
        str(tmp_path / "pendulum.xml"),
        (str(tmp_path / "log.h5"),),
        (parse("joint/hinge/damping"), parse("body/pole/mass")),
        hold_out="run3",
        network={"joints": ["hinge"], "hidden": [48, 48], "iterations": 120, "batch": 12},
    )
    summary = identify(study, tmp_path / "out").summary
    network, plain = summary["network"], summary["fit"]["hold_out"]
    assert network["weights"] > 2000
    # What a model of the true structure predicts is as good as it gets from noisy start states.
    free = (*study.free, parse("joint/hinge/damping_quadratic"))
    best = identify(dataclasses.replace(study, free=free, network=None), tmp_path / "best").summary["fit"]["hold_out"]
    for name in ("angle", "speed"):
        learned, floor = network["fit"]["hold_out"][name]["rmse"], best[name]["rmse"]
        assert learned - floor < 0.4 * (plain[name]["rmse"] - floor)
    assert any("run.h5 does" in text for text in summary["warnings"])


def test_training_that_makes_a_window_diverge_ends_and_the_best_weights_stay(tmp_path, monkeypatch):
    (tmp_path / "pendulum.xml").write_text(PENDULUM.format(**TRUTH))
    write_log(tmp_path / "log.h5", record(0, seconds=1.5))
    real, calls = NetworkPrediction.gradient, []

    def gradient(self, weights, *arguments):
        calls.append(weights)
        # From the third step on the motors are so strong that the pendulum cannot be simulated.
        return real(self, weights * (1.0 if len(calls) < 3 else 1e12), *arguments)

    monkeypatch.setattr(NetworkPrediction, "gradient", gradient)
    study = IdentifyStudy(
        str(tmp_path / "pendulum.xml"), (str(tmp_path / "log.h5"),), (parse("joint/hinge/damping"),),
        network={"joints": ["hinge"], "hidden": [4], "iterations": 20, "batch": 4},
    )  # fmt: skip
    summary = identify(study, tmp_path / "out").summary
    assert len(calls) == 3
    # The loop ends with the second step, which was not taken: the weights kept are from before it.
    kept = read_run(tmp_path / "out" / "run.h5")[0]["network"]["weights"]
    assert any(np.array_equal(kept, weights) for weights in calls[:2])
    assert np.isfinite(summary["network"]["fit"]["train"]["angle"]["rmse"])
    assert any("its training ended at step 2, where a window diverged" in text for text in summary["warnings"])


def test_what_a_network_table_may_not_say():
    model, log = "arm.xml", ("arm.h5",)
    free = (parse("joint/*/damping"),)
    for table, words in (
        ({"joint": ["a"]}, "unknown key 'joint'"),
        ({"hidden": 48}, r"hidden = \[48, 48\]"),
        ({"hidden": [0]}, "from 1 to 100000"),
        ({"inputs": ["speed"]}, "velocity, position, ctrl"),
    ):
        with pytest.raises(DsoError, match=words):
            IdentifyStudy(model, log, free, network=table)


def test_weights_of_the_start_give_no_torque(models):
    model = load(models / "two_joint_arm.xml").mj
    network = joint_network(model, (1,), qvel=np.ones((3, 2)), ctrl=np.ones((3, 2)), hidden=(4,), inputs=INPUTS)
    torque = network(network.start(np.random.default_rng(0)), np.ones((2, 2)), np.ones((2, 2)), np.ones((2, 2)))
    np.testing.assert_array_equal(torque, np.zeros((2, 1)))
