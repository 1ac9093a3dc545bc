"""Replays of estimators: the estimate is the runtime's, and the ghost is the true motion, or else the smoothed one."""

import dataclasses
import json

import mujoco
import numpy as np
import pytest

from dso_robotics.cli import main
from dso_robotics.data.log import Log, read_log, write_log
from dso_robotics.data.rollout import Rollout
from dso_robotics.data.run_file import read_run, write_run
from dso_robotics.errors import DsoError
from dso_robotics.report.replay import read_replay
from dso_robotics.robot.estimator import Estimator
from tests.pendulum import PENDULUM, TRUTH, record

STUDY = 'model = "pendulum.xml"\nlogs = ["{log}.h5"]\nhold_out = "run2"\niterations = 3\n'
BOX = """<mujoco><worldbody><body name="box"><freejoint name="base"/><geom size="0.1 0.1 0.1" type="box"/>
<body pos="0.2 0 0"><joint name="arm" axis="0 1 0" ref="0.3"/><geom size="0.05"/></body></body></worldbody></mujoco>"""


def moving(rollout: Rollout) -> Rollout:
    """The rollout with a state, smooth and near the readings, which is all that a replay needs."""
    assert rollout.sensordata is not None
    kernel = np.ones(9) / 9
    smooth = np.column_stack([np.convolve(np.pad(c, 4, "edge"), kernel, "valid") for c in rollout.sensordata.T])
    return dataclasses.replace(rollout, qpos=smooth[:, :1], qvel=smooth[:, 1:])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Estimators of a pendulum: from a log with its state, and from one without it, with smoothing or not."""
    folder = tmp_path_factory.mktemp("estimates")
    (folder / "pendulum.xml").write_text(PENDULUM.format(**TRUTH))
    bare = record(4, seconds=2.0)
    write_log(folder / "bare.h5", bare)
    write_log(folder / "state.h5", Log("", "test", "CC0", tuple(map(moving, bare.rollouts))))
    for name, log, more in (("state", "state", ""), ("bare", "bare", ""), ("smooth", "bare", "smooth = true\n")):
        (folder / f"{name}.toml").write_text(STUDY.format(log=log) + more)
        assert main(["estimate", str(folder / f"{name}.toml"), "--out", str(folder / name), "--no-report"]) == 0
    return folder


def test_the_estimate_is_that_of_the_runtime_beside_the_truth(folder):
    replay, run = read_replay(folder / "state"), read_log(folder / "state.h5")["run2"]
    assert (replay.part, replay.name) == ("hold_out", "run2")
    assert "the true motion as a grey ghost" in replay.caption
    assert run.qpos is not None
    np.testing.assert_allclose(replay.time, run.time[1:], atol=1e-9)
    np.testing.assert_allclose(replay.measured, run.qpos[1:], atol=1e-6)
    estimator = Estimator.load(folder / "state")
    assert run.ctrl is not None
    assert run.sensordata is not None
    estimator.reset(measurement=run.sensordata[0])
    found = [estimator.update(u, y).qpos for u, y in zip(run.ctrl[:-1], run.sensordata[1:], strict=True)]
    np.testing.assert_allclose(replay.predicted[50:], found[50:], atol=1e-3)
    assert np.abs(replay.predicted - replay.measured).max() > 1e-5
    assert read_replay(folder / "state", "run0").part == "train"
    with pytest.raises(DsoError, match="'run9'"):
        read_replay(folder / "state", "run9")


def test_without_a_recorded_state_the_smoothed_motion_is_the_ghost_or_there_is_none(folder):
    bare, smooth = read_replay(folder / "bare"), read_replay(folder / "smooth")
    assert np.isnan(bare.measured).all()
    assert "the log does not hold the true state" in bare.caption
    assert "the smoothed motion as a grey ghost" in smooth.caption
    run = read_log(folder / "bare.h5")["run2"]
    assert run.sensordata is not None
    assert np.sqrt(np.mean((smooth.measured[:, 0] - run.sensordata[1:, 0]) ** 2)) < 0.01


def test_poses_of_a_free_body_are_those_of_its_tangents(folder, tmp_path):
    """A motion of a floating box, stored as `dso estimate` stores it, is shown as it was."""
    tree, study, _ = read_run(folder / "state" / "run.h5")
    model, rng = mujoco.MjModel.from_xml_string(BOX), np.random.default_rng(1)
    motion = rng.normal(size=(5, model.nq))
    motion[:, 3:7] /= np.linalg.norm(motion[:, 3:7], axis=1)[:, None]
    states = np.zeros((5, 2 * model.nv))
    for row, pose in zip(states, motion, strict=True):
        mujoco.mj_differentiatePos(model, row[: model.nv], 1.0, model.qpos0, pose)
    summary = json.loads(tree["summary"]) | {"windows": {"rollouts": {"train": ["fall"]}}}
    entry = {"time": 0.1 * np.arange(5), "state": states, "truth": np.full_like(states, np.nan)}
    tree |= {"summary": json.dumps(summary), "traces": {"train": {"fall": entry}}}
    write_run(tmp_path / "run.h5", tree, study, BOX)
    (tmp_path / "model.xml").write_text(BOX)
    shown = read_replay(tmp_path)
    same = np.sign(np.sum(shown.predicted[:, 3:7] * motion[:, 3:7], axis=1))
    motion[:, 3:7] *= same[:, None]
    np.testing.assert_allclose(shown.predicted, motion, atol=1e-9)
    entry["state"] = states[:, :-1]
    write_run(tmp_path / "run.h5", tree, study, BOX)
    with pytest.raises(DsoError, match=r"does not belong to model\.xml"):
        read_replay(tmp_path)
