"""The report of a training and its table, from a prepared study with made-up results: nothing is trained."""

import dataclasses
import html
import re

import mujoco
import numpy as np
import pytest

from dso_robotics.report.state_charts import degrees_of_freedom, state_charts
from dso_robotics.report.table import training_table
from dso_robotics.report.train import write_report
from dso_robotics.robot.estimator_space import Space
from dso_robotics.robot.play import Episode
from dso_robotics.studies.train import Trained
from dso_robotics.studies.train_build import build
from dso_robotics.studies.train_study import TrainStudy
from tests.studies.everything import CARTPOLE, FLOATER
from tests.studies.everything import write as write_everything

_COMMON = """
model = "robot.xml"
free = ["body/pole/mass=0.25@0.05:1", "sensor/gyro/noise[1]"]
[policy]
kind = "linear"
{observe}
[sensors]
noise = {{ "*" = 0.01 }}
[cost.recorded]
kind = "identification"
log = "log.h5"
window = 0.2
[cost.bench]
kind = "calibration"
log = "log.h5"
"""
_MOTION = """
[estimator]
[cost.upright]
kind = "square"
quantity = "joint/hinge/position"
[judge]
"""
_SUMMARY = {
    "engine": "mjx",
    "engine_reason": "asked for",
    "seed": 0,
    "version": "0.1",
    "command": "train",
    "message": "20 iterations; cost of an episode on C MuJoCo 9 before, 4 after",
    "method": {"name": "pathwise", "reason": "the derivative is exact"},
    "environment_steps": 1280,
    "seconds": {"total": 20.0, "compile": 12.0},
    "kept": {"rule": "last", "iteration": 2},
    "flow": {"policy": ["rollouts"], "physics": ["recorded"], "sensor noise": ["bench"], "corrector": []},
    "parameters": {"body/pole/mass": {"initial": 0.25, "value": 0.2, "unit": "kg", "at_bound": True}},
    "cost": {
        "total": 4.0,
        "before": 9.0,
        "first_look": 9.0,
        "quarter_timestep": 4.25,
        "terms": {"upright": 4.0},
        "supervised": {"recorded": -3.5, "bench": 0.75},
        "weights": {"upright": 1.0, "recorded": 1.0, "bench": 0.5},
    },
    "judge": {"before": [8.0, 10.0], "cost": [5.0, 6.0]},
    "warnings": ["cost bench: weight 0.5."],
}


def _data_only(summary):
    cost = summary["cost"] | {"terms": {}, "weights": {"recorded": 1.0, "bench": 0.5}}
    flow = {"policy": [], "physics": ["recorded"], "sensor noise": ["bench"]}
    message = "converged after 5 iterations; cost -2 before, -3 after"
    return summary | {"cost": cost, "flow": flow, "message": message, "environment_steps": 0}


def _episode(count, *, estimate):
    time = 0.02 * np.arange(21)
    true = np.stack([np.sin(time), 0.3 + time, np.cos(time), np.ones(21)], 1)
    terms, ctrl = np.ones((20, count)), np.zeros((20, 1))
    return Episode(time, true[:, :2], true[:, 2:], ctrl, terms, False, estimate=true + 0.1 if estimate else None)


def _found(folder, more, observe, summary):
    """A training whose study is real and whose results are not."""
    write_everything(folder, "cartpole")
    (folder / "study.toml").write_text(_COMMON.format(observe=observe) + more)
    task = build(TrainStudy.read(folder / "study.toml"))
    balanced = {**task.study.cost, "bench": dataclasses.replace(task.study.cost["bench"], weight="balance")}
    task = dataclasses.replace(
        task, study=dataclasses.replace(task.study, cost=balanced), notes=tuple(summary["warnings"])
    )
    ended = _episode(len(task.scene_cost.names), estimate=bool(more))
    history = {"iteration": np.array([1, 2]), "steps": np.array([640, 1280]), "episode_cost": np.array([6.0, 4.0])}
    (folder / "model.xml").write_text(CARTPOLE)
    return Trained(task, task.chain.layout.initial, task.chain.scaling, ended, (ended, ended), history, summary)


def _rows(page):
    """The cells of all table rows."""
    return [tuple(re.findall(r"<td[^>]*>(.*?)</td>", row)) for row in re.findall(r"<tr>(.*?)</tr>", page)]


def test_the_report_shows_costs_weights_blocks_judge_and_estimate(tmp_path):
    write_report(_found(tmp_path, _MOTION, 'observe = "estimate"', _SUMMARY), tmp_path, video=False)
    page = html.unescape((tmp_path / "report.html").read_text())
    rows = _rows(page)
    assert ("upright", "square", "an episode", "1", "4") in rows
    assert ("recorded", "identification", "a log", "1", "-3.5") in rows
    assert ("bench", "calibration", "a log", "0.5 (balanced)", "0.75") in rows
    # A linear policy on five numbers and a constant; one of five noises is free; a gain of 4 by 5, and five scales.
    assert ("policy", "6", "upright") in rows
    assert ("physics", "1", "recorded, bench") in rows
    assert ("sensor noise", "1", "bench") in rows
    assert ("corrector", "25", "upright") in rows
    assert ("body/pole/mass", "0.25", "0.2", "kg", "at bound") in rows
    assert ">Physics, sensors and design</h2>" in page
    assert "Method: pathwise (the derivative is exact)." in page
    assert "mean of 2 episodes: 9 (8 to 10) before, 5.5 (5 to 6) after" in page
    assert "quarter of the time step: 4.25" in page
    titles = re.findall(r'data-title="([^"]*)"', page)
    assert "hinge, velocity" in titles
    assert "hinge, error of the velocity" in titles
    # A note about a weight is no warning.
    assert "No warnings." in page


def test_a_training_without_costs_of_the_motion_tells_of_no_episode(tmp_path):
    found = _found(tmp_path, "", "", _data_only(_SUMMARY))
    write_report(found, tmp_path, video=False)
    page = html.unescape((tmp_path / "report.html").read_text())
    assert "sum of the weighted costs" in page.lower()
    assert ("policy", "6", "nothing; it stays as it started") in _rows(page)
    for text in (page, "\n".join(training_table(found.summary))):
        for word in ("episode", "quarter", "steps of the environment"):
            assert word not in text
    # The policy was not trained, so it is not shown.
    assert "positions" not in re.findall(r'data-title="([^"]*)"', page)


def test_charts_are_also_pictures_on_request(tmp_path):
    write_report(_found(tmp_path, _MOTION, 'observe = "estimate"', _SUMMARY), tmp_path, video=False, figures=True)
    assert {path.name for path in (tmp_path / "figures").iterdir()} == {"training.png", "episode.png", "estimate.png"}


def test_the_table_names_method_costs_blocks_and_judge():
    lines = training_table(_SUMMARY)
    assert lines[0] == _SUMMARY["message"]
    assert "method: pathwise (the derivative is exact)" in lines
    assert "policy: moved by upright" in lines
    assert "corrector: moved by nothing" in lines
    assert [line.split() for line in lines if line.startswith("bench")] == [
        ["bench", "0.5", "0.75", "without", "a", "rollout"]
    ]
    assert any(line.endswith("9 (8 to 10) before, 5.5 (5 to 6) after") for line in lines)
    assert "body/pole/mass: 0.25 -> 0.2 kg  at bound" in lines
    assert lines[-1] == "note: cost bench: weight 0.5."


def test_the_errors_of_a_floating_body_are_in_its_tangent_space():
    """An estimate that is turned by 0.1 rad about x, and 0.2 m too high."""
    model, steps = mujoco.MjModel.from_xml_string(FLOATER), 6
    names = [model.joint(i).name for i in range(model.njnt)]
    labels, units, offset = degrees_of_freedom(model, names)
    assert labels == [
        *("root x", "root y", "root z"),
        *("root rotation x", "root rotation y", "root rotation z"),
        "wrist",
    ]
    assert units == ["m"] * 3 + ["rad"] * 4
    np.testing.assert_allclose(offset, [0, 0, 1, 0, 0, 0, 0])
    qpos, qvel = np.tile(model.qpos0, (steps, 1)), np.zeros((steps, model.nv))
    believed = qpos.copy()
    believed[:, 2] += 0.2
    believed[:, 3:7] = [np.cos(0.05), np.sin(0.05), 0, 0]
    episode = Episode(
        0.02 * np.arange(steps),
        qpos,
        qvel,
        np.zeros((steps - 1, model.nu)),
        np.zeros((steps - 1, 0)),
        False,
        estimate=np.concatenate([believed, qvel + 0.5], 1),
    )
    assert episode.estimate is not None
    space = Space(model)
    reference = np.concatenate([model.qpos0, np.zeros(model.nv)])
    shown = space.difference(np.broadcast_to(reference, episode.estimate.shape), episode.estimate)
    error = space.difference(np.concatenate([qpos, qvel], 1), episode.estimate)
    # The smoothed motion is drawn with its error as it was computed, in the tangent space: differences of rotations are not it.
    more = {"smoothed": shown - 0.3, "smoothed_error": np.full_like(error, -0.07)}
    beside = {chart.title: chart for chart in state_charts(model, names, episode.time, shown, error, **more)}
    np.testing.assert_allclose(beside["root rotation x, error of the position"].lines[-1].values, -0.07)
    np.testing.assert_allclose(beside["root rotation x, position"].lines[-1].values, shown[:, 3] - 0.3)
    charts = {chart.title: chart for chart in state_charts(model, names, episode.time, shown, error)}
    # The height is that in the world, not relative to the model's reference.
    true, estimated = charts["root z, position"].lines
    np.testing.assert_allclose(true.values, 1.0)
    np.testing.assert_allclose(estimated.values, 1.2)
    for title, value in (("root z, error of the position", 0.2), ("root rotation x, error of the position", 0.1)):
        np.testing.assert_allclose(charts[title].lines[-1].values, value, atol=1e-12)
    np.testing.assert_allclose(charts["wrist, error of the velocity"].lines[-1].values, 0.5)
    assert charts["root rotation x, error of the position"].remark == "RMS 0.100 rad"


def test_a_band_shows_what_the_estimator_claims_and_not_its_start():
    model = mujoco.MjModel.from_xml_string(CARTPOLE)
    error, spread = np.full((100, 4), 0.01), np.full((100, 4), 0.02)
    spread[0] = 10.0
    shown = state_charts(model, ["slider", "hinge"], 0.01 * np.arange(100), np.zeros((100, 4)), error, spread)
    low, high, line = next(c for c in shown if c.title == "hinge, error of the velocity").lines
    np.testing.assert_allclose(high.values[1:], 1.959963984540054 * 0.02)
    np.testing.assert_allclose(low.values[1:], -high.values[1:])
    assert np.isnan(high.values[0])
    np.testing.assert_allclose(line.values, 0.01)


@pytest.mark.parametrize("missing", ["judge", "terms"])
def test_without_a_judge_or_costs_of_the_motion_no_line_tells_of_it(missing):
    summary = {k: v for k, v in _SUMMARY.items() if k != "judge"} if missing == "judge" else _data_only(_SUMMARY)
    assert not any("[judge]" in line for line in training_table(summary))
