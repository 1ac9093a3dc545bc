"""NUTS on MJX against the exact posterior of a linear problem."""

import jax
import numpy as np
import pytest
from scipy import stats

from dso_robotics.core.covariance import uncertainty
from dso_robotics.core.method.gauss_newton import solve
from dso_robotics.core.method.least_squares import Settings
from dso_robotics.costs.identification import WindowedIdentification
from dso_robotics.robot import start
from dso_robotics.robot.prediction_mjx import MjxPrediction
from dso_robotics.studies.posterior import draw
from dso_robotics.studies.posterior_nuts import _told
from tests.costs.linear_problem import PATHS, design, left, problem, record

pytestmark = pytest.mark.mjx
pytest.importorskip("blackjax")


@pytest.mark.slow
def test_the_chains_draw_students_t_and_say_that_they_mixed():
    made, _ = problem(record(np.array([1.2, 0.7]), [0.02], 1, runs=1, steps=15), seconds=0.3, free=PATHS[:1])
    windows, vector = made.windows, made.vector
    on_mjx = WindowedIdentification(vector, windows, MjxPrediction(vector, windows))
    x = start.guess(windows, vector.mj)
    box = {"low": vector.low, "high": vector.high, "scale": vector.scale}
    solution = solve(on_mjx, vector.initial, x, settings=Settings(), **box)
    found = draw(on_mjx, solution, uncertainty(solution, vector.scale), route="nuts", count=240, seed=1)
    assert found.reliable, found.told
    assert found.told.startswith("The four chains agree")
    parts = design(made)
    (by_z, by_x, y), (squares, freedom) = parts[0], left(parts, solution.z)
    q, _ = np.linalg.qr(by_x)
    a, b = by_z - q @ (q.T @ by_z), y - q @ (q.T @ y)
    covariance = np.linalg.inv(a.T @ a)
    mean, dof = covariance @ (a.T @ b), freedom[0] - 1
    squares, _ = left(parts, mean)
    for i in range(1):
        exact = stats.t(dof, mean[i], np.sqrt(covariance[i, i] * squares[0] / dof))
        assert stats.kstest(found.z[:, i], exact.cdf).statistic < 2.0 / np.sqrt(found.diagnostics["effective"] / 2)
    # sigma^2 is S / chi^2 of N - K degrees of freedom when the gears are drawn too.
    assert np.mean(1 / found.sigma**2) == pytest.approx(dof / squares[0], rel=0.25)
    assert found.starts.shape == (240, len(windows), 2)
    assert jax.config.jax_enable_x64


def test_what_did_not_mix_is_said_with_the_cure():
    for bad, word in (((1.2, 500, 0, 0.0, 600), "R-hat = 1.20"), ((1.0, 20, 0, 0.0, 600), "count as 20")):
        told, reliable = _told(*bad)
        assert not reliable
        assert word in told
        assert "--draws" in told
    assert not _told(1.0, 500, 60, 0.1, 600)[1]
