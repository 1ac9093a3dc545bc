"""A linear-Gaussian chain: the gain learned from measurements alone is the steady-state Kalman gain."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.linalg import solve_discrete_are

from dso_robotics.robot.corrector import Scales, make_corrector
from dso_robotics.robot.filter_jax import FilterWindow, JaxFilter, OwnSystem, train

A = np.array([[1.0, 0.1], [-0.2, 0.97]])
C = np.array([[1.0, 0.0], [0.3, 1.0]])
Q, R = np.diag([0.02, 0.05]) ** 2, np.diag([0.1, 0.2]) ** 2


def kalman_gain_of_riccati() -> np.ndarray:
    p = solve_discrete_are(A.T, C.T, Q, R)
    return p @ C.T @ np.linalg.inv(C @ p @ C.T + R)


def simulate(rng, count: int, length: int) -> tuple[np.ndarray, np.ndarray]:
    x = np.zeros((count, length, 2))
    for t in range(1, length):
        x[:, t] = x[:, t - 1] @ A.T + rng.normal(size=(count, 2)) @ np.sqrt(Q)
    return x, x @ C.T + rng.normal(size=x.shape) @ np.sqrt(R)


def chain(kind: str, **more) -> JaxFilter:
    one = np.ones(2)
    system = OwnSystem(lambda x, u, theta: jnp.asarray(A) @ x, lambda x, theta: jnp.asarray(C) @ x)
    return JaxFilter(system, make_corrector(kind, 2, 2, 2, units=4), Scales(0.2 * one, 0.1 * one, 0 * one, one), **more)


def window(start, y, warm_up=30, truth=None) -> FilterWindow:
    count, length = y.shape[:2]
    return FilterWindow(
        start=start,
        ctrl=np.zeros((count, length, 1)),
        measured=y,
        visible=np.ones((count, length), bool),
        counted=np.tile(np.arange(length) > warm_up, (count, 1)),
        truth=np.full((count, length, 2), np.nan) if truth is None else truth,
    )


def test_the_gain_converges_to_the_kalman_gain():
    _, y = simulate(np.random.default_rng(0), 200, 1000)
    made = chain("gain")
    begin = made.initial(0.3 * np.eye(2), np.zeros(0))

    found = train(made, begin, window(np.zeros((200, 2)), y), iterations=200, learning_rate=0.1)
    weights, _, noise, _, _ = made.split(found.theta)
    gain = np.asarray(weights["gain"]) * 0.1 / 0.2
    best = kalman_gain_of_riccati()
    assert np.abs(gain - best).max() < 0.02 * np.abs(best).max()
    assert np.linalg.norm(gain - best) < 0.02 * np.linalg.norm(best)
    # The noise learned is that of the innovations: C P C' + R.
    p = solve_discrete_are(A.T, C.T, Q, R)
    np.testing.assert_allclose(np.exp(noise[0]), np.sqrt(np.diag(C @ p @ C.T + R)), rtol=0.01)


def test_the_covariance_learned_tells_large_errors_from_small():
    """Noise ten times larger where the first state is positive: the predicted spread must follow, and cover."""
    rng = np.random.default_rng(1)
    x, y = simulate(rng, 50, 400)
    y = y + np.where(x[..., :1] > 0, 2.0, 0.0) * rng.normal(size=y.shape)
    made = chain("linear", covariance=True)
    begin = made.initial(0.3 * np.eye(2), np.zeros(0))
    data = window(np.zeros((50, 2)), y)
    theta = train(made, begin, data, iterations=150, learning_rate=0.05).theta
    _, fresh = simulate(np.random.default_rng(2), 1, 4000)
    states, _ = simulate(np.random.default_rng(2), 1, 4000)
    fresh = fresh + np.where(states[..., :1] > 0, 2.0, 0.0) * np.random.default_rng(3).normal(size=fresh.shape)
    run = made.run(theta, jax.tree.map(lambda part: part[0], window(np.zeros((1, 2)), fresh)))
    whitened = (np.asarray(run.predicted) - fresh[0, 1:]) / np.exp(run.log_scale)
    covered = (np.abs(whitened[100:]) < 1.96).mean()
    assert 0.9 < covered < 0.99
    log_scale = np.asarray(run.log_scale)
    positive = states[0, 1:, 0] > 0.2
    negative = states[0, 1:, 0] < -0.2
    assert log_scale[positive, 0].mean() > log_scale[negative, 0].mean() + 0.7


def test_a_start_that_is_not_finite_is_refused():
    from dso_robotics.errors import DsoError

    made = chain("gain")
    data = window(np.full((2, 2), np.inf), np.zeros((2, 40, 2)))
    with pytest.raises(DsoError, match="not finite"):
        train(made, made.initial(np.eye(2), np.zeros(0)), data, iterations=2)


def test_a_theta_of_numpy_is_taken_inside_jit():
    made, (_, y) = chain("gain"), simulate(np.random.default_rng(3), 1, 40)
    theta = np.asarray(made.initial(0.3 * np.eye(2), np.zeros(0)))
    data = jax.tree.map(lambda part: jnp.asarray(part[0]), window(np.zeros((1, 2)), y))
    run = jax.jit(lambda given: made.run(theta, given).states)(data)
    np.testing.assert_allclose(run, made.run(theta, data).states, rtol=1e-12)


def test_the_start_gain_is_a_kalman_gain():
    from dso_robotics.robot.estimator_start import kalman_gain

    np.testing.assert_allclose(kalman_gain(A, C, np.diag(Q), np.diag(R)), kalman_gain_of_riccati(), rtol=1e-6)
