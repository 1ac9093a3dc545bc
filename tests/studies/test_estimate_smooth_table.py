"""What the summary says of a smoother, by numbers that can be counted by hand, and what is told to be distrusted."""

import dataclasses

import numpy as np
import pytest

from dso_robotics.data.match import Channels
from dso_robotics.robot import kalman_smoother
from dso_robotics.robot.filter_data import FilterWindows
from dso_robotics.robot.kalman_smoother import Smoothed
from dso_robotics.studies.estimate_smooth import SmoothedRuns, doubts, smoothed, table
from tests.robot.free_body import ARM, ARM_NOISE, swing
from tests.robot.test_kalman import PROCESS, SENSOR, recorded, spring
from tests.robot.test_kalman_smoother import of_model, roll

NAMES = ("turn[0]", "turn[1]", "turn[2]", "turn[3]", "acc")
CHANNELS = Channels(
    np.zeros(0, int), (), (), np.arange(5), np.array([0, 0, 0, 0, 1]), NAMES, ("",) * 5, (), ((0, 1, 2, 3),)
)


def runs(passed: np.ndarray, error: np.ndarray, *, cost, converged, nees=None, measured=None) -> SmoothedRuns:
    """Runs of samples of a quaternion and one more channel, where these readings (B, T, 5) count."""
    many, length, _ = passed.shape
    measured = np.ones(passed.shape) if measured is None else measured
    nothing = np.zeros((many, length))
    windows = FilterWindows(
        (), CHANNELS, 0.01, 1, nothing[:, 1:], nothing[..., None], measured, nothing[:, :1], nothing[..., None],
        np.arange(many), np.zeros(many, int),
    )  # fmt: skip
    breaks = np.zeros((many, length), bool)
    breaks[0, 2] = True
    found = Smoothed(
        np.zeros((many, length, 1)), nothing[..., None], np.zeros((many, length, 1, 1)), passed, breaks, np.array(cost),
        np.arange(3, 3 + many), np.array(converged),
    )  # fmt: skip
    return SmoothedRuns(windows, found, error, np.ones((many, length, 2)), nees)


def test_the_table_counts_what_was_left_out_of_runs_that_did_not_diverge():
    """Two runs of four samples and one that diverged. Nothing of that one counts, and it needs no steps."""
    passed = np.ones((3, 4, 5), bool)
    passed[..., 3] = False  # The fourth channel of a quaternion is never read: it follows from the other three.
    passed[:, 0, 4] = (
        False  # What the acceleration was before the first sample is unknown: that reading is not left out.
    )
    passed[0, 2, :3] = False
    passed[1, 1:3, 4] = False
    passed[2] = False
    measured = np.ones(passed.shape)
    measured[1, 2, 4] = np.nan  # Not measured is not left out.
    error = np.full((3, 3, 2), np.nan)
    error[0], error[1, 2] = [[3.0, 1.0]] * 3, [0.0, 2.0]
    given = runs(passed, error, cost=[1.0, 2.0, np.inf], converged=[True, True, False], nees=2.5, measured=measured)
    row = table({"train": given}, CHANNELS)["train"]
    assert row["rmse"] == pytest.approx([np.sqrt(27 / 4), np.sqrt(7 / 4)])
    assert {name: row[name] for name in row if name != "rmse"} == {
        "runs": 2, "steps": 4, "converged": True, "breaks": 1, "nees": 2.5,
        "left_out": {"turn[0]": 1, "turn[1]": 1, "turn[2]": 1, "acc": 1},
    }  # fmt: skip
    assert doubts({"train": row}) == []


def test_where_every_run_diverged_or_no_truth_is_known_the_table_says_so():
    passed, unknown = np.ones((1, 4, 5), bool), np.full((1, 3, 2), np.nan)
    given = {
        "train": runs(passed, unknown, cost=[1.0], converged=[True]),
        "hold_out": runs(passed, unknown, cost=[np.inf], converged=[False]),
    }
    rows = table(given, CHANNELS)
    assert rows["train"]["rmse"] is None
    assert rows["train"]["nees"] is None
    assert rows["hold_out"]["runs"] == rows["hold_out"]["steps"] == 0
    assert doubts({"train": rows["train"]}) == []


def test_a_smoother_that_claims_too_much_is_told_of():
    """The squared error over the covariance is 1 with the true noises, and 6.25 where they are said to be 0.4 of it."""
    log = recorded(4, 200)
    for share, found in ((1.0, 1.0), (0.4, 6.25)):
        theta, windows = spring(log, seconds=1.98, noise=(share * PROCESS, share * SENSOR))
        # A gate so wide that all readings are let in.
        made = smoothed(theta, theta.initial, windows, 5, gate=1 - 1e-14)
        rows = table({"hold_out": made}, windows.channels)
        assert rows["hold_out"]["nees"] == pytest.approx(found, rel=0.25)
        told = doubts(rows)
        if share == 1.0:
            assert told == []
        else:
            assert len(told) == 1
            assert f"in the held-out runs are {rows['hold_out']['nees']:.3g} times what the smoother claims" in told[0]


def test_a_search_that_did_not_end_is_told_of(monkeypatch):
    states, torques, readings = swing(1, 100)
    theta, windows = of_model(ARM, ARM_NOISE, [roll(ARM, "r", 0.005, states, torques, readings)], 0.005)
    windows = dataclasses.replace(windows, start=windows.start + 0.3)
    assert doubts(table({"train": smoothed(theta, theta.initial, windows, 5)}, windows.channels)) == []
    monkeypatch.setattr(kalman_smoother, "_STEPS", 1)
    told = doubts(table({"train": smoothed(theta, theta.initial, windows, 5)}, windows.channels))
    assert len(told) == 1
    assert told[0].startswith("The smoother did not converge in one of the fitted runs")
