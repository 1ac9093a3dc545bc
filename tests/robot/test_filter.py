"""The estimator chain: gradients against finite differences of C, the runtime against the batch, missing measurements."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dso_robotics.costs.estimation import WindowedEstimation
from dso_robotics.robot.corrector import CORRECTORS
from dso_robotics.robot.filter import CFilter
from dso_robotics.studies.estimate_gain import pattern
from tests.robot.estimator_problem import anywhere, problem


def numeric(function, z, step):
    columns = []
    for j, h in enumerate(step):
        e = np.zeros(len(z))
        e[j] = h
        columns.append((function(z + e) - function(z - e)) / (2 * h))
    return np.stack(columns, -1)


LATE = ("joint/hinge/damping", "sensor/speed/delay=0.013", "sensor/angle/bias")


@pytest.mark.parametrize(
    ("kind", "free", "ahead"),
    [
        pytest.param("recurrent", ("joint/hinge/damping",), 1, id="plain"),
        pytest.param("gain", LATE, 2, id="late, ahead", marks=pytest.mark.slow),
    ],
)
def test_the_gradient_through_mjx_is_that_of_c(kind, free, ahead):
    from dso_robotics.robot.filter_jax import JaxFilter
    from dso_robotics.robot.filter_mjx import MjxSystem, jax_windows

    vector, scales, given = problem(kind, seconds=0.14 if ahead > 1 else 0.1, units=2, free=free)
    lead, visible = pattern(given.measured.shape[1], ahead)
    given.measured[0, 4:7, 0] = np.nan
    given.measured[1, 3] = np.nan
    z = anywhere(vector)
    chain = CFilter(vector, scales, given, threads=1, visible=visible)
    cost = WindowedEstimation(chain, warm_up=2, lead=lead)
    cost.sigma = np.array([[0.003, 0.03], [0.005, 0.04]])[:ahead]

    def by_c(z):
        return 0.5 * np.sum(cost.residual(z.copy(), given.start) ** 2) + cost.log_scale()

    system = MjxSystem(vector.physics, given.channels.sensor_addresses, given.interval, given.substeps)
    made = JaxFilter(system, vector.corrector, scales, parameters=vector.size - len(vector.weights), ahead=ahead)
    batch = jax_windows(given, warm_up=2, visible=visible, lead=np.concatenate([[0], lead]))

    def by_mjx(z):
        theta = jnp.concatenate([z, jnp.log(jnp.asarray(cost.sigma.ravel()))])
        return jnp.sum(jax.vmap(made.cost, in_axes=(None, 0))(theta, batch))

    value, gradient = jax.jit(jax.value_and_grad(by_mjx))(jnp.asarray(z))
    np.testing.assert_allclose(value, by_c(z), rtol=1e-9)
    expected = numeric(by_c, z, 1e-5 * vector.scale)
    np.testing.assert_allclose(gradient, expected, rtol=2e-5, atol=2e-5 * np.abs(expected).max())
    # The physics' and sensors' shares are really there: with the corrector they are one vector.
    assert (np.abs(expected[len(vector.weights) :]) > 1.0).all()


def test_a_late_sensor_shows_what_it_read_then():
    """With no correction the chain is a simulation, and a late channel its own past, interpolated."""
    vector, scales, given = problem("gain", seconds=0.3, free=("sensor/speed/delay",))
    z = vector.initial.copy()
    z[: len(vector.weights)], z[-1] = 0.0, 0.025
    late = CFilter(vector, scales, given, threads=1).run(z, given.start)
    z[-1] = 0.0
    prompt = CFilter(vector, scales, given, threads=1).run(z, given.start)
    np.testing.assert_array_equal(late.states, prompt.states)
    np.testing.assert_array_equal(late.predicted[..., 0], prompt.predicted[..., 0])
    speed = np.concatenate([given.start[:, None, 1], prompt.states[..., 1]], 1)
    steps = np.arange(speed.shape[1])
    for row, shown in zip(speed, late.predicted[..., 1], strict=True):
        np.testing.assert_allclose(shown, np.interp(steps[1:] - 2.5, steps, row), atol=1e-12)


@pytest.mark.parametrize("kind", [kind for kind, made in CORRECTORS.items() if not made.linearises])
def test_the_least_squares_derivative_is_that_of_the_cost(kind):
    vector, scales, given = problem(kind, seconds=0.2, units=2)
    z = anywhere(vector)
    cost = WindowedEstimation(CFilter(vector, scales, given, threads=1), warm_up=3, robust=4.0)
    residual, jacobian, _ = cost.linearize(z, given.start)
    expected = numeric(lambda z: cost.residual(z.copy(), given.start), z, 1e-5 * vector.scale)
    np.testing.assert_allclose(residual, cost.residual(z, given.start), atol=1e-12)
    np.testing.assert_allclose(jacobian, expected, atol=2e-4 * np.abs(expected).max())
    assert (np.abs(expected).max((0, 1)) > 0).mean() > 0.4


def test_without_measurements_the_state_is_the_prediction_and_the_memory_stays():
    vector, scales, given = problem("recurrent", seconds=0.2)
    z = anywhere(vector)
    hidden = np.ones(given.measured.shape[1], bool)
    hidden[5:9] = False
    full = CFilter(vector, scales, given, threads=1).run(z, given.start)
    some = CFilter(vector, scales, given, visible=hidden, threads=1).run(z, given.start)
    np.testing.assert_allclose(some.states[:, :4], full.states[:, :4])
    # jointpos and jointvel are the state itself, so the readings predicted are the states wherever nothing corrects.
    np.testing.assert_allclose(some.states[:, 4:8], some.predicted[:, 4:8], atol=1e-12)
    assert np.abs(full.states[:, 4:8] - full.predicted[:, 4:8]).max() > 1e-5


@pytest.mark.parametrize(("degrees", "low", "high"), [(2.0, 1.5, 2.5), (np.inf, 30.0, 100.0)])
def test_the_degrees_of_freedom_are_estimated_with_the_noise(degrees, low, high, monkeypatch):
    vector, scales, given = problem("gain", seconds=0.5)
    cost = WindowedEstimation(CFilter(vector, scales, given, threads=1), warm_up=3, robust="auto")
    rng, shape = np.random.default_rng(0), (40, 100, 2)
    drawn = rng.normal(size=shape) if np.isinf(degrees) else rng.standard_t(degrees, size=shape)
    # Errors of a known distribution take the place of the filter's.
    monkeypatch.setattr(cost, "innovations", lambda z, x: np.array([0.01, 2.0]) * drawn)
    cost._seen, cost._lead = np.ones(shape, bool), np.zeros(shape[1], int)
    cost._members = np.ones((1, shape[1]))
    cost.reweight(vector.initial, given.start)
    assert cost.degrees is not None
    assert (low <= cost.degrees).all()
    assert (cost.degrees <= high).all()
    np.testing.assert_allclose(cost.sigma[0], [0.01, 2.0], rtol=0.1)
    # 95% of such errors lie within 1.96 of the deviations told.
    told = 1.96 * cost.sigma[0] * cost.coverage_factor()
    assert abs((np.abs(cost.innovations(None, None)) < told).mean() - 0.95) < 0.01


def test_students_t_does_not_follow_outliers():
    vector, scales, given = problem("gain", seconds=0.5)
    clean = WindowedEstimation(CFilter(vector, scales, given, threads=1), warm_up=3)
    clean.reweight(vector.initial, given.start)
    given.measured[0, 20, :] += 50.0
    wild = {}
    for robust in (None, 4.0):
        cost = WindowedEstimation(CFilter(vector, scales, given, threads=1), warm_up=3, robust=robust)
        hidden = np.ones(given.measured.shape[1], bool)
        hidden[20] = False
        cost.chain._visible = hidden
        cost.reweight(vector.initial, given.start)
        wild[robust] = cost.sigma[0]
    assert (wild[None] > 20 * clean.sigma[0]).all()
    assert (wild[4.0] < 2 * clean.sigma[0]).all()
