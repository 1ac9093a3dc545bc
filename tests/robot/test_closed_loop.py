"""Estimator and policy trained for the task: the linear-quadratic-Gaussian optimum, and a model that is wrong."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.linalg import solve_discrete_are, solve_discrete_lyapunov

from dso_robotics.errors import DsoError
from dso_robotics.robot.closed_loop import ClosedLoop, closed_loop_cost, linear_policy, train_in_loop
from dso_robotics.robot.corrector import Scales, make_corrector
from dso_robotics.robot.filter_jax import JaxFilter, OwnSystem, train

# An unstable plant with one input and one sensor.
A = np.array([[1.05, 0.1], [0.1, 0.98]])
B = np.array([[0.0], [0.1]])
C = np.array([[1.0, 0.0]])
W, V = np.diag([0.02, 0.05]) ** 2, np.diag([0.1]) ** 2
Q, R = np.diag([1.0, 0.1]), np.diag([0.1])


def system(scale: float = 1.0) -> OwnSystem:
    return OwnSystem(
        lambda x, u, theta: jnp.asarray(A * scale) @ x + jnp.asarray(B) @ u, lambda x, theta: jnp.asarray(C) @ x
    )


def loop(gain: np.ndarray, *, model: float = 1.0, trains_policy: bool = True) -> ClosedLoop:
    one = np.ones(2)
    chain = JaxFilter(system(model), make_corrector("gain", 2, 1, 2), Scales(0.2 * one[:1], 0.1 * one, 0 * one, one))
    return ClosedLoop(
        world=system(),
        reality=jnp.zeros(0),
        filter=chain,
        task=lambda x, u: x @ jnp.asarray(Q) @ x + u @ jnp.asarray(R) @ u,
        goal=jnp.zeros(2),
        hold=jnp.zeros(1),
        gain=jnp.asarray(gain),
        start_spread=jnp.full(2, 0.1),
        action_noise=jnp.zeros(1),
        sensor_noise=jnp.sqrt(jnp.diag(jnp.asarray(V))),
        process_noise=jnp.sqrt(jnp.diag(jnp.asarray(W))),
        trains_policy=trains_policy,
    )


def lqr() -> np.ndarray:
    p = solve_discrete_are(A, B, Q, R)
    return np.linalg.solve(R + B.T @ p @ B, B.T @ p @ A)


def kalman() -> np.ndarray:
    p = solve_discrete_are(A.T, C.T, W, V)
    return p @ C.T @ np.linalg.inv(C @ p @ C.T + V)


def exact_cost(k: np.ndarray, gain: np.ndarray, model: float = 1.0) -> float:
    """Stationary cost of the linear loop: x' = A x - B k b + w, b' = (I - L C)(M - B k) b + L C (A x - B k b + w) + L v."""
    m, eye = A * model, np.eye(2)
    shown = gain @ C
    closed = np.block([[A, -B @ k], [shown @ A, (eye - shown) @ (m - B @ k) - shown @ B @ k]])
    assert np.abs(np.linalg.eigvals(closed)).max() < 1
    noise = np.block([[W, W @ shown.T], [shown @ W, shown @ W @ shown.T + gain @ V @ gain.T]])
    p = solve_discrete_lyapunov(closed, noise)
    return float(np.trace(Q @ p[:2, :2]) + np.trace(k.T @ R @ k @ p[2:, 2:]))


def learned(made: ClosedLoop, theta) -> tuple[np.ndarray, np.ndarray]:
    own, k = made.parts(jnp.asarray(theta))
    return np.asarray(k), np.asarray(made.filter.split(own)[0]["gain"]) * 0.1 / 0.2


def begin(made: ClosedLoop, gain: np.ndarray) -> np.ndarray:
    own = made.filter.initial(gain * 0.2 / 0.1, np.zeros(0))
    return np.concatenate([own, np.asarray(made.gain).ravel()]) if made.trains_policy else own


def test_the_linear_policy_is_the_regulator_and_the_cost_is_the_exact_one():
    np.testing.assert_allclose(
        linear_policy(
            system(),
            jnp.zeros(0),
            jnp.zeros(2),
            jnp.zeros(1),
            state_weight=np.diag(Q),
            control_weight=np.diag(R),
        ),
        lqr(),
        rtol=1e-8,
    )
    made = loop(lqr())
    mean, error = closed_loop_cost(made, jnp.asarray(begin(made, kalman())), steps=600, rollouts=200, burn_in=100)
    assert abs(mean - exact_cost(lqr(), kalman())) < 4 * error
    assert error < 0.02 * mean


def test_trained_together_they_reach_the_optimum():
    made = loop(1.4 * lqr())
    start = begin(made, 0.4 * kalman())
    best, before = exact_cost(lqr(), kalman()), exact_cost(1.4 * lqr(), 0.4 * kalman())
    assert before > 1.25 * best
    found = train_in_loop(
        made, jnp.asarray(start), steps=150, burn_in=50, rollouts=64, iterations=150, learning_rate=0.05
    )
    reached = exact_cost(*learned(made, found.theta))
    assert best <= reached < 1.02 * best


def test_with_a_wrong_model_the_task_trains_a_better_estimator_than_prediction_does():
    model = 0.9
    made = loop(lqr(), model=model, trains_policy=False)
    start = begin(made, kalman())
    data = made.record(jnp.asarray(start), seed=0, rollouts=100, steps=200)
    by_prediction = train(made.filter, start, data, iterations=150, learning_rate=0.05).theta
    settings = {"steps": 150, "burn_in": 50, "rollouts": 64, "iterations": 150, "learning_rate": 0.05}
    by_task = train_in_loop(made, by_prediction, **settings).theta
    costs = [exact_cost(lqr(), learned(made, theta)[1], model) for theta in (start, by_prediction, by_task)]
    assert costs[2] < 0.98 * costs[1]
    assert costs[2] < costs[0]


def test_bad_input_is_refused():
    made = loop(lqr())
    with pytest.raises(DsoError, match="estimator and policy have"):
        train_in_loop(made, jnp.zeros(3), steps=10, rollouts=2, iterations=1)
    stuck = OwnSystem(lambda x, u, theta: 1.1 * x, lambda x, theta: x)
    with pytest.raises(DsoError, match="no linear policy"):
        linear_policy(
            stuck, jnp.zeros(0), jnp.zeros(1), jnp.zeros(1), state_weight=np.ones(1), control_weight=np.ones(1)
        )
