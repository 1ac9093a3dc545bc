"""Windows that are set apart choose among the estimators that the search passes."""

import json

import numpy as np

from dso_robotics.cli import main
from dso_robotics.data.log import read_log
from dso_robotics.data.run_file import read_run
from dso_robotics.parameters.vector import ParameterVector
from dso_robotics.physics.model import load
from dso_robotics.robot import estimator_start, filter_data
from dso_robotics.robot.filter import CFilter

STUDY = """
model = "pendulum.xml"
logs = ["pendulum.h5"]
hold_out = "run1,run2"
corrector = "recurrent"
units = 6
window = 0.4
iterations = 8
validation = 0.3
"""


def windows(folder):
    robot = load(folder / "pendulum.xml")
    log = read_log(folder / "pendulum.h5")
    channels = filter_data.select_channels(log, robot.mj, None)
    interval, substeps = filter_data.common_interval(log.rollouts, robot.mj.opt.timestep, "log")
    cut = {"interval": interval, "substeps": substeps, "seconds": 0.4}
    return robot, filter_data.cut_windows(log.rollouts[:1], channels, robot.mj, **cut)


def test_windows_are_set_apart_evenly(pendulum):
    _, every = windows(pendulum)
    fit, apart = filter_data.set_apart(every, 0.3, "log")
    assert apart is not None
    assert len(fit) + len(apart) == len(every)
    assert len(apart) == int(0.3 * len(every))
    assert np.diff(apart.first).min() >= 3 * np.diff(every.first).min()
    np.testing.assert_array_equal(np.sort(np.concatenate([fit.first, apart.first])), every.first)
    assert filter_data.set_apart(every, 0.0, "log") == (every, None)


def test_the_one_kept_predicts_them_best(pendulum, tmp_path):
    (tmp_path / "study.toml").write_text(STUDY)
    for name in ("pendulum.xml", "pendulum.h5"):
        (tmp_path / name).write_bytes((pendulum / name).read_bytes())
    assert main(["estimate", str(tmp_path / "study.toml"), "--out", str(tmp_path / "out"), "--no-report"]) == 0
    tree, _, _ = read_run(tmp_path / "out" / "run.h5")
    robot, every = windows(pendulum)
    fit, apart = filter_data.set_apart(every, 0.3, "log")
    assert apart is not None
    vector, scales = estimator_start.begin("recurrent", 6, fit, ParameterVector((), robot.mj))
    chain, warm_up = CFilter(vector, scales, apart), round(0.2 * (apart.measured.shape[1] - 1))

    def cost(z):
        error = (chain.run(z, apart.start).predicted - apart.measured[:, 1:])[:, warm_up:]
        return error[..., 0].size * np.log(np.sqrt(np.mean(error**2, axis=(0, 1)))).sum()

    kept = tree["estimator"]["weights"]
    costs = [cost(z) for z in tree["history"]["z"]]
    assert cost(kept) <= min(costs) + 1e-9
    # Learning the other windows by heart must hurt here, or the test shows nothing.
    assert costs[-1] > min(costs)
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert f"iteration {int(np.argmin(costs))} predicts the validation windows best" in summary["message"]
    assert summary["windows"]["validation"] == len(apart)
