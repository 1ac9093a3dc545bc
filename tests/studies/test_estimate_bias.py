"""`dso estimate` with biases for states: of any size, that jump, smoothed together with free numbers, and resumed."""

import dataclasses
import json

import h5py
import numpy as np
import pytest

from dso_robotics.cli import main
from dso_robotics.data.log import Log, read_log, write_log
from dso_robotics.robot import joint_smoother
from dso_robotics.robot.estimator import Estimator
from dso_robotics.robot.kalman_estimator import KalmanEstimator
from tests.interrupt import interrupt
from tests.studies.test_estimate_kalman import MODEL, log, run


def biased(given: Log, bias: float, *, jump: float = 0.0, at: float = 2.0) -> Log:
    """The log with a bias of the speed sensor [rad/s], which jumps in the last run."""
    rollouts = []
    for r in given.rollouts:
        data = r.sensordata.copy()
        data[:, 2] += bias
        if r is given.rollouts[-1]:
            data[r.time >= at, 2] += jump
        rollouts.append(dataclasses.replace(r, sensordata=data))
    return Log("", "test", "CC0", tuple(rollouts))


@pytest.mark.parametrize("bias", [0.3, -10.0])
def test_a_bias_of_any_size_is_found_and_its_jump_is_absorbed(tmp_path, bias):
    """Ten radians a second are 200 times the noise of a reading."""
    at, jump = 2.0, 1.5
    given = biased(log(3, seconds=8.0), bias, jump=jump, at=at)
    summary = run(tmp_path, biased(log(3, seconds=3.0), bias), sensors=("angle", "rate"), drift=("rate",), window=1.5)
    assert summary["converged"], summary["warnings"]
    assert 0.5 < summary["consistency"]["hold_out"]["nees"] < 2
    made, held = Estimator.load(tmp_path / "out"), given.rollouts[-1]
    assert isinstance(made, KalmanEstimator)
    # A bias is expected to be as large as the log shows, or 20 times the noise of 0.05 rad/s.
    assert max(abs(bias), 0.6) < made.noise.offset[1] < max(3 * abs(bias), 1.5)
    made.reset(measurement=held.sensordata[0, [0, 2]])
    off, bias_off, squares = [], [], []
    for k in range(1, len(held.time)):
        found = made.update(held.ctrl[k - 1], held.sensordata[k, [0, 2]])
        off.append(np.concatenate([found.qpos - held.qpos[k], found.qvel - held.qvel[k]]))
        squares.append(off[-1] @ np.linalg.solve(found.covariance, off[-1]) / 2)
        spread = np.sqrt(made.belief.covariance[2, 2])
        bias_off.append((found.bias[1] - bias - (jump if held.time[k] >= at else 0.0)) / spread)
    before, after = slice(100, 199), slice(700, None)
    for part in (before, after):
        assert np.sqrt(np.mean(np.array(bias_off)[part] ** 2)) < 2.5
        assert 0.4 < np.mean(squares[part]) < 2
    rms = [np.sqrt(np.mean(np.array(off)[part] ** 2, axis=0)) for part in (before, slice(100, None), after)]
    assert (rms[2] < 1.2 * np.maximum(rms[0], [0.002, 0.05])).all()


STUDY = """
model = "model.xml"
logs = ["log.h5"]
hold_out = "run1"
sensors = ["angle", "rate"]
drift = ["rate"]
free = ["joint/hinge/damping=0.16"]
iterations = 4
"""


def test_drift_and_free_numbers_are_smoothed_together_and_resumed(tmp_path, monkeypatch, capsys):
    """An interrupted search for motion, biases and numbers begins again and ends with the numbers of an uninterrupted one."""
    write_log(tmp_path / "log.h5", biased(log(2, seconds=3.0), 0.3, jump=1.0, at=1.5))
    (tmp_path / "model.xml").write_text(MODEL.format(mass=0.7, delay="", timestep=0.005))
    (tmp_path / "s.toml").write_text(STUDY)
    command = ["estimate", str(tmp_path / "s.toml"), "--smooth", "--no-report", "--out"]
    assert main([*command, str(tmp_path / "whole")]) == 0
    with monkeypatch.context() as patched:
        interrupt(patched, joint_smoother, "_step", 2)
        assert main([*command, str(tmp_path / "part")]) == 130
    assert not (tmp_path / "part" / "smoothed.h5").exists()
    assert "dso estimate --resume --out" in capsys.readouterr().err
    assert main(["estimate", "--resume", "--no-report", "--out", str(tmp_path / "part")]) == 0
    whole, part = (json.loads((tmp_path / name / "summary.json").read_text()) for name in ("whole", "part"))
    for name in ("smoother", "parameters", "noise", "drift", "fit", "state", "consistency"):
        assert part[name] == whole[name], name
    logs = [read_log(tmp_path / name / "smoothed.h5") for name in ("whole", "part")]
    for first, second in zip(*(found.rollouts for found in logs), strict=True):
        np.testing.assert_array_equal(second.qpos, first.qpos)
        np.testing.assert_array_equal(second.qvel, first.qvel)
    found = whole["smoother"]["train"]["parameters"]["joint/hinge/damping"]
    assert abs(found["value"] - 0.08) < found["high95"] - found["low95"] < 0.03
    with h5py.File(tmp_path / "whole" / "smoothed.h5") as file:
        for name, jump in (("run0", 0.0), ("run1", 1.0)):
            bias, time = file[f"rollouts/{name}/bias"][:, 1], file[f"rollouts/{name}/time"][:]
            assert bias[time < 1.45].mean() == pytest.approx(0.3, abs=0.1)
            assert bias[time > 1.65].mean() == pytest.approx(0.3 + jump, abs=0.1)
    for row in whole["smoother"].values():
        assert 0.3 < row["nees"] < 2
