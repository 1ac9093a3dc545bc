"""Smoother and moving horizon where bodies turn so far between samples that rotations do not add, against least squares."""

import dataclasses

import numpy as np
import pytest

from dso_robotics.data.rollout import Rollout
from dso_robotics.robot import kalman_smoother, moving_horizon
from dso_robotics.robot.kalman_smoother import KalmanSmoother
from dso_robotics.robot.moving_horizon import MovingHorizon
from tests.robot.free_body import estimator
from tests.robot.test_kalman_smoother import named, of_model
from tests.robot.turning import INTERVAL, MODEL, NOISE, SUBSTEPS, Dense, Readings, blocks


def test_the_smoother_ends_at_the_minimum_of_the_cost(monkeypatch):
    monkeypatch.setattr(kalman_smoother, "_FALL", 0.0)
    dense, samples = Dense(), 8
    given = dense.drawn(1, samples)
    rollout = Rollout(
        name="r", time=INTERVAL * np.arange(samples), ctrl=np.concatenate([given.ctrl, given.ctrl[-1:]]),
        ctrl_names=("motor",), sensordata=given.measured, sensor_names=named(dense.model),
    )  # fmt: skip
    theta, windows = of_model(MODEL, NOISE, [rollout], INTERVAL)
    windows = dataclasses.replace(windows, start=given.start[None], substeps=SUBSTEPS)
    run = KalmanSmoother(theta, windows, share=1 - 1e-12).run(theta.initial)
    assert run.converged.all()
    assert run.passed.all()
    prior, states = NOISE.start(dense.space, given.start), run.states[0]
    steps = zip(states[:-1], given.ctrl, states[1:], strict=True)
    turns = [dense.space.difference(dense.ahead(x, u), y)[1:4] for x, u, y in steps]
    assert np.linalg.norm(turns, axis=1).max() > 0.3
    left, spread = dense.normal(given, prior, states)
    covariance = blocks(spread)
    deviation = np.sqrt(np.diagonal(covariance, axis1=1, axis2=2))
    error = (run.covariance[0] - covariance) / deviation[:, None] / deviation[..., None]
    assert run.cost[0] == pytest.approx(dense.cost(given, prior, states), rel=1e-9)
    assert np.abs(left / deviation).max() < 2e-3
    assert np.abs(error).max() < 1e-6


def test_the_moving_horizon_is_at_the_minimum_of_the_cost(monkeypatch):
    """One sample and, from the second update on, an arrival cost of what came before it.

    In the first sample rotations are not measured, so that the second one moves that state far.
    """
    monkeypatch.setattr(moving_horizon, "_STILL", 1e-6)
    monkeypatch.setattr(moving_horizon, "_STEPS", 40)
    dense, samples = Dense(), 1
    given = dense.drawn(1, 4)
    given.measured[1, 1:13] = np.nan
    made = MovingHorizon(dense.model, estimator(MODEL, NOISE, interval=INTERVAL).learned, samples)
    made.reset(given.start[: dense.model.nq], given.start[dense.model.nq :])
    window = Readings(given.start, given.ctrl[:0], np.full((1, 16), np.nan))
    covariance, states = NOISE.start(dense.space, given.start), given.start[None]
    for u, y in zip(given.ctrl, given.measured[1:], strict=True):
        told = made.update(u, y)
        window = Readings(window.start, np.concatenate([window.ctrl, [u]]), np.concatenate([window.measured, [y]]))
        found = dense.solved(window, covariance, np.concatenate([states, [dense.ahead(states[-1], u)]]))
        deviation = np.sqrt(found.covariance[-1].diagonal())
        off = dense.space.difference(found.states[-1], np.concatenate([told.qpos, told.qvel])) / deviation
        error = (told.covariance - found.covariance[-1]) / deviation / deviation[:, None]
        assert np.abs(off).max() < 1e-5
        assert np.abs(error).max() < 1e-6
        states = found.states
        if len(window.ctrl) > samples:
            start, covariance = dense.moved_on(window, covariance, found)
            nothing = np.full((1, 16), np.nan)
            window = Readings(start, window.ctrl[1:], np.concatenate([nothing, window.measured[2:]]))
            states = states[1:]
