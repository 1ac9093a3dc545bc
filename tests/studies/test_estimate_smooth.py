"""`dso estimate --smooth`: a log with the most probable state, better than the filter's, at the samples that were recorded."""

import json
import re

import h5py
import mujoco
import numpy as np
import pytest

import dso_robotics as dso
from dso_robotics.cli import main
from dso_robotics.data.log import Log, read_log, write_log
from dso_robotics.data.rollout import Rollout
from dso_robotics.errors import DsoError
from dso_robotics.studies.estimate import estimate
from dso_robotics.studies.estimate_study import EstimateStudy
from tests.studies.test_estimate_kalman import FINE, MODEL, log


def study(folder, given: Log, *, delay: str = "", timestep: float = 0.005, **keys) -> EstimateStudy:
    write_log(folder / "log.h5", given)
    (folder / "model.xml").write_text(MODEL.format(mass=0.7, delay=delay, timestep=timestep))
    files = {"model": str(folder / "model.xml"), "logs": (str(folder / "log.h5"),)}
    return EstimateStudy(**files, hold_out=given.rollouts[-1].name, sensors=("angle", "camera"), smooth=True, **keys)


@pytest.mark.parametrize(("jitter", "lag"), [(False, 0.0), (True, 0.05)])
def test_it_writes_a_log_with_the_smoothed_state(tmp_path, jitter, lag):
    given = log(2, jitter=jitter, lag=lag, seconds=2.0)
    delay = f'delay="{lag}" nsample="60"' if lag else ""
    step = FINE if jitter else 0.005
    summary = estimate(study(tmp_path, given, delay=delay, timestep=step), tmp_path / "out")
    found = read_log(tmp_path / "out" / "smoothed.h5")
    assert found.names == given.names
    assert found.attributes["smoothed_by"] == "dso estimate --smooth"
    with h5py.File(tmp_path / "out" / "smoothed.h5") as file:
        spread = file["rollouts/run1/state_covariance"][:]
        np.testing.assert_allclose(file["rollouts/run1/state_std"][:] ** 2, np.diagonal(spread, axis1=1, axis2=2))
    for r, truth in zip(found.rollouts, given.rollouts, strict=True):
        # All samples and channels of the log from the first one in which a sensor was read.
        first = len(truth.time) - len(r.time)
        assert first <= (3 if jitter else 0)
        np.testing.assert_array_equal(r.time, truth.time[first:])
        np.testing.assert_array_equal(r.sensordata, truth.sensordata[first:])
        assert r.sensor_names == truth.sensor_names
        off = np.concatenate([r.qpos - truth.qpos[first:], r.qvel - truth.qvel[first:]], 1)
        assert np.sqrt(np.mean(off[20:, 0] ** 2)) < 0.003
        assert np.sqrt(np.mean(off[20:, 1] ** 2)) < 0.05
    row = summary["smoother"]["hold_out"]
    assert row["converged"]
    assert row["breaks"] == 0
    assert 0.3 < row["nees"] < 2.5
    assert (np.array(row["rmse"]) < np.array(summary["state"]["hold_out"]["rmse"])).all()


def test_the_command_and_the_report_show_it(tmp_path, capsys):
    study(tmp_path, log(2, seconds=1.5))
    (tmp_path / "s.toml").write_text('model = "model.xml"\nlogs = ["log.h5"]\nhold_out = "run1"\nsensors = ["angle"]\n')
    command = ["estimate", str(tmp_path / "s.toml"), "--out", str(tmp_path / "out")]
    assert main([*command, "--smooth"]) == 0
    said = capsys.readouterr()
    assert "smoothed.h5" in said.out
    assert re.search(r"held-out +smoother: 1 run in \d steps?", said.out)
    page = (tmp_path / "out" / "report.html").read_text()
    assert "smoothed minus true" in page
    assert "held-out, smoothed" in page
    # What another program put there is not replaced, and a new run takes the old file away.
    assert main([*command, "--force", "--no-report"]) == 0
    assert not (tmp_path / "out" / "smoothed.h5").exists()
    (tmp_path / "out" / "smoothed.h5").write_text("mine")
    assert main([*command, "--force", "--smooth"]) == 2
    assert "dso did not write this file" in capsys.readouterr().err


def test_free_numbers_are_found_together_with_the_motion(tmp_path, capsys):
    study(tmp_path, log(2, seconds=3.0))
    (tmp_path / "s.toml").write_text(
        'model = "model.xml"\nlogs = ["log.h5"]\nhold_out = "run1"\nsensors = ["angle", "camera"]\nsmooth = true\n'
        'free = ["joint/hinge/damping=0.16"]\n'
    )
    assert main(["estimate", str(tmp_path / "s.toml"), "--out", str(tmp_path / "out")]) == 0
    said, path = capsys.readouterr().out, "joint/hinge/damping"
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    learned, found = summary["parameters"][path], summary["smoother"]["train"]["parameters"][path]
    # Within some four standard deviations of the truth.
    assert abs(found["value"] - 0.08) < found["high95"] - found["low95"] < 0.02
    assert found["initial"] == pytest.approx(0.16)
    # Both intervals are of the same readings: by the likelihood of the filter, and together with the motion.
    factor = (found["high95"] - found["low95"]) / (learned["high95"] - learned["low95"])
    assert 0.4 < factor < 2.5, factor
    assert found["value"] == pytest.approx(learned["value"], abs=0.5 * (learned["high95"] - learned["low95"]))
    # The held-out run tells nothing of the numbers.
    assert "parameters" not in summary["smoother"]["hold_out"]
    line = re.search(r"fitted +smoother: joint/hinge/damping .* found with the motion", said)
    assert line
    assert " ".join(line[0].split()) in (tmp_path / "out" / "report.html").read_text()


def test_where_there_is_no_model_of_the_noise_it_is_refused(tmp_path):
    with pytest.raises(DsoError, match=r"'gain' has no model of its noise to smooth with; leave smooth out, or choose"):
        estimate(study(tmp_path, log(2, seconds=1.0), corrector="gain"), tmp_path / "out")
    with pytest.raises(DsoError, match=r"does not do supervised; leave it out, or leave smooth out"):
        estimate(study(tmp_path, log(2, seconds=1.0), supervised=1.0), tmp_path / "out")


def test_in_python_it_is_a_log(tmp_path):
    given = log(2, seconds=1.5, state=False)
    (tmp_path / "model.xml").write_text(MODEL.format(mass=0.7, delay="", timestep=0.005))
    made = dso.estimate(tmp_path / "model.xml", given, sensors="angle", smooth=True)
    assert made.smoothed.names == given.names
    assert made.smoothed.rollouts[0].qvel is not None
    assert made.summary["smoother"]["train"]["nees"] is None
    bare = dso.estimate(tmp_path / "model.xml", given, sensors="angle", iterations=1)
    with pytest.raises(DsoError, match="smooth=True"):
        _ = bare.smoothed


@pytest.mark.parametrize(("corrector", "smooth"), [("kalman", True), ("gain", False)])
def test_a_model_without_actuators_is_estimated(tmp_path, corrector, smooth):
    """A pendulum that swings by itself."""
    text = MODEL.format(mass=0.7, delay="", timestep=0.01).replace(
        '<actuator><motor name="motor" joint="hinge"/></actuator>', ""
    )
    (tmp_path / "model.xml").write_text(text)
    model, rng, rollouts = mujoco.MjModel.from_xml_string(text), np.random.default_rng(0), []
    for name in ("a", "b"):
        data, states = mujoco.MjData(model), []
        data.qpos[0] = 1.0
        for _ in range(101):
            states.append([data.qpos[0], data.qvel[0]])
            mujoco.mj_step(model, data)
        states = np.array(states)
        readings = states[:, :1] + 0.005 * rng.normal(size=(101, 1))
        rollouts.append(
            Rollout(
                name=name, time=0.01 * np.arange(101), sensordata=readings, sensor_names=("angle",), sensor_units=("rad",),
                qpos=states[:, :1], qvel=states[:, 1:],
            )
        )  # fmt: skip
    write_log(tmp_path / "log.h5", Log("", "test", "CC0", tuple(rollouts)))
    given = EstimateStudy(
        model=str(tmp_path / "model.xml"), logs=(str(tmp_path / "log.h5"),), sensors=("angle",), corrector=corrector,
        smooth=smooth, window=0.5, hold_out="b", iterations=5,
    )  # fmt: skip
    summary = estimate(given, tmp_path / "out")
    assert summary["state"]["hold_out"]["rmse"][0] < 0.005
    if smooth:
        assert summary["smoother"]["hold_out"]["rmse"][0] < 0.003
